//! Linux: direct reads through io_uring.
//!
//! Left out since they earned too little, measured with reads of 256 KiB to 4 MiB: registered buffers save 2 to 6
//! milliseconds of processor time a GB, and pin the ring's memory for it; deferred task work saves nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use rustix::event::{self, EventfdFlags, PollFlags};

use crate::overlap::{Call, Event, Kernel};
use crate::queues::Waker;

/// Reads under way at most; the kernel's own limit is higher.
pub(crate) const DEPTH_MAX: usize = 1024;

/// Bytes of one read call: below the kernel's limit, and whole pages.
const CALL_BYTES_MAX: usize = 1 << 30;

/// Pause after the kernel was out of something other than completions.
const PAUSE: Duration = Duration::from_millis(1);

/// The `user_data` of the entry that waits for the bell.
const BELL: u64 = u64::MAX;

/// An io_uring and the reads it is doing.
///
/// Invariant: a call stands in `calls`, under the index its entry names, from before its entry can be submitted
/// until its completion is seen. So the kernel writes only to buffers that live.
pub(crate) struct Uring {
    ring: IoUring,
    calls: Vec<Option<Call>>,
    under_way: usize,
    /// Rung to wake the thread that sleeps in the ring: an eventfd.
    bell: Arc<OwnedFd>,
    /// Whether an entry that waits for the bell is in the ring.
    is_listening: bool,
}

impl Uring {
    /// A ring over these files, which it keeps open by itself; for `depth` reads at once, [`DEPTH_MAX`] at most.
    ///
    /// # Errors
    /// Those of the system: there may be no io_uring, or it may be forbidden, as containers do.
    pub(crate) fn new(files: &[File], depth: usize) -> io::Result<Self> {
        let entries = depth.clamp(1, DEPTH_MAX) as u32;
        let mut ring = IoUring::new(entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !files.is_empty() {
            let descriptors: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
            ring.submitter().register_files(&descriptors)?;
        }
        // One empty operation, since a filter may allow the setup of rings but not their use.
        let nothing = opcode::Nop::new().build();
        // SAFETY: the entry refers to no memory.
        unsafe { ring.submission().push(&nothing) }.map_err(io::Error::other)?;
        ring.submit_and_wait(1)?;
        ring.completion().next();
        let bell = Arc::new(event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let calls = Vec::with_capacity(entries as usize);
        Ok(Uring { ring, calls, under_way: 0, bell, is_listening: false })
    }

    /// Puts in the entry that waits for the bell: once, for it completes at every ring. Where the kernel refuses
    /// it (before 5.13), a read queued while others are under way starts when the first of those ends.
    fn listen(&mut self) {
        if !self.is_listening {
            let bell = types::Fd(self.bell.as_raw_fd());
            let entry = opcode::PollAdd::new(bell, PollFlags::IN.bits().into()).multi(true).build();
            // SAFETY: the entry refers to no memory.
            unsafe { self.push(&entry.user_data(BELL)) };
            self.is_listening = true;
        }
    }

    /// # Safety
    /// The memory the entry refers to must live, and be lent to nobody else, until its completion is seen.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enter(0);
        }
    }

