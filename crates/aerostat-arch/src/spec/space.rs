//! State spaces (Mamba 2): a short causal convolution, a selective scan of a recurrent state, and a gate.
//!
//! A head keeps a matrix `S` of `state_dim` by `head_dim`. Each position, from what its row is multiplied to, gives it an input
//! `x`, a time step `t`, and, shared by the heads of a group, what it writes with, `b`, and what it reads with, `c`. `S` becomes
//! `e^(-rate t) S + b (t x)`, and the head's output is `c S + skip x`.
//!
//! In the first Mamba, steps, `b` and `c` are made of what passed the convolution, each element of `x` has a time step, and each
//! element of `S` a rate. Lightning attention is such a scan with steps of 1, that writes with keys and reads with queries.

use aerostat_types::Activation;

use super::matrix::{Linear, Role};
use super::norm::Norm;
use super::vector::Vector;

/// A state space.
#[derive(Clone, Debug)]
pub struct StateSpace {
    /// Makes the gate whose SiLU the output is multiplied by, element by element, `[heads * head_dim, hidden]`.
    pub gate: Linear,
    /// Makes what passes the convolution, `[channels, hidden]`: inputs of all heads, then, unless it is `selective`, what each group
    /// writes with, then what each reads with.
    pub inputs: Linear,
    /// Makes the arguments of time steps, `[heads, hidden]`; where it is `selective`, time steps' arguments themselves, `[inner, rank]`.
    pub step: Linear,
    /// What the first Mamba has besides; `None`: it is of the second.
    pub selective: Option<Selective>,
    /// Makes the output, `[hidden, heads * head_dim]`.
    pub o: Linear,
    /// Weights of the convolution, `[channels, kernel]`, the last position's last.
    pub convolution: Vector,
    /// Added to what the convolution gives, `[channels]`; `None`: nothing is.
    pub convolution_bias: Option<Vector>,
    /// How fast each head forgets, `[heads]`, or each element of a state, `[inner, state_dim]`.
    pub rate: Vector,
    /// Whether `rate` holds the logarithms of the rates; else it holds the rates with the sign reversed.
    pub rate_is_log: bool,
    /// Added to the arguments of time steps, `[heads]`; `None` where it is `selective`: `step` has a bias.
    pub step_bias: Option<Vector>,
    /// How much of its input each head's output takes, `[heads]`, or each element's, `[inner]`.
    pub skip: Vector,
    /// Norm of the output; `None`: it is not normalised.
    pub norm: Option<Norm>,
    /// Whether the output is normalised before it is gated; else after.
    pub norm_first: bool,
    /// Factors on the gate, on inputs, on what is written with, on what is read with, on time steps, and on the output; `None`: 1
    /// each.
    pub factors: Option<[f32; 6]>,
    /// Its sizes.
    pub shape: SpaceShape,
}

/// What the first Mamba has besides.
#[derive(Clone, Debug)]
pub struct Selective {
    /// Makes what time steps are made of, `[rank, inner]`.
    pub step_down: Linear,
    /// Makes what the space writes with, then what it reads with, `[2 * state_dim, inner]`.
    pub read_write: Linear,
    /// Norms of what time steps are made of, of what is written with and of what is read with; `None`: there are none.
    pub norms: Option<[Norm; 3]>,
}

/// The sizes of a state space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpaceShape {
    /// Heads, each with a state of its own.
    pub heads: usize,
    /// Elements of a head's input and output.
    pub head_dim: usize,
    /// Groups of heads that share what they write with and read with; divides `heads`.
    pub groups: usize,
    /// Rows of a head's state.
    pub state_dim: usize,
    /// Positions that the convolution sees, a row's own included.
    pub kernel: usize,
    /// The least time step, and the largest.
    pub steps: (f32, f32),
    /// It is of the first Mamba: heads are but parts of its channels.
    pub selective: bool,
}

impl SpaceShape {
    /// Elements of all heads' inputs, and of their outputs.
    pub fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of a row that pass the convolution.
    pub fn channels(&self) -> usize {
        self.inner() + if self.selective { 0 } else { 2 * self.groups * self.state_dim }
    }

    /// Elements that a sequence keeps of the inputs of its last positions, for the convolution.
    pub fn history(&self) -> usize {
        (self.kernel - 1) * self.channels()
    }

    /// Elements of a sequence's recurrent state: a matrix `[state_dim, head_dim]` for each head.
    pub fn state(&self) -> usize {
        self.inner() * self.state_dim
    }
}

