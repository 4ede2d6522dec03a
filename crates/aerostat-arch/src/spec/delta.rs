//! Gated delta nets: linear attention with a short causal convolution and a recurrent state.
//!
//! A value head keeps a matrix `S` of `key_dim` by `value_dim`. Each position, from what its row is multiplied to, gives it a
//! key `k`, a value `v`, a decay `d` and a strength `b`: `S` becomes `d S + k (b (v - k d S))`, and the head's output is `q S`.
//! Queries, keys and values have passed a convolution over the last few positions and are of unit length; outputs are
//! normalised, and multiplied by what a gate says.

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
    /// Makes the gate whose SiLU the normalised output is multiplied by, element by element, `[value_heads * value_dim, hidden]`.
    pub gate: Linear,
    /// Makes strengths, `[value_heads, hidden]`. Without `decay` it has twice as many rows: for each key head the strengths
    /// of its value heads, then their decays.
    pub strength: Linear,
    /// Makes decays, `[value_heads, hidden]`; `None`: `strength` does.
    pub decay: Option<Linear>,
    /// Makes the output, `[hidden, value_heads * value_dim]`.
    pub o: Linear,
    /// Weights of the convolution, `[channels, kernel]`, the last position's last; channels are queries, keys and values.
    pub convolution: Vector,
    /// How fast each value head forgets, `[value_heads]`, as `rate_is_log` says.
    pub rate: Vector,
    /// Whether `rate` holds the logarithms of the rates; else it holds the rates with the sign reversed.
    pub rate_is_log: bool,
    /// Added to decays, `[value_heads]`.
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
}

impl DeltaShape {
    /// Elements of a row's queries, keys and values together.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
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
        let inputs =
            [(Role::Q, &self.q), (Role::K, &self.k), (Role::V, &self.v), (Role::OutputGate, &self.gate)];
        let decay = self.decay.as_ref().map(|decay| (Role::Decay, decay));
        inputs
            .into_iter()
            .chain([(Role::Strength, &self.strength)])
            .chain(decay)
            .chain([(Role::Output, &self.o)])
    }

    /// All its linear maps, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let inputs = [&mut self.q, &mut self.k, &mut self.v, &mut self.gate, &mut self.strength];
        inputs.into_iter().chain(&mut self.decay).chain([&mut self.o])
    }

    /// Its small tensors but for biases and the norm's.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        [&self.convolution, &self.rate, &self.decay_bias].into_iter()
    }
}