    /// Submits what was started and waits for as many completions.
    fn enter(&self, completions: usize) {
        match self.ring.submit_and_wait(completions) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Short of memory, say. The reads under way cannot be left, so there is nothing but to try again.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

impl Kernel for Uring {
    fn start(&mut self, mut call: Call) {
        let (file, offset, out) = call.rest();
        let (start, bytes) = (out.as_mut_ptr(), out.len().min(CALL_BYTES_MAX));
        let index = self.calls.iter().position(Option::is_none).unwrap_or(self.calls.len());
        let entry = opcode::Read::new(types::Fixed(file.0), start, bytes as u32)
            .offset(offset)
            .build()
            .user_data(index as u64);
        match self.calls.get_mut(index) {
            Some(place) => *place = Some(call),
            None => self.calls.push(Some(call)),
        }
        self.under_way += 1;
        // SAFETY: `start` points to `bytes` writable bytes of the call's buffer, which by this type's invariant
        // lives, and is lent to nobody else, until the completion of this entry is seen. Its memory does not
        // move when the call does.
        unsafe { self.push(&entry) };
    }

    fn finish(&mut self) -> Event {
        self.listen();
        while self.under_way > 0 {
            let Some(completion) = self.ring.completion().next() else {
                self.enter(1);
                continue;
            };
            if completion.user_data() == BELL {
                // Refused once, it would be refused for ever.
                self.is_listening = completion.result() < 0 || cqueue::more(completion.flags());
                return Event::Woken;
            }
            let index = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            if let Some(call) = self.calls.get_mut(index).and_then(Option::take) {
                self.under_way -= 1;
                let answer = completion.result();
                let refused = |_| io::Error::from_raw_os_error(answer.saturating_neg());
                return Event::Over(call, usize::try_from(answer).map_err(refused));
            }
        }
        Event::Idle
    }

    fn waker(&self) -> Option<Waker> {
        let bell = Arc::clone(&self.bell);
        Some(Box::new(move || {
            // It fails only once it has been rung 2^64 times.
            let _ = rustix::io::write(&*bell, &1u64.to_ne_bytes());
        }))
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while !matches!(self.finish(), Event::Idle) {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use aerostat_checkpoint::{Extent, File as Named, FileId};

    use super::*;
    use crate::buffer::AlignedBuffer;
    use crate::error::ErrorKind;
    use crate::queues::Lanes;
    use crate::reader::{Positional, Reader};
    use crate::readers::Readers;
    use crate::source::{Done, IoKind, Read, Source};

    /// Files that only the ring reads.
    struct Unread;

    impl Positional for Unread {
        fn read_at(&self, _: FileId, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::Other.into())
        }
    }

    /// File 0 is a pipe, so that its reads take until it is written to; file 1 is a real one. `None` where there
    /// is no io_uring.
    fn pool(depth: usize) -> Option<(Readers<Unread>, io::PipeWriter)> {
        let (out, into) = io::pipe().unwrap();
        let mut real = tempfile::tempfile().unwrap();
        real.write_all(&[7; 100]).unwrap();
        let table = vec![Named { path: "file".into(), bytes: 100 }; 2];
        let kernel = match Uring::new(&[File::from(OwnedFd::from(out)), real], depth) {
            Ok(kernel) => kernel,
            Err(error) => {
                eprintln!("skipped: no io_uring: {error}");
                return None;
            }
        };
        let reader = Reader::new(Unread, table, 1);
        let pool = Readers::start_overlapped(IoKind::Uring, reader, Lanes::new([]), depth, vec![kernel]);
        Some((pool.unwrap(), into))
    }

    fn read(tag: u64, file: u32) -> Read {
        let buffer = AlignedBuffer::new(100).unwrap();
        Read { tag, extent: Extent { file: FileId(file), offset: 0, bytes: 100 }, buffer }
    }

    #[test]
    fn a_read_starts_while_others_are_under_way() {
        let Some((mut pool, mut pipe)) = pool(4) else { return };
        pool.submit(read(0, 0));
        for tag in 1..50 {
            pool.submit(read(tag, 1));
            let done = pool.wait().unwrap();
            assert_eq!((done.tag, &done.buffer[done.result.unwrap()]), (tag, &[7; 100][..]));
        }
        // The first goes on through short answers.
        pipe.write_all(&[5; 60]).unwrap();
        pipe.write_all(&[6; 40]).unwrap();
        let done = pool.wait().unwrap();
        assert_eq!((done.tag, done.result.unwrap()), (0, 0..100));
        assert_eq!((done.buffer[0], done.buffer[99]), (5, 6));
    }

    #[test]
    fn reads_in_the_kernel_outlast_cancelling_and_dropping() {
        let Some((mut pool, mut pipe)) = pool(2) else { return };
        // The second read is over, so the first is in the kernel; of the others, at most one.
        (0..2).for_each(|tag| pool.submit(read(tag, tag as u32)));
        assert_eq!(pool.wait().unwrap().tag, 1);
        (2..5).for_each(|tag| pool.submit(read(tag, 0)));
        pool.cancel();
        let cancelled: Vec<Done> = std::iter::from_fn(|| pool.poll()).collect();
        let tags: Vec<u64> = cancelled.iter().map(|done| done.tag).collect();
        assert!(tags == [2, 3, 4] || tags == [3, 4], "{tags:?}");
        assert!(
            cancelled.iter().all(|done| matches!(&done.result, Err(e) if e.kind() == ErrorKind::Cancelled))
        );
        let release = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            // Into a buffer that must still live; nobody reads the pipe any more if it has been given up.
            pipe.write_all(&[5; 100]).unwrap();
            let _ = pipe.write_all(&[5; 100]);
        });
        drop(pool);
        release.join().unwrap();
    }
}
