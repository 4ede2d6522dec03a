//! A model opened for work.

use std::path::PathBuf;
use std::sync::Arc;

use aerostat_arch::{Block, Matrix, ModelSpec};
use aerostat_backend::{Backend, KvLayout, KvType};
use aerostat_model::program::Op;
use aerostat_model::{Limits, Model, Pages, Program, footprint, scratch_need};
use aerostat_plan::{DeviceMemory, Footprint, Machine, PAGE_TOKENS, Plan, PlanInput};
use aerostat_stream::Ring;

use crate::checked::{self, Vectors};
use crate::clock::{At, Clock};
use crate::drafts::{self, Drafts, SmallModel};
use crate::embedder::Embedder;
use crate::expert_trace::ExpertTrace;
use crate::layers::Layers;
use crate::learned::{self, Learned};
use crate::model_files::ModelFiles;
use crate::need::Need;
use crate::observe::{Observer, Phase, Totals};
use crate::options::{BudgetOf, Device, Draft, Options, Prefixes};
use crate::parts::Parts;
use crate::prompt_cache::Kept;
use crate::schedule::Memory;
use crate::stats::Stats;
use crate::store::WeightStore;
use crate::sweep::Sweeper;
use crate::{Error, ErrorKind, layouts};

/// What the kernels for graphics cards take for themselves, at the most, and how many tiles pass through at a time.
const CARD_FIXED_BYTES: u64 = 32 << 20;
const CARD_SLOTS: u64 = 3;

/// A model opened for work. Everything large is allocated when it is opened.
pub struct Engine {
    pub(crate) sweeper: Sweeper,
    pub(crate) pages: Pages,
    pub(crate) prefill_chunk: usize,
    pub(crate) prefixes: Prefixes,
    pub(crate) spill: Option<PathBuf>,
    pub(crate) drafts: Drafts,
    pub(crate) kept: Option<Kept>,
    /// What the model's folder has behind pooling, or why that cannot be read.
    pub(crate) layers: Result<Layers, String>,
    /// The need that it was opened for.
    pub(crate) opened_for: Need,
    /// The machine's figures that the plan was made with.
    machine: Machine,
    /// `None`: nobody has looked; `Some(None)`: all weights are finite; else the name of a tensor that is not.
    pub(crate) not_finite: Option<Option<String>>,
}

impl Engine {
    /// Makes the plan for a need on this machine without opening anything large.
    ///
    /// # Errors
    /// [`ErrorKind::Budget`](crate::ErrorKind::Budget), and what measuring the disk and the device meets.
    pub fn plan(files: &ModelFiles, options: &Options, need: &Need) -> Result<Plan, Error> {
        let parts = Parts::of(files, options)?;
        Self::plan_with(files, options, need, &parts)
    }

    /// The same with a device and figures of the caller's.
    ///
    /// # Errors
    /// [`ErrorKind::Budget`](crate::ErrorKind::Budget).
    pub fn plan_with(
        files: &ModelFiles,
        options: &Options,
        need: &Need,
        parts: &Parts,
    ) -> Result<Plan, Error> {
        let program = Program::compile(&files.spec)?;
        plan(files, &program, options, need, (&*parts.backend, &parts.machine))
    }

    /// The same with a graphics card that is not here, of whose memory `vram_bytes` may be taken. Computing is counted as on the
    /// device of `parts`.
    ///
    /// # Errors
    /// [`ErrorKind::Budget`](crate::ErrorKind::Budget).
    pub fn plan_with_card(
        files: &ModelFiles,
        options: &Options,
        need: &Need,
        parts: &Parts,
        vram_bytes: u64,
    ) -> Result<Plan, Error> {
        let program = Program::compile(&files.spec)?;
        let (fixed_bytes, slots) = (CARD_FIXED_BYTES, CARD_SLOTS);
        let card = DeviceMemory { budget_bytes: vram_bytes, fixed_bytes, slots, shares_host: false };
        plan_on(files, &program, options, need, (&*parts.backend, &parts.machine), Some(card))
    }

    /// Plans, allocates, and reads what stays in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Budget`](crate::ErrorKind::Budget), [`ErrorKind::Io`](crate::ErrorKind::Io),
    /// [`ErrorKind::Device`](crate::ErrorKind::Device), [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted).
    pub fn open(
        files: &ModelFiles,
        options: &Options,
        need: &Need,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        Self::open_with(files, options, need, Parts::of(files, options)?, observer)
    }

