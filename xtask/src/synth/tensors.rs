//! The tensors of a shape, in the order of the forward pass.

use super::shape::{Family, Glm5, Shape};

/// How a tensor's values are distributed: a bell of this mean and deviation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bell {
    pub(super) mean: f32,
    pub(super) deviation: f32,
}

/// One tensor to write.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// `[rows, columns]`, or one number for norms and biases.
    pub(super) shape: Vec<u64>,
    pub(super) values: Bell,
}

impl Tensor {
    /// The number of values.
    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// All tensors of a shape.
pub(super) fn of(shape: &Shape) -> Vec<Tensor> {
    let mut tensors = vec![matrix("model.embed_tokens", shape.vocab, shape.hidden)];
    for layer in 0..shape.layers {
        let at = format!("model.layers.{layer}");
        match shape.family {
            Family::Glm5 => latent_block(shape, layer, &at, &mut tensors),
            _ => block(shape, &at, &mut tensors),
        }
    }
    tensors.push(norm(shape, "model.norm", shape.hidden));
    if !shape.tied {
        tensors.push(matrix("lm_head", shape.vocab, shape.hidden));
    }
    tensors
}

fn block(shape: &Shape, at: &str, tensors: &mut Vec<Tensor>) {
    let Shape { hidden, heads, kv_heads, head_dim, intermediate, .. } = *shape;
    tensors.push(norm(shape, &format!("{at}.input_layernorm"), hidden));
    for (name, rows) in
        [("q_proj", heads * head_dim), ("k_proj", kv_heads * head_dim), ("v_proj", kv_heads * head_dim)]
    {
        let name = format!("{at}.self_attn.{name}");
        tensors.push(matrix(&name, rows, hidden));
        if shape.family == Family::Qwen2 {
            tensors.push(bias(&name, rows));
        }
    }
    if matches!(shape.family, Family::Qwen3 | Family::Qwen3Moe | Family::Gemma3) {
        tensors.push(norm(shape, &format!("{at}.self_attn.q_norm"), head_dim));
        tensors.push(norm(shape, &format!("{at}.self_attn.k_norm"), head_dim));
    }
    tensors.push(matrix(&format!("{at}.self_attn.o_proj"), hidden, heads * head_dim));
    tensors.push(norm(shape, &format!("{at}.post_attention_layernorm"), hidden));
    if shape.family == Family::Gemma3 {
        tensors.push(norm(shape, &format!("{at}.pre_feedforward_layernorm"), hidden));
        tensors.push(norm(shape, &format!("{at}.post_feedforward_layernorm"), hidden));
    }
    let mut mlp = |at: &str, [gate, up, down]: [&str; 3]| {
        tensors.push(matrix(&format!("{at}.{gate}"), intermediate, hidden));
        tensors.push(matrix(&format!("{at}.{up}"), intermediate, hidden));
        tensors.push(matrix(&format!("{at}.{down}"), hidden, intermediate));
    };
    let (own, names) = match shape.family {
        Family::Mixtral => ("block_sparse_moe", ["w1", "w3", "w2"]),
        _ => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
    };
    if shape.experts == 0 {
        return mlp(&format!("{at}.{own}"), names);
    }
    (0..shape.experts).for_each(|expert| mlp(&format!("{at}.{own}.experts.{expert}"), names));
    tensors.push(matrix(&format!("{at}.{own}.gate"), shape.experts, hidden));
}

/// A block of GLM 5: compressed queries, keys and values, an indexer, and an MLP or experts with a shared one.
fn latent_block(shape: &Shape, layer: u64, at: &str, tensors: &mut Vec<Tensor>) {
    let Shape { hidden, heads, intermediate, experts, .. } = *shape;
    let attention = format!("{at}.self_attn");
    let (query, key_value) = (Glm5::NOPE + Glm5::ROPE, Glm5::NOPE + Glm5::VALUE);
    for (name, rows, columns) in [
        ("q_a_proj", Glm5::Q_RANK, hidden),
        ("q_b_proj", heads * query, Glm5::Q_RANK),
        ("kv_a_proj_with_mqa", Glm5::KV_RANK + Glm5::ROPE, hidden),
        ("kv_b_proj", heads * key_value, Glm5::KV_RANK),
        ("o_proj", hidden, heads * Glm5::VALUE),
        ("indexer.wq_b", Glm5::INDEX_HEADS * Glm5::INDEX_DIM, Glm5::Q_RANK),
        ("indexer.wk", Glm5::INDEX_DIM, hidden),
        ("indexer.weights_proj", Glm5::INDEX_HEADS, hidden),
    ] {
        tensors.push(matrix(&format!("{attention}.{name}"), rows, columns));
    }
    tensors.push(norm(shape, &format!("{attention}.q_a_layernorm"), Glm5::Q_RANK));
    tensors.push(norm(shape, &format!("{attention}.kv_a_layernorm"), Glm5::KV_RANK));
    tensors.push(norm(shape, &format!("{attention}.indexer.k_norm"), Glm5::INDEX_DIM));
    tensors.push(bias(&format!("{attention}.indexer.k_norm"), Glm5::INDEX_DIM));
    tensors.push(norm(shape, &format!("{at}.input_layernorm"), hidden));
    tensors.push(norm(shape, &format!("{at}.post_attention_layernorm"), hidden));
    let mut mlp = |at: String, width: u64| {
        tensors.push(matrix(&format!("{at}.gate_proj"), width, hidden));
        tensors.push(matrix(&format!("{at}.up_proj"), width, hidden));
        tensors.push(matrix(&format!("{at}.down_proj"), hidden, width));
    };
    if layer < Glm5::DENSE_LAYERS {
        return mlp(format!("{at}.mlp"), Glm5::DENSE_WIDTH);
    }
    (0..experts).for_each(|expert| mlp(format!("{at}.mlp.experts.{expert}"), intermediate));
    mlp(format!("{at}.mlp.shared_experts"), intermediate);
    tensors.push(matrix(&format!("{at}.mlp.gate"), experts, hidden));
    let correction = bias("", experts);
    tensors.push(Tensor { name: format!("{at}.mlp.gate.e_score_correction_bias"), ..correction });
}

/// A matrix that keeps the variance of what it multiplies.
fn matrix(name: &str, rows: u64, columns: u64) -> Tensor {
    let deviation = (1.0 / columns as f64).sqrt() as f32;
    Tensor {
        name: format!("{name}.weight"),
        shape: vec![rows, columns],
        values: Bell { mean: 0.0, deviation },
    }
}

/// A norm's weight: around one, which Gemma stores as what is added to one.
fn norm(shape: &Shape, name: &str, length: u64) -> Tensor {
    let mean = if shape.family == Family::Gemma3 { 0.0 } else { 1.0 };
    Tensor { name: format!("{name}.weight"), shape: vec![length], values: Bell { mean, deviation: 0.05 } }
}

fn bias(name: &str, length: u64) -> Tensor {
    Tensor { name: format!("{name}.bias"), shape: vec![length], values: Bell { mean: 0.0, deviation: 0.02 } }
}

#[cfg(test)]
mod tests {
    use super::super::shape::Overrides;
    use super::*;

