//! The block forward.

use aerostat_arch::{
    AttentionSpec, AttentionWidths, Block, Growth, Joined, Mixer, MlpSpec, ModelSpec, Norm, Positions,
    RopeStyle, Vector,
};
use aerostat_backend::{self as backend, Backend, BufferId, Error, Mat, Placement, Rope, StateRow, Weight};
use aerostat_plan::{Role, Step};

use crate::angle;
use crate::rope::Frequencies;
use crate::routing::{Routed, sigmoid};
use crate::vectors::{BlockVectors, NormVectors, ScaleTable, load_vector};

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
    /// For each row the length of its sequence as rotations see it: that of the prompt for its rows, position + 1
    /// for later ones. Only dynamic scaling looks at it.
    pub lengths: &'a [u32],
    /// Where each row's recurrent state is; only models that have some look at it.
    pub states: &'a [StateRow],
    /// The rows that need logits.
    pub logit_rows: &'a [u32],
}

/// A model on a device: its activations, its small tensors, and the forward over them.
#[derive(Debug)]
pub struct Model {
    pub(crate) spec: ModelSpec,
    limits: Limits,
    pub(crate) buffers: Buffers,
    pub(crate) blocks: Vec<BlockVectors>,
    positions: Option<BufferId>,
    embedding_norm: Option<NormVectors>,
    final_norm: Option<NormVectors>,
    head_bias: Option<BufferId>,
    pub(crate) scales: ScaleTable,
    /// Rows of a normalised head whose norms are known.
    pub(crate) head_rows_known: usize,
    pub(crate) ropes: Vec<Frequencies>,
    /// Host side of the angles; the largest of all ropes.
    angles: Vec<f32>,
    /// The experts of the present block.
    routed: Routed,
}

/// Activations; each `[rows_max, width]`.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The residual stream, `[.., hidden]`.
    pub(crate) x: BufferId,
    /// Its norm, `[.., hidden]`.
    pub(crate) h: BufferId,
    /// What a half of the block adds, `[.., hidden]`.
    pub(crate) y: BufferId,
    pub(crate) q: BufferId,
    pub(crate) k: BufferId,
    pub(crate) v: BufferId,
    /// Attention's output.
    pub(crate) mixed: BufferId,
    /// What it is multiplied by.
    pub(crate) output_gate: BufferId,
    /// Strengths and decays of a delta net.
    pub(crate) strengths: BufferId,
    /// What queries are made of, where it is compressed.
    pub(crate) q_low: BufferId,
    /// Queries and attention's output in the space of compressed keys and values.
    pub(crate) latent_q: BufferId,
    pub(crate) latent_mixed: BufferId,
    /// The queries that choose positions, their weights, and the positions.
    pub(crate) index_q: BufferId,
    pub(crate) index_weights: BufferId,
    pub(crate) selected: BufferId,
    pub(crate) gate: BufferId,
    pub(crate) up: BufferId,
    /// Gate and up, or queries, keys and values, where they are one matrix.
    pub(crate) both: BufferId,
    /// Partial sums of matrices that are stored by inputs.
    pub(crate) lanes: BufferId,
    /// What the router says, one per expert.
    pub(crate) router: BufferId,
    /// How much of the shared expert is taken, one.
    pub(crate) shared: BufferId,
    /// The rows that use an expert, `[.., hidden]`.
    pub(crate) expert_input: BufferId,
    /// What it gives, `[.., hidden]`.
    pub(crate) expert_output: BufferId,
    /// One per rope, `[.., rotary]`.
    pub(crate) angles: Vec<BufferId>,
    /// `[logit_rows_max, hidden]`.
    pub(crate) picked: BufferId,
    /// `[logit_rows_max, vocab]`.
    pub(crate) logits: BufferId,
    /// What logits are multiplied by where the head is normalised, `[1, vocab]`.
    pub(crate) head_norms: BufferId,
    /// One of its rows, `[1, hidden]`.
    pub(crate) head_row: BufferId,
}

