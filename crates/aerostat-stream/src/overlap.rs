//! Many reads under way from one thread: the state machine over a kernel that runs them, real or simulated.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use aerostat_checkpoint::FileId;

use crate::queues::{Job, Meter, Queues, Waker};
use crate::reader::{Positional, Progress, Reader};

/// What runs read calls while its caller waits for whichever ends first.
///
/// It owns a call, and so the buffer the call writes to, from [`Kernel::start`] until it hands it back; dropped,
/// it waits for the calls it still has.
pub(crate) trait Kernel: Send + 'static {
    /// Takes on one read call, for the rest of the call's progress. Never waits for the disk. Fails only by an
    /// answer of [`Kernel::finish`].
    fn start(&mut self, call: Call);

    /// Waits until one of the calls is over, or it is woken.
    fn finish(&mut self) -> Event;

    /// Wakes it from [`Kernel::finish`]; `None` if it never sleeps there for long.
    fn waker(&self) -> Option<Waker> {
        None
    }
}

/// What a kernel waited for.
pub(crate) enum Event {
    /// A call and its answer.
    Over(Call, io::Result<usize>),
    /// The waker, or nothing at all.
    Woken,
    /// There are no calls.
    Idle,
}

/// One read that is under way.
pub(crate) struct Call {
    pub(crate) job: Job,
    pub(crate) progress: Progress,
}

impl Call {
    /// What is left to read: of which file, from where, and where to.
    pub(crate) fn rest(&mut self) -> (FileId, u64, &mut [u8]) {
        let (offset, range) = self.progress.rest();
        (self.job.extent().file, offset, self.job.buffer().get_mut(range).unwrap_or_default())
    }
}

/// What the thread of a lane does until the pool closes and the kernel is idle. If it panics, it ends all reads
/// with errors, those to come as well.
pub(crate) fn work<P: Positional>(
    reader: &Reader<P>,
    kernel: impl Kernel,
    lane: usize,
    depth: usize,
    queues: &Arc<Queues>,
) {
    let ended = catch_unwind(AssertUnwindSafe(|| run(reader, kernel, lane, depth, queues)));
    if ended.is_err() {
        while let Some(job) = queues.take(lane, true, true) {
            drop(job);
        }
    }
}

fn run<P: Positional>(
    reader: &Reader<P>,
    mut kernel: impl Kernel,
    lane: usize,
    depth: usize,
    queues: &Arc<Queues>,
) {
    let mut meter = Meter::new(queues);
    let mut under_way = 0;
    loop {
        // Urgent reads do not count: they are few and small.
        while let Some(mut job) = queues.take(lane, under_way < depth, under_way == 0) {
            let room = job.buffer().len();
            match reader.begin(job.extent(), room) {
                Ok(progress) if progress.is_whole() => job.land(Ok(progress.range())),
                Ok(progress) => {
                    kernel.start(Call { job, progress });
                    under_way += 1;
                }
                Err(error) => job.land(Err(error)),
            }
        }
        let (mut call, answer) = match kernel.finish() {
            Event::Over(call, answer) => (call, answer),
            Event::Woken => continue,
            Event::Idle => return,
        };
        let result = match reader.advance(&mut call.progress, answer) {
            Ok(()) if !call.progress.is_whole() => {
                kernel.start(call);
                continue;
            }
            Ok(()) => Ok(call.progress.range()),
            Err(error) => Err(error),
        };
        under_way -= 1;
        call.job.land(result);
        meter.count();
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{Interrupted, WouldBlock};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use aerostat_checkpoint::{Extent, File, FileId};

    use super::*;
    use crate::buffer::AlignedBuffer;
    use crate::error::ErrorKind;
    use crate::queues::Lanes;
    use crate::readers::Readers;
    use crate::source::{IoKind, Read, Source};

    /// Tells of each call it takes on, and ends the latest with the next answer it is given.
    struct Held {
        calls: Vec<Call>,
        begun: Sender<()>,
        answers: Receiver<io::Result<usize>>,
        /// Calls it still had when it was dropped.
        left: Arc<AtomicUsize>,
    }

    impl Kernel for Held {
        fn start(&mut self, call: Call) {
            // Not every test listens.
            let _ = self.begun.send(());
            self.calls.push(call);
        }

        fn finish(&mut self) -> Event {
            let Some(call) = self.calls.pop() else { return Event::Idle };
            // With nobody left to answer this panics, and takes the call along.
            Event::Over(call, self.answers.recv().unwrap())
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
        pool: Readers<Nothing>,
        begun: Receiver<()>,
        answer: Sender<io::Result<usize>>,
        left: Arc<AtomicUsize>,
    }

    /// Reads of 1000 bytes of a file with an alignment of 512, of which so many are under way.
    fn test(depth: usize, reads: u64) -> Test {
        let ((begun_sender, begun), (answer, answers)) = (channel(), channel());
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let kernel = Held { calls: Vec::new(), begun: begun_sender, answers, left: Arc::clone(&left) };
        let reader = Reader::new(Nothing, vec![File { path: "held".into(), bytes: 1000 }], 512);
        let mut pool =
            Readers::start_overlapped(IoKind::Simulated, reader, Lanes::new([]), depth, vec![kernel])
                .unwrap();
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
            assert_eq!(ended.len() as u64, reads);
            let buffer = AlignedBuffer::new(1024).unwrap();
            pool.submit(Read { tag: 9, extent: Extent { file: FileId(0), offset: 0, bytes: 9 }, buffer });
            assert_eq!(pool.wait().unwrap().result.unwrap_err().kind(), ErrorKind::Io);
            assert!(pool.wait().is_none());
        }
    }

    #[test]
    fn cancelling_ends_the_reads_that_have_not_begun() {
        let Test { mut pool, begun, answer, .. } = test(1, 4);
        begun.recv().unwrap();
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
