//! The block forward.

use aerostat_arch::{Activation, AttentionSpec, Block, ModelSpec, Norm, Positions, RopeStyle, Vector};
use aerostat_backend::{self as backend, Backend, BufferId, Error, Mat, Placement, Rope, Weight};
use aerostat_plan::{Role, Step};

use crate::rope::Frequencies;
use crate::vectors::{BlockVectors, NormVectors, load_vector};

/// How large a batch can be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of a sweep.
    pub rows_max: usize,
    /// Rows of a sweep with logits.
    pub logit_rows_max: usize,
}

/// The rows of one sweep.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Where each row stands.
    pub places: Placement<'a>,
    /// For each row the length of its sequence as rotations see it: that of the prompt for its rows, position + 1
    /// for later ones. Only dynamic scaling looks at it.
    pub lengths: &'a [u32],
    /// The rows that need logits.
    pub logit_rows: &'a [u32],
}

/// A model on a device: its activations, its small tensors, and the forward over them.
#[derive(Debug)]
pub struct Model {
    spec: ModelSpec,
    limits: Limits,
    buffers: Buffers,
    blocks: Vec<BlockVectors>,
    positions: Option<BufferId>,
    embedding_norm: Option<NormVectors>,
    final_norm: NormVectors,
    head_bias: Option<BufferId>,
    ropes: Vec<Frequencies>,
    /// Host side of the angles; the largest of all ropes.
    angles: Vec<f32>,
}

/// Activations; each `[rows_max, width]`.
#[derive(Debug)]
struct Buffers {
    /// The residual stream, `[.., hidden]`.
    x: BufferId,
    /// Its norm, `[.., hidden]`.
    h: BufferId,
    /// What a half of the block adds, `[.., hidden]`.
    y: BufferId,
    q: BufferId,
    k: BufferId,
    v: BufferId,
    /// Attention's output, as wide as `q`.
    mixed: BufferId,
    gate: BufferId,
    up: BufferId,
    /// One per rope, `[.., rotary]`.
    angles: Vec<BufferId>,
    /// `[logit_rows_max, hidden]`.
    picked: BufferId,
    /// `[logit_rows_max, vocab]`.
    logits: BufferId,
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
        let blocks = spec.blocks.iter().map(|block| BlockVectors::load(b, block, read));
        let blocks = blocks.collect::<Result<Vec<_>, E>>()?;
        let table = spec.positions.as_ref().map(|p| &p.table);
        let positions = table.map(|v| load_vector(b, v, v.len, read)).transpose()?;
        let embedding_norm = spec.embedding_norm.as_ref();
        let embedding_norm =
            embedding_norm.map(|n| NormVectors::load(b, n, spec.hidden, read)).transpose()?;
        let final_norm = NormVectors::load(b, &spec.final_norm, spec.hidden, read)?;
        let head_bias = spec.head.bias.as_ref().map(|v| load_vector(b, v, v.len, read)).transpose()?;
        let ropes = spec.ropes.iter().map(|rope| Frequencies::load(b, rope, read));
        let ropes = ropes.collect::<Result<Vec<_>, E>>()?;
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
            ropes,
            angles,
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
        let x = Mat::new(self.buffers.x, rows, self.spec.hidden);
        if let Some((positions, table)) = self.spec.positions.as_ref().zip(self.positions) {
            self.add_positions(b, batch, positions, table)?;
        }
        match self.spec.embedding_norm.as_ref().zip(self.embedding_norm.as_ref()) {
            Some((spec, vectors)) => vectors.apply(b, x, spec, x),
            None => Ok(()),
        }
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

    /// Puts embedding rows into the residual stream: rows `start ..` become rows `ids` of `weight`.
    pub fn embed(
        &mut self,
        b: &mut dyn Backend,
        weight: Weight<'_>,
        ids: &[u32],
        start: usize,
    ) -> Result<(), Error> {
        let x = Mat::new(self.buffers.x, self.limits.rows_max, self.spec.hidden).row_range(start, ids.len());
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
        if step.first {
            self.before(b, batch, step)?;
        }
        let (x, y) = self.operands(batch, step);
        b.matmul(weight, x, y.col_range(step.start, step.rows))?;
        if step.last {
            self.after(b, batch, step, y)?;
        }
        Ok(())
    }

