//! The trait that every device implements.

use crate::quantised::Numbers;
use crate::{
    Activation, Allocated, Attention, BufferId, Capabilities, DeltaRule, DeviceCounters, DeviceMemory, Error,
    Extras, Footprint, HeadCopy, Home, HostBytes, Index, KvLayout, Mat, Nested, Rope, Scaling, ScratchNeed,
    StateScan, SweepRows, Tile, TileShape, UploadId, Weight, WeightId,
};

/// A device. All matrices are f32. Shapes are checked: operands that do not fit give an error and change nothing.
/// Unless an op says otherwise its output may not overlap its inputs.
pub trait Backend: Send {
    /// What this device can do.
    fn capabilities(&self) -> Capabilities;

    /// The most that this device takes besides buffers, weights and the KV cache: what [`reserve`](Self::reserve),
    /// [`kv_allocate`](Self::kv_allocate) and later ops allocate for matrices of these kinds. Page tables are counted for
    /// sequences that share no pages.
    fn footprint(&self, need: &ScratchNeed) -> Footprint;

    /// The memory of a device that has some of its own; [`reserve_tiles`](Self::reserve_tiles) allocates its slots. `None`: it
    /// computes in the host's.
    fn device_memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// What such a device was asked for so far.
    fn counters(&self) -> Option<DeviceCounters> {
        None
    }

    /// Allocates room for tiles of up to `bytes_max` bytes to pass through. Called at open.
    fn reserve_tiles(&mut self, _bytes_max: u64) -> Result<(), Error> {
        Ok(())
    }

    /// Allocates what ops need for matrices of these kinds and sweeps of up to `rows_max` rows. Called at open; what is called
    /// again is not less than before.
    fn reserve(&mut self, need: &ScratchNeed, rows_max: usize) -> Result<(), Error>;

    /// What this device has allocated by now.
    fn allocated(&self) -> Allocated;

    /// A zeroed buffer of `len` f32 values; lives as long as the backend. Called at open only.
    fn allocate(&mut self, len: usize) -> Result<BufferId, Error>;

    /// Allocates the KV cache. Called once, at open.
    fn kv_allocate(&mut self, layout: &KvLayout) -> Result<(), Error>;

    /// Takes a weight tile that passes through. The device keeps `bytes` for as long as it needs them, at most until
    /// [`release`](Self::release). A device with memory of its own waits here while all of its slots are full.
    ///
    /// Packed tiles are looked at when they are multiplied: their checksums are checked before what they are multiplied to is
    /// given out.
    ///
    /// # Errors
    /// `Shape`: the bytes are not those of the shape.
    fn upload(&mut self, shape: TileShape, bytes: HostBytes) -> Result<UploadId, Error>;

    /// Ends the life of a tile after its last use. Its bytes are dropped.
    ///
    /// # Panics
    /// In debug builds, if there is no such tile, or no longer; else nothing happens.
    fn release(&mut self, upload: UploadId);

    /// Forgets all tiles that were passing through: the sweep was not finished.
    fn release_all(&mut self);

    /// Forgets all buffers, weights, rows and the KV cache, as if the device were new: their ids mean nothing any more.
    /// Scratch may stay.
    fn reset(&mut self);

    /// Keeps a tile, in a computable format or for [`matmul_scaled`](Self::matmul_scaled); `bytes` are dropped. Checksums of
    /// packed tiles are checked now and not again. Called at open only.
    ///
    /// # Errors
    /// `Unsupported`: the home is the disk. `Corrupt`: a checksum does not fit. `Shape`: the bytes are not those of the shape.
    fn pin(&mut self, shape: TileShape, bytes: HostBytes, home: Home) -> Result<WeightId, Error>;

    /// Host to device: `data` holds `dst.rows * dst.cols` values, row-major.
    fn write(&mut self, dst: Mat, data: &[f32]) -> Result<(), Error>;

    /// Device to host, waiting for all ops before it. `src` must be dense (`stride == cols`).
    fn read(&mut self, src: Mat) -> Result<&[f32], Error>;

