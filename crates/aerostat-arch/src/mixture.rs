//! Mixtures of experts: what a family's data says of them, and their tensors.

use crate::error::Error;
use crate::family::{Bias, Factor, Switch};
use crate::keys;
use crate::shape;
use crate::spec::{Experts, Groups, Joined, Linear, MlpSpec, Routing, Score, Vector};
use crate::tensors::{Part, Stack, Tensors};

/// How a family mixes experts. A layer has experts if its router is in the checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// What the router's outputs become.
    pub score: Score,
    /// The scores of the chosen are divided by their sum.
    pub normalise: Switch,
    /// The same in GGUF where the file says nothing.
    pub gguf_normalise: bool,
    /// Added to that sum, and its least value, unless `moe_norm_min` names another.
    pub normalise_guard: (f32, f32),
    /// On the scores in the end.
    pub scale: Factor,
    /// Experts of a row, where the configuration names no number.
    pub chosen: Option<usize>,
    /// Experts are in groups, if `n_group` says so; how many of its best make a group's score, and whether those of
    /// closed groups score 0.
    pub groups: Option<(usize, bool)>,
    /// Scores multiply what experts read.
    pub at_input: bool,
    /// Bias of the router.
    pub router_bias: Bias,
    /// Where experts share tensors in Hugging Face checkpoints, those are `[experts, inputs, outputs]`, and this is how
    /// gate and up lie in theirs.
    pub k_major: Option<Joined>,
    /// Unless their shape is `[experts, outputs, inputs]`.
    pub k_major_by_shape: bool,
    /// Biases of experts.
    pub bias: Bias,
    /// Names of tensors in Hugging Face checkpoints.
    pub names: MixtureNames,
    /// Names of tensors in GGUF.
    pub gguf_names: MixtureNames,
}

/// Names of tensors, as in [`crate::Names`]; `{e}` stands for the expert's number, and where a name lacks it, the experts lie
/// one after the other in one tensor.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct MixtureNames {
    pub router: &'static str,
    /// With its suffix; may be absent.
    pub correction: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    /// One tensor in place of the two, first the gate; used where it is in the checkpoint.
    pub gate_up: &'static str,
    pub down: &'static str,
    pub shared_gate: &'static str,
    pub shared_up: &'static str,
    pub shared_down: &'static str,
    /// One tensor in place of the first two.
    pub shared_gate_up: &'static str,
    /// Says how much of the shared expert a row takes.
    pub shared_router: &'static str,
}

impl MixtureNames {
    /// The names most Hugging Face families share.
    pub const HUGGING_FACE: Self = Self {
        router: "layers.{}.mlp.gate",
        correction: "layers.{}.mlp.gate.e_score_correction_bias",
        gate: "layers.{}.mlp.experts.{e}.gate_proj",
        up: "layers.{}.mlp.experts.{e}.up_proj",
        gate_up: "layers.{}.mlp.experts.gate_up_proj",
        down: "layers.{}.mlp.experts.{e}.down_proj|layers.{}.mlp.experts.down_proj",
        shared_gate: "layers.{}.mlp.shared_experts.gate_proj|layers.{}.mlp.shared_expert.gate_proj",
        shared_up: "layers.{}.mlp.shared_experts.up_proj|layers.{}.mlp.shared_expert.up_proj",
        shared_down: "layers.{}.mlp.shared_experts.down_proj|layers.{}.mlp.shared_expert.down_proj",
        shared_gate_up: "",
        shared_router: "layers.{}.mlp.shared_expert_gate",
    };

    /// The names of GGUF.
    pub const GGUF: Self = Self {
        router: "blk.{}.ffn_gate_inp",
        correction: "blk.{}.exp_probs_b.bias",
        gate: "blk.{}.ffn_gate_exps",
        up: "blk.{}.ffn_up_exps",
        gate_up: "blk.{}.ffn_gate_up_exps",
        down: "blk.{}.ffn_down_exps",
        shared_gate: "blk.{}.ffn_gate_shexp",
        shared_up: "blk.{}.ffn_up_shexp",
        shared_down: "blk.{}.ffn_down_shexp",
        shared_gate_up: "",
        shared_router: "blk.{}.ffn_gate_inp_shexp",
    };
}

impl Mixture {
    /// What a family starts from: a softmax over all experts, the chosen normalised.
    pub const PLAIN: Self = Self {
        score: Score::Softmax,
        normalise: Switch::Always,
        gguf_normalise: true,
        normalise_guard: (0.0, 0.0),
        scale: Factor::One,
        chosen: None,
        groups: None,
        at_input: false,
        router_bias: Bias::Never,
        k_major: None,
        k_major_by_shape: false,
        bias: Bias::Never,
        names: MixtureNames::HUGGING_FACE,
        gguf_names: MixtureNames::GGUF,
    };
}

