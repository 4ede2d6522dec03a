//! Joins a family's data with a configuration and a catalogue.

use aerostat_checkpoint::{Catalog, Checkpoint, Config, DType, Tensor};
use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::families::FAMILIES;
use crate::family::{Bias, Family, Names, Softcap, Windows};
use crate::keys::{self, Keys};
use crate::rope::{self, Layers, RopeConfig, RopeSpec};
use crate::spec::{
    Activation, AttentionSpec, Block, Head, Linear, Matrix, MlpSpec, ModelSpec, Norm, RopeStyle, Vector,
};

/// Describes a checkpoint as a model, every tensor that a sweep needs found and its shape checked.
///
/// # Errors
/// An unknown family (with the list of known ones), configuration values that are missing or contradict each other,
/// mathematics that is not implemented, missing tensors, tensors of another shape or of a format that cannot be
/// computed with.
pub fn describe(checkpoint: &Checkpoint) -> Result<ModelSpec, Error> {
    let keys = Keys::new(&checkpoint.config)?;
    let family = find_family(&keys)?;
    let shape = Shape::read(&keys, family)?;
    let tensors = Tensors::new(&checkpoint.catalog, &keys, family, &shape)?;
    let embedding = tensors.embedding()?;
    let head = tensors.head(&embedding)?;
    let blocks = (0..shape.layers).map(|i| tensors.block(i)).collect::<Result<Vec<_>, _>>()?;
    let final_norm = tensors.norm(&tensors.top(tensors.names.final_norm), shape.hidden)?;
    let mut spec = ModelSpec {
        family: family.name,
        hidden: shape.hidden,
        vocab: embedding.rows,
        context_max: shape.context,
        embedding_scale: family.embedding_scaled.then(|| (shape.hidden as f64).sqrt() as f32),
        ropes: tensors.ropes()?,
        blocks,
        final_norm,
        head: Head { weight: head, softcap: shape.final_softcap },
        parameters: 0,
        eos: special_tokens(&checkpoint.config, "eos_token_id", GGUF_EOS),
        bos: special_tokens(&checkpoint.config, "bos_token_id", &["tokenizer.ggml.bos_token_id"])
            .first()
            .copied(),
        embedding,
    };
    spec.parameters = parameters(&spec);
    Ok(spec)
}

const GGUF_EOS: &[&str] =
    &["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Formats that a sweep can compute with.
const COMPUTABLE: &[DType] = &[
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];

fn find_family(keys: &Keys<'_>) -> Result<&'static Family, Error> {
    let (found, name) = match keys {
        Keys::Gguf(_, arch) => (FAMILIES.iter().find(|f| f.gguf.contains(arch)), (*arch).to_owned()),
        Keys::HuggingFace(_) => {
            let architecture = keys.json("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
            let model_type = keys.text("model_type")?;
            let named = |a: &str| FAMILIES.iter().find(|f| f.architectures.contains(&a));
            // As transformers does, by `model_type`; but a causal model of another name computes something else.
            let found = match (model_type, architecture) {
                (_, Some(a)) if a.ends_with("ForCausalLM") && named(a).is_none() => None,
                (Some(t), _) => FAMILIES.iter().find(|f| f.model_types.contains(&t)),
                (None, Some(a)) => named(a),
                (None, None) => return Err(keys.config("neither `model_type` nor `architectures` is given")),
            };
            if found.is_some() {
                refuse_other_tasks(keys, architecture)?;
            }
            let names: Vec<&str> = architecture.into_iter().chain(model_type).collect();
            (found, names.join("`, `"))
        }
    };
    found.copied().ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|f| f.name).collect();
        let message = format!("the model family `{name}` is not known; known families: {}", known.join(", "));
        Error::new(ErrorKind::UnknownFamily, keys.path(), message)
    })
}

