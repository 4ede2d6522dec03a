//! Many small extents at once, past the queue: rows of a table, say. What lies together is read together, what is
//! asked for twice is read once, and the reads run side by side, since each takes as long alone as all do together.

use std::ops::Range;

use aerostat_checkpoint::{Extent, FileId};

use crate::buffer::AlignedBuffer;
use crate::error::{Error, ErrorKind};
use crate::queues::{Lanes, Queues};
use crate::reader::{Positional, Reader};
use crate::source::{Gathered, Read, Span, buffer_bytes};

/// Bytes of one read: most rows of embeddings.
const PIECE_BYTES: usize = 16 << 10;

/// Reads under way at once, each with a buffer. Together they are less than a MiB, which takes memory only once
/// used.
pub(crate) const GATHER_DEPTH: usize = 32;

pub(crate) struct Gather {
    alignment: usize,
    /// Those no read is under way into.
    buffers: Vec<AlignedBuffer>,
    /// Reads under way: some between calls only after a panic of the caller's.
    under_way: usize,
    /// Of the latest call, by their place in the files.
    parts: Vec<Part>,
}

/// Bytes of one extent that one read brings.
#[derive(Clone, Copy)]
struct Part {
    file: FileId,
    offset: u64,
    bytes: usize,
    /// Where they go.
    out: usize,
}

impl Part {
    fn end(&self) -> u64 {
        self.offset + self.bytes as u64
    }
}

impl Gather {
    pub(crate) fn new(alignment: usize) -> Result<Self, Error> {
        let bytes = buffer_bytes(PIECE_BYTES, alignment).unwrap_or(usize::MAX);
        let buffers = AlignedBuffer::adjacent(GATHER_DEPTH, bytes)?;
        Ok(Gather { alignment, buffers, under_way: 0, parts: Vec::new() })
    }

    /// Reads the extents into `out`, one behind the other: alone, or with the help of a pool's threads.
    pub(crate) fn run<P: Positional>(
        &mut self,
        reader: &Reader<P>,
        helpers: Option<(&Queues, &Lanes)>,
        extents: &[Extent],
        out: &mut [u8],
    ) -> Result<Gathered, Error> {
        self.settle(helpers);
        self.split(reader, extents, out.len())?;
        let gathered = self.read_all(reader, helpers, out);
        // After an error some may still be under way.
        self.settle(helpers);
        gathered
    }

    fn read_all<P: Positional>(
        &mut self,
        reader: &Reader<P>,
        helpers: Option<(&Queues, &Lanes)>,
        out: &mut [u8],
    ) -> Result<Gathered, Error> {
        let (mut first, mut gathered) = (0, Gathered::default());
        while let Some((next, extent)) = self.job(first) {
            let Some(buffer) = self.buffers.pop() else {
                self.finish_one(reader, helpers, out)?;
                continue;
            };
            gathered.reads += 1;
            gathered.bytes += extent.bytes;
            gathered.device_bytes += Span::around(extent, self.alignment)?.bytes as u64;
            let read = Read { tag: first as u64, extent, buffer };
            first = next;
            match helpers {
                // The last one is for this thread, so that one alone needs no other.
                Some((queues, lanes)) if next < self.parts.len() => {
                    self.under_way += 1;
                    queues.submit_urgent(lanes.of(extent.file), read);
                }
                _ => self.read_here(reader, read, out)?,
            }
        }
        while self.under_way > 0 {
            self.finish_one(reader, helpers, out)?;
        }
        Ok(gathered)
    }

    /// Takes in one of the reads under way: one that is over, so that its buffer is soon in use again, else one
    /// that no thread has begun, which this thread does meanwhile.
    fn finish_one<P: Positional>(
        &mut self,
        reader: &Reader<P>,
        helpers: Option<(&Queues, &Lanes)>,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let Some((queues, _)) = helpers.filter(|_| self.under_way > 0) else {
            return Err(Error::new(ErrorKind::Resources, "the buffers for small reads were lost in a panic"));
        };
        self.under_way -= 1;
        let done = match queues.poll_urgent() {
            Some(done) => done,
            None => match queues.steal_urgent() {
                Some(read) => return self.read_here(reader, read, out),
                None => queues.wait_urgent(),
            },
        };
        self.take_in(done.tag, done.buffer, done.result, out)
    }

    fn read_here<P: Positional>(
        &mut self,
        reader: &Reader<P>,
        mut read: Read,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let result = reader.read(read.extent, &mut read.buffer);
        self.take_in(read.tag, read.buffer, result, out)
    }

    /// Puts what a read brought where it belongs; its tag is its first part.
    fn take_in(
        &mut self,
        first: u64,
        buffer: AlignedBuffer,
        result: Result<Range<usize>, Error>,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let first = first as usize;
        let scattered = result.map(|range| {
            let read = buffer.get(range).unwrap_or_default();
            let last = self.job(first).map_or(first, |(next, _)| next);
            let parts = self.parts.get(first..last).unwrap_or_default();
            let start = parts.first().map_or(0, |part| part.offset);
            for part in parts {
                // Both ranges exist: a job spans its parts, and `split` made them to fit `out`.
                let from = (part.offset - start) as usize;
                let from = read.get(from..from + part.bytes);
                let to = out.get_mut(part.out..part.out + part.bytes);
                if let (Some(from), Some(to)) = (from, to) {
                    to.copy_from_slice(from);
                }
            }
        });
        self.buffers.push(buffer);
        scattered
    }

