//! What a model is: blocks in order, each with its weights and rules. Plain data.

use std::sync::Arc;

use aerostat_checkpoint::packed::TileRows;
use aerostat_checkpoint::{DType, Extent};

use crate::rope::RopeSpec;

/// A whole model.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// Name of the family.
    pub family: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// Positions the model was made for; longer inputs run, their quality is the user's risk.
    pub context_max: usize,
    /// Token embedding, `[vocab, hidden]`.
    pub embedding: Matrix,
    /// Embeddings are multiplied by this.
    pub embedding_scale: Option<f32>,
    /// Learned positions, added to the embeddings.
    pub positions: Option<Positions>,
    /// On the embeddings, before the first block.
    pub embedding_norm: Option<Norm>,
    /// The rotations that blocks refer to.
    pub ropes: Vec<RopeSpec>,
    /// First to last.
    pub blocks: Vec<Block>,
    /// Before the head.
    pub final_norm: Norm,
    /// The LM head.
    pub head: Head,
    /// Elements of all tensors in use, a shared embedding and head counted once.
    pub parameters: u64,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
    /// The token that begins a text, if the configuration names one.
    pub bos: Option<u32>,
}

impl ModelSpec {
    /// Every weight matrix of a sweep in the order of use, the head last; the embedding is not among them.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let blocks = self.blocks.iter().flat_map(|b| b.linears().map(|(_, linear)| &linear.weight));
        blocks.chain(std::iter::once(&self.head.weight))
    }

    /// Stored bytes of all of them.
    pub fn matrix_bytes(&self) -> u64 {
        self.matrices().map(|m| m.extent.bytes).sum()
    }

    /// Every small tensor, in no particular order.
    pub fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let blocks = self.blocks.iter().flat_map(Block::vectors);
        let divisors = self.ropes.iter().flat_map(RopeSpec::vectors);
        let norms = self.embedding_norm.iter().chain([&self.final_norm]).flat_map(Norm::vectors);
        let positions = self.positions.as_ref().map(|p| &p.table);
        blocks.chain(norms).chain(positions).chain(&self.head.bias).chain(divisors)
    }

    /// Whether head and embedding are one tensor.
    pub fn tied(&self) -> bool {
        self.head.weight.extent == self.embedding.extent
    }
}

/// What a matrix does in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Role {
    Q,
    K,
    V,
    Output,
    Gate,
    Up,
    Down,
    /// The LM head, after the last block.
    Head,
}

/// A weight matrix `[rows, cols]`, row-major on disk: a whole tensor, or some rows of one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The tensor's name.
    pub name: String,
    /// Stored format.
    pub dtype: DType,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Where its bytes lie; with `runs`, where they begin, and how many they are.
    pub extent: Extent,
    /// How its rows lie among those of a tensor that holds other matrices too; `None`: one after the other.
    pub runs: Option<Runs>,
    /// Its tiles in a packed folder, by its own rows: then rows do not lie one by one, and the extent is that of all
    /// tiles together, or where the first begins.
    pub tiles: Option<Arc<[TileRows]>>,
}

/// Runs of `rows` rows (or elements of a vector), one every `stride`: the part of one matrix in a tensor where the
/// heads of queries, keys and values alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Rows in a run; at least 1.
    pub rows: usize,
    /// From the start of a run to the next one's, in rows.
    pub stride: usize,
}

impl Runs {
    /// Where row `index` lies, counted from the first.
    pub fn place(&self, index: usize) -> usize {
        index / self.rows * self.stride + index % self.rows
    }
}

impl Matrix {
    /// Bytes of one row, unpacked.
    pub fn row_bytes(&self) -> u64 {
        self.dtype.bytes_for(self.cols as u64).unwrap_or(0)
    }

    /// Its weights are coded: they are expanded before they are multiplied.
    pub fn is_coded(&self) -> bool {
        self.tiles.is_some() && self.dtype == DType::BF16
    }

    /// The fewest bytes that can be read and multiplied: a row, or the largest of its packed tiles.
    pub fn unit_bytes(&self) -> u64 {
        let largest = |tiles: &Arc<[TileRows]>| tiles.iter().map(|t| t.extent.bytes).max().unwrap_or(0);
        self.tiles.as_ref().map_or(self.row_bytes(), largest)
    }

    /// Rows that lie one after the other; no tile crosses from one run to the next.
    pub fn run_rows(&self) -> usize {
        self.runs.map_or(self.rows, |runs| runs.rows)
    }

    /// Where the rows `start .. start + rows` of one run lie, if they are not packed.
    pub fn rows_extent(&self, start: usize, rows: usize) -> Extent {
        let row = self.row_bytes();
        let place = self.runs.map_or(start, |runs| runs.place(start));
        Extent {
            file: self.extent.file,
            offset: self.extent.offset + place as u64 * row,
            bytes: rows as u64 * row,
        }
    }
}

