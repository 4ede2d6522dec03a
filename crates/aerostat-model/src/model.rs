//! A program on a device: its buffers, its constants, and how each op is run.

use std::sync::Arc;

use aerostat_arch::{Block, Growth, ModelSpec, Routing, Vector};
use aerostat_backend::{
    Backend, BufferId, Error, Extras, Home, Mat, Placement, ScratchNeed, StateRow, SweepRows, TileShape,
    Weight, defect,
};
use aerostat_checkpoint::DType;
use aerostat_plan::{Footprint, Step};

use crate::angle;
use crate::codes::Codes;
use crate::constants::{self, tensor};
use crate::program::{Buffer, Content, Height, Kept, Op, Product, Program, Slice};
use crate::rope::Frequencies;
use crate::routing::{Lists, Routed};

/// How large a batch can be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of a sweep.
    pub rows_max: usize,
    /// Rows of a sweep with logits.
    pub logit_rows_max: usize,
    /// Sequences whose recurrent states can be kept.
    pub states: usize,
}

/// The rows of one sweep.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Where each row stands.
    pub places: Placement<'a>,
    /// Which part of its text each row is of, from 0; empty where the model does not tell them apart.
    pub types: &'a [u32],
    /// For each row the length of its sequence as rotations see it: that of the prompt for its rows, position + 1
    /// for later ones. Only dynamic scaling looks at it.
    pub lengths: &'a [u32],
    /// Where each row's recurrent state is; empty where sequences keep none.
    pub states: &'a [StateRow],
    /// The rows that need logits.
    pub logit_rows: &'a [u32],
}

/// A model on a device.
#[derive(Debug)]
pub struct Model {
    spec: ModelSpec,
    program: Arc<Program>,
    limits: Limits,
    /// Where each buffer of the program lies on the device; `None`: no op names it.
    memory: Vec<Option<BufferId>>,
    /// Those of [`Program::kept`].
    kept: Vec<Weight>,
    codes: Codes,
    ropes: Vec<Frequencies>,
    /// By block, what is added to the router's scores for the choice.
    corrections: Vec<Option<Vec<f32>>>,
    /// By block, factors on the scores of chosen experts.
    expert_scales: Vec<Option<Vec<f32>>>,
    /// Rows of a normalised head whose norms are known.
    head_rows_known: usize,
    /// Cosines and sines on their way to the device, `[rows_max, widest rope]`.
    angles: Vec<f32>,
    /// Rows of the sweep at hand, and those with logits.
    rows: usize,
    logit_rows: usize,
    routed: Routed,
    expert: ExpertAtHand,
}

/// The expert whose ops are being run.
#[derive(Debug, Default)]
struct ExpertAtHand {
    /// Its number in its block.
    number: usize,
    /// The rows that use it, ascending, and how much of it each takes.
    rows: Vec<u32>,
    factors: Vec<f32>,
    /// As many ones.
    ones: Vec<f32>,
}

/// The scratch that a device needs for a model's matrices.
pub fn scratch_need(spec: &ModelSpec) -> ScratchNeed {
    let scaled = || spec.matrices().filter(|matrix| matrix.scales.is_some());
    ScratchNeed {
        k_major_outputs: spec.k_major_outputs(),
        scaled_cols: scaled().map(|matrix| matrix.cols).max(),
        scaled_packed: scaled().any(|matrix| matrix.has_packed_exponents()),
        packed: spec.matrices().any(|matrix| matrix.has_packed_exponents()),
    }
}

/// What a model's program takes in memory, beside the device's own scratch: its buffers, what lies beside codes, and what
/// the host keeps for each row.
pub fn footprint(spec: &ModelSpec, program: &Program) -> Footprint {
    const F32: usize = 4;
    let sizes = program.sizes();
    let widest = spec.ropes.iter().map(|rope| rope.rotated()).max().unwrap_or(0);
    let chosen = |block: &Block| block.experts.as_ref().map_or(0, |experts| experts.routing.chosen);
    // A use of an expert: which, by which row, how much; twice, as they are sorted into rows of experts.
    let routed = spec.blocks.iter().map(chosen).max().unwrap_or(0) * 2 * size_of::<(u32, u32, f32)>();
    let routings = spec.blocks.iter().filter_map(|block| block.experts.as_ref().map(|e| &e.routing));
    let on_host = routings.flat_map(|routing| routing.correction.iter().chain(&routing.expert_scales));
    let fixed = sizes.fixed + Codes::elements(spec) + on_host.map(|v| v.len).sum::<usize>();
    Footprint {
        fixed_bytes: (fixed * F32) as u64,
        row_bytes: ((sizes.row + widest) * F32 + routed) as u64,
        logit_row_bytes: (sizes.logit_row * F32) as u64,
        state_bytes: (sizes.state * F32) as u64,
        ..Footprint::default()
    }
}

