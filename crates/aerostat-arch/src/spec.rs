//! What a model is: blocks in order, each with its weights and rules. Plain data.

use std::sync::Arc;

use aerostat_checkpoint::packed::TileRows;
use aerostat_checkpoint::{DType, Extent};
pub use aerostat_types::{Activation, RopeStyle};

use crate::attention::{AttentionSpec, AttentionWidths};
use crate::beside::{Companion, Scales};
use crate::delta::DeltaNet;
use crate::latent::Latent;
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
    /// Token embedding, `[vocab, hidden]`; where the first block projects embeddings, of a width of their own.
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
    pub final_norm: Option<Norm>,
    /// The LM head.
    pub head: Head,
    /// Elements of all tensors in use, a shared embedding and head counted once.
    pub parameters: u64,
    /// Where this is the text tower of several: tensors that are not its own, which are never read, and their bytes.
    pub other_towers: Option<(usize, u64)>,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
    /// The token that begins a text, if the configuration names one.
    pub bos: Option<u32>,
}

impl ModelSpec {
    /// Every weight matrix in the order of use, the head last; the embedding is not among them.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let linears = |b| Block::linears(b).chain(b.experts.iter().flat_map(Experts::linears));
        let blocks = self.blocks.iter().flat_map(move |b| linears(b).map(|(_, linear)| &linear.weight));
        blocks.chain(std::iter::once(&self.head.weight))
    }

    /// Stored bytes of all of them, and of what is read with them.
    pub fn matrix_bytes(&self) -> u64 {
        self.matrices().map(Matrix::bytes).sum()
    }

    /// Partial sums of a row that the widest matrix stored by inputs needs: sixteen for each output.
    pub fn lanes(&self) -> usize {
        let latents = self.blocks.iter().filter_map(Block::latent);
        let ranks = latents.filter(|latent| latent.k_by_rows).map(|latent| latent.rank);
        let outputs = self.matrices().filter(|m| m.k_major).map(|m| m.rows);
        16 * outputs.chain(ranks).max().unwrap_or(0)
    }

    /// Every small tensor, in no particular order.
    pub fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let blocks = self.blocks.iter().flat_map(Block::vectors);
        let divisors = self.ropes.iter().flat_map(RopeSpec::vectors);
        let norms = self.embedding_norm.iter().chain(&self.final_norm).flat_map(Norm::vectors);
        let positions = self.positions.as_ref().map(|p| &p.table);
        blocks.chain(norms).chain(positions).chain(&self.head.bias).chain(divisors).chain(self.scales())
    }

    /// What is kept in memory of the scales of matrices of codes; matrices that are parts of one tensor share theirs.
    pub fn scales(&self) -> impl Iterator<Item = &Vector> {
        self.matrices().filter_map(|m| m.scales.as_ref()).flat_map(Scales::vectors)
    }

    /// The most numbers of each kind that lie beside a matrix and are read before it, by [`Beside`](crate::Beside).
    pub fn beside(&self) -> [usize; 3] {
        let mut most = [0; 3];
        for companion in self.matrices().flat_map(Matrix::companions) {
            let len = &mut most[companion.what as usize];
            *len = companion.numbers().max(*len);
        }
        most
    }

    /// Elements of recurrent states that a sequence keeps; 0 where attention is all there is.
    pub fn state_elements(&self) -> usize {
        let deltas = self.blocks.iter().filter_map(Block::delta);
        deltas.map(|delta| delta.shape.history() + delta.shape.state()).sum()
    }

    /// The wider of the residual stream and the embeddings.
    pub fn row_width(&self) -> usize {
        self.hidden.max(self.embedding.cols)
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
    /// Makes the residual stream of the embeddings, in the first block.
    ProjectIn,
    /// Compresses what queries are made of.
    QDown,
    Q,
    /// The queries that choose positions.
    IndexQ,
    /// Compresses what keys and values are made of.
    KvDown,
    /// The keys that positions are chosen by.
    IndexK,
    /// Weights of the queries that choose positions.
    IndexWeights,
    K,
    V,
    /// Says how much of the token mixer's output is taken, element by element.
    OutputGate,
    /// How much a position changes the state of a delta net.
    Strength,
    /// How much of that state it leaves.
    Decay,
    Output,
    /// Says how much of the block's own MLP a row takes beside its experts.
    SharedGate,
    /// Says which experts a row uses.
    Router,
    Gate,
    Up,
    Down,
    /// Makes what the head reads of the residual stream, in the last block.
    ProjectOut,
    /// The LM head, after the last block.
    Head,
}

