//! The ops of a program.

use aerostat_arch::Growth;
use aerostat_backend::{Activation, Attention, DeltaRule, Extras, HeadCopy, Index, Rope, StateScan};

use super::{Product, Slice};

/// One op. What each computes is written at the op of the same name of [`Backend`](aerostat_backend::Backend), or here
/// where it has none.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "operands are named as those of the backend's ops are")]
pub enum Op {
    /// Cosines and sines of every row's position, `[rows, rotary]`.
    Angles {
        rope: usize,
        out: Slice,
    },
    /// What the query of each row is multiplied by, `[rows, 1]`.
    Growth {
        growth: Growth,
        out: Slice,
    },
    /// What one of the model's tables holds for each row's token: the embedding is the first.
    Embed {
        table: usize,
        out: Slice,
    },
    /// The learned vector of each row's position.
    GatherPositions {
        table: Slice,
        offset: u32,
        out: Slice,
    },
    /// The learned vector of each row's part of its text.
    GatherTypes {
        table: Slice,
        out: Slice,
    },
    /// The rows that need logits.
    GatherLogitRows {
        x: Slice,
        out: Slice,
    },
    /// The residual stream holds what so many blocks made of it: hidden states are taken here.
    Tap {
        blocks: usize,
        x: Slice,
    },

    Multiply(Product),
    /// `out = x Wᵀ` with the `matrix`-th of [`Program::kept`](super::Program::kept).
    MultiplyKept {
        matrix: usize,
        x: Slice,
        out: Slice,
    },
    AddBias {
        x: Slice,
        bias: Slice,
    },
    RmsNorm {
        x: Slice,
        weight: Slice,
        eps: f32,
        out: Slice,
    },
    LayerNorm {
        x: Slice,
        size: usize,
        eps: f32,
        out: Slice,
    },
    MulColumns {
        x: Slice,
        factors: Slice,
    },
    MulRows {
        x: Slice,
        factors: Slice,
    },
    Add {
        x: Slice,
        y: Slice,
    },
    Mul {
        x: Slice,
        y: Slice,
    },
    Scale {
        x: Slice,
        factor: f32,
    },
    Clip {
        x: Slice,
        limit: f32,
    },
    Softcap {
        x: Slice,
        cap: f32,
    },
    Activate {
        x: Slice,
        activation: Activation,
    },
    Glu {
        gate: Slice,
        up: Slice,
        activation: Activation,
        out: Slice,
    },
    Clear {
        x: Slice,
    },
    TakeColumns {
        x: Slice,
        first: usize,
        step: usize,
        out: Slice,
    },
    CopyHeads {
        x: Slice,
        copy: HeadCopy,
        out: Slice,
    },

    Rope {
        x: Slice,
        rope: Rope,
        angles: Slice,
    },
    KvWrite {
        layer: usize,
        k: Slice,
        v: Slice,
    },
    Attention {
        layer: usize,
        q: Slice,
        shape: Attention,
        extras: Extras<Slice>,
        out: Slice,
    },
    /// Skipped where no row sees more than `out.cols` positions.
    SelectPositions {
        layer: usize,
        q: Slice,
        weights: Slice,
        index: Index,
        out: Slice,
    },
    /// Over the positions in `selected`, or all of them where no row sees more than it holds.
    SparseAttention {
        layer: usize,
        q: Slice,
        shape: Attention,
        selected: Slice,
        out: Slice,
    },
    ShortConv {
        x: Slice,
        weights: Slice,
        bias: Option<Slice>,
        silu: bool,
        state: Slice,
    },
    DeltaRule {
        x: Slice,
        strengths: Slice,
        parameters: Slice,
        state: Slice,
        rule: DeltaRule,
        out: Slice,
    },
    StateScan {
        x: Slice,
        steps: Slice,
        parameters: Slice,
        state: Slice,
        scan: StateScan,
        out: Slice,
    },

