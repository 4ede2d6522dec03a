//! What devices on the host share: operands are checked, resolved to views and handed to kernels.

use std::cell::Cell;

use crate::aligned::{Advise, Aligned, SLACK_BYTES};
use crate::numerics::{LANES, Map};
use crate::quantised::Numbers;
use crate::weights::Operand;
use crate::{
    Activation, Allocated, Attention, Backend, BufferId, Capabilities, Checks, DeltaRule, Error, ErrorKind,
    Extras, Footprint, HeadCopy, Home, HostBytes, HostDevice, Index, Kernels, KvLayout, Mat, Nested, Rope,
    Scaling, ScalingView, ScratchNeed, StateScan, SweepRows, Tile, TileShape, UploadId, View, Weight,
    WeightId, Window, check, delta, formats, memory, numbers, packed, rows, scan, sparse,
};

/// Elements that are expanded at a time: a whole number of blocks of every format.
const EXPAND_LEN: usize = 256;

impl<D: HostDevice> Backend for D {
    fn capabilities(&self) -> Capabilities {
        self.kernels().capabilities()
    }

    fn allocate(&mut self, len: usize) -> Result<BufferId, Error> {
        let (memory, kernels) = self.parts(Checks::done());
        memory.buffers.push(memory::buffer(len, &|start, bytes| kernels.advise(start, bytes))?);
        Ok(BufferId(memory.buffers.len() as u32 - 1))
    }

    fn footprint(&self, need: &ScratchNeed) -> Footprint {
        let of_kernels = self.kernels().footprint(need);
        let sums = need.k_major_outputs.saturating_mul(LANES * size_of::<f32>());
        Footprint {
            fixed_bytes: of_kernels.fixed_bytes + SLACK_BYTES,
            row_bytes: of_kernels.row_bytes + rows::ROW_BYTES + sums as u64,
            position_bytes: of_kernels.position_bytes + rows::POSITION_BYTES,
            ..of_kernels
        }
    }

