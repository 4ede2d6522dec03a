//! Threads that read at offsets, each one read at a time or one of them many: a source for any kind of files.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use aerostat_checkpoint::Extent;

use crate::error::{Error, ErrorKind};
use crate::gather::Gather;
use crate::overlap::{self, Kernel};
use crate::queues::{Lanes, Meter, Queues, Waker};
use crate::reader::{Positional, Reader};
use crate::source::{Done, Gathered, IoKind, Read, Source};

/// A thread only reads into buffers it is given.
const STACK_BYTES: usize = 128 << 10;

pub(crate) struct Readers<P> {
    kind: IoKind,
    /// Reads at once in each lane.
    depth: usize,
    reader: Arc<Reader<P>>,
    lanes: Lanes,
    queues: Arc<Queues>,
    threads: Vec<JoinHandle<()>>,
    gather: Gather,
    outstanding: usize,
}

impl<P: Positional> Readers<P> {
    /// Starts `depth` threads (one at least) in each lane that do one read after the other each.
    pub(crate) fn start(kind: IoKind, reader: Reader<P>, lanes: Lanes, depth: usize) -> Result<Self, Error> {
        let wakers = (0..lanes.count()).map(|_| None).collect();
        let mut pool = Readers::new(kind, reader, lanes, depth, wakers)?;
        for lane in 0..pool.lanes.count() {
            for _ in 0..pool.depth {
                let reader = Arc::clone(&pool.reader);
                pool.spawn(move |queues| one_by_one(&reader, lane, queues))?;
            }
        }
        Ok(pool)
    }

    /// Starts one thread in each lane that keeps up to `depth` reads (one at least) under way in the lane's
    /// kernel.
    pub(crate) fn start_overlapped(
        kind: IoKind,
        reader: Reader<P>,
        lanes: Lanes,
        depth: usize,
        kernels: Vec<impl Kernel>,
    ) -> Result<Self, Error> {
        let wakers = kernels.iter().map(Kernel::waker).collect();
        let mut pool = Readers::new(kind, reader, lanes, depth, wakers)?;
        for (lane, kernel) in kernels.into_iter().enumerate() {
            let (reader, depth) = (Arc::clone(&pool.reader), pool.depth);
            pool.spawn(move |queues| overlap::work(&reader, kernel, lane, depth, queues))?;
        }
        Ok(pool)
    }

    fn new(
        kind: IoKind,
        reader: Reader<P>,
        lanes: Lanes,
        depth: usize,
        wakers: Vec<Option<Waker>>,
    ) -> Result<Self, Error> {
        // The pool exists before its threads, so that a failure to start one ends those already started.
        Ok(Readers {
            kind,
            depth: depth.max(1),
            gather: Gather::new(reader.alignment())?,
            reader: Arc::new(reader),
            lanes,
            queues: Queues::new(wakers),
            threads: Vec::new(),
            outstanding: 0,
        })
    }

    fn spawn(&mut self, work: impl FnOnce(&Arc<Queues>) + Send + 'static) -> Result<(), Error> {
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

impl<P: Positional> Source for Readers<P> {
    fn kind(&self) -> IoKind {
        self.kind
    }

    fn alignment(&self) -> usize {
        self.reader.alignment()
    }

    fn depth_max(&self) -> usize {
        self.depth * self.lanes.count()
    }

    fn submit(&mut self, read: Read) {
        self.outstanding += 1;
        self.queues.submit(self.lanes.of(read.extent.file), read);
    }

    fn wait(&mut self) -> Option<Done> {
        if self.outstanding == 0 {
            return None;
        }
        self.outstanding -= 1;
        Some(self.queues.wait())
    }

    fn poll(&mut self) -> Option<Done> {
        let done = self.queues.poll()?;
        self.outstanding -= 1;
        Some(done)
    }

    fn cancel(&mut self) {
        self.queues.cancel();
    }

    fn read_many_now(&mut self, extents: &[Extent], out: &mut [u8]) -> Result<Gathered, Error> {
        self.gather.run(&self.reader, Some((&self.queues, &self.lanes)), extents, out)
    }

    fn cpu_time(&self) -> Duration {
        self.queues.cpu_time()
    }
}

impl<P> Drop for Readers<P> {
    fn drop(&mut self) {
        self.queues.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to do either.
            let _ = thread.join();
        }
    }
}

fn one_by_one<P: Positional>(reader: &Reader<P>, lane: usize, queues: &Arc<Queues>) {
    let mut meter = Meter::new(queues);
    while let Some(mut job) = queues.take(lane, true, true) {
        // A job that goes down in a panic comes back as an error; its thread reads on.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let result = reader.read(job.extent(), job.buffer());
            job.land(result);
        }));
        meter.count();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use aerostat_checkpoint::{File, FileId};

    use super::*;
    use crate::buffer::AlignedBuffer;

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
        pool: Readers<Gate>,
        begun: Receiver<()>,
        go: Sender<()>,
        alive: Arc<()>,
    }

    fn hold(depth: usize, reads: u64) -> Held {
        let ((begun_sender, begun), (go, go_receiver), alive) = (channel(), channel(), Arc::new(()));
        let gate = Gate { begun: begun_sender, go: Mutex::new(go_receiver), _alive: Arc::clone(&alive) };
        let reader = Reader::new(gate, vec![File { path: "gate".into(), bytes: 100 }], 1);
        let mut pool = Readers::start(IoKind::Simulated, reader, Lanes::new([]), depth).unwrap();
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
        let mut pool = Readers::start(IoKind::Simulated, reader, Lanes::new([]), 1).unwrap();
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

    /// Reads of file 0 wait, those of others do not.
    struct Slow(Mutex<Receiver<()>>);

    impl Positional for Slow {
        fn read_at(&self, file: FileId, _: u64, out: &mut [u8]) -> io::Result<usize> {
            if file.0 == 0 {
                let _ = self.0.lock().unwrap().recv();
            }
            Ok(out.len())
        }
    }

    #[test]
    fn a_slow_device_holds_up_no_other() {
        let (go, slow) = channel();
        let files = (0..3).map(|_| File { path: "file".into(), bytes: 100 }).collect();
        let reader = Reader::new(Slow(Mutex::new(slow)), files, 1);
        let lanes = Lanes::new([7, 9, 7]);
        let mut pool = Readers::start(IoKind::Simulated, reader, lanes, 2).unwrap();
        assert_eq!(pool.depth_max(), 4);
        // More than there are threads for file 0, then file 1, on another device.
        let order = [0, 0, 0, 0, 0, 1, 1, 1];
        for (tag, file) in (0..).zip(order) {
            let buffer = AlignedBuffer::new(100).unwrap();
            pool.submit(Read { tag, extent: Extent { file: FileId(file), offset: 0, bytes: 100 }, buffer });
        }
        let mut tags: Vec<u64> = (0..3).map(|_| pool.wait().unwrap().tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, [5, 6, 7]);
        drop(go);
        assert_eq!((0..).map_while(|_: u64| pool.wait()).count(), 5);
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
