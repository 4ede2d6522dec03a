//! Shapes of known models, and how flags change them.

use anyhow::{Result, ensure};

/// The families that differ in their configuration or their tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma3,
    Mixtral,
    Qwen3Moe,
    Glm5,
}

/// Sizes of GLM 5 that no flag changes: compressed queries, compressed keys and values, the parts of a head that are not and
/// that are rotated, a value head; the indexer's heads and their size; dense layers, and their width.
pub(super) struct Glm5;

impl Glm5 {
    pub(super) const Q_RANK: u64 = 2048;
    pub(super) const KV_RANK: u64 = 512;
    pub(super) const NOPE: u64 = 192;
    pub(super) const ROPE: u64 = 64;
    pub(super) const VALUE: u64 = 256;
    pub(super) const INDEX_HEADS: u64 = 32;
    pub(super) const INDEX_DIM: u64 = 128;
    pub(super) const DENSE_LAYERS: u64 = 3;
    pub(super) const DENSE_WIDTH: u64 = 12_288;
}

/// How positions are turned beyond the plain way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rope {
    Plain,
    /// Llama 3.1's scaling by this factor, from a context of 8192.
    Llama3(f64),
    /// Positions of full attention divided by this.
    Linear(f64),
}

/// A model: everything that its configuration and its tensors follow from. Sizes are in elements.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) family: Family,
    pub(super) layers: u64,
    pub(super) hidden: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    /// Of the MLP, or of an expert.
    pub(super) intermediate: u64,
    /// How many there are, and how many of them a row uses; 0 where there are none.
    pub(super) experts: u64,
    pub(super) experts_chosen: u64,
    pub(super) vocab: u64,
    /// The head is the embedding.
    pub(super) tied: bool,
    pub(super) context: u64,
    pub(super) rope_theta: f64,
    pub(super) rope: Rope,
    pub(super) norm_epsilon: f64,
    /// Positions that a sliding layer sees; 0 where there are none.
    pub(super) window: u64,
}

/// Flags that change a known shape.
#[derive(clap::Args, Default)]
pub(super) struct Overrides {
    /// Number of blocks.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) layers: Option<u64>,
    /// Width of the residual stream.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(super) hidden: Option<u64>,
    /// Number of query heads.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 12))]
    pub(super) heads: Option<u64>,
    /// Number of key and value heads.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 12))]
    pub(super) kv_heads: Option<u64>,
    /// Width of a head; hidden / heads where that is how the known shape has it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=1 << 12))]
    pub(super) head_dim: Option<u64>,
    /// Width of the MLP, or of an expert.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(super) intermediate: Option<u64>,
    /// Number of tokens.
    #[arg(long, value_parser = clap::value_parser!(u64).range(4..=1 << 22))]
    pub(super) vocab: Option<u64>,
}

/// The names that [`Shape::named`] knows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

impl Shape {
    /// The shape of a known model with some sizes changed.
    ///
    /// # Errors
    /// The name is unknown, or the sizes do not fit together.
    pub(super) fn named(name: &str, overrides: &Overrides) -> Result<Shape> {
        let known = KNOWN.iter().find(|known| known.name == name);
        let mut shape = known.map(Known::shape).ok_or_else(|| {
            let all = names().collect::<Vec<_>>().join(", ");
            anyhow::anyhow!("no shape is named {name}; there are {all}")
        })?;
        let head_dim_follows = shape.hidden == shape.heads * shape.head_dim;
        shape.layers = overrides.layers.unwrap_or(shape.layers);
        shape.hidden = overrides.hidden.unwrap_or(shape.hidden);
        shape.heads = overrides.heads.unwrap_or(shape.heads);
        shape.kv_heads = overrides.kv_heads.unwrap_or(shape.kv_heads);
        shape.intermediate = overrides.intermediate.unwrap_or(shape.intermediate);
        shape.vocab = overrides.vocab.unwrap_or(shape.vocab);
        if head_dim_follows && overrides.head_dim.is_none() {
            ensure!(
                shape.hidden.is_multiple_of(shape.heads),
                "hidden {} is no multiple of heads {}; give --head-dim, or change one of them",
                shape.hidden,
                shape.heads
            );
            shape.head_dim = shape.hidden / shape.heads;
        }
        shape.head_dim = overrides.head_dim.unwrap_or(shape.head_dim);
        shape.fits()?;
        Ok(shape)
    }