    fn reserve(&mut self, need: &ScratchNeed, rows_max: usize) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        kernels.reserve(need)?;
        let advise: Advise<'_> = &|start, bytes| kernels.advise(start, bytes);
        memory.sums.reserve(rows_max, need.k_major_outputs, advise)
    }

    fn allocated(&self) -> Allocated {
        self.memory().allocated(self.kernels().scratch_bytes())
    }

    fn upload(&mut self, shape: TileShape, bytes: HostBytes) -> Result<UploadId, Error> {
        self.parts(Checks::done()).0.weights.upload(shape, bytes)
    }

    fn release(&mut self, upload: UploadId) {
        self.parts(Checks::done()).0.weights.release(upload);
    }

    fn release_all(&mut self) {
        self.parts(Checks::done()).0.weights.release_all();
    }

    fn reset(&mut self) {
        *self.parts(Checks::done()).0 = memory::HostMemory::default();
    }

    fn pin(&mut self, shape: TileShape, bytes: HostBytes, home: Home) -> Result<WeightId, Error> {
        if home == Home::Disk {
            let message = "a weight tile whose home is the disk cannot be kept in memory";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let tile = shape.tile(&bytes);
        let mut stored = Vec::new();
        let (shape, bytes) = match shape.packed {
            false => (shape, tile.bytes),
            // What has no coded exponents is kept as other tiles are.
            true if checked_rows(&tile, &mut stored)? => (TileShape { packed: false, ..shape }, &stored[..]),
            true => (shape, tile.bytes),
        };
        if !shape.packed {
            check::tile(&shape.tile(bytes))?;
        }
        let (memory, kernels) = self.parts(Checks::done());
        memory.weights.pin(shape, bytes, &|start, bytes| kernels.advise(start, bytes))
    }

    fn kv_allocate(&mut self, layout: &KvLayout) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        if memory.kv.is_some() {
            return Err(Error::shape("the KV cache is allocated already"));
        }
        kernels.reserve_positions(check::kv_layout(layout)?)?;
        memory.kv = Some(memory::KvMemory::new(layout, &|start, bytes| kernels.advise(start, bytes))?);
        // They were not checked against it.
        memory.rows.clear();
        Ok(())
    }

    fn write(&mut self, dst: Mat, data: &[f32]) -> Result<(), Error> {
        let [view] = memory::views(&mut self.parts(Checks::done()).0.buffers, [dst])?;
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
        let buffer = memory::find(&mut self.parts(Checks::done()).0.buffers, src.buffer)?;
        check::mat(&src, buffer.len())?;
        if src.rows > 1 && src.stride != src.cols {
            return Err(Error::shape(format!("only dense matrices can be read, not {src:?}")));
        }
        let len = src.rows * src.cols;
        Ok(if len == 0 { &[] } else { &buffer[src.offset..][..len] })
    }

    fn set_rows(&mut self, rows: SweepRows<'_>) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks::done());
        memory.rows.set(memory.kv.as_ref().map(|kv| &kv.layout), rows)
    }

    fn expand_rows(&mut self, table: Tile<'_>, rows: &[u32], out: Mat) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks::done());
        formats::check_supported(table.dtype)?;
        check::tile(&table)?;
        check::rows(rows, table.rows, table.cols, &out)?;
        let [out] = memory::views(&mut memory.buffers, [out])?;
        rows.iter().enumerate().try_for_each(|(i, &row)| expand_row(&table, row as usize, out.row(i)))
    }

    fn gather_weights(&mut self, rows: &[(WeightId, u32)], out: Mat) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks::done());
        check::shape(&out, rows.len(), out.cols, "the output")?;
        for &(id, row) in rows {
            let tile = memory.weights.resident(id)?.tile();
            formats::check_supported(tile.dtype)?;
            check::rows(&[row], tile.rows, tile.cols, &out.row_range(0, 1))?;
        }
        let [out] = memory::views(&mut memory.buffers, [out])?;
        let mut unpacked = Vec::new();
        for (i, &(id, row)) in rows.iter().enumerate() {
            match memory.weights.resident(id)? {
                Operand::Plain(tile) => expand_row(&tile, row as usize, out.row(i))?,
                Operand::Packed(tile, _) => {
                    let bytes = packed::row(&tile, row as usize, &mut unpacked)?;
                    expand_row(&Tile { rows: 1, bytes, ..tile }, 0, out.row(i))?;
                }
            }
        }
        Ok(())
    }

    fn row_norms(&mut self, w: Weight, out: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let weight = memory.weights.operand(w)?;
        let tile = weight.tile();
        formats::check_supported(tile.dtype)?;
        check::shape(&out, 1, tile.rows, "the output")?;
        let [out] = memory::views(&mut memory.buffers, [out])?;
        let Operand::Packed(..) = weight else { return kernels.row_norms(tile, out) };
        let (mut start, mut bytes) = (0, Vec::new());
        for part in packed::parts(&tile) {
            let part = part?;
            bytes.clear();
            part.expand(&mut bytes)?;
            let rows = Tile { rows: part.rows, bytes: &bytes, ..tile };
            kernels.row_norms(rows, out.col_range(start, part.rows))?;
            start += part.rows;
        }
        Ok(())
    }

    fn matmul(&mut self, w: Weight, x: Mat, y: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let weight = memory.weights.operand(w)?;
        let tile = weight.tile();
        formats::check_supported(tile.dtype)?;
        check::shape(&x, x.rows, tile.cols, "the input")?;
        check::shape(&y, x.rows, tile.rows, "the output")?;
        check::apart(&y, &x)?;
        let [x, y] = memory::views(&mut memory.buffers, [x, y])?;
        match weight {
            Operand::Plain(tile) => kernels.matmul(tile, x, y),
            Operand::Packed(tile, checked) => kernels.matmul_packed(tile, checked, None, x, y),
        }
    }

    fn matmul_scaled(&mut self, w: Weight, scaling: &Scaling, x: Mat, y: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let weight = memory.weights.operand(w)?;
        numbers::check_scaling(weight, scaling, x.cols, false)?;
        check::shape(&y, x.rows, weight.tile().rows, "the output")?;
        check::apart(&y, &x)?;
        let ([x, y], scaling) = scaled_views(&mut memory.buffers, scaling, [x, y])?;
        match weight {
            Operand::Plain(tile) => kernels.matmul_scaled(tile, scaling, x, y),
            Operand::Packed(tile, checked) => kernels.matmul_packed(tile, checked, Some(scaling), x, y),
        }
    }

    fn matmul_scaled_k_major(
        &mut self,
        w: Weight,
        scaling: &Scaling,
        x: Mat,
        y: Mat,
        k0: usize,
        last: bool,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let tile = memory.weights.operand(w)?.by_inputs()?;
        let inputs = numbers::check_scaling(Operand::Plain(tile), scaling, y.cols, true)?;
        check::inputs(inputs, &x, k0)?;
        check::shape(&y, x.rows, y.cols, "the output")?;
        check::apart(&y, &x)?;
        let ([x, y], scaling) = scaled_views(&mut memory.buffers, scaling, [x, y])?;
        let lanes = memory.sums.of_tile((x.rows(), y.cols()), (k0, inputs))?;
        kernels.matmul_scaled_k_major(tile, inputs, scaling, x, lanes, k0)?;
        if last {
            kernels.sum_lanes(lanes, y);
            memory.sums.finish();
        }
        Ok(())
    }

    fn expand_numbers(
        &mut self,
        w: Weight,
        numbers: Numbers,
        nested: Option<Nested>,
        out: Mat,
    ) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks::done());
        let Operand::Plain(tile) = memory.weights.operand(w)? else {
            return Err(Error::shape("what lies beside codes cannot be packed"));
        };
        let (values, scales) = nested.map_or((out, out), |nested| (nested.values, nested.scales));
        let [out, values, scales] = memory::views(&mut memory.buffers, [out, values, scales])?;
        let nested = nested.map(|nested| (nested, values, scales));
        numbers::expand(&tile, numbers, nested, out)
    }

    fn matmul_k_major(&mut self, w: Weight, x: Mat, y: Mat, k0: usize, last: bool) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let tile = memory.weights.operand(w)?.by_inputs()?;
        formats::check_supported(tile.dtype)?;
        check::inputs(tile.rows, &x, k0)?;
        check::shape(&y, x.rows, tile.cols, "the output")?;
        check::apart(&y, &x)?;
        let [x, y] = memory::views(&mut memory.buffers, [x, y])?;
        let lanes = memory.sums.of_tile((x.rows(), y.cols()), (k0, tile.rows))?;
        kernels.matmul_k_major(tile, x, lanes, k0)?;
        if last {
            kernels.sum_lanes(lanes, y);
            memory.sums.finish();
        }
        Ok(())
    }

    fn add_bias(&mut self, x: Mat, bias: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        check::shape(&bias, 1, x.cols, "the bias")?;
        check::apart(&x, &bias)?;
        let [x, bias] = memory::views(&mut memory.buffers, [x, bias])?;
        kernels.map(Map::Add, x, bias.repeated(x.rows()), x);
        Ok(())
    }

    fn rms_norm(&mut self, x: Mat, weight: Mat, eps: f32, out: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
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
        let (memory, kernels) = self.parts(Checks::done());
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
        let (memory, kernels) = self.parts(Checks::done());
        check::shape(&factors, 1, x.cols, "the row of factors")?;
        check::apart(&x, &factors)?;
        let [x, factors] = memory::views(&mut memory.buffers, [x, factors])?;
        kernels.map(Map::Multiply, x, factors.repeated(x.rows()), x);
        Ok(())
    }

    fn mul_rows(&mut self, x: Mat, factors: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        check::shape(&factors, x.rows, 1, "the column of factors")?;
        check::apart(&x, &factors)?;
        let [x, factors] = memory::views(&mut memory.buffers, [x, factors])?;
        kernels.mul_rows(x, factors);
        Ok(())
    }

    fn copy_heads(&mut self, x: Mat, copy: &HeadCopy, out: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        check::copy_heads(&x, copy, &out)?;
        let [x, out] = memory::views(&mut memory.buffers, [x, out])?;
        kernels.copy_heads(x, copy, out);
        Ok(())
    }

    fn rope(&mut self, x: Mat, rope: Rope, angles: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        check::rope(&x, &rope, &angles)?;
        let [x, angles] = memory::views(&mut memory.buffers, [x, angles])?;
        kernels.rope(x, rope, angles);
        Ok(())
    }

    fn kv_write(&mut self, layer: usize, k: Mat, v: Mat) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks::done());
        let kv = memory.kv.as_mut().ok_or_else(no_kv)?;
        check::shape(&v, k.rows, v.cols, "the values")?;
        // A window of 1: only the page that is written must exist.
        let (widths, window) = ((k.cols, Some(v.cols)), Some(Window::Last(1)));
        let places = memory.rows.places(&kv.layout, layer, widths, k.rows, window)?;
        let [k, v] = memory::views(&mut memory.buffers, [k, v])?;
        kv.store(layer, k, v, places);
        Ok(())
    }

    fn kv_save(&mut self, page: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let kv = self.parts(Checks::done()).0.kv.as_ref().ok_or_else(no_kv)?;
        kv.save(kv.check_page(page)?, take);
        Ok(())
    }

    fn kv_load(&mut self, page: u32, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), Error> {
        let kv = self.parts(Checks::done()).0.kv.as_mut().ok_or_else(no_kv)?;
        kv.load(kv.check_page(page)?, fill);
        Ok(())
    }

    fn kv_copy(&mut self, slots: &[(u32, u32)]) -> Result<(), Error> {
        let kv = self.parts(Checks::done()).0.kv.as_mut().ok_or_else(no_kv)?;
        let total = kv.layout.pages * kv.layout.page_tokens;
        if let Some(pair) = slots.iter().find(|(from, to)| (*from).max(*to) as usize >= total) {
            return Err(Error::shape(format!("slots {pair:?} of a KV cache of {total}")));
        }
        kv.copy(slots);
        Ok(())
    }

    fn attention(
        &mut self,
        layer: usize,
        q: Mat,
        out: Mat,
        shape: &Attention,
        extras: Extras<Mat>,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let kv = memory.kv.as_ref().ok_or_else(no_kv)?;
        let widths = check::attention(shape)?;
        check::shape(&q, q.rows, shape.heads * shape.key_dim, "the queries")?;
        check::shape(&out, q.rows, shape.heads * shape.value_dim, "the output")?;
        check::apart(&out, &q)?;
        let places = memory.rows.places(&kv.layout, layer, widths, q.rows, shape.window)?;
        check::heads(&kv.layout, layer, shape.kv_heads)?;
        let Extras { sinks, biases } = extras;
        if let Some(sinks) = sinks {
            check::shape(&sinks, 1, shape.heads, "the sinks")?;
            check::apart(&out, &sinks)?;
        }
        if let Some(biases) = biases {
            check::shape(&biases, shape.heads, biases.cols | 1, "the biases")?;
            check::apart(&out, &biases)?;
        }
        let all = [q, out, sinks.unwrap_or(q), biases.unwrap_or(q)];
        let [q, out, sunk, biased] = memory::views(&mut memory.buffers, all)?;
        let extras = Extras { sinks: sinks.map(|_| sunk), biases: biases.map(|_| biased) };
        kernels.attention(q, out, shape, extras, kv.view(layer).for_attention(shape), places);
        Ok(())
    }

    fn select_positions(
        &mut self,
        layer: usize,
        q: Mat,
        weights: Mat,
        out: Mat,
        index: &Index,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let kv = memory.kv.as_ref().ok_or_else(no_kv)?;
        let places = sparse::check_index(&kv.layout, layer, [q, weights, out], index, &memory.rows)?;
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
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let kv = memory.kv.as_ref().ok_or_else(no_kv)?;
        check::heads(&kv.layout, layer, shape.kv_heads)?;
        let places = sparse::check_attention(&kv.layout, layer, [q, out, selected], shape, &memory.rows)?;
        let [q, out, selected] = memory::views(&mut memory.buffers, [q, out, selected])?;
        sparse::check_positions(selected, &places)?;
        kernels.sparse_attention(q, out, shape, kv.view(layer).for_attention(shape), places, selected);
        Ok(())
    }

    fn short_conv(
        &mut self,
        x: Mat,
        weights: Mat,
        bias: Option<Mat>,
        silu: bool,
        state: Mat,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        delta::check_conv([x, weights, state], bias)?;
        let runs = memory.rows.runs(x.rows, state.rows)?;
        let operands = [x, weights, state, bias.unwrap_or(weights)];
        let [x, weights, state, added] = memory::views(&mut memory.buffers, operands)?;
        kernels.short_conv(x, (weights, bias.map(|_| added)), silu, state, runs);
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
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        delta::check_rule([x, strengths, parameters, state, out], rule)?;
        let runs = memory.rows.runs(x.rows, state.rows)?;
        let operands = [x, strengths, parameters, state, out];
        let [x, strengths, parameters, state, out] = memory::views(&mut memory.buffers, operands)?;
        kernels.delta_rule(x, strengths, parameters, state, out, rule, runs);
        Ok(())
    }

    fn state_scan(
        &mut self,
        x: Mat,
        steps: Mat,
        parameters: Mat,
        state: Mat,
        out: Mat,
        scan: &StateScan,
    ) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        scan::check_scan([x, steps, parameters, state, out], scan)?;
        let runs = memory.rows.runs(x.rows, state.rows)?;
        let operands = [x, steps, parameters, state, out];
        let [x, steps, parameters, state, out] = memory::views(&mut memory.buffers, operands)?;
        kernels.state_scan(x, steps, parameters, state, out, scan, runs);
        Ok(())
    }

    fn glu(&mut self, gate: Mat, up: Mat, activation: Activation, out: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        for input in [gate, up] {
            check::same_shape(&out, &input, "an input")?;
            check::same_or_apart(&out, &input)?;
        }
        let [gate, up, out] = memory::views(&mut memory.buffers, [gate, up, out])?;
        kernels.map(Map::Gated(activation), gate, up, out);
        Ok(())
    }

    fn activate(&mut self, x: Mat, activation: Activation) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let [x] = memory::views(&mut memory.buffers, [x])?;
        kernels.map(Map::Activate(activation), x, x, x);
        Ok(())
    }

    fn add(&mut self, x: Mat, y: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        check::same_shape(&x, &y, "the summand")?;
        check::apart(&x, &y)?;
        let [x, y] = memory::views(&mut memory.buffers, [x, y])?;
        kernels.map(Map::Add, x, y, x);
        Ok(())
    }

    fn mul(&mut self, x: Mat, y: Mat) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        check::same_shape(&x, &y, "the factors")?;
        check::apart(&x, &y)?;
        let [x, y] = memory::views(&mut memory.buffers, [x, y])?;
        kernels.map(Map::Multiply, x, y, x);
        Ok(())
    }

    fn scale(&mut self, x: Mat, factor: f32) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let [x] = memory::views(&mut memory.buffers, [x])?;
        kernels.map(Map::Scale(factor), x, x, x);
        Ok(())
    }

    fn softcap(&mut self, x: Mat, cap: f32) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let [x] = memory::views(&mut memory.buffers, [x])?;
        kernels.map(Map::Softcap(cap), x, x, x);
        Ok(())
    }

    fn clip(&mut self, x: Mat, limit: f32) -> Result<(), Error> {
        let (memory, kernels) = self.parts(Checks::done());
        let [x] = memory::views(&mut memory.buffers, [x])?;
        kernels.map(Map::Clip(limit), x, x, x);
        Ok(())
    }

    fn gather_rows(&mut self, x: Mat, rows: &[u32], out: Mat) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks::done());
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
        let (memory, _) = self.parts(Checks::done());
        let [x, view] = memory::views(&mut memory.buffers, [x, out])?;
        for row in 0..out.rows {
            let from = x.row(row).iter().skip(first).step_by(step);
            view.row(row).iter().zip(from).for_each(|(to, from)| to.set(from.get()));
        }
        Ok(())
    }

    fn scatter_rows(&mut self, x: Mat, rows: &[u32], factors: &[f32], out: Mat) -> Result<(), Error> {
        let (memory, _) = self.parts(Checks::done());
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

    fn clear(&mut self, x: Mat) -> Result<(), Error> {
        let [view] = memory::views(&mut self.parts(Checks::done()).0.buffers, [x])?;
        (0..x.rows).for_each(|row| view.row(row).iter().for_each(|cell| cell.set(0.0)));
        Ok(())
    }
}

