//! The handles and the operands of ops.

use std::ops::Deref;

use aerostat_checkpoint::DType;
pub use aerostat_types::{Activation, Alibi, DeviceMemory, Home, KvElement, KvType, RopeStyle, Window};

use crate::quantised::Quantised;

/// A buffer of f32 values on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub u32);

/// A weight tile that stays, as [`Backend::pin`](crate::Backend::pin) gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightId(pub u32);

/// A weight tile that is passing through, as [`Backend::upload`](crate::Backend::upload) gave it.
///
/// Places are taken again, in another turn: what was released is not mistaken for what came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadId {
    /// Number of the place among those of tiles on their way.
    pub place: u32,
    /// How many tiles had the place before.
    pub turn: u32,
}

/// Bytes in host memory that own themselves, such as a buffer of the ring or a vector; dropping them gives them back.
pub type HostBytes = Box<dyn Deref<Target = [u8]> + Send>;

/// A matrix of f32 inside a buffer: element `(r, c)` lies at `offset + r * stride + c`, all counted in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mat {
    /// The buffer.
    pub buffer: BufferId,
    /// Where element (0, 0) lies.
    pub offset: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Distance between rows; at least `cols`.
    pub stride: usize,
}

impl Mat {
    /// A dense matrix at the start of `buffer`.
    pub fn new(buffer: BufferId, rows: usize, cols: usize) -> Self {
        Self { buffer, offset: 0, rows, cols, stride: cols }
    }

    /// Its rows `start .. start + rows`.
    #[must_use]
    pub fn row_range(self, start: usize, rows: usize) -> Self {
        Self { offset: self.offset + start * self.stride, rows, ..self }
    }

    /// Its columns `start .. start + cols`.
    #[must_use]
    pub fn col_range(self, start: usize, cols: usize) -> Self {
        Self { offset: self.offset + start, cols, ..self }
    }
}

/// Format and shape of a weight tile: some rows of a matrix, `[rows, cols]`, row-major as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileShape {
    /// The stored format; of packed tiles that which they expand to.
    pub dtype: DType,
    /// Stored rows in this tile: outputs, or inputs where the matrix is stored by inputs.
    pub rows: usize,
    /// Elements of a stored row; a multiple of the format's block length.
    pub cols: usize,
    /// The bytes are [packed tiles](crate::packed) end to end. Else they are exactly `dtype.bytes_for(rows * cols)`.
    pub packed: bool,
}

impl TileShape {
    /// The tile of this shape in `bytes`.
    pub fn tile(self, bytes: &[u8]) -> Tile<'_> {
        Tile { dtype: self.dtype, rows: self.rows, cols: self.cols, bytes }
    }
}

/// A weight tile in host memory, `[rows, cols]` row-major in the stored format, at any byte alignment.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// The stored format.
    pub dtype: DType,
    /// Stored rows in this tile.
    pub rows: usize,
    /// Elements of a stored row; a multiple of the format's block length.
    pub cols: usize,
    /// Exactly `dtype.bytes_for(rows * cols)` bytes.
    pub bytes: &'a [u8],
}

/// What a device with memory of its own was asked for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Batches of commands that were handed to it.
    pub submissions: u64,
    /// Kernels that were started.
    pub dispatches: u64,
    /// Times that the host waited for a batch to be finished.
    pub waits: u64,
    /// Times that results were read back.
    pub read_backs: u64,
    /// Times that memory which host and device use in turns went to the device. Each may be waited for once.
    pub turns: u64,
    /// Bytes of weights that were sent to it, in the form that it computes with.
    pub uploaded_bytes: u64,
    /// Bytes of all else that was written to it: where rows stand, their embeddings and angles, small tensors.
    pub written_bytes: u64,
    /// The most of its memory that was taken at a time.
    pub memory_peak_bytes: u64,
    /// What its allocator has of it by now; `None`: it does not say.
    pub reserved_bytes: Option<u64>,
}

/// A weight operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weight {
    /// A tile that stays.
    Resident(WeightId),
    /// A tile that passes through, until it is released.
    Arriving(UploadId),
}

/// What of a model's matrices decides how much scratch a device needs; known at open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchNeed {
    /// Outputs of the widest matrix that is stored by inputs; 0 where there is none.
    pub k_major_outputs: usize,
    /// Inputs of the widest matrix of codes whose scales lie apart; `None` where there is none.
    pub scaled_cols: Option<usize>,
    /// Some of those are packed besides, and are expanded to codes first.
    pub scaled_packed: bool,
    /// Some matrix is packed.
    pub packed: bool,
}

/// The device's own share of memory, besides buffers, weights and the KV cache, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// However large a sweep is.
    pub fixed_bytes: u64,
    /// For each row that a sweep may have.
    pub row_bytes: u64,
    /// For each position of the KV cache.
    pub position_bytes: u64,
    /// For each of the first [`first_positions`](Self::first_positions) besides.
    pub first_position_bytes: u64,
    /// How many positions of the KV cache take more than others.
    pub first_positions: usize,
}

