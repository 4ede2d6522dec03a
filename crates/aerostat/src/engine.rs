//! A model opened for work: the sweep loop.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aerostat_arch::{Block, ModelSpec};
use aerostat_backend::{Backend, KvLayout, KvType, Tile, Weight, WeightId, reference::Reference};
use aerostat_checkpoint::Extent;
use aerostat_cpu::{Cpu, CpuConfig, Isa};
use aerostat_model::{Batch, Limits, Model, Pages};
use aerostat_plan::{Demand, ExpertUse, Machine, PAGE_TOKENS, Plan, Role, Step};
use aerostat_stream::{IoChoice, Ring, Source, SourceOptions};

use crate::embed::Layer;
use crate::flow::Flow;
use crate::kept::KeptRows;
use crate::machine;
use crate::model_files::ModelFiles;
use crate::observe::{Observer, Phase, Progress};
use crate::packed::{self, PackedRows, Vectors};
use crate::schedule::{Memory, Rows, Tap};
use crate::{Error, ErrorKind, Need, Stats};
use crate::{layouts, learned};

/// Where ops run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The fastest there is.
    #[default]
    Auto,
    /// The SIMD kernels of this machine's CPU.
    Cpu,
    /// The naive backend that others are tested against.
    Reference,
}

/// What is done with sequences that begin alike. Results are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefixes {
    /// Compute and hold what they share once; not so where they have a recurrent state, which no two can share.
    #[default]
    Shared,
    /// Each computes and holds its own.
    Apart,
}

/// How a model is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bound of the whole process's resident set; `None`: resident if that fits in 80 % of the available memory,
    /// else that.
    pub memory_bytes: Option<u64>,
    /// Where ops run.
    pub device: Device,
    /// Worker threads; `None`: all cores.
    pub threads: Option<usize>,
    /// Instruction set; `None`: the best of this CPU.
    pub isa: Option<Isa>,
    /// How weights are read.
    pub io: IoChoice,
    /// Rows of a sweep at most.
    pub rows_max: Option<usize>,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Tile size in bytes; `None`: the plan chooses.
    pub tile_bytes: Option<u64>,
    /// Rows of one prompt in one sweep at most.
    pub prefill_chunk: Option<usize>,
    /// Whether sequences that begin alike compute and hold what they share once.
    pub prefixes: Prefixes,
    /// Where parts of the KV cache may wait on disk, so that more sequences are active at once; `None`: a sequence waits
    /// until its longest answer has room, as it does where sequences have a recurrent state.
    pub spill: Option<PathBuf>,
    /// Weights kept in memory at most; for measurements. `None`: as much as the budget allows.
    pub pinned_bytes_max: Option<u64>,
    /// What the plan takes reading to yield; `None`: what a look at the disk says.
    pub read_bytes_per_second: Option<f64>,
    /// A small file that learns which experts are used, so that later runs keep those in memory: read when a model is
    /// opened, added to when the engine is dropped. It may be missing or deleted. It changes no results.
    pub expert_use: Option<PathBuf>,
}

/// A model opened for work. Everything large is allocated when it is opened.
pub struct Engine {
    plan: Plan,
    backend: Box<dyn Backend>,
    flow: Flow,
    model: Model,
    /// For each step of the plan, its resident tile if it has one.
    pinned: Vec<Option<WeightId>>,
    /// The tiles of resident experts, by block and index.
    pinned_experts: HashMap<(usize, u32), Vec<WeightId>>,
    /// Which experts were used, and the file that learns it.
    uses: ExpertUse,
    learned: Option<PathBuf>,
    /// The tiles of the present block's experts: which of those in use, and the step.
    routed: Vec<(usize, Step)>,
    /// Embedding rows as stored, of the sweep at hand; and those that were read lately.
    gathered: Vec<u8>,
    kept: KeptRows,
    /// Where the rows of a packed embedding lie.
    packed: Option<PackedRows>,
    pub(crate) pages: Pages,
    pub(crate) prefill_chunk: usize,
    pub(crate) prefixes: Prefixes,
    pub(crate) spill: Option<PathBuf>,
    opened: Instant,
    clock: Clock,
}

