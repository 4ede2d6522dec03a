//! Joins a family's data with a configuration and a catalogue.

use std::collections::HashSet;

use aerostat_checkpoint::{Catalog, Checkpoint, Config};
use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::families::FAMILIES;
use crate::family::{Family, Refused};
use crate::keys::{Keys, text_config};
use crate::scales;
use crate::shape::Shape;
use crate::spec::{Head, Matrix, ModelSpec};
use crate::tensors::Tensors;

/// Describes a checkpoint as a model, every tensor that a sweep needs found and its shape checked.
///
/// # Errors
/// An unknown family (with the list of known ones), configuration values that are missing or contradict each other,
/// mathematics that is not implemented, missing tensors, tensors of another shape or of a format that cannot be
/// computed with.
pub fn describe(checkpoint: &Checkpoint) -> Result<ModelSpec, Error> {
    let given = Keys::new(&checkpoint.config)?;
    let family = find_family(&given)?;
    let completed = given.completed(&family.defaults)?;
    let keys = completed.as_ref().map_or(given, Keys::HuggingFace);
    refuse(&keys, family)?;
    let shape = Shape::read(&keys, family)?;
    let tensors = Tensors::new(&checkpoint.catalog, &keys, family, &shape)?;
    let embedding = tensors.embedding()?;
    let (head, head_bias) = tensors.head(&embedding)?;
    let blocks = (0..shape.layers).map(|i| tensors.block(i)).collect::<Result<Vec<_>, _>>()?;
    let final_norm =
        shape.final_norm.then(|| tensors.norm(&tensors.top(tensors.names.final_norm), shape.hidden));
    let mut spec = ModelSpec {
        family: family.name,
        hidden: shape.hidden,
        vocab: embedding.rows,
        context_max: shape.context,
        embedding_scale: shape.embedding_scale,
        positions: tensors.positions()?,
        embedding_norm: tensors.embedding_norm()?,
        ropes: tensors.ropes()?,
        blocks,
        final_norm: final_norm.transpose()?,
        head: Head {
            weight: head,
            bias: head_bias,
            normalised: normalised_head(&keys, family)?,
            scale: shape.logit_scale,
            softcap: shape.final_softcap,
        },
        parameters: 0,
        other_towers: None,
        eos: special_tokens(&checkpoint.config, "eos_token_id", GGUF_EOS),
        bos: special_tokens(&checkpoint.config, "bos_token_id", &["tokenizer.ggml.bos_token_id"])
            .first()
            .copied(),
        embedding,
    };
    spec.parameters = parameters(&spec);
    spec.other_towers = keys.text_tower().map(|_| unread(&spec, &checkpoint.catalog));
    Ok(spec)
}

/// Whether the rows of the head are divided by their norms, as of models that say so.
fn normalised_head(keys: &Keys<'_>, family: &Family) -> Result<bool, Error> {
    let large = keys.json("vocab_size").and_then(Value::as_u64) == Some(125_696);
    Ok(family.normalised_head && !keys.is_gguf() && (large || keys.json("z_loss_weight").is_some()))
}