impl Footprint {
    /// All of it, for sweeps of up to `rows` rows and a KV cache of `positions` positions.
    pub fn total_bytes(&self, rows: usize, positions: usize) -> u64 {
        let of = |each: u64, count: usize| each.saturating_mul(count as u64);
        let first = of(self.first_position_bytes, positions.min(self.first_positions));
        let variable = of(self.row_bytes, rows).saturating_add(of(self.position_bytes, positions));
        self.fixed_bytes.saturating_add(first).saturating_add(variable)
    }
}

/// What a device has allocated, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Buffers.
    pub buffers_bytes: u64,
    /// Weight tiles that stay; those that pass through belong to whoever read them.
    pub weights_bytes: u64,
    /// The KV cache.
    pub kv_bytes: u64,
    /// Everything else that a [`Footprint`] speaks of.
    pub scratch_bytes: u64,
}

/// How the codes of a matrix become weights, with numbers that are on the device: one for each block of the matrix, rows and
/// columns counted as they are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// How elements are stored as codes, and what is done to them after they are scaled.
    pub quantised: Quantised,
    /// The scales of the whole matrix, `[ceil(rows / block_rows), ceil(cols / block_cols)]`.
    pub scales: Mat,
    /// Zero points, of the shape of `scales`; `None`: zero is where the code has it.
    pub zeros: Option<Mat>,
    /// `[1, inputs]`: in place of blocks, which row of scales (of a matrix stored by inputs) or which column is an input's;
    /// below their number, as [`Backend::expand_numbers`](crate::Backend::expand_numbers) checks. Blocks then have one output.
    pub groups: Option<Mat>,
    /// Stored rows of a block that shares a scale; at least 1.
    pub block_rows: usize,
    /// Columns of a block that shares a scale; at least 1.
    pub block_cols: usize,
    /// Which row of the matrix a tile begins with.
    pub first_row: usize,
}

/// What scales are made of that are codes themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nested {
    /// `[1, 256]`: what each byte stands for.
    pub values: Mat,
    /// `[1, n]`: one for each run of `len` scales.
    pub scales: Mat,
    /// How many scales share one element of `Nested::scales`; at least 1.
    pub len: usize,
    /// The number of the first scale of a tile in its tensor.
    pub first: usize,
    /// Added to every scale once it is multiplied out.
    pub offset: f32,
}

/// The KV cache: for each layer `pages × page_tokens` slots of one key row and one value row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// How keys are stored.
    pub keys: KvElement,
    /// How values are stored.
    pub values: KvElement,
    /// Key width of each layer: KV heads × key head size.
    pub key_widths: Vec<usize>,
    /// Value width of each layer: KV heads × value head size.
    pub value_widths: Vec<usize>,
    /// KV heads of each layer.
    pub heads: Vec<usize>,
    /// Positions in a page.
    pub page_tokens: usize,
    /// Number of pages; a page index is valid for every layer.
    pub pages: usize,
}

impl KvLayout {
    /// What one position takes in all layers, in bytes.
    pub fn token_bytes(&self) -> usize {
        let layers = self.heads.iter().zip(self.key_widths.iter().zip(&self.value_widths));
        let bytes = |of: KvElement, width: usize, heads: usize| heads * of.row_bytes(width / heads.max(1));
        layers.map(|(&heads, (&k, &v))| bytes(self.keys, k, heads) + bytes(self.values, v, heads)).sum()
    }
}

/// Where a row stands: its position in its sequence, and where its sequence's page table starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPlace {
    /// Position in the sequence, from 0.
    pub position: u32,
    /// The last position that the row sees where attention looks both ways ([`Attention::ahead`]); at least its own. Without a
    /// branch only.
    pub last: u32,
    /// Index into [`Placement::pages`] of the sequence's first page.
    pub table: u32,
    /// Where the sequence's end lies that the row has for itself; `None`: all of it lies in pages.
    pub branch: Option<Branch>,
}

/// The end of a row's sequence where it lies in slots instead of pages. Rows of one table with branches see what is before
/// them together and what follows apart: as many continuations of one sequence as there are branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The first position that lies in a slot.
    pub from: u32,
    /// Index into [`Placement::slots`] of that position's slot; those up to the row's own follow.
    pub slots: u32,
}

impl RowPlace {
    /// A row whose sequence lies in pages, and which sees none after its own.
    pub fn new(position: u32, table: u32) -> Self {
        Self { position, last: position, table, branch: None }
    }
}

/// Where the rows of a sweep stand, and whose recurrent states they change.
#[derive(Clone, Copy, Debug)]
pub struct SweepRows<'a> {
    /// One place for each row, and the page tables that they point into.
    pub places: Placement<'a>,
    /// One for each row; none at all where the model has no recurrent states. Rows of one sequence follow each other, by
    /// ascending position, and from sweep to sweep none is left out.
    pub states: &'a [StateRow],
}