/// What is counted while sweeping.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    sweeps: u64,
    rows: u64,
    load: Duration,
    sweeping: Duration,
    compute: Duration,
    /// Experts that rows used, block by block and sweep by sweep; how many of them were read, and their bytes.
    experts: u64,
    experts_read: u64,
    expert_bytes: u64,
    /// What the plan says the sweeps so far take, in seconds.
    predicted: f64,
    pub(crate) tokens: u64,
    pub(crate) tokens_left: u64,
    pub(crate) shared_rows: u64,
    /// Written, and read back.
    pub(crate) spilled_bytes: (u64, u64),
}

impl Engine {
    /// Makes the plan for a need without opening anything large. `resident` is what the process holds now.
    ///
    /// # Errors
    /// `ErrorKind::Budget`, and what measuring the disk meets.
    pub fn plan(files: &ModelFiles, options: &Options, need: &Need) -> Result<Plan, Error> {
        Ok(Self::plan_reads(files, options, need)?.0)
    }

    /// The plan, and how to read.
    fn plan_reads(files: &ModelFiles, options: &Options, need: &Need) -> Result<(Plan, IoChoice), Error> {
        let (io, read_bytes_per_second) = match options.read_bytes_per_second {
            Some(rate) => (options.io, rate),
            None => machine::probe_reads(files.checkpoint.catalog.files(), options.io)?,
        };
        let available_bytes = machine::available_bytes();
        let probe_bytes = (options.memory_bytes.unwrap_or(available_bytes) / 8).clamp(2 << 20, 64 << 20);
        let machine = Machine {
            available_bytes,
            process_bytes: machine::resident_bytes(),
            process_peak_bytes: machine::peak_resident_bytes(),
            threads: threads(options),
            alignment: 4096,
            read_bytes_per_second,
            multiply: machine::multiply_rates(backend(options)?, &files.spec, probe_bytes)?,
        };
        let demand = Demand {
            budget_bytes: options.memory_bytes,
            sequence_tokens_max: need.sequence_tokens_max,
            sequences: need.sequences,
            tokens_total: need.tokens_total,
            rows_useful: need.rows_useful,
            rows_max: options.rows_max,
            logit_rows_useful: need.logit_rows_useful,
            logit_rows_kept: need.logit_rows_kept,
            totals: need.totals,
            kv_type: options.kv.name(),
            kv_bytes_per_token: kv_layout(&files.spec, options.kv, 0).token_bytes() as u64,
            tile_bytes: options.tile_bytes,
            pinned_bytes_max: options.pinned_bytes_max,
            expert_use: options.expert_use.as_deref().and_then(learned::read),
        };
        Ok((aerostat_plan::plan(&files.spec, &demand, &machine)?, io))
    }

    /// Plans, allocates, and reads what stays in memory.
    ///
    /// # Errors
    /// `ErrorKind::Budget`, `ErrorKind::Io`, `ErrorKind::Device`, `ErrorKind::Interrupted`.
    pub fn open(
        files: &ModelFiles,
        options: &Options,
        need: &Need,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let (plan, io) = Self::plan_reads(files, options, need)?;
        observer.planned(&plan);
        let source = SourceOptions { io, ..SourceOptions::default() };
        let source = aerostat_stream::open(files.checkpoint.catalog.files(), source)?;
        Self::open_on(files, options, plan, source, observer)
    }

