//! State spaces and gated convolutions.

use aerostat_arch::{GatedConvolution, Role, StateSpace, Vector};
use aerostat_backend::{Activation, Error, StateScan};

use super::compile::Compiler;
use super::{Op, Slice, Source};

impl Compiler<'_> {
    /// What a state space makes of `input`: the output of its last matrix.
    pub(super) fn space(&mut self, layer: usize, space: &StateSpace, input: Slice) -> Result<Slice, Error> {
        let s = space.shape;
        let gate = self.product((layer, Role::OutputGate), &space.gate, input, "output_gate");
        let x = self.product((layer, Role::Inputs), &space.inputs, input, "inputs");
        let steps = self.product((layer, Role::Step), &space.step, input, "steps");
        if let Some(factors) = space.factors {
            let (inner, shared) = (s.inner(), s.groups * s.state_dim);
            let parts = [
                gate,
                x.columns(0, inner),
                x.columns(inner, shared),
                x.columns(inner + shared, shared),
                steps,
            ];
            parts.into_iter().zip(factors).for_each(|(x, factor)| self.factor(x, factor));
        }
        self.convolve(x, (&space.convolution, space.convolution_bias.as_ref()), s.kernel, true);
        let parameters = Source::Decays {
            rate: space.rate.clone(),
            rate_is_log: true,
            bias: space.step_bias.clone(),
            skip: Some(Box::new(space.skip.clone())),
        };
        let parameters = self.constant("decays", (3, s.heads), parameters);
        let state = self.state("state", s.state());
        let mixed = self.rows("mixed", s.inner());
        let scan = StateScan {
            heads: s.heads,
            head_dim: s.head_dim,
            groups: s.groups,
            state_dim: s.state_dim,
            steps: s.steps,
        };
        self.emit(Op::StateScan { x, steps, parameters, state, scan, out: mixed });
        let gated = Op::Glu { gate, up: mixed, activation: Activation::Silu, out: mixed };
        if !space.norm_first {
            self.emit(gated.clone());
        }
        if let Some(norm) = &space.norm {
            self.norm("mixed_norm", norm, mixed.cols, mixed, mixed)?;
        }
        if space.norm_first {
            self.emit(gated);
        }
        let y = self.product((layer, Role::ScanOutput), &space.o, mixed, "y");
        if let Some([.., factor]) = space.factors {
            self.factor(y, factor);
        }
        Ok(y)
    }

    /// What a gated convolution makes of `input`.
    pub(super) fn gated_convolution(&mut self, layer: usize, c: &GatedConvolution, input: Slice) -> Slice {
        let before = self.product((layer, Role::InputGate), &c.before, input, "input_gate");
        let after = self.product((layer, Role::OutputGate), &c.after, input, "output_gate");
        let x = self.product((layer, Role::Inputs), &c.x, input, "inputs");
        self.emit(Op::Mul { x, y: before });
        self.convolve(x, (&c.convolution, c.bias.as_ref()), c.kernel, false);
        self.emit(Op::Mul { x, y: after });
        self.product((layer, Role::Output), &c.o, x, "y")
    }

    /// A short convolution in place, of as many channels as `x` has columns.
    pub(super) fn convolve(
        &mut self,
        x: Slice,
        (weights, bias): (&Vector, Option<&Vector>),
        kernel: usize,
        silu: bool,
    ) {
        let weights = self.constant("convolution", (kernel, x.cols), Source::Transposed(weights.clone()));
        let bias = bias.map(|bias| self.constant("bias", (1, x.cols), Source::Tensor(bias.clone())));
        let state = self.state("history", (kernel - 1) * x.cols);
        self.emit(Op::ShortConv { x, weights, bias, silu, state });
    }

    /// Scales by a factor that may be 1.
    pub(super) fn factor(&mut self, x: Slice, factor: f32) {
        if factor != 1.0 {
            self.emit(Op::Scale { x, factor });
        }
    }
}