impl Model {
    /// Allocates a program's buffers and loads its constants; `read` gives a small tensor's stored bytes.
    ///
    /// # Errors
    /// Those of `read`, and the device's.
    pub fn new<E: From<Error>>(
        spec: ModelSpec,
        program: Arc<Program>,
        limits: Limits,
        b: &mut dyn Backend,
        mut read: impl FnMut(&Vector) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let read: &mut dyn FnMut(&Vector) -> Result<Vec<u8>, E> = &mut read;
        b.reserve(&scratch_need(&spec), limits.rows_max)?;
        let memory = allocate(&program, limits, b, read)?;
        let ropes =
            spec.ropes.iter().map(|rope| Frequencies::load(rope, read)).collect::<Result<Vec<_>, E>>()?;
        let corrections = of_routing(&spec, &mut *read, |routing| routing.correction.as_ref())?;
        let expert_scales = of_routing(&spec, &mut *read, |routing| routing.expert_scales.as_ref())?;
        let kept = program.kept.iter().map(|kept| keep(kept, b, &mut *read)).collect::<Result<_, E>>()?;
        let codes = Codes::load(b, &spec, read)?;
        let widest = ropes.iter().map(Frequencies::rotary).max().unwrap_or(0);
        Ok(Self {
            spec,
            program,
            limits,
            memory,
            kept,
            codes,
            ropes,
            corrections,
            expert_scales,
            head_rows_known: 0,
            angles: vec![0.0; limits.rows_max * widest],
            rows: 0,
            logit_rows: 0,
            routed: Routed::default(),
            expert: ExpertAtHand::default(),
        })
    }

    /// What the model is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What a sweep computes.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Copies the recurrent state of one place to another.
    ///
    /// # Errors
    /// There is no such place.
    pub fn copy_state(&self, b: &mut dyn Backend, from: u32, to: u32) -> Result<(), Error> {
        for (buffer, id) in self.program.buffers.iter().zip(&self.memory) {
            if let (Height::States, Some(id)) = (buffer.height, *id) {
                // All states as one row.
                let all = Mat::new(id, 1, self.limits.states * buffer.cols);
                let one = |state: u32| all.col_range(state as usize * buffer.cols, buffer.cols);
                b.gather_rows(one(from), &[0], one(to))?;
            }
        }
        Ok(())
    }

    /// How large a batch can be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Begins a sweep.
    ///
    /// # Errors
    /// The rows are more than there is room for, or stand where nothing is.
    pub fn begin(&mut self, b: &mut dyn Backend, batch: &Batch<'_>) -> Result<(), Error> {
        (self.rows, self.logit_rows) = (batch.places.rows.len(), batch.logit_rows.len());
        b.set_rows(SweepRows { places: batch.places, states: batch.states })
    }

    /// Where a buffer of the program lies, in as many rows as the sweep has.
    ///
    /// # Errors
    /// A defect of the program.
    pub fn place(&self, slice: Slice) -> Result<Mat, Error> {
        self.mat(slice)
    }

