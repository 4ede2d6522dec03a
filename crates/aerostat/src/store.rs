//! The one owner of weights: what stays in memory, what passes through, and which experts were used.

use std::collections::{HashMap, VecDeque};

use aerostat_arch::ModelSpec;
use aerostat_backend::{Backend, HostBytes, TileShape, Weight, WeightId, defect};
use aerostat_plan::{Home, Plan, Step};
use aerostat_stream::{Ring, Tile};

use crate::expert_cache::ExpertCache;
use crate::expert_trace::ExpertTrace;
use crate::flow::Flow;
use crate::learned::Learned;
use crate::residency::Place;
use crate::{Error, ErrorKind};

/// Experts of few rows are at most this part of a block's.
const FEW: usize = 4;

/// Called after each tile that is loaded, with the number of tiles loaded, of tiles to load, its block, and the ring; an
/// error stops the load.
pub(crate) type Show<'a> = &'a mut dyn FnMut(usize, usize, usize, &Ring) -> Result<(), Error>;

/// Gives the weights of step after step, wherever they are.
pub(crate) struct WeightStore {
    flow: Flow,
    /// For each step of the plan, its tile on the device if it stays there.
    residents: Vec<Option<WeightId>>,
    /// The tiles of experts that stay, by block and index, where all do.
    resident_experts: HashMap<(usize, u32), Vec<WeightId>>,
    /// Those that stay until others are used, where not all do.
    experts: ExpertCache,
    /// Tiles of the present block's experts that are still to be multiplied, in order.
    routed: VecDeque<Routed>,
    /// The block that they are of, until the sweep ends.
    block: Option<usize>,
    learned: Learned,
    trace: Option<ExpertTrace>,
    pub(crate) counted: ExpertReads,
}

/// A tile of an expert that rows use.
#[derive(Clone, Copy)]
struct Routed {
    /// The place of the expert among those in use.
    index: usize,
    step: Step,
    from: From,
}

/// Where it is.
#[derive(Clone, Copy)]
enum From {
    /// On the device, where it stays.
    Device(WeightId),
    /// The tile of this number in a slot of the cache.
    Cache(usize, usize),
    /// It comes next, and stays in that slot.
    Into(usize),
    /// It comes next, and passes.
    Passing,
}

/// Experts that rows used, block by block and sweep by sweep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExpertReads {
    /// How many.
    pub(crate) used: u64,
    /// How many of them were read, and their bytes.
    pub(crate) read: u64,
    pub(crate) read_bytes: u64,
}

impl WeightStore {
    /// With nothing in memory yet.
    ///
    /// # Errors
    /// There is no memory for the slots of experts.
    pub(crate) fn new(
        ring: Ring,
        plan: &Plan,
        spec: &ModelSpec,
        (learned, trace): (Learned, Option<ExpertTrace>),
    ) -> Result<Self, Error> {
        Ok(Self {
            experts: ExpertCache::new(plan, spec, &ring)?,
            flow: Flow::new(ring, plan, spec),
            residents: vec![None; plan.steps.len()],
            resident_experts: HashMap::new(),
            routed: VecDeque::new(),
            block: None,
            learned,
            trace,
            counted: ExpertReads::default(),
        })
    }

    /// Reads what stays in memory, and the experts that the cache begins with.
    pub(crate) fn load(
        &mut self,
        plan: &Plan,
        spec: &ModelSpec,
        backend: &mut dyn Backend,
        show: Show<'_>,
    ) -> Result<(), Error> {
        let blocks = spec.blocks.iter().enumerate().filter(|_| plan.resident);
        let experts = blocks.filter_map(|(i, block)| Some((i, block.experts.as_ref()?.mlps.len() as u32)));
        let experts = experts.flat_map(|(block, count)| (0..count).map(move |e| (block, e)));
        let experts = experts.flat_map(|(block, e)| plan.expert_steps(spec, block, e));
        let certain = plan.steps.iter().enumerate().filter(|(_, step)| !step.is_streamed());
        let certain = certain.map(|(place, step)| (Some(place), *step));
        let steps: Vec<(Option<usize>, Step)> = certain.chain(experts.map(|step| (None, step))).collect();
        let warm = if plan.resident { Vec::new() } else { self.warm(plan, spec) };
        let all = steps.len() + warm.len();
        self.flow.ring.request(&steps.iter().map(|(_, s)| s.extent).collect::<Vec<_>>())?;
        for (i, (place, step)) in steps.iter().enumerate() {
            let tile = self.flow.ring.next()?;
            let id = pin(backend, spec, step, tile, plan.expanded).map_err(|e| named(spec, step, e))?;
            match (place, step.expert) {
                (Some(place), _) => self.residents[*place] = Some(id),
                (None, Some(expert)) => {
                    self.resident_experts.entry((step.block, expert)).or_default().push(id)
                }
                (None, None) => {
                    return Err(defect!("{step:?} is neither a step of the plan nor an expert's").into());
                }
            }
            show(i + 1, all, step.block, &self.flow.ring).inspect_err(|_| self.flow.cancel())?;
        }
        for (i, (slot, tile, step)) in warm.into_iter().enumerate() {
            let room = self.experts.room(step.block, slot, tile);
            let room = room.ok_or_else(|| defect!("{step:?} has no slot {slot}"))?;
            self.flow.ring.request_into(step.extent, room)?;
            drop(self.experts.keep(step.block, slot, self.flow.ring.next()?));
            show(steps.len() + i + 1, all, step.block, &self.flow.ring)?;
        }
        Ok(())
    }

