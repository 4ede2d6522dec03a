//! The device as a [`Backend`]: operands are checked, and kernels recorded.

use aerostat_backend::numerics::Map;
use aerostat_backend::quantised::Numbers;
use aerostat_backend::{
    Activation, Allocated, Attention, Backend, BufferId, Capabilities, DeltaRule, DeviceCounters,
    DeviceMemory, Error, Extras, Footprint, HeadCopy, Home, HostBytes, Index, KvLayout, KvType, Mat, Nested,
    Rope, RopeStyle, Scaling, ScratchNeed, StateScan, SweepRows, Tile, TileShape, UploadId, Weight, WeightId,
    rules,
};
use aerostat_checkpoint::DType;
use wgpu::BufferUsages;

use crate::cache::Cache;
use crate::gpu::Gpu;
use crate::pipelines::{Kernel, Words};
use crate::weights;

/// Threads of a workgroup of kernels that work element by element.
const THREADS: usize = 64;

impl Gpu {
    /// `out = map(a, b)`; `b_step` is 0 where `b` is a column, its stride where it is a row.
    fn map(&mut self, map: Map, a: Mat, (b, b_step): (Mat, usize), out: Mat) -> Result<(), Error> {
        let (at_a, at_b, to) = (self.at(&a)?, self.at(&b)?, self.at(&out)?);
        let (number, activation, x, y) = match map {
            Map::Add => (0, 0, 0.0, 0.0),
            Map::Multiply => (1, 0, 0.0, 0.0),
            Map::Scale(factor) => (2, 0, factor, 0.0),
            Map::Softcap(cap) => (3, 0, cap, 0.0),
            Map::Clip(limit) => (4, 0, limit, 0.0),
            Map::Activate(activation) => with_activation(5, activation),
            Map::Gated(activation) => with_activation(6, activation),
        };
        let words = [at_a.offset, a.stride, at_b.offset, b.stride, b_step, to.offset, out.stride];
        let words = Words::of(&words)?.and(&[out.rows, out.cols, number, activation])?.floats(&[x, y])?;
        let buffers = [&at_a.buffer, &at_b.buffer, &to.buffer];
        self.run(Kernel::Map, &buffers, &words, (out.cols.div_ceil(THREADS), out.rows))
    }

    fn norm(&mut self, x: Mat, weight: Option<Mat>, size: usize, eps: f32, out: Mat) -> Result<(), Error> {
        let (from, to) = (self.at(&x)?, self.at(&out)?);
        let factors = self.at(&weight.unwrap_or(x))?;
        let words = [from.offset, x.stride, factors.offset, to.offset, out.stride, x.rows, size];
        let words = Words::of(&words)?.and(&[usize::from(weight.is_none())])?.floats(&[eps])?;
        let buffers = [&from.buffer, &factors.buffer, &to.buffer];
        self.run(Kernel::Norm, &buffers, &words, (x.cols / size.max(1), x.rows))
    }

    /// A kind of copy, as copy.wgsl numbers them; `more` are its own parameters.
    fn copy(
        &mut self,
        kind: usize,
        (x, out): (Mat, Mat),
        (rows, cols): (usize, usize),
        list: &[u32],
        more: [usize; 7],
    ) -> Result<(), Error> {
        let (from, to) = (self.at(&x)?, self.at(&out)?);
        let list = self.list(list)?;
        let words = [from.offset, x.stride, to.offset, out.stride, rows, cols, kind, 0];
        let words = Words::of(&words)?.and(&more)?;
        let workgroups = (cols.div_ceil(THREADS), if kind == 5 { rows.min(1) } else { rows });
        self.run(Kernel::Copy, &[&from.buffer, &to.buffer, &list], &words, workgroups)
    }
}

/// The parameters of a map with an activation.
fn with_activation(map: usize, activation: Activation) -> (usize, usize, f32, f32) {
    let number = match activation {
        Activation::Sigmoid => 0,
        Activation::Silu => 1,
        Activation::GeluTanh => 2,
        Activation::GeluErf => 3,
        Activation::Relu => 4,
        Activation::ReluSquared => 5,
        Activation::Relu6 => 6,
        Activation::QuickGelu => 7,
        Activation::Mish => 8,
        Activation::Tanh => 10,
        Activation::Exp => 11,
        Activation::Softplus => 12,
        Activation::ClippedSilu { alpha, limit } => return (map, 9, alpha, limit),
    };
    (map, number, 0.0, 0.0)
}