const GGUF_EOS: &[&str] =
    &["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// What families need that is not implemented, by a part of their names in lower case, without what joins words.
const MISSING: &[(&str, &str)] = &[
    (
        "gemma3n",
        "embeddings of each layer, the four streams of AltUp, LAuReL, activations cut at a quantile, and layers that share \
         their keys and values with others",
    ),
    (
        "gemma4",
        "embeddings of each layer, layers that share their keys and values with others, and experts beside a dense MLP \
         with norms of their own",
    ),
    ("apertus", "the activation xIELU, with parameters of each layer"),
    ("bitnet", "norms within attention and MLP"),
    ("afmoe", "a gate on attention's output"),
    ("laguna", "gates on attention's output, and numbers of heads that differ from layer to layer"),
    ("cohere2moe", "experts beside layers without a norm between, averaged with those that all rows share"),
    ("dbrx", "experts that are rows of one matrix, some of them stored by inputs"),
    ("longcat", "two attentions and two MLPs in a block, and experts that give back what they read"),
    ("mimo", "values of another size than keys, and numbers of heads that differ from layer to layer"),
    ("diffllama", "the difference of two attentions"),
    ("doge", "masks that depend on values"),
    ("minimaxm3", "attention to blocks that an indexer chooses"),
    ("minimax", "linear attention"),
    ("lfm", "short convolutions in place of attention"),
    ("mamba", "layers of state spaces"),
    ("jamba", "layers of state spaces"),
    ("bamba", "layers of state spaces"),
    ("zamba", "layers of state spaces"),
    ("falconh1", "layers of state spaces"),
    ("nemotronh", "layers of state spaces"),
    ("granitemoehybrid", "layers of state spaces"),
    ("recurrentgemma", "layers of gated linear recurrence"),
    ("rwkv", "layers of gated linear recurrence"),
    ("xglm", "positions of sines and cosines"),
    ("mllama", "layers that attend to images"),
];

fn find_family(keys: &Keys<'_>) -> Result<&'static Family, Error> {
    let (found, name) = match keys {
        Keys::Gguf(_, arch) => (FAMILIES.iter().find(|f| f.gguf.contains(arch)), (*arch).to_owned()),
        Keys::HuggingFace(_) => {
            let architecture = keys.whole("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
            let tower = keys.text_tower();
            let model_type = if tower.is_some() { tower } else { keys.text("model_type")? };
            let named = |a: &str| FAMILIES.iter().find(|f| f.architectures.contains(&a));
            // As transformers does, by `model_type`; but a causal model of another name computes something else.
            let found = match (model_type, architecture) {
                (_, Some(a)) if tower.is_none() && a.ends_with("ForCausalLM") && named(a).is_none() => None,
                (Some(t), _) => FAMILIES.iter().find(|f| f.model_types.contains(&t)),
                (None, Some(a)) => named(a),
                (None, None) => return Err(keys.config("neither `model_type` nor `architectures` is given")),
            };
            if found.is_some() {
                refuse_other_tasks(keys, architecture.filter(|_| tower.is_none()))?;
            }
            let names: Vec<&str> = architecture.into_iter().chain(model_type).collect();
            (found, names.join("`, `"))
        }
    };
    found.copied().ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|f| f.name).collect();
        let plain: String = name.chars().filter(|c| !matches!(c, '_' | '-')).collect();
        if let Some((_, missing)) = MISSING.iter().find(|(part, _)| plain.to_ascii_lowercase().contains(part))
        {
            return keys
                .unsupported(format!("the model family `{name}` is not supported: it needs {missing}"));
        }
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
    scales::refuse_unknown(keys)
}

/// Refuses configuration values that the family names.
fn refuse(keys: &Keys<'_>, family: &Family) -> Result<(), Error> {
    for refused in family.refused {
        let message = match *refused {
            Refused::Flag(key, value) if keys.flag(key, !value)? == value => format!("`{key}`: {value}"),
            Refused::Above(key, most)
                if keys.json(key).and_then(Value::as_f64).is_some_and(|n| n > f64::from(most)) =>
            {
                format!("`{key}` above {most}")
            }
            Refused::Given(key) if keys.json(key).is_some() => format!("`{key}`"),
            _ => continue,
        };
        return Err(keys.unsupported(format!("models `{}` with {message} are not supported", family.name)));
    }
    Ok(())
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
            let own =
                || [text_config(hf), &hf.config].iter().find_map(|c| c.get(key).map(ids)).unwrap_or_default();
            if generation.is_empty() { own() } else { generation }
        }
        Config::Gguf(meta) => {
            let mut found: Vec<u32> =
                gguf.iter().filter_map(|k| meta.u64(k)).filter_map(|n| u32::try_from(n).ok()).collect();
            found.dedup();
            found
        }
    }
}

/// Tensors that no part of the model refers to, and their bytes.
fn unread(spec: &ModelSpec, catalog: &Catalog) -> (usize, u64) {
    let matrices = spec.matrices().chain([&spec.embedding]).map(|m| m.name.as_str());
    let beside = spec.matrices().flat_map(Matrix::companions).map(|c| c.name.as_str());
    let small = spec.vectors().map(|v| v.name.as_str());
    let used: HashSet<&str> = matrices.chain(beside).chain(small).collect();
    let unread = catalog.tensors().filter(|tensor| !used.contains(tensor.name.as_str()));
    unread.fold((0, 0), |(count, bytes), tensor| (count + 1, bytes + tensor.extent.bytes))
}

fn parameters(spec: &ModelSpec) -> u64 {
    let matrix = |m: &Matrix| m.rows as u64 * m.cols as u64;
    let embedding = if spec.tied() { 0 } else { matrix(&spec.embedding) };
    let scales: u64 = spec.scales().map(|scales| scales.len as u64).sum();
    let vectors = spec.vectors().map(|v| v.len as u64).sum::<u64>() - scales;
    embedding + spec.matrices().map(matrix).sum::<u64>() + vectors
}