    /// Puts the experts that the cache begins with into slots: for each of their tiles the slot, its number, and its step.
    fn warm(&mut self, plan: &Plan, spec: &ModelSpec) -> Vec<(usize, usize, Step)> {
        let mut tiles = Vec::new();
        for (block, experts) in plan.warm_experts.iter().enumerate() {
            for (slot, &expert) in experts.iter().enumerate() {
                self.experts.put(block, slot, expert);
                let steps = plan.expert_steps(spec, block, expert).into_iter().enumerate();
                tiles.extend(steps.map(|(tile, step)| (slot, tile, step)));
            }
        }
        tiles
    }

    /// Begins a sweep of so many rows, with or without the head. `more`: another is likely to follow, and its first tiles
    /// are read while this one ends.
    pub(crate) fn begin(&mut self, rows: usize, head: bool, more: bool) -> Result<(), Error> {
        if let Some(trace) = &mut self.trace {
            trace.begin(rows);
        }
        Ok(self.flow.begin(head, more)?)
    }

    /// The weight of the plan's step number `place`, which is the next.
    pub(crate) fn certain(
        &mut self,
        backend: &mut dyn Backend,
        spec: &ModelSpec,
        (place, step): (usize, &Step),
    ) -> Result<Weight, Error> {
        match self.residents.get(place).copied().flatten() {
            Some(id) => Ok(Weight::Resident(id)),
            None => upload(backend, spec, step, Box::new(self.flow.certain()?)),
        }
    }

    /// The weight is not needed any more.
    pub(crate) fn done(&mut self, backend: &mut dyn Backend, weight: Weight) {
        if let Weight::Arriving(upload) = weight {
            backend.release(upload);
        }
    }

    /// A router has chosen: asks for the experts that do not stay, in the order in which they are to be computed.
    pub(crate) fn route(
        &mut self,
        plan: &Plan,
        spec: &ModelSpec,
        block: usize,
        experts: &[u32],
    ) -> Result<(), Error> {
        self.learn(spec, block, experts)?;
        let places = self.experts.sweep(block, experts);
        (self.block, self.counted.used) = (Some(block), self.counted.used + experts.len() as u64);
        self.routed.clear();
        let mut asked = Vec::new();
        for (index, (&expert, place)) in experts.iter().zip(places).enumerate() {
            let resident = self.resident_experts.get(&(block, expert));
            let before = asked.len();
            for (tile, step) in plan.expert_steps(spec, block, expert).into_iter().enumerate() {
                let from = match (resident.and_then(|tiles| tiles.get(tile)), place) {
                    (Some(id), _) => From::Device(*id),
                    (None, Place::Here(slot)) => From::Cache(slot, tile),
                    (None, Place::Into(slot)) => From::Into(slot),
                    (None, Place::Passing) => From::Passing,
                };
                match from {
                    From::Into(slot) => asked.push((step.extent, self.experts.room(block, slot, tile))),
                    From::Passing => asked.push((step.extent, None)),
                    From::Device(_) | From::Cache(..) => {}
                }
                self.routed.push_back(Routed { index, step, from });
            }
            self.counted.read += u64::from(asked.len() > before);
        }
        self.counted.read_bytes += asked.iter().map(|(extent, _)| extent.bytes).sum::<u64>();
        Ok(self.flow.route(&asked)?)
    }

    /// Learns what a sweep uses of a block.
    fn learn(&mut self, spec: &ModelSpec, block: usize, experts: &[u32]) -> Result<(), Error> {
        if let Some(trace) = &mut self.trace {
            trace.write(block, experts)?;
        }
        let all = spec.blocks.get(block).and_then(|b| b.experts.as_ref()).map_or(0, |e| e.mlps.len());
        for &expert in experts {
            self.learned.add(block, expert as usize);
            // Rows of many texts, or of a long prompt, say little of the next token.
            if experts.len() * FEW <= all {
                self.learned.reused(self.experts.used_since(block, expert), all);
            }
        }
        Ok(())
    }

