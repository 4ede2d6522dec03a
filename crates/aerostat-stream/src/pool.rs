//! Threads that read at offsets, each one read at a time or one of them many: a source for any kind of files.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use aerostat_checkpoint::Extent;

use crate::buffer::AlignedBuffer;
use crate::error::{Error, ErrorKind};
use crate::overlap::{self, Kernel};
use crate::reader::{Positional, Reader};
use crate::source::{Done, IoKind, Read, Source};

/// Reads the queues have room for before they grow; after the first sweep they grow no more.
const QUEUE_RESERVED: usize = 64;

/// A thread only reads into buffers it is given.
const STACK_BYTES: usize = 128 << 10;

pub(crate) struct Pool<P> {
    kind: IoKind,
    depth: usize,
    reader: Arc<Reader<P>>,
    queues: Arc<Queues>,
    threads: Vec<JoinHandle<()>>,
    bounce: AlignedBuffer,
    outstanding: usize,
}

/// What the caller and the threads share.
pub(crate) struct Queues {
    state: Mutex<State>,
    /// Told when a read is queued or the pool closes.
    work: Condvar,
    /// Told when a read is over.
    landed: Condvar,
}

struct State {
    queue: VecDeque<Read>,
    done: VecDeque<Done>,
    /// Reads that went down with a panic, buffers and all: they will never be done.
    lost: usize,
    closed: bool,
}

impl<P: Positional> Pool<P> {
    /// Starts `depth` threads (one at least) that do one read after the other each.
    pub(crate) fn start(kind: IoKind, reader: Reader<P>, depth: usize) -> Result<Self, Error> {
        let mut pool = Pool::new(kind, reader, depth.max(1))?;
        for _ in 0..pool.depth {
            let reader = Arc::clone(&pool.reader);
            pool.spawn(move |queues| one_by_one(&reader, queues))?;
        }
        Ok(pool)
    }

    /// Starts one thread that keeps up to `depth` reads (one at least) under way in the kernel.
    pub(crate) fn start_overlapped(
        kind: IoKind,
        reader: Reader<P>,
        depth: usize,
        kernel: impl Kernel,
    ) -> Result<Self, Error> {
        let mut pool = Pool::new(kind, reader, depth.max(1))?;
        let (reader, depth) = (Arc::clone(&pool.reader), pool.depth);
        pool.spawn(move |queues| overlap::work(&reader, kernel, depth, queues))?;
        Ok(pool)
    }

    fn new(kind: IoKind, reader: Reader<P>, depth: usize) -> Result<Self, Error> {
        let bounce = reader.bounce()?;
        let queue = VecDeque::with_capacity(QUEUE_RESERVED);
        let done = VecDeque::with_capacity(QUEUE_RESERVED);
        let state = Mutex::new(State { queue, done, lost: 0, closed: false });
        let queues = Arc::new(Queues { state, work: Condvar::new(), landed: Condvar::new() });
        // The pool exists before its threads, so that a failure to start one ends those already started.
        Ok(Pool {
            kind,
            depth,
            reader: Arc::new(reader),
            queues,
            threads: Vec::new(),
            bounce,
            outstanding: 0,
        })
    }

