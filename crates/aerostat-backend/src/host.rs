//! What devices on the host share: operands are checked, resolved to views and handed to kernels.

use crate::coded::{Coding, Numbers};
use crate::delta::{self, StateRun};
use crate::numerics::{LANES, Map};
use crate::{
    Activation, Attention, Backend, BufferId, Capabilities, DeltaRule, Error, HostMemory, Index, KvLayout,
    KvView, Mat, Nested, Placement, Rope, Scaling, StateRow, Tile, View, Weight, WeightId, Window, check,
    formats, memory, numbers, packed, sparse,
};

/// Elements that [`Backend::expand_rows`] expands at a time: a whole number of blocks of every format.
const EXPAND_LEN: usize = 256;

/// The ops that differ between host devices. All operands have been checked: shapes fit, outputs are apart from
/// inputs (or the same where the op allows it), pages exist, tiles have their bytes. Kernels may lean on that for
/// memory safety, so nobody else may call them: a device keeps them private but for [`HostDevice::parts`].
pub trait Kernels: Send {
    /// What this device can do.
    fn capabilities(&self) -> Capabilities;

    /// Allocates what attention over up to `positions` positions needs. Called at open only.
    fn reserve_positions(&mut self, positions: usize) -> Result<(), Error>;

    /// Told of each large allocation before it is touched, from its start: a device may ask for huge pages there.
    fn advise(&self, _start: *const u8, _bytes: usize) {}

