//! The tensors of gated delta nets.

use super::part::Part;
use super::tensors::Tensors;
use crate::error::Error;
use crate::family::{Bias, DeltaNames};
use crate::spec::{DeltaNet, DeltaShape, Linear, Norm, NormKind, Runs, Vector};

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
        let values = s.value_heads * s.value_dim;
        // What compresses is as wide as its tensor says.
        let down = |pattern: &str| match self.outputs(&name(pattern), hidden) {
            Some(rank) if !pattern.is_empty() => linear(pattern, Part::all(rank), hidden).map(Some),
            _ => Ok(None),
        };
        let rank = |down: &Option<Linear>| down.as_ref().map_or(hidden, |down| down.weight.rows);
        let (gate_down, decay_down) = (down(n.gate_down)?, down(n.decay_down)?);
        let [q, k, v] = self.delta_inputs(n, s, name)?;
        let gate = match self.delta_gate(n, s, name)? {
            Some(gate) => gate,
            None => linear(n.gate, Part::all(values), rank(&gate_down))?,
        };
        let (strength, decay) = match self.has(&name(n.strengths)) {
            true => (linear(n.strengths, Part::all(2 * s.value_heads), hidden)?, None),
            false => {
                let decay = linear(n.decay, Part::all(s.decays()), rank(&decay_down))?;
                (linear(n.strength, heads, hidden)?, Some(decay))
            }
        };
        Ok(DeltaNet {
            q,
            k,
            v,
            gate_down,
            gate,
            gate_activation: family.gate,
            strength,
            decay_down,
            decay,
            o: linear(n.o, Part::all(hidden), values)?,
            convolution: self.delta_convolution(n, s, name)?,
            rate: self.flat_vector(&name(n.rate), s.value_heads)?,
            rate_is_log: !self.is_gguf(),
            decay_bias: self.vector(&name(n.decay_bias), &[s.decays()], 0.0)?,
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

    /// The convolution of all channels, or those of queries, keys and values.
    fn delta_convolution(
        &self,
        n: &DeltaNames,
        s: DeltaShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Vec<Vector>, Error> {
        let [q, k, v] = n.convolutions;
        if q.is_empty() || self.has(&name(n.convolution)) {
            return Ok(vec![self.convolution(&name(n.convolution), (s.channels(), s.kernel))?]);
        }
        let (keys, values) = (s.key_heads * s.key_dim, s.value_heads * s.value_dim);
        let of = |(stem, channels): (&str, usize)| self.convolution(&name(stem), (channels, s.kernel));
        [(q, keys), (k, keys), (v, values)].into_iter().map(of).collect()
    }

    /// The gate of outputs, where it lies in one matrix with all else.
    fn delta_gate(
        &self,
        n: &DeltaNames,
        s: DeltaShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Option<Linear>, Error> {
        if n.apart.is_some() || !self.has(&name(n.joined)) {
            return Ok(None);
        }
        let group = s.value_heads * s.value_dim / s.key_heads;
        self.delta_joined(n, s, (2 * s.key_dim + group, group), name).map(Some)
    }

    /// A part of one matrix of all inputs: for each key head so many rows, from the first on.
    fn delta_joined(
        &self,
        n: &DeltaNames,
        s: DeltaShape,
        (first, rows): (usize, usize),
        name: &dyn Fn(&str) -> String,
    ) -> Result<Linear, Error> {
        let stride = 2 * s.key_dim + 2 * (s.value_heads * s.value_dim / s.key_heads);
        let runs = (s.key_heads > 1).then_some(Runs { rows, stride });
        let part = Part { first, rows: s.key_heads * rows, total: s.key_heads * stride, runs };
        self.linear(&name(n.joined), Bias::Never, part, self.shape.hidden)
    }

    /// Queries, keys and values.
    fn delta_inputs(
        &self,
        n: &DeltaNames,
        s: DeltaShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<[Linear; 3], Error> {
        let linear =
            |pattern: &str, part: Part| self.linear(&name(pattern), Bias::Never, part, self.shape.hidden);
        let (keys, values) = (s.key_heads * s.key_dim, s.value_heads * s.value_dim);
        if let Some([q, k, v]) = n.apart {
            let whole = |pattern: &str, rows| linear(pattern, Part::all(rows));
            return Ok([whole(q, keys)?, whole(k, keys)?, whole(v, values)?]);
        }
        if !self.has(&name(n.joined)) {
            let part = |first, rows| linear(n.qkv, Part { first, rows, total: s.channels(), runs: None });
            return Ok([part(0, keys)?, part(keys, keys)?, part(2 * keys, values)?]);
        }
        let part = |first, rows| self.delta_joined(n, s, (first, rows), name);
        let after = 2 * s.key_dim;
        Ok([part(0, s.key_dim)?, part(s.key_dim, s.key_dim)?, part(after, values / s.key_heads)?])
    }
}
