//! As much of the zip format as PyTorch writes: a central directory, with 64-bit sizes or without, of stored files.
//!
//! Source: PKWARE's APPNOTE, sections 4.3 and 4.5.3. The directory is the only authority; of a file's own header only
//! the lengths count that say where its bytes start.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::limits::{HEADER_BYTES_MAX, TENSORS_MAX};
use crate::{Error, ErrorKind, File, disk};

/// The end record: signature, eight bytes about disks and counts, sizes, and a comment of up to 64 KiB.
const END_BYTES: u64 = 22;
const COMMENT_BYTES_MAX: u64 = u16::MAX as u64;
const END_SIGNATURE: &[u8; 4] = b"PK\x05\x06";
/// Where the 64-bit end record is, right before the end record.
const LOCATOR_BYTES: u64 = 20;
const LOCATOR_SIGNATURE: u32 = 0x0706_4b50;
const LONG_END_BYTES: u64 = 56;
const LONG_END_SIGNATURE: u32 = 0x0606_4b50;
const ENTRY_SIGNATURE: u32 = 0x0201_4b50;
const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const LOCAL_BYTES: u64 = 30;
/// The extra field with 64-bit sizes.
const LONG_SIZES: u16 = 1;
const ENCRYPTED: u16 = 1;
const STORED: u16 = 0;

/// An archive of which the directory has been read.
pub(super) struct Archive<'a, S> {
    source: S,
    file: &'a File,
    entries: BTreeMap<String, Entry>,
}

/// A file in the archive.
struct Entry {
    flags: u16,
    method: u16,
    packed_bytes: u64,
    bytes: u64,
    /// Where its own header starts.
    header: u64,
}

/// Where the directory is, and what it has.
struct Directory {
    offset: u64,
    bytes: u64,
    entries: u64,
}

impl<'a, S: Read + Seek> Archive<'a, S> {
    /// Reads the directory of `file`, whose bytes are `source`.
    pub(super) fn open(mut source: S, file: &'a File) -> Result<Archive<'a, S>, Error> {
        let path = file.path.as_path();
        let directory = find_directory(&mut source, file)?;
        let fail = |message: String| Error::new(ErrorKind::Header, path, message);
        if directory.offset.checked_add(directory.bytes).is_none_or(|end| end > file.bytes) {
            let message = format!(
                "the zip directory would be {} bytes at offset {}, but the file has {}",
                directory.bytes, directory.offset, file.bytes
            );
            return Err(fail(message));
        }
        if directory.bytes > HEADER_BYTES_MAX || directory.entries > TENSORS_MAX as u64 {
            let message = format!(
                "the zip directory has {} bytes and {} entries, more than the {HEADER_BYTES_MAX} and {TENSORS_MAX} \
                 that are read",
                directory.bytes, directory.entries
            );
            return Err(fail(message));
        }
        let bytes = read_at(&mut source, directory.offset, directory.bytes, path)?;
        let mut fields = Fields(&bytes);
        let mut entries = BTreeMap::new();
        for _ in 0..directory.entries {
            let (name, entry) =
                fields.entry().ok_or_else(|| fail("the zip directory is malformed".to_owned()))?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(fail(format!("the zip directory has {name:?} twice")));
            }
        }
        Ok(Archive { source, file, entries })
    }

    /// The folder (with its `/`) of the only file called `name` that lies in a folder at the top.
    pub(super) fn folder_of(&self, name: &str) -> Result<String, (ErrorKind, String)> {
        let folder = |entry: &str| {
            let folder = entry.strip_suffix(name)?;
            (folder.find('/')? + 1 == folder.len()).then(|| folder.to_owned())
        };
        let folders: Vec<String> = self.entries.keys().filter_map(|entry| folder(entry)).collect();
        match <[String; 1]>::try_from(folders) {
            Ok([folder]) => Ok(folder),
            Err(folders) => {
                let message = format!(
                    "the zip archive has {name} {} times where a PyTorch checkpoint has it once",
                    folders.len()
                );
                Err((ErrorKind::Unsupported, message))
            }
        }
    }

    /// Offset in the file and length of the bytes of the entry `name`, if there is one.
    pub(super) fn place(&mut self, name: &str) -> Result<Option<(u64, u64)>, Error> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let path = self.file.path.as_path();
        let fail = |kind, message: &str| Err(Error::new(kind, path, format!("{name:?} {message}")));
        if entry.flags & ENCRYPTED != 0 {
            return fail(ErrorKind::Unsupported, "is encrypted");
        }
        if entry.method != STORED || entry.packed_bytes != entry.bytes {
            let message = "is compressed, which PyTorch never does and which cannot be read in place: unpack it and save it again";
            return fail(ErrorKind::Unsupported, message);
        }
        let (header, bytes) = (entry.header, entry.bytes);
        if header.checked_add(LOCAL_BYTES).is_none_or(|end| end > self.file.bytes) {
            return fail(ErrorKind::OutOfRange, "starts outside the file");
        }
        let local = read_at(&mut self.source, header, LOCAL_BYTES, path)?;
        let mut fields = Fields(&local);
        let (signature, _) = (fields.u32(), fields.take(22));
        let (name_bytes, extra_bytes) = (fields.u16(), fields.u16());
        let (Some(LOCAL_SIGNATURE), Some(name_bytes), Some(extra_bytes)) =
            (signature, name_bytes, extra_bytes)
        else {
            return fail(ErrorKind::Header, "has no zip header where the directory says");
        };
        let name_at = header + LOCAL_BYTES;
        let start = name_at.saturating_add(name_bytes.into()).saturating_add(extra_bytes.into());
        if start.checked_add(bytes).is_none_or(|end| end > self.file.bytes) {
            return fail(ErrorKind::OutOfRange, "ends outside the file; was the download finished?");
        }
        if read_at(&mut self.source, name_at, name_bytes.into(), path)? != name.as_bytes() {
            return fail(ErrorKind::Header, "has another name in its own header");
        }
        Ok(Some((start, bytes)))
    }

    /// The bytes of the entry `name`, if there is one; of at most `bytes_max`.
    pub(super) fn read(&mut self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((offset, bytes)) = self.place(name)? else { return Ok(None) };
        let path = self.file.path.as_path();
        if bytes > bytes_max {
            let message = format!("{name:?} has {bytes} bytes, more than the {bytes_max} that are read");
            return Err(Error::new(ErrorKind::Header, path, message));
        }
        read_at(&mut self.source, offset, bytes, path).map(Some)
    }
}