/// A weight matrix of `rows` outputs and `cols` inputs: a whole tensor, or some rows of one.
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
    /// It is stored `[cols, rows]`: one row on disk for each input, or of words for several.
    pub k_major: bool,
    /// What its elements stand for and are multiplied by, where they are codes alone.
    pub scales: Option<Scales>,
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
    /// Rows as they lie on disk, and how many elements of its type each has.
    pub fn stored(&self) -> (usize, usize) {
        let (rows, cols) = if self.k_major { (self.cols, self.rows) } else { (self.rows, self.cols) };
        let Some(code) = self.scales.as_ref().map(|scales| scales.code) else { return (rows, cols) };
        let (of, run) = code.run();
        (rows / run * of, code.row_bytes(cols) / self.dtype.block_bytes().max(1))
    }

    /// Rows (inputs, where it is stored by inputs) that come before stored row `row`, a whole number of runs.
    pub fn rows_before(&self, row: usize) -> usize {
        let (of, run) = self.scales.as_ref().map_or((1, 1), |scales| scales.code.run());
        row / of * run
    }

    /// Bytes of one stored row, unpacked.
    pub fn row_bytes(&self) -> u64 {
        self.dtype.bytes_for(self.stored().1 as u64).unwrap_or(0)
    }

    /// Its bytes, and those of what is read with it.
    pub fn bytes(&self) -> u64 {
        self.extent.bytes + self.companions().iter().map(|c| c.extent.bytes).sum::<u64>()
    }

    /// What is read before it.
    pub fn companions(&self) -> &[Companion] {
        self.scales.as_ref().map_or(&[], |scales| &scales.companions)
    }

    /// Its weights are coded: they are expanded before they are multiplied.
    pub fn is_coded(&self) -> bool {
        self.tiles.is_some() && self.dtype.has_coded_exponents()
    }

    /// The fewest stored rows that can be multiplied.
    pub fn unit_rows(&self) -> usize {
        self.scales.as_ref().map_or(1, |scales| scales.code.run().0)
    }

    /// The fewest bytes that can be read and multiplied: a row or a few, a row of a companion, or the largest of its packed
    /// tiles.
    pub fn unit_bytes(&self) -> u64 {
        let largest = |tiles: &Arc<[TileRows]>| tiles.iter().map(|t| t.extent.bytes).max().unwrap_or(0);
        let unit = self.row_bytes() * self.unit_rows() as u64;
        let unit = self.companions().iter().map(Companion::row_bytes).fold(unit, u64::max);
        self.tiles.as_ref().map_or(unit, largest)
    }

    /// Stored rows that lie one after the other; no tile crosses from one run to the next.
    pub fn run_rows(&self) -> usize {
        self.runs.map_or(self.stored().0, |runs| runs.rows)
    }

    /// Where the stored rows `start .. start + rows` of one run lie, if they are not packed.
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
    /// Factors of the groups after the first, where each group has a tensor of its own.
    pub further: Vec<Vector>,
    /// Added at the end; as many as factors.
    pub bias: Option<Vector>,
    /// Added to the mean of squares.
    pub eps: f32,
}

impl Norm {
    fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.weight.iter().chain(&self.further).chain(&self.bias)
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

/// What lets positions see those before them.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has few of them, and both are large")]
pub enum Mixer {
    /// Attention to what the KV cache holds.
    Attention(AttentionSpec),
    /// A recurrent state.
    Delta(DeltaNet),
}

/// One block: attention, or what stands in its place, and MLP, each added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    /// `[hidden, width of embeddings]`, in the first block: makes the stream of the embeddings.
    pub project_in: Option<Linear>,
    /// Before attention; `None`: it reads the stream itself.
    pub attention_norm: Option<Norm>,
    /// Attention, or what stands in its place.
    pub mixer: Mixer,
    /// On attention's output, before it is added.
    pub attention_post_norm: Option<Norm>,
    /// Before the MLP; `None`: it reads what attention reads in a parallel block, else the stream itself.
    pub mlp_norm: Option<Norm>,
    /// The MLP that every row uses; with experts, the one they share.
    pub mlp: Option<MlpSpec>,
    /// MLPs of which each row uses some. What they give is added to what the shared one gives.
    pub experts: Option<Experts>,
    /// On the MLP's output, before it is added.
    pub mlp_post_norm: Option<Norm>,
    /// The MLP reads the stream as it was before attention.
    pub parallel: bool,
    /// What the norms before attention and MLP give takes the place of the stream.
    pub norms_replace: bool,
    /// What attention and MLP give is multiplied by this before it is added.
    pub residual_scale: Option<f32>,
    /// On the stream, in the end.
    pub end_norm: Option<Norm>,
    /// The stream is multiplied by this number in the end.
    pub scale: Option<Vector>,
    /// `[width of embeddings, hidden]`, in the last block: makes what the head reads, after the final norm.
    pub project_out: Option<Linear>,
}

