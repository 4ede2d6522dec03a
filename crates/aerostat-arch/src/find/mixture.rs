//! The tensors of experts, and of the MLP that they share.

use super::part::{Part, Stack};
use super::tensors::Tensors;
use crate::config::MixtureShape;
use crate::error::Error;
use crate::family::{Bias, Mixture, MixtureNames};
use crate::spec::{Apart, Experts, Linear, MlpSpec, Norm, Routing, Score, Vector};

impl Tensors<'_> {
    /// The experts of a layer, and the MLP they share, if the layer has a router.
    pub(super) fn experts(&self, layer: usize) -> Result<Option<(Option<MlpSpec>, Experts)>, Error> {
        let Some((mixture, shape)) = self.family.mixture.as_ref().zip(self.shape.mixture) else {
            return Ok(None);
        };
        let names = if self.is_gguf() { &mixture.gguf_names } else { &mixture.names };
        let place = Place { tensors: self, layer, expert: 0, experts: shape.experts };
        if !self.has(&place.name(names.router)) {
            return Ok(None);
        }
        let hidden = self.shape.hidden;
        let mlps = (0..shape.experts)
            .map(|expert| Place { expert, ..place }.expert(mixture, names, shape))
            .collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<u32> = (0..mlps.len() as u32).collect();
        order.sort_by_key(|e| {
            let mlp = &mlps[*e as usize];
            let extent = mlp.gate.as_ref().unwrap_or(&mlp.up).weight.extent;
            (extent.file.0, extent.offset)
        });
        let shared_gate = place.name(names.shared_router);
        let shared_gate = match self.has(&shared_gate) {
            true => {
                Some(Linear { weight: self.one_row(&format!("{shared_gate}.weight"), hidden)?, bias: None })
            }
            false => None,
        };
        let router = place.name(names.router);
        let latent = match shape.latent {
            None => None,
            Some(size) => {
                let linear = |pattern: &str, rows, cols| {
                    self.linear(&place.name(pattern), self.family.mlp_bias, Part::all(rows), cols)
                };
                Some((linear(names.latent_down, size, hidden)?, linear(names.latent_up, hidden, size)?))
            }
        };
        let experts = Experts {
            router: self.linear(&router, mixture.router_bias, Part::all(shape.experts), hidden)?,
            shared_gate,
            apart: if mixture.apart { Some(place.apart(names)?) } else { None },
            latent,
            routing: self.routing(mixture, shape, &place)?,
            mlps,
            order,
        };
        Ok(Some((place.shared(names)?, experts)))
    }

    fn routing(&self, mixture: &Mixture, shape: MixtureShape, place: &Place<'_>) -> Result<Routing, Error> {
        let names = if self.is_gguf() { &mixture.gguf_names } else { &mixture.names };
        let correction = place.correction(names);
        let correction = correction.map(|name| self.vector_or_row(&name, shape.experts)).transpose()?;
        let scales = Some(names.expert_scales).filter(|name| !name.is_empty());
        let scales = scales.map(|name| self.vector(&place.name(name), &[shape.experts], 0.0)).transpose()?;
        Ok(Routing {
            chosen: shape.chosen,
            score: self.score(shape.score)?,
            correction,
            groups: shape.groups,
            normalise: shape.normalise,
            scale: shape.scale,
            expert_scales: scales,
            at_input: mixture.at_input,
        })
    }

    /// What the router's outputs become; GGUF may say it by a number.
    fn score(&self, score: Score) -> Result<Score, Error> {
        match self.stored.keys.gguf_number("expert_gating_func").map(|n| n as i64) {
            None | Some(0) => Ok(score),
            Some(1) => Ok(Score::Softmax),
            Some(2) => Ok(Score::Sigmoid),
            Some(3) => Ok(Score::SoftmaxOfChosen),
            Some(n) => {
                Err(self.stored.keys.unsupported(format!("`expert_gating_func` {n} is not supported")))
            }
        }
    }
}

/// Where a name's placeholders point.
#[derive(Clone, Copy)]
struct Place<'a> {
    tensors: &'a Tensors<'a>,
    layer: usize,
    expert: usize,
    experts: usize,
}

