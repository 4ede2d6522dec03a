//! Attention over what is in the cache, and recurrent states.

use aerostat_backend::{
    Attention, DeltaRule, Error, ErrorKind, Extras, Index, Mat, StateScan, Window, numerics, rules,
};
use wgpu::BufferUsages;

use crate::budget::Buffer;
use crate::gpu::{Gpu, Scratch};
use crate::memory::At;
use crate::pipelines::{AttentionShape, Kernel, Words};

/// Elements of a key at most: a query has its place in memory that threads share.
const KEY_DIM_MAX: usize = 2048;
/// Scores of positions that are held at a time, in bytes.
pub(crate) const SCORES_BYTES: usize = 4 << 20;

impl Gpu {
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        (q, out): (Mat, Mat),
        shape: &Attention,
        extras: Extras<Mat>,
    ) -> Result<(), Error> {
        let cache = self.cached()?;
        let widths = rules::attention(shape)?;
        rules::shape(&q, q.rows, shape.heads * shape.key_dim, "the queries")?;
        rules::shape(&out, q.rows, shape.heads * shape.value_dim, "the output")?;
        rules::apart(&out, &q)?;
        self.rows.places(&cache.layout, layer, widths, q.rows, shape.window)?;
        rules::heads(&cache.layout, layer, shape.kv_heads)?;
        if let Some(sinks) = extras.sinks {
            rules::shape(&sinks, 1, shape.heads, "the sinks")?;
            rules::apart(&out, &sinks)?;
        }
        if let Some(biases) = extras.biases {
            rules::shape(&biases, shape.heads, biases.cols | 1, "the biases")?;
            rules::apart(&out, &biases)?;
        }
        self.attention_over(layer, (q, out), shape, extras, None)
    }

    pub(crate) fn attend_chosen(
        &mut self,
        layer: usize,
        (q, out): (Mat, Mat),
        shape: &Attention,
        selected: Mat,
    ) -> Result<(), Error> {
        let cache = self.cached()?;
        rules::heads(&cache.layout, layer, shape.kv_heads)?;
        rules::check_attention(&cache.layout, layer, [q, out, selected], shape, &self.rows)?;
        self.attention_over(layer, (q, out), shape, Extras::NONE, Some(selected))
    }

    fn attention_over(
        &mut self,
        layer: usize,
        (q, out): (Mat, Mat),
        shape: &Attention,
        Extras { sinks, biases }: Extras<Mat>,
        selected: Option<Mat>,
    ) -> Result<(), Error> {
        let &Attention { heads, kv_heads, key_dim, value_dim, values_in_keys, scale, softcap, .. } = shape;
        if key_dim > KEY_DIM_MAX {
            let message = format!("heads of {key_dim} elements are more than the GPU's kernel has room for");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let cache = self.cached()?;
        let ([keys, values], page_tokens) = (cache.layer(layer)?, cache.layout.page_tokens);
        let (places, _) = self.placed()?;
        let (from, to) = (self.at(&q)?, self.at(&out)?);
        let sinks_at = sinks.map(|sinks| self.at(&sinks)).transpose()?;
        // Biases are where chosen positions would be: no attention has both.
        let beside = selected.or(biases);
        let chosen = beside.map(|beside| self.at(&beside)).transpose()?;
        let slopes = match shape.alibi {
            Some(biases) => Some(self.slopes_of(biases, heads)?),
            None => None,
        };
        let (window, size) = match shape.window {
            None => (0, 0),
            Some(Window::Last(n)) => (1, n.min(u32::MAX as usize)),
            Some(Window::Chunk(n)) => (2, n.min(u32::MAX as usize)),
            // No position is as large.
            Some(Window::Around(n)) => (3, n.min(1 << 30)),
        };
        let offset = |at: &Option<At>| at.as_ref().map_or(0, |at| at.offset);
        let (stride, count) = beside.map_or((0, 0), |beside| (beside.stride, beside.cols));
        let words = [from.offset, q.stride, to.offset, out.stride, offset(&sinks_at), q.rows];
        let alibi = shape.alibi.map_or(0, |alibi| 1 + usize::from(alibi.rounded));
        let words = Words::of(&words)?
            .and(&[heads, kv_heads, page_tokens, keys.at, values.at, window, size])?
            .and(&[offset(&chosen), stride, count])?
            .and(&[
                usize::from(sinks.is_some()),
                usize::from(softcap.is_some()),
                alibi,
                usize::from(shape.ahead),
            ])?
            .floats(&[scale, softcap.unwrap_or(1.0)])?;
        let kernel = Kernel::Attention(AttentionShape {
            key: keys.element,
            value: values.element,
            key_dim: key_dim as u32,
            value_dim: value_dim as u32,
            values_in_keys,
            selected: selected.is_some(),
        });
        let sinks = sinks_at.as_ref().map_or(&from.buffer, |at| &at.buffer);
        let chosen = chosen.as_ref().map_or(&from.buffer, |at| &at.buffer);
        let slopes = slopes.as_ref().unwrap_or(&places);
        let buffers =
            [&places, &from.buffer, &to.buffer, sinks, chosen, &keys.buffer, &values.buffer, slopes];
        self.run(kernel, &buffers, &words, (heads, q.rows))
    }

    /// The slopes of heads, on the device.
    fn slopes_of(&mut self, biases: aerostat_backend::Alibi, heads: usize) -> Result<Buffer, Error> {
        let key = (biases.most, biases.rounded, heads);
        if let Some(buffer) = self.slopes.get(&key) {
            return Ok(buffer.clone());
        }
        let slopes: Vec<u32> =
            (0..heads).map(|head| numerics::alibi_slope(biases, heads, head).to_bits()).collect();
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let buffer = self.budget.buffer("slopes of heads", heads as u64 * 4, usage, false)?;
        self.write_words(&slopes, (&buffer, 0))?;
        self.slopes.insert(key, buffer.clone());
        Ok(buffer)
    }

    pub(crate) fn choose_positions(
        &mut self,
        layer: usize,
        (q, weights): (Mat, Mat),
        out: Mat,
        index: &Index,
    ) -> Result<(), Error> {
        let cache = self.cached()?;
        let places = rules::check_index(&cache.layout, layer, [q, weights, out], index, &self.rows)?;
        let pitch = places.rows.iter().map(|place| place.position as usize + 1).max().unwrap_or(1);
        let ([_, keys], page_tokens) = (cache.layer(layer)?, cache.layout.page_tokens);
        let (places, _) = self.placed()?;
        let (queries, factors, to) = (self.at(&q)?, self.at(&weights)?, self.at(&out)?);
        let together = (SCORES_BYTES / 4 / pitch).clamp(1, q.rows.max(1));
        let scores = self.scratch(Scratch::Scores, together * pitch)?;
        for first in (0..q.rows).step_by(together) {
            let rows = together.min(q.rows - first);
            let words = [queries.offset, q.stride, factors.offset, weights.stride, index.heads, page_tokens];
            let words = Words::of(&words)?.and(&[keys.at, first, rows, pitch])?.floats(&[index.scale])?;
            let kernel = Kernel::IndexScore { key: keys.element, dim: index.dim as u32 };
            let buffers = [&places, &queries.buffer, &factors.buffer, &keys.buffer, &scores];
            self.run(kernel, &buffers, &words, (pitch.div_ceil(64), rows))?;
            let words = Words::of(&[to.offset, out.stride, first, rows, pitch, out.cols])?;
            self.run(Kernel::Select, &[&places, &scores, &to.buffer], &words, (1, rows))?;
        }
        Ok(())
    }

    pub(crate) fn convolve(
        &mut self,
        [x, weights, state]: [Mat; 3],
        bias: Option<Mat>,
        silu: bool,
    ) -> Result<(), Error> {
        rules::check_conv([x, weights, state], bias)?;
        let count = self.rows.runs(x.rows, state.rows)?.len();
        let (places, runs) = self.placed()?;
        let (at, factors, kept) = (self.at(&x)?, self.at(&weights)?, self.at(&state)?);
        let words = [at.offset, x.stride, factors.offset, weights.stride, weights.rows, kept.offset];
        let added = self.at(&bias.unwrap_or(weights))?;
        let options = [added.offset, usize::from(bias.is_some()), usize::from(silu)];
        let words = Words::of(&words)?.and(&[state.stride, x.cols, runs, count])?.and(&options)?;
        let buffers = [&places, &at.buffer, &factors.buffer, &kept.buffer, &added.buffer];
        self.run(Kernel::ShortConv, &buffers, &words, (x.cols.div_ceil(64), count))
    }

    pub(crate) fn apply_delta_rule(
        &mut self,
        [x, strengths, parameters, state, out]: [Mat; 5],
        rule: &DeltaRule,
    ) -> Result<(), Error> {
        rules::check_rule([x, strengths, parameters, state, out], rule)?;
        let count = self.rows.runs(x.rows, state.rows)?.len();
        let (places, runs) = self.placed()?;
        let mut words = Words::default();
        let mut buffers = vec![places];
        for mat in [x, strengths, parameters, state, out] {
            let at = self.at(&mat)?;
            words = words.and(&[at.offset, mat.stride])?;
            buffers.push(at.buffer);
        }
        let &DeltaRule { key_heads, value_heads, key_dim, value_dim, run, tiled, each } = rule;
        let options = usize::from(tiled) + 2 * usize::from(each);
        let words = words.and(&[key_heads, value_heads, key_dim, value_dim, run, options, runs, count])?;
        let buffers: Vec<&Buffer> = buffers.iter().collect();
        let groups = ((value_heads * value_dim).div_ceil(64), count);
        self.run(Kernel::DeltaRule, &buffers, &words, groups)
    }

    pub(crate) fn scan_states(
        &mut self,
        [x, steps, parameters, state, out]: [Mat; 5],
        scan: &StateScan,
    ) -> Result<(), Error> {
        rules::check_scan([x, steps, parameters, state, out], scan)?;
        let count = self.rows.runs(x.rows, state.rows)?.len();
        let (places, runs) = self.placed()?;
        let mut words = Words::default();
        let mut buffers = vec![places];
        for mat in [x, steps, parameters, state, out] {
            let at = self.at(&mat)?;
            words = words.and(&[at.offset, mat.stride])?;
            buffers.push(at.buffer);
        }
        let &StateScan { heads, head_dim, groups, state_dim, steps: (least, most), each } = scan;
        let words = words.and(&[heads, head_dim, groups, state_dim, runs, count, usize::from(each)])?;
        // Shaders know no infinity.
        let words = words.floats(&[least, most.min(f32::MAX)])?;
        let buffers: Vec<&Buffer> = buffers.iter().collect();
        let workgroups = ((heads * head_dim).div_ceil(64), count);
        self.run(Kernel::StateScan, &buffers, &words, workgroups)
    }
}