impl Model {
    /// Allocates activations and loads the small tensors; `read` gives a vector's stored bytes.
    ///
    /// # Errors
    /// Those of `read`, and the device's.
    pub fn new<E: From<Error>>(
        spec: ModelSpec,
        limits: Limits,
        b: &mut dyn Backend,
        mut read: impl FnMut(&Vector) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let read: &mut dyn FnMut(&Vector) -> Result<Vec<u8>, E> = &mut read;
        let blocks = spec.blocks.iter().map(|block| BlockVectors::load(b, block, limits.states, read));
        let blocks = blocks.collect::<Result<Vec<_>, E>>()?;
        let table = spec.positions.as_ref().map(|p| &p.table);
        let positions = table.map(|v| load_vector(b, v, v.len, read)).transpose()?;
        let mut norm = |norm: &Option<Norm>| {
            norm.as_ref().map(|n| NormVectors::load(b, n, spec.hidden, read)).transpose()
        };
        let (embedding_norm, final_norm) = (norm(&spec.embedding_norm)?, norm(&spec.final_norm)?);
        let head_bias = spec.head.bias.as_ref().map(|v| load_vector(b, v, v.len, read)).transpose()?;
        let ropes = spec.ropes.iter().map(|rope| Frequencies::load(b, rope, read));
        let ropes = ropes.collect::<Result<Vec<_>, E>>()?;
        let scales = ScaleTable::load(b, &spec, read)?;
        let buffers = Buffers::new(&spec, limits, b)?;
        let widest = ropes.iter().map(Frequencies::rotary).max().unwrap_or(0);
        let angles = vec![0.0; limits.rows_max * widest];
        Ok(Self {
            spec,
            limits,
            buffers,
            blocks,
            positions,
            embedding_norm,
            final_norm,
            head_bias,
            scales,
            head_rows_known: 0,
            ropes,
            angles,
            routed: Routed::default(),
        })
    }

    /// What the model is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// How large a batch can be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Begins a sweep, once the embeddings are in the residual stream: what is done to them, and the angles of every
    /// row.
    pub fn begin(&mut self, b: &mut dyn Backend, batch: &Batch<'_>) -> Result<(), Error> {
        let rows = batch.places.rows.len();
        for (rope, buffer) in self.ropes.iter_mut().zip(&self.buffers.angles) {
            let width = rope.rotary();
            let angles = &mut self.angles[..rows * width];
            let places = batch.places.rows.iter().zip(batch.lengths);
            for (row, (place, length)) in angles.chunks_exact_mut(width).zip(places) {
                rope.angles(place.position, *length, row);
            }
            b.write(Mat::new(*buffer, rows, width), angles)?;
        }
        if self.projects_embeddings() { Ok(()) } else { self.enter(b, batch) }
    }

    /// The stream begins with a product of the embeddings.
    fn projects_embeddings(&self) -> bool {
        self.spec.blocks.first().is_some_and(|block| block.project_in.is_some())
    }

    /// What is done to the stream before the first block.
    fn enter(&self, b: &mut dyn Backend, batch: &Batch<'_>) -> Result<(), Error> {
        let x = Mat::new(self.buffers.x, batch.places.rows.len(), self.spec.hidden);
        if let Some((positions, table)) = self.spec.positions.as_ref().zip(self.positions) {
            self.add_positions(b, batch, positions, table)?;
        }
        normalise(b, x, &self.spec.embedding_norm, &self.embedding_norm, x)
    }

    /// Adds the learned vector of each row's position.
    fn add_positions(
        &self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        positions: &Positions,
        table: BufferId,
    ) -> Result<(), Error> {
        let (rows, hidden) = (batch.places.rows.len(), self.spec.hidden);
        let places: Vec<u32> =
            batch.places.rows.iter().map(|p| p.position + positions.offset as u32).collect();
        let y = Mat::new(self.buffers.y, rows, hidden);
        b.gather_rows(Mat::new(table, positions.rows, hidden), &places, y)?;
        b.add(Mat { buffer: self.buffers.x, ..y }, y)
    }