    /// The same with a plan and a source of the caller's, such as one that fails on purpose.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_on(
        files: &ModelFiles,
        options: &Options,
        plan: Plan,
        source: Box<dyn Source>,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let opened = Instant::now();
        let spec = files.spec.clone();
        let mut ring = Ring::new(source, plan.ring_slots, plan.largest_tile(&spec) as usize)?;
        let mut backend = backend(options)?;
        backend.kv_allocate(&kv_layout(&spec, options.kv, plan.kv_pages))?;
        layouts::check_int8(&files.checkpoint.catalog, &mut ring)?;
        packed::check_matrices(&files.checkpoint.catalog, &spec, &mut ring)?;
        let packed = PackedRows::open(&spec.embedding, &mut ring)?;
        let (rows_max, logit_rows_max, states) = (plan.rows_max, plan.logit_rows_max, plan.state_slots);
        let limits = Limits { rows_max, logit_rows_max, states };
        let row_bytes = spec.embedding.row_bytes() as usize;
        let gathered = vec![0; plan.rows_max * row_bytes];
        let kept = KeptRows::new(plan.kept_rows, row_bytes);
        let mut vectors = Vectors::new(&files.checkpoint.catalog);
        let model = Model::new(spec, limits, &mut *backend, |vector| vectors.read(vector, &mut ring))?;
        let mut engine = Self {
            pages: Pages::new(plan.kv_pages, PAGE_TOKENS).with_states(plan.state_slots),
            prefill_chunk: options.prefill_chunk.unwrap_or(usize::MAX).max(1),
            prefixes: options.prefixes,
            spill: options.spill.clone(),
            clock: Clock::default(),
            pinned: Vec::new(),
            pinned_experts: HashMap::new(),
            flow: Flow::new(ring, &plan, model.spec()),
            plan,
            backend,
            model,
            uses: ExpertUse::default(),
            learned: options.expert_use.clone(),
            routed: Vec::new(),
            gathered,
            kept,
            packed,
            opened,
        };
        engine.load(observer)?;
        Ok(engine)
    }

    /// Reads what stays in memory.
    fn load(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let spec = self.model.spec();
        let experts = self.plan.pinned_experts.iter().enumerate();
        let experts = experts.flat_map(|(block, pinned)| pinned.iter().map(move |e| (block, *e)));
        let experts = experts.flat_map(|(block, e)| self.plan.expert_steps(spec, block, e));
        let steps: Vec<Step> = self.plan.steps.iter().copied().filter(|s| s.pinned).chain(experts).collect();
        self.flow.ring.request(&steps.iter().map(|s| s.extent).collect::<Vec<_>>())?;
        self.pinned.resize(self.plan.steps.len(), None);
        let mut certain = (0..self.plan.steps.len()).filter(|i| self.plan.steps[*i].pinned);
        let mut expanded = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let bytes = self.flow.ring.next()?;
            let operand = weight(&self.model, step, &bytes);
            let id = pin(&mut *self.backend, operand, self.plan.expanded, &mut expanded);
            let id = id.map_err(|e| named(&self.model, step, e))?;
            match step.expert {
                Some(expert) => self.pinned_experts.entry((step.block, expert)).or_default().push(id),
                None => certain.next().into_iter().for_each(|place| self.pinned[place] = Some(id)),
            }
            let (phase, tiles) = (Phase::Loading, steps.len());
            let place = Place { phase, tile: i + 1, tiles, block: step.block, rows: 0 };
            self.show(place, observer).inspect_err(|_| self.flow.cancel())?;
        }
        self.clock.load = self.opened.elapsed();
        Ok(())
    }

    /// One pass over the weights for the given rows; the head runs only if some of them need logits.
    ///
    /// `more` says that another sweep is likely to follow: its first tiles are then read while this one ends. `give` takes
    /// the hidden states of rows that are tapped.
    pub(crate) fn sweep(
        &mut self,
        rows: &Rows,
        phase: Phase,
        more: bool,
        give: &mut dyn FnMut(&Tap, &[f32]),
        observer: &mut dyn Observer,
    ) -> Result<&[f32], Error> {
        let begun = Instant::now();
        let batch = rows.batch();
        let head = !batch.logit_rows.is_empty();
        self.flow.begin(head, more)?;
        self.embed_tokens(&rows.tokens)?;
        self.model.begin(&mut *self.backend, &batch)?;
        // Where the stream is made of the embeddings, that is a step.
        let projected = self.plan.steps.first().is_some_and(|step| step.role == Role::ProjectIn);
        if !projected {
            self.tap(rows, 0, give)?;
        }
        self.clock.sweeps += 1;
        self.clock.rows += rows.tokens.len() as u64;
        self.clock.predicted += self.plan.cost.seconds(rows.tokens.len(), batch.logit_rows.len());
        let tiles = if head { self.plan.steps.len() } else { self.plan.sweep().0.len() };
        for i in 0..tiles {
            let step = self.plan.steps[i];
            let bytes;
            let weight = match self.pinned[i] {
                Some(id) => Weight::Pinned(id),
                None => {
                    bytes = self.flow.certain()?;
                    weight(&self.model, &step, &bytes)
                }
            };
            let computing = Instant::now();
            let done = self.model.step(&mut *self.backend, &batch, &step, weight);
            done.map_err(|e| named(&self.model, &step, e))?;
            self.clock.compute += computing.elapsed();
            if step.role == Role::ProjectIn && step.last {
                self.tap(rows, 0, give)?;
            }
            if step.role == Role::Router && step.last {
                self.route(&batch, step.block)?;
            }
            let ends = self.plan.steps.get(i + 1).is_none_or(|next| next.block != step.block);
            let place = Place { phase, tile: i + 1, tiles, block: step.block, rows: rows.tokens.len() };
            self.show(place, observer)?;
            if ends && !self.routed.is_empty() {
                self.experts(&batch, place, observer)?;
            }
            if ends {
                self.tap(rows, step.block + 1, give)?;
            }
        }
        self.clock.sweeping += begun.elapsed();
        if head { Ok(self.model.logits(&mut *self.backend, &batch)?) } else { Ok(&[]) }
    }

    /// Gives the hidden states that are wanted after so many blocks.
    fn tap(&mut self, rows: &Rows, blocks: usize, give: &mut dyn FnMut(&Tap, &[f32])) -> Result<(), Error> {
        let last = self.model.spec().blocks.len();
        for layer in [Layer::After(blocks), Layer::Final] {
            let wanted = || rows.taps.iter().filter(|tap| tap.layer == layer);
            if wanted().next().is_none() || (layer == Layer::Final && blocks != last) {
                continue;
            }
            let width = self.model.spec().hidden;
            let normed = layer == Layer::Final;
            let hidden = self.model.hidden(&mut *self.backend, rows.tokens.len(), normed)?;
            wanted().for_each(|tap| give(tap, &hidden[tap.row * width..][..width]));
        }
        Ok(())
    }

    /// Once a block's router has spoken: asks for its experts.
    fn route(&mut self, batch: &Batch<'_>, block: usize) -> Result<(), Error> {
        let experts = self.model.route(&mut *self.backend, batch, block)?.to_vec();
        self.routed.clear();
        for (index, &expert) in experts.iter().enumerate() {
            let steps = self.plan.expert_steps(self.model.spec(), block, expert);
            self.clock.experts += 1;
            self.uses.add(block, expert as usize);
            self.clock.experts_read += u64::from(steps.iter().any(|step| !step.pinned));
            self.routed.extend(steps.into_iter().map(|step| (index, step)));
        }
        let streamed = self.routed.iter().filter(|(_, step)| !step.pinned);
        let streamed: Vec<Extent> = streamed.map(|(_, step)| step.extent).collect();
        self.clock.expert_bytes += streamed.iter().map(|extent| extent.bytes).sum::<u64>();
        Ok(self.flow.route(&streamed)?)
    }

    /// Computes the experts of a block that [`Engine::route`] asked for.
    fn experts(&mut self, batch: &Batch<'_>, place: Place, observer: &mut dyn Observer) -> Result<(), Error> {
        let (mut expert, mut tile_of) = (usize::MAX, 0);
        for (index, step) in std::mem::take(&mut self.routed) {
            tile_of = if index == expert { tile_of + 1 } else { 0 };
            expert = index;
            let resident = step.expert.and_then(|e| self.pinned_experts.get(&(place.block, e)));
            let bytes;
            let weight = match resident.and_then(|tiles| tiles.get(tile_of)) {
                Some(id) => Weight::Pinned(*id),
                None => {
                    bytes = self.flow.expert()?;
                    weight(&self.model, &step, &bytes)
                }
            };
            let computing = Instant::now();
            let done = self.model.expert_step(&mut *self.backend, batch, index, &step, weight);
            done.map_err(|e| named(&self.model, &step, e))?;
            self.clock.compute += computing.elapsed();
            self.show(place, observer)?;
        }
        Ok(self.model.finish_experts(&mut *self.backend, batch, place.block)?)
    }

    /// Forgets tiles that were asked for; the next sweep starts afresh.
    pub(crate) fn stop_reading(&mut self) {
        self.flow.cancel();
        self.routed.clear();
    }

    /// Puts the embeddings of a sweep's tokens into the residual stream: from memory where the embedding is a
    /// resident head, else from disk.
    fn embed_tokens(&mut self, tokens: &[u32]) -> Result<(), Error> {
        let spec = self.model.spec();
        let embedding = &spec.embedding;
        let (dtype, cols, row_bytes) = (embedding.dtype, embedding.cols, embedding.row_bytes() as usize);
        let head = self.plan.sweep().0.len();
        if spec.tied() && self.pinned[head..].iter().all(Option::is_some) {
            for (i, &token) in tokens.iter().enumerate() {
                let after = self.plan.steps[head..].partition_point(|s| s.start <= token as usize);
                let step = head + after.saturating_sub(1);
                if let Some(id) = self.pinned[step] {
                    let row = token - self.plan.steps[step].start as u32;
                    self.model.embed(&mut *self.backend, Weight::Pinned(id), &[row], i)?;
                }
            }
            return Ok(());
        }
        // Rows that are read come first, those that are here behind them.
        let (here, read): (Vec<u32>, Vec<u32>) =
            tokens.iter().copied().partition(|token| self.kept.get(*token).is_some());
        let bytes = &mut self.gathered[..tokens.len() * row_bytes];
        let (fresh, rest) = bytes.split_at_mut(read.len() * row_bytes);
        match &self.packed {
            Some(packed) => packed.read(&mut self.flow.ring, &read, fresh)?,
            None => {
                let extents: Vec<Extent> =
                    read.iter().map(|token| embedding.rows_extent(*token as usize, 1)).collect();
                self.flow.ring.read_many_now(&extents, fresh)?;
            }
        }
        let (mut next_read, mut next_here) = (0..read.len() as u32, read.len() as u32..);
        let ids: Vec<u32> = tokens
            .iter()
            .filter_map(|t| if self.kept.get(*t).is_some() { next_here.next() } else { next_read.next() })
            .collect();
        for (token, row) in here.iter().zip(rest.chunks_exact_mut(row_bytes)) {
            self.kept.get(*token).into_iter().for_each(|kept| row.copy_from_slice(kept));
        }
        read.iter().zip(fresh.chunks_exact(row_bytes)).for_each(|(token, row)| self.kept.keep(*token, row));
        let tile = Tile { dtype, rows: tokens.len(), cols, bytes };
        Ok(self.model.embed(&mut *self.backend, Weight::Streamed(tile), &ids, 0)?)
    }

    /// Tells the observer, who may ask to stop.
    fn show(&self, place: Place, observer: &mut dyn Observer) -> Result<(), Error> {
        if observer.progress(&self.progress(place)) { Err(Error::interrupted()) } else { Ok(()) }
    }

    fn progress(&self, place: Place) -> Progress {
        let blocks = self.model.spec().blocks.len() + 1;
        Progress {
            phase: place.phase,
            sweep: self.clock.sweeps,
            block: place.block,
            blocks,
            tile: place.tile,
            tiles: place.tiles,
            rows: place.rows,
            read_bytes: self.flow.ring.stats().read_bytes,
            tokens: self.clock.tokens,
            tokens_left: self.clock.tokens_left,
            elapsed: self.opened.elapsed(),
        }
    }

    /// The plan in force.
    pub fn current_plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn memory(&mut self) -> Memory<'_> {
        Memory { pages: &mut self.pages, backend: &mut *self.backend }
    }

    pub(crate) fn packed(&mut self) -> (Option<&PackedRows>, &mut Ring) {
        (self.packed.as_ref(), &mut self.flow.ring)
    }

    pub(crate) fn ring(&mut self) -> &mut Ring {
        &mut self.flow.ring
    }

    pub(crate) fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        let ring = self.flow.ring.stats();
        let capabilities = self.backend.capabilities();
        let per_second = |n: f64, s: f64| if s > 0.0 { n / s } else { 0.0 };
        let sweeping = self.clock.sweeping.as_secs_f64();
        Stats {
            sweeps: self.clock.sweeps,
            rows: self.clock.rows,
            read_bytes: ring.read_bytes,
            read_seconds: ring.read_seconds(),
            wall_seconds: self.opened.elapsed().as_secs_f64(),
            read_bytes_per_second: per_second(ring.read_bytes as f64, ring.read_seconds()),
            compute_seconds: self.clock.compute.as_secs_f64(),
            stall_seconds: ring.stall_seconds(),
            pinned_bytes: self.plan.pinned_bytes,
            streamed_bytes_per_sweep: self.plan.streamed_bytes_per_sweep,
            ring_bytes: self.plan.ring_bytes,
            kv_bytes: self.plan.kv_bytes,
            memory_budget_bytes: self.plan.budget_bytes,
            memory_peak_bytes: machine::peak_resident_bytes(),
            tokens_per_second: per_second(self.clock.tokens as f64, sweeping),
            tokens: self.clock.tokens,
            shared_rows: self.clock.shared_rows,
            spilled_bytes: self.clock.spilled_bytes.0,
            restored_bytes: self.clock.spilled_bytes.1,
            load_seconds: self.clock.load.as_secs_f64(),
            sweep_seconds: sweeping,
            experts: self.clock.experts,
            experts_read: self.clock.experts_read,
            expert_bytes: self.clock.expert_bytes,
            predicted_seconds: self.clock.predicted,
            predicted_sweep_seconds: self.plan.cost.sweep_seconds,
            device: format!("{} {}", capabilities.device, capabilities.detail).trim().to_owned(),
            io: self.flow.ring.kind().name().to_owned(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(path) = self.learned.as_deref().filter(|_| !self.uses.is_empty()) {
            // What is not learned now may be another time.
            let _ = learned::add(path, &self.uses);
        }
    }
}