    /// The same on a device and a source of the caller's, such as one that fails on purpose.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with(
        files: &ModelFiles,
        options: &Options,
        need: &Need,
        parts: Parts,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let plan = Self::plan_with(files, options, need, &parts)?;
        Self::open_planned(files, options, (need, plan), parts, observer)
    }

    /// The same with a plan of the caller's for the need.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_planned(
        files: &ModelFiles,
        options: &Options,
        (need, plan): (&Need, Plan),
        parts: Parts,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        observer.planned(&plan);
        let clock = Clock::start();
        let small = match &options.draft {
            Draft::Model(small) if plan.draft_rows > 0 => {
                Some(SmallModel::open(small, (options, need), files.spec.vocab, observer)?)
            }
            _ => None,
        };
        let drafts =
            Drafts::new(plan.kv_pages * PAGE_TOKENS, plan.draft_rows, plan.cost.has_experts(), small);
        let spec = files.spec.clone();
        let program = Arc::new(Program::compile(&spec)?);
        let Parts { mut backend, source, machine } = parts;
        let mut ring = Ring::new(source, plan.ring_slots, plan.largest_tile(&spec) as usize)?;
        backend.reserve_tiles(plan.largest_tile(&spec))?;
        let pages = plan.kv_pages + plan.draft_rows.div_ceil(PAGE_TOKENS);
        backend.kv_allocate(&kv_layout(&spec, &program, options.kv, pages))?;
        let mut page_bytes = 0;
        backend.kv_save(0, &mut |bytes| page_bytes += bytes.len())?;
        let identity = crate::result_identity(options);
        let kept = options.prompt_cache.clone().map(|cache| Kept::new(cache, &identity, page_bytes));
        layouts::check_int8(&files.checkpoint.catalog, &mut ring)?;
        checked::check_matrices(&files.checkpoint.catalog, &spec, &mut ring)?;
        let embedders = spec.tables().map(|table| Embedder::new(&plan, table, &mut ring));
        let embedders = embedders.collect::<Result<Vec<_>, Error>>()?;
        let (rows_max, logit_rows_max, states) = (plan.rows_max, plan.logit_rows_max, plan.state_slots);
        let limits = Limits { rows_max, logit_rows_max, states };
        let mut vectors = Vectors::new(&files.checkpoint.catalog);
        let model = Model::new(spec, program, limits, &mut *backend, |v| vectors.read(v, &mut ring))?;
        let trace = options.expert_trace.as_deref().map(ExpertTrace::create).transpose()?;
        let watched = (Learned::new(options.expert_use.clone()), trace);
        let store = WeightStore::new(ring, &plan, model.spec(), watched)?;
        let pages = Pages::new(plan.kv_pages, PAGE_TOKENS).with_states(plan.state_slots);
        let mut sweeper = Sweeper { plan, backend, model, store, embedders, clock };
        sweeper.load(observer)?;
        Ok(Self {
            sweeper,
            pages,
            prefill_chunk: options.prefill_chunk.unwrap_or(usize::MAX).max(1),
            prefixes: options.prefixes,
            spill: options.spill.clone(),
            drafts,
            kept,
            layers: files.embedding().map(|embedding| embedding.layers).map_err(|error| error.to_string()),
            opened_for: *need,
            machine,
            not_finite: None,
        })
    }

    /// The plan for another need on the same device and machine.
    ///
    /// # Errors
    /// [`ErrorKind::Budget`](crate::ErrorKind::Budget).
    pub(crate) fn replan(&self, files: &ModelFiles, options: &Options, need: &Need) -> Result<Plan, Error> {
        let Sweeper { model, backend, .. } = &self.sweeper;
        let plan = plan(files, model.program(), options, need, (&**backend, &self.machine))?;
        let available = self.machine.available_bytes;
        if options.memory_bytes.is_none() && plan.minimum_bytes > available {
            let (least, there) = (plan.minimum_bytes >> 20, available >> 20);
            let message = format!("this needs at least {least} MiB of memory; {there} MiB were available");
            return Err(Error::new(ErrorKind::Budget, message));
        }
        Ok(plan)
    }

    /// The plan in force.
    pub fn current_plan(&self) -> &Plan {
        &self.sweeper.plan
    }

    /// Bytes that the plan counts for each row, logit row, state and position, and once, beside weights, the ring and the KV
    /// cache.
    pub fn footprint(&self) -> Footprint {
        let Sweeper { model, backend, .. } = &self.sweeper;
        whole_footprint(model.spec(), model.program(), &**backend)
    }

    /// Positions of the longest sequence that it can compute: of a model that looks ahead a whole text rides on one sweep.
    pub(crate) fn tokens_max(&self) -> usize {
        match self.model().spec().looks_ahead() {
            true => self.pages.tokens().min(self.model().limits().rows_max),
            false => self.pages.tokens(),
        }
    }

    /// What the device holds.
    pub fn allocated(&self) -> aerostat_backend::Allocated {
        self.sweeper.backend.allocated()
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        let Sweeper { plan, backend, store, clock, .. } = &self.sweeper;
        clock.stats(plan, store, &**backend)
    }

    /// What was counted so far of all that shared it.
    pub fn totals(&self) -> Totals {
        self.sweeper.clock.totals()
    }

    pub(crate) fn model(&self) -> &Model {
        &self.sweeper.model
    }

    pub(crate) fn memory(&mut self) -> Memory<'_> {
        Memory { pages: &mut self.pages, backend: &mut *self.sweeper.backend }
    }
}