impl Backend for Gpu {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            device: "gpu",
            detail: self.context.name.clone(),
            weights: DType::COMPUTABLE,
            kv: KvType::ALL,
            threads: 1,
        }
    }

    fn footprint(&self, _need: &ScratchNeed) -> Footprint {
        Footprint::default()
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        let budget_bytes = self.budget.bytes_max().unwrap_or(self.context.memory_bytes);
        let (slots, shares_host) = (weights::SLOTS as u64, self.context.shares_host);
        Some(DeviceMemory { budget_bytes, fixed_bytes: self.fixed_bytes(), slots, shares_host })
    }

    fn counters(&self) -> Option<DeviceCounters> {
        let (memory_peak_bytes, reserved_bytes) = (self.budget.peak(), self.reserved_bytes());
        Some(DeviceCounters { memory_peak_bytes, reserved_bytes, ..self.stream.counters })
    }

    fn reserve_tiles(&mut self, bytes_max: u64) -> Result<(), Error> {
        let Self { weights, budget, stream, .. } = self;
        weights.reserve(bytes_max, budget, stream)
    }

    fn reserve(&mut self, need: &ScratchNeed, rows_max: usize) -> Result<(), Error> {
        let sums = (need.k_major_outputs as u64).saturating_mul(rows_max as u64).saturating_mul(8);
        if sums > self.sums.buffer.as_ref().map_or(0, |buffer| buffer.bytes) {
            (self.sums.buffer, self.sums.next) = (None, None);
            self.stream.forget();
            let usage = BufferUsages::STORAGE;
            self.sums.buffer = Some(self.budget.buffer("partial sums", sums, usage, false)?);
        }
        Ok(())
    }

    fn allocated(&self) -> Allocated {
        let (device, host) = self.weights.resident_bytes();
        Allocated {
            buffers_bytes: self.arena.bytes(),
            weights_bytes: device + host,
            kv_bytes: self.cache.as_ref().map_or(0, Cache::bytes),
            scratch_bytes: self.scratch_bytes(),
        }
    }

    fn allocate(&mut self, len: usize) -> Result<BufferId, Error> {
        self.arena.allocate(&self.budget, len)
    }

    fn kv_allocate(&mut self, layout: &KvLayout) -> Result<(), Error> {
        if self.cache.is_some() {
            return Err(Error::shape("the KV cache is allocated already"));
        }
        self.cache = Some(Cache::new(layout, &self.budget)?);
        // They were not checked against it.
        self.rows.clear();
        Ok(())
    }

    fn upload(&mut self, shape: TileShape, bytes: HostBytes) -> Result<UploadId, Error> {
        self.weights.upload(shape, bytes)
    }

    fn release(&mut self, upload: UploadId) {
        // What fails here is told by the next op.
        let _ = self.weights.release(upload, &mut self.stream);
    }

    fn release_all(&mut self) {
        self.weights.release_all();
    }

    fn reset(&mut self) {
        self.forget();
    }

    fn pin(&mut self, shape: TileShape, bytes: HostBytes, home: Home) -> Result<WeightId, Error> {
        let Self { weights, budget, stream, transfer, .. } = self;
        weights.pin(shape, bytes, home, (budget, stream, transfer))
    }

    fn write(&mut self, dst: Mat, data: &[f32]) -> Result<(), Error> {
        if Some(data.len()) != dst.rows.checked_mul(dst.cols) {
            return Err(Error::shape(format!("{} values were given for {dst:?}", data.len())));
        }
        self.write_values(dst, data)
    }

    fn read(&mut self, src: Mat) -> Result<&[f32], Error> {
        let at = self.at(&src)?;
        if src.rows > 1 && src.stride != src.cols {
            return Err(Error::shape(format!("only dense matrices can be read, not {src:?}")));
        }
        let Self { context, budget, stream, transfer, .. } = self;
        transfer.read_values(context, budget, stream, (&at.buffer, at.offset, src.rows * src.cols))
    }

    fn set_rows(&mut self, rows: SweepRows<'_>) -> Result<(), Error> {
        self.rows.set(self.cache.as_ref().map(|cache| &cache.layout), rows)?;
        self.write_places()
    }

    fn matmul(&mut self, w: Weight, x: Mat, y: Mat) -> Result<(), Error> {
        self.multiply(w, x, y)
    }

    fn matmul_scaled(&mut self, w: Weight, scaling: &Scaling, x: Mat, y: Mat) -> Result<(), Error> {
        self.multiply_scaled(w, scaling, x, y)
    }

    fn matmul_k_major(&mut self, w: Weight, x: Mat, y: Mat, k0: usize, last: bool) -> Result<(), Error> {
        self.multiply_by_inputs(w, None, (x, y), k0, last)
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
        self.multiply_by_inputs(w, Some(scaling), (x, y), k0, last)
    }

    fn expand_numbers(
        &mut self,
        w: Weight,
        numbers: Numbers,
        nested: Option<Nested>,
        out: Mat,
    ) -> Result<(), Error> {
        self.expand_beside(w, numbers, nested, out)
    }

    fn expand_rows(&mut self, table: Tile<'_>, rows: &[u32], out: Mat) -> Result<(), Error> {
        self.expand_host_rows(table, rows, out)
    }

    fn gather_weights(&mut self, rows: &[(WeightId, u32)], out: Mat) -> Result<(), Error> {
        self.gather_resident(rows, out)
    }

    fn row_norms(&mut self, w: Weight, out: Mat) -> Result<(), Error> {
        self.norms_of_rows(w, out)
    }

    fn add_bias(&mut self, x: Mat, bias: Mat) -> Result<(), Error> {
        rules::shape(&bias, 1, x.cols, "the bias")?;
        rules::apart(&x, &bias)?;
        self.map(Map::Add, x, (Mat { stride: 0, ..bias }, 1), x)
    }

    fn rms_norm(&mut self, x: Mat, weight: Mat, eps: f32, out: Mat) -> Result<(), Error> {
        rules::shape(&weight, 1, weight.cols, "the norm's weight")?;
        if weight.cols == 0 || !x.cols.is_multiple_of(weight.cols) {
            return Err(Error::shape(format!("{} columns are not groups of {}", x.cols, weight.cols)));
        }
        rules::same_shape(&x, &out, "the output")?;
        rules::same_or_apart(&out, &x)?;
        rules::apart(&out, &weight)?;
        self.norm(x, Some(weight), weight.cols, eps, out)
    }

    fn layer_norm(&mut self, x: Mat, size: usize, eps: f32, out: Mat) -> Result<(), Error> {
        if size == 0 || !x.cols.is_multiple_of(size) {
            return Err(Error::shape(format!("{} columns are not groups of {size}", x.cols)));
        }
        rules::same_shape(&x, &out, "the output")?;
        rules::same_or_apart(&out, &x)?;
        self.norm(x, None, size, eps, out)
    }

    fn mul_columns(&mut self, x: Mat, factors: Mat) -> Result<(), Error> {
        rules::shape(&factors, 1, x.cols, "the row of factors")?;
        rules::apart(&x, &factors)?;
        self.map(Map::Multiply, x, (Mat { stride: 0, ..factors }, 1), x)
    }

    fn mul_rows(&mut self, x: Mat, factors: Mat) -> Result<(), Error> {
        rules::shape(&factors, x.rows, 1, "the column of factors")?;
        rules::apart(&x, &factors)?;
        self.map(Map::Multiply, x, (factors, 0), x)
    }

    fn rope(&mut self, x: Mat, rope: Rope, angles: Mat) -> Result<(), Error> {
        rules::rope(&x, &rope, &angles)?;
        let (at, table) = (self.at(&x)?, self.at(&angles)?);
        let (heads, half) = (x.cols / rope.head_dim, rope.rotary / 2);
        let interleaved = usize::from(rope.style == RopeStyle::Interleaved);
        let words = [at.offset, x.stride, table.offset, angles.stride, x.rows, heads, rope.head_dim];
        let words = Words::of(&words)?.and(&[rope.start, half, interleaved])?;
        let workgroups = ((heads * half).div_ceil(THREADS), x.rows);
        self.run(Kernel::Rope, &[&at.buffer, &table.buffer], &words, workgroups)
    }

    fn copy_heads(&mut self, x: Mat, copy: &HeadCopy, out: Mat) -> Result<(), Error> {
        rules::copy_heads(&x, copy, &out)?;
        let &HeadCopy { from_dim, from_start, to_dim, to_start, len } = copy;
        let more = [0, 0, from_dim, from_start, to_dim, to_start, len];
        self.copy(2, (x, out), (x.rows, x.cols / from_dim * len), &[], more)
    }

    fn kv_write(&mut self, layer: usize, k: Mat, v: Mat) -> Result<(), Error> {
        self.write_cache(layer, k, v)
    }

    fn kv_save(&mut self, page: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        self.save_page(page, take)
    }

    fn kv_load(&mut self, page: u32, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), Error> {
        self.load_page(page, fill)
    }

    fn kv_copy(&mut self, slots: &[(u32, u32)]) -> Result<(), Error> {
        self.copy_cache(slots)
    }

    fn attention(
        &mut self,
        layer: usize,
        q: Mat,
        out: Mat,
        shape: &Attention,
        extras: Extras<Mat>,
    ) -> Result<(), Error> {
        self.attend(layer, (q, out), shape, extras)
    }

    fn select_positions(
        &mut self,
        layer: usize,
        q: Mat,
        weights: Mat,
        out: Mat,
        index: &Index,
    ) -> Result<(), Error> {
        self.choose_positions(layer, (q, weights), out, index)
    }

    fn sparse_attention(
        &mut self,
        layer: usize,
        q: Mat,
        out: Mat,
        shape: &Attention,
        selected: Mat,
    ) -> Result<(), Error> {
        self.attend_chosen(layer, (q, out), shape, selected)
    }

    fn short_conv(
        &mut self,
        x: Mat,
        weights: Mat,
        bias: Option<Mat>,
        silu: bool,
        state: Mat,
    ) -> Result<(), Error> {
        self.convolve([x, weights, state], bias, silu)
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
        self.apply_delta_rule([x, strengths, parameters, state, out], rule)
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
        self.scan_states([x, steps, parameters, state, out], scan)
    }

    fn glu(&mut self, gate: Mat, up: Mat, activation: Activation, out: Mat) -> Result<(), Error> {
        for input in [gate, up] {
            rules::same_shape(&out, &input, "an input")?;
            rules::same_or_apart(&out, &input)?;
        }
        self.map(Map::Gated(activation), gate, (up, 1), out)
    }

    fn activate(&mut self, x: Mat, activation: Activation) -> Result<(), Error> {
        self.map(Map::Activate(activation), x, (x, 1), x)
    }

    fn add(&mut self, x: Mat, y: Mat) -> Result<(), Error> {
        rules::same_shape(&x, &y, "the summand")?;
        rules::apart(&x, &y)?;
        self.map(Map::Add, x, (y, 1), x)
    }

    fn mul(&mut self, x: Mat, y: Mat) -> Result<(), Error> {
        rules::same_shape(&x, &y, "the factors")?;
        rules::apart(&x, &y)?;
        self.map(Map::Multiply, x, (y, 1), x)
    }

    fn scale(&mut self, x: Mat, factor: f32) -> Result<(), Error> {
        self.map(Map::Scale(factor), x, (x, 1), x)
    }

    fn softcap(&mut self, x: Mat, cap: f32) -> Result<(), Error> {
        self.map(Map::Softcap(cap), x, (x, 1), x)
    }

    fn clip(&mut self, x: Mat, limit: f32) -> Result<(), Error> {
        self.map(Map::Clip(limit), x, (x, 1), x)
    }

    fn gather_rows(&mut self, x: Mat, rows: &[u32], out: Mat) -> Result<(), Error> {
        rules::rows(rows, x.rows, x.cols, &out)?;
        rules::apart(&out, &x)?;
        self.copy(0, (x, out), (rows.len(), x.cols), rows, [0; 7])
    }

    fn take_columns(&mut self, x: Mat, first: usize, step: usize, out: Mat) -> Result<(), Error> {
        rules::columns(&x, first, step, &out)?;
        rules::apart(&out, &x)?;
        self.copy(1, (x, out), (out.rows, out.cols), &[], [first, step, 0, 0, 0, 0, 0])
    }

    fn scatter_rows(&mut self, x: Mat, rows: &[u32], factors: &[f32], out: Mat) -> Result<(), Error> {
        rules::rows(rows, out.rows, out.cols, &x)?;
        rules::factors(factors, rows.len())?;
        rules::apart(&out, &x)?;
        let mut sorted = rows.to_vec();
        sorted.sort_unstable();
        let kind = if sorted.windows(2).any(|pair| pair[0] == pair[1]) { 5 } else { 4 };
        let list: Vec<u32> = rows.iter().copied().chain(factors.iter().map(|f| f.to_bits())).collect();
        self.copy(kind, (x, out), (rows.len(), x.cols), &list, [0; 7])
    }

    fn clear(&mut self, x: Mat) -> Result<(), Error> {
        self.copy(3, (x, x), (x.rows, x.cols), &[], [0; 7])
    }
}