/// The views of two operands and of what scales codes; the second is the output.
fn scaled_views<'a>(
    buffers: &'a mut [Aligned<f32>],
    scaling: &Scaling,
    [x, y]: [Mat; 2],
) -> Result<([View<'a>; 2], ScalingView<'a>), Error> {
    let Scaling { quantised, scales, zeros, groups, block_rows, block_cols, first_row } = *scaling;
    for mat in [Some(scales), zeros, groups].into_iter().flatten() {
        check::apart(&y, &mat)?;
    }
    let mats = [x, y, scales, zeros.unwrap_or(scales), groups.unwrap_or(scales)];
    let [x, y, scales, zero_points, indices] = memory::views(buffers, mats)?;
    let (zeros, groups) = (zeros.map(|_| zero_points), groups.map(|_| indices));
    Ok(([x, y], ScalingView { quantised, scales, zeros, groups, block_rows, block_cols, first_row }))
}

/// Checks all checksums of packed tiles. Whether they are all stored; then their rows are appended to `rows`.
fn checked_rows(tile: &Tile<'_>, rows: &mut Vec<u8>) -> Result<bool, Error> {
    let mut stored = true;
    for part in packed::parts(tile) {
        let part = part?;
        part.check()?;
        match part.stored().filter(|_| stored) {
            Some(part) => rows.extend_from_slice(part.bytes),
            None => {
                stored = false;
                rows.clear();
            }
        }
    }
    Ok(stored)
}

/// Row `row` of a tile, which was checked.
fn expand_row(tile: &Tile<'_>, row: usize, out: &[Cell<f32>]) -> Result<(), Error> {
    let (block_len, block_bytes) = (tile.dtype.block_len(), tile.dtype.block_bytes());
    let row_bytes = tile.cols / block_len * block_bytes;
    let bytes = &tile.bytes[row * row_bytes..][..row_bytes];
    let mut values = [0.0; EXPAND_LEN];
    for (bytes, cells) in bytes.chunks(EXPAND_LEN / block_len * block_bytes).zip(out.chunks(EXPAND_LEN)) {
        let values = &mut values[..cells.len()];
        formats::expand(tile.dtype, bytes, values)?;
        cells.iter().zip(values).for_each(|(cell, value)| cell.set(*value));
    }
    Ok(())
}

fn no_kv() -> Error {
    Error::shape("the KV cache was not allocated")
}
