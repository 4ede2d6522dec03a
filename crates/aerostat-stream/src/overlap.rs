//! Many reads under way from one thread: the state machine over a kernel that runs them, real or simulated.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::buffer::AlignedBuffer;
use crate::pool::{Queues, panicked};
use crate::reader::{Positional, Progress, Reader};
use crate::source::Read;

/// What runs read calls while its caller waits for whichever ends first.
///
/// It owns a call, and so the buffer the call writes to, from [`Kernel::start`] until it hands it back; dropped,
/// it waits for the calls it still has.
pub(crate) trait Kernel: Send + 'static {
    /// Takes on one read call, for the rest of the call's progress. Never waits for the disk. Fails only by an
    /// answer of [`Kernel::finish`].
    fn start(&mut self, call: Call);

    /// Waits until one of the calls is over; `None` if it has none.
    fn finish(&mut self) -> Option<(Call, io::Result<usize>)>;
}

/// One read that is under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) tag: u64,
    pub(crate) progress: Progress,
    pub(crate) buffer: AlignedBuffer,
}

/// What the thread does until the pool closes and the kernel is idle. If it panics, it ends all reads with errors,
/// those to come as well.
pub(crate) fn work<P: Positional>(
    reader: &Reader<P>,
    mut kernel: impl Kernel,
    depth: usize,
    queues: &Queues,
) {
    let mut under_way = 0;
    let ended = catch_unwind(AssertUnwindSafe(|| run(reader, &mut kernel, depth, queues, &mut under_way)));
    if ended.is_ok() {
        return;
    }
    while let Ok(Some((call, _))) = catch_unwind(AssertUnwindSafe(|| kernel.finish())) {
        under_way = under_way.saturating_sub(1);
        queues.land(call.tag, call.buffer, Err(panicked()));
    }
    queues.lose(under_way);
    while let Some(Read { tag, buffer, .. }) = queues.take(true) {
        queues.land(tag, buffer, Err(panicked()));
    }
}