    /// The experts of every row are chosen, from what the router says of each, `[rows, experts]`.
    Route {
        block: usize,
        scores: Slice,
    },
    /// Runs [`Program::experts`](super::Program::experts) of the block for each expert that some row uses.
    Experts {
        block: usize,
    },
    /// The rows that use the expert at hand.
    GatherExpertRows {
        x: Slice,
        out: Slice,
    },
    /// Those rows times their factors.
    WeighExpertRows {
        x: Slice,
        factors: Slice,
    },
    /// Adds the expert's rows to those that use it, times their factors if they are `weighted`.
    ScatterExpertRows {
        x: Slice,
        weighted: bool,
        out: Slice,
    },
    /// The bias of the expert at hand: a row of `biases`, `[experts, cols]`.
    AddExpertBias {
        x: Slice,
        biases: Slice,
    },
}

/// What an op is called, reads and writes.
#[derive(Clone, Debug)]
pub struct Operands {
    /// The op's name.
    pub name: &'static str,
    /// What it reads; what it changes is among them.
    pub inputs: Vec<Slice>,
    /// What it writes; `None`: the KV cache, or nothing.
    pub output: Option<Slice>,
}

impl Op {
    /// Its name, what it reads and what it writes.
    pub fn operands(&self) -> Operands {
        let op = |name, inputs: &[Slice], output: Slice| Operands {
            name,
            inputs: inputs.to_vec(),
            output: Some(output),
        };
        let effect = |name, inputs: &[Slice]| Operands { name, inputs: inputs.to_vec(), output: None };
        match *self {
            Self::Angles { out, .. } => op("angles", &[], out),
            Self::Growth { out, .. } => op("growth", &[], out),
            Self::Embed { out, .. } => op("embed", &[], out),
            Self::GatherPositions { table, out, .. } => op("gather_rows", &[table], out),
            Self::GatherTypes { table, out } => op("gather_rows", &[table], out),
            Self::GatherLogitRows { x, out } => op("gather_rows", &[x], out),
            Self::Tap { x, .. } => effect("tap", &[x]),
            Self::Multiply(Product { x, y, .. }) => op("multiply", &[x], y),
            Self::MultiplyKept { x, out, .. } => op("multiply_kept", &[x], out),
            Self::AddBias { x, bias } => op("add_bias", &[x, bias], x),
            Self::RmsNorm { x, weight, out, .. } => op("rms_norm", &[x, weight], out),
            Self::LayerNorm { x, out, .. } => op("layer_norm", &[x], out),
            Self::MulColumns { x, factors } => op("mul_columns", &[x, factors], x),
            Self::MulRows { x, factors } => op("mul_rows", &[x, factors], x),
            Self::Add { x, y } => op("add", &[x, y], x),
            Self::Mul { x, y } => op("mul", &[x, y], x),
            Self::Scale { x, .. } => op("scale", &[x], x),
            Self::Clip { x, .. } => op("clip", &[x], x),
            Self::Softcap { x, .. } => op("softcap", &[x], x),
            Self::Activate { x, .. } => op("activate", &[x], x),
            Self::Glu { gate, up, out, .. } => op("glu", &[gate, up], out),
            Self::Clear { x } => op("clear", &[], x),
            Self::TakeColumns { x, out, .. } => op("take_columns", &[x], out),
            Self::CopyHeads { x, out, .. } => op("copy_heads", &[x, out], out),
            Self::Rope { x, angles, .. } => op("rope", &[x, angles], x),
            Self::KvWrite { k, v, .. } => effect("kv_write", &[k, v]),
            Self::Attention { q, extras, out, .. } => {
                let inputs: Vec<Slice> =
                    [Some(q), extras.sinks, extras.biases].into_iter().flatten().collect();
                op("attention", &inputs, out)
            }
            Self::SelectPositions { q, weights, out, .. } => op("select_positions", &[q, weights], out),
            Self::SparseAttention { q, selected, out, .. } => op("sparse_attention", &[q, selected], out),
            Self::ShortConv { x, weights, bias, state, .. } => {
                let inputs: Vec<Slice> =
                    [Some(x), Some(weights), bias, Some(state)].into_iter().flatten().collect();
                op("short_conv", &inputs, x)
            }
            Self::DeltaRule { x, strengths, parameters, state, out, .. } => {
                op("delta_rule", &[x, strengths, parameters, state], out)
            }
            Self::StateScan { x, steps, parameters, state, out, .. } => {
                op("state_scan", &[x, steps, parameters, state], out)
            }
            Self::Route { scores, .. } => effect("route", &[scores]),
            Self::Experts { .. } => effect("experts", &[]),
            Self::GatherExpertRows { x, out } => op("gather_rows", &[x], out),
            Self::WeighExpertRows { x, factors } => op("mul_rows", &[x, factors], x),
            Self::ScatterExpertRows { x, out, .. } => op("scatter_rows", &[x, out], out),
            Self::AddExpertBias { x, biases } => op("add_bias", &[x, biases], x),
        }
    }