    /// [`Backend::matmul`]; fails only where the format is not one that the device can do.
    fn matmul(&mut self, w: Tile<'_>, x: View<'_>, y: View<'_>) -> Result<(), Error>;

    /// [`Backend::scaled_reserve`].
    fn scaled_reserve(&mut self, _cols: usize) -> Result<(), Error> {
        Ok(())
    }

    /// [`Backend::matmul_scaled`]; fails only for want of scratch.
    fn matmul_scaled(
        &mut self,
        w: Tile<'_>,
        scaling: ScalingView<'_>,
        x: View<'_>,
        y: View<'_>,
    ) -> Result<(), Error>;

    /// [`Backend::matmul_scaled_k_major`] of a tile of `rows` inputs; fails only for want of scratch.
    fn matmul_scaled_k_major(
        &mut self,
        w: Tile<'_>,
        rows: usize,
        scaling: ScalingView<'_>,
        x: View<'_>,
        lanes: View<'_>,
        k0: usize,
    ) -> Result<(), Error>;

    /// [`Backend::matmul_k_major`]; fails as [`matmul`](Self::matmul) does.
    fn matmul_k_major(&mut self, w: Tile<'_>, x: View<'_>, lanes: View<'_>, k0: usize) -> Result<(), Error>;

    /// [`Backend::sum_lanes`].
    fn sum_lanes(&mut self, lanes: View<'_>, y: View<'_>);

    /// `out[r, c] = map(a[r, c], b[r, c])`; `out` may be `a` or `b`, and `b` may be one row repeated.
    fn map(&mut self, map: Map, a: View<'_>, b: View<'_>, out: View<'_>);

    /// [`Backend::matmul`], or with scales [`Backend::matmul_scaled`], of [packed tiles](crate::packed), which have not been
    /// looked at yet; `checked` says that their checksums have.
    ///
    /// # Errors
    /// `Corrupt`, and then `y` means nothing.
    fn matmul_packed(
        &mut self,
        w: Tile<'_>,
        _checked: bool,
        scaling: Option<ScalingView<'_>>,
        x: View<'_>,
        y: View<'_>,
    ) -> Result<(), Error> {
        let (mut start, mut bytes) = (0, Vec::new());
        for part in packed::parts(&w) {
            let part = part?;
            bytes.clear();
            part.expand(&mut bytes)?;
            let tile = Tile { rows: part.rows, bytes: &bytes, ..w };
            let y = y.col_range(start, part.rows);
            match scaling {
                Some(scaling) => self.matmul_scaled(tile, scaling.from_row(start), x, y)?,
                None => self.matmul(tile, x, y)?,
            }
            start += part.rows;
        }
        Ok(())
    }

    /// [`Backend::rms_norm`]; `weight` has one row.
    fn rms_norm(&mut self, x: View<'_>, weight: View<'_>, eps: f32, out: View<'_>);

    /// [`Backend::layer_norm`].
    fn layer_norm(&mut self, x: View<'_>, size: usize, eps: f32, out: View<'_>);

    /// [`Backend::rope`].
    fn rope(&mut self, x: View<'_>, rope: Rope, angles: View<'_>);

    /// [`Backend::attention`]; `sinks` are those of `shape`.
    fn attention(
        &mut self,
        q: View<'_>,
        out: View<'_>,
        shape: &Attention,
        sinks: Option<View<'_>>,
        kv: KvView<'_>,
        places: Placement<'_>,
    );

    /// [`Backend::select_positions`].
    fn select_positions(
        &mut self,
        q: View<'_>,
        weights: View<'_>,
        out: View<'_>,
        index: &Index,
        kv: KvView<'_>,
        places: Placement<'_>,
    );

    /// [`Backend::sparse_attention`]; `selected` has each row's positions, ascending, none above the row's own.
    fn sparse_attention(
        &mut self,
        q: View<'_>,
        out: View<'_>,
        shape: &Attention,
        kv: KvView<'_>,
        places: Placement<'_>,
        selected: &[Vec<u32>],
    );

    /// [`Backend::short_conv`]; of `runs` no two are of one slot.
    fn short_conv(&mut self, x: View<'_>, weights: View<'_>, state: View<'_>, runs: &[StateRun]);

    /// [`Backend::delta_rule`]; of `runs` no two are of one slot.
    #[allow(clippy::too_many_arguments, reason = "operands of one op")]
    fn delta_rule(
        &mut self,
        x: View<'_>,
        strengths: View<'_>,
        parameters: View<'_>,
        state: View<'_>,
        out: View<'_>,
        rule: &DeltaRule,
        runs: &[StateRun],
    );
}

/// A [`Scaling`] whose scales are at hand.
#[derive(Clone, Copy)]
pub struct ScalingView<'a> {
    /// How elements are coded.
    pub coding: Coding,
    /// One for each block of the matrix.
    pub scales: View<'a>,
    /// As many.
    pub zeros: Option<View<'a>>,
    /// One for each input.
    pub groups: Option<View<'a>>,
    /// Rows of a block.
    pub block_rows: usize,
    /// Columns of a block.
    pub block_cols: usize,
    /// Which row of the matrix the tile begins with.
    pub first_row: usize,
}

impl ScalingView<'_> {
    /// The same from a later row of the tile on.
    #[must_use]
    pub fn from_row(self, row: usize) -> Self {
        Self { first_row: self.first_row + row, ..self }
    }
}

/// A device made of kernels and host memory; it is a [`Backend`].
pub trait HostDevice: Send {
    /// Its kernels.
    type Kernels: Kernels;

    /// Its kernels, to ask them.
    fn kernels(&self) -> &Self::Kernels;

    /// Its memory and its kernels, to work.
    fn parts(&mut self, checks: Checks) -> (&mut HostMemory, &mut Self::Kernels);
}

/// The right to call kernels, which only this crate can give itself: kernels lean on checked operands.
pub struct Checks(());

impl<D: HostDevice> Backend for D {
    fn capabilities(&self) -> Capabilities {
        self.kernels().capabilities()
    }

    fn allocate(&mut self, len: usize) -> Result<BufferId, Error> {
        let (memory, kernels) = self.parts(Checks(()));
        memory.buffers.push(memory::buffer(len, &|start, bytes| kernels.advise(start, bytes))?);
        Ok(BufferId(memory.buffers.len() as u32 - 1))
    }

    fn pin(&mut self, tile: Tile<'_>) -> Result<WeightId, Error> {
        check::tile(&tile)?;
        let (memory, kernels) = self.parts(Checks(()));
        let tile = memory::Operand::Plain(tile);
        let id = memory.pinned.add(tile, &|start, bytes| kernels.advise(start, bytes))?;
        Ok(WeightId(id as u32))
    }

    fn pin_packed(&mut self, tile: Tile<'_>) -> Result<WeightId, Error> {
        let mut rows = Vec::new();
        for part in packed::parts(&tile) {
            let part = part?;
            part.check()?;
            match part.stored() {
                Some(stored) => rows.extend_from_slice(stored.bytes),
                None => rows.clear(),
            }
        }
        let plain = Tile { bytes: &rows, ..tile };
        if check::tile(&plain).is_ok() {
            // What is not coded is kept as other tiles are.
            return self.pin(plain);
        }
        let (memory, kernels) = self.parts(Checks(()));
        let tile = memory::Operand::Packed(tile, true);
        let id = memory.pinned.add(tile, &|start, bytes| kernels.advise(start, bytes))?;
        Ok(WeightId(id as u32))
    }

    fn kv_allocate(&mut self, layout: &KvLayout) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        if memory.kv.is_some() {
            return Err(Error::shape("the KV cache is allocated already"));
        }
        kernels.reserve_positions(check::kv_layout(layout)?)?;
        memory.kv = Some(memory::KvMemory::new(layout, &|start, bytes| kernels.advise(start, bytes))?);
        Ok(())
    }

    fn write(&mut self, dst: Mat, data: &[f32]) -> Result<(), Error> {
        let [view] = memory::views(&mut self.parts(Checks(())).0.buffers, [dst])?;
        if Some(data.len()) != dst.rows.checked_mul(dst.cols) {
            return Err(Error::shape(format!("{} values were given for {dst:?}", data.len())));
        }
        for row in 0..dst.rows {
            for (cell, &value) in view.row(row).iter().zip(&data[row * dst.cols..]) {
                cell.set(value);
            }
        }
        Ok(())
    }

    fn read(&mut self, src: Mat) -> Result<&[f32], Error> {
        let buffer = memory::find(&mut self.parts(Checks(())).0.buffers, src.buffer)?;
        check::mat(&src, buffer.len())?;
        if src.rows > 1 && src.stride != src.cols {
            return Err(Error::shape(format!("only dense matrices can be read, not {src:?}")));
        }
        let len = src.rows * src.cols;
        Ok(if len == 0 { &[] } else { &buffer[src.offset..][..len] })
    }

    fn expand_rows(&mut self, w: Weight<'_>, rows: &[u32], out: Mat) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks(()));
        let weight = memory::operand(&memory.pinned, w)?;
        let tile = weight.tile();
        check::supported(tile.dtype)?;
        check::rows(rows, tile.rows, tile.cols, &out)?;
        let [out] = memory::views(&mut memory.buffers, [out])?;
        let row_bytes = tile.cols / tile.dtype.block_len() * tile.dtype.block_bytes();
        let mut unpacked = Vec::new();
        let chunk_bytes = EXPAND_LEN / tile.dtype.block_len() * tile.dtype.block_bytes();
        let mut values = [0.0; EXPAND_LEN];
        for (i, &row) in rows.iter().enumerate() {
            let bytes = match weight {
                memory::Operand::Plain(tile) => &tile.bytes[row as usize * row_bytes..][..row_bytes],
                memory::Operand::Packed(tile, _) => packed::row(&tile, row as usize, &mut unpacked)?,
            };
            for (bytes, cells) in bytes.chunks(chunk_bytes).zip(out.row(i).chunks(EXPAND_LEN)) {
                let values = &mut values[..cells.len()];
                formats::expand(tile.dtype, bytes, values)?;
                for (cell, &value) in cells.iter().zip(&*values) {
                    cell.set(value);
                }
            }
        }
        Ok(())
    }

    fn matmul(&mut self, w: Weight<'_>, x: Mat, y: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let weight = memory::operand(&memory.pinned, w)?;
        let tile = weight.tile();
        check::supported(tile.dtype)?;
        check::shape(&x, x.rows, tile.cols, "the input")?;
        check::shape(&y, x.rows, tile.rows, "the output")?;
        check::apart(&y, &x)?;
        let [x, y] = memory::views(&mut memory.buffers, [x, y])?;
        match weight {
            memory::Operand::Plain(tile) => kernels.matmul(tile, x, y),
            memory::Operand::Packed(tile, checked) => kernels.matmul_packed(tile, checked, None, x, y),
        }
    }

    fn scaled_reserve(&mut self, cols: usize) -> Result<(), Error> {
        self.parts(Checks(())).1.scaled_reserve(cols)
    }

    fn matmul_scaled(&mut self, w: Weight<'_>, scaling: &Scaling, x: Mat, y: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let weight = memory::operand(&memory.pinned, w)?;
        check::scaling(weight, scaling, x.cols, false)?;
        check::shape(&y, x.rows, weight.tile().rows, "the output")?;
        check::apart(&y, &x)?;
        let ([x, y], scaling) = scaled_views(&mut memory.buffers, scaling, [x, y])?;
        match weight {
            memory::Operand::Plain(tile) => kernels.matmul_scaled(tile, scaling, x, y),
            memory::Operand::Packed(tile, checked) => {
                kernels.matmul_packed(tile, checked, Some(scaling), x, y)
            }
        }
    }

    fn matmul_scaled_k_major(
        &mut self,
        w: Weight<'_>,
        scaling: &Scaling,
        x: Mat,
        lanes: Mat,
        k0: usize,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let tile = match memory::operand(&memory.pinned, w)? {
            memory::Operand::Plain(tile) => tile,
            memory::Operand::Packed(tile, _) => packed::stored(&tile)?,
        };
        let outputs = lanes.cols / LANES;
        let rows = check::scaling(memory::Operand::Plain(tile), scaling, outputs, true)?;
        check::inputs(rows, &x, k0)?;
        check::lanes(&lanes, x.rows, outputs)?;
        check::apart(&lanes, &x)?;
        let ([x, lanes], scaling) = scaled_views(&mut memory.buffers, scaling, [x, lanes])?;
        kernels.matmul_scaled_k_major(tile, rows, scaling, x, lanes, k0)
    }

    fn expand_numbers(
        &mut self,
        w: Weight<'_>,
        numbers: Numbers,
        nested: Option<Nested>,
        out: Mat,
    ) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks(()));
        let memory::Operand::Plain(tile) = memory::operand(&memory.pinned, w)? else {
            return Err(Error::shape("what lies beside codes cannot be packed"));
        };
        let (values, scales) = nested.map_or((out, out), |nested| (nested.values, nested.scales));
        let [out, values, scales] = memory::views(&mut memory.buffers, [out, values, scales])?;
        let nested = nested.map(|nested| (nested, values, scales));
        numbers::expand(&tile, numbers, nested, out)
    }