    #[test]
    fn known_models_have_their_published_number_of_parameters() {
        for (name, parameters) in [
            ("llama2-7b", 6_738_415_616_u64),
            ("llama2-13b", 13_015_864_320),
            ("llama2-70b", 68_976_648_192),
            ("llama3-8b", 8_030_261_248),
            ("llama3-70b", 70_553_706_496),
            ("llama3-405b", 405_853_388_800),
            ("tinyllama-1.1b", 1_100_048_384),
            ("smollm2-135m", 134_515_008),
            ("mistral-7b", 7_248_023_552),
            ("qwen2.5-0.5b", 494_032_768),
            ("qwen2.5-7b", 7_615_616_512),
            ("qwen2.5-72b", 72_706_203_648),
            ("qwen3-0.6b", 596_049_920),
            ("qwen3-8b", 8_190_735_360),
            ("qwen3-32b", 32_762_123_264),
            ("gemma3-1b", 999_885_952),
            ("mixtral-8x7b", 46_702_792_704),
            ("qwen3-30b-a3b", 30_532_122_624),
        ] {
            let shape = Shape::named(name, &Overrides::default()).expect("known");
            assert_eq!(of(&shape).iter().map(Tensor::elements).sum::<u64>(), parameters, "{name}");
        }
    }
}