impl StateSpace {
    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let selective = self.selective.iter().flat_map(|selective| {
            [(Role::StepDown, &selective.step_down), (Role::ReadWrite, &selective.read_write)]
        });
        let inputs = [(Role::OutputGate, &self.gate), (Role::Inputs, &self.inputs)];
        inputs.into_iter().chain(selective).chain([(Role::Step, &self.step), (Role::ScanOutput, &self.o)])
    }

    /// All its linear maps, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let selective = self.selective.iter_mut();
        let selective = selective.flat_map(|own| [&mut own.step_down, &mut own.read_write]);
        [&mut self.gate, &mut self.inputs, &mut self.step, &mut self.o].into_iter().chain(selective)
    }

    /// Its small tensors but for biases of matrices.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let own = [&self.convolution, &self.rate, &self.skip];
        let selective = self.selective.iter().flat_map(|own| own.norms.iter().flatten());
        let norms = self.norm.iter().chain(selective).flat_map(Norm::vectors);
        own.into_iter().chain(&self.step_bias).chain(&self.convolution_bias).chain(norms)
    }
}

/// A gated short convolution: `o(after * convolve(before * x))`, where all three are made of a row, and each of its elements is
/// convolved with those of the last positions.
#[derive(Clone, Debug)]
pub struct GatedConvolution {
    /// Makes what the input is multiplied by before the convolution, `[hidden, hidden]`.
    pub before: Linear,
    /// Makes what the convolution's output is multiplied by, `[hidden, hidden]`.
    pub after: Linear,
    /// Makes the input, `[hidden, hidden]`.
    pub x: Linear,
    /// Makes the output, `[hidden, hidden]`.
    pub o: Linear,
    /// Weights of the convolution, `[hidden, kernel]`, the last position's last.
    pub convolution: Vector,
    /// Added to what the convolution gives, `[hidden]`; `None`: nothing is.
    pub bias: Option<Vector>,
    /// Positions that the convolution sees, a row's own included.
    pub kernel: usize,
}

impl GatedConvolution {
    /// Elements that a sequence keeps of the inputs of its last positions.
    pub fn history(&self) -> usize {
        (self.kernel - 1) * self.x.weight.rows
    }

    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let inputs =
            [(Role::InputGate, &self.before), (Role::OutputGate, &self.after), (Role::Inputs, &self.x)];
        inputs.into_iter().chain([(Role::Output, &self.o)])
    }

    /// All its linear maps, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [&mut self.before, &mut self.after, &mut self.x, &mut self.o].into_iter()
    }

    /// Its small tensors but for biases of matrices.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        [&self.convolution].into_iter().chain(&self.bias)
    }
}

/// Lightning attention: a head keeps a matrix of keys by values, of which a position leaves `e^-slope`, and to which it adds its key
/// times its value; its output is what its query reads of that, normalised and gated.
#[derive(Clone, Debug)]
pub struct Lightning {
    /// Makes queries, `[heads * head_dim, hidden]`.
    pub q: Linear,
    /// Makes keys, `[heads * head_dim, hidden]`.
    pub k: Linear,
    /// Makes values, `[heads * head_dim, hidden]`.
    pub v: Linear,
    /// Makes the gate whose sigmoid the normalised output is multiplied by, element by element, `[heads * head_dim, hidden]`.
    pub gate: Linear,
    /// Makes the output, `[hidden, heads * head_dim]`.
    pub o: Linear,
    /// Norm of the output, over all heads together.
    pub norm: Norm,
    /// What queries, keys and values go through.
    pub activation: Activation,
    /// How fast each head forgets.
    pub slopes: Vec<f32>,
    /// Elements of a head.
    pub head_dim: usize,
}

impl Lightning {
    /// Elements of a sequence's recurrent state: a matrix `[head_dim, head_dim]` for each head.
    pub fn state(&self) -> usize {
        self.slopes.len() * self.head_dim * self.head_dim
    }

    /// Its linear maps in the order of use.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let inputs = [(Role::Q, &self.q), (Role::K, &self.k), (Role::V, &self.v)];
        inputs.into_iter().chain([(Role::OutputGate, &self.gate), (Role::Output, &self.o)])
    }

    /// All its linear maps, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [&mut self.q, &mut self.k, &mut self.v, &mut self.gate, &mut self.o].into_iter()
    }

    /// Its small tensors but for biases of matrices.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.norm.vectors()
    }
}