impl Block {
    /// The linear maps that every sweep uses, in the order of use: all but those of experts.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let attention = self.attention().into_iter().flat_map(AttentionSpec::linears);
        let mixer = attention.chain(self.delta().into_iter().flat_map(DeltaNet::linears));
        let router = self.experts.iter().flat_map(|experts| {
            let shared = experts.shared_gate.iter().map(|linear| (Role::SharedGate, linear));
            shared.chain([(Role::Router, &experts.router)])
        });
        let project_in = self.project_in.iter().map(|linear| (Role::ProjectIn, linear));
        let project_out = self.project_out.iter().map(|linear| (Role::ProjectOut, linear));
        let own = mixer.chain(router).chain(self.mlp.iter().flat_map(MlpSpec::linears));
        project_in.chain(own).chain(project_out)
    }

    /// Its attention, if it has one.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::Delta(_) => None,
        }
    }

    /// The delta net in its place.
    pub fn delta(&self) -> Option<&DeltaNet> {
        match &self.mixer {
            Mixer::Delta(delta) => Some(delta),
            Mixer::Attention(_) => None,
        }
    }

    /// How its keys and values are compressed, if they are.
    pub fn latent(&self) -> Option<&Latent> {
        self.attention().and_then(|attention| attention.latent.as_ref())
    }

    /// What a row takes in attention, or in what stands in its place.
    pub fn widths(&self) -> AttentionWidths {
        match &self.mixer {
            Mixer::Attention(attention) => attention.widths(),
            Mixer::Delta(delta) => delta.widths(),
        }
    }

    /// Heads that the KV cache holds of it.
    pub fn cache_heads(&self) -> usize {
        self.attention()
            .map_or(1, |attention| if attention.latent.is_some() { 1 } else { attention.kv_heads })
    }

    /// The width of its widest MLP.
    pub fn mlp_width(&self) -> usize {
        self.mlps().map(MlpSpec::width).max().unwrap_or(0)
    }

    /// Its MLPs: the one that every row uses, and the experts.
    pub fn mlps(&self) -> impl Iterator<Item = &MlpSpec> {
        self.mlp.iter().chain(self.experts.iter().flat_map(|experts| &experts.mlps))
    }

    /// The outputs of its widest matrix that several things are taken from: gate and up, or queries, keys and values.
    pub fn joined_width(&self) -> usize {
        let mlps = self.mlps().filter(|mlp| mlp.joined.is_some()).map(|mlp| mlp.up.weight.rows);
        let attention = self.attention().and_then(|attention| attention.joined.as_ref());
        mlps.chain(attention.map(|linear| linear.weight.rows)).max().unwrap_or(0)
    }

    /// All its linear maps, those of experts too, to change them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let (attention, delta) = match &mut self.mixer {
            Mixer::Attention(a) => {
                (Some([&mut a.q, &mut a.k, &mut a.v, &mut a.o].into_iter().chain(&mut a.gate)), None)
            }
            Mixer::Delta(delta) => (None, Some(delta.linears_mut())),
        };
        let mixer = attention.into_iter().flatten().chain(delta.into_iter().flatten());
        let (router, mlps) = match &mut self.experts {
            Some(experts) => (Some(&mut experts.router), experts.mlps.as_mut_slice()),
            None => (None, [].as_mut_slice()),
        };
        let mlps = self.mlp.iter_mut().chain(mlps);
        let mlps = mlps.flat_map(|m| m.gate.iter_mut().chain([&mut m.up, &mut m.down]));
        mixer.chain(router).chain(mlps).chain(&mut self.project_in).chain(&mut self.project_out)
    }

    /// Its norms and biases.
    fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let (before, after) =
            ([&self.attention_norm, &self.mlp_norm], [&self.attention_post_norm, &self.mlp_post_norm]);
        let around = before.into_iter().chain(after).chain([&self.end_norm]);
        let heads = self.attention().into_iter().flat_map(|a| [&a.q_norm, &a.k_norm, &a.v_norm]);
        let norms = around.chain(heads).flatten().chain(self.delta().map(|delta| &delta.norm));
        let norms = norms.chain(self.latent().into_iter().flat_map(Latent::norms)).flat_map(Norm::vectors);
        let sinks = self.attention().and_then(|a| a.sinks.as_ref());
        let delta = self.delta().into_iter().flat_map(DeltaNet::vectors);
        let experts = self.experts.iter().flat_map(Experts::linears);
        let correction = self.experts.iter().filter_map(|e| e.routing.correction.as_ref());
        let biases = self.linears().chain(experts).filter_map(|(_, linear)| linear.bias.as_ref());
        norms.chain(correction).chain(biases).chain(sinks).chain(delta).chain(&self.scale)
    }
}

