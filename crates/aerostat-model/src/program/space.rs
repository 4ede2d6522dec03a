//! State spaces, lightning attention and gated convolutions.

use aerostat_arch::{GatedConvolution, Lightning, Role, Selective, StateSpace, Vector};
use aerostat_backend::{Activation, Error, HeadCopy, StateScan, defect};

use super::compile::Compiler;
use super::{Op, Slice, Source};

impl Compiler<'_> {
    /// What a state space makes of `input`: the output of its last matrix.
    pub(super) fn space(&mut self, layer: usize, space: &StateSpace, input: Slice) -> Result<Slice, Error> {
        let s = space.shape;
        let gate = self.product((layer, Role::OutputGate), &space.gate, input, "output_gate");
        let x = self.rows("inputs", s.inner() + 2 * s.groups * s.state_dim);
        let passing = x.columns(0, s.channels());
        self.product_into((layer, Role::Inputs), &space.inputs, input, passing);
        let convolution = (std::slice::from_ref(&space.convolution), space.convolution_bias.as_ref());
        let (steps, parameters) = match &space.selective {
            Some(selective) => {
                self.convolve(passing, convolution, s.kernel, true);
                (self.select(layer, space, selective, x)?, self.channel_decays(space))
            }
            None => {
                let steps = self.product((layer, Role::Step), &space.step, input, "steps");
                self.space_factors(space, [gate, x, steps]);
                self.convolve(passing, convolution, s.kernel, true);
                (steps, self.head_decays(space)?)
            }
        };
        let state = self.state("state", s.state());
        let mixed = self.rows("mixed", s.inner());
        let scan = StateScan {
            heads: s.heads,
            head_dim: s.head_dim,
            groups: s.groups,
            state_dim: s.state_dim,
            steps: s.steps,
            each: s.selective,
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

    /// Multiplies the parts of what a state space reads by their factors.
    fn space_factors(&mut self, space: &StateSpace, [gate, x, steps]: [Slice; 3]) {
        let Some(factors) = space.factors else { return };
        let (inner, shared) = (space.shape.inner(), space.shape.groups * space.shape.state_dim);
        let parts =
            [gate, x.columns(0, inner), x.columns(inner, shared), x.columns(inner + shared, shared), steps];
        parts.into_iter().zip(factors).for_each(|(x, factor)| self.factor(x, factor));
    }

    /// Of what passed the convolution: what the space writes and reads with, behind it in `x`, and the time steps of its elements.
    fn select(
        &mut self,
        layer: usize,
        space: &StateSpace,
        selective: &Selective,
        x: Slice,
    ) -> Result<Slice, Error> {
        let s = space.shape;
        let passed = x.columns(0, s.inner());
        let low = self.product((layer, Role::StepDown), &selective.step_down, passed, "step_low");
        let both = self.product((layer, Role::ReadWrite), &selective.read_write, passed, "read_write");
        if let Some([steps, write, read]) = &selective.norms {
            self.norm("step_norm", steps, low.cols, low, low)?;
            for (name, norm, first) in [("write_norm", write, 0), ("read_norm", read, s.state_dim)] {
                let part = both.columns(first, s.state_dim);
                self.norm(name, norm, s.state_dim, part, part)?;
            }
        }
        let copy =
            HeadCopy { from_dim: both.cols, from_start: 0, to_dim: both.cols, to_start: 0, len: both.cols };
        self.emit(Op::CopyHeads { x: both, copy, out: x.columns(s.inner(), both.cols) });
        let steps = self.product((layer, Role::Step), &space.step, low, "steps");
        self.emit(Op::Activate { x: steps, activation: Activation::Softplus });
        Ok(steps)
    }

    fn head_decays(&mut self, space: &StateSpace) -> Result<Slice, Error> {
        let bias =
            space.step_bias.as_ref().ok_or_else(|| defect!("a state space has no bias of time steps"))?;
        let parameters = Source::Decays {
            rate: space.rate.clone(),
            rate_is_log: space.rate_is_log,
            bias: bias.clone(),
            skip: Some(Box::new(space.skip.clone())),
        };
        Ok(self.constant("decays", (3, space.shape.heads), parameters))
    }

    fn channel_decays(&mut self, space: &StateSpace) -> Slice {
        let parameters = Source::ChannelDecays {
            rate: space.rate.clone(),
            rate_is_log: space.rate_is_log,
            skip: space.skip.clone(),
        };
        self.constant("decays", (space.shape.state_dim + 1, space.shape.inner()), parameters)
    }

    /// What lightning attention makes of `input`.
    pub(super) fn lightning(&mut self, layer: usize, l: &Lightning, input: Slice) -> Result<Slice, Error> {
        let width = l.slopes.len() * l.head_dim;
        // As a state space that reads with queries, writes with keys, and whose time steps are 1.
        let x = self.rows("qkv", 3 * width);
        for (role, linear, first) in [(Role::Q, &l.q, 2), (Role::K, &l.k, 1), (Role::V, &l.v, 0)] {
            self.product_into((layer, role), linear, input, x.columns(first * width, width));
        }
        let gate = self.product((layer, Role::OutputGate), &l.gate, input, "output_gate");
        self.emit(Op::Activate { x, activation: l.activation });
        let heads = l.slopes.len();
        let steps = self.rows("steps", heads);
        self.emit(Op::Clear { x: steps });
        let parameters = self.constant("decays", (3, heads), Source::Slopes(l.slopes.clone()));
        let state = self.state("state", width * l.head_dim);
        let mixed = self.rows("mixed", width);
        let scan = StateScan {
            heads,
            head_dim: l.head_dim,
            groups: heads,
            state_dim: l.head_dim,
            steps: (1.0, 1.0),
            each: false,
        };
        self.emit(Op::StateScan { x, steps, parameters, state, scan, out: mixed });
        self.norm("mixed_norm", &l.norm, l.norm.size, mixed, mixed)?;
        self.emit(Op::Glu { gate, up: mixed, activation: Activation::Sigmoid, out: mixed });
        Ok(self.product((layer, Role::Output), &l.o, mixed, "y"))
    }

    /// What a gated convolution makes of `input`.
    pub(super) fn gated_convolution(&mut self, layer: usize, c: &GatedConvolution, input: Slice) -> Slice {
        let before = self.product((layer, Role::InputGate), &c.before, input, "input_gate");
        let after = self.product((layer, Role::OutputGate), &c.after, input, "output_gate");
        let x = self.product((layer, Role::Inputs), &c.x, input, "inputs");
        self.emit(Op::Mul { x, y: before });
        self.convolve(x, (std::slice::from_ref(&c.convolution), c.bias.as_ref()), c.kernel, false);
        self.emit(Op::Mul { x, y: after });
        self.product((layer, Role::Output), &c.o, x, "y")
    }

    /// A short convolution in place, of as many channels as `x` has columns.
    pub(super) fn convolve(
        &mut self,
        x: Slice,
        (weights, bias): (&[Vector], Option<&Vector>),
        kernel: usize,
        silu: bool,
    ) {
        let weights = self.constant("convolution", (kernel, x.cols), Source::Transposed(weights.to_vec()));
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