    fn spawn(&mut self, work: impl FnOnce(&Queues) + Send + 'static) -> Result<(), Error> {
        let index = self.threads.len();
        let queues = Arc::clone(&self.queues);
        let builder = Builder::new().name(format!("aerostat-io-{index}")).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || work(&queues)).map_err(|cause| {
            Error::caused(ErrorKind::Resources, format!("read thread {index} cannot be started"), cause)
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl<P: Positional> Source for Pool<P> {
    fn kind(&self) -> IoKind {
        self.kind
    }

    fn alignment(&self) -> usize {
        self.reader.alignment()
    }

    fn depth_max(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, read: Read) {
        self.outstanding += 1;
        self.queues.lock().queue.push_back(read);
        self.queues.work.notify_one();
    }

    fn wait(&mut self) -> Option<Done> {
        if self.outstanding == 0 {
            return None;
        }
        let mut state = self.queues.lock();
        loop {
            if let Some(done) = state.done.pop_front() {
                self.outstanding -= 1;
                return Some(done);
            }
            if state.lost >= self.outstanding {
                self.outstanding = 0;
                state.lost = 0;
                return None;
            }
            state = self.queues.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn poll(&mut self) -> Option<Done> {
        let done = self.queues.lock().done.pop_front()?;
        self.outstanding -= 1;
        Some(done)
    }

    fn cancel(&mut self) {
        let mut state = self.queues.lock();
        while let Some(read) = state.queue.pop_front() {
            state.done.push_back(cancelled(read));
        }
    }

    fn read_now(&mut self, extent: Extent, out: &mut [u8]) -> Result<(), Error> {
        self.reader.read_now(extent, out, &mut self.bounce)
    }
}

impl<P> Drop for Pool<P> {
    fn drop(&mut self) {
        {
            let mut state = self.queues.lock();
            state.closed = true;
            state.queue.clear();
        }
        self.queues.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to do either.
            let _ = thread.join();
        }
    }
}

impl Queues {
    /// The next read, also long after the call if that may wait for it. None comes any more once the pool
    /// closes.
    pub(crate) fn take(&self, may_wait: bool) -> Option<Read> {
        let mut state = self.lock();
        loop {
            let read = state.queue.pop_front();
            if read.is_some() || state.closed || !may_wait {
                return read;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hands back a read that is over now.
    pub(crate) fn land(&self, tag: u64, buffer: AlignedBuffer, result: Result<Range<usize>, Error>) {
        self.lock().done.push_back(Done { tag, buffer, result, finished: Instant::now() });
        self.landed.notify_one();
    }

    /// Says that so many reads will never be handed back.
    pub(crate) fn lose(&self, reads: usize) {
        self.lock().lost += reads;
        self.landed.notify_one();
    }

    /// The state is whole after every step, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_by_one<P: Positional>(reader: &Reader<P>, queues: &Queues) {
    while let Some(Read { tag, extent, mut buffer }) = queues.take(true) {
        // A thread that ended here would leave the caller waiting for its read for ever.
        let result = catch_unwind(AssertUnwindSafe(|| reader.read(extent, &mut buffer)));
        queues.land(tag, buffer, result.unwrap_or_else(|_| Err(panicked())));
    }
}

/// What a read comes back as whose thread panicked.
pub(crate) fn panicked() -> Error {
    Error::new(ErrorKind::Io, "a read was given up since its thread panicked, which is a bug of this program")
}

/// What a read comes back as that never began.
pub(crate) fn cancelled(read: Read) -> Done {
    let result = Err(Error::new(ErrorKind::Cancelled, "the read was cancelled before it began"));
    Done { tag: read.tag, buffer: read.buffer, result, finished: Instant::now() }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Duration;

    use aerostat_checkpoint::{File, FileId};

    use super::*;

    /// Tells of each read and ends it when told.
    struct Gate {
        begun: Sender<()>,
        go: Mutex<Receiver<()>>,
        _alive: Arc<()>,
    }

    impl Positional for Gate {
        fn read_at(&self, _: FileId, _: u64, out: &mut [u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            let _ = self.go.lock().unwrap().recv();
            Ok(out.len())
        }
    }

    struct Held {
        pool: Pool<Gate>,
        begun: Receiver<()>,
        go: Sender<()>,
        alive: Arc<()>,
    }

    fn hold(depth: usize, reads: u64) -> Held {
        let ((begun_sender, begun), (go, go_receiver), alive) = (channel(), channel(), Arc::new(()));
        let gate = Gate { begun: begun_sender, go: Mutex::new(go_receiver), _alive: Arc::clone(&alive) };
        let reader = Reader::new(gate, vec![File { path: "gate".into(), bytes: 100 }], 1);
        let mut pool = Pool::start(IoKind::Simulated, reader, depth).unwrap();
        for tag in 0..reads {
            let buffer = AlignedBuffer::new(100).unwrap();
            pool.submit(Read { tag, extent: Extent { file: FileId(0), offset: 0, bytes: 100 }, buffer });
        }
        Held { pool, begun, go, alive }
    }

    #[test]
    fn cancelling_ends_all_reads_but_those_under_way() {
        let Held { mut pool, begun, go, .. } = hold(1, 10);
        begun.recv().unwrap();
        pool.cancel();
        for tag in 1..10 {
            let done = pool.wait().unwrap();
            assert_eq!((done.tag, done.result.unwrap_err().kind()), (tag, ErrorKind::Cancelled));
        }
        assert!(pool.poll().is_none());
        go.send(()).unwrap();
        let done = pool.wait().unwrap();
        assert_eq!((done.tag, done.result.unwrap()), (0, 0..100));
        assert!(pool.wait().is_none());
    }

    /// Panics at every other read, from the first on.
    struct Trap(AtomicBool);

    impl Positional for Trap {
        fn read_at(&self, _: FileId, _: u64, out: &mut [u8]) -> io::Result<usize> {
            assert!(self.0.fetch_not(Ordering::Relaxed), "on purpose");
            Ok(out.len())
        }
    }

    #[test]
    fn a_read_that_panics_comes_back_as_an_error_and_its_thread_reads_on() {
        let files = vec![File { path: "trap".into(), bytes: 100 }];
        let reader = Reader::new(Trap(AtomicBool::new(false)), files, 1);
        let mut pool = Pool::start(IoKind::Simulated, reader, 1).unwrap();
        for tag in 0..6 {
            let buffer = AlignedBuffer::new(100).unwrap();
            pool.submit(Read { tag, extent: Extent { file: FileId(0), offset: 0, bytes: 100 }, buffer });
        }
        for tag in 0..6 {
            let done = pool.wait().unwrap();
            assert_eq!((done.tag, done.buffer.len(), done.result.is_ok()), (tag, 4096, tag % 2 == 1));
        }
        assert!(pool.wait().is_none());
    }

    #[test]
    fn dropping_a_pool_ends_its_threads_and_forgets_what_is_queued() {
        for (depth, reads) in [(1, 0), (4, 0), (1, 5), (4, 2), (3, 20)] {
            let Held { pool, begun, go, alive } = hold(depth, reads);
            let under_way = reads.min(depth as u64);
            for _ in 0..under_way {
                begun.recv().unwrap();
            }
            // The reads under way end only once the drop waits for them (or just before).
            let release = thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                (0..reads).for_each(|_| go.send(()).unwrap_or_default());
            });
            drop(pool);
            assert_eq!(Arc::strong_count(&alive), 1, "no thread holds the files any more");
            release.join().unwrap();
            assert!(begun.try_iter().count() as u64 <= reads - under_way);
        }
    }
}