/// A read queued while others are under way starts when the first of those ends, since the thread sleeps in
/// the kernel until then. That shows only in rings of few small slots.
fn run<P: Positional>(
    reader: &Reader<P>,
    kernel: &mut impl Kernel,
    depth: usize,
    queues: &Queues,
    under_way: &mut usize,
) {
    loop {
        while *under_way < depth
            && let Some(Read { tag, extent, buffer }) = queues.take(*under_way == 0)
        {
            match reader.begin(extent, buffer.len()) {
                Ok(progress) if progress.is_whole() => queues.land(tag, buffer, Ok(progress.range())),
                Ok(progress) => {
                    *under_way += 1;
                    kernel.start(Call { tag, progress, buffer });
                }
                Err(error) => queues.land(tag, buffer, Err(error)),
            }
        }
        let Some((mut call, answer)) = kernel.finish() else { return };
        let result = match reader.advance(&mut call.progress, answer) {
            Ok(()) if !call.progress.is_whole() => {
                kernel.start(call);
                continue;
            }
            Ok(()) => Ok(call.progress.range()),
            Err(error) => Err(error),
        };
        *under_way -= 1;
        queues.land(call.tag, call.buffer, result);
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{Interrupted, WouldBlock};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use aerostat_checkpoint::{Extent, File, FileId};

    use super::*;
    use crate::error::ErrorKind;
    use crate::pool::Pool;
    use crate::source::{IoKind, Source};

    /// Tells of each call it takes on, and ends the latest with the next answer it is given.
    struct Held {
        calls: Vec<Call>,
        begun: Sender<u64>,
        answers: Receiver<io::Result<usize>>,
        /// Calls it still had when it was dropped.
        left: Arc<AtomicUsize>,
    }

    impl Kernel for Held {
        fn start(&mut self, call: Call) {
            // Not every test listens.
            let _ = self.begun.send(call.tag);
            self.calls.push(call);
        }

        fn finish(&mut self) -> Option<(Call, io::Result<usize>)> {
            let call = self.calls.pop()?;
            // With nobody left to answer this panics, and takes the call along.
            Some((call, self.answers.recv().unwrap()))
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.left.store(self.calls.len(), Ordering::SeqCst);
        }
    }

    struct Nothing;

    impl Positional for Nothing {
        fn read_at(&self, _: FileId, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::Other.into())
        }
    }

    struct Test {
        pool: Pool<Nothing>,
        begun: Receiver<u64>,
        answer: Sender<io::Result<usize>>,
        left: Arc<AtomicUsize>,
    }

    /// Reads of 1000 bytes of a file with an alignment of 512, of which so many are under way.
    fn test(depth: usize, reads: u64) -> Test {
        let ((begun_sender, begun), (answer, answers)) = (channel(), channel());
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let kernel = Held { calls: Vec::new(), begun: begun_sender, answers, left: Arc::clone(&left) };
        let reader = Reader::new(Nothing, vec![File { path: "held".into(), bytes: 1000 }], 512);
        let mut pool = Pool::start_overlapped(IoKind::Simulated, reader, depth, kernel).unwrap();
        for tag in 0..reads {
            let buffer = AlignedBuffer::new(1024).unwrap();
            pool.submit(Read { tag, extent: Extent { file: FileId(0), offset: 0, bytes: 1000 }, buffer });
        }
        Test { pool, begun, answer, left }
    }

    #[test]
    fn a_read_goes_on_through_all_that_is_no_end() {
        let eio = || io::Error::from_raw_os_error(5);
        let cases: [(Vec<io::Result<usize>>, Option<ErrorKind>); 6] = [
            (vec![Ok(1000)], None),
            (vec![Ok(1024)], None),
            (vec![Err(Interrupted.into()), Ok(700), Err(WouldBlock.into()), Ok(488)], None),
            (vec![Ok(3), Ok(511), Ok(512), Err(Interrupted.into()), Ok(488)], None),
            (vec![Ok(512), Err(eio())], Some(ErrorKind::Io)),
            (vec![Ok(600), Ok(0)], Some(ErrorKind::Shrunk)),
        ];
        for (answers, expected) in cases {
            let Test { mut pool, begun, answer, .. } = test(1, 1);
            let calls = answers.len();
            answers.into_iter().for_each(|one| answer.send(one).unwrap());
            let done = pool.wait().unwrap();
            match expected {
                None => assert_eq!(done.result.unwrap(), 0..1000),
                Some(kind) => assert_eq!(done.result.unwrap_err().kind(), kind),
            }
            assert_eq!(begun.try_iter().count(), calls);
        }
    }

    #[test]
    fn a_kernel_that_always_refuses_is_an_error() {
        let Test { mut pool, answer, .. } = test(1, 1);
        (0..2000).for_each(|_| answer.send(Err(WouldBlock.into())).unwrap());
        assert_eq!(pool.wait().unwrap().result.unwrap_err().kind(), ErrorKind::Io);
    }

    #[test]
    fn a_kernel_that_panics_ends_all_reads_those_to_come_too() {
        for reads in [1, 3, 5] {
            let Test { mut pool, begun, answer, .. } = test(2, reads);
            begun.recv().unwrap();
            drop(answer);
            let ended: Vec<_> = std::iter::from_fn(|| pool.wait()).collect();
            assert!(ended.iter().all(|done| done.result.is_err()));
            // Missing are those the kernel took down with it: here, one a panic, of the two it may have begun.
            assert!((reads.saturating_sub(2)..reads).contains(&(ended.len() as u64)));
            let buffer = AlignedBuffer::new(1024).unwrap();
            pool.submit(Read { tag: 9, extent: Extent { file: FileId(0), offset: 0, bytes: 9 }, buffer });
            assert_eq!(pool.wait().unwrap().result.unwrap_err().kind(), ErrorKind::Io);
            assert!(pool.wait().is_none());
        }
    }

    #[test]
    fn cancelling_ends_the_reads_that_have_not_begun() {
        let Test { mut pool, begun, answer, .. } = test(1, 4);
        assert_eq!(begun.recv().unwrap(), 0);
        pool.cancel();
        for tag in 1..4 {
            let done = pool.wait().unwrap();
            assert_eq!((done.tag, done.result.unwrap_err().kind()), (tag, ErrorKind::Cancelled));
        }
        answer.send(Ok(1000)).unwrap();
        assert_eq!(pool.wait().unwrap().result.unwrap(), 0..1000);
        assert!(pool.wait().is_none());
    }

    #[test]
    fn dropping_waits_until_the_kernel_has_no_buffer_left() {
        for (depth, reads) in [(1, 0), (1, 5), (4, 2)] {
            let Test { pool, begun, answer, left } = test(depth, reads);
            if reads > 0 {
                begun.recv().unwrap();
            }
            (0..reads).for_each(|_| answer.send(Ok(1000)).unwrap());
            drop(pool);
            assert_eq!(left.load(Ordering::SeqCst), 0);
        }
    }
}