    /// Puts embedding rows into the residual stream, or where it is made of them: rows `start ..` become rows `ids` of
    /// `weight`.
    pub fn embed(
        &mut self,
        b: &mut dyn Backend,
        weight: Weight<'_>,
        ids: &[u32],
        start: usize,
    ) -> Result<(), Error> {
        let buffer = if self.projects_embeddings() { self.buffers.h } else { self.buffers.x };
        let x = Mat::new(buffer, self.limits.rows_max, self.spec.embedding.cols).row_range(start, ids.len());
        b.expand_rows(weight, ids, x)?;
        match self.spec.embedding_scale {
            Some(scale) => b.scale(x, scale),
            None => Ok(()),
        }
    }

    /// Multiplies one tile, with what comes before and after its matrix.
    pub fn step(
        &mut self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        step: &Step,
        weight: Weight<'_>,
    ) -> Result<(), Error> {
        if self.take_companion(b, step, weight)? {
            return Ok(());
        }
        if step.first {
            self.before(b, batch, step)?;
        }
        let (x, y) = self.operands(batch, step);
        match self.by_head(batch, step) {
            Some(head) => self.multiply_head(b, step, weight, head)?,
            None => self.multiply(b, step, weight, x, y)?,
        }
        self.measure_head(b, step, weight)?;
        if step.last {
            self.after(b, batch, step, y)?;
        }
        Ok(())
    }

    /// Once the router of a block has spoken: the experts that the batch's rows use, in the order in which they are
    /// to be computed.
    pub fn route(&mut self, b: &mut dyn Backend, batch: &Batch<'_>, block: usize) -> Result<&[u32], Error> {
        let rows = batch.places.rows.len();
        let (spec, vectors) = (&self.spec.blocks[block], &self.blocks[block]);
        if let Some(experts) = &spec.experts {
            let outputs = b.read(Mat::new(self.buffers.router, rows, experts.mlps.len()))?;
            self.routed.choose(&experts.routing, vectors.correction.as_deref(), &experts.order, outputs);
        }
        if spec.mlp.is_none() {
            b.clear(Mat::new(self.buffers.y, rows, self.spec.hidden))?;
        }
        Ok(&self.routed.experts)
    }

    /// Multiplies one tile of the `index`-th expert that [`Model::route`] gave.
    pub fn expert_step(
        &mut self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        index: usize,
        step: &Step,
        weight: Weight<'_>,
    ) -> Result<(), Error> {
        if self.take_companion(b, step, weight)? {
            return Ok(());
        }
        let (block, vectors) = (&self.spec.blocks[step.block], &self.blocks[step.block]);
        let Some((expert, experts)) = step.expert.map(|e| e as usize).zip(block.experts.as_ref()) else {
            return Err(Error::shape("a step of no expert"));
        };
        let f = &self.buffers;
        let hidden = self.spec.hidden;
        let all = Mat::new(f.y, batch.places.rows.len(), hidden);
        let (rows, factors) = self.routed.rows(index);
        let mat = |buffer, cols| Mat::new(buffer, rows.len(), cols);
        let matrix = step.matrix(&self.spec);
        let mlp = &experts.mlps[expert];
        let at_input = experts.routing.at_input;
        if step.first && mlp.linears().next().is_some_and(|(role, _)| role == step.role) {
            let input = mat(f.expert_input, hidden);
            b.gather_rows(Mat { buffer: self.mlp_input(block), ..all }, &rows, input)?;
            if at_input {
                b.scale_rows(input, &factors)?;
            }
        }
        let (x, y) = match step.role {
            Role::Gate => (f.expert_input, f.gate),
            Role::Up => (f.expert_input, f.up),
            _ => (f.up, f.expert_output),
        };
        let y = if step.role == Role::Up && mlp.joined.is_some() { f.both } else { y };
        let (x, y) = (mat(x, matrix.cols), mat(y, matrix.rows));
        self.multiply(b, step, weight, x, y)?;
        if !step.last {
            return Ok(());
        }
        if let Some(bias) = vectors.expert_biases.get(expert).and_then(|biases| biases[step.role as usize]) {
            b.add_bias(y, Mat::new(bias, 1, y.cols))?;
        }
        match step.role {
            Role::Up => self.activate(b, Some(mlp), y),
            Role::Down if at_input => b.scatter_rows(y, &rows, &vec![1.0; rows.len()], all),
            Role::Down => b.scatter_rows(y, &rows, &factors, all),
            _ => Ok(()),
        }
    }

