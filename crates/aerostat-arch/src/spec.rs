//! What a model is: blocks in order, each with its weights and rules. Plain data.

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
        let blocks = self.blocks.iter().flat_map(|b| b.linears().into_iter().map(|l| &l.weight));
        blocks.chain(std::iter::once(&self.head.weight))
    }

    /// Every small tensor, in no particular order.
    pub fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let blocks = self.blocks.iter().flat_map(Block::vectors);
        let divisors = self.ropes.iter().filter_map(|r| r.divisors.as_ref());
        blocks.chain(std::iter::once(&self.final_norm.weight)).chain(divisors)
    }

    /// Whether head and embedding are one tensor.
    pub fn tied(&self) -> bool {
        self.head.weight.extent == self.embedding.extent
    }
}

/// A weight matrix `[rows, cols]`, row-major and contiguous on disk.
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
    /// Where its bytes lie.
    pub extent: Extent,
}

impl Matrix {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> u64 {
        self.extent.bytes / self.rows.max(1) as u64
    }

    /// Where the rows `start .. start + rows` lie.
    pub fn rows_extent(&self, start: usize, rows: usize) -> Extent {
        let row = self.row_bytes();
        Extent {
            file: self.extent.file,
            offset: self.extent.offset + start as u64 * row,
            bytes: rows as u64 * row,
        }
    }
}

/// A small tensor of one dimension, kept in memory as f32.
#[derive(Clone, Debug)]
pub struct Vector {
    /// The tensor's name.
    pub name: String,
    /// Stored format.
    pub dtype: DType,
    /// Elements.
    pub len: usize,
    /// Where its bytes lie.
    pub extent: Extent,
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

/// A root-mean-square norm.
#[derive(Clone, Debug)]
pub struct Norm {
    /// One per column of the group it normalises.
    pub weight: Vector,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// One block: attention, then MLP, each added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    /// Before attention.
    pub attention_norm: Norm,
    /// Attention.
    pub attention: AttentionSpec,
    /// On attention's output, before it is added.
    pub attention_post_norm: Option<Norm>,
    /// Before the MLP.
    pub mlp_norm: Norm,
    /// The MLP.
    pub mlp: MlpSpec,
    /// On the MLP's output, before it is added.
    pub mlp_post_norm: Option<Norm>,
}

impl Block {
    /// Its linear maps in the order of use.
    pub fn linears(&self) -> [&Linear; 7] {
        let (a, m) = (&self.attention, &self.mlp);
        [&a.q, &a.k, &a.v, &a.o, &m.gate, &m.up, &m.down]
    }

    /// Its norms and biases.
    fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let a = &self.attention;
        let optional = [&a.q_norm, &a.k_norm, &self.attention_post_norm, &self.mlp_post_norm];
        let norms = [&self.attention_norm, &self.mlp_norm].into_iter().chain(optional.into_iter().flatten());
        norms.map(|n| &n.weight).chain(self.linears().into_iter().filter_map(|l| l.bias.as_ref()))
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
    /// On each query head, before rotation.
    pub q_norm: Option<Norm>,
    /// On each key head, before rotation.
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
    /// Index into [`ModelSpec::ropes`].
    pub rope: usize,
}

/// A gated MLP: `down(activation(gate(x)) * up(x))`.
#[derive(Clone, Debug)]
pub struct MlpSpec {
    /// `[intermediate, hidden]`.
    pub gate: Linear,
    /// `[intermediate, hidden]`.
    pub up: Linear,
    /// `[hidden, intermediate]`.
    pub down: Linear,
    /// On the gate.
    pub activation: Activation,
}

/// The LM head.
#[derive(Clone, Debug)]
pub struct Head {
    /// `[vocab, hidden]`; the embedding itself where the two are tied.
    pub weight: Matrix,
    /// `cap * tanh(logit / cap)`.
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
}

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `i` with `i + rotary / 2`.
    Half,
    /// `2 i` with `2 i + 1`.
    Interleaved,
}