    fn fits(&self) -> Result<()> {
        let Shape { heads, kv_heads, head_dim, .. } = self;
        ensure!(
            heads.is_multiple_of(*kv_heads),
            "heads {heads} is no multiple of kv-heads {kv_heads}; change --heads or --kv-heads"
        );
        ensure!(head_dim.is_multiple_of(2), "head-dim {head_dim} is odd; rotary positions need pairs");
        Ok(())
    }
}

/// One line of the table of known models.
struct Known {
    name: &'static str,
    family: Family,
    /// Blocks, hidden, heads, key and value heads, width of a head, MLP, vocabulary.
    sizes: [u64; 7],
    tied: bool,
    context: u64,
    rope_theta: f64,
    rope: Rope,
    norm_epsilon: f64,
    window: u64,
    experts: [u64; 2],
}

impl Known {
    const fn new(name: &'static str, family: Family, sizes: [u64; 7]) -> Known {
        Known {
            name,
            family,
            sizes,
            tied: false,
            context: 4096,
            rope_theta: 1e4,
            rope: Rope::Plain,
            norm_epsilon: 1e-5,
            window: 0,
            experts: [0, 0],
        }
    }

    const fn llama3(name: &'static str, sizes: [u64; 7]) -> Known {
        let base = Known::new(name, Family::Llama, sizes);
        Known { context: 131_072, rope_theta: 5e5, rope: Rope::Llama3(8.0), ..base }
    }

    const fn qwen(name: &'static str, family: Family, sizes: [u64; 7], tied: bool) -> Known {
        let base = Known::new(name, family, sizes);
        Known { tied, context: 32_768, rope_theta: 1e6, norm_epsilon: 1e-6, ..base }
    }

    const fn gemma3(name: &'static str, sizes: [u64; 7], window: u64) -> Known {
        let base = Known::new(name, Family::Gemma3, sizes);
        Known { tied: true, context: 32_768, rope_theta: 1e6, norm_epsilon: 1e-6, window, ..base }
    }

    fn shape(&self) -> Shape {
        let [layers, hidden, heads, kv_heads, head_dim, intermediate, vocab] = self.sizes;
        Shape {
            family: self.family,
            layers,
            hidden,
            heads,
            kv_heads,
            head_dim,
            intermediate,
            vocab,
            tied: self.tied,
            context: self.context,
            rope_theta: self.rope_theta,
            rope: self.rope,
            norm_epsilon: self.norm_epsilon,
            window: self.window,
            experts: self.experts[0],
            experts_chosen: self.experts[1],
        }
    }
}