    /// Waits for the reads that are still under way, and forgets them.
    fn settle(&mut self, helpers: Option<(&Queues, &Lanes)>) {
        while let Some((queues, _)) = helpers
            && self.under_way > 0
        {
            self.under_way -= 1;
            let buffer = queues.steal_urgent().map(|read| read.buffer);
            self.buffers.push(buffer.unwrap_or_else(|| queues.wait_urgent().buffer));
        }
    }

    /// Checks the extents and sorts their parts.
    fn split<P: Positional>(
        &mut self,
        reader: &Reader<P>,
        extents: &[Extent],
        out_bytes: usize,
    ) -> Result<(), Error> {
        self.parts.clear();
        let mut out = 0;
        for extent in extents {
            reader.check(*extent)?;
            let fits = usize::try_from(extent.bytes).ok().filter(|bytes| *bytes <= out_bytes - out);
            let Some(bytes) = fits else { return Err(does_not_fit(extents, out_bytes)) };
            let part = |start: usize| Part {
                file: extent.file,
                offset: extent.offset + start as u64,
                bytes: (bytes - start).min(PIECE_BYTES),
                out: out + start,
            };
            self.parts.extend((0..bytes).step_by(PIECE_BYTES).map(part));
            out += bytes;
        }
        if out < out_bytes {
            return Err(does_not_fit(extents, out_bytes));
        }
        self.parts.sort_unstable_by_key(|part| (part.file.0, part.offset));
        Ok(())
    }

    /// The read that starts with this part: all of one piece that are in the same unit of alignment or side by
    /// side. With the part after its last.
    fn job(&self, first: usize) -> Option<(usize, Extent)> {
        let head = self.parts.get(first)?;
        let (mut next, mut end) = (first + 1, head.end());
        while let Some(part) = self.parts.get(next)
            && part.file == head.file
            && part.offset <= end.next_multiple_of(self.alignment as u64)
            && part.end().max(end) - head.offset <= PIECE_BYTES as u64
        {
            end = end.max(part.end());
            next += 1;
        }
        Some((next, Extent { file: head.file, offset: head.offset, bytes: end - head.offset }))
    }
}

fn does_not_fit(extents: &[Extent], out_bytes: usize) -> Error {
    let all: u128 = extents.iter().map(|extent| u128::from(extent.bytes)).sum();
    let message =
        format!("{} extents of {all} bytes together cannot be read into {out_bytes} bytes", extents.len());
    Error::new(ErrorKind::TooLarge, message)
}

#[cfg(test)]
mod tests {
    use aerostat_checkpoint::File;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A file of its own offsets' lowest bytes.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Positional for Counting {
        fn read_at(&self, _: FileId, offset: u64, out: &mut [u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            out.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = at as u8);
            Ok(out.len())
        }
    }

    #[test]
    fn what_lies_together_or_is_asked_for_twice_is_read_once() {
        const PIECE: u64 = PIECE_BYTES as u64;
        // Extents, and the reads they take.
        let cases: [(&[(u64, u64)], usize); 9] = [
            (&[], 0),
            (&[(5, 0), (9, 0)], 0),
            (&[(1000, 700), (1000, 700), (1000, 700)], 1),
            (&[(5000, 10), (5010, 10), (4990, 10)], 1),
            (&[(0, 10), (502, 10), (30, 4)], 1),
            (&[(0, 10), (513, 10)], 2),
            (&[(512 * 70, 2), (0, 9), (512 * 35, 1), (8, 1)], 3),
            (&[(0, PIECE), (PIECE, PIECE), (PIECE, PIECE)], 2),
            (&[(100, 3 * PIECE + 1), (50, 60)], 5),
        ];
        for (extents, calls) in cases {
            let files = vec![File { path: "counted".into(), bytes: 1 << 20 }];
            let reader = Reader::new(Counting::default(), files, 512);
            let at = |&(offset, bytes)| Extent { file: FileId(0), offset, bytes };
            let asked: Vec<Extent> = extents.iter().map(at).collect();
            let expected: Vec<u8> = asked
                .iter()
                .flat_map(|extent| (extent.offset..extent.offset + extent.bytes).map(|at| at as u8))
                .collect();
            let mut out = vec![0; expected.len()];
            let gathered = Gather::new(512).unwrap().run(&reader, None, &asked, &mut out).unwrap();
            assert!(out == expected, "{extents:?}");
            assert_eq!(reader.files().0.load(Ordering::Relaxed), calls, "{extents:?}");
            assert_eq!(gathered.reads as usize, calls, "{extents:?}");
            assert!(gathered.device_bytes >= gathered.bytes && gathered.bytes <= out.len() as u64 + 512);
        }
    }
}