impl Sweeper {
    /// Reads what stays in memory.
    fn load(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let Self { plan, backend, model, store, embedders, clock } = self;
        let spec = model.spec();
        let mut show = |tile: usize, tiles: usize, block: usize, ring: &Ring| {
            let at = At { phase: Phase::Loading, tile, tiles, block, rows: 0 };
            let progress = clock.progress(at, spec, ring.stats().read_bytes);
            if observer.progress(&progress) { Err(Error::interrupted()) } else { Ok(()) }
        };
        store.load(plan, spec, &mut **backend, &mut show)?;
        if let Some(embedding) = embedders.first_mut() {
            embedding.look_at(plan, spec, store);
        }
        clock.loaded(&**backend);
        Ok(())
    }
}

/// What a sweep computes, op by op.
///
/// # Errors
/// [`ErrorKind::Defect`](crate::ErrorKind::Defect) where a model's description lacks what it needs.
pub fn program(spec: &ModelSpec) -> Result<Program, Error> {
    Ok(Program::compile(spec)?)
}

/// The plan for a need on a device and a machine.
pub(crate) fn plan(
    files: &ModelFiles,
    program: &Program,
    options: &Options,
    need: &Need,
    (backend, machine): (&dyn Backend, &Machine),
) -> Result<Plan, Error> {
    // A small model is on the CPU beside one on a GPU.
    let device = backend.device_memory().filter(|_| matches!(options.device, Device::Gpu(_)));
    plan_on(files, program, options, need, (backend, machine), device)
}

/// The same with memory of a device that need not be the backend's.
fn plan_on(
    files: &ModelFiles,
    program: &Program,
    options: &Options,
    need: &Need,
    (backend, machine): (&dyn Backend, &Machine),
    device: Option<DeviceMemory>,
) -> Result<Plan, Error> {
    let spec = &files.spec;
    let budget = options.memory_bytes.map(|bytes| match options.budget_of {
        BudgetOf::Process => bytes,
        BudgetOf::Engine => bytes.saturating_add(machine.process_bytes),
    });
    let mut footprint = whole_footprint(spec, program, backend);
    let layers = files.embedding().map_or(0, |embedding| embedding.layers.bytes());
    footprint.fixed_bytes = footprint.fixed_bytes.saturating_add(need.result_bytes).saturating_add(layers);
    footprint.position_bytes += need.position_bytes;
    let drafts = !matches!(options.draft, Draft::None) && need.generates();
    if drafts {
        footprint.position_bytes += drafts::POSITION_BYTES;
    }
    let mut input = PlanInput {
        budget_bytes: budget,
        sequence_tokens_max: need.sequence_tokens_max,
        sequences: need.sequences,
        tokens_total: need.tokens_total,
        rows_useful: need.rows_useful,
        rows_max: options.rows_max,
        logit_rows_useful: need.logit_rows_useful,
        logit_rows_kept: need.logit_rows_kept,
        totals: need.totals,
        draft_rows: match (drafts, spec.state_elements()) {
            (false, _) => 0,
            (true, 0) => drafts::ROWS_MAX,
            (true, _) => drafts::CHAIN_MAX,
        },
        draft_bytes: drafts::FIXED_BYTES,
        kv_type: options.kv.name(),
        kv_bytes_per_token: kv_layout(spec, program, options.kv, 0).token_bytes() as u64,
        footprint,
        share: need.share,
        tile_bytes: options.tile_bytes,
        pinned_bytes_max: options.pinned_bytes_max,
        expert_use: options.expert_use.as_deref().and_then(learned::read),
        device,
    };
    let small = match &options.draft {
        Draft::Model(small) if drafts => SmallModel::plan(small, (options, need), (backend, machine))?,
        _ => return Ok(aerostat_plan::plan(spec, &input, machine)?),
    };
    let without = aerostat_plan::plan(spec, &input, machine).ok();
    let bytes = small.budget_bytes.saturating_sub(machine.process_bytes);
    input.footprint.fixed_bytes += bytes;
    let mut plan = aerostat_plan::plan(spec, &input, machine)?;
    plan.draft_model = Some(drafts::cost(bytes, &small, &plan, without.as_ref()));
    Ok(plan)
}

