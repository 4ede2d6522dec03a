//! What a pool's caller and its threads share: reads to be done, one lane for each device, and reads that are over.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aerostat_checkpoint::{Extent, FileId};

use crate::buffer::AlignedBuffer;
use crate::error::{Error, ErrorKind};
use crate::source::{Done, Read};
use crate::system;

/// Reads a queue has room for before it grows; after the first sweep it grows no more.
const QUEUE_RESERVED: usize = 64;

/// Devices with threads of their own at most; more than so many share them.
const LANES_MAX: usize = 16;

/// Wakes a thread that sleeps in the kernel rather than on its queue.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

/// Which lane the reads of a file go through: one for each device, so that a slow one holds up no other.
pub(crate) struct Lanes {
    of_file: Vec<usize>,
    count: usize,
}

impl Lanes {
    /// From the device of every file in turn.
    pub(crate) fn new(devices: impl IntoIterator<Item = u64>) -> Self {
        let mut known = Vec::new();
        let lane = |device| {
            let index = known.iter().position(|other| *other == device).unwrap_or_else(|| {
                known.push(device);
                known.len() - 1
            });
            index % LANES_MAX
        };
        let of_file: Vec<usize> = devices.into_iter().map(lane).collect();
        Lanes { of_file, count: known.len().clamp(1, LANES_MAX) }
    }

    /// Lanes there are: one at least.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Of files that do not exist, the first.
    pub(crate) fn of(&self, file: FileId) -> usize {
        self.of_file.get(file.0 as usize).copied().unwrap_or(0)
    }
}

pub(crate) struct Queues {
    state: Mutex<State>,
    /// One a lane, told when a read is queued or the pool closes.
    work: Vec<(Condvar, Option<Waker>)>,
    /// Told when a read is over.
    landed: Condvar,
    /// What the threads have used of the processors.
    cpu_nanoseconds: AtomicU64,
}

struct State {
    lanes: Vec<Lane>,
    done: VecDeque<Done>,
    /// The urgent ones that are over.
    done_urgent: VecDeque<Done>,
    closed: bool,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Read>,
    /// Done before all that is in the queue.
    urgent: VecDeque<Read>,
    /// Whether the lane's thread sleeps in the kernel, or is about to.
    is_in_kernel: bool,
}

impl Queues {
    /// One lane for each waker.
    pub(crate) fn new(wakers: Vec<Option<Waker>>) -> Arc<Self> {
        let lane = |_| Lane { queue: VecDeque::with_capacity(QUEUE_RESERVED), ..Lane::default() };
        let lanes = (0..wakers.len()).map(lane).collect();
        let done = VecDeque::with_capacity(QUEUE_RESERVED);
        let state = State { lanes, done, done_urgent: VecDeque::new(), closed: false };
        Arc::new(Queues {
            state: Mutex::new(state),
            work: wakers.into_iter().map(|waker| (Condvar::new(), waker)).collect(),
            landed: Condvar::new(),
            cpu_nanoseconds: AtomicU64::new(0),
        })
    }

    /// Queues a read behind the others of its lane.
    pub(crate) fn submit(&self, lane: usize, read: Read) {
        self.enqueue(lane, |lane| lane.queue.push_back(read));
    }

    /// Queues a read before all others of its lane. It comes back through [`Queues::wait_urgent`].
    pub(crate) fn submit_urgent(&self, lane: usize, read: Read) {
        self.enqueue(lane, |lane| lane.urgent.push_back(read));
    }

    fn enqueue(&self, index: usize, push: impl FnOnce(&mut Lane)) {
        let mut state = self.lock();
        let (Some(lane), Some((work, waker))) = (state.lanes.get_mut(index), self.work.get(index)) else {
            return;
        };
        push(lane);
        let is_in_kernel = std::mem::take(&mut lane.is_in_kernel);
        drop(state);
        match waker {
            Some(wake) if is_in_kernel => wake(),
            _ => work.notify_one(),
        }
    }