/// A small tensor, kept in memory as f32.
#[derive(Clone, Debug)]
pub struct Vector {
    /// The tensor's name.
    pub name: String,
    /// Stored format.
    pub dtype: DType,
    /// Elements.
    pub len: usize,
    /// Where its bytes lie; with `runs`, those between its runs too.
    pub extent: Extent,
    /// Where its elements are among those stored; `None`: one after the other.
    pub runs: Option<Runs>,
    /// Added to each element after expansion (1 where norm weights are stored as `w - 1`).
    pub offset: f32,
}

/// A matrix and its bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Matrix,
    /// One per output.
    pub bias: Option<Vector>,
}

/// How values are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Divided by their root mean square.
    Rms,
    /// Less their mean, divided by their standard deviation.
    Layer,
}

/// A norm over each group of `size` columns.
#[derive(Clone, Debug)]
pub struct Norm {
    /// What is taken away and divided by.
    pub kind: NormKind,
    /// Columns that are normalised together.
    pub size: usize,
    /// Factors: one per column of a group, or one per column of the whole row. Root-mean-square norms have one per
    /// column of a group.
    pub weight: Option<Vector>,
    /// Added at the end; as many as factors.
    pub bias: Option<Vector>,
    /// Added to the mean of squares.
    pub eps: f32,
}

impl Norm {
    fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.weight.iter().chain(&self.bias)
    }
}

/// A learned vector for each position.
#[derive(Clone, Debug)]
pub struct Positions {
    /// `[rows, hidden]`, one row after the other.
    pub table: Vector,
    /// Positions it has, `offset` included.
    pub rows: usize,
    /// The row of position 0.
    pub offset: usize,
}

/// One block: attention and MLP, each added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    /// Before attention; `None`: it reads the stream itself.
    pub attention_norm: Option<Norm>,
    /// Attention.
    pub attention: AttentionSpec,
    /// On attention's output, before it is added.
    pub attention_post_norm: Option<Norm>,
    /// Before the MLP; `None`: it reads what attention reads in a parallel block, else the stream itself.
    pub mlp_norm: Option<Norm>,
    /// The MLP.
    pub mlp: MlpSpec,
    /// On the MLP's output, before it is added.
    pub mlp_post_norm: Option<Norm>,
    /// The MLP reads the stream as it was before attention.
    pub parallel: bool,
    /// What attention and MLP give is multiplied by this before it is added.
    pub residual_scale: Option<f32>,
}

impl Block {
    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let (a, m) = (&self.attention, &self.mlp);
        let attention = [(Role::Q, &a.q), (Role::K, &a.k), (Role::V, &a.v), (Role::Output, &a.o)];
        let gate = m.gate.as_ref().map(|gate| (Role::Gate, gate));
        attention.into_iter().chain(gate).chain([(Role::Up, &m.up), (Role::Down, &m.down)])
    }

    /// The same, to change them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let (a, m) = (&mut self.attention, &mut self.mlp);
        [&mut a.q, &mut a.k, &mut a.v, &mut a.o]
            .into_iter()
            .chain(&mut m.gate)
            .chain([&mut m.up, &mut m.down])
    }

    /// Its norms and biases.
    fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let a = &self.attention;
        let around = [&self.attention_norm, &self.attention_post_norm, &self.mlp_norm, &self.mlp_post_norm];
        let norms = around.into_iter().chain([&a.q_norm, &a.k_norm]).flatten().flat_map(Norm::vectors);
        norms.chain(self.linears().filter_map(|(_, linear)| linear.bias.as_ref()))
    }
}

/// Attention with grouped queries.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// `[heads * head_dim, hidden]`.
    pub q: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub k: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub v: Linear,
    /// `[hidden, heads * head_dim]`.
    pub o: Linear,
    /// On queries, before rotation.
    pub q_norm: Option<Norm>,
    /// On keys, before rotation.
    pub k_norm: Option<Norm>,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Positions a row sees, itself included; `None`: all.
    pub window: Option<usize>,
    /// Scores fall off linearly with distance, each head by its own slope.
    pub alibi: bool,
    /// Index into [`ModelSpec::ropes`]; `None`: not rotated.
    pub rope: Option<usize>,
}

/// An MLP: `down(activation(gate(x)) * up(x))`, or `down(activation(up(x)))` without a gate.
#[derive(Clone, Debug)]
pub struct MlpSpec {
    /// `[intermediate, hidden]`.
    pub gate: Option<Linear>,
    /// `[intermediate, hidden]`.
    pub up: Linear,
    /// `[hidden, intermediate]`.
    pub down: Linear,
    /// On the gate, or on `up` where there is none.
    pub activation: Activation,
}

/// The LM head.
#[derive(Clone, Debug)]
pub struct Head {
    /// `[vocab, hidden]`; the embedding itself where the two are tied.
    pub weight: Matrix,
    /// One per token.
    pub bias: Option<Vector>,
    /// Logits are multiplied by this.
    pub scale: Option<f32>,
    /// `cap * tanh(logit / cap)`, after scaling.
    pub softcap: Option<f32>,
}

/// The non-linearity of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU, tanh approximation.
    GeluTanh,
    /// GELU with the error function.
    GeluErf,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)` squared.
    ReluSquared,
}

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `i` with `i + rotary / 2`.
    Half,
    /// `2 i` with `2 i + 1`.
    Interleaved,
}