/// The numbers of a mixture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MixtureShape {
    experts: usize,
    width: usize,
    chosen: usize,
    groups: Option<Groups>,
    normalise: Option<(f32, f32)>,
    score: Score,
    scale: f32,
}

impl MixtureShape {
    /// `None` where the configuration names no experts.
    pub(crate) fn read(
        keys: &keys::Keys<'_>,
        mixture: &Mixture,
        intermediate: usize,
    ) -> Result<Option<Self>, Error> {
        const EXPERTS_MAX: usize = 1 << 16;
        let Some(experts) = keys.count_or(&keys::EXPERTS, None)? else { return Ok(None) };
        let chosen = match keys.count_or(&keys::EXPERTS_CHOSEN, mixture.chosen)? {
            Some(_) if matches!(mixture.score, Score::SparseMixer(_)) => 2,
            Some(chosen) => chosen,
            None => keys.count(&keys::EXPERTS_CHOSEN)?,
        };
        if chosen > experts || experts > EXPERTS_MAX {
            return Err(keys.config(format!("a row cannot use {chosen} of {experts} experts")));
        }
        let width = keys.count_or(&keys::EXPERT_WIDTH, Some(intermediate))?.unwrap_or(intermediate);
        let normalised = match keys.is_gguf() {
            true => keys.switch(&keys::EXPERT_NORMALISE, mixture.gguf_normalise)?,
            false => shape::switch(keys, mixture.normalise)?,
        };
        let (added, least) = mixture.normalise_guard;
        let least = keys.number(&keys::EXPERT_NORMALISE_LEAST)?.map_or(least, |n| n as f32);
        let jitter = keys.number(&keys::EXPERT_JITTER)?;
        Ok(Some(Self {
            experts,
            width,
            chosen,
            groups: groups(keys, mixture, experts, chosen)?,
            normalise: normalised.then_some((added, least)),
            score: match mixture.score {
                Score::SparseMixer(default) => Score::SparseMixer(jitter.map_or(default, |n| n as f32)),
                other => other,
            },
            scale: shape::factor(keys, mixture.scale, 1, 1)?.unwrap_or(1.0),
        }))
    }
}

fn groups(
    keys: &keys::Keys<'_>,
    mixture: &Mixture,
    experts: usize,
    chosen: usize,
) -> Result<Option<Groups>, Error> {
    let Some(rule) = mixture.groups else { return Ok(None) };
    // GGUF files of DeepSeek V2 and V3 differ by what router outputs become.
    let (best, closed_score_zero) = match keys.gguf_number("expert_gating_func") {
        Some(2.0) => (2, false),
        _ => rule,
    };
    // Where a group is as good as its best expert, groups count by this method alone.
    if best == 1 && !keys.is_gguf() && keys.text("topk_method")? != Some("group_limited_greedy") {
        return Ok(None);
    }
    let count = keys.count_or(&keys::EXPERT_GROUPS, Some(1))?.unwrap_or(1);
    let open = keys.count_or(&keys::EXPERT_GROUPS_OPEN, Some(count))?.unwrap_or(count);
    if count == 1 || open == count && closed_score_zero {
        return Ok(None);
    }
    let size = experts / count;
    if !experts.is_multiple_of(count) || open > count || best > size || chosen > open * size {
        return Err(keys.config(format!(
            "a row cannot choose {chosen} of {experts} experts in {open} of {count} groups"
        )));
    }
    Ok(Some(Groups { count, open, best, closed_score_zero }))
}