    /// Once all experts of a block are computed: adds what they gave to the residual stream.
    pub fn finish_experts(
        &mut self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        block: usize,
    ) -> Result<(), Error> {
        self.add_mlp(b, block, Mat::new(self.buffers.y, batch.places.rows.len(), self.spec.hidden))
    }

    /// What the shared expert gives, as much of it as its gate says.
    fn weigh_shared(&self, b: &mut dyn Backend, block: &Block, y: Mat) -> Result<(), Error> {
        if block.experts.as_ref().is_none_or(|experts| experts.shared_gate.is_none()) {
            return Ok(());
        }
        let gates = b.read(Mat::new(self.buffers.shared, y.rows, 1))?;
        let factors: Vec<f32> = gates.iter().map(|gate| sigmoid(*gate)).collect();
        b.scale_rows(y, &factors)
    }

    /// The logits of the batch's logit rows, `[rows, vocab]`, once the head's last tile is done.
    pub fn logits<'b>(&self, b: &'b mut dyn Backend, batch: &Batch<'_>) -> Result<&'b [f32], Error> {
        b.read(Mat::new(self.buffers.logits, batch.logit_rows.len(), self.spec.vocab))
    }

    /// The residual stream of a sweep's rows, `[rows, hidden]`, between two blocks; `normed`, after the last one: what the
    /// final norm makes of it.
    pub fn hidden<'b>(&self, b: &'b mut dyn Backend, rows: usize, normed: bool) -> Result<&'b [f32], Error> {
        let x = Mat::new(self.buffers.x, rows, self.spec.hidden);
        match (normed, &self.spec.final_norm) {
            (true, Some(_)) => {
                let h = Mat { buffer: self.buffers.h, ..x };
                normalise(b, x, &self.spec.final_norm, &self.final_norm, h)?;
                b.read(h)
            }
            _ => b.read(x),
        }
    }

    /// Input and output of a step's matrix.
    fn operands(&self, batch: &Batch<'_>, step: &Step) -> (Mat, Mat) {
        let f = &self.buffers;
        let rows = if step.role == Role::Head { batch.logit_rows.len() } else { batch.places.rows.len() };
        let matrix = step.matrix(&self.spec);
        let block = self.spec.blocks.get(step.block);
        let attention = block.map_or(f.h, |block| self.attention_input(block));
        let mlp = block.map_or(f.h, |block| self.mlp_input(block));
        let (input, output) = match step.role {
            Role::ProjectIn => (f.h, f.x),
            Role::ProjectOut if self.final_norm.is_some() => (f.h, f.y),
            Role::ProjectOut => (f.x, f.y),
            Role::QDown => (attention, f.q_low),
            Role::Q if block.is_some_and(compresses_queries) => (f.q_low, f.q),
            Role::Q if block.and_then(joined).is_some() => (attention, f.both),
            Role::Q => (attention, f.q),
            Role::IndexQ => (f.q_low, f.index_q),
            Role::KvDown => (attention, f.k),
            Role::IndexK => (attention, f.v),
            Role::IndexWeights => (attention, f.index_weights),
            Role::K => (attention, f.k),
            Role::V => (attention, f.v),
            Role::OutputGate => (attention, f.output_gate),
            Role::Strength | Role::Decay => (attention, f.strengths),
            Role::Output => (f.mixed, f.y),
            Role::Gate => (mlp, f.gate),
            Role::Up if self.is_joined(block) => (mlp, f.both),
            Role::Up => (mlp, f.up),
            Role::Router => (mlp, f.router),
            Role::SharedGate => (mlp, f.shared),
            Role::Down => (f.up, f.y),
            Role::Head => (f.picked, f.logits),
        };
        let output = self.delta_output(batch, step).unwrap_or(Mat::new(output, rows, matrix.rows));
        (Mat::new(input, rows, matrix.cols), output)
    }

    /// Whether gate and up of the block's own MLP are one matrix.
    fn is_joined(&self, block: Option<&Block>) -> bool {
        block.and_then(|block| block.mlp.as_ref()).is_some_and(|mlp| mlp.joined.is_some())
    }

    /// What q, k and v are made of.
    fn attention_input(&self, block: &Block) -> BufferId {
        match block.attention_norm {
            Some(_) if !block.norms_replace => self.buffers.h,
            _ => self.buffers.x,
        }
    }

    /// What gate and up are made of.
    fn mlp_input(&self, block: &Block) -> BufferId {
        match block.mlp_norm {
            Some(_) if !block.norms_replace => self.buffers.h,
            None if block.parallel => self.attention_input(block),
            _ => self.buffers.x,
        }
    }

    /// What a matrix's input needs first.
    fn before(&self, b: &mut dyn Backend, batch: &Batch<'_>, step: &Step) -> Result<(), Error> {
        let f = &self.buffers;
        let rows = batch.places.rows.len();
        let x = Mat::new(f.x, rows, self.spec.hidden);
        if step.role == Role::Head {
            return self.pick(b, batch);
        }
        let (block, vectors) = (&self.spec.blocks[step.block], &self.blocks[step.block]);
        let h = Mat { buffer: if block.norms_replace { f.x } else { f.h }, ..x };
        match step.role {
            Role::ProjectOut => {
                normalise(b, x, &self.spec.final_norm, &self.final_norm, Mat { buffer: f.h, ..x })
            }
            Role::Q if compresses_queries(block) => Ok(()),
            Role::QDown | Role::Q => normalise(b, x, &block.attention_norm, &vectors.attention_norm, h),
            Role::K if block.latent().is_some() => self.enter_latent(b, batch, step.block),
            Role::Output => self.finish_mixing(b, batch, step.block),
            _ => Ok(()),
        }
    }

    /// What the head reads: of the rows that need logits, the stream, normalised, or what was made of it.
    fn pick(&self, b: &mut dyn Backend, batch: &Batch<'_>) -> Result<(), Error> {
        let f = &self.buffers;
        let rows = batch.places.rows.len();
        let width = self.spec.head.weight.cols;
        let picked = Mat::new(f.picked, batch.logit_rows.len(), width);
        if self.spec.blocks.last().is_some_and(|block| block.project_out.is_some()) {
            return b.gather_rows(Mat::new(f.y, rows, width), batch.logit_rows, picked);
        }
        b.gather_rows(Mat::new(f.x, rows, width), batch.logit_rows, picked)?;
        normalise(b, picked, &self.spec.final_norm, &self.final_norm, picked)
    }

    /// What follows a whole matrix's output `y`.
    fn after(&mut self, b: &mut dyn Backend, batch: &Batch<'_>, step: &Step, y: Mat) -> Result<(), Error> {
        if step.role == Role::Head {
            return self.finish_logits(b, y);
        }
        let (block, vectors) = (&self.spec.blocks[step.block], &self.blocks[step.block]);
        if let Some(bias) = vectors.biases[step.role as usize] {
            b.add_bias(y, Mat::new(bias, 1, y.cols))?;
        }
        match step.role {
            Role::ProjectIn => self.enter(b, batch),
            Role::QDown
            | Role::Q
            | Role::K
            | Role::KvDown
            | Role::IndexQ
            | Role::IndexK
            | Role::IndexWeights
                if block.latent().is_some() =>
            {
                self.after_latent(b, batch, step, y)
            }
            Role::V if block.latent().is_some() => Ok(()),
            Role::Q => match joined(block) {
                Some(attention) => {
                    self.part(b, attention, y)?;
                    self.attend(b, batch, step.block, attention)
                }
                None => Ok(()),
            },
            Role::V => block.attention().map_or(Ok(()), |a| self.attend(b, batch, step.block, a)),
            Role::Output => {
                let x = Mat { buffer: self.buffers.x, ..y };
                let h = Mat { buffer: self.mlp_input(block), ..y };
                let norm = block.attention_post_norm.as_ref().zip(vectors.attention_post_norm.as_ref());
                // The MLP of a parallel block reads the stream before attention is added to it.
                if block.parallel {
                    normalise(b, x, &block.mlp_norm, &vectors.mlp_norm, h)?;
                    return self.add(b, y, norm, block.residual_scale);
                }
                self.add(b, y, norm, block.residual_scale)?;
                normalise(b, x, &block.mlp_norm, &vectors.mlp_norm, h)
            }
            Role::Up => self.activate(b, block.mlp.as_ref(), y),
            Role::Down if block.experts.is_some() => self.weigh_shared(b, block, y),
            Role::Down => self.add_mlp(b, step.block, y),
            _ => Ok(()),
        }
    }

    /// What follows `up` of an MLP.
    fn activate(&self, b: &mut dyn Backend, mlp: Option<&MlpSpec>, up: Mat) -> Result<(), Error> {
        let Some(mlp) = mlp else { return Ok(()) };
        let f = &self.buffers;
        let activation = mlp.activation;
        let gate = Mat::new(f.gate, up.rows, mlp.width());
        match (mlp.joined, &mlp.gate) {
            (Some(joined), _) => {
                let both = up;
                let up = Mat { buffer: f.up, ..gate };
                let (first, step) = match joined {
                    Joined::Halves => (mlp.width(), 1),
                    Joined::Alternating => (1, 2),
                };
                b.take_columns(both, 0, step, gate)?;
                b.take_columns(both, first, step, up)?;
                b.glu(gate, up, activation, up)
            }
            (None, Some(_)) => b.glu(gate, up, activation, up),
            (None, None) => b.activate(up, activation),
        }
    }

    /// Adds what the MLP gives to the residual stream.
    fn add_mlp(&self, b: &mut dyn Backend, block: usize, y: Mat) -> Result<(), Error> {
        let (block, vectors) = (&self.spec.blocks[block], &self.blocks[block]);
        let norm = block.mlp_post_norm.as_ref().zip(vectors.mlp_post_norm.as_ref());
        self.add(b, y, norm, block.residual_scale)?;
        let x = Mat { buffer: self.buffers.x, ..y };
        normalise(b, x, &block.end_norm, &vectors.end_norm, x)?;
        vectors.scale.map_or(Ok(()), |scale| b.scale(x, scale))
    }

    /// What follows the head: bias, scale, soft cap.
    fn finish_logits(&self, b: &mut dyn Backend, logits: Mat) -> Result<(), Error> {
        if self.spec.head.normalised {
            b.mul_columns(logits, Mat::new(self.buffers.head_norms, 1, logits.cols))?;
        }
        if let Some(bias) = self.head_bias {
            b.add_bias(logits, Mat::new(bias, 1, logits.cols))?;
        }
        if let Some(scale) = self.spec.head.scale {
            b.scale(logits, scale)?;
        }
        self.spec.head.softcap.map_or(Ok(()), |cap| b.softcap(logits, cap))
    }

    /// Takes queries, keys and values apart.
    fn part(&self, b: &mut dyn Backend, a: &AttentionSpec, joined: Mat) -> Result<(), Error> {
        let f = &self.buffers;
        let mut first = 0;
        for (buffer, linear) in [(f.q, &a.q), (f.k, &a.k), (f.v, &a.v)] {
            let cols = linear.weight.rows;
            b.take_columns(joined, first, 1, Mat::new(buffer, joined.rows, cols))?;
            first += cols;
        }
        Ok(())
    }

    /// Once q, k and v are there: head norms, rotation, cache, attention.
    fn attend(
        &self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        layer: usize,
        a: &AttentionSpec,
    ) -> Result<(), Error> {
        let f = &self.buffers;
        let vectors = &self.blocks[layer];
        let rows = batch.places.rows.len();
        let q = Mat::new(f.q, rows, a.heads * a.head_dim);
        let k = Mat::new(f.k, rows, a.kv_heads * a.head_dim);
        let v = Mat { buffer: f.v, ..k };
        let norms =
            [a.q_norm.as_ref().zip(vectors.q_norm.as_ref()), a.k_norm.as_ref().zip(vectors.k_norm.as_ref())];
        for (m, head_norm) in [q, k].into_iter().zip(norms) {
            let normalise = |b: &mut dyn Backend, now: bool| match head_norm {
                Some((spec, norm)) if now => norm.apply(b, m, spec, m),
                _ => Ok(()),
            };
            normalise(b, !a.norms_after_rope)?;
            if let Some(limit) = a.clip {
                b.clip(m, limit)?;
            }
            if let Some(rope) = a.rope {
                self.rotate(b, m, rope, (a.head_dim, 0), self.spec.ropes[rope].style)?;
            }
            normalise(b, a.norms_after_rope)?;
        }
        if let Some((spec, norm)) = a.v_norm.as_ref().zip(vectors.v_norm.as_ref()) {
            norm.apply(b, v, spec, v)?;
        }
        if let Some(growth) = a.growth {
            b.scale_rows(q, &growth_of(growth, batch))?;
        }
        a.clip.map_or(Ok(()), |limit| b.clip(v, limit))?;
        b.kv_write(layer, k, v, batch.places)?;
        b.attention(layer, q, Mat { buffer: f.mixed, ..q }, &shape(a, vectors.sinks), batch.places)
    }

    /// What is left to do before the output of attention, or of what stands in its place, is multiplied.
    fn finish_mixing(&self, b: &mut dyn Backend, batch: &Batch<'_>, layer: usize) -> Result<(), Error> {
        match &self.spec.blocks[layer].mixer {
            Mixer::Delta(delta) => self.run_delta(b, batch, layer, delta),
            Mixer::Attention(AttentionSpec { gate: Some(gate), .. }) => {
                let gates = Mat::new(self.buffers.output_gate, batch.places.rows.len(), gate.weight.rows);
                let mixed = Mat { buffer: self.buffers.mixed, ..gates };
                b.glu(gates, mixed, backend::Activation::Sigmoid, mixed)
            }
            Mixer::Attention(_) => Ok(()),
        }
    }

    /// Rotates the heads of queries or keys, each from an element of it on.
    pub(crate) fn rotate(
        &self,
        b: &mut dyn Backend,
        x: Mat,
        rope: usize,
        (head_dim, start): (usize, usize),
        style: RopeStyle,
    ) -> Result<(), Error> {
        let rotary = self.ropes[rope].rotary();
        let angles = Mat::new(self.buffers.angles[rope], x.rows, rotary);
        b.rope(x, Rope { head_dim, start, rotary, style }, angles)
    }

    /// Adds a half's output to the residual stream, normalised and scaled first where the family does so.
    fn add(
        &self,
        b: &mut dyn Backend,
        y: Mat,
        post: Option<(&Norm, &NormVectors)>,
        scale: Option<f32>,
    ) -> Result<(), Error> {
        if let Some((spec, norm)) = post {
            norm.apply(b, y, spec, y)?;
        }
        if let Some(scale) = scale {
            b.scale(y, scale)?;
        }
        b.add(Mat { buffer: self.buffers.x, ..y }, y)
    }
}