/// What a sweep takes in memory beside weights, the ring and the KV cache.
fn whole_footprint(spec: &ModelSpec, program: &Program, backend: &dyn Backend) -> Footprint {
    /// Of a row in the schedule: its token, place, length, state and page table.
    const SCHEDULE_BYTES: u64 = 64;
    let model = footprint(spec, program);
    let device = backend.footprint(&scratch_need(spec));
    let tables = spec.tables().map(Matrix::row_bytes).sum::<u64>();
    Footprint {
        fixed_bytes: model.fixed_bytes + device.fixed_bytes,
        // Its rows of embeddings as they are stored, too.
        row_bytes: model.row_bytes + device.row_bytes + tables + SCHEDULE_BYTES,
        position_bytes: device.position_bytes,
        first_position_bytes: device.first_position_bytes,
        first_positions: device.first_positions,
        ..model
    }
}

/// A KV cache of so many pages, as wide as the program writes it.
fn kv_layout(spec: &ModelSpec, program: &Program, kv_type: KvType, pages: usize) -> KvLayout {
    let mut widths = vec![(0, 0); spec.blocks.len()];
    for op in &program.body {
        if let Op::KvWrite { layer, k, v } = op {
            widths[*layer] = (k.cols, v.cols);
        }
    }
    // What an indexer chooses by are keys too, and lie where latents leave the values' place free.
    let latent = program.body.iter().any(|op| match op {
        Op::Attention { shape, .. } | Op::SparseAttention { shape, .. } => shape.values_in_keys,
        _ => false,
    });
    // Of a model that looks ahead the cache lasts for a sweep, and nothing is won by rounding it.
    let kv_type = if spec.looks_ahead() { KvType::F32 } else { kv_type };
    KvLayout {
        keys: kv_type.keys(),
        values: if latent { kv_type.keys() } else { kv_type.values() },
        key_widths: widths.iter().map(|(k, _)| *k).collect(),
        value_widths: widths.iter().map(|(_, v)| *v).collect(),
        heads: spec.blocks.iter().map(Block::cache_heads).collect(),
        page_tokens: PAGE_TOKENS,
        pages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Silent;

    /// Without a budget every need would have a plan, the largest one that of more memory than there is.
    #[test]
    fn a_need_beyond_the_memory_there_is_has_no_plan() {
        let files = ModelFiles::open(&aerostat_testkit::fixture("llama").path).unwrap();
        let (options, need) = (Options::default(), Need::one(64));
        let parts = Parts::of(&files, &options).unwrap();
        let available = Engine::plan_with(&files, &options, &need, &parts).unwrap().minimum_bytes + (4 << 20);
        let machine = Machine { available_bytes: available, ..parts.machine };
        let parts = Parts { machine, ..parts };
        let engine = Engine::open_with(&files, &options, &need, parts, &mut Silent).unwrap();
        assert!(engine.replan(&files, &options, &Need::one(128)).is_ok());
        let error = engine.replan(&files, &options, &Need::one(1 << 22)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Budget, "{error}");
    }
}
