//! Jamba: state spaces of the first Mamba, on some layers attention without rotation, and an MLP or experts after each.

use crate::family::{
    Family, Mixers, Mixture, MixtureNames, Names, Rotated, SelectiveFamily, SelectiveNorms, SpaceFamily,
    Switch,
};

pub(crate) const FAMILY: Family = Family {
    name: "jamba",
    architectures: &["JambaForCausalLM"],
    model_types: &["jamba"],
    gguf: &["jamba"],
    names: Names {
        final_norm: "final_layernorm",
        mlp_norm: "layers.{}.pre_ff_layernorm",
        gate: "layers.{}.feed_forward.gate_proj",
        up: "layers.{}.feed_forward.up_proj",
        down: "layers.{}.feed_forward.down_proj",
        ..Names::HUGGING_FACE
    },
    rotated: Rotated::None,
    mixers: Mixers::Listed(&[]),
    space: Some(SpaceFamily {
        selective: Some(SelectiveFamily {
            width: "",
            selected: "layers.{}.mamba.x_proj",
            step: "layers.{}.mamba.dt_proj",
            norms: SelectiveNorms::Named([
                "layers.{}.mamba.dt_layernorm",
                "layers.{}.mamba.b_layernorm",
                "layers.{}.mamba.c_layernorm",
            ]),
        }),
        ..SpaceFamily::PLAIN
    }),
    mixture: Some(Mixture {
        normalise: Switch::Never,
        gguf_normalise: false,
        chosen: Some(2),
        names: MixtureNames {
            router: "layers.{}.feed_forward.router",
            gate: "layers.{}.feed_forward.experts.{e}.gate_proj",
            up: "layers.{}.feed_forward.experts.{e}.up_proj",
            gate_up: "layers.{}.feed_forward.experts.gate_up_proj",
            down: "layers.{}.feed_forward.experts.{e}.down_proj|layers.{}.feed_forward.experts.down_proj",
            ..MixtureNames::HUGGING_FACE
        },
        ..Mixture::PLAIN
    }),
    ..Family::PLAIN
};
