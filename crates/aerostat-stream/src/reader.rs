//! One whole extent through a file that may be interrupted, read short, fail or end early. Every source
//! reads through here, simulated ones included, so the retries that tests see are the real ones.

use std::io;
use std::ops::Range;

use aerostat_checkpoint::{Extent, File, FileId};

use crate::error::{Error, ErrorKind};
use crate::source::Span;

/// Reads in a row that may end before the first whole unit of alignment. Only the end of a file reads so
/// on a real disk, and then for ever.
const STUCK_READS_MAX: u32 = 8;

/// Read calls of one extent that may be refused for the moment (EAGAIN): the kernel is short of something.
const REFUSALS_MAX: u32 = 1000;

/// Files that can be read at an offset: the system's, or simulated ones.
pub trait Positional: Send + Sync + 'static {
    /// One read call: some bytes of `file` from `offset` into `out`, their number, 0 at the file's end.
    /// Offset, address and length are multiples of the source's alignment.
    ///
    /// # Errors
    /// Those of the system; `Interrupted` and `WouldBlock` are tried again by the caller.
    fn read_at(&self, file: FileId, offset: u64, out: &mut [u8]) -> io::Result<usize>;
}

/// Open files, their names and lengths, and the alignment to read them with.
pub(crate) struct Reader<P> {
    files: P,
    table: Vec<File>,
    alignment: usize,
}

impl<P: Positional> Reader<P> {
    /// `alignment` is a power of two.
    pub(crate) fn new(files: P, table: Vec<File>, alignment: usize) -> Self {
        Reader { files, table, alignment }
    }

    pub(crate) fn files(&self) -> &P {
        &self.files
    }

    pub(crate) fn alignment(&self) -> usize {
        self.alignment
    }

    /// Reads the extent; returns where in `buffer` it lies.
    pub(crate) fn read(&self, extent: Extent, buffer: &mut [u8]) -> Result<Range<usize>, Error> {
        let mut progress = self.begin(extent, buffer.len())?;
        while !progress.is_whole() {
            let (offset, range) = progress.rest();
            let out = buffer.get_mut(range).unwrap_or_default();
            let answer = self.files.read_at(extent.file, offset, out);
            self.advance(&mut progress, answer)?;
        }
        Ok(progress.range())
    }

    /// The start of a read of the extent into a buffer of `room` bytes.
    pub(crate) fn begin(&self, extent: Extent, room: usize) -> Result<Progress, Error> {
        let file = self.check(extent)?;
        let span = match extent.bytes {
            0 => Span { offset: 0, head: 0, need: 0, bytes: 0 },
            _ => Span::around(extent, self.alignment)?,
        };
        if span.bytes > room {
            let message = format!(
                "{}: {} with its margins does not fit a buffer of {room} bytes",
                name(file),
                text(extent)
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(Progress { extent, span, done: 0, stuck: 0, refused: 0 })
    }

    /// Takes in what a read call for [`Progress::rest`] answered. The read goes on until it is whole: after a
    /// short answer from the last whole unit of alignment, since a direct read cannot start elsewhere.
    pub(crate) fn advance(&self, progress: &mut Progress, answer: io::Result<usize>) -> Result<(), Error> {
        let Progress { extent, span, done, .. } = *progress;
        let read = match answer {
            Ok(read) => read.min(span.bytes - done),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && progress.refused < REFUSALS_MAX => {
                progress.refused += 1;
                return Ok(());
            }
            Err(error) => return Err(self.failed(extent, error)),
        };
        if done + read >= span.need {
            progress.done = span.need;
            return Ok(());
        }
        let ahead = (done + read) / self.alignment * self.alignment;
        progress.stuck = if ahead == done { progress.stuck + 1 } else { 0 };
        if read == 0 || progress.stuck == STUCK_READS_MAX {
            return Err(self.shrunk(extent));
        }
        progress.done = ahead;
        Ok(())
    }

    /// The extent's file, once the extent is known to lie within it.
    pub(crate) fn check(&self, extent: Extent) -> Result<&File, Error> {
        let Some(file) = self.table.get(extent.file.0 as usize) else {
            let message = format!("file {} of {} open files does not exist", extent.file.0, self.table.len());
            return Err(Error::new(ErrorKind::Bounds, message));
        };
        match extent.offset.checked_add(extent.bytes) {
            Some(end) if end <= file.bytes => Ok(file),
            _ => {
                let message =
                    format!("{}: {} lies beyond its {} bytes", name(file), text(extent), file.bytes);
                Err(Error::new(ErrorKind::Bounds, message))
            }
        }
    }

    fn failed(&self, extent: Extent, cause: io::Error) -> Error {
        let file = self.table.get(extent.file.0 as usize).map(name).unwrap_or_default();
        Error::caused(ErrorKind::Io, format!("{file}: {} cannot be read", text(extent)), cause)
    }

    fn shrunk(&self, extent: Extent) -> Error {
        let file = self.table.get(extent.file.0 as usize).map(name).unwrap_or_default();
        let message = format!(
            "{file}: the file is shorter than when it was opened: it ends before {} does; \
             leave it alone while it is in use, or fetch it again",
            text(extent)
        );
        Error::new(ErrorKind::Shrunk, message)
    }
}

/// One extent on its way into a buffer, read call by read call. It knows neither who calls nor how long a call
/// takes, so one thread can drive one or many.
#[derive(Debug)]
pub(crate) struct Progress {
    extent: Extent,
    span: Span,
    /// Bytes of the span that are read: a multiple of the alignment, or at least all that is needed.
    done: usize,
    /// Calls in a row that did not end a unit of alignment.
    stuck: u32,
    /// Calls that were refused for the moment.
    refused: u32,
}

impl Progress {
    /// Whether there is nothing left to read.
    pub(crate) fn is_whole(&self) -> bool {
        self.done >= self.span.need
    }

    /// What the next call has to read: from this offset of the file into this range of the buffer.
    pub(crate) fn rest(&self) -> (u64, Range<usize>) {
        (self.span.offset + self.done as u64, self.done..self.span.bytes)
    }

    /// Where in the buffer the extent lies once it is whole.
    pub(crate) fn range(&self) -> Range<usize> {
        self.span.head..self.span.need
    }
}

fn name(file: &File) -> String {
    file.path.display().to_string()
}

fn text(extent: Extent) -> String {
    format!("the extent of {} bytes at offset {}", extent.bytes, extent.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::buffer_bytes;

    #[test]
    fn spans_are_aligned_and_fit_the_buffers_made_for_them() {
        for alignment in [1, 512, 4096, 65536] {
            for offset in [0, 1, 511, 512, 4095, 4096, 65535, 1 << 40] {
                for bytes in [0u64, 1, 511, 512, 513, 4096, 70_000] {
                    let span = Span::around(Extent { file: FileId(0), offset, bytes }, alignment).unwrap();
                    assert_eq!(span.offset % alignment as u64, 0);
                    assert_eq!(span.bytes % alignment, 0);
                    assert_eq!(span.offset + span.head as u64, offset);
                    assert_eq!(span.need - span.head, bytes as usize);
                    assert!(span.bytes <= buffer_bytes(bytes as usize, alignment).unwrap());
                }
            }
        }
        assert_eq!(buffer_bytes(usize::MAX, 512), None);
    }
}