    fn matmul_k_major(&mut self, w: Weight<'_>, x: Mat, lanes: Mat, k0: usize) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let tile = match memory::operand(&memory.pinned, w)? {
            memory::Operand::Plain(tile) => tile,
            memory::Operand::Packed(tile, _) => packed::stored(&tile)?,
        };
        check::k_major(&tile, &x, k0)?;
        check::lanes(&lanes, x.rows, tile.cols)?;
        check::apart(&lanes, &x)?;
        let [x, lanes] = memory::views(&mut memory.buffers, [x, lanes])?;
        kernels.matmul_k_major(tile, x, lanes, k0)
    }

    fn sum_lanes(&mut self, lanes: Mat, y: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        check::lanes(&lanes, y.rows, y.cols)?;
        check::apart(&y, &lanes)?;
        let [lanes, y] = memory::views(&mut memory.buffers, [lanes, y])?;
        kernels.sum_lanes(lanes, y);
        Ok(())
    }

    fn add_bias(&mut self, x: Mat, bias: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        check::shape(&bias, 1, x.cols, "the bias")?;
        check::apart(&x, &bias)?;
        let [x, bias] = memory::views(&mut memory.buffers, [x, bias])?;
        kernels.map(Map::Add, x, bias.repeated(x.rows()), x);
        Ok(())
    }

    fn rms_norm(&mut self, x: Mat, weight: Mat, eps: f32, out: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        check::shape(&weight, 1, weight.cols, "the norm's weight")?;
        if weight.cols == 0 || !x.cols.is_multiple_of(weight.cols) {
            return Err(Error::shape(format!("{} columns are not groups of {}", x.cols, weight.cols)));
        }
        check::same_shape(&x, &out, "the output")?;
        check::same_or_apart(&out, &x)?;
        check::apart(&out, &weight)?;
        let [x, weight, out] = memory::views(&mut memory.buffers, [x, weight, out])?;
        kernels.rms_norm(x, weight, eps, out);
        Ok(())
    }

    fn layer_norm(&mut self, x: Mat, size: usize, eps: f32, out: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        if size == 0 || !x.cols.is_multiple_of(size) {
            return Err(Error::shape(format!("{} columns are not groups of {size}", x.cols)));
        }
        check::same_shape(&x, &out, "the output")?;
        check::same_or_apart(&out, &x)?;
        let [x, out] = memory::views(&mut memory.buffers, [x, out])?;
        kernels.layer_norm(x, size, eps, out);
        Ok(())
    }

    fn mul_columns(&mut self, x: Mat, factors: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        check::shape(&factors, 1, x.cols, "the row of factors")?;
        check::apart(&x, &factors)?;
        let [x, factors] = memory::views(&mut memory.buffers, [x, factors])?;
        kernels.map(Map::Multiply, x, factors.repeated(x.rows()), x);
        Ok(())
    }

    fn rope(&mut self, x: Mat, rope: Rope, angles: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        check::rope(&x, &rope, &angles)?;
        let [x, angles] = memory::views(&mut memory.buffers, [x, angles])?;
        kernels.rope(x, rope, angles);
        Ok(())
    }

    fn kv_write(&mut self, layer: usize, k: Mat, v: Mat, places: Placement<'_>) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks(()));
        let kv = memory.kv.as_mut().ok_or_else(no_kv)?;
        check::shape(&v, k.rows, v.cols, "the values")?;
        // A window of 1: only the page that is written must exist.
        check::places(&kv.layout, layer, (k.cols, Some(v.cols)), k.rows, &places, Some(Window::Last(1)))?;
        let [k, v] = memory::views(&mut memory.buffers, [k, v])?;
        kv.store(layer, k, v, places);
        Ok(())
    }

    fn kv_page(&mut self, page: u32, visit: &mut dyn FnMut(&mut [u8])) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks(()));
        let kv = memory.kv.as_mut().ok_or_else(no_kv)?;
        if page as usize >= kv.layout.pages {
            let pages = kv.layout.pages;
            return Err(Error::shape(format!("there is no page {page}; the KV cache has {pages}")));
        }
        kv.visit(page as usize, visit);
        Ok(())
    }

    fn attention(
        &mut self,
        layer: usize,
        q: Mat,
        out: Mat,
        shape: &Attention,
        places: Placement<'_>,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let kv = memory.kv.as_ref().ok_or_else(no_kv)?;
        let widths = check::attention(shape)?;
        check::shape(&q, q.rows, shape.heads * shape.key_dim, "the queries")?;
        check::shape(&out, q.rows, shape.heads * shape.value_dim, "the output")?;
        check::apart(&out, &q)?;
        check::places(&kv.layout, layer, widths, q.rows, &places, shape.window)?;
        check::heads(&kv.layout, layer, shape.kv_heads)?;
        if let Some(sinks) = shape.sinks {
            check::shape(&sinks, 1, shape.heads, "the sinks")?;
            check::apart(&out, &sinks)?;
        }
        let [q, out, sinks] = memory::views(&mut memory.buffers, [q, out, shape.sinks.unwrap_or(q)])?;
        kernels.attention(
            q,
            out,
            shape,
            shape.sinks.map(|_| sinks),
            kv.view(layer).for_attention(shape),
            places,
        );
        Ok(())
    }

    fn select_positions(
        &mut self,
        layer: usize,
        q: Mat,
        weights: Mat,
        out: Mat,
        index: &Index,
        places: Placement<'_>,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let kv = memory.kv.as_ref().ok_or_else(no_kv)?;
        sparse::check_index(&kv.layout, layer, [q, weights, out], index, &places)?;
        let [q, weights, out] = memory::views(&mut memory.buffers, [q, weights, out])?;
        kernels.select_positions(q, weights, out, index, kv.view(layer), places);
        Ok(())
    }

    fn sparse_attention(
        &mut self,
        layer: usize,
        q: Mat,
        out: Mat,
        shape: &Attention,
        selected: Mat,
        places: Placement<'_>,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let kv = memory.kv.as_ref().ok_or_else(no_kv)?;
        check::heads(&kv.layout, layer, shape.kv_heads)?;
        sparse::check_attention(&kv.layout, layer, [q, out, selected], shape, &places)?;
        let [q, out, selected] = memory::views(&mut memory.buffers, [q, out, selected])?;
        let selected = sparse::positions(selected, &places)?;
        kernels.sparse_attention(q, out, shape, kv.view(layer).for_attention(shape), places, &selected);
        Ok(())
    }

    fn short_conv(&mut self, x: Mat, weights: Mat, state: Mat, rows: &[StateRow]) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        delta::check_conv([x, weights, state])?;
        let runs = delta::runs(rows, x.rows, state.rows)?;
        let [x, weights, state] = memory::views(&mut memory.buffers, [x, weights, state])?;
        kernels.short_conv(x, weights, state, &runs);
        Ok(())
    }

    fn delta_rule(
        &mut self,
        x: Mat,
        strengths: Mat,
        parameters: Mat,
        state: Mat,
        out: Mat,
        rule: &DeltaRule,
        rows: &[StateRow],
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        delta::check_rule([x, strengths, parameters, state, out], rule)?;
        let runs = delta::runs(rows, x.rows, state.rows)?;
        let operands = [x, strengths, parameters, state, out];
        let [x, strengths, parameters, state, out] = memory::views(&mut memory.buffers, operands)?;
        kernels.delta_rule(x, strengths, parameters, state, out, rule, &runs);
        Ok(())
    }

    fn glu(&mut self, gate: Mat, up: Mat, activation: Activation, out: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        for input in [gate, up] {
            check::same_shape(&out, &input, "an input")?;
            check::same_or_apart(&out, &input)?;
        }
        let [gate, up, out] = memory::views(&mut memory.buffers, [gate, up, out])?;
        kernels.map(Map::Gated(activation), gate, up, out);
        Ok(())
    }

    fn activate(&mut self, x: Mat, activation: Activation) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let [x] = memory::views(&mut memory.buffers, [x])?;
        kernels.map(Map::Activate(activation), x, x, x);
        Ok(())
    }

    fn add(&mut self, x: Mat, y: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        check::same_shape(&x, &y, "the summand")?;
        check::apart(&x, &y)?;
        let [x, y] = memory::views(&mut memory.buffers, [x, y])?;
        kernels.map(Map::Add, x, y, x);
        Ok(())
    }

    fn scale(&mut self, x: Mat, factor: f32) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let [x] = memory::views(&mut memory.buffers, [x])?;
        kernels.map(Map::Scale(factor), x, x, x);
        Ok(())
    }

    fn softcap(&mut self, x: Mat, cap: f32) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let [x] = memory::views(&mut memory.buffers, [x])?;
        kernels.map(Map::Softcap(cap), x, x, x);
        Ok(())
    }

    fn clip(&mut self, x: Mat, limit: f32) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks(()));
        let [x] = memory::views(&mut memory.buffers, [x])?;
        kernels.map(Map::Clip(limit), x, x, x);
        Ok(())
    }

    fn gather_rows(&mut self, x: Mat, rows: &[u32], out: Mat) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks(()));
        check::rows(rows, x.rows, x.cols, &out)?;
        check::apart(&out, &x)?;
        let [x, out] = memory::views(&mut memory.buffers, [x, out])?;
        for (i, &row) in rows.iter().enumerate() {
            for (to, from) in out.row(i).iter().zip(x.row(row as usize)) {
                to.set(from.get());
            }
        }
        Ok(())
    }

    fn take_columns(&mut self, x: Mat, first: usize, step: usize, out: Mat) -> Result<(), Error> {
        check::columns(&x, first, step, &out)?;
        check::apart(&out, &x)?;
        let (memory, _) = self.parts(Checks(()));
        let [x, view] = memory::views(&mut memory.buffers, [x, out])?;
        for row in 0..out.rows {
            let from = x.row(row).iter().skip(first).step_by(step);
            view.row(row).iter().zip(from).for_each(|(to, from)| to.set(from.get()));
        }
        Ok(())
    }

    fn scatter_rows(&mut self, x: Mat, rows: &[u32], factors: &[f32], out: Mat) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks(()));
        check::rows(rows, out.rows, out.cols, &x)?;
        check::factors(factors, rows.len())?;
        check::apart(&out, &x)?;
        let [x, out] = memory::views(&mut memory.buffers, [x, out])?;
        for (i, (&row, factor)) in rows.iter().zip(factors).enumerate() {
            for (to, from) in out.row(row as usize).iter().zip(x.row(i)) {
                to.set(to.get() + factor * from.get());
            }
        }
        Ok(())
    }

    fn scale_rows(&mut self, x: Mat, factors: &[f32]) -> Result<(), Error> {
        check::factors(factors, x.rows)?;
        let [x] = memory::views(&mut self.parts(Checks(())).0.buffers, [x])?;
        for (row, factor) in factors.iter().enumerate() {
            x.row(row).iter().for_each(|cell| cell.set(cell.get() * factor));
        }
        Ok(())
    }

    fn clear(&mut self, x: Mat) -> Result<(), Error> {
        let [view] = memory::views(&mut self.parts(Checks(())).0.buffers, [x])?;
        (0..x.rows).for_each(|row| view.row(row).iter().for_each(|cell| cell.set(0.0)));
        Ok(())
    }
}

/// The views of two operands and of what scales codes; the second is the output.
fn scaled_views<'a>(
    buffers: &'a mut [memory::Aligned<f32>],
    scaling: &Scaling,
    [x, y]: [Mat; 2],
) -> Result<([View<'a>; 2], ScalingView<'a>), Error> {
    let Scaling { coding, scales, zeros, groups, block_rows, block_cols, first_row } = *scaling;
    for mat in [Some(scales), zeros, groups].into_iter().flatten() {
        check::apart(&y, &mat)?;
    }
    let mats = [x, y, scales, zeros.unwrap_or(scales), groups.unwrap_or(scales)];
    let [x, y, scales, zero_points, indices] = memory::views(buffers, mats)?;
    let (zeros, groups) = (zeros.map(|_| zero_points), groups.map(|_| indices));
    Ok(([x, y], ScalingView { coding, scales, zeros, groups, block_rows, block_cols, first_row }))
}

fn no_kv() -> Error {
    Error::shape("the KV cache was not allocated")
}
