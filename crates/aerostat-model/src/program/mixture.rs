//! MLPs: the one that every row uses, and experts of which each row uses some.

use aerostat_arch::{Apart, Block, Experts, Joined, Linear, MlpSpec, Norm, Role};
use aerostat_backend::{Activation, Error, defect};

use super::compile::Compiler;
use super::{Op, Product, Slice, Source};

impl Compiler<'_> {
    /// What the MLP of a block and its experts make of `input`; `None` if it has neither.
    pub(super) fn feed_forward(
        &mut self,
        layer: usize,
        block: &Block,
        input: Slice,
    ) -> Result<Option<Slice>, Error> {
        let mut shared = None;
        if let Some(experts) = &block.experts {
            let gate = experts.shared_gate.as_ref();
            shared = gate.map(|gate| self.product((layer, Role::SharedGate), gate, input, "shared"));
            let router_input = match &experts.apart {
                Some(Apart { router_norm: (norm, factor), .. }) => {
                    let h = self.apart("router_norm", norm)?;
                    self.emit(Op::Scale { x: h, factor: *factor });
                    h
                }
                None => input,
            };
            let scores = self.product((layer, Role::Router), &experts.router, router_input, "router");
            self.emit(Op::Route { block: layer, scores });
        }
        let latent = block.experts.as_ref().and_then(|experts| experts.latent.as_ref());
        let apart = block.experts.as_ref().and_then(|experts| experts.apart.as_ref());
        let expert_input = match (latent, apart) {
            (Some((down, _)), _) => self.product((layer, Role::ExpertsDown), down, input, "experts_input"),
            (None, Some(apart)) => self.apart("experts_norm", &apart.norm)?,
            (None, None) => input,
        };
        let y = match &block.mlp {
            Some(mlp) => self.mlp(layer, mlp, input),
            None if block.experts.is_some() => {
                let y = self.rows("y", self.x.cols);
                self.emit(Op::Clear { x: y });
                y
            }
            None => return Ok(None),
        };
        // As much of the shared MLP as its gate says.
        if let Some(factors) = shared {
            self.emit(Op::Activate { x: factors, activation: Activation::Sigmoid });
            self.emit(Op::MulRows { x: y, factors });
        }
        if let Some(experts) = &block.experts {
            let own_sum = latent.map(|(down, _)| down.weight.rows).or(apart.map(|_| y.cols));
            let sum = match own_sum {
                Some(cols) => {
                    let sum = self.rows("experts_sum", cols);
                    self.emit(Op::Clear { x: sum });
                    sum
                }
                None => y,
            };
            self.emit(Op::Experts { block: layer });
            self.emit_experts(layer, |c| c.expert(layer, experts, (expert_input, sum)))?;
            if let Some((_, up)) = latent {
                let expanded = self.product((layer, Role::ExpertsUp), up, sum, "experts_output");
                self.emit(Op::Add { x: y, y: expanded });
            }
            if let Some(Apart { post_norm, mlp_post_norm, .. }) = apart {
                self.norm("mlp_post_norm", mlp_post_norm, mlp_post_norm.size, y, y)?;
                self.norm("experts_post_norm", post_norm, post_norm.size, sum, sum)?;
                self.emit(Op::Add { x: y, y: sum });
            }
        }
        Ok(Some(y))
    }

    /// The residual stream through a norm of its own.
    fn apart(&mut self, name: &'static str, norm: &Norm) -> Result<Slice, Error> {
        let x = self.x;
        let h = self.rows("h", x.cols);
        self.norm(name, norm, norm.size, x, h)?;
        Ok(h)
    }

    fn mlp(&mut self, layer: usize, mlp: &MlpSpec, input: Slice) -> Slice {
        let gate = mlp.gate.as_ref().map(|gate| self.product((layer, Role::Gate), gate, input, "gate"));
        let up = self.product((layer, Role::Up), &mlp.up, input, "up");
        let (gate, inner) = match mlp.joined {
            Some(joined) => {
                let parts = [self.rows("gate", mlp.width()), self.rows("inner", mlp.width())];
                self.take_apart(joined, up, parts);
                (Some(parts[0]), parts[1])
            }
            None => (gate, up),
        };
        let gate = match (gate, mlp.cut) {
            (Some(gate), Some(deviations)) => Some(self.cut(gate, deviations)),
            _ => gate,
        };
        self.activate(mlp, gate, inner);
        let y = self.product((layer, Role::Down), &mlp.down, inner, "y");
        self.factor(y, mlp.factors.1);
        y
    }

    /// The ops of one expert, whichever it is: all of a block have the same shape.
    fn expert(&mut self, layer: usize, experts: &Experts, (input, y): (Slice, Slice)) -> Result<(), Error> {
        let mlp = experts.mlps.first().ok_or_else(|| defect!("block {layer} has a router and no experts"))?;
        let x = self.expert_rows("expert_input", input.cols);
        self.emit(Op::GatherExpertRows { x: input, out: x });
        let at_input = experts.routing.at_input;
        if at_input {
            let factors = self.expert_rows("factors", 1);
            self.emit(Op::WeighExpertRows { x, factors });
        }
        let gate = match &mlp.gate {
            Some(gate) => {
                let out = self.expert_rows("gate", gate.weight.rows);
                self.expert_product((layer, Role::Gate), experts, x, out)?;
                Some(out)
            }
            None => None,
        };
        let up = self.expert_rows("up", mlp.up.weight.rows);
        self.expert_product((layer, Role::Up), experts, x, up)?;
        let (gate, inner) = match mlp.joined {
            Some(joined) => {
                let parts = [self.expert_rows("gate", mlp.width()), self.expert_rows("inner", mlp.width())];
                self.take_apart(joined, up, parts);
                (Some(parts[0]), parts[1])
            }
            None => (gate, up),
        };
        self.activate(mlp, gate, inner);
        let out = self.expert_rows("expert_output", mlp.down.weight.rows);
        self.expert_product((layer, Role::Down), experts, inner, out)?;
        self.emit(Op::ScatterExpertRows { x: out, weighted: !at_input, out: y });
        Ok(())
    }

    /// The product of the expert at hand, with its bias.
    fn expert_product(
        &mut self,
        (block, role): (usize, Role),
        experts: &Experts,
        x: Slice,
        y: Slice,
    ) -> Result<(), Error> {
        self.emit(Op::Multiply(Product { block, role, x, y, heads: None, row_norms: None }));
        let linear = |mlp: &MlpSpec| mlp.linears().find(|(of, _)| *of == role).and_then(|(_, l)| bias(l));
        let biases: Vec<_> = experts.mlps.iter().filter_map(linear).collect();
        if biases.is_empty() {
            return Ok(());
        }
        if biases.len() != experts.mlps.len() {
            return Err(defect!("some experts of block {block} have a bias of {role:?}, and some have none"));
        }
        let biases = self.constant("biases", (biases.len(), y.cols), Source::Joined(biases));
        self.emit(Op::AddExpertBias { x: y, biases });
        Ok(())
    }

    /// Takes gate and up out of the one matrix's outputs.
    fn take_apart(&mut self, joined: Joined, both: Slice, [gate, up]: [Slice; 2]) {
        let (first, step) = match joined {
            Joined::Halves => (gate.cols, 1),
            Joined::Alternating => (1, 2),
        };
        self.emit(Op::TakeColumns { x: both, first: 0, step, out: gate });
        self.emit(Op::TakeColumns { x: both, first, step, out: up });
    }

    fn activate(&mut self, mlp: &MlpSpec, gate: Option<Slice>, up: Slice) {
        let activation = mlp.activation;
        self.factor(gate.unwrap_or(up), mlp.factors.0);
        self.emit(match gate {
            Some(gate) => Op::Glu { gate, up, activation, out: up },
            None => Op::Activate { x: up, activation },
        });
    }
}

fn bias(linear: &Linear) -> Option<aerostat_arch::Vector> {
    linear.bias.clone()
}
