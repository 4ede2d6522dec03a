//! The device.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use aerostat_backend::rules::Rows;
use aerostat_backend::{Error, ErrorKind, Mat, Placement, RowPlace};
use wgpu::BufferUsages;

use crate::adapters::{self, Choice, UploadPath};
use crate::attend;
use crate::budget::{self, Budget, Buffer};
use crate::cache::Cache;
use crate::context::Context;
use crate::memory::{self, Arena, At, Transfer};
use crate::pipelines::{Kernel, Words};
use crate::stream::Stream;
use crate::weights::{Found, Weights};

/// Lists that come with ops, and where rows stand, in bytes, about.
const SCRATCH_BYTES: u64 = 2 << 20;

/// How to open a [`Gpu`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GpuConfig {
    /// Which adapter.
    pub adapter: Choice,
    /// Bound of device memory, staging included, in bytes; `None`: what there is.
    pub memory_bytes: Option<u64>,
    /// How weights get there.
    pub path: UploadPath,
}

/// A device of an adapter: a [`Backend`](aerostat_backend::Backend).
pub struct Gpu {
    pub(crate) context: Arc<Context>,
    pub(crate) budget: Budget,
    pub(crate) stream: Stream,
    pub(crate) arena: Arena,
    pub(crate) transfer: Transfer,
    pub(crate) weights: Weights,
    pub(crate) cache: Option<Cache>,
    pub(crate) rows: Rows,
    pub(crate) places: Option<Places>,
    pub(crate) slopes: HashMap<(u32, bool, usize), Buffer>,
    pub(crate) sums: Sums,
    scratch: HashMap<Scratch, Buffer>,
}

/// Where the rows of the sweep stand, on the device.
pub(crate) struct Places {
    pub(crate) buffer: Buffer,
    /// Where the runs of recurrent states begin, in words, and how many there are.
    pub(crate) runs: usize,
}

/// Partial sums of the matrix stored by inputs that is being multiplied.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) buffer: Option<Buffer>,
    /// Rows and outputs, and the first input of the next tile.
    pub(crate) next: Option<(usize, usize, usize)>,
}

