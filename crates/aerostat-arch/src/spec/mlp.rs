//! MLPs.

use aerostat_types::Activation;

use super::matrix::{Linear, Role};

/// An MLP: `down(activation(gate(x)) * up(x))`, or `down(activation(up(x)))` without a gate.
#[derive(Clone, Debug)]
pub struct MlpSpec {
    /// Makes the gate, `[intermediate, hidden]`; `None`: there is none, or `up` makes it too.
    pub gate: Option<Linear>,
    /// Makes what the gate multiplies, `[intermediate, hidden]`; where it makes the gate too, twice as many rows.
    pub up: Linear,
    /// How the gate lies among the outputs of `up`; `None`: `up` does not make it.
    pub joined: Option<Joined>,
    /// Makes the output, `[hidden, intermediate]`.
    pub down: Linear,
    /// The non-linearity of the gate, or of what `up` makes where there is no gate.
    pub activation: Activation,
    /// Of inputs of the gate, what lies so many standard deviations above the mean of their row is taken off, and what is left is at
    /// least 0; `None`: they stay as they are.
    pub cut: Option<f32>,
    /// Factors on what the activation is applied to, and on the output; 1 mostly.
    pub factors: (f32, f32),
}

/// How the outputs of gate and up lie in those of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// First all of the gate, then all of up.
    Halves,
    /// Gate, up, gate, up, and so on.
    Alternating,
}

impl MlpSpec {
    /// Its inner width: outputs of gate and of up.
    pub fn width(&self) -> usize {
        self.down.weight.cols
    }

    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let gate = self.gate.as_ref().map(|gate| (Role::Gate, gate));
        gate.into_iter().chain([(Role::Up, &self.up), (Role::Down, &self.down)])
    }

    /// Stored bytes of its matrices.
    pub fn bytes(&self) -> u64 {
        self.linears().map(|(_, linear)| linear.weight.bytes()).sum()
    }
}
