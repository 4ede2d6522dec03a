//! The trait, its handles and its operands.

use aerostat_checkpoint::DType;
pub use aerostat_types::{Activation, Alibi, KvType, RopeStyle, Window};

use crate::Error;
use crate::coded::{Coding, Numbers};

/// A buffer of f32 values on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub u32);

/// A weight tile that stays on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightId(pub u32);

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

/// The bytes of some rows of a weight matrix, `[rows, cols]` row-major in the stored format, at any byte alignment.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// The stored format.
    pub dtype: DType,
    /// Rows (outputs) in this tile.
    pub rows: usize,
    /// Columns (inputs); a multiple of the format's block length.
    pub cols: usize,
    /// Exactly `dtype.bytes_for(rows * cols)` bytes.
    pub bytes: &'a [u8],
}

/// A weight operand: bytes that are passing through, or a resident tile.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// Bytes in host memory, valid during the call.
    Streamed(Tile<'a>),
    /// The same, as [packed tiles](crate::packed) end to end; the tile's format and shape are what they expand to.
    /// Their checksums are checked before what they are multiplied to is given out.
    Packed(Tile<'a>),
    /// What [`Backend::pin`] returned.
    Pinned(WeightId),
}

/// How the codes of a matrix become weights, with numbers that are on the device: one for each block of the matrix, rows and
/// columns counted as they are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// How elements are coded.
    pub coding: Coding,
    /// The scales of the whole matrix, `[ceil(rows / block_rows), ceil(cols / block_cols)]`.
    pub scales: Mat,
    /// As many zero points; `None`: zero is where the code has it.
    pub zeros: Option<Mat>,
    /// `[1, inputs]`: in place of blocks, which row of scales (of a matrix stored by inputs) or which column is an input's;
    /// below their number, as [`Backend::expand_numbers`] checks. Blocks then have one output.
    pub groups: Option<Mat>,
    /// Rows of a block; at least 1.
    pub block_rows: usize,
    /// Columns of a block; at least 1.
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
    /// Scales that share one of those; at least 1.
    pub len: usize,
    /// The number of the first scale of a tile in its tensor.
    pub first: usize,
    /// Added at the end.
    pub offset: f32,
}

/// The KV cache: for each layer `pages × page_tokens` slots of one key row and one value row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Element type.
    pub kv_type: KvType,
    /// Key width of each layer: KV heads × key head size.
    pub key_widths: Vec<usize>,
    /// Value width of each layer: KV heads × value head size.
    pub value_widths: Vec<usize>,
    /// KV heads of each layer.
    pub heads: Vec<usize>,
    /// Positions in a page.
    pub page_tokens: usize,
    /// Pages; a page index is valid for every layer.
    pub pages: usize,
}

impl KvLayout {
    /// What one token takes, in bytes.
    pub fn token_bytes(&self) -> usize {
        let layers = self.heads.iter().zip(self.key_widths.iter().zip(&self.value_widths));
        let bytes = |width: usize, heads: usize| heads * self.kv_type.row_bytes(width / heads.max(1));
        layers.map(|(&heads, (&k, &v))| bytes(k, heads) + bytes(v, heads)).sum()
    }
}

/// Where a row stands: its position in its sequence, and where its sequence's page table starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPlace {
    /// Position in the sequence, from 0.
    pub position: u32,
    /// Index into [`Placement::pages`] of the sequence's first page.
    pub table: u32,
}