    /// Runs an op other than [`Op::Embed`], [`Op::Multiply`], [`Op::Route`], [`Op::Experts`] and [`Op::Tap`], which need
    /// weights or are whole parts of a sweep.
    ///
    /// # Errors
    /// Those of the device.
    pub fn run(&mut self, b: &mut dyn Backend, batch: &Batch<'_>, op: &Op) -> Result<(), Error> {
        let m = |slice: Slice| self.mat(slice);
        match *op {
            Op::Angles { rope, out } => self.write_angles(b, batch, rope, out),
            Op::Growth { growth, out } => b.write(m(out)?, &growths(growth, batch)),
            Op::GatherPositions { table, offset, out } => {
                let places: Vec<u32> = batch.places.rows.iter().map(|p| p.position + offset).collect();
                b.gather_rows(m(table)?, &places, m(out)?)
            }
            Op::GatherTypes { table, out } => b.gather_rows(m(table)?, &types(batch), m(out)?),
            Op::GatherLogitRows { x, out } => b.gather_rows(m(x)?, batch.logit_rows, m(out)?),
            Op::MultiplyKept { matrix, x, out } => {
                let weight = self.kept.get(matrix).copied();
                let weight = weight.ok_or_else(|| defect!("there is no kept matrix {matrix}"))?;
                b.matmul(weight, m(x)?, m(out)?)
            }
            Op::AddBias { x, bias } => b.add_bias(m(x)?, m(bias)?),
            Op::RmsNorm { x, weight, eps, out } => b.rms_norm(m(x)?, m(weight)?, eps, m(out)?),
            Op::LayerNorm { x, size, eps, out } => b.layer_norm(m(x)?, size, eps, m(out)?),
            Op::MulColumns { x, factors } => b.mul_columns(m(x)?, m(factors)?),
            Op::MulRows { x, factors } => b.mul_rows(m(x)?, m(factors)?),
            Op::Add { x, y } => b.add(m(x)?, m(y)?),
            Op::Mul { x, y } => b.mul(m(x)?, m(y)?),
            Op::Scale { x, factor } => b.scale(m(x)?, factor),
            Op::Clip { x, limit } => b.clip(m(x)?, limit),
            Op::Softcap { x, cap } => b.softcap(m(x)?, cap),
            Op::Activate { x, activation } => b.activate(m(x)?, activation),
            Op::Glu { gate, up, activation, out } => b.glu(m(gate)?, m(up)?, activation, m(out)?),
            Op::Clear { x } => b.clear(m(x)?),
            Op::TakeColumns { x, first, step, out } => b.take_columns(m(x)?, first, step, m(out)?),
            Op::CopyHeads { x, copy, out } => b.copy_heads(m(x)?, &copy, m(out)?),
            Op::Rope { x, rope, angles } => b.rope(m(x)?, rope, m(angles)?),
            Op::KvWrite { layer, k, v } => b.kv_write(layer, m(k)?, m(v)?),
            Op::Attention { layer, q, shape, extras, out } => {
                b.attention(layer, m(q)?, m(out)?, &shape, self.extras(extras)?)
            }
            Op::SelectPositions { out, .. } if !sees_more(batch, out.cols) => Ok(()),
            Op::SelectPositions { layer, q, weights, index, out } => {
                b.select_positions(layer, m(q)?, m(weights)?, m(out)?, &index)
            }
            Op::SparseAttention { layer, q, shape, selected, out } if !sees_more(batch, selected.cols) => {
                b.attention(layer, m(q)?, m(out)?, &shape, Extras::NONE)
            }
            Op::SparseAttention { layer, q, shape, selected, out } => {
                b.sparse_attention(layer, m(q)?, m(out)?, &shape, m(selected)?)
            }
            Op::ShortConv { x, weights, bias, silu, state } => {
                b.short_conv(m(x)?, m(weights)?, bias.map(m).transpose()?, silu, m(state)?)
            }
            Op::DeltaRule { x, strengths, parameters, state, rule, out } => {
                b.delta_rule(m(x)?, m(strengths)?, m(parameters)?, m(state)?, m(out)?, &rule)
            }
            Op::StateScan { x, steps, parameters, state, scan, out } => {
                b.state_scan(m(x)?, m(steps)?, m(parameters)?, m(state)?, m(out)?, &scan)
            }
            Op::GatherExpertRows { x, out } => b.gather_rows(m(x)?, &self.expert.rows, m(out)?),
            Op::WeighExpertRows { x, factors } => {
                b.write(m(factors)?, &self.expert.factors)?;
                b.mul_rows(m(x)?, m(factors)?)
            }
            Op::ScatterExpertRows { x, weighted, out } => {
                let factors = if weighted { &self.expert.factors } else { &self.expert.ones };
                b.scatter_rows(m(x)?, &self.expert.rows, factors, m(out)?)
            }
            Op::AddExpertBias { x, biases } => b.add_bias(m(x)?, m(biases)?.row_range(self.expert.number, 1)),
            Op::Embed { .. } | Op::Multiply(_) | Op::Route { .. } | Op::Experts { .. } | Op::Tap { .. } => {
                Err(defect!("{op:?} is not run by itself"))
            }
        }
    }

    /// What takes part in the scores of an attention, on the device.
    fn extras(&self, extras: Extras<Slice>) -> Result<Extras<Mat>, Error> {
        let at = |slice: Option<Slice>| slice.map(|slice| self.mat(slice)).transpose();
        Ok(Extras { sinks: at(extras.sinks)?, biases: at(extras.biases)? })
    }