    /// Where the rows of a sweep stand, for all ops until the next call that touch the KV cache or recurrent states: row `r`
    /// of their matrices is row `r` here. The page of a row's own position exists.
    ///
    /// # Errors
    /// `Shape`: a place is not in the tables or the cache, or states are not in order; then what was set before stays.
    fn set_rows(&mut self, rows: SweepRows<'_>) -> Result<(), Error>;

    /// `y[r, n] = Σ_k w[n, k] · x[r, k]`, each sum in canonical order ([`numerics::dot`](crate::numerics::dot)).
    fn matmul(&mut self, w: Weight, x: Mat, y: Mat) -> Result<(), Error>;

    /// [`matmul`](Self::matmul) from codes whose scales lie apart: the weights are what
    /// [`quantised::expand`](crate::quantised::expand) gives. `w` is codes of `x.cols` inputs in each row, in any type of the
    /// right length: bytes in `U8`, words in `I32`.
    fn matmul_scaled(&mut self, w: Weight, scaling: &Scaling, x: Mat, y: Mat) -> Result<(), Error>;

    /// [`matmul`](Self::matmul) from a matrix that is stored `[K, N]`, by tiles of its rows: `w` is its rows
    /// `k0 .. k0 + w.rows`, of `y.cols` outputs. `x` is `[rows, K]`; its columns `k0 .. k0 + w.rows` are used.
    ///
    /// Tiles of one matrix follow each other from `k0 = 0` on. Partial sums ([`numerics::accumulate`](crate::numerics::accumulate))
    /// wait in the device, in what [`reserve`](Self::reserve) allocated; at `k0 = 0` what was there is forgotten. With the
    /// `last` tile they are added up into `y`: the bits that [`matmul`](Self::matmul) gives for the transposed matrix. Before,
    /// `y` stays as it is.
    fn matmul_k_major(&mut self, w: Weight, x: Mat, y: Mat, k0: usize, last: bool) -> Result<(), Error>;

    /// [`matmul_k_major`](Self::matmul_k_major) from codes whose scales lie apart: the tile holds inputs `k0 ..`, and its first
    /// one is row `scaling.first_row` of the matrix whose blocks are scaled. Its rows are whole runs ([`Code::run`]).
    ///
    /// [`Code::run`]: crate::quantised::Code::run
    fn matmul_scaled_k_major(
        &mut self,
        w: Weight,
        scaling: &Scaling,
        x: Mat,
        y: Mat,
        k0: usize,
        last: bool,
    ) -> Result<(), Error>;

    /// Expands a tile of what lies beside codes. `out` has a row for each of the tile's, or where several share a row of words
    /// ([`Numbers::Points`] of columns) at most as many as they hold.
    ///
    /// # Errors
    /// `Corrupt` for an index that is too large; `Shape` where the tile does not hold `out`.
    fn expand_numbers(
        &mut self,
        w: Weight,
        numbers: Numbers,
        nested: Option<Nested>,
        out: Mat,
    ) -> Result<(), Error>;

    /// `out[i, :] = table[rows[i], :]` of a table in host memory, as [`formats::expand`](crate::formats::expand) expands it:
    /// embedding rows as they were gathered from disk, small tensors.
    fn expand_rows(&mut self, table: Tile<'_>, rows: &[u32], out: Mat) -> Result<(), Error>;

    /// `out[i, :]` is row `rows[i].1` of the resident tile `rows[i].0`, plain or packed: embedding rows where the embedding is
    /// the pinned head.
    fn gather_weights(&mut self, rows: &[(WeightId, u32)], out: Mat) -> Result<(), Error>;

    /// `out[0, i]` is the reciprocal of the norm of row `i` of `w`: [`numerics::inverse_norm`](crate::numerics::inverse_norm).
    /// `out` is `[1, w.rows]`.
    fn row_norms(&mut self, w: Weight, out: Mat) -> Result<(), Error>;

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

    /// `x[r, c] *= factors[r, 0]`.
    fn mul_rows(&mut self, x: Mat, factors: Mat) -> Result<(), Error>;

    /// Rotates the heads of each row in place; row `r` of `angles` is `rotary / 2` cosines, then as many sines.
    fn rope(&mut self, x: Mat, rope: Rope, angles: Mat) -> Result<(), Error>;

    /// Copies columns from each head of `x`, of `copy.from_dim` columns, to the same head of `out`, of `copy.to_dim`. Both
    /// have as many heads; the other columns of `out` stay.
    fn copy_heads(&mut self, x: Mat, copy: &HeadCopy, out: Mat) -> Result<(), Error>;

    /// Stores the key and value of every row at its place in `layer`'s cache.
    fn kv_write(&mut self, layer: usize, k: Mat, v: Mat) -> Result<(), Error>;

    /// Gives the bytes that a page of the cache holds to `take`, layer by layer, keys before values, to be kept elsewhere:
    /// always in the same pieces, and of the same sense on this device alone.
    fn kv_save(&mut self, page: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), Error>;

    /// Has `fill` write the bytes of a page of the cache, in the pieces in which [`kv_save`](Self::kv_save) gives them.
    fn kv_load(&mut self, page: u32, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), Error>;

    /// Copies keys and values of all layers from slots of the cache to others, `(from, to)`, one after the other.
    fn kv_copy(&mut self, slots: &[(u32, u32)]) -> Result<(), Error>;

    /// Attention of every row over its own sequence in `layer`'s cache, its own position included, and those after it where
    /// [`Attention::ahead`] says so: [`numerics::attend`](crate::numerics::attend). `q` is `[rows, heads * key_dim]`, `out` `[rows,
    /// heads * value_dim]`.
    fn attention(
        &mut self,
        layer: usize,
        q: Mat,
        out: Mat,
        shape: &Attention,
        extras: Extras<Mat>,
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
    ) -> Result<(), Error>;

    /// A causal convolution of each column with the last positions of its sequence, in place, and if asked SiLU of what it gives
    /// ([`delta::convolve`](crate::delta::convolve)). Row `i` of `weights` is for the position that lies
    /// `weights.rows - 1 - i` before; `bias` has one row. Row `s` of `state` keeps the inputs of the last `weights.rows - 1`
    /// positions of the sequence in slot `s`, oldest first; before position 0 they are zero, whatever it holds.
    fn short_conv(
        &mut self,
        x: Mat,
        weights: Mat,
        bias: Option<Mat>,
        silu: bool,
        state: Mat,
    ) -> Result<(), Error>;

    /// The gated delta rule, position by position ([`delta::step`](crate::delta::step)). A row of `x` has the queries of all
    /// key heads, their keys, and the values of all value heads; one of `strengths` the arguments of
    /// [`delta::strengths`](crate::delta::strengths) as `rule` says; `parameters` has a row of rates and one of biases, one
    /// for each value head, and counts nothing where decays are given as they are. Row `s` of `state` is `[value_heads, key_dim, value_dim]` of the sequence in slot `s`; it is zero
    /// before position 0, whatever it holds.
    fn delta_rule(
        &mut self,
        x: Mat,
        strengths: Mat,
        parameters: Mat,
        state: Mat,
        out: Mat,
        rule: &DeltaRule,
    ) -> Result<(), Error>;

    /// The selective scan of a state space, position by position ([`scan::step`](crate::scan::step)). A row of `x` has the inputs of
    /// all heads, then what each group writes with, then what each reads with; one of `steps` the arguments of
    /// [`scan::time_step`](crate::scan::time_step), one for each head; `parameters` has a row of rates, one of biases of steps and
    /// one of skips. Of a scan of which [`StateScan::each`] is set, `steps` has a time step for each element of all heads, and
    /// `parameters` for each of those a row of rates for each row of a state, and one of skips. Row `s` of `state` is `[heads, state_dim, head_dim]` of the sequence in slot `s`; it is zero before position
    /// 0, whatever it holds. `out` is `[rows, heads * head_dim]`.
    fn state_scan(
        &mut self,
        x: Mat,
        steps: Mat,
        parameters: Mat,
        state: Mat,
        out: Mat,
        scan: &StateScan,
    ) -> Result<(), Error>;

    /// `out = activation(gate) * up`, element by element. `out` may be `gate` or `up`.
    fn glu(&mut self, gate: Mat, up: Mat, activation: Activation, out: Mat) -> Result<(), Error>;

    /// `x = activation(x)`.
    fn activate(&mut self, x: Mat, activation: Activation) -> Result<(), Error>;

    /// `x += y`.
    fn add(&mut self, x: Mat, y: Mat) -> Result<(), Error>;

    /// `x *= y`, element by element.
    fn mul(&mut self, x: Mat, y: Mat) -> Result<(), Error>;

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

    /// `x = 0`.
    fn clear(&mut self, x: Mat) -> Result<(), Error>;
}