/// The places of all rows of a sweep. Position `p` of a row's sequence lives in slot
/// `pages[table + p / page_tokens] * page_tokens + p % page_tokens`.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// One per row.
    pub rows: &'a [RowPlace],
    /// The page tables of all sequences, end to end.
    pub pages: &'a [u32],
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
    /// Scores are multiplied by this.
    pub scale: f32,
    /// Scores `s` become `cap * tanh(s / cap)` after scaling.
    pub softcap: Option<f32>,
    /// The positions that a row sees; `None`: all up to its own.
    pub window: Option<Window>,
    /// Scores fall off with distance: [`numerics::alibi`](crate::numerics::alibi) is added at the end.
    pub alibi: Option<Alibi>,
    /// `[1, heads]`: a score of each head that takes part in the softmax, and has no value.
    pub sinks: Option<Mat>,
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
    /// Which elements form a pair.
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
    /// Strengths and decays take turns: those of so many heads. Divides `value_heads`.
    pub run: usize,
    /// Value heads of different key heads take turns.
    pub tiled: bool,
}

/// What a device can do.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// "reference", "cpu", "gpu".
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

/// A device. All matrices are f32. Shapes are checked: operands that do not fit give an error and change nothing.
/// Unless an op says otherwise its output may not overlap its inputs.
pub trait Backend: Send {
    /// What this device can do.
    fn capabilities(&self) -> Capabilities;

    /// A zeroed buffer of `len` f32 values; lives as long as the backend. Called at open only.
    fn allocate(&mut self, len: usize) -> Result<BufferId, Error>;