/// Refuses what is of a known family but no causal language model with plain weights.
fn refuse_other_tasks(keys: &Keys<'_>, architecture: Option<&str>) -> Result<(), Error> {
    if let Some(name) = architecture.filter(|a| a.contains("For") && !a.contains("ForCausalLM")) {
        return Err(keys.unsupported(format!("`{name}` is not a causal language model")));
    }
    if keys.flag("use_bidirectional_attention", false)? {
        return Err(keys.unsupported("`use_bidirectional_attention` is not supported"));
    }
    match keys.json("quantization_config") {
        None => Ok(()),
        Some(q) => {
            let method = q.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
            Err(keys.unsupported(format!("weights quantised by `{method}` are not supported yet")))
        }
    }
}

/// The numbers of a configuration.
struct Shape {
    layers: usize,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    context: usize,
    eps: f32,
    scale: f32,
    attention_softcap: Option<f32>,
    final_softcap: Option<f32>,
    activation: Activation,
    windows: Vec<Option<usize>>,
    ropes: Vec<RopeConfig>,
}

impl Shape {
    fn read(keys: &Keys<'_>, family: &Family) -> Result<Self, Error> {
        const LAYERS_MAX: usize = 10_000;
        let layers = keys.count(&keys::LAYERS)?;
        if layers > LAYERS_MAX {
            return Err(keys.config(format!("{layers} layers are more than any model has")));
        }
        let hidden = keys.count(&keys::HIDDEN)?;
        let heads = keys.count(&keys::HEADS)?;
        // `null` means as many as query heads; a missing key, the family's number.
        let missing = !keys.is_gguf() && !keys.is_null(&keys::KV_HEADS);
        let kv_heads = keys.count_or(&keys::KV_HEADS, family.defaults.kv_heads.filter(|_| missing))?;
        let kv_heads = kv_heads.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(
                keys.config(format!("{heads} query heads cannot share {kv_heads} key/value heads evenly"))
            );
        }
        let head_dim_default = family.defaults.head_dim.filter(|_| !keys.is_gguf()).unwrap_or(hidden / heads);
        let head_dim = keys.count_or(&keys::HEAD_DIM, None)?.unwrap_or(head_dim_default);
        let theta = family.defaults.rope_theta;
        let ropes = match family.local_rope_theta {
            None => vec![rope::read(keys, Layers::All, theta)?],
            Some(local) => {
                vec![rope::read(keys, Layers::Full, theta)?, rope::read(keys, Layers::Sliding, local)?]
            }
        };
        Ok(Self {
            layers,
            hidden,
            intermediate: keys.count(&keys::INTERMEDIATE)?,
            heads,
            kv_heads,
            head_dim,
            context: keys.count_or(&keys::CONTEXT, None)?.unwrap_or(family.defaults.context),
            eps: keys.number(&keys::EPS)?.unwrap_or(1e-6) as f32,
            scale: score_scale(keys, family, layers, hidden / heads, head_dim)?,
            attention_softcap: softcap(keys, &keys::ATTENTION_SOFTCAP, family.softcaps.0)?,
            final_softcap: softcap(keys, &keys::FINAL_SOFTCAP, family.softcaps.1)?,
            activation: activation(keys, family)?,
            windows: windows(keys, family, layers)?,
            ropes,
        })
    }
}

fn softcap(keys: &Keys<'_>, key: &keys::Key, softcap: Softcap) -> Result<Option<f32>, Error> {
    let Softcap::Key(default) = softcap else { return Ok(None) };
    match keys.number(key)? {
        Some(cap) if cap > 0.0 => Ok(Some(cap as f32)),
        Some(0.0) => Ok(None),
        Some(cap) => Err(keys.config(format!("`{}` is {cap}; it must be above 0", keys.name(key)))),
        None if keys.is_null(key) => Ok(None),
        None => Ok(default),
    }
}

/// The factor on attention scores.
fn score_scale(
    keys: &Keys<'_>,
    family: &Family,
    layers: usize,
    even: usize,
    head_dim: usize,
) -> Result<f32, Error> {
    let width = match family.query_scalar {
        None => head_dim as f64,
        Some(large) if keys.is_gguf() => (if layers == large { even } else { head_dim }) as f64,
        Some(_) => match keys.json("query_pre_attn_scalar") {
            None => 256.0,
            Some(v) => v.as_f64().filter(|n| *n > 0.0).ok_or_else(|| {
                keys.config(format!("`query_pre_attn_scalar` is {v}; a number above 0 is needed"))
            })?,
        },
    };
    Ok(keys.gguf_number("attention.scale").unwrap_or(width.powf(-0.5)) as f32)
}

