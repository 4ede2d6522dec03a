//! What a source of bytes is: owned buffers go in, filled buffers come out, in any order.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use aerostat_checkpoint::Extent;

use crate::buffer::{AlignedBuffer, PAGE_BYTES};
use crate::error::{Error, ErrorKind};

/// How a source reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoKind {
    /// Past the page cache, by a pool of threads.
    Direct,
    /// Past the page cache, by Linux' io_uring.
    Uring,
    /// Through the page cache, which is told to forget what was read.
    Buffered,
    /// From a script, for tests.
    Simulated,
}

impl IoKind {
    /// The name of the kind as users write it.
    pub fn name(self) -> &'static str {
        match self {
            IoKind::Direct => "direct",
            IoKind::Uring => "uring",
            IoKind::Buffered => "buffered",
            IoKind::Simulated => "simulated",
        }
    }
}

impl fmt::Display for IoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One read to be done.
#[derive(Debug)]
pub struct Read {
    /// Comes back in [`Done`]; the source does not look at it.
    pub tag: u64,
    /// What to read.
    pub extent: Extent,
    /// Where to; at least [`buffer_bytes`] of the extent's length.
    pub buffer: AlignedBuffer,
}

/// One read that is over.
#[derive(Debug)]
pub struct Done {
    /// The tag of its [`Read`].
    pub tag: u64,
    /// The buffer of its [`Read`], also after an error.
    pub buffer: AlignedBuffer,
    /// Where in the buffer the extent's bytes lie. After an error the buffer's contents mean nothing.
    pub result: Result<Range<usize>, Error>,
    /// When the read ended, which may be long before it was asked for.
    pub finished: Instant,
}

/// A queue of reads over a fixed list of open files.
///
/// Buffers move in and out whole, so a source may hand them to threads or to the kernel. Dropping a source
/// ends its threads, after the reads under way.
pub trait Source: Send {
    /// How this source reads.
    fn kind(&self) -> IoKind;

    /// Offsets and lengths of the reads the device sees are multiples of this power of two.
    fn alignment(&self) -> usize;

    /// Reads the source works on at once. More may be submitted; they wait in its own queue, so that the
    /// device does not idle while the caller computes.
    fn depth_max(&self) -> usize;

    /// Queues a read; never blocks for the disk. Every read comes back once, as a [`Done`].
    fn submit(&mut self, read: Read);

    /// Waits until a read is over. `None` if none is outstanding.
    fn wait(&mut self) -> Option<Done>;

    /// A read that is over already, if there is one.
    fn poll(&mut self) -> Option<Done>;

    /// Ends the reads that have not begun with [`ErrorKind::Cancelled`]; those under way run on. All still
    /// come back through [`Source::wait`] or [`Source::poll`].
    fn cancel(&mut self);

    /// Reads many small extents at once, before all that is queued, through small buffers of its own. `out`
    /// takes their bytes one behind the other, and must be as long as all of them. What is asked for twice is
    /// read once.
    ///
    /// # Errors
    /// As for queued reads: the first of them, and then `out` means nothing; [`ErrorKind::TooLarge`] if the
    /// lengths differ.
    fn read_many_now(&mut self, extents: &[Extent], out: &mut [u8]) -> Result<Gathered, Error>;

    /// What its threads have used of the processors, user and system together. Zero if it has none, or where the
    /// system does not tell.
    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
}

/// What [`Source::read_many_now`] asked of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gathered {
    /// Reads, after extents were joined or taken apart.
    pub reads: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their bytes with what alignment adds.
    pub device_bytes: u64,
}

/// Bytes a buffer needs so that any extent of up to `extent_bytes` can be read into it with `alignment`;
/// `None` if that overflows. Never more than the extent and two alignments, rounded up to pages.
pub fn buffer_bytes(extent_bytes: usize, alignment: usize) -> Option<usize> {
    let unit = alignment.max(1);
    let spanned = extent_bytes.checked_add(unit - 1)?.checked_next_multiple_of(unit)?;
    spanned.max(1).checked_next_multiple_of(PAGE_BYTES)
}

/// The aligned range around an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Where in the file it starts.
    pub(crate) offset: u64,
    /// Bytes of it before the extent.
    pub(crate) head: usize,
    /// Bytes of it up to the extent's end.
    pub(crate) need: usize,
    /// Its whole length.
    pub(crate) bytes: usize,
}

impl Span {
    pub(crate) fn around(extent: Extent, alignment: usize) -> Result<Span, Error> {
        let too_large =
            || Error::new(ErrorKind::TooLarge, format!("{} bytes do not fit in memory", extent.bytes));
        let unit = alignment.max(1);
        let offset = extent.offset - extent.offset % unit as u64;
        let head = (extent.offset - offset) as usize;
        let need = usize::try_from(extent.bytes)
            .ok()
            .and_then(|bytes| bytes.checked_add(head))
            .ok_or_else(too_large)?;
        let bytes = need.checked_next_multiple_of(unit).ok_or_else(too_large)?;
        Ok(Span { offset, head, need, bytes })
    }
}