/// Where in a sweep or load a tile stands.
#[derive(Clone, Copy)]
struct Place {
    phase: Phase,
    tile: usize,
    tiles: usize,
    block: usize,
    rows: usize,
}

/// The operand that a step's bytes are.
fn weight<'a>(model: &Model, step: &Step, bytes: &'a [u8]) -> Weight<'a> {
    let matrix = step.matrix(model.spec());
    let (dtype, cols) = step.stored(model.spec());
    let tile = Tile { dtype, rows: step.rows, cols, bytes };
    if matrix.tiles.is_some() { Weight::Packed(tile) } else { Weight::Streamed(tile) }
}

/// Keeps a tile in memory, as it is stored or expanded.
fn pin(
    b: &mut dyn Backend,
    weight: Weight<'_>,
    expand: bool,
    expanded: &mut Vec<u8>,
) -> Result<WeightId, aerostat_backend::Error> {
    match weight {
        Weight::Packed(tile) if expand => {
            expanded.clear();
            aerostat_backend::packed::parts(&tile).try_for_each(|part| part?.expand(expanded))?;
            b.pin(Tile { bytes: expanded, ..tile })
        }
        Weight::Packed(tile) => b.pin_packed(tile),
        Weight::Streamed(tile) => b.pin(tile),
        Weight::Pinned(id) => Ok(id),
    }
}

