//! The tensors of gated delta nets.

use super::part::Part;
use super::tensors::Tensors;
use crate::error::Error;
use crate::family::{Bias, DeltaNames};
use crate::spec::{DeltaNet, DeltaShape, Linear, Norm, NormKind, Runs};

impl Tensors<'_> {
    /// The delta net of a layer.
    pub(super) fn delta(&self, name: &dyn Fn(&str) -> String) -> Result<DeltaNet, Error> {
        let Some((family, delta)) = self.family.delta.as_ref().zip(self.shape.delta.as_ref()) else {
            return Err(self.stored.keys.defect("a layer may be a delta net, but the family has none"));
        };
        let n = if self.is_gguf() { &family.gguf_names } else { &family.names };
        let (s, hidden) = (delta.shape, self.shape.hidden);
        let linear =
            |pattern: &str, part: Part, cols: usize| self.linear(&name(pattern), Bias::Never, part, cols);
        let heads = Part::all(s.value_heads);
        let [q, k, v, gate] = self.delta_inputs(n, s, name)?;
        let (strength, decay) = match self.has(&name(n.strengths)) {
            true => (linear(n.strengths, Part::all(2 * s.value_heads), hidden)?, None),
            false => (linear(n.strength, heads, hidden)?, Some(linear(n.decay, heads, hidden)?)),
        };
        let values = s.value_heads * s.value_dim;
        Ok(DeltaNet {
            q,
            k,
            v,
            gate,
            strength,
            decay,
            o: linear(n.o, Part::all(hidden), values)?,
            convolution: self.convolution(&name(n.convolution), (s.channels(), s.kernel))?,
            rate: self.vector(&name(n.rate), &[s.value_heads], 0.0)?,
            rate_is_log: !self.is_gguf(),
            decay_bias: self.vector(&name(n.decay_bias), &[s.value_heads], 0.0)?,
            norm: Norm {
                kind: NormKind::Rms,
                size: s.value_dim,
                weight: Some(self.vector(&name(n.norm), &[s.value_dim], 0.0)?),
                further: Vec::new(),
                bias: None,
                eps: self.shape.eps,
            },
            shape: s,
        })
    }

    /// Queries, keys, values and the gate of outputs.
    fn delta_inputs(
        &self,
        n: &DeltaNames,
        s: DeltaShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<[Linear; 4], Error> {
        let linear =
            |pattern: &str, part: Part| self.linear(&name(pattern), Bias::Never, part, self.shape.hidden);
        let (keys, values) = (s.key_heads * s.key_dim, s.value_heads * s.value_dim);
        if !self.has(&name(n.joined)) {
            let part = |first, rows| linear(n.qkv, Part { first, rows, total: s.channels(), runs: None });
            return Ok([
                part(0, keys)?,
                part(keys, keys)?,
                part(2 * keys, values)?,
                linear(n.gate, Part::all(values))?,
            ]);
        }
        let group = values / s.key_heads;
        let stride = 2 * s.key_dim + 2 * group;
        let part = |first, rows| {
            let runs = (s.key_heads > 1).then_some(Runs { rows, stride });
            linear(n.joined, Part { first, rows: s.key_heads * rows, total: s.key_heads * stride, runs })
        };
        let after = 2 * s.key_dim;
        Ok([
            part(0, s.key_dim)?,
            part(s.key_dim, s.key_dim)?,
            part(after, group)?,
            part(after + group, group)?,
        ])
    }
}
