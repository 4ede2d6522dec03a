//! The worker pool: one job at a time, its tasks handed out by a counter, no allocation per job.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use aerostat_backend::{Error, ErrorKind};

/// How often a worker looks for a job before it parks: some ten microseconds.
const SPINS_BEFORE_PARK: u32 = 1000;
/// How often the caller looks whether the workers have left before it yields its time slice.
const SPINS_BEFORE_YIELD: u32 = 200;

// The state word: workers inside the job, whether the job is open, and the job's number.
const INSIDE_MASK: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const NUMBER_SHIFT: u32 = 32;
/// Most threads of a pool.
const THREADS_MAX: usize = 1024;
const _: () = assert!((THREADS_MAX as u64) < INSIDE_MASK);

/// `threads - 1` workers and the caller.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// A task of a job: number of the task, number of the thread (each runs one task at a time).
type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Shared {
    state: AtomicU64,
    stop: AtomicBool,
    job: UnsafeCell<Option<&'static Job<'static>>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by `Workers::run` (which has `&mut Workers`) while the job is closed and no worker is inside,
// and read only by workers that are inside; the state word orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the job is `Sync`, so it may be used from any thread.
unsafe impl Send for Shared {}

impl Workers {
    /// Starts the workers.
    pub(crate) fn new(threads: usize) -> Result<Self, Error> {
        if !(1..=THREADS_MAX).contains(&threads) {
            let message = format!("{threads} threads were asked for; give 1 to {THREADS_MAX}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads - 1) };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(format!("aerostat-cpu-{worker}"));
            let handle = thread.spawn(move || shared.work(worker)).map_err(|error| {
                Error::new(
                    ErrorKind::Device,
                    format!("worker thread {worker} of {threads} did not start: {error}"),
                )
            })?;
            pool.workers.push(handle);
        }
        Ok(pool)
    }

    /// Threads that run tasks, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(task, thread)` for every `task < tasks`, and returns when all are done.
    ///
    /// # Panics
    /// When a task panics: with its payload, after all threads have left the job.
    pub(crate) fn run(&mut self, tasks: usize, job: &Job<'_>) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(|task| job(task, 0));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers use the job only while they are inside, and this function returns
        // only when the job is closed and nobody is inside.
        let job = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        // SAFETY: the job is closed and nobody is inside, see `Shared`.
        unsafe { *shared.job.get() = Some(job) };
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        let number = (shared.state.load(Ordering::Relaxed) >> NUMBER_SHIFT) + 1;
        shared.state.store(number << NUMBER_SHIFT | OPEN, Ordering::Release);
        for worker in self.workers.iter().take(tasks - 1) {
            worker.thread().unpark();
        }
        shared.tasks(job, 0);
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while shared.state.load(Ordering::Acquire) & INSIDE_MASK > 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD { std::hint::spin_loop() } else { thread::yield_now() }
        }
        let payload = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its tasks; there is nothing to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self, worker: usize) {
        let (mut done, mut spins) = (0, 0);
        while !self.stop.load(Ordering::Acquire) {
            let state = self.state.load(Ordering::Acquire);
            let number = state >> NUMBER_SHIFT;
            if state & OPEN == 0 || number == done {
                spins += 1;
                if spins < SPINS_BEFORE_PARK {
                    std::hint::spin_loop()
                } else {
                    thread::park()
                }
                continue;
            }
            let enter = self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
            if enter.is_ok() {
                // SAFETY: this thread is inside an open job, see `Shared`.
                if let Some(job) = unsafe { *self.job.get() } {
                    self.tasks(job, worker);
                }
                (done, spins) = (number, 0);
                self.state.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Runs tasks until none is left. A panic is kept, and ends the job early.
    fn tasks(&self, job: &Job<'_>, thread: usize) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                job(task, thread);
            }
        }));
        if let Err(payload) = result {
            self.next.store(tasks, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let mut pool = Workers::new(threads).unwrap();
            for tasks in [0, 1, 2, 3, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task, thread| {
                    assert!(thread < threads);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        for threads in [1, 3] {
            let mut pool = Workers::new(threads).unwrap();
            for bad in [0, 5, 99] {
                let run = AssertUnwindSafe(|| pool.run(100, &|task, _| assert!(task != bad, "task {task}")));
                let payload = catch_unwind(run).unwrap_err();
                assert_eq!(payload.downcast_ref::<String>().unwrap(), &format!("task {bad}"));
            }
            let sum = AtomicUsize::new(0);
            pool.run(10, &|task, _| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn a_silly_number_of_threads_is_refused() {
        for threads in [0, 1 << 20] {
            assert_eq!(Workers::new(threads).err().unwrap().kind(), ErrorKind::Unsupported);
        }
    }
}