/// Finds the end record, and the 64-bit one where that says so.
fn find_directory(source: &mut (impl Read + Seek), file: &File) -> Result<Directory, Error> {
    let path = file.path.as_path();
    let start = file.bytes.saturating_sub(END_BYTES + COMMENT_BYTES_MAX);
    let tail = read_at(source, start, file.bytes - start, path)?;
    // The last signature after which a comment ends with the file.
    let ends_file = |at: usize| {
        let mut fields = Fields(tail.get(at..).unwrap_or_default());
        fields.take(20).and_then(|_| fields.u16()).is_some_and(|comment| fields.0.len() == comment as usize)
    };
    let is_end = |at: &usize| tail.get(*at..).is_some_and(|rest| rest.starts_with(END_SIGNATURE));
    let Some(at) = (0..tail.len()).rev().find(|at| is_end(at) && ends_file(*at)) else {
        let message = "the file does not end as a zip archive does; if it was downloaded or copied, that was not \
                       finished, or it is no PyTorch checkpoint";
        return Err(Error::new(ErrorKind::Truncated, path, message));
    };
    let mut fields = Fields(tail.get(at..).unwrap_or_default());
    let malformed = || Error::new(ErrorKind::Header, path, "the end record of the zip archive is malformed");
    let short = (|| {
        fields.take(10)?;
        let entries = fields.u16()?.into();
        Some(Directory { bytes: fields.u32()?.into(), offset: fields.u32()?.into(), entries })
    })()
    .ok_or_else(malformed)?;
    let end = start + at as u64;
    let Some(locator) = end.checked_sub(LOCATOR_BYTES) else { return Ok(short) };
    let bytes = read_at(source, locator, LOCATOR_BYTES, path)?;
    let mut fields = Fields(&bytes);
    if fields.u32() != Some(LOCATOR_SIGNATURE) {
        return Ok(short);
    }
    let offset = fields.take(4).and_then(|_| fields.u64()).ok_or_else(malformed)?;
    if offset.checked_add(LONG_END_BYTES).is_none_or(|end| end > locator) {
        return Err(malformed());
    }
    let bytes = read_at(source, offset, LONG_END_BYTES, path)?;
    let mut fields = Fields(&bytes);
    let long = (|| {
        let signature = fields.u32()?;
        fields.take(28)?;
        let directory = Directory { entries: fields.u64()?, bytes: fields.u64()?, offset: fields.u64()? };
        (signature == LONG_END_SIGNATURE).then_some(directory)
    })();
    long.ok_or_else(malformed)
}

/// `bytes` bytes at `offset`; the caller has checked that the file has as many.
fn read_at(source: &mut (impl Read + Seek), offset: u64, bytes: u64, path: &Path) -> Result<Vec<u8>, Error> {
    source.seek(SeekFrom::Start(offset)).map_err(|error| Error::io(path, "read it", error))?;
    disk::read_bytes(source, bytes, path)
}

/// Little-endian fields, taken from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// One entry of the directory.
    fn entry(&mut self) -> Option<(String, Entry)> {
        if self.u32()? != ENTRY_SIGNATURE {
            return None;
        }
        self.take(4)?;
        let (flags, method) = (self.u16()?, self.u16()?);
        self.take(8)?;
        let (mut packed_bytes, mut bytes) = (self.u32()?.into(), self.u32()?.into());
        let (name_bytes, extra_bytes, comment_bytes) = (self.u16()?, self.u16()?, self.u16()?);
        self.take(8)?;
        let mut header = self.u32()?.into();
        let name = str::from_utf8(self.take(name_bytes.into())?).ok()?.to_owned();
        let mut extra = Fields(self.take(extra_bytes.into())?);
        self.take(comment_bytes.into())?;
        while extra.0.len() >= 4 {
            let (id, len) = (extra.u16()?, extra.u16()?);
            let mut field = Fields(extra.take(len.into())?);
            if id == LONG_SIZES {
                // Only those that do not fit their 32 bits are there, in this order.
                for value in [&mut bytes, &mut packed_bytes, &mut header] {
                    if *value == u64::from(u32::MAX) {
                        *value = field.u64()?;
                    }
                }
            }
        }
        Some((name, Entry { flags, method, packed_bytes, bytes, header }))
    }
}