impl Place<'_> {
    fn name(&self, pattern: &str) -> String {
        let pattern = pattern.replace("{}", &self.layer.to_string());
        self.tensors.top(&pattern.replace("{e}", &self.expert.to_string()))
    }

    /// The norms of experts that lie beside an MLP.
    fn apart(&self, names: &MixtureNames) -> Result<Apart, Error> {
        let (t, hidden) = (self.tensors, self.tensors.shape.hidden);
        let norm = |pattern: &str| t.norm(&self.name(pattern), hidden);
        let router = t.vector(&self.name(names.apart.router), &[hidden], 0.0)?;
        Ok(Apart {
            router_norm: (Norm { weight: Some(router), ..t.bare_norm(hidden) }, 1.0 / (hidden as f32).sqrt()),
            norm: norm(names.apart.norm)?,
            post_norm: norm(names.apart.post_norm)?,
            mlp_post_norm: norm(names.apart.mlp_post_norm)?,
        })
    }

    /// What is added to scores in the choice, if it is in the checkpoint.
    fn correction(&self, names: &MixtureNames) -> Option<String> {
        let mut all = names.correction.split('|').map(|pattern| self.name(pattern));
        all.find(|name| self.tensors.stored.contains(name))
    }

    /// The tensor of the first name that is in the checkpoint, and whether it holds all experts. Where they share one,
    /// it may lack the suffix, or be of codes.
    fn find(&self, names: &str) -> Option<(String, bool)> {
        names.split('|').find_map(|pattern| {
            let name = self.name(pattern);
            let full = format!("{name}.weight");
            let codes = format!("{name}_blocks");
            let found = [full, name, codes].into_iter().find(|name| self.tensors.stored.contains(name))?;
            Some((found, !pattern.contains("{e}")))
        })
    }

    /// Rows `first .. first + rows` of the expert's `total` rows.
    fn linear(
        &self,
        names: &str,
        bias: Bias,
        first: usize,
        rows: usize,
        total: usize,
        cols: usize,
    ) -> Result<Linear, Error> {
        let t = self.tensors;
        let part = Part { first, rows, total, runs: None };
        match self.find(names) {
            Some((name, true)) => {
                let (weight, bias) =
                    (t.stacked_matrix(&name, self.stack(), part, cols)?, self.bias(&name, bias, part)?);
                Ok(Linear { weight, bias })
            }
            _ => t.linear(&self.name(names), bias, part, cols),
        }
    }

    fn stack(&self) -> Stack {
        Stack { count: self.experts, index: self.expert }
    }

    /// The expert's part of a bias that all share, beside the weights of this name.
    fn bias(&self, weights: &str, bias: Bias, part: Part) -> Result<Option<Vector>, Error> {
        let stem = weights.trim_end_matches(".weight").trim_end_matches("_blocks");
        let mut names = ["_bias", ".bias"].into_iter().map(|suffix| format!("{stem}{suffix}"));
        let name = names.find(|name| bias.is_ever() && self.tensors.stored.contains(name));
        name.map(|name| self.tensors.stacked_vector(&name, self.stack(), part)).transpose()
    }

    /// The expert's part of a tensor `[experts, cols, rows]`, or of codes, which are the other way round.
    fn k_major(&self, name: &str, bias: Bias, rows: usize, cols: usize) -> Result<Linear, Error> {
        let weight = match name.ends_with("_blocks") {
            true => self.tensors.stacked_matrix(name, self.stack(), Part::all(rows), cols)?,
            false => self.tensors.stacked_k_major(name, self.stack(), rows, cols)?,
        };
        Ok(Linear { weight, bias: self.bias(name, bias, Part::all(rows))? })
    }

    fn expert(&self, mixture: &Mixture, names: &MixtureNames, shape: MixtureShape) -> Result<MlpSpec, Error> {
        let (width, hidden) = (shape.width, shape.latent.unwrap_or(self.tensors.shape.hidden));
        let linear = |names: &str, first, rows, total, cols| {
            self.linear(names, mixture.bias, first, rows, total, cols)
        };
        if let Some((joined, (name, true))) = mixture.k_major.zip(self.find(names.gate_up))
            && !self.tensors.is_gguf()
            && !(mixture.k_major_by_shape && self.tensors.rows_of_each(&name) == Some(2 * width))
        {
            let up = self.k_major(&name, mixture.bias, 2 * width, hidden)?;
            let (down, _) = self.find(names.down).unwrap_or((self.name(names.down), true));
            let down = self.k_major(&down, mixture.bias, hidden, width)?;
            let activation = self.tensors.shape.activation;
            return Ok(MlpSpec {
                gate: None,
                up,
                joined: Some(joined),
                down,
                activation,
                cut: None,
                factors: (1.0, 1.0),
            });
        }
        let whole = |names: &str| linear(names, 0, width, width, hidden);
        let (gate, up) = match self.find(names.gate_up) {
            _ if !self.tensors.family.gated => (None, whole(names.up)?),
            Some(_) => (
                Some(linear(names.gate_up, 0, width, 2 * width, hidden)?),
                linear(names.gate_up, width, width, 2 * width, hidden)?,
            ),
            None => (Some(whole(names.gate)?), whole(names.up)?),
        };
        let down = linear(names.down, 0, hidden, hidden, width)?;
        let activation = self.tensors.shape.activation;
        Ok(MlpSpec { gate, up, joined: None, down, activation, cut: None, factors: (1.0, 1.0) })
    }

    /// The MLP that all rows use, as wide as its tensors are.
    fn shared(&self, names: &MixtureNames) -> Result<Option<MlpSpec>, Error> {
        let (t, hidden) = (self.tensors, self.tensors.shape.hidden);
        let rows = |names: &str| t.outputs(&self.name(names), hidden);
        let linear = |names: &str, first, rows, total, cols| {
            let part = Part { first, rows, total, runs: None };
            t.linear(&self.name(names), t.family.mlp_bias, part, cols)
        };
        let (gate, up) = match (rows(names.shared_gate_up), rows(names.shared_up)) {
            (Some(both), _) => {
                let width = both / 2;
                let part = |first| linear(names.shared_gate_up, first, width, both, hidden);
                (Some(part(0)?), part(width)?)
            }
            (None, Some(width)) => {
                let whole = |names| linear(names, 0, width, width, hidden);
                let gate = t.family.gated.then(|| whole(names.shared_gate)).transpose()?;
                (gate, whole(names.shared_up)?)
            }
            (None, None) => return Ok(None),
        };
        let width = up.weight.rows;
        let down = linear(names.shared_down, 0, hidden, hidden, width)?;
        let activation = t.shape.activation;
        Ok(Some(MlpSpec { gate, up, joined: None, down, activation, cut: None, factors: (1.0, 1.0) }))
    }
}