/// The published configurations; the Llama 3 ones are those of 3.1.
const KNOWN: &[Known] = &[
    Known::new("custom", Family::Llama, [2, 64, 4, 2, 16, 128, 256]),
    Known::new("llama2-7b", Family::Llama, [32, 4096, 32, 32, 128, 11_008, 32_000]),
    Known::new("llama2-13b", Family::Llama, [40, 5120, 40, 40, 128, 13_824, 32_000]),
    Known::new("llama2-70b", Family::Llama, [80, 8192, 64, 8, 128, 28_672, 32_000]),
    Known::llama3("llama3-8b", [32, 4096, 32, 8, 128, 14_336, 128_256]),
    Known::llama3("llama3-70b", [80, 8192, 64, 8, 128, 28_672, 128_256]),
    Known::llama3("llama3-405b", [126, 16_384, 128, 8, 128, 53_248, 128_256]),
    Known {
        context: 2048,
        ..Known::new("tinyllama-1.1b", Family::Llama, [22, 2048, 32, 4, 64, 5632, 32_000])
    },
    Known {
        tied: true,
        context: 8192,
        rope_theta: 1e5,
        ..Known::new("smollm2-135m", Family::Llama, [30, 576, 9, 3, 64, 1536, 49_152])
    },
    Known {
        context: 32_768,
        rope_theta: 1e6,
        ..Known::new("mistral-7b", Family::Mistral, [32, 4096, 32, 8, 128, 14_336, 32_768])
    },
    Known {
        context: 32_768,
        rope_theta: 1e6,
        experts: [8, 2],
        ..Known::new("mixtral-8x7b", Family::Mixtral, [32, 4096, 32, 8, 128, 14_336, 32_000])
    },
    Known::qwen("qwen2.5-0.5b", Family::Qwen2, [24, 896, 14, 2, 64, 4864, 151_936], true),
    Known::qwen("qwen2.5-7b", Family::Qwen2, [28, 3584, 28, 4, 128, 18_944, 152_064], false),
    Known::qwen("qwen2.5-72b", Family::Qwen2, [80, 8192, 64, 8, 128, 29_568, 152_064], false),
    Known {
        context: 40_960,
        ..Known::qwen("qwen3-0.6b", Family::Qwen3, [28, 1024, 16, 8, 128, 3072, 151_936], true)
    },
    Known {
        context: 40_960,
        ..Known::qwen("qwen3-8b", Family::Qwen3, [36, 4096, 32, 8, 128, 12_288, 151_936], false)
    },
    Known {
        context: 40_960,
        ..Known::qwen("qwen3-32b", Family::Qwen3, [64, 5120, 64, 8, 128, 25_600, 151_936], false)
    },
    Known {
        context: 40_960,
        experts: [128, 8],
        ..Known::qwen("qwen3-30b-a3b", Family::Qwen3Moe, [48, 2048, 32, 4, 128, 768, 151_936], false)
    },
    Known {
        context: 40_960,
        experts: [128, 8],
        ..Known::qwen("qwen3-235b-a22b", Family::Qwen3Moe, [94, 4096, 64, 4, 128, 1536, 151_936], false)
    },
    Known {
        context: 202_752,
        experts: [256, 8],
        rope_theta: 1e6,
        ..Known::new("glm5-744b", Family::Glm5, [78, 6144, 64, 64, 256, 2048, 154_880])
    },
    Known::gemma3("gemma3-1b", [26, 1152, 4, 1, 256, 6912, 262_144], 512),
    Known {
        context: 131_072,
        rope: Rope::Linear(8.0),
        ..Known::gemma3("gemma3-4b", [34, 2560, 8, 4, 256, 10_240, 262_208], 1024)
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_change_a_known_shape() {
        let overrides =
            Overrides { hidden: Some(96), heads: Some(6), layers: Some(1), ..Overrides::default() };
        let shape = Shape::named("custom", &overrides).expect("fits");
        assert_eq!((shape.hidden, shape.heads, shape.head_dim, shape.layers), (96, 6, 16, 1));
        let wide = Overrides { hidden: Some(512), ..Overrides::default() };
        assert_eq!(Shape::named("gemma3-1b", &wide).expect("fits").head_dim, 256);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for (overrides, part) in [
            (Overrides { hidden: Some(65), ..Overrides::default() }, "no multiple of heads"),
            (Overrides { kv_heads: Some(3), ..Overrides::default() }, "no multiple of kv-heads"),
            (Overrides { head_dim: Some(3), ..Overrides::default() }, "odd"),
        ] {
            let error = Shape::named("custom", &overrides).expect_err("must be refused");
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(Shape::named("gpt9", &Overrides::default()).is_err());
    }
}