    /// Its other parameters, for readers.
    pub fn detail(&self) -> String {
        match *self {
            Self::Angles { rope, .. } => format!("rope {rope}"),
            Self::Growth { growth, .. } => format!("{growth:?}"),
            Self::Embed { .. } => "of each row's token".to_owned(),
            Self::GatherPositions { offset, .. } => format!("of each row's position + {offset}"),
            Self::GatherTypes { .. } => "of each row's part of its text".to_owned(),
            Self::GatherLogitRows { .. } => "that need logits".to_owned(),
            Self::GatherExpertRows { .. } => "that use the expert".to_owned(),
            Self::ScatterExpertRows { weighted: true, .. } => "times their factors".to_owned(),
            Self::AddExpertBias { .. } => "the expert's".to_owned(),
            Self::RmsNorm { weight, eps, .. } => format!("groups of {}, eps {eps:e}", weight.cols),
            Self::LayerNorm { size, eps, .. } => format!("groups of {size}, eps {eps:e}"),
            Self::Scale { factor, .. } => format!("by {factor}"),
            Self::Clip { limit, .. } => format!("to {limit}"),
            Self::Softcap { cap, .. } => format!("at {cap}"),
            Self::Activate { activation, .. } | Self::Glu { activation, .. } => format!("{activation:?}"),
            Self::TakeColumns { first, step, .. } => format!("from {first} on, every {step}"),
            Self::CopyHeads { copy, .. } => {
                format!("{} of each head, from {} to {}", copy.len, copy.from_start, copy.to_start)
            }
            Self::Rope { rope, .. } => {
                let all = format!("{} of {} per head", rope.rotary, rope.head_dim);
                format!("{all}, from {}, {:?}", rope.start, rope.style)
            }
            Self::Attention { shape, .. } | Self::SparseAttention { shape, .. } => attention(&shape),
            Self::SelectPositions { index, out, .. } => {
                format!("the best {}, {} heads of {}", out.cols, index.heads, index.dim)
            }
            Self::DeltaRule { rule, .. } => format!(
                "{} key heads of {}, {} value heads of {}",
                rule.key_heads, rule.key_dim, rule.value_heads, rule.value_dim
            ),
            Self::ShortConv { silu: true, .. } => "and SiLU".to_owned(),
            Self::StateScan { scan, .. } => format!(
                "{} heads of {}, states of {} rows, {} groups",
                scan.heads, scan.head_dim, scan.state_dim, scan.groups
            ),
            Self::MultiplyKept { .. } => "the adapter's".to_owned(),
            Self::Tap { blocks, .. } => format!("hidden states after {blocks} blocks"),
            _ => String::new(),
        }
    }
}

/// The rules of an attention in words.
fn attention(shape: &Attention) -> String {
    let mut text = format!("{} heads of {}, {} in the cache", shape.heads, shape.key_dim, shape.kv_heads);
    if shape.values_in_keys {
        text += &format!(", values are the first {} elements of keys", shape.value_dim);
    }
    text += &format!(", scale {}", shape.scale);
    if shape.ahead {
        text += ", both ways";
    }
    if let Some(window) = shape.window {
        text += &format!(", window {window:?}");
    }
    if let Some(cap) = shape.softcap {
        text += &format!(", softcap {cap}");
    }
    if let Some(alibi) = shape.alibi {
        text += &format!(", {alibi:?}");
    }
    text
}
