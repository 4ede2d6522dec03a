//! What a model is: blocks in order, each with its weights and rules. Plain data, which every other layer of this crate
//! helps to make.

mod attention;
mod block;
mod codes;
mod delta;
mod distance;
mod experts;
mod latent;
mod layer_input;
mod matrix;
mod mlp;
mod norm;
mod rope;
mod space;
mod streams;
mod update;
mod vector;

pub use aerostat_types::{Activation, Alibi, RopeStyle, Window};

pub use attention::{AttentionSpec, Growth};
pub use block::{Block, Mixer};
pub use codes::{Beside, Companion, Nested, Scales, State};
pub use delta::{DeltaNet, DeltaShape};
pub use distance::DistanceBiases;
pub use experts::{Apart, Experts, Groups, Routing, Score};
pub use latent::{Indexer, Latent, Selection};
pub use layer_input::{LayerInput, LayerInputs};
pub use matrix::{Linear, Matrix, Role};
pub use mlp::{Joined, MlpSpec};
pub use norm::{Norm, NormKind};
pub use rope::{Divisors, RopeSpec, Scaling};
pub use space::{GatedConvolution, Lightning, Selective, SpaceShape, StateSpace};
pub use streams::{Mixing, Shortcut, Streams};
pub use update::Update;
pub use vector::{Runs, Vector};

/// A whole model: what a sweep computes, and where the bytes of all its weights lie.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// Name of the family, as [`Family::name`](crate::Family::name) has it.
    pub family: &'static str,
    /// Width of the residual stream, in elements of a row.
    pub hidden: usize,
    /// Number of tokens in the vocabulary: rows of the embedding and of the head.
    pub vocab: usize,
    /// Positions the model was made for; longer inputs run, their quality is the user's risk.
    pub context_max: usize,
    /// Token embedding, `[vocab, hidden]`; where the first block projects embeddings ([`Block::project_in`]), `[vocab,
    /// embedding width]`.
    pub embedding: Matrix,
    /// Factor on token embeddings; `None`: 1.
    pub embedding_scale: Option<f32>,
    /// Learned vectors of positions, added to the embeddings; `None`: there are none.
    pub positions: Option<Positions>,
    /// Learned vectors of the parts of a text, added to the embeddings; `None`: there are none.
    pub token_types: Option<TokenTypes>,
    /// A second embedding of each token, of which every block reads a part; `None`: there is none.
    pub layer_inputs: Option<LayerInputs>,
    /// How many residual streams there are; `None`: one.
    pub streams: Option<Streams>,
    /// Norm of the embeddings, before the first block.
    pub embedding_norm: Option<Norm>,
    /// The rotary position embeddings that blocks refer to by index ([`AttentionSpec::rope`]).
    pub ropes: Vec<RopeSpec>,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    /// Norm of the residual stream after the last block, before the head.
    pub final_norm: Option<Norm>,
    /// The LM head.
    pub head: Head,
    /// What an adapter changes; empty where none is applied.
    pub updates: Vec<Update>,
    /// Elements of all tensors in use, an embedding that is the head too counted once.
    pub parameters: u64,
    /// In a checkpoint of several towers, of which this is the text tower: the number of tensors that it never reads, and their
    /// bytes. `None`: the checkpoint has one tower.
    pub other_towers: Option<(usize, u64)>,
    /// What a user should know of the checkpoint though it runs, a sentence each.
    pub notes: Vec<String>,
    /// Ids of the tokens that end a sequence.
    pub eos: Vec<u32>,
    /// Id of the token that begins a text, if the configuration names one.
    pub bos: Option<u32>,
}

/// Learned positions: a vector for each, added to the token's embedding.
#[derive(Clone, Debug)]
pub struct Positions {
    /// `[rows, hidden]`, one row after the other.
    pub table: Vector,
    /// Rows of the table, the `offset` ones before position 0 included.
    pub rows: usize,
    /// The row of position 0.
    pub offset: usize,
}

/// Learned vectors of the parts of a text: such as a query and a document, which are one text to the model.
#[derive(Clone, Debug)]
pub struct TokenTypes {
    /// `[rows, hidden]`, one row after the other.
    pub table: Vector,
    /// Parts that are told apart.
    pub rows: usize,
}

