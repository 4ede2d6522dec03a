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

/// A file of results that grows.
pub(crate) struct Appender {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    packing: Packing,
    /// Size of what is durable and counted.
    counted_bytes: u64,
    pending: Vec<u8>,
}

impl Appender {
    /// Opens the file for this process alone. Nothing in it is counted yet.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::file(ErrorKind::Disk, "open", path, &e);
        let mut file = disk.open(path).map_err(failed)?;
        if !file.lock().map_err(failed)? {
            let message = format!(
                "another process writes {}; wait for it, or stop it with one Ctrl-C or SIGTERM",
                path.display()
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let packing = Packing::of(path);
        Ok(Self { path: path.to_owned(), file, packing, counted_bytes: 0, pending: Vec::new() })
    }

    pub(crate) fn size(&self) -> Result<u64, Error> {
        self.file.size().map_err(|e| self.failed("look at", &e))
    }

    /// Throws away all but the first bytes.
    pub(crate) fn cut(&mut self, bytes: u64) -> Result<(), Error> {
        self.pending.clear();
        self.counted_bytes = bytes;
        self.file.truncate(bytes).and_then(|()| self.file.sync()).map_err(|e| self.failed("cut", &e))
    }

    /// Takes up the file where the database says it was; gives the whole lines that a crash left behind that, and cuts
    /// them off: they are to be added again if they count, since they may never have reached the disk.
    pub(crate) fn recover(&mut self, counted_bytes: u64) -> Result<Vec<Vec<u8>>, Error> {
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
        self.file
            .truncate(counted_bytes)
            .and_then(|()| self.file.sync())
            .map_err(|e| self.failed("repair", &e))?;
        let text = match self.packing {
            Packing::Plain => tail,
            Packing::Gzip => unpack(&tail, gzip_member),
            Packing::Zstd => unpack(&tail, zstd_frame),
        };
        Ok(text.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")).map(<[u8]>::to_vec).collect())
    }

    /// Adds a line to what the next commit writes.
    pub(crate) fn push(&mut self, line: &[u8]) {
        self.pending.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            self.pending.push(b'\n');
        }
    }

    /// Writes what is pending and waits until it is durable; gives the size that may be counted now.
    ///
    /// After an error the file is cut back to what is counted, if the disk lets us; else the next start does it.
    pub(crate) fn commit(&mut self) -> Result<u64, Error> {
        if self.pending.is_empty() {
            return Ok(self.counted_bytes);
        }
        let packed = self.pack().map_err(|e| self.failed("pack results for", &e))?;
        let written = self.file.append(&packed).and_then(|()| self.file.sync());
        if let Err(e) = written {
            let _ = self.file.truncate(self.counted_bytes);
            return Err(self.failed("write results to", &e));
        }
        self.counted_bytes += packed.len() as u64;
        self.pending.clear();
        Ok(self.counted_bytes)
    }

    fn pack(&self) -> io::Result<Vec<u8>> {
        match self.packing {
            Packing::Plain => Ok(self.pending.clone()),
            Packing::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&self.pending)?;
                encoder.finish()
            }
            Packing::Zstd => zstd::encode_all(&self.pending[..], ZSTD_LEVEL),
        }
    }

    fn failed(&self, what: &str, error: &io::Error) -> Error {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull => "; free some space and give the same command again: it goes on",
            _ => "; what was counted before is safe, and the same command goes on",
        };
        let message = format!("cannot {what} {}: {error}{hint}", self.path.display());
        Error::new(ErrorKind::Disk, message)
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
                out.push(b"one");
                let counted = out.commit().unwrap();
                out.push(b"two");
                out.push(b"three");
                out.commit().unwrap();
                out.push(b"four, which will be torn");
                out.commit().unwrap();
                counted
            };
            let whole = std::fs::read(&path).unwrap();
            for cut in counted as usize..=whole.len() {
                std::fs::write(&path, &whole[..cut]).unwrap();
                let mut out = Appender::open(&System, &path).unwrap();
                let left = out.recover(counted).unwrap();
                let want: [&[u8]; 3] = [b"two\n", b"three\n", b"four, which will be torn\n"];
                assert!(left.len() <= 3 && left.iter().zip(want).all(|(l, w)| l == w), "{name} at {cut}");
                assert_eq!(cut == whole.len(), left.len() == 3, "{name} at {cut}");
                assert_eq!(out.size().unwrap(), counted);
            }
            std::fs::write(&path, &whole[..counted as usize - 1]).unwrap();
            let refused = Appender::open(&System, &path).unwrap().recover(counted).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Changed);
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
