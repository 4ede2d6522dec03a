//! Gated delta nets: linear attention with a short causal convolution and a recurrent state.
//!
//! A value head keeps a matrix `S` of `key_dim` by `value_dim`. Each position, from what its row is multiplied to, gives it a
//! key `k`, a value `v`, a decay `d` and a strength `b`: `S` becomes `d S + k (b (v - k d S))`, and the head's output is `q S`.
//! Queries, keys and values have passed a convolution over the last few positions and are of unit length; outputs are
//! normalised, and multiplied by what a gate says. Of Kimi's delta nets each row of `S` has a decay of its own.

use aerostat_types::Activation;

use super::matrix::{Linear, Role};
use super::norm::Norm;
use super::vector::Vector;

/// A gated delta net.
#[derive(Clone, Debug)]
pub struct DeltaNet {
    /// Makes queries, `[key_heads * key_dim, hidden]`.
    pub q: Linear,
    /// Makes keys, `[key_heads * key_dim, hidden]`.
    pub k: Linear,
    /// Makes values, `[value_heads * value_dim, hidden]`.
    pub v: Linear,
    /// Compresses the input to what the gate is made of, `[rank, hidden]`; `None`: it is made of the input.
    pub gate_down: Option<Linear>,
    /// Makes the gate that the normalised output is multiplied by, element by element, `[value_heads * value_dim, hidden]`, or of
    /// what is compressed.
    pub gate: Linear,
    /// What the gate goes through.
    pub gate_activation: Activation,
    /// Makes strengths, `[value_heads, hidden]`. Without `decay` it has twice as many rows: for each key head the strengths
    /// of its value heads, then their decays.
    pub strength: Linear,
    /// Compresses the input to what decays are made of, `[rank, hidden]`; `None`: they are made of the input.
    pub decay_down: Option<Linear>,
    /// Makes decays, `[decays, hidden]`, or of what is compressed; `None`: `strength` does.
    pub decay: Option<Linear>,
    /// Makes the output, `[hidden, value_heads * value_dim]`.
    pub o: Linear,
    /// Weights of the convolution, `[channels, kernel]`, the last position's last; channels are queries, keys and values. One tensor,
    /// or one of each of the three.
    pub convolution: Vec<Vector>,
    /// How fast each value head forgets, `[value_heads]`, as `rate_is_log` says.
    pub rate: Vector,
    /// Whether `rate` holds the logarithms of the rates; else it holds the rates with the sign reversed.
    pub rate_is_log: bool,
    /// Added to decays, `[decays]`.
    pub decay_bias: Vector,
    /// Norm of the output, over each value head.
    pub norm: Norm,
    /// Its sizes.
    pub shape: DeltaShape,
}

/// The sizes of a gated delta net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaShape {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values; a multiple of `key_heads`.
    pub value_heads: usize,
    /// Elements of a head's query and key.
    pub key_dim: usize,
    /// Elements of a head's value.
    pub value_dim: usize,
    /// Positions that the convolution sees, a row's own included.
    pub kernel: usize,
    /// Whether value heads of different key heads take turns: value head `h` has key head `h % key_heads`. Else the first
    /// ones have the first key head.
    pub tiled: bool,
    /// Whether each row of a head's state has a decay of its own; else a head has one.
    pub each: bool,
}

impl DeltaShape {
    /// Elements of a row's queries, keys and values together.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }

    /// Decays of a row.
    pub fn decays(&self) -> usize {
        self.value_heads * if self.each { self.key_dim } else { 1 }
    }

    /// Elements that a sequence keeps of the inputs of its last positions, for the convolution.
    pub fn history(&self) -> usize {
        (self.kernel - 1) * self.channels()
    }

    /// Elements of a sequence's recurrent state: a matrix `[key_dim, value_dim]` for each value head.
    pub fn state(&self) -> usize {
        self.value_heads * self.key_dim * self.value_dim
    }
}

impl DeltaNet {
    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let inputs = [(Role::Q, &self.q), (Role::K, &self.k), (Role::V, &self.v)];
        let gate_down = self.gate_down.as_ref().map(|down| (Role::GateDown, down));
        let decay_down = self.decay_down.as_ref().map(|down| (Role::DecayDown, down));
        let decay = self.decay.as_ref().map(|decay| (Role::Decay, decay));
        inputs
            .into_iter()
            .chain(gate_down)
            .chain([(Role::OutputGate, &self.gate), (Role::Strength, &self.strength)])
            .chain(decay_down)
            .chain(decay)
            .chain([(Role::Output, &self.o)])
    }

    /// All its linear maps, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let inputs = [&mut self.q, &mut self.k, &mut self.v, &mut self.gate, &mut self.strength];
        let between = self.gate_down.iter_mut().chain(&mut self.decay_down).chain(&mut self.decay);
        inputs.into_iter().chain(between).chain([&mut self.o])
    }

    /// Its small tensors but for biases and the norm's.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.convolution.iter().chain([&self.rate, &self.decay_bias])
    }
}
