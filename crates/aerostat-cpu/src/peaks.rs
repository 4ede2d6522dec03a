//! What cores and memory can do at most: the ceilings that kernels are measured against, and that plans reckon with.
//!
//! Both are found in many short runs on a worker pool. Of multiply-adds the fastest run counts, one that no other process
//! met. Memory is shared with all that the machine does, and with its neighbours: there the middle run counts.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aerostat_backend::{Error, ErrorKind};

use crate::isa::{Isa, Kernel, Token};
use crate::memory::{Line, advise};
use crate::vector::{LANES, Vector};
use crate::workers::Workers;

/// Time for the runs of one measurement.
const TIME: Duration = Duration::from_millis(8);
const RUNS_MIN: usize = 8;
/// A run that is short enough for some of them to meet no other process, and long beside the handing out of tasks.
const RUN: Duration = Duration::from_micros(200);
/// Bytes of a task that reads: one huge page, in parts that are read side by side, so that more reads are under way.
const TASK_BYTES: usize = 2 << 20;
const STREAMS: usize = 4;
const STREAM_BYTES: usize = TASK_BYTES / STREAMS;
/// Tasks of a thread in one run: some hundred microseconds.
const RUN_TASKS: usize = 2;
/// Bytes from what is read to what is asked for.
const AHEAD_BYTES: usize = 2048;

/// Operations per second of f32 fused multiply-adds on registers, two for each, on all `threads` together.
/// Takes about 10 ms.
///
/// # Errors
/// `Unsupported` when the CPU lacks the instruction set or the number of threads makes no sense; `Device` when a thread
/// cannot be started.
pub fn fma_peak(threads: usize, isa: Isa) -> Result<f64, Error> {
    let token = Token::require(isa)?;
    let mut pool = Workers::new(threads)?;
    let mut run = |steps: usize| {
        let start = Instant::now();
        // SAFETY: the kernel has no pointers.
        pool.run(threads, &|_, _| unsafe { token.enter(Multiply { steps }) });
        start.elapsed()
    };
    let mut steps = 64;
    while run(steps) < RUN {
        steps *= 2;
    }
    let seconds = times(|| run(steps))[0];
    Ok((2 * LANES * SUMS * steps * threads) as f64 / seconds)
}

/// Bytes per second that all `threads` together read from `bytes` of memory, over and over; these should be far more than
/// the last-level cache holds. They are taken from the system for the time of the call: with 64 MiB, about 20 ms.
///
/// # Errors
/// As [`fma_peak`], and `OutOfMemory`.
pub fn read_peak(threads: usize, bytes: usize) -> Result<f64, Error> {
    let token = Token::require(Isa::detect())?;
    let mut pool = Workers::new(threads)?;
    let tasks = bytes.div_ceil(TASK_BYTES).max(1);
    let refused = || Error::new(ErrorKind::OutOfMemory, format!("no memory of {bytes} bytes to read"));
    let bytes = tasks.checked_mul(TASK_BYTES).ok_or_else(refused)?;
    let mut memory: Vec<Line> = Vec::new();
    memory.try_reserve_exact(bytes / size_of::<Line>()).map_err(|_| refused())?;
    advise(memory.as_ptr().cast(), bytes);
    let start = Start(memory.as_mut_ptr().cast());
    // SAFETY: the tasks are disjoint and within the allocation; none reads before all have been filled.
    pool.run(tasks, &|task, _| unsafe { token.enter(Fill(start.task(task))) });
    let (mut first, count) = (0, (RUN_TASKS * threads).min(tasks));
    let times = times(|| {
        let time = Instant::now();
        // SAFETY: as above.
        pool.run(count, &|task, _| unsafe { token.enter(Read(start.task((first + task) % tasks))) });
        first = (first + count) % tasks;
        time.elapsed()
    });
    let seconds = times[times.len() / 2];
    Ok((count * TASK_BYTES) as f64 / seconds)
}

/// Seconds of some runs, the fastest first.
fn times(mut run: impl FnMut() -> Duration) -> Vec<f64> {
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < RUNS_MIN || begin.elapsed() < TIME {
        times.push(run().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times
}

/// The start of an allocation.
#[derive(Clone, Copy)]
struct Start(*mut f32);

// SAFETY: tasks use disjoint parts.
unsafe impl Sync for Start {}

impl Start {
    fn task(&self, task: usize) -> *mut f32 {
        self.0.wrapping_add(task * TASK_BYTES / size_of::<f32>())
    }
}

/// Independent sums of [`Multiply`]: enough to hide the latency of one, few enough for registers.
const SUMS: usize = 12;

/// `steps` times [`SUMS`] multiply-adds.
struct Multiply {
    steps: usize,
}

impl Kernel for Multiply {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        // SAFETY: the promise of `Kernel`.
        unsafe {
            let (a, b) = (V::splat(black_box(0.5)), V::splat(black_box(0.25)));
            let mut sums = [V::splat(0.0); SUMS];
            for _ in 0..self.steps {
                for sum in &mut sums {
                    *sum = V::mul_add(a, b, *sum);
                }
            }
            keep::<V, SUMS>(sums);
        }
    }
}

/// Writes the bytes of a task.
struct Fill(*mut f32);

impl Kernel for Fill {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        for i in 0..TASK_BYTES / size_of::<Line>() {
            // SAFETY: the promise of `Kernel`: the pointer is valid for a task.
            unsafe { V::store(V::splat(1.0), self.0.add(i * LANES)) };
        }
    }
}

/// Reads the bytes of a task.
struct Read(*const f32);

impl Kernel for Read {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        // SAFETY: the promise of `Kernel`: the pointer is valid for a task, and that of a prefetch need not be.
        unsafe {
            let mut sums = [V::splat(0.0); STREAMS];
            for i in 0..STREAM_BYTES / size_of::<Line>() {
                for (stream, sum) in sums.iter_mut().enumerate() {
                    let at = self.0.add(stream * (STREAM_BYTES / size_of::<f32>()) + i * LANES);
                    V::prefetch(at.cast::<u8>().wrapping_add(AHEAD_BYTES));
                    *sum = V::add(*sum, V::load(at));
                }
            }
            keep::<V, STREAMS>(sums);
        }
    }
}

/// Makes the sums something that is asked for.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn keep<V: Vector, const S: usize>(sums: [V; S]) {
    // SAFETY: the caller's promise; `out` has 16 elements.
    unsafe {
        let mut all = sums[0];
        for sum in sums {
            all = V::add(all, sum);
        }
        let mut out = [0.0; LANES];
        V::store(all, out.as_mut_ptr());
        black_box(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_found_for_every_instruction_set_and_small_memory() {
        for isa in Isa::available() {
            assert!(fma_peak(2, isa).unwrap() > 0.0);
        }
        for bytes in [0, 1, 5 << 20] {
            assert!(read_peak(3, bytes).unwrap() > 0.0);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(fma_peak(0, Isa::Portable).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(read_peak(1, usize::MAX).unwrap_err().kind(), ErrorKind::OutOfMemory);
    }
}