    /// Multiplies one tile of a product's matrix, or takes one of what is read before it.
    ///
    /// # Errors
    /// Those of the device.
    pub fn multiply(
        &mut self,
        b: &mut dyn Backend,
        product: &Product,
        step: &Step,
        weight: Weight,
    ) -> Result<(), Error> {
        let matrix = step.matrix(&self.spec).ok_or_else(|| defect!("{step:?} is of another model"))?;
        if let Some(index) = step.companion {
            let companion = matrix.companions().get(index);
            let companion = companion.ok_or_else(|| defect!("`{}` has no companion {index}", matrix.name))?;
            return self.codes.take(b, matrix, companion, step, weight);
        }
        let (mut x, mut y) = (self.mat(product.x)?, self.mat(product.y)?);
        let mut inputs = matrix.k_major.then(|| (matrix.rows_before(step.start), step.last));
        let mut first = step.start;
        if let Some(heads) = product.heads {
            let head = step.start / heads.rows;
            first = step.start % heads.rows;
            x = x.col_range(head * heads.x_pitch, heads.x_cols);
            y = y.col_range(head * heads.y_pitch, heads.y_cols);
            inputs = heads.by_inputs.then_some((first, first + step.rows == heads.rows));
        }
        let scaling = matrix.scales.as_ref().map(|scales| self.codes.scaling(matrix, scales, step.start));
        match (inputs, scaling.transpose()?) {
            (Some((k0, last)), None) => b.matmul_k_major(weight, x, y, k0, last)?,
            (Some((k0, last)), Some(scaling)) => b.matmul_scaled_k_major(weight, &scaling, x, y, k0, last)?,
            (None, None) => b.matmul(weight, x, y.col_range(first, step.rows))?,
            (None, Some(scaling)) => b.matmul_scaled(weight, &scaling, x, y.col_range(first, step.rows))?,
        }
        if let Some(norms) = product.row_norms.filter(|_| step.start >= self.head_rows_known) {
            b.row_norms(weight, self.mat(norms)?.col_range(step.start, step.rows))?;
            self.head_rows_known = step.start + step.rows;
        }
        Ok(())
    }

    /// Once the router of a block has spoken: the experts that the sweep's rows use, in the order in which they are to be
    /// computed.
    ///
    /// # Errors
    /// Those of the device.
    pub fn route(&mut self, b: &mut dyn Backend, block: usize, scores: Slice) -> Result<&[u32], Error> {
        let experts = self.spec.blocks.get(block).and_then(|block| block.experts.as_ref());
        let experts = experts.ok_or_else(|| defect!("block {block} routes and has no experts"))?;
        let scores = b.read(self.mat(scores)?)?;
        let lists = Lists {
            correction: self.corrections.get(block).and_then(Option::as_deref),
            scales: self.expert_scales.get(block).and_then(Option::as_deref),
        };
        self.routed.choose(&experts.routing, lists, &experts.order, scores);
        Ok(&self.routed.experts)
    }

    /// How many experts [`Model::route`] gave last.
    pub fn chosen(&self) -> usize {
        self.routed.experts.len()
    }

    /// Ops run from now on are those of the `index`-th expert that [`Model::route`] gave.
    ///
    /// # Errors
    /// It gave fewer.
    pub fn take_expert(&mut self, index: usize) -> Result<(), Error> {
        let number = self.routed.experts.get(index);
        let number = *number.ok_or_else(|| defect!("{index} experts and no more were chosen"))?;
        let (rows, factors) = self.routed.rows(index);
        let ones = vec![1.0; rows.len()];
        self.expert = ExpertAtHand { number: number as usize, rows, factors, ones };
        Ok(())
    }

    /// The logits of the sweep's logit rows, `[rows, vocab]`, once the head is done.
    ///
    /// # Errors
    /// Those of the device.
    pub fn logits<'b>(&self, b: &'b mut dyn Backend) -> Result<&'b [f32], Error> {
        b.read(self.mat(self.program.logits)?)
    }

    /// The residual stream of the sweep's rows, `[rows, hidden]`, where the program taps it; `normed`, after the last
    /// block: what the final norm makes of it.
    ///
    /// # Errors
    /// Those of the device.
    pub fn hidden<'b>(
        &mut self,
        b: &'b mut dyn Backend,
        batch: &Batch<'_>,
        normed: bool,
    ) -> Result<&'b [f32], Error> {
        if !normed {
            return b.read(self.mat(self.program.stream)?);
        }
        let program = Arc::clone(&self.program);
        program.normed.iter().try_for_each(|op| self.run(b, batch, op))?;
        b.read(self.mat(program.normed_stream)?)
    }

    /// A slice on the device, with as many rows as the sweep, or the expert at hand, has.
    fn mat(&self, slice: Slice) -> Result<Mat, Error> {
        let found = self.program.buffers.get(slice.buffer).zip(self.memory.get(slice.buffer));
        let Some((buffer, Some(id))) = found else {
            return Err(defect!("buffer {} of the program has no memory", slice.buffer));
        };
        let rows = match buffer.height {
            Height::Rows => self.rows,
            Height::ExpertRows => self.expert.rows.len(),
            Height::LogitRows => self.logit_rows,
            Height::States => self.limits.states,
            Height::Fixed(rows) => rows,
        };
        Ok(Mat::new(*id, rows, buffer.cols).col_range(slice.first, slice.cols))
    }

    fn write_angles(
        &mut self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        rope: usize,
        out: Slice,
    ) -> Result<(), Error> {
        let out = self.mat(out)?;
        let rope = self.ropes.get_mut(rope).ok_or_else(|| defect!("there is no rope {rope}"))?;
        let angles = self.angles.get_mut(..out.rows * out.cols);
        let angles = angles.ok_or_else(|| defect!("{} rows are more than there is room for", out.rows))?;
        let places = batch.places.rows.iter().zip(batch.lengths);
        for (row, (place, length)) in angles.chunks_exact_mut(out.cols.max(1)).zip(places) {
            rope.angles(place.position, *length, row);
        }
        b.write(out, angles)
    }
}