/// The places of all rows of a sweep. Position `p` of a row's sequence lives in slot
/// `pages[table + p / page_tokens] * page_tokens + p % page_tokens`; from [`Branch::from`] on, where the row has a branch,
/// in slot `slots[branch.slots + p - branch.from]`.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// The place of each row.
    pub rows: &'a [RowPlace],
    /// The page tables of all sequences, end to end.
    pub pages: &'a [u32],
    /// The slots of all branches; branches may share some.
    pub slots: &'a [u32],
}

/// Shape and rules of one attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`. Query head `h` uses KV head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Size of a query and key head.
    pub key_dim: usize,
    /// Size of a value head.
    pub value_dim: usize,
    /// A value is the first `value_dim` elements of its key; the cache's values are something else.
    pub values_in_keys: bool,
    /// Products of queries and keys are multiplied by this.
    pub scale: f32,
    /// Scores `s` become `cap * tanh(s / cap)` after scaling.
    pub softcap: Option<f32>,
    /// The positions that a row sees; `None`: all up to its own.
    pub window: Option<Window>,
    /// A row also sees what follows it, up to [`RowPlace::last`].
    pub ahead: bool,
    /// Scores fall off with distance: [`numerics::alibi`](crate::numerics::alibi) is added at the end.
    pub alibi: Option<Alibi>,
}

/// What takes part in the scores of an attention beside queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extras<M> {
    /// `[1, heads]`: a score of each head that takes part in the softmax, and has no value.
    pub sinks: Option<M>,
    /// `[heads, 2 * reach + 1]`: what is added to the scores of each head by distance, after all else;
    /// [`numerics::bias_place`](crate::numerics::bias_place) says where.
    pub biases: Option<M>,
}

impl<M> Extras<M> {
    /// Nothing does.
    pub const NONE: Self = Self { sinks: None, biases: None };
}

/// Columns that are copied from head to head: from each head of a matrix `len` columns, to each head of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadCopy {
    /// Columns of a head of the matrix that is read.
    pub from_dim: usize,
    /// The first column of such a head that is copied.
    pub from_start: usize,
    /// Columns of a head of the matrix that is written.
    pub to_dim: usize,
    /// Where in such a head they go.
    pub to_start: usize,
    /// Columns that are copied of each head.
    pub len: usize,
}

/// Shape of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rope {
    /// Size of a head; the matrix holds a whole number of heads.
    pub head_dim: usize,
    /// Where in a head the rotated elements begin.
    pub start: usize,
    /// So many elements are rotated; even, within the head.
    pub rotary: usize,
    /// Which elements of a head are rotated together.
    pub style: RopeStyle,
}

/// Shape and rules of a choice of positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Index {
    /// Query heads, which share one key.
    pub heads: usize,
    /// Size of a head.
    pub dim: usize,
    /// Products of queries and keys are multiplied by this.
    pub scale: f32,
}

/// Whose recurrent state a row changes: that of the sequence it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRow {
    /// Where the state lies, among those of all sequences.
    pub slot: u32,
    /// Position of the row in its sequence, from 0.
    pub position: u32,
}

/// Shape of a delta rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaRule {
    /// Heads of queries and keys; divides `value_heads`. Value head `h` uses key head `h / (value_heads / key_heads)`, or
    /// where they are `tiled`, `h % key_heads`.
    pub key_heads: usize,
    /// Heads of values.
    pub value_heads: usize,
    /// Size of a query and key head.
    pub key_dim: usize,
    /// Size of a value head.
    pub value_dim: usize,
    /// Strengths and decays lie in turns: the strengths of so many heads, then their decays. Divides `value_heads`.
    pub run: usize,
    /// Value heads of different key heads take turns.
    pub tiled: bool,
    /// Each row of a head's state has a decay of its own, which is given as it is: behind the strengths of all heads lie
    /// `key_dim` decays for each. `run` counts nothing then.
    pub each: bool,
}

/// Shape of a selective scan of a state space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateScan {
    /// Heads, each with a state of its own.
    pub heads: usize,
    /// Size of a head's input and output.
    pub head_dim: usize,
    /// Groups of heads that share what they write and what they read; divides `heads`, and head `h` is of group `h / (heads /
    /// groups)`.
    pub groups: usize,
    /// Rows of a head's state.
    pub state_dim: usize,
    /// The least time step, and the largest.
    pub steps: (f32, f32),
    /// Each element of a head's input has a time step of its own, which is given as it is, and each element of its state a rate
    /// of its own.
    pub each: bool,
}

/// What a device can do.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Its kind, such as "reference" or "cpu".
    pub device: &'static str,
    /// The instruction set or adapter in use, for people.
    pub detail: String,
    /// Formats in which weights may be given.
    pub weights: &'static [DType],
    /// Formats of the KV cache.
    pub kv: &'static [KvType],
    /// Worker threads; 1 where that has no meaning.
    pub threads: usize,
}
