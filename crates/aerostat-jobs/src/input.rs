//! The input, line by line, however it is packed and however it comes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::disk::sync_folder_of;
use crate::error::{Error, ErrorKind};

/// The longest line that is taken; longer ones become errors of their own.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 20;
/// Bytes of a pipe without a line's end at most.
const UNBROKEN_BYTES_MAX: usize = 64 << 20;

/// Lines and rows at most that are requests or should be: each is remembered.
pub(crate) const LINES_MAX: u64 = 10_000_000;
/// Memory that one takes. Measured: 31 bytes.
const REMEMBERED_BYTES: u64 = 32;
/// Bytes at most of lines that are nothing, blank or too long: a small packed file can hold any number of them.
const EMPTY_BYTES_MAX: u64 = 64 << 20;
const SKIPPED_BYTES_MAX: u64 = 4 << 30;
/// A buffer that a long line needed is not kept.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Lines or rows at most of an input, so that what is remembered of them stays within so many bytes.
pub(crate) fn lines_within(bytes: u64) -> u64 {
    (bytes / REMEMBERED_BYTES).min(LINES_MAX)
}

/// What there is too much of, where there are more than so many lines or rows.
pub(crate) fn more_than(most: u64, what: &str) -> String {
    let memory = if most < LINES_MAX { ", the most with so little memory (--memory)" } else { "" };
    format!("more than {most} {what}{memory}")
}

/// How a file is packed; its name says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Plain,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Packing {
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Unpacks what is read.
    pub(crate) fn reader<'a>(self, file: impl Read + Send + 'a) -> io::Result<Box<dyn BufRead + Send + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(BufReader::with_capacity(1 << 16, file)),
            Self::Gzip => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
            Self::Zstd => Box::new(BufReader::with_capacity(1 << 16, zstd::Decoder::new(file)?)),
        })
    }
}

/// The lines of a file that are not blank, one in memory at a time.
pub(crate) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Bytes that a line may have.
    most: usize,
    /// Lines at most that are not blank.
    lines_max: u64,
    /// Lines read so far, blank ones included.
    read: u64,
    /// Lines among them that are not blank.
    given: u64,
    /// Bytes of lines that are blank, and of those that are too long.
    empty_bytes: u64,
    skipped_bytes: u64,
    /// The line at hand fits.
    whole: bool,
}

/// A line.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// Its number in the file, from 0.
    pub(crate) number: u64,
    /// What it says; `None` if it is too long.
    pub(crate) bytes: Option<&'a [u8]>,
}

