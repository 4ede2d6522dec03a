//! What a device can do at most: the ceilings that kernels and sweeps are measured against.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aerostat_backend::{Backend, Error, ErrorKind, HostBytes, TileShape, Weight};
use aerostat_checkpoint::DType;
use wgpu::BufferUsages;

use crate::gpu::Gpu;
use crate::pipelines::{Kernel, Words};

/// Threads of a workgroup, and workgroups: enough to fill any card.
const THREADS: usize = 64;
const GROUPS: usize = 4096;
/// Operations of a thread in a step: a multiplication and an addition for each of sixty-four.
const OPERATIONS: usize = 128;
/// Memory that is read: far more than caches hold, and no more than a buffer can be everywhere.
const READ_BYTES: u64 = 128 << 20;
const READ_BYTES_MIN: u64 = 1 << 20;

impl Gpu {
    /// Waits until all that was asked for is done.
    ///
    /// # Errors
    /// `Device`.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.stream.wait_all()
    }

    /// Bytes per second of tiles of so many bytes, whole words, on the way that weights take to the device. For about `time`.
    ///
    /// # Errors
    /// `OutOfMemory`, `Device`.
    pub fn upload_rate(&mut self, tile_bytes: usize, time: Duration) -> Result<f64, Error> {
        let shape = TileShape { dtype: DType::F32, rows: 1, cols: (tile_bytes / 4).max(1), packed: false };
        let tile: Arc<[u8]> = vec![0x3c; shape.cols * 4].into();
        self.reserve_tiles(tile.len() as u64)?;
        let send = |gpu: &mut Self| -> Result<(), Error> {
            let upload = gpu.upload(shape, Box::new(Arc::clone(&tile)) as HostBytes)?;
            gpu.weight(Weight::Arriving(upload))?;
            gpu.release(upload);
            Ok(())
        };
        // Each slot once: its memory is there.
        (0..4).try_for_each(|_| send(self))?;
        self.finish()?;
        let (begun, mut sent) = (Instant::now(), 0);
        while begun.elapsed() < time {
            send(self)?;
            sent += tile.len();
        }
        self.finish()?;
        Ok(sent as f64 / begun.elapsed().as_secs_f64())
    }

    /// Operations per second of f32 fused multiply-adds on registers, two for each: the best of runs for about `time`.
    ///
    /// # Errors
    /// `Device`.
    pub fn fma_peak(&mut self, time: Duration) -> Result<f64, Error> {
        let out = self.budget.buffer("a sum", 4, BufferUsages::STORAGE, false)?;
        let mut steps = 16;
        let run = |gpu: &mut Self, steps: usize| -> Result<f64, Error> {
            let words = Words::of(&[0, steps])?.floats(&[0.999, 0.001])?;
            let begun = Instant::now();
            gpu.run(Kernel::PeakFma, &[&out], &words, (GROUPS, 1))?;
            gpu.finish()?;
            Ok(begun.elapsed().as_secs_f64())
        };
        // Some milliseconds: long beside the time that it takes to hand work over.
        while run(self, steps)? < 5e-3 && steps < 1 << 24 {
            steps *= 2;
        }
        let (begun, mut best) = (Instant::now(), f64::INFINITY);
        while begun.elapsed() < time {
            best = best.min(run(self, steps)?);
        }
        Ok((OPERATIONS * steps * THREADS * GROUPS) as f64 / best.min(run(self, steps)?))
    }

    /// Bytes per second that kernels read of memory: the best of runs for about `time`.
    ///
    /// # Errors
    /// `OutOfMemory`, `Device`.
    pub fn read_peak(&mut self, time: Duration) -> Result<f64, Error> {
        const PASSES: usize = 4;
        let left = self.budget.left().saturating_sub(READ_BYTES_MIN);
        let bytes = READ_BYTES.min(left).min(self.budget.buffer_bytes_max()) / 16 * 16;
        if bytes < READ_BYTES_MIN {
            let message = format!("{bytes} bytes of device memory are too few to measure; raise --vram");
            return Err(Error::new(ErrorKind::OutOfMemory, message));
        }
        let from = self.budget.buffer("memory to be read", bytes, BufferUsages::STORAGE, false)?;
        let out = self.budget.buffer("a sum", 4, BufferUsages::STORAGE, false)?;
        let words = Words::of(&[0, (bytes / 16) as usize, THREADS * GROUPS])?;
        let run = |gpu: &mut Self| -> Result<f64, Error> {
            let begun = Instant::now();
            for _ in 0..PASSES {
                gpu.run(Kernel::PeakRead, &[&from, &out], &words, (GROUPS, 1))?;
            }
            gpu.finish()?;
            Ok(begun.elapsed().as_secs_f64())
        };
        // Its memory is cleared when it is first used.
        run(self)?;
        let (begun, mut best) = (Instant::now(), run(self)?);
        while begun.elapsed() < time {
            best = best.min(run(self)?);
        }
        self.stream.forget();
        Ok((bytes * PASSES as u64) as f64 / best)
    }
}
