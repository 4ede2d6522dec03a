//! Attention over keys and values that are cached as they are.

use aerostat_arch::{AttentionSpec, Linear, Norm, Role, RopeStyle};
use aerostat_backend::{self as backend, Activation, Error, Extras, defect};

use super::compile::Compiler;
use super::{Op, Slice, Source};

impl Compiler<'_> {
    /// What attention makes of `input`: the output of its last matrix.
    pub(super) fn attention(
        &mut self,
        layer: usize,
        a: &AttentionSpec,
        input: Slice,
    ) -> Result<Slice, Error> {
        if let Some(latent) = &a.latent {
            return self.latent(layer, a, latent, input);
        }
        let own = a.k.as_ref().zip(a.v.as_ref());
        let (gate, q, kv) = match (&a.joined, own) {
            (Some(joined), Some((k, v))) => {
                let all = self.product((layer, Role::Q), joined, input, "qkv");
                let [q, k, v] = self.take_heads([("q", &a.q), ("k", k), ("v", v)], all);
                (self.output_gate(layer, a, input), q, Some([k, v]))
            }
            (_, own) => {
                let q = self.product((layer, Role::Q), &a.q, input, "q");
                let gate = self.output_gate(layer, a, input);
                let kv = own.map(|(k, v)| {
                    let k = self.product((layer, Role::K), k, input, "k");
                    [k, self.product((layer, Role::V), v, input, "v")]
                });
                (gate, q, kv)
            }
        };
        let mixed = self.attend(layer, a, q, kv)?;
        self.open_gate(gate, mixed);
        Ok(self.product((layer, Role::Output), &a.o, mixed, "y"))
    }

    /// Takes queries, keys and values out of the one matrix's outputs.
    fn take_heads(&mut self, parts: [(&'static str, &Linear); 3], all: Slice) -> [Slice; 3] {
        let mut first = 0;
        parts.map(|(name, linear)| {
            let out = self.rows(name, linear.weight.rows);
            self.emit(Op::TakeColumns { x: all, first, step: 1, out });
            first += out.cols;
            out
        })
    }

    /// The gate of attention's output, if it has one.
    pub(super) fn output_gate(&mut self, layer: usize, a: &AttentionSpec, input: Slice) -> Option<Slice> {
        let gate = a.gate.as_ref();
        gate.map(|gate| self.product((layer, Role::OutputGate), gate, input, "output_gate"))
    }

    /// Multiplies attention's output by the sigmoid of its gate.
    pub(super) fn open_gate(&mut self, gate: Option<Slice>, mixed: Slice) {
        if let Some(gate) = gate {
            self.emit(Op::Glu { gate, up: mixed, activation: Activation::Sigmoid, out: mixed });
        }
    }

    /// Once queries, keys and values are there: norms of heads, rotation, cache, attention. Without keys and values of its own it
    /// attends to those of another block.
    fn attend(
        &mut self,
        layer: usize,
        a: &AttentionSpec,
        q: Slice,
        kv: Option<[Slice; 2]>,
    ) -> Result<Slice, Error> {
        let keys = kv.map(|[k, _]| ("k_norm", k, &a.k_norm));
        for (name, x, norm) in [("q_norm", q, &a.q_norm)].into_iter().chain(keys) {
            if !a.norms_after_rope {
                self.head_norm(name, norm, x)?;
            }
            if let Some(limit) = a.clip {
                self.emit(Op::Clip { x, limit });
            }
            self.rotate(x, a.rope, (a.head_dim, 0), None)?;
            if a.norms_after_rope {
                self.head_norm(name, norm, x)?;
            }
        }
        if let Some(growth) = a.growth {
            let factors = self.growth(growth)?;
            self.emit(Op::MulRows { x: q, factors });
        }
        if let Some([k, v]) = kv {
            self.head_norm("v_norm", &a.v_norm, v)?;
            if let Some(limit) = a.clip {
                self.emit(Op::Clip { x: v, limit });
            }
            self.emit(Op::KvWrite { layer, k, v });
        }
        let layer = a.kv_of.unwrap_or(layer);
        let sinks = a.sinks.as_ref();
        let sinks = sinks.map(|v| self.constant("sinks", (1, a.heads), Source::Tensor(v.clone())));
        let biases = self.distance_biases(a)?;
        let out = self.rows("mixed", q.cols);
        self.emit(Op::Attention { layer, q, shape: shape(a), extras: Extras { sinks, biases }, out });
        Ok(out)
    }

    /// What is added to scores by distance: layers whose tensor is the same share it.
    fn distance_biases(&mut self, a: &AttentionSpec) -> Result<Option<Slice>, Error> {
        let Some(biases) = &a.biases else { return Ok(None) };
        let known = self.biases.iter().find(|(name, _)| *name == biases.table.name);
        if let Some((_, slice)) = known {
            return Ok(Some(*slice));
        }
        let shape = (a.heads, 2 * biases.reach() + 1);
        let slice = self.constant("biases", shape, Source::Buckets(biases.clone()));
        self.biases.push((biases.table.name.clone(), slice));
        Ok(Some(slice))
    }

    /// A norm over the heads of queries, keys or values, if there is one.
    fn head_norm(&mut self, name: &'static str, norm: &Option<Norm>, x: Slice) -> Result<(), Error> {
        norm.as_ref().map_or(Ok(()), |norm| self.norm(name, norm, x.cols, x, x))
    }

    /// Rotates each head of queries or keys from element `start` on, if there is a rope, in its style if no other is named.
    pub(super) fn rotate(
        &mut self,
        x: Slice,
        rope: Option<usize>,
        (head_dim, start): (usize, usize),
        style: Option<RopeStyle>,
    ) -> Result<(), Error> {
        let Some(rope) = rope else { return Ok(()) };
        let angles = self.angles(rope)?;
        let spec = self.spec.ropes.get(rope).ok_or_else(|| defect!("there is no rope {rope}"))?;
        let style = style.unwrap_or(spec.style);
        let rope = backend::Rope { head_dim, start, rotary: spec.rotated(), style };
        self.emit(Op::Rope { x, rope, angles });
        Ok(())
    }
}

fn shape(a: &AttentionSpec) -> backend::Attention {
    backend::Attention {
        heads: a.heads,
        kv_heads: a.kv_heads,
        key_dim: a.head_dim,
        value_dim: a.head_dim,
        values_in_keys: false,
        scale: a.scale,
        softcap: a.softcap,
        window: a.window,
        ahead: a.ahead,
        alibi: a.alibi,
    }
}