/// The LM head: makes logits, `[rows, vocab]`, of the normalised residual stream.
#[derive(Clone, Debug)]
pub struct Head {
    /// `[vocab, hidden]`, or as wide as embeddings are; the embedding itself where the two are tied, or where there is no head.
    pub weight: Matrix,
    /// The checkpoint has no head, as those of embedding models do not: hidden states are all that it gives.
    pub absent: bool,
    /// Bias of the logits, `[vocab]`.
    pub bias: Option<Vector>,
    /// Each row of `weight` is divided by its Euclidean norm.
    pub normalised: bool,
    /// Factor on logits; `None`: 1.
    pub scale: Option<f32>,
    /// Soft cap of logits, after scaling: `cap * tanh(logit / cap)`; `None`: they are not capped.
    pub softcap: Option<f32>,
}

impl ModelSpec {
    /// The tables whose rows are gathered for tokens: the embedding, and that of further inputs of blocks.
    pub fn tables(&self) -> impl Iterator<Item = &Matrix> {
        [&self.embedding].into_iter().chain(self.layer_inputs.as_ref().map(|inputs| &inputs.table))
    }

    /// The same, to change them.
    pub fn tables_mut(&mut self) -> impl Iterator<Item = &mut Matrix> {
        [&mut self.embedding].into_iter().chain(self.layer_inputs.as_mut().map(|inputs| &mut inputs.table))
    }

    /// Every weight matrix in the order of use, experts' matrices within their block, the head last; tables are not among
    /// them.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let linears = |b| Block::linears(b).chain(b.experts.iter().flat_map(Experts::linears));
        let blocks = self.blocks.iter().flat_map(move |b| linears(b).map(|(_, linear)| &linear.weight));
        blocks.chain(std::iter::once(&self.head.weight))
    }

    /// Stored bytes of [`ModelSpec::matrices`] and of their companions.
    pub fn matrix_bytes(&self) -> u64 {
        self.matrices().map(Matrix::bytes).sum()
    }

    /// Outputs of the widest matrix that is stored by inputs; 0 where none is.
    pub fn k_major_outputs(&self) -> usize {
        let latents = self.blocks.iter().filter_map(Block::latent);
        let ranks = latents.filter(|latent| latent.k_by_rows).map(|latent| latent.rank);
        let outputs = self.matrices().filter(|m| m.k_major).map(|m| m.rows);
        outputs.chain(ranks).max().unwrap_or(0)
    }

    /// Every small tensor of the model (norms, biases, learned positions and the like), in no particular order.
    pub fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let blocks = self.blocks.iter().flat_map(Block::vectors);
        let divisors = self.ropes.iter().flat_map(RopeSpec::vectors);
        let inputs = self.layer_inputs.as_ref().map(|inputs| &inputs.norm);
        let norms = self.embedding_norm.iter().chain(&self.final_norm).chain(inputs).flat_map(Norm::vectors);
        let positions = self.positions.as_ref().map(|p| &p.table);
        let positions = positions.into_iter().chain(self.token_types.as_ref().map(|t| &t.table));
        let biases = self.blocks.iter().find_map(|b| b.attention()?.biases.as_ref()).map(|b| &b.table);
        let positions = positions.chain(biases);
        let updates = self.updates.iter().flat_map(|update| [&update.down, &update.up]);
        let small = blocks.chain(norms).chain(positions).chain(&self.head.bias).chain(divisors);
        small.chain(self.scales()).chain(updates)
    }

    /// The scales of matrices of codes that are kept in memory; matrices that are parts of one tensor share theirs, which
    /// are then given once for each.
    pub fn scales(&self) -> impl Iterator<Item = &Vector> {
        self.matrices().filter_map(|m| m.scales.as_ref()).flat_map(Scales::vectors)
    }

    /// Of each kind of companion, in the order of [`Beside`], the most numbers that any matrix has.
    pub fn beside(&self) -> [usize; 3] {
        let mut most = [0; 3];
        for companion in self.matrices().flat_map(Matrix::companions) {
            let len = &mut most[companion.what as usize];
            *len = companion.numbers().max(*len);
        }
        most
    }

    /// Elements of recurrent states, in f32, that a sequence keeps in all blocks; 0 where attention is all there is.
    pub fn state_elements(&self) -> usize {
        self.blocks.iter().map(Block::state_elements).sum()
    }

    /// Whether positions also see those after them: a text is then computed as a whole, and nothing can follow it.
    pub fn looks_ahead(&self) -> bool {
        self.blocks.iter().filter_map(Block::attention).any(|attention| attention.ahead)
    }

    /// Whether head and embedding are one tensor.
    pub fn tied(&self) -> bool {
        self.head.weight.extent == self.embedding.extent
    }
}
