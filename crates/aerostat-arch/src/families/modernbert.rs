//! ModernBERT: an encoder that rotates, most of whose layers see a window on both sides.

use crate::family::{Bias, Encoder, Family, Fused, Names, Windows};
use crate::spec::{Activation, NormKind};

pub(crate) const FAMILY: Family = Family {
    name: "modernbert",
    architectures: &["ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"],
    model_types: &["modernbert"],
    names: Names {
        embedding: "embeddings.tok_embeddings",
        embedding_norm: "embeddings.norm",
        final_norm: "final_norm",
        attention_norm: "layers.{}.attn_norm",
        qkv: Some(("layers.{}.attn.Wqkv", Fused::Stacked)),
        o: "layers.{}.attn.Wo",
        mlp_norm: "layers.{}.mlp_norm",
        gate_up: Some("layers.{}.mlp.Wi"),
        down: "layers.{}.mlp.Wo",
        ..Names::HUGGING_FACE
    },
    norm: NormKind::Layer,
    norm_bias: Bias::Key("norm_bias", false),
    embedding_norm: true,
    activation: Activation::GeluErf,
    activation_key: "hidden_activation",
    qkv_bias: Bias::Key("attention_bias", false),
    output_bias: Bias::Key("attention_bias", false),
    mlp_bias: Bias::Key("mlp_bias", false),
    windows: Windows::AllButFirstOf(3),
    local_rope_theta: Some(10_000.0),
    encoder: Some(Encoder { bare_first: true, ..Encoder::PLAIN }),
    ..Family::PLAIN
};
