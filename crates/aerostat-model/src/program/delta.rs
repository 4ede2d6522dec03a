//! Gated delta nets: a short convolution, a recurrent state, a gated norm.

use aerostat_arch::{DeltaNet, Role};
use aerostat_backend::{Activation, DeltaRule, Error};

use super::compile::Compiler;
use super::{Op, Slice, Source};

/// Added to the sum of squares of a query or key before it is made a unit vector.
const UNIT_EPS: f32 = 1e-6;

impl Compiler<'_> {
    /// What it makes of `input`: the output of its last matrix.
    pub(super) fn delta(&mut self, layer: usize, delta: &DeltaNet, input: Slice) -> Result<Slice, Error> {
        let s = delta.shape;
        let keys = s.key_heads * s.key_dim;
        let x = self.rows("qkv", s.channels());
        let (q, k) = (x.columns(0, keys), x.columns(keys, keys));
        let v = x.columns(2 * keys, s.value_heads * s.value_dim);
        for (role, linear, y) in [(Role::Q, &delta.q, q), (Role::K, &delta.k, k), (Role::V, &delta.v, v)] {
            self.product_into((layer, role), linear, input, y);
        }
        let gate_input = match &delta.gate_down {
            Some(down) => self.product((layer, Role::GateDown), down, input, "gate_low"),
            None => input,
        };
        let gate = self.product((layer, Role::OutputGate), &delta.gate, gate_input, "output_gate");
        let strengths = self.rows("strengths", s.value_heads + s.decays());
        let strength = strengths.columns(0, delta.strength.weight.rows);
        self.product_into((layer, Role::Strength), &delta.strength, input, strength);
        if let Some(decay) = &delta.decay {
            let y = strengths.columns(s.value_heads, s.decays());
            let input = match &delta.decay_down {
                Some(down) => self.product((layer, Role::DecayDown), down, input, "decay_low"),
                None => input,
            };
            self.product_into((layer, Role::Decay), decay, input, y);
            if s.each {
                self.decays(delta, y);
            }
        }
        self.convolve(x, (&delta.convolution, None), s.kernel, true);
        // A root-mean-square norm with these weights gives unit vectors; those of queries are scaled besides.
        let size = s.key_dim as f64;
        for (x, unit) in [(q, 1.0 / size), (k, 1.0 / size.sqrt())] {
            let weight = self.constant("unit", (1, s.key_dim), Source::Fill(unit as f32));
            self.emit(Op::RmsNorm { x, weight, eps: UNIT_EPS / s.key_dim as f32, out: x });
        }
        let mixed = self.recur(delta, x, strengths);
        self.norm("mixed_norm", &delta.norm, delta.norm.size, mixed, mixed)?;
        self.emit(Op::Glu { gate, up: mixed, activation: delta.gate_activation, out: mixed });
        Ok(self.product((layer, Role::Output), &delta.o, mixed, "y"))
    }

    /// Makes decays of their arguments: `e^(-rate * softplus(argument + bias))`, a rate for all rows of a head's state.
    fn decays(&mut self, delta: &DeltaNet, x: Slice) {
        let bias = self.constant("decay_bias", (1, x.cols), Source::Tensor(delta.decay_bias.clone()));
        self.emit(Op::AddBias { x, bias });
        self.emit(Op::Activate { x, activation: Activation::Softplus });
        let rates = Source::Rates { rate: delta.rate.clone(), times: delta.shape.key_dim };
        let factors = self.constant("rates", (1, x.cols), rates);
        self.emit(Op::MulColumns { x, factors });
        self.emit(Op::Activate { x, activation: Activation::Exp });
    }

    /// What the queries read of the state.
    fn recur(&mut self, delta: &DeltaNet, x: Slice, strengths: Slice) -> Slice {
        let s = delta.shape;
        let parameters = match s.each {
            // Decays are there already.
            true => Source::Fill(0.0),
            false => Source::Decays {
                rate: delta.rate.clone(),
                rate_is_log: delta.rate_is_log,
                bias: delta.decay_bias.clone(),
                skip: None,
            },
        };
        let parameters = self.constant("decays", (2, s.value_heads), parameters);
        let rule = DeltaRule {
            key_heads: s.key_heads,
            value_heads: s.value_heads,
            key_dim: s.key_dim,
            value_dim: s.value_dim,
            run: if delta.decay.is_some() { s.value_heads } else { s.value_heads / s.key_heads },
            tiled: s.tiled,
            each: s.each,
        };
        let state = self.state("state", s.state());
        let out = self.rows("mixed", s.value_heads * s.value_dim);
        self.emit(Op::DeltaRule { x, strengths, parameters, state, rule, out });
        out
    }
}