/// An MLP: `down(activation(gate(x)) * up(x))`, or `down(activation(up(x)))` without a gate.
#[derive(Clone, Debug)]
pub struct MlpSpec {
    /// `[intermediate, hidden]`.
    pub gate: Option<Linear>,
    /// `[intermediate, hidden]`; where it holds the gate too, twice as many rows.
    pub up: Linear,
    /// How the gate lies in `up`, if it does.
    pub joined: Option<Joined>,
    /// `[hidden, intermediate]`.
    pub down: Linear,
    /// On the gate, or on `up` where there is none.
    pub activation: Activation,
}

/// How the outputs of gate and up lie in those of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// First all of the gate.
    Halves,
    /// Gate, up, gate, up, and so on.
    Alternating,
}

impl MlpSpec {
    /// Its inner width.
    pub fn width(&self) -> usize {
        self.down.weight.cols
    }

    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let gate = self.gate.as_ref().map(|gate| (Role::Gate, gate));
        gate.into_iter().chain([(Role::Up, &self.up), (Role::Down, &self.down)])
    }

    /// Bytes of its matrices.
    pub fn bytes(&self) -> u64 {
        self.linears().map(|(_, linear)| linear.weight.bytes()).sum()
    }
}

/// A mixture of experts.
#[derive(Clone, Debug)]
pub struct Experts {
    /// `[experts, hidden]`, on what the MLP reads.
    pub router: Linear,
    /// `[1, hidden]`: the shared MLP's output is multiplied by its sigmoid.
    pub shared_gate: Option<Linear>,
    /// What follows from the router.
    pub routing: Routing,
    /// The experts, by index.
    pub mlps: Vec<MlpSpec>,
    /// Their indices as they lie on disk: the order in which they are read, computed and added.
    pub order: Vec<u32>,
}

impl Experts {
    /// The linear maps of all experts.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        self.order.iter().filter_map(|e| self.mlps.get(*e as usize)).flat_map(MlpSpec::linears)
    }

    /// Bytes of all experts.
    pub fn bytes(&self) -> u64 {
        self.mlps.iter().map(MlpSpec::bytes).sum()
    }
}

/// How experts are chosen, and how much of each is taken.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Experts of a row.
    pub chosen: usize,
    /// What the router's outputs become.
    pub score: Score,
    /// Added to the scores for the choice alone.
    pub correction: Option<Vector>,
    /// Only experts of some groups can be chosen.
    pub groups: Option<Groups>,
    /// The scores of the chosen are divided by their sum, to which this is added, and which is at least the second.
    pub normalise: Option<(f32, f32)>,
    /// Then they are multiplied by this.
    pub scale: f32,
    /// They multiply what experts read, not what they give.
    pub at_input: bool,
}

/// What a router's outputs become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Their softmax over all experts.
    Softmax,
    /// Their softmax over the chosen ones.
    SoftmaxOfChosen,
    /// The sigmoid of each.
    Sigmoid,
    /// The best two, each with its softmax among those that are less than twice this (relatively) behind it; the
    /// second without the first.
    SparseMixer(f32),
}

/// Experts in groups of equal size, of which the best are open to the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Number of groups.
    pub count: usize,
    /// Of which so many are open.
    pub open: usize,
    /// A group is as good as the sum of so many of its best experts.
    pub best: usize,
    /// An expert of a closed group scores 0 in the choice; else it cannot be chosen.
    pub closed_score_zero: bool,
}

/// The LM head.
#[derive(Clone, Debug)]
pub struct Head {
    /// `[vocab, hidden]`; the embedding itself where the two are tied.
    pub weight: Matrix,
    /// One per token.
    pub bias: Option<Vector>,
    /// Its rows are divided by their norms.
    pub normalised: bool,
    /// Logits are multiplied by this.
    pub scale: Option<f32>,
    /// `cap * tanh(logit / cap)`, after scaling.
    pub softcap: Option<f32>,
}