fn activation(keys: &Keys<'_>, family: &Family) -> Result<Activation, Error> {
    Ok(match keys.text(family.activation_key)? {
        None => family.activation,
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu") if family.gelu_means_tanh => Activation::GeluTanh,
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_python_tanh" | "gelu_accurate") => {
            Activation::GeluTanh
        }
        Some("gelu" | "gelu_python") => Activation::GeluErf,
        Some("relu") => Activation::Relu,
        Some(other) => {
            let known = "silu, relu, gelu, gelu_pytorch_tanh";
            return Err(
                keys.unsupported(format!("the activation `{other}` is not supported; known: {known}"))
            );
        }
    })
}

/// The window of each layer.
fn windows(keys: &Keys<'_>, family: &Family, layers: usize) -> Result<Vec<Option<usize>>, Error> {
    let default = family.defaults.window.filter(|_| !keys.is_gguf() && !keys.is_null(&keys::WINDOW));
    let window = keys.count_or(&keys::WINDOW, default)?;
    let slides: Box<dyn Fn(usize) -> bool> = match family.windows {
        // A GGUF of this architecture may be another family's; the key is there only if the model slides.
        Windows::Never => Box::new(|_| keys.is_gguf()),
        Windows::All => Box::new(|_| true),
        Windows::FromLayer => {
            let enabled = keys.flag("use_sliding_window", false)?;
            let first = keys.json("max_window_layers").and_then(Value::as_u64).unwrap_or(28);
            Box::new(move |i| enabled && i as u64 >= first)
        }
        Windows::EveryOther => Box::new(|i| i % 2 == 0),
        Windows::AllButEvery(n) => {
            let n = keys.count_or(&keys::WINDOW_PATTERN, Some(n))?.unwrap_or(n);
            Box::new(move |i| !(i + 1).is_multiple_of(n))
        }
    };
    let types =
        match keys.json("layer_types").filter(|_| !matches!(family.windows, Windows::Never | Windows::All)) {
            None => None,
            Some(v) => {
                let types = v.as_array().filter(|t| t.len() == layers);
                Some(types.ok_or_else(|| keys.config(format!("`layer_types` must list {layers} layers")))?)
            }
        };
    let layer = |i: usize| match types.and_then(|t| t.get(i)) {
        None => Ok(window.filter(|_| slides(i))),
        Some(kind) => match kind.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") => window
                .map(Some)
                .ok_or_else(|| keys.config(format!("layer {i} slides, but `sliding_window` is not given"))),
            _ => Err(keys.unsupported(format!("layer type {kind} of layer {i} is not supported"))),
        },
    };
    (0..layers).map(layer).collect()
}

/// Finds the tensors of a family in a catalogue.
struct Tensors<'a> {
    catalog: &'a Catalog,
    keys: &'a Keys<'a>,
    family: &'a Family,
    shape: &'a Shape,
    names: &'a Names,
    prefix: &'static str,
}

impl<'a> Tensors<'a> {
    fn new(
        catalog: &'a Catalog,
        keys: &'a Keys<'a>,
        family: &'a Family,
        shape: &'a Shape,
    ) -> Result<Self, Error> {
        const PREFIXES: &[&str] = &["model.", "", "language_model.model.", "model.language_model."];
        let names = if keys.is_gguf() { &family.gguf_names } else { &family.names };
        let has = |prefix: &&&str| catalog.get(&format!("{prefix}{}.weight", names.embedding)).is_some();
        let prefix = match keys.is_gguf() {
            true => "",
            false => PREFIXES.iter().find(has).copied().unwrap_or("model."),
        };
        Ok(Self { catalog, keys, family, shape, names, prefix })
    }