    /// Keeps a copy of a tile on the device, in a computable format or for [`matmul_scaled`](Self::matmul_scaled). Called at
    /// open only.
    fn pin(&mut self, tile: Tile<'_>) -> Result<WeightId, Error>;

    /// The same of [`Weight::Packed`]: checksums are checked now and not again.
    fn pin_packed(&mut self, tile: Tile<'_>) -> Result<WeightId, Error>;

    /// Allocates the KV cache. Called once, at open.
    fn kv_allocate(&mut self, layout: &KvLayout) -> Result<(), Error>;

    /// Host to device: `data` holds `dst.rows * dst.cols` values, row-major.
    fn write(&mut self, dst: Mat, data: &[f32]) -> Result<(), Error>;

    /// Device to host, waiting for all ops before it. `src` must be dense (`stride == cols`).
    fn read(&mut self, src: Mat) -> Result<&[f32], Error>;

    /// Expands the rows `rows` of a weight tile to f32: `out[i, :] = w[rows[i], :]`.
    fn expand_rows(&mut self, w: Weight<'_>, rows: &[u32], out: Mat) -> Result<(), Error>;

    /// `y[r, n] = Σ_k w[n, k] · x[r, k]`, each sum in canonical order ([`numerics::dot`](crate::numerics::dot)).
    fn matmul(&mut self, w: Weight<'_>, x: Mat, y: Mat) -> Result<(), Error>;

    /// Allocates the scratch that [`matmul_scaled`](Self::matmul_scaled) takes with up to `cols` inputs. Called at open only.
    fn scaled_reserve(&mut self, cols: usize) -> Result<(), Error>;

    /// The same product from codes whose scales lie apart: the weights are what [`coded::expand`](crate::coded::expand) gives.
    /// `w` is codes of `x.cols` inputs in each row, in any type of the right length: bytes in `U8`, words in `I32`.
    fn matmul_scaled(&mut self, w: Weight<'_>, scaling: &Scaling, x: Mat, y: Mat) -> Result<(), Error>;

    /// [`matmul_k_major`](Self::matmul_k_major) from such codes: the tile holds inputs `k0 ..`, and its first one is row
    /// `scaling.first_row` of the matrix whose blocks are scaled. Its rows are whole runs ([`Code::run`]).
    ///
    /// [`Code::run`]: crate::coded::Code::run
    fn matmul_scaled_k_major(
        &mut self,
        w: Weight<'_>,
        scaling: &Scaling,
        x: Mat,
        lanes: Mat,
        k0: usize,
    ) -> Result<(), Error>;

    /// Expands a tile of what lies beside codes. `out` has a row for each of the tile's, or where several share a row of words
    /// ([`Numbers::Points`] of columns) at most as many as they hold.
    ///
    /// # Errors
    /// `Corrupt` for an index that is too large; `Shape` where the tile does not hold `out`.
    fn expand_numbers(
        &mut self,
        w: Weight<'_>,
        numbers: Numbers,
        nested: Option<Nested>,
        out: Mat,
    ) -> Result<(), Error>;

    /// The same product from a matrix that is stored `[K, N]`, by tiles of its rows: `w` is its rows `k0 .. k0 + w.rows`,
    /// of `w.cols` outputs. `x` is `[rows, K]`; its columns `k0 .. k0 + w.rows` are used. Running sums
    /// are in `lanes`, `[rows, 16 * w.cols]`: lane `k % 16` of output `n` is column `k % 16 * w.cols + n`
    /// ([`numerics::accumulate`](crate::numerics::accumulate)).
    ///
    /// Tiles follow each other in ascending `k0`; at `k0 = 0` what was in `lanes` is forgotten. After the last one
    /// [`sum_lanes`](Self::sum_lanes) gives the bits that [`matmul`](Self::matmul) gives for the transposed matrix.
    fn matmul_k_major(&mut self, w: Weight<'_>, x: Mat, lanes: Mat, k0: usize) -> Result<(), Error>;

    /// `y[r, n]` is the sum of the lanes `l * y.cols + n` of row `r`, in canonical order
    /// ([`numerics::reduce`](crate::numerics::reduce)).
    fn sum_lanes(&mut self, lanes: Mat, y: Mat) -> Result<(), Error>;

    /// `x[r, c] += bias[0, c]`.
    fn add_bias(&mut self, x: Mat, bias: Mat) -> Result<(), Error>;

    /// Divides each group of `weight.cols` columns by its root mean square and multiplies by `weight` (one row):
    /// [`numerics::rms_norm`](crate::numerics::rms_norm). `out` may be `x`.
    fn rms_norm(&mut self, x: Mat, weight: Mat, eps: f32, out: Mat) -> Result<(), Error>;

    /// Takes from each group of `size` columns its mean and divides by its standard deviation:
    /// [`numerics::layer_norm`](crate::numerics::layer_norm). `out` may be `x`. Weights and bias are ops of their own.
    fn layer_norm(&mut self, x: Mat, size: usize, eps: f32, out: Mat) -> Result<(), Error>;

    /// `x[r, c] *= factors[0, c]`.
    fn mul_columns(&mut self, x: Mat, factors: Mat) -> Result<(), Error>;

    /// Rotates the heads of each row in place; row `r` of `angles` is `rotary / 2` cosines, then as many sines.
    fn rope(&mut self, x: Mat, rope: Rope, angles: Mat) -> Result<(), Error>;

    /// Stores the key and value of every row at its place in `layer`'s cache.
    fn kv_write(&mut self, layer: usize, k: Mat, v: Mat, places: Placement<'_>) -> Result<(), Error>;

    /// Gives the bytes that a page of the cache holds to `visit`, layer by layer, keys before values, to be kept elsewhere
    /// or overwritten with what was kept: always in the same pieces, and of the same sense on this device alone.
    fn kv_page(&mut self, page: u32, visit: &mut dyn FnMut(&mut [u8])) -> Result<(), Error>;

    /// Causal attention of every row over its own sequence in `layer`'s cache, its own position included:
    /// [`numerics::attend`](crate::numerics::attend). `q` is `[rows, heads * key_dim]`, `out` `[rows, heads * value_dim]`.
    fn attention(
        &mut self,
        layer: usize,
        q: Mat,
        out: Mat,
        shape: &Attention,
        places: Placement<'_>,
    ) -> Result<(), Error>;

    /// The positions that each row's attention is to see: the `out.cols` best of its own and those before, by ascending
    /// position, then -1 where there are fewer. How good a position is says [`numerics::index_score`](crate::numerics::index_score)
    /// of the row's queries `[rows, heads * dim]` and `weights` `[rows, heads]`, and of what `layer`'s cache holds as that
    /// position's value.
    fn select_positions(
        &mut self,
        layer: usize,
        q: Mat,
        weights: Mat,
        out: Mat,
        index: &Index,
        places: Placement<'_>,
    ) -> Result<(), Error>;

    /// [`Backend::attention`] over the positions in each row of `selected`, as [`Backend::select_positions`] gave them;
    /// with neither window nor linear biases.
    fn sparse_attention(
        &mut self,
        layer: usize,
        q: Mat,
        out: Mat,
        shape: &Attention,
        selected: Mat,
        places: Placement<'_>,
    ) -> Result<(), Error>;

    /// A causal convolution of each column with the last positions of its sequence, in place, and SiLU of what it gives
    /// ([`delta::convolve`](crate::delta::convolve)). Row `i` of `weights` is for the position that lies
    /// `weights.rows - 1 - i` before. Row `s` of `state` keeps the inputs of the last `weights.rows - 1` positions of the
    /// sequence in slot `s`, oldest first; before position 0 they are zero, whatever it holds.
    ///
    /// Rows of one sequence follow each other, by ascending position, and from sweep to sweep none is left out.
    fn short_conv(&mut self, x: Mat, weights: Mat, state: Mat, rows: &[StateRow]) -> Result<(), Error>;

    /// The gated delta rule, position by position ([`delta::step`](crate::delta::step)). A row of `x` has the queries of all
    /// key heads, their keys, and the values of all value heads; one of `strengths` the arguments of
    /// [`delta::strengths`](crate::delta::strengths) as `rule` says; `parameters` has a row of rates and one of biases, one
    /// for each value head. Row `s` of `state` is `[value_heads, key_dim, value_dim]` of the sequence in slot `s`; it is zero
    /// before position 0, whatever it holds. Rows as in [`short_conv`](Self::short_conv).
    #[allow(clippy::too_many_arguments, reason = "operands of one op")]
    fn delta_rule(
        &mut self,
        x: Mat,
        strengths: Mat,
        parameters: Mat,
        state: Mat,
        out: Mat,
        rule: &DeltaRule,
        rows: &[StateRow],
    ) -> Result<(), Error>;

    /// `out = activation(gate) * up`, element by element. `out` may be `gate` or `up`.
    fn glu(&mut self, gate: Mat, up: Mat, activation: Activation, out: Mat) -> Result<(), Error>;

    /// `x = activation(x)`.
    fn activate(&mut self, x: Mat, activation: Activation) -> Result<(), Error>;

    /// `x += y`.
    fn add(&mut self, x: Mat, y: Mat) -> Result<(), Error>;

    /// `x *= factor`.
    fn scale(&mut self, x: Mat, factor: f32) -> Result<(), Error>;

    /// `x = cap * tanh(x / cap)`.
    fn softcap(&mut self, x: Mat, cap: f32) -> Result<(), Error>;

    /// `x = min(max(x, -limit), limit)`; NaN stays.
    fn clip(&mut self, x: Mat, limit: f32) -> Result<(), Error>;

    /// `out[i, :] = x[rows[i], :]`.
    fn gather_rows(&mut self, x: Mat, rows: &[u32], out: Mat) -> Result<(), Error>;

    /// `out[r, c] = x[r, first + c * step]`.
    fn take_columns(&mut self, x: Mat, first: usize, step: usize, out: Mat) -> Result<(), Error>;

    /// `out[rows[i], :] += factors[i] * x[i, :]`, by ascending `i`; the product is rounded, then the sum.
    fn scatter_rows(&mut self, x: Mat, rows: &[u32], factors: &[f32], out: Mat) -> Result<(), Error>;

    /// `x[r, :] *= factors[r]`.
    fn scale_rows(&mut self, x: Mat, factors: &[f32]) -> Result<(), Error>;

    /// `x = 0`.
    fn clear(&mut self, x: Mat) -> Result<(), Error>;
}