impl Lines {
    /// Opens a file, of whose lines none is read that has more than `most` bytes.
    pub(crate) fn open(path: &Path, most: usize) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::file(ErrorKind::Input, "read", path, &e);
        let reader = Packing::of(path).reader(File::open(path).map_err(failed)?).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            line: Vec::new(),
            most: most.min(LINE_BYTES_MAX),
            lines_max: LINES_MAX,
            read: 0,
            given: 0,
            empty_bytes: 0,
            skipped_bytes: 0,
            whole: false,
        })
    }

    /// The same of at most so many lines.
    pub(crate) fn up_to(self, lines_max: u64) -> Self {
        Self { lines_max, ..self }
    }

    /// The next line, but for blank ones.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, Error> {
        loop {
            let Some(whole) = self.advance()? else { return Ok(None) };
            let blank = whole && self.line.iter().all(u8::is_ascii_whitespace);
            if blank {
                self.empty_bytes += self.line.len() as u64;
            }
            self.given += u64::from(!blank);
            self.bound()?;
            if !blank {
                self.whole = whole;
                return Ok(self.at_hand());
            }
        }
    }

    /// The line that [`next`](Self::next) gave last.
    pub(crate) fn at_hand(&self) -> Option<Line<'_>> {
        let number = self.read.checked_sub(1)?;
        Some(Line { number, bytes: self.whole.then_some(&self.line[..]) })
    }

    /// Refuses what no batch file has in such numbers.
    fn bound(&self) -> Result<(), Error> {
        let what = match self {
            _ if self.given > self.lines_max => more_than(self.lines_max, "lines"),
            _ if self.empty_bytes > EMPTY_BYTES_MAX => {
                format!("more than {EMPTY_BYTES_MAX} bytes of blank lines")
            }
            _ if self.skipped_bytes > SKIPPED_BYTES_MAX => {
                format!("more than {SKIPPED_BYTES_MAX} bytes of lines that are too long")
            }
            _ => return Ok(()),
        };
        let message =
            format!("the input {} has {what}: it is no batch file, or must be split", self.path.display());
        Err(Error::new(ErrorKind::Input, message))
    }

    /// Reads one line; whether it fits, or `None` at the end.
    fn advance(&mut self) -> Result<Option<bool>, Error> {
        let failed = |path: &Path, e: io::Error| Error::file(ErrorKind::Input, "read", path, &e);
        self.line.clear();
        if self.line.capacity() > BUFFER_BYTES_MAX {
            self.line = Vec::new();
        }
        let limit = self.most as u64 + 1;
        let taken = (&mut self.reader).take(limit).read_until(b'\n', &mut self.line);
        if taken.map_err(|e| failed(&self.path, e))? == 0 {
            return Ok(None);
        }
        self.read += 1;
        let whole = self.line.ends_with(b"\n") || self.line.len() <= self.most;
        if !whole {
            self.line = Vec::new();
            let skipped = self.reader.skip_until(b'\n').map_err(|e| failed(&self.path, e))?;
            self.skipped_bytes += (skipped + self.most) as u64;
        }
        if self.read == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
        Ok(Some(whole))
    }
}

/// The SHA-256 of a file as it lies there, in hexadecimal.
pub(crate) fn digest(path: &Path) -> Result<String, Error> {
    let failed = |e: io::Error| Error::file(ErrorKind::Input, "read", path, &e);
    let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(failed)?);
    let mut sha = Sha256::new();
    loop {
        let count = match file.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                sha.update(bytes);
                bytes.len()
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        file.consume(count);
    }
    Ok(hexadecimal(&sha.finalize()))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps a copy of what comes through a pipe, since it comes once. An empty pipe stands for the copy that is there.
///
/// The copy is whole or absent; a second pipe with other contents takes its place only if `replace`. What has no end of a line
/// in [`UNBROKEN_BYTES_MAX`] is no input: it may have no end at all, as `/dev/zero`.
pub(crate) fn spool(pipe: impl Read, copy: &Path, replace: bool) -> Result<(), Error> {
    let part = copy.with_added_extension("part");
    let failed = |e: io::Error| Error::file(ErrorKind::Input, "keep a copy of the input in", &part, &e);
    let file = File::create(&part).map_err(failed)?;
    let kept = keep(pipe, file);
    if kept.is_err() {
        // A disk that is full stays so where a draft stays on it.
        let _ = std::fs::remove_file(&part);
    }
    let bytes = kept.map_err(failed)?;
    if bytes == 0 && copy.exists() {
        return std::fs::remove_file(&part).map_err(failed);
    }
    if copy.exists() && !replace {
        let same = digest(copy)? == digest(&part)?;
        std::fs::remove_file(&part).map_err(failed)?;
        if same {
            return Ok(());
        }
        let message = format!(
            "the input is not what this job was begun with (its copy is {}); \
             --restart begins anew and gives up what is done",
            copy.display()
        );
        return Err(Error::new(ErrorKind::Changed, message));
    }
    std::fs::rename(&part, copy).and_then(|()| sync_folder_of(copy)).map_err(failed)
}