/// The device memory of each buffer, constants filled.
fn allocate<E: From<Error>>(
    program: &Program,
    limits: Limits,
    b: &mut dyn Backend,
    read: constants::Read<'_, E>,
) -> Result<Vec<Option<BufferId>>, E> {
    let slots = program.slots.iter().map(|slot| {
        let rows = if slot.height == Height::LogitRows { limits.logit_rows_max } else { limits.rows_max };
        b.allocate(rows * slot.cols)
    });
    let slots = slots.collect::<Result<Vec<_>, Error>>()?;
    let mut place = |buffer: &Buffer| -> Result<Option<BufferId>, E> {
        let rows = match buffer.height {
            Height::Fixed(rows) => rows,
            _ => limits.states,
        };
        Ok(match &buffer.content {
            Content::Activation => buffer.slot.and_then(|slot| slots.get(slot).copied()),
            Content::Kept => Some(b.allocate(rows * buffer.cols)?),
            Content::Constant(source) => {
                let values = constants::values(source, (rows, buffer.cols), &mut *read)?;
                let id = b.allocate(values.len())?;
                b.write(Mat::new(id, rows, buffer.cols), &values)?;
                Some(id)
            }
        })
    };
    program.buffers.iter().map(&mut place).collect()
}

/// A list of the experts of each block, if it has one.
fn of_routing<E: From<Error>>(
    spec: &ModelSpec,
    read: constants::Read<'_, E>,
    list: impl Fn(&Routing) -> Option<&Vector>,
) -> Result<Vec<Option<Vec<f32>>>, E> {
    let stored = |block: &Block| block.experts.as_ref().and_then(|experts| list(&experts.routing).cloned());
    spec.blocks.iter().map(|block| stored(block).map(|v| tensor(&v, &mut *read)).transpose()).collect()
}

/// A small matrix on the device, as f32.
fn keep<E: From<Error>>(kept: &Kept, b: &mut dyn Backend, read: constants::Read<'_, E>) -> Result<Weight, E> {
    let (rows, cols) = (kept.rows, kept.cols);
    let elements = constants::values(&kept.elements, (rows, cols), read)?;
    let bytes: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    let shape = TileShape { dtype: DType::F32, rows, cols, packed: false };
    Ok(Weight::Resident(b.pin(shape, Box::new(bytes), Home::Host)?))
}

/// The part of its text that each row is of: the first, where nobody says it.
fn types(batch: &Batch<'_>) -> Vec<u32> {
    match batch.types {
        [] => vec![0; batch.places.rows.len()],
        types => types.to_vec(),
    }
}

/// Some row sees more positions than it may choose. Where none does, its choice is all it sees.
fn sees_more(batch: &Batch<'_>, count: usize) -> bool {
    batch.places.rows.iter().any(|place| place.position as usize >= count)
}

/// What the query of each row is multiplied by.
fn growths(growth: Growth, batch: &Batch<'_>) -> Vec<f32> {
    let factor = |position: u32| match growth {
        Growth::Steps { beta, floor, offset } => {
            let steps = (f64::from(position + offset) / floor).floor();
            (1.0 + beta * angle::ln(1.0 + steps)) as f32
        }
        Growth::Log { original } => {
            (angle::ln(f64::from(position) + 1.0) / angle::ln(original)).max(1.0) as f32
        }
    };
    batch.places.rows.iter().map(|place| factor(place.position)).collect()
}
