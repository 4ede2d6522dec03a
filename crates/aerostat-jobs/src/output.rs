//! Result files: whole lines, durable before they are counted.
//!
//! A packed file grows by one gzip member or zstd frame for each commit, so that what is durable can be read, and what
//! a crash left behind it can be cut off.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::disk::{Disk, DiskFile};
use crate::error::{Error, ErrorKind};
use crate::input::Packing;

const ZSTD_LEVEL: i32 = 3;
/// What a commit is to write is handed to the file in pieces of about this size: a line may be large.
const PIECE_BYTES: usize = 1 << 20;

/// A file of results that grows.
pub(crate) struct Appender {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    packing: Packing,
    /// Size of what is durable and counted.
    counted_bytes: u64,
    /// Bytes in the file behind that: what the next commit makes durable.
    spilled_bytes: u64,
    /// What is to be written; `None`: nothing.
    pending: Option<Pending>,
}

/// What is to be written next, packed.
enum Pending {
    Plain(Vec<u8>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

impl Pending {
    fn new(packing: Packing) -> io::Result<Self> {
        Ok(match packing {
            Packing::Plain => Self::Plain(Vec::new()),
            Packing::Gzip => Self::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::default()))),
            Packing::Zstd => Self::Zstd(zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(packed) => packed.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// What is packed so far.
    fn packed(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Plain(packed) => packed,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// The rest: a member or a frame ends here.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(packed) => Ok(packed),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// Packs a text as the name of its file says: `.gz`, `.zst`, or not at all.
#[derive(Default)]
pub struct Packer(Option<Pending>);

impl Packer {
    /// For a file of this name.
    ///
    /// # Errors
    /// Memory is short.
    pub fn of(path: &Path) -> io::Result<Self> {
        match Packing::of(path) {
            Packing::Plain => Ok(Self(None)),
            packing => Pending::new(packing).map(|pending| Self(Some(pending))),
        }
    }

    /// Takes more of the text and gives what is packed by now.
    ///
    /// # Errors
    /// Memory is short.
    pub fn pack(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let Some(pending) = &mut self.0 else { return Ok(bytes.to_vec()) };
        pending.write(bytes)?;
        Ok(std::mem::take(pending.packed()))
    }

    /// Gives the rest.
    ///
    /// # Errors
    /// Memory is short.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.0.map_or_else(|| Ok(Vec::new()), Pending::finish)
    }
}

impl Appender {
    /// Opens the file for this process alone. Nothing in it is counted yet.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, Error> {
        Self::packed(disk, path, Packing::of(path))
    }

    /// The same for a file whose name does not say how it is packed.
    pub(crate) fn packed(disk: &dyn Disk, path: &Path, packing: Packing) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::file(ErrorKind::Disk, "open", path, &e);
        let mut file = disk.open(path).map_err(failed)?;
        if !file.lock().map_err(failed)? {
            let message = format!(
                "another process writes {}; wait for it, or stop it with one Ctrl-C or SIGTERM",
                path.display()
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        Ok(Self { path: path.to_owned(), file, packing, counted_bytes: 0, spilled_bytes: 0, pending: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn size(&self) -> Result<u64, Error> {
        self.file.size().map_err(|e| self.failed("look at", &e))
    }

    /// Throws away all but the first bytes.
    pub(crate) fn cut(&mut self, bytes: u64) -> Result<(), Error> {
        (self.pending, self.spilled_bytes) = (None, 0);
        self.counted_bytes = bytes;
        self.file.truncate(bytes).and_then(|()| self.file.sync()).map_err(|e| self.failed("cut", &e))
    }

    /// Takes up the file where the database says it was; gives the whole lines that a crash left behind that, and cuts
    /// them off: they are to be added again if they count, since they may never have reached the disk. Nothing is cut where `look`
    /// finds something that it does not expect among them.
    pub(crate) fn recover(
        &mut self,
        counted_bytes: u64,
        look: impl FnOnce(&[Vec<u8>]) -> Result<(), Error>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let bytes = self.size()?;
        if bytes < counted_bytes {
            let message = format!(
                "{} has {bytes} bytes, but {counted_bytes} of results were written: it was changed; \
                 --restart begins anew",
                self.path.display()
            );
            return Err(Error::new(ErrorKind::Changed, message));
        }
        self.counted_bytes = counted_bytes;
        if bytes == counted_bytes {
            return Ok(Vec::new());
        }
        let mut tail = Vec::new();
        let read = self.file.read_from(counted_bytes).and_then(|mut r| r.read_to_end(&mut tail));
        read.map_err(|e| self.failed("read", &e))?;
        let text = match self.packing {
            Packing::Plain => tail,
            Packing::Gzip => unpack(&tail, gzip_member),
            Packing::Zstd => unpack(&tail, zstd_frame),
        };
        let whole = text.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
        let lines: Vec<Vec<u8>> = whole.map(<[u8]>::to_vec).collect();
        look(&lines)?;
        self.file
            .truncate(counted_bytes)
            .and_then(|()| self.file.sync())
            .map_err(|e| self.failed("repair", &e))?;
        Ok(lines)
    }

    /// Adds a line to what the next commit writes.
    pub(crate) fn push(&mut self, line: &[u8]) -> Result<(), Error> {
        let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
        let added = self.add(line).and_then(|()| self.add(end));
        added.map_err(|e| self.failed("write results to", &e))
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let pending = match &mut self.pending {
            Some(pending) => pending,
            none => none.insert(Pending::new(self.packing)?),
        };
        pending.write(bytes)?;
        if pending.packed().len() < PIECE_BYTES {
            return Ok(());
        }
        let piece = std::mem::take(pending.packed());
        self.append(&piece)
    }

    /// Writes behind what is counted. After an error the file is cut back to that, if the disk lets us; else the next start
    /// does it.
    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        let written = self.file.append(piece);
        match written {
            Ok(()) => self.spilled_bytes += piece.len() as u64,
            Err(_) => drop(self.file.truncate(self.counted_bytes)),
        }
        written
    }

    /// Writes what is pending and waits until it is durable; gives the size that may be counted now. After an error nothing
    /// more is counted.
    pub(crate) fn commit(&mut self) -> Result<u64, Error> {
        self.unchanged()?;
        let Some(pending) = self.pending.take() else { return Ok(self.counted_bytes) };
        let rest = pending.finish().map_err(|e| self.failed("pack results for", &e))?;
        let written = self
            .append(&rest)
            .and_then(|()| self.file.sync().inspect_err(|_| drop(self.file.truncate(self.counted_bytes))));
        written.map_err(|e| self.failed("write results to", &e))?;
        self.counted_bytes += std::mem::take(&mut self.spilled_bytes);
        Ok(self.counted_bytes)
    }

    /// An error if anybody else removed, replaced, shortened or lengthened the file.
    fn unchanged(&self) -> Result<(), Error> {
        let is_there = self.file.is_at(&self.path).map_err(|e| self.failed("look at", &e))?;
        let (bytes, written) = (self.size()?, self.counted_bytes + self.spilled_bytes);
        if is_there && bytes == written {
            return Ok(());
        }
        let what = match is_there {
            true => format!("has {bytes} bytes, and {written} were written to it"),
            false => "was removed or replaced".to_owned(),
        };
        let message = format!(
            "{} {what}: it was changed while the job ran; put back what it held, or --restart begins anew",
            self.path.display()
        );
        Err(Error::new(ErrorKind::Changed, message))
    }

    pub(crate) fn failed(&self, what: &str, error: &io::Error) -> Error {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull => "; free some space and give the same command again: it goes on",
            _ => "; what was counted before is safe, and the same command goes on",
        };
        let message = format!("cannot {what} {}: {error}{hint}", self.path.display());
        Error::new(ErrorKind::Disk, message)
    }
}

/// Adds text to what the next commit writes.
impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks members one by one as long as they are whole.
fn unpack(mut tail: &[u8], member: fn(&mut &[u8]) -> io::Result<Vec<u8>>) -> Vec<u8> {
    let mut text = Vec::new();
    while !tail.is_empty() {
        let Ok(more) = member(&mut tail) else { break };
        text.extend(more);
    }
    text
}

fn gzip_member(tail: &mut &[u8]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(tail).read_to_end(&mut text)?;
    Ok(text)
}

fn zstd_frame(tail: &mut &[u8]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut decoder = zstd::Decoder::with_buffer(&mut *tail)?.single_frame();
    decoder.read_to_end(&mut text)?;
    let rest = decoder.finish();
    // Makes sure that progress is made, so that broken input cannot hang us.
    if rest.fill_buf()?.is_empty() && text.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::System;

    #[test]
    fn a_torn_tail_is_cut_to_whole_lines_in_every_packing() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
            let path = folder.path().join(name);
            let counted = {
                let mut out = Appender::open(&System, &path).unwrap();
                out.push(b"one").unwrap();
                let counted = out.commit().unwrap();
                out.push(b"two").unwrap();
                out.push(b"three").unwrap();
                out.commit().unwrap();
                out.push(b"four, which will be torn").unwrap();
                out.commit().unwrap();
                counted
            };
            let whole = std::fs::read(&path).unwrap();
            for cut in counted as usize..=whole.len() {
                std::fs::write(&path, &whole[..cut]).unwrap();
                let mut out = Appender::open(&System, &path).unwrap();
                let left = out.recover(counted, |_| Ok(())).unwrap();
                let want: [&[u8]; 3] = [b"two\n", b"three\n", b"four, which will be torn\n"];
                assert!(left.len() <= 3 && left.iter().zip(want).all(|(l, w)| l == w), "{name} at {cut}");
                assert_eq!(cut == whole.len(), left.len() == 3, "{name} at {cut}");
                assert_eq!(out.size().unwrap(), counted);
            }
            std::fs::write(&path, &whole[..counted as usize - 1]).unwrap();
            let refused = Appender::open(&System, &path).unwrap().recover(counted, |_| Ok(())).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Changed);
        }
    }

    /// A line of many parts is larger than what memory has room for.
    #[test]
    fn a_large_line_goes_to_the_file_before_it_is_counted_and_is_whole_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let noise = |i: u32| i.wrapping_mul(2_654_435_761).to_string();
        let line: String = (0..400_000).map(noise).collect();
        for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
            let path = folder.path().join(name);
            let mut out = Appender::open(&System, &path).unwrap();
            out.push(b"first").unwrap();
            let counted = out.commit().unwrap();
            line.as_bytes().chunks(1000).for_each(|piece| out.write_all(piece).unwrap());
            assert!(out.size().unwrap() > counted, "{name}: some of it is there");
            assert!(out.pending.as_mut().unwrap().packed().len() < 2 * PIECE_BYTES);
            out.push(b"").unwrap();
            let whole = out.commit().unwrap();
            assert_eq!(whole, out.size().unwrap());
            drop(out);
            let left = Appender::open(&System, &path).unwrap().recover(counted, |_| Ok(())).unwrap();
            assert_eq!(left, [[line.as_bytes(), b"\n"].concat()], "{name}");
        }
    }

    #[test]
    fn two_processes_cannot_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let _first = Appender::open(&System, &path).unwrap();
        let second = Appender::open(&System, &path).err().map(|e| e.kind());
        assert_eq!(second, Some(ErrorKind::Busy));
    }
}