/// Copies a pipe to a file and gives its bytes.
fn keep(mut pipe: impl Read, mut file: File) -> io::Result<u64> {
    let (mut bytes, mut unbroken, mut buffer) = (0, 0, vec![0; 64 << 10]);
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(0) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let read = &buffer[..count];
        bytes += count as u64;
        unbroken = match read.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => count - end,
            None => unbroken + count,
        };
        if unbroken > UNBROKEN_BYTES_MAX {
            let message = format!("there is no line's end in {UNBROKEN_BYTES_MAX} bytes of it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        file.write_all(read)?;
    }
    file.flush().and_then(|()| file.sync_all())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &Path) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines::open(path, usize::MAX).unwrap();
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            let text = line.bytes.map(|b| String::from_utf8_lossy(b).trim_end().to_owned());
            found.push((line.number, text));
        }
        found
    }

    #[test]
    fn lines_are_the_same_however_they_are_packed() {
        let folder = tempfile::tempdir().unwrap();
        let text = b"\xef\xbb\xbf{\"a\":1}\n\n  \r\nsecond\nlast without an end";
        let want = [(0, "{\"a\":1}"), (3, "second"), (4, "last without an end")]
            .map(|(n, t)| (n, Some(t.to_owned())));
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        // Two members in one file are one text.
        let members = [gzip(&text[..9]), gzip(&text[9..])].concat();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        for (name, bytes) in [("a.jsonl", text.to_vec()), ("a.jsonl.gz", members), ("a.jsonl.zst", zstd)] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(all(&path), want, "{name}");
        }
    }

    /// Ten million bad lines once took 330 MiB, whatever the budget.
    #[test]
    fn as_many_lines_are_read_as_the_memory_can_remember() {
        assert_eq!([4 << 20, 25 << 20, u64::MAX].map(lines_within), [131_072, 819_200, LINES_MAX]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("many.jsonl");
        std::fs::write(&path, "a\n\nb\nc\n").unwrap();
        let mut lines = Lines::open(&path, usize::MAX).unwrap().up_to(2);
        assert!(lines.next().unwrap().is_some() && lines.next().unwrap().is_some());
        let told = lines.next().err().unwrap().to_string();
        assert!(told.contains("more than 2 lines, the most with so little memory"), "{told}");
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.jsonl");
        let mut text = vec![b'a'; LINE_BYTES_MAX + 5];
        text.extend(b"\nnext\n");
        std::fs::write(&path, text).unwrap();
        assert_eq!(all(&path), [(0, None), (1, Some("next".to_owned()))]);
    }

    /// A gigabyte of them is a megabyte where it is packed.
    #[test]
    fn blank_lines_without_end_are_bounded_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bomb.jsonl.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for _ in 0..EMPTY_BYTES_MAX / 1024 + 1 {
            encoder.write_all(&[b'\n'; 1024]).unwrap();
        }
        std::fs::write(&path, encoder.finish().unwrap()).unwrap();
        let refused = Lines::open(&path, usize::MAX).unwrap().next().err().map(|e| (e.kind(), e.to_string()));
        let (kind, message) = refused.unwrap();
        assert_eq!(kind, ErrorKind::Input);
        assert!(message.contains("blank lines"), "{message}");
    }

    /// `/dev/zero` filled the disk, and the draft stayed.
    #[test]
    fn a_pipe_without_lines_is_given_up_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy");
        let refused = spool(io::repeat(0), &copy, false).unwrap_err();
        assert!(refused.to_string().contains("no line's end"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_pipe_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("out.jsonl.input");
        spool(&b"one\n"[..], &copy, false).unwrap();
        spool(&b""[..], &copy, false).unwrap();
        spool(&b"one\n"[..], &copy, false).unwrap();
        assert_eq!(spool(&b"two\n"[..], &copy, false).unwrap_err().kind(), ErrorKind::Changed);
        assert_eq!(std::fs::read(&copy).unwrap(), b"one\n");
        spool(&b"two\n"[..], &copy, true).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), b"two\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