    fn top(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn embedding(&self) -> Result<Matrix, Error> {
        let name = format!("{}.weight", self.top(self.names.embedding));
        let tensor = self.require(&name)?;
        let rows = usize::try_from(tensor.shape.first().copied().unwrap_or(0)).unwrap_or(0);
        if let Some(vocab) = self.keys.json("vocab_size").and_then(Value::as_u64)
            && vocab != rows as u64
        {
            return Err(self.bad(tensor, format!("`vocab_size` is {vocab}")));
        }
        self.matrix(&name, rows, self.shape.hidden)
    }

    /// The stored head, whatever the configuration says, as transformers does; else the embedding, if the two are tied.
    fn head(&self, embedding: &Matrix) -> Result<Matrix, Error> {
        let name = format!("{}.weight", self.names.head);
        let tied = self.keys.is_gguf() || self.keys.flag("tie_word_embeddings", self.family.defaults.tied)?;
        match self.catalog.get(&name) {
            None if tied => Ok(embedding.clone()),
            _ => self.matrix(&name, embedding.rows, self.shape.hidden),
        }
    }

    fn ropes(&self) -> Result<Vec<RopeSpec>, Error> {
        let rotate = |rope: &RopeConfig| {
            let rotary = self.keys.gguf_number("rope.dimension_count");
            let rotary = rotary.map_or(self.shape.head_dim, |n| n as usize);
            if rotary == 0 || !rotary.is_multiple_of(2) || rotary > self.shape.head_dim {
                let message =
                    format!("{rotary} of {} dimensions of a head cannot be rotated", self.shape.head_dim);
                return Err(self.keys.config(message));
            }
            let style = if self.keys.is_gguf() { self.family.gguf_rope } else { RopeStyle::Half };
            Ok(RopeSpec { theta: rope.theta, rotary, style, scaling: rope.scaling, divisors: None })
        };
        let mut ropes = self.shape.ropes.iter().map(rotate).collect::<Result<Vec<_>, _>>()?;
        if self.keys.is_gguf() && self.catalog.get("rope_freqs.weight").is_some() {
            ropes[0].divisors = Some(self.vector("rope_freqs.weight", ropes[0].rotary / 2, 0.0)?);
        }
        Ok(ropes)
    }

    fn block(&self, i: usize) -> Result<Block, Error> {
        let s = self.shape;
        let name = |pattern: &str| self.top(&pattern.replace("{}", &i.to_string()));
        let norm = |pattern: &str, len: usize| self.norm(&name(pattern), len);
        let post = |pattern: &str| match self.family.post_norms {
            true => norm(pattern, s.hidden).map(Some),
            false => Ok(None),
        };
        let head_norm = |pattern: &str| match self.family.head_norms {
            true => norm(pattern, s.head_dim).map(Some),
            false => Ok(None),
        };
        let linear = |pattern: &str, bias: Bias, rows: usize, cols: usize| {
            self.linear(&name(pattern), bias, rows, cols)
        };
        let (n, f) = (self.names, self.family);
        let (q_width, kv_width) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        let window = s.windows[i];
        Ok(Block {
            attention_norm: norm(n.attention_norm, s.hidden)?,
            attention: AttentionSpec {
                q: linear(n.q, f.qkv_bias, q_width, s.hidden)?,
                k: linear(n.k, f.qkv_bias, kv_width, s.hidden)?,
                v: linear(n.v, f.qkv_bias, kv_width, s.hidden)?,
                o: linear(n.o, f.output_bias, s.hidden, q_width)?,
                q_norm: head_norm(n.q_norm)?,
                k_norm: head_norm(n.k_norm)?,
                heads: s.heads,
                kv_heads: s.kv_heads,
                head_dim: s.head_dim,
                scale: s.scale,
                softcap: s.attention_softcap,
                window,
                rope: usize::from(window.is_some() && s.ropes.len() > 1),
            },
            attention_post_norm: post(n.attention_post_norm)?,
            mlp_norm: norm(n.mlp_norm, s.hidden)?,
            mlp: MlpSpec {
                gate: linear(n.gate, f.mlp_bias, s.intermediate, s.hidden)?,
                up: linear(n.up, f.mlp_bias, s.intermediate, s.hidden)?,
                down: linear(n.down, f.mlp_bias, s.hidden, s.intermediate)?,
                activation: s.activation,
            },
            mlp_post_norm: post(n.mlp_post_norm)?,
        })
    }

    fn linear(&self, name: &str, bias: Bias, rows: usize, cols: usize) -> Result<Linear, Error> {
        let bias_name = format!("{name}.bias");
        let biased = match bias {
            Bias::Never => false,
            Bias::Always => true,
            Bias::Key(_) if self.keys.is_gguf() => self.catalog.get(&bias_name).is_some(),
            Bias::Key(key) => self.keys.flag(key, false)?,
        };
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: biased.then(|| self.vector(&bias_name, rows, 0.0)).transpose()?,
        })
    }

    fn norm(&self, name: &str, len: usize) -> Result<Norm, Error> {
        let offset = if self.keys.is_gguf() { 0.0 } else { self.family.norm_offset };
        Ok(Norm { weight: self.vector(&format!("{name}.weight"), len, offset)?, eps: self.shape.eps })
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, Error> {
        let tensor = self.expect(name, &[rows, cols])?;
        if !cols.is_multiple_of(tensor.dtype.block_len()) {
            return Err(self.bad(tensor, format!("its rows are not whole blocks of {}", tensor.dtype.name())));
        }
        Ok(Matrix { name: name.to_owned(), dtype: tensor.dtype, rows, cols, extent: tensor.extent })
    }

    fn vector(&self, name: &str, len: usize, offset: f32) -> Result<Vector, Error> {
        let tensor = self.expect(name, &[len])?;
        Ok(Vector { name: name.to_owned(), dtype: tensor.dtype, len, extent: tensor.extent, offset })
    }

    /// The tensor, if it has this shape and a format that can be computed with.
    fn expect(&self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.require(name)?;
        if !tensor.shape.iter().copied().eq(shape.iter().map(|n| *n as u64)) {
            return Err(self.bad(tensor, format!("the configuration calls for {shape:?}")));
        }
        if !COMPUTABLE.contains(&tensor.dtype) {
            let message =
                format!("tensor `{name}` is stored as {}, which is not supported yet", tensor.dtype.name());
            return Err(Error::new(ErrorKind::Unsupported, self.catalog.file_of(tensor), message));
        }
        Ok(tensor)
    }

    fn require(&self, name: &str) -> Result<&'a Tensor, Error> {
        self.catalog.get(name).ok_or_else(|| {
            let message = format!(
                "the model `{}` needs a tensor `{name}`, which is not in the checkpoint",
                self.family.name
            );
            Error::new(ErrorKind::MissingTensor, self.keys.path(), message)
        })
    }

    fn bad(&self, tensor: &Tensor, why: String) -> Error {
        let message = format!("tensor `{}` has shape {:?}; {why}", tensor.name, tensor.shape);
        Error::new(ErrorKind::Tensor, self.catalog.file_of(tensor), message)
    }
}

/// Token ids under a key of `generation_config.json`, else of `config.json`, or under GGUF keys.
fn special_tokens(config: &Config, key: &str, gguf: &[&str]) -> Vec<u32> {
    let ids = |v: &Value| -> Vec<u32> {
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        v.as_array().map_or_else(|| one(v).into_iter().collect(), |a| a.iter().filter_map(one).collect())
    };
    match config {
        Config::HuggingFace(hf) => {
            let generation = hf.generation.as_ref().and_then(|g| g.get(key)).map(ids).unwrap_or_default();
            if generation.is_empty() { hf.config.get(key).map(ids).unwrap_or_default() } else { generation }
        }
        Config::Gguf(meta) => {
            let mut found: Vec<u32> =
                gguf.iter().filter_map(|k| meta.u64(k)).filter_map(|n| u32::try_from(n).ok()).collect();
            found.dedup();
            found
        }
    }
}

fn parameters(spec: &ModelSpec) -> u64 {
    let matrix = |m: &Matrix| m.rows as u64 * m.cols as u64;
    let embedding = if spec.tied() { 0 } else { matrix(&spec.embedding) };
    embedding + spec.matrices().map(matrix).sum::<u64>() + spec.vectors().map(|v| v.len as u64).sum::<u64>()
}
