//! The block forward.

use aerostat_arch::{Activation, AttentionSpec, ModelSpec, Norm, RopeStyle, Vector};
use aerostat_backend::{self as backend, Backend, BufferId, Error, Mat, Placement, Rope, Tile, Weight};
use aerostat_plan::{Role, Step};

use crate::rope::Frequencies;

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
    final_norm: BufferId,
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

/// A block's norms and biases.
#[derive(Debug)]
struct BlockVectors {
    attention_norm: BufferId,
    attention_post_norm: Option<BufferId>,
    mlp_norm: BufferId,
    mlp_post_norm: Option<BufferId>,
    q_norm: Option<BufferId>,
    k_norm: Option<BufferId>,
    /// Of q, k, v, o, gate, up, down.
    biases: [Option<BufferId>; 7],
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
        let mut load =
            |b: &mut dyn Backend, v: &Vector| -> Result<BufferId, E> { load_vector(b, v, &read(v)?) };
        let mut blocks = Vec::with_capacity(spec.blocks.len());
        for block in &spec.blocks {
            let mut norm = |n: &Norm| load(b, &n.weight);
            let mut optional = |n: &Option<Norm>| n.as_ref().map(&mut norm).transpose();
            let (attention_post_norm, mlp_post_norm) =
                (optional(&block.attention_post_norm)?, optional(&block.mlp_post_norm)?);
            let (q_norm, k_norm) = (optional(&block.attention.q_norm)?, optional(&block.attention.k_norm)?);
            let (attention_norm, mlp_norm) = (norm(&block.attention_norm)?, norm(&block.mlp_norm)?);
            let mut biases = [None; 7];
            for (slot, linear) in biases.iter_mut().zip(block.linears()) {
                *slot = linear.bias.as_ref().map(|v| load(b, v)).transpose()?;
            }
            blocks.push(BlockVectors {
                attention_norm,
                attention_post_norm,
                mlp_norm,
                mlp_post_norm,
                q_norm,
                k_norm,
                biases,
            });
        }
        let final_norm = load(b, &spec.final_norm.weight)?;
        let mut ropes = Vec::new();
        for rope in &spec.ropes {
            let divisors = match &rope.divisors {
                None => None,
                Some(v) => {
                    let id = load(b, v)?;
                    Some(b.read(Mat::new(id, 1, v.len))?.to_vec())
                }
            };
            ropes.push(Frequencies::new(rope.clone(), divisors.as_deref()));
        }
        let buffers = Buffers::new(&spec, limits, b)?;
        let widest = ropes.iter().map(Frequencies::rotary).max().unwrap_or(0);
        let angles = vec![0.0; limits.rows_max * widest];
        Ok(Self { spec, limits, buffers, blocks, final_norm, ropes, angles })
    }

    /// What the model is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// How large a batch can be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Begins a sweep: the angles of every row.
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
        Ok(())
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

    /// Input and output of a step's matrix.
    fn operands(&self, batch: &Batch<'_>, step: &Step) -> (Mat, Mat) {
        let f = &self.buffers;
        let hidden = self.spec.hidden;
        let rows = if step.role == Role::Head { batch.logit_rows.len() } else { batch.places.rows.len() };
        let matrix = step.matrix(&self.spec);
        let (input, output) = match step.role {
            Role::Q => (f.h, f.q),
            Role::K => (f.h, f.k),
            Role::V => (f.h, f.v),
            Role::Output => (f.mixed, f.y),
            Role::Gate => (f.h, f.gate),
            Role::Up => (f.h, f.up),
            Role::Down => (f.gate, f.y),
            Role::Head => return (Mat::new(f.picked, rows, hidden), Mat::new(f.logits, rows, matrix.rows)),
        };
        (Mat::new(input, rows, matrix.cols), Mat::new(output, rows, matrix.rows))
    }

    /// What a matrix's input needs first.
    fn before(&self, b: &mut dyn Backend, batch: &Batch<'_>, step: &Step) -> Result<(), Error> {
        let f = &self.buffers;
        let rows = batch.places.rows.len();
        let x = Mat::new(f.x, rows, self.spec.hidden);
        let h = Mat::new(f.h, rows, self.spec.hidden);
        match step.role {
            Role::Q => norm(
                b,
                x,
                &self.spec.blocks[step.block].attention_norm,
                self.blocks[step.block].attention_norm,
                h,
            ),
            Role::Gate => {
                norm(b, x, &self.spec.blocks[step.block].mlp_norm, self.blocks[step.block].mlp_norm, h)
            }
            Role::Head => {
                let picked = Mat::new(f.picked, batch.logit_rows.len(), self.spec.hidden);
                b.gather_rows(x, batch.logit_rows, picked)?;
                norm(b, picked, &self.spec.final_norm, self.final_norm, picked)
            }
            _ => Ok(()),
        }
    }

    /// What follows a whole matrix's output `y`.
    fn after(&mut self, b: &mut dyn Backend, batch: &Batch<'_>, step: &Step, y: Mat) -> Result<(), Error> {
        if step.role == Role::Head {
            return match self.spec.head.softcap {
                Some(cap) => b.softcap(y, cap),
                None => Ok(()),
            };
        }
        let vectors = &self.blocks[step.block];
        if let Some(bias) = vectors.biases[step.role as usize] {
            b.add_bias(y, Mat::new(bias, 1, y.cols))?;
        }
        let block = &self.spec.blocks[step.block];
        match step.role {
            Role::V => self.attend(b, batch, step.block),
            Role::Output => {
                self.add(b, y, block.attention_post_norm.as_ref().zip(vectors.attention_post_norm))
            }
            Role::Up => {
                let gate = Mat { buffer: self.buffers.gate, ..y };
                b.glu(gate, y, activation(block.mlp.activation), gate)
            }
            Role::Down => self.add(b, y, block.mlp_post_norm.as_ref().zip(vectors.mlp_post_norm)),
            _ => Ok(()),
        }
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
        let style = match self.spec.ropes[a.rope].style {
            RopeStyle::Half => backend::RopeStyle::Half,
            RopeStyle::Interleaved => backend::RopeStyle::Interleaved,
        };
        let rotary = self.ropes[a.rope].rotary();
        let rope = Rope { head_dim: a.head_dim, rotary, style };
        let angles = Mat::new(f.angles[a.rope], rows, rotary);
        let norms = [a.q_norm.as_ref().zip(vectors.q_norm), a.k_norm.as_ref().zip(vectors.k_norm)];
        for (m, head_norm) in [q, k].into_iter().zip(norms) {
            if let Some((spec, weight)) = head_norm {
                norm(b, m, spec, weight, m)?;
            }
            b.rope(m, rope, angles)?;
        }
        b.kv_write(layer, k, v, batch.places)?;
        b.attention(layer, q, Mat { buffer: f.mixed, ..q }, &shape(a), batch.places)
    }

    /// Adds a half's output to the residual stream, normalised first where the family does so.
    fn add(&self, b: &mut dyn Backend, y: Mat, post: Option<(&Norm, BufferId)>) -> Result<(), Error> {
        if let Some((spec, weight)) = post {
            norm(b, y, spec, weight, y)?;
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
            gate: rows(widest(|b| b.mlp.gate.weight.rows))?,
            up: rows(widest(|b| b.mlp.up.weight.rows))?,
            angles: spec.ropes.iter().map(|r| rows(r.rotary)).collect::<Result<_, _>>()?,
            picked: b.allocate(limits.logit_rows_max * spec.hidden)?,
            logits: b.allocate(limits.logit_rows_max * spec.vocab)?,
        })
    }
}

/// Expands a small tensor into a buffer of its own.
fn load_vector<E: From<Error>>(b: &mut dyn Backend, v: &Vector, bytes: &[u8]) -> Result<BufferId, E> {
    let id = b.allocate(v.len)?;
    let mat = Mat::new(id, 1, v.len);
    let tile = Tile { dtype: v.dtype, rows: 1, cols: v.len, bytes };
    b.expand_rows(Weight::Streamed(tile), &[0], mat)?;
    if v.offset != 0.0 {
        let values: Vec<f32> = b.read(mat)?.iter().map(|w| w + v.offset).collect();
        b.write(mat, &values)?;
    }
    Ok(id)
}

fn norm(b: &mut dyn Backend, x: Mat, spec: &Norm, weight: BufferId, out: Mat) -> Result<(), Error> {
    b.rms_norm(x, Mat::new(weight, 1, spec.weight.len), spec.eps, out)
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
    }
}

fn activation(a: Activation) -> backend::Activation {
    match a {
        Activation::Silu => backend::Activation::Silu,
        Activation::GeluTanh => backend::Activation::GeluTanh,
        Activation::GeluErf => backend::Activation::GeluErf,
        Activation::Relu => backend::Activation::Relu,
    }
}