impl Buffers {
    fn new(spec: &ModelSpec, limits: Limits, b: &mut dyn Backend) -> Result<Self, Error> {
        let widest = |f: fn(&Block) -> usize| spec.blocks.iter().map(f).max().unwrap_or(0);
        let widths = spec.blocks.iter().map(Block::widths);
        let widths = widths.fold(AttentionWidths::default(), AttentionWidths::max);
        let mut rows = |width: usize| b.allocate(limits.rows_max * width);
        Ok(Self {
            x: rows(spec.hidden)?,
            h: rows(spec.row_width())?,
            y: rows(spec.row_width())?,
            q: rows(widths.q)?,
            mixed: rows(widths.mixed)?,
            output_gate: rows(widths.output_gate)?,
            strengths: rows(widths.strengths)?,
            k: rows(widths.k)?,
            v: rows(widths.v)?,
            q_low: rows(widths.q_low)?,
            latent_q: rows(widths.latent_q)?,
            latent_mixed: rows(widths.latent_mixed)?,
            index_q: rows(widths.index_q)?,
            index_weights: rows(widths.index_weights)?,
            selected: rows(widths.selected)?,
            gate: rows(widest(Block::mlp_width))?,
            up: rows(widest(Block::mlp_width))?,
            both: rows(widest(Block::joined_width))?,
            lanes: rows(spec.lanes())?,
            router: rows(widest(|b| b.experts.as_ref().map_or(0, |e| e.mlps.len())))?,
            shared: rows(widest(|b| usize::from(b.experts.is_some())))?,
            expert_input: rows(widest(mixture_width))?,
            expert_output: rows(widest(mixture_width))?,
            angles: spec.ropes.iter().map(|r| rows(r.rotary)).collect::<Result<_, _>>()?,
            picked: b.allocate(limits.logit_rows_max * spec.row_width())?,
            logits: b.allocate(limits.logit_rows_max * spec.vocab)?,
            head_norms: b.allocate(if spec.head.normalised { spec.vocab } else { 0 })?,
            head_row: b.allocate(if spec.head.normalised { spec.hidden } else { 0 })?,
        })
    }
}