/// Memory that ops use for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scratch {
    /// Numbers that came with an op.
    List,
    /// Where rows stand.
    Places,
    /// Scores of positions.
    Scores,
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// `Unsupported`: there is none, or it lacks what kernels need; `Device`: it could not be opened.
    pub fn new(config: GpuConfig) -> Result<Self, Error> {
        let context = adapters::open(config.adapter, config.path)?;
        Ok(Self {
            budget: Budget::new(Arc::clone(&context), config.memory_bytes),
            stream: Stream::new(Arc::clone(&context))?,
            arena: Arena::default(),
            transfer: Transfer::default(),
            weights: Weights::new(context.mapped),
            cache: None,
            rows: Rows::default(),
            places: None,
            slopes: HashMap::new(),
            sums: Sums::default(),
            scratch: HashMap::new(),
            context,
        })
    }

    /// The adapter's name, with its driver.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// Bytes of device memory by our own count.
    pub fn memory_bytes(&self) -> u64 {
        self.budget.used()
    }

    /// Bytes of device memory that its allocator has reserved; `None` where it does not say.
    pub fn reserved_bytes(&self) -> Option<u64> {
        Some(self.context.device.generate_allocator_report()?.total_reserved_bytes)
    }

    /// The kernels that were compiled for its adapter by now.
    pub fn kernels(&self) -> Vec<Kernel> {
        self.context.pipelines.lock().unwrap_or_else(PoisonError::into_inner).kernels()
    }

    /// What of the memory is taken whatever is computed.
    pub(crate) fn fixed_bytes(&self) -> u64 {
        memory::FIXED_BYTES + SCRATCH_BYTES + attend::SCORES_BYTES as u64 + budget::ROUNDED_BYTES
    }

    /// Frees everything.
    pub(crate) fn forget(&mut self) {
        // What is under way may still use it.
        let _ = self.stream.wait_all();
        self.stream.forget();
        self.arena = Arena::default();
        self.transfer = Transfer::default();
        self.weights = Weights::new(self.context.mapped);
        self.cache = None;
        self.rows.clear();
        self.places = None;
        self.slopes.clear();
        self.sums = Sums::default();
        self.scratch.clear();
    }

    /// Where a matrix lies.
    pub(crate) fn at(&self, mat: &Mat) -> Result<At, Error> {
        self.arena.at(mat)
    }

    /// Starts a kernel.
    pub(crate) fn run(
        &mut self,
        kernel: Kernel,
        buffers: &[&Buffer],
        words: &Words,
        workgroups: (usize, usize),
    ) -> Result<(), Error> {
        let pipelines = &mut *self.context.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let pipeline = pipelines.get(&self.context, kernel)?;
        self.stream.dispatch(&pipeline, buffers, words, workgroups)
    }

    /// A weight in device memory.
    pub(crate) fn weight(&mut self, weight: aerostat_backend::Weight) -> Result<Found, Error> {
        let Self { weights, budget, stream, transfer, .. } = self;
        weights.find(weight, (budget, stream, transfer))
    }

    /// Memory that an op uses for itself, of at least so many words.
    pub(crate) fn scratch(&mut self, use_of: Scratch, words: usize) -> Result<Buffer, Error> {
        let bytes = words as u64 * 4;
        if let Some(buffer) = self.scratch.get(&use_of).filter(|buffer| buffer.bytes >= bytes) {
            return Ok(buffer.clone());
        }
        if self.scratch.remove(&use_of).is_some() {
            self.stream.forget();
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let buffer = self.budget.buffer("scratch", bytes.next_power_of_two().max(4096), usage, false)?;
        self.scratch.insert(use_of, buffer.clone());
        Ok(buffer)
    }

    /// Words that come with an op, in memory of the device.
    pub(crate) fn list(&mut self, words: &[u32]) -> Result<Buffer, Error> {
        let buffer = self.scratch(Scratch::List, words.len())?;
        self.write_words(words, (&buffer, 0))?;
        Ok(buffer)
    }

    pub(crate) fn write_words(&mut self, words: &[u32], to: (&Buffer, u64)) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(words.len() * 4);
        words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        self.write_bytes(&bytes, to)
    }

    /// Writes what is no weight.
    pub(crate) fn write_bytes(&mut self, bytes: &[u8], to: (&Buffer, u64)) -> Result<(), Error> {
        let Self { transfer, budget, stream, .. } = self;
        stream.counters.written_bytes += bytes.len() as u64;
        transfer.write(budget, stream, bytes, to)
    }

    /// Bytes of scratch.
    pub(crate) fn scratch_bytes(&self) -> u64 {
        let own: u64 = self.scratch.values().chain(self.slopes.values()).map(|buffer| buffer.bytes).sum();
        own + self.sums.buffer.as_ref().map_or(0, |buffer| buffer.bytes)
            + self.transfer.bytes()
            + self.weights.slot_bytes()
    }

    /// Tells the device where rows stand.
    pub(crate) fn write_places(&mut self) -> Result<(), Error> {
        let Placement { rows, pages, slots } = self.rows.placement();
        let table = rows.len() * 5;
        let mut words: Vec<u32> = Vec::with_capacity(table + pages.len() + slots.len());
        for &RowPlace { position, last, table: first, branch } in rows {
            let from = branch.map_or(u32::MAX, |branch| branch.from);
            let own = branch.map_or(0, |branch| branch.slots);
            let place = |start: usize, first: u32| (start as u32).wrapping_add(first);
            words.extend([position, place(table, first), from, place(table + pages.len(), own), last]);
        }
        words.extend_from_slice(pages);
        words.extend_from_slice(slots);
        let runs = words.len();
        for run in self.rows.all_runs() {
            words.extend([run.slot as u32, run.start as u32, run.rows as u32, u32::from(run.fresh)]);
        }
        let buffer = self.scratch(Scratch::Places, words.len())?;
        self.write_words(&words, (&buffer, 0))?;
        self.places = Some(Places { buffer, runs });
        Ok(())
    }

    /// Where rows stand, on the device.
    pub(crate) fn placed(&self) -> Result<(Buffer, usize), Error> {
        let places = self.places.as_ref().ok_or_else(|| Error::shape("no rows were set"))?;
        Ok((places.buffer.clone(), places.runs))
    }

    /// The KV cache.
    pub(crate) fn cached(&self) -> Result<&Cache, Error> {
        self.cache.as_ref().ok_or_else(|| Error::shape("the KV cache was not allocated"))
    }
}

/// A format that kernels compute with.
pub(crate) fn check_format(dtype: aerostat_checkpoint::DType) -> Result<(), Error> {
    if aerostat_checkpoint::DType::COMPUTABLE.contains(&dtype) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("weights in {dtype:?} are not supported on the GPU")))
}