    /// The next tile of the `index`-th expert in use if it is of this matrix.
    pub(crate) fn expert(
        &mut self,
        backend: &mut dyn Backend,
        spec: &ModelSpec,
        (index, role): (usize, aerostat_plan::Role),
    ) -> Result<Option<(Step, Weight)>, Error> {
        let is_next = |routed: &&Routed| routed.index == index && routed.step.role == role;
        let Some(Routed { step, from, .. }) = self.routed.front().filter(is_next).copied() else {
            return Ok(None);
        };
        self.routed.pop_front();
        let bytes = match from {
            From::Device(id) => return Ok(Some((step, Weight::Resident(id)))),
            From::Cache(slot, tile) => self.experts.tile(step.block, slot, tile),
            From::Into(slot) => Some(self.experts.keep(step.block, slot, self.flow.expert()?)),
            From::Passing => Some(Box::new(self.flow.expert()?) as HostBytes),
        };
        let bytes = bytes.ok_or_else(|| defect!("{step:?} is not where it was kept"))?;
        Ok(Some((step, upload(backend, spec, &step, bytes)?)))
    }

    /// The sweep has ended as it should.
    pub(crate) fn end(&mut self) {
        self.block = None;
    }

    /// The resident tiles of the head with the row that each begins with, if all of it stays in memory.
    pub(crate) fn resident_head(&self, plan: &Plan) -> Option<Vec<(usize, WeightId)>> {
        let head = plan.sweep().0.len();
        let tiles = plan.steps.iter().zip(&self.residents).skip(head);
        tiles.map(|(step, id)| id.map(|id| (step.start, id))).collect()
    }

    /// Forgets tiles that were asked for; the next sweep starts afresh.
    pub(crate) fn cancel(&mut self, backend: &mut dyn Backend) {
        backend.release_all();
        self.flow.cancel();
        self.routed.clear();
        // What was read for the block at hand is half there, or what was wrong with it ended the sweep.
        if let Some(block) = self.block.take() {
            self.experts.forget(block);
        }
    }

    /// What reads.
    pub(crate) fn ring(&mut self) -> &mut Ring {
        &mut self.flow.ring
    }

    /// What was read, and how.
    pub(crate) fn ring_stats(&self) -> (aerostat_stream::Stats, &'static str) {
        (self.flow.ring.stats(), self.flow.ring.kind().name())
    }
}

/// The format and shape of a step's tile as it is stored.
pub(crate) fn shape(spec: &ModelSpec, step: &Step) -> Result<TileShape, Error> {
    let matrix = step.matrix(spec).ok_or_else(|| defect!("{step:?} is of another model"))?;
    let Some(index) = step.companion else {
        let packed = matrix.tiles.is_some();
        return Ok(TileShape { dtype: matrix.dtype, rows: step.rows, cols: matrix.stored().1, packed });
    };
    let companion = matrix.companions().get(index);
    let companion = companion.ok_or_else(|| defect!("`{}` has no companion {index}", matrix.name))?;
    Ok(TileShape { dtype: companion.dtype, rows: step.rows, cols: companion.stored_cols(), packed: false })
}

/// Hands a tile's bytes to the device, which keeps them until the weight is released.
fn upload(
    backend: &mut dyn Backend,
    spec: &ModelSpec,
    step: &Step,
    bytes: HostBytes,
) -> Result<Weight, Error> {
    let upload = backend.upload(shape(spec, step)?, bytes).map_err(|e| named(spec, step, e))?;
    Ok(Weight::Arriving(upload))
}

/// Keeps a tile in memory, as it is stored or, if packed exponents are to be expanded, as it was before it was packed.
fn pin(
    backend: &mut dyn Backend,
    spec: &ModelSpec,
    step: &Step,
    tile: Tile,
    expand: bool,
) -> Result<WeightId, aerostat_backend::Error> {
    let shape = shape(spec, step).map_err(|e| defect!("{e}"))?;
    let home = if step.home == Home::Disk { Home::Host } else { step.home };
    if !(shape.packed && expand) {
        return backend.pin(shape, Box::new(tile), home);
    }
    let packed =
        aerostat_backend::Tile { dtype: shape.dtype, rows: shape.rows, cols: shape.cols, bytes: &tile };
    let mut expanded = Vec::new();
    aerostat_backend::packed::parts(&packed).try_for_each(|part| part?.expand(&mut expanded))?;
    backend.pin(TileShape { packed: false, ..shape }, Box::new(expanded), home)
}

/// The name of the tensor that a step's bytes are of.
pub(crate) fn tensor_name(spec: &ModelSpec, step: &Step) -> String {
    let Some(matrix) = step.matrix(spec) else { return format!("{step:?}") };
    let companion = step.companion.and_then(|index| matrix.companions().get(index));
    companion.map_or(&matrix.name, |companion| &companion.name).clone()
}

/// An error of a step, with the name of its tensor where that is damaged.
pub(crate) fn named(spec: &ModelSpec, step: &Step, error: aerostat_backend::Error) -> Error {
    match error.kind() {
        aerostat_backend::ErrorKind::Corrupt => {
            let name = tensor_name(spec, step);
            Error::new(ErrorKind::Io, format!("tensor {name:?}, rows from {}: {error}", step.start))
        }
        _ => error.into(),
    }
}