impl Tensors<'_> {
    /// The experts of a layer, and the MLP they share, if the layer has a router.
    pub(crate) fn experts(&self, layer: usize) -> Result<Option<(Option<MlpSpec>, Experts)>, Error> {
        let Some((mixture, shape)) = self.family.mixture.as_ref().zip(self.shape.mixture) else {
            return Ok(None);
        };
        let names = if self.keys.is_gguf() { &mixture.gguf_names } else { &mixture.names };
        let place = Place { tensors: self, layer, expert: 0, experts: shape.experts };
        if !self.has(&place.name(names.router)) {
            return Ok(None);
        }
        let hidden = self.shape.hidden;
        let mlps = (0..shape.experts)
            .map(|expert| Place { expert, ..place }.expert(mixture, names, shape.width))
            .collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<u32> = (0..mlps.len() as u32).collect();
        order.sort_by_key(|e| {
            let first = mlps[*e as usize].linears().next().map(|(_, linear)| linear.weight.extent);
            first.map(|extent| (extent.file.0, extent.offset))
        });
        let shared_gate = place.name(names.shared_router);
        let shared_gate = match self.has(&shared_gate) {
            true => {
                Some(Linear { weight: self.one_row(&format!("{shared_gate}.weight"), hidden)?, bias: None })
            }
            false => None,
        };
        let router = place.name(names.router);
        let experts = Experts {
            router: self.linear(&router, mixture.router_bias, Part::all(shape.experts), hidden)?,
            shared_gate,
            routing: self.routing(mixture, shape, place.correction(names))?,
            mlps,
            order,
        };
        Ok(Some((place.shared(names)?, experts)))
    }

    fn routing(
        &self,
        mixture: &Mixture,
        shape: MixtureShape,
        correction: Option<String>,
    ) -> Result<Routing, Error> {
        let correction = correction.map(|name| self.vector_or_row(&name, shape.experts)).transpose()?;
        Ok(Routing {
            chosen: shape.chosen,
            score: self.score(shape.score)?,
            correction,
            groups: shape.groups,
            normalise: shape.normalise,
            scale: shape.scale,
            at_input: mixture.at_input,
        })
    }

    /// What the router's outputs become; GGUF may say it by a number.
    fn score(&self, score: Score) -> Result<Score, Error> {
        match self.keys.gguf_number("expert_gating_func").map(|n| n as i64) {
            None | Some(0) => Ok(score),
            Some(1) => Ok(Score::Softmax),
            Some(2) => Ok(Score::Sigmoid),
            Some(3) => Ok(Score::SoftmaxOfChosen),
            Some(n) => Err(self.keys.unsupported(format!("`expert_gating_func` {n} is not supported"))),
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

    /// What is added to scores in the choice, if it is in the checkpoint.
    fn correction(&self, names: &MixtureNames) -> Option<String> {
        let mut all = names.correction.split('|').map(|pattern| self.name(pattern));
        all.find(|name| self.tensors.contains(name))
    }

    /// The tensor of the first name that is in the checkpoint, and whether it holds all experts. Where they share one,
    /// it may lack the suffix, or be of codes.
    fn find(&self, names: &str) -> Option<(String, bool)> {
        names.split('|').find_map(|pattern| {
            let name = self.name(pattern);
            let full = format!("{name}.weight");
            let codes = format!("{name}_blocks");
            let found = [full, name, codes].into_iter().find(|name| self.tensors.contains(name))?;
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
        let name = names.find(|name| bias.is_ever() && self.tensors.contains(name));
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

    fn expert(&self, mixture: &Mixture, names: &MixtureNames, width: usize) -> Result<MlpSpec, Error> {
        let hidden = self.tensors.shape.hidden;
        let linear = |names: &str, first, rows, total, cols| {
            self.linear(names, mixture.bias, first, rows, total, cols)
        };
        if let Some((joined, (name, true))) = mixture.k_major.zip(self.find(names.gate_up))
            && !self.tensors.keys.is_gguf()
            && !(mixture.k_major_by_shape && self.tensors.rows_of_each(&name) == Some(2 * width))
        {
            let up = self.k_major(&name, mixture.bias, 2 * width, hidden)?;
            let (down, _) = self.find(names.down).unwrap_or((self.name(names.down), true));
            let down = self.k_major(&down, mixture.bias, hidden, width)?;
            let activation = self.tensors.shape.activation;
            return Ok(MlpSpec { gate: None, up, joined: Some(joined), down, activation });
        }
        let (gate, up) = match self.find(names.gate_up) {
            Some(_) => (
                linear(names.gate_up, 0, width, 2 * width, hidden)?,
                linear(names.gate_up, width, width, 2 * width, hidden)?,
            ),
            None => {
                (linear(names.gate, 0, width, width, hidden)?, linear(names.up, 0, width, width, hidden)?)
            }
        };
        let down = linear(names.down, 0, hidden, hidden, width)?;
        Ok(MlpSpec { gate: Some(gate), up, joined: None, down, activation: self.tensors.shape.activation })
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
                (part(0)?, part(width)?)
            }
            (None, Some(width)) => {
                let whole = |names| linear(names, 0, width, width, hidden);
                (whole(names.shared_gate)?, whole(names.shared_up)?)
            }
            (None, None) => return Ok(None),
        };
        let width = up.weight.rows;
        let down = linear(names.shared_down, 0, hidden, hidden, width)?;
        Ok(Some(MlpSpec { gate: Some(gate), up, joined: None, down, activation: t.shape.activation }))
    }
}