    /// The next read of a lane, also long after the call if that may wait for it; without room, only an urgent
    /// one. None comes any more once the pool closes. A thread that is given none must look again after it is
    /// woken by its waker.
    pub(crate) fn take(self: &Arc<Self>, lane: usize, has_room: bool, may_wait: bool) -> Option<Job> {
        let (work, _) = self.work.get(lane)?;
        let mut state = self.lock();
        loop {
            let closed = state.closed;
            let queued = state.lanes.get_mut(lane)?;
            let urgent = queued.urgent.pop_front();
            let is_urgent = urgent.is_some();
            let read = urgent.or_else(|| if has_room { queued.queue.pop_front() } else { None });
            queued.is_in_kernel = read.is_none() && !may_wait;
            if let Some(Read { tag, extent, buffer }) = read {
                return Some(Job { tag, is_urgent, extent, buffer: Some(buffer), queues: Arc::clone(self) });
            }
            if closed || !may_wait {
                return None;
            }
            state = work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until a read that is not urgent is over. One must be outstanding.
    pub(crate) fn wait(&self) -> Done {
        self.wait_for(|state| &mut state.done)
    }

    /// Waits until an urgent read is over. One must be outstanding.
    pub(crate) fn wait_urgent(&self) -> Done {
        self.wait_for(|state| &mut state.done_urgent)
    }

    fn wait_for(&self, which: impl Fn(&mut State) -> &mut VecDeque<Done>) -> Done {
        let mut state = self.lock();
        loop {
            if let Some(done) = which(&mut state).pop_front() {
                return done;
            }
            state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A read that is not urgent and is over.
    pub(crate) fn poll(&self) -> Option<Done> {
        self.lock().done.pop_front()
    }

    /// An urgent read that is over.
    pub(crate) fn poll_urgent(&self) -> Option<Done> {
        self.lock().done_urgent.pop_front()
    }

    /// An urgent read that no thread has begun, of a lane whose threads do one read after the other: the others
    /// begin theirs at once.
    pub(crate) fn steal_urgent(&self) -> Option<Read> {
        let mut state = self.lock();
        let mut lanes = state.lanes.iter_mut().zip(&self.work).filter(|(_, (_, waker))| waker.is_none());
        lanes.find_map(|(lane, _)| lane.urgent.pop_front())
    }

    /// Ends the reads that no thread has begun.
    pub(crate) fn cancel(&self) {
        let mut state = self.lock();
        let State { lanes, done, .. } = &mut *state;
        done.extend(lanes.iter_mut().flat_map(|lane| lane.queue.drain(..)).map(cancelled));
    }

    /// Forgets the reads that no thread has begun and lets the threads end.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.lanes.iter_mut().for_each(|lane| lane.queue.clear());
        drop(state);
        self.work.iter().for_each(|(work, _)| work.notify_all());
    }

    /// What the threads have used of the processors, user and system, as of the latest read of each.
    pub(crate) fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanoseconds.load(Ordering::Relaxed))
    }

    /// The state is whole after every step, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read that a thread works on. However the thread ends it, the caller gets it back: a job that is dropped,
/// as by a panic, lands as an error.
pub(crate) struct Job {
    tag: u64,
    is_urgent: bool,
    extent: Extent,
    /// Gone only once it has landed.
    buffer: Option<AlignedBuffer>,
    queues: Arc<Queues>,
}

impl Job {
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    pub(crate) fn buffer(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }

    /// Hands the read back: it is over now.
    pub(crate) fn land(mut self, result: Result<Range<usize>, Error>) {
        self.hand_back(result);
    }

    fn hand_back(&mut self, result: Result<Range<usize>, Error>) {
        let Some(buffer) = self.buffer.take() else { return };
        let done = Done { tag: self.tag, buffer, result, finished: Instant::now() };
        let mut state = self.queues.lock();
        match self.is_urgent {
            true => state.done_urgent.push_back(done),
            false => state.done.push_back(done),
        }
        drop(state);
        self.queues.landed.notify_one();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let message = "a read was given up since its thread panicked, which is a bug of this program";
        if self.buffer.is_some() {
            self.hand_back(Err(Error::new(ErrorKind::Io, message)));
        }
    }
}

/// Counts what one thread uses of the processors.
pub(crate) struct Meter<'a> {
    queues: &'a Queues,
    counted: Duration,
}

impl<'a> Meter<'a> {
    /// To be made by the thread itself.
    pub(crate) fn new(queues: &'a Queues) -> Self {
        Meter { queues, counted: system::thread_cpu_time() }
    }

    pub(crate) fn count(&mut self) {
        let now = system::thread_cpu_time();
        let used = now.saturating_sub(self.counted).as_nanos();
        self.queues.cpu_nanoseconds.fetch_add(u64::try_from(used).unwrap_or(0), Ordering::Relaxed);
        self.counted = now;
    }
}

/// What a read comes back as that never began.
pub(crate) fn cancelled(read: Read) -> Done {
    let result = Err(Error::new(ErrorKind::Cancelled, "the read was cancelled before it began"));
    Done { tag: read.tag, buffer: read.buffer, result, finished: Instant::now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tag: u64) -> Read {
        let extent = Extent { file: FileId(0), offset: 0, bytes: 1 };
        Read { tag, extent, buffer: AlignedBuffer::new(1).unwrap() }
    }

    #[test]
    fn urgent_reads_go_first_and_need_no_room() {
        let queues = Queues::new(vec![None, None]);
        (0..2).for_each(|tag| queues.submit(1, read(tag)));
        (5..9).for_each(|tag| queues.submit_urgent(1, read(tag)));
        let take = |lane, has_room| queues.take(lane, has_room, false).map(|job| job.tag);
        assert_eq!((take(0, true), take(1, false), take(1, true)), (None, Some(5), Some(6)));
        assert_eq!(queues.steal_urgent().map(|read| read.tag), Some(7));
        assert_eq!((take(1, false), take(1, false), take(1, true)), (Some(8), None, Some(0)));
        // Dropped jobs land as errors, each where its caller waits for it.
        assert!([5, 6, 8].into_iter().all(|tag| queues.wait_urgent().tag == tag));
        assert_eq!(queues.wait().result.unwrap_err().kind(), ErrorKind::Io);
        assert!(queues.poll().is_none());
    }

    #[test]
    fn every_device_has_a_lane_as_far_as_they_go() {
        let lanes = Lanes::new([4, 4, 9, 4, 2]);
        let of: Vec<usize> = (0..6).map(|file| lanes.of(FileId(file))).collect();
        assert_eq!((of, lanes.count()), (vec![0, 0, 1, 0, 2, 0], 3));
        assert_eq!(Lanes::new([]).count(), 1);
        let many = Lanes::new(0..100);
        assert_eq!(many.count(), LANES_MAX);
        assert!((0..100).all(|file| many.of(FileId(file)) < LANES_MAX));
    }
}