/// An error of a step, with the name of its tensor where that is damaged.
fn named(model: &Model, step: &Step, error: aerostat_backend::Error) -> Error {
    match error.kind() {
        aerostat_backend::ErrorKind::Corrupt => {
            let own = &step.matrix(model.spec()).name;
            let name = step.companion(model.spec()).map_or(own, |companion| &companion.name);
            Error::new(ErrorKind::Io, format!("tensor {name:?}, rows from {}: {error}", step.start))
        }
        _ => error.into(),
    }
}

fn threads(options: &Options) -> usize {
    options.threads.unwrap_or_else(machine::cores).max(1)
}

/// What computes, as options say.
pub(crate) fn backend(options: &Options) -> Result<Box<dyn Backend>, Error> {
    match options.device {
        Device::Reference => Ok(Box::new(Reference::new())),
        Device::Auto | Device::Cpu => {
            Ok(Box::new(Cpu::new(CpuConfig { threads: threads(options), isa: options.isa })?))
        }
    }
}

/// A KV cache of so many pages.
fn kv_layout(spec: &ModelSpec, kv_type: KvType, pages: usize) -> KvLayout {
    KvLayout {
        kv_type,
        key_widths: spec.blocks.iter().map(|b| b.widths().k).collect(),
        value_widths: spec.blocks.iter().map(|b| b.widths().v).collect(),
        heads: spec.blocks.iter().map(Block::cache_heads).collect(),
        page_tokens: PAGE_TOKENS,
        pages,
    }
}