/// Applies a norm, if there is one.
fn normalise(
    b: &mut dyn Backend,
    x: Mat,
    spec: &Option<Norm>,
    vectors: &Option<NormVectors>,
    out: Mat,
) -> Result<(), Error> {
    match spec.as_ref().zip(vectors.as_ref()) {
        Some((spec, vectors)) => vectors.apply(b, x, spec, out),
        None => Ok(()),
    }
}

/// Attention whose queries, keys and values are one matrix.
fn joined(block: &Block) -> Option<&AttentionSpec> {
    block.attention().filter(|attention| attention.joined.is_some())
}

/// Queries are made in two steps.
fn compresses_queries(block: &Block) -> bool {
    block.latent().is_some_and(|latent| latent.q_down.is_some())
}

/// What an expert reads and gives.
fn mixture_width(block: &Block) -> usize {
    block.experts.as_ref().map_or(0, |experts| experts.router.weight.cols)
}

/// What the query of each row is multiplied by.
pub(crate) fn growth_of(growth: Growth, batch: &Batch<'_>) -> Vec<f32> {
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

fn shape(a: &AttentionSpec, sinks: Option<BufferId>) -> backend::Attention {
    backend::Attention {
        heads: a.heads,
        kv_heads: a.kv_heads,
        key_dim: a.head_dim,
        value_dim: a.head_dim,
        values_in_keys: false,
        scale: a.scale,
        softcap: a.softcap,
        window: a.window,
        alibi: a.alibi,
        sinks: sinks.map(|buffer| Mat::new(buffer, 1, a.heads)),
    }
}