    /// The logits of the batch's logit rows, `[rows, vocab]`, once the head's last tile is done.
    pub fn logits<'b>(&self, b: &'b mut dyn Backend, batch: &Batch<'_>) -> Result<&'b [f32], Error> {
        b.read(Mat::new(self.buffers.logits, batch.logit_rows.len(), self.spec.vocab))
    }

    /// The residual stream of a sweep's rows, `[rows, hidden]`, between two blocks; `normed`, after the last one: what the
    /// final norm makes of it.
    pub fn hidden<'b>(&self, b: &'b mut dyn Backend, rows: usize, normed: bool) -> Result<&'b [f32], Error> {
        let x = Mat::new(self.buffers.x, rows, self.spec.hidden);
        if !normed {
            return b.read(x);
        }
        let h = Mat { buffer: self.buffers.h, ..x };
        self.final_norm.apply(b, x, &self.spec.final_norm, h)?;
        b.read(h)
    }

    /// Input and output of a step's matrix.
    fn operands(&self, batch: &Batch<'_>, step: &Step) -> (Mat, Mat) {
        let f = &self.buffers;
        let hidden = self.spec.hidden;
        let rows = if step.role == Role::Head { batch.logit_rows.len() } else { batch.places.rows.len() };
        let matrix = step.matrix(&self.spec);
        let block = self.spec.blocks.get(step.block);
        let attention = block.map_or(f.h, |block| self.attention_input(block));
        let (input, output) = match step.role {
            Role::Q => (attention, f.q),
            Role::K => (attention, f.k),
            Role::V => (attention, f.v),
            Role::Output => (f.mixed, f.y),
            Role::Gate => (block.map_or(f.h, |block| self.mlp_input(block)), f.gate),
            Role::Up => (block.map_or(f.h, |block| self.mlp_input(block)), f.up),
            Role::Down => (f.up, f.y),
            Role::Head => return (Mat::new(f.picked, rows, hidden), Mat::new(f.logits, rows, matrix.rows)),
        };
        (Mat::new(input, rows, matrix.cols), Mat::new(output, rows, matrix.rows))
    }

    /// What q, k and v are made of.
    fn attention_input(&self, block: &Block) -> BufferId {
        if block.attention_norm.is_some() { self.buffers.h } else { self.buffers.x }
    }

    /// What gate and up are made of.
    fn mlp_input(&self, block: &Block) -> BufferId {
        match block.mlp_norm {
            Some(_) => self.buffers.h,
            None if block.parallel => self.attention_input(block),
            None => self.buffers.x,
        }
    }

    /// What a matrix's input needs first.
    fn before(&self, b: &mut dyn Backend, batch: &Batch<'_>, step: &Step) -> Result<(), Error> {
        let f = &self.buffers;
        let rows = batch.places.rows.len();
        let x = Mat::new(f.x, rows, self.spec.hidden);
        let h = Mat { buffer: f.h, ..x };
        if step.role == Role::Head {
            let picked = Mat::new(f.picked, batch.logit_rows.len(), self.spec.hidden);
            b.gather_rows(x, batch.logit_rows, picked)?;
            return self.final_norm.apply(b, picked, &self.spec.final_norm, picked);
        }
        let (block, vectors) = (&self.spec.blocks[step.block], &self.blocks[step.block]);
        let mlp = if block.mlp.gate.is_some() { Role::Gate } else { Role::Up };
        let norm = match step.role {
            Role::Q => block.attention_norm.as_ref().zip(vectors.attention_norm.as_ref()),
            role if role == mlp && !block.parallel => block.mlp_norm.as_ref().zip(vectors.mlp_norm.as_ref()),
            _ => None,
        };
        norm.map_or(Ok(()), |(spec, vectors)| vectors.apply(b, x, spec, h))
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
            Role::V => self.attend(b, batch, step.block),
            Role::Output => {
                if let Some((spec, norm)) = block.mlp_norm.as_ref().zip(vectors.mlp_norm.as_ref())
                    && block.parallel
                {
                    // The MLP of a parallel block reads the stream before attention is added to it.
                    let x = Mat { buffer: self.buffers.x, ..y };
                    norm.apply(b, x, spec, Mat { buffer: self.buffers.h, ..y })?;
                }
                let norm = block.attention_post_norm.as_ref().zip(vectors.attention_post_norm.as_ref());
                self.add(b, y, norm, block.residual_scale)
            }
            Role::Up => {
                let activation = activation(block.mlp.activation);
                match block.mlp.gate {
                    Some(_) => b.glu(Mat { buffer: self.buffers.gate, ..y }, y, activation, y),
                    None => b.activate(y, activation),
                }
            }
            Role::Down => {
                let norm = block.mlp_post_norm.as_ref().zip(vectors.mlp_post_norm.as_ref());
                self.add(b, y, norm, block.residual_scale)
            }
            _ => Ok(()),
        }
    }

    /// What follows the head: bias, scale, soft cap.
    fn finish_logits(&self, b: &mut dyn Backend, logits: Mat) -> Result<(), Error> {
        if let Some(bias) = self.head_bias {
            b.add_bias(logits, Mat::new(bias, 1, logits.cols))?;
        }
        if let Some(scale) = self.spec.head.scale {
            b.scale(logits, scale)?;
        }
        self.spec.head.softcap.map_or(Ok(()), |cap| b.softcap(logits, cap))
    }

    /// Once q, k and v are there: head norms, rotation, cache, attention.
    fn attend(&self, b: &mut dyn Backend, batch: &Batch<'_>, layer: usize) -> Result<(), Error> {
        let f = &self.buffers;
        let a = &self.spec.blocks[layer].attention;
        let vectors = &self.blocks[layer];
        let rows = batch.places.rows.len();
        let q = Mat::new(f.q, rows, a.heads * a.head_dim);
        let k = Mat::new(f.k, rows, a.kv_heads * a.head_dim);
        let v = Mat { buffer: f.v, ..k };
        let norms =
            [a.q_norm.as_ref().zip(vectors.q_norm.as_ref()), a.k_norm.as_ref().zip(vectors.k_norm.as_ref())];
        for (m, head_norm) in [q, k].into_iter().zip(norms) {
            if let Some((spec, norm)) = head_norm {
                norm.apply(b, m, spec, m)?;
            }
            if let Some(rope) = a.rope {
                self.rotate(b, m, rope, a.head_dim)?;
            }
        }
        b.kv_write(layer, k, v, batch.places)?;
        b.attention(layer, q, Mat { buffer: f.mixed, ..q }, &shape(a), batch.places)
    }

    /// Rotates the heads of queries or keys.
    fn rotate(&self, b: &mut dyn Backend, x: Mat, rope: usize, head_dim: usize) -> Result<(), Error> {
        let style = match self.spec.ropes[rope].style {
            RopeStyle::Half => backend::RopeStyle::Half,
            RopeStyle::Interleaved => backend::RopeStyle::Interleaved,
        };
        let rotary = self.ropes[rope].rotary();
        let angles = Mat::new(self.buffers.angles[rope], x.rows, rotary);
        b.rope(x, Rope { head_dim, rotary, style }, angles)
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
        let widest = |f: fn(&aerostat_arch::Block) -> usize| spec.blocks.iter().map(f).max().unwrap_or(0);
        let mut rows = |width: usize| b.allocate(limits.rows_max * width);
        Ok(Self {
            x: rows(spec.hidden)?,
            h: rows(spec.hidden)?,
            y: rows(spec.hidden)?,
            q: rows(widest(|b| b.attention.q.weight.rows))?,
            mixed: rows(widest(|b| b.attention.q.weight.rows))?,
            k: rows(widest(|b| b.attention.k.weight.rows))?,
            v: rows(widest(|b| b.attention.v.weight.rows))?,
            gate: rows(widest(|b| b.mlp.gate.as_ref().map_or(0, |gate| gate.weight.rows)))?,
            up: rows(widest(|b| b.mlp.up.weight.rows))?,
            angles: spec.ropes.iter().map(|r| rows(r.rotary)).collect::<Result<_, _>>()?,
            picked: b.allocate(limits.logit_rows_max * spec.hidden)?,
            logits: b.allocate(limits.logit_rows_max * spec.vocab)?,
        })
    }
}

fn shape(a: &AttentionSpec) -> backend::Attention {
    backend::Attention {
        heads: a.heads,
        kv_heads: a.kv_heads,
        key_dim: a.head_dim,
        value_dim: a.head_dim,
        scale: a.scale,
        softcap: a.softcap,
        window: a.window,
        alibi: a.alibi,
    }
}

fn activation(a: Activation) -> backend::Activation {
    match a {
        Activation::Silu => backend::Activation::Silu,
        Activation::GeluTanh => backend::Activation::GeluTanh,
        Activation::GeluErf => backend::Activation::GeluErf,
        Activation::Relu => backend::Activation::Relu,
        Activation::ReluSquared => backend::Activation::ReluSquared,
    }
}
