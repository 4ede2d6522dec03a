//! Which family a configuration is of, and what of it is refused.

use aerostat_checkpoint::{NAME_CHARS_MAX, shortened};
use serde_json::Value;

use super::keys::Keys;
use super::quantisation;
use crate::error::{Error, ErrorKind};
use crate::families::FAMILIES;
use crate::family::{Family, Refused};

/// What families need that is not implemented, by a part of their names in lower case, without what joins words.
const MISSING: &[(&str, &str)] = &[
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
    ("falconh1", "a reader of state spaces in GGUF; its checkpoints in Hugging Face's layout run"),
    ("lfm2", "a reader of gated convolutions in GGUF; its checkpoints in Hugging Face's layout run"),
    ("lfm3", "gates on the heads of attention"),
    ("zamba", "layers that several blocks share, with an adapter for each"),
    ("recurrentgemma", "layers of gated linear recurrence"),
    ("rwkv", "layers of gated linear recurrence"),
    ("xglm", "positions of sines and cosines"),
    ("mllama", "layers that attend to images"),
];

/// Models that are none of what is run here, likewise.
const OTHERS: &[(&str, &str)] = &[
    ("t5gemma", "an encoder and a decoder that work together are not, only either alone"),
    ("t5", "an encoder and a decoder that work together are not, only either alone"),
    ("bart", "an encoder and a decoder that work together are not, only either alone"),
    ("pegasus", "an encoder and a decoder that work together are not, only either alone"),
    ("marian", "an encoder and a decoder that work together are not, only either alone"),
    ("whisper", "an encoder and a decoder that work together are not, only either alone"),
    ("m2m100", "an encoder and a decoder that work together are not, only either alone"),
    ("nllb", "an encoder and a decoder that work together are not, only either alone"),
    ("prophetnet", "an encoder and a decoder that work together are not, only either alone"),
    ("deberta", "their attention has a part for contents and a part for distances, which is not"),
    ("electra", "their embeddings have a width of their own, which is not in encoders"),
    ("albert", "all their layers are one, which is not"),
    ("nvembed", "their vectors are made by a layer of attention to latent vectors, which is not"),
];

/// The family that a configuration names.
pub(crate) fn find_family(keys: &Keys<'_>) -> Result<&'static Family, Error> {
    let (found, name) = match keys {
        Keys::Gguf(_, arch) => (FAMILIES.iter().find(|f| f.gguf.contains(arch)), (*arch).to_owned()),
        Keys::HuggingFace(_) => {
            let architecture = keys.whole("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
            let tower = keys.text_tower();
            let model_type = model_type(keys)?;
            let named = |a: &str| FAMILIES.iter().find(|f| f.architectures.contains(&a));
            // As transformers does, by `model_type`; but a causal model of another name computes something else.
            let found = match (model_type, architecture) {
                (_, Some(a)) if tower.is_none() && a.ends_with("ForCausalLM") && named(a).is_none() => None,
                (Some(t), _) => FAMILIES.iter().find(|f| f.model_types.contains(&t)),
                (None, Some(a)) => named(a),
                (None, None) => return Err(keys.config("neither `model_type` nor `architectures` is given")),
            };
            if found.is_some() {
                let is_encoder = found.is_some_and(|family| family.encoder.is_some());
                refuse_other_tasks(keys, architecture.filter(|_| tower.is_none() && !is_encoder))?;
            }
            let names: Vec<&str> = architecture.into_iter().chain(model_type).collect();
            (found, names.join("`, `"))
        }
    };
    found.copied().ok_or_else(|| {
        let plain = plain(&name);
        let name = shortened(&name, NAME_CHARS_MAX);
        if let Some((_, kind)) = OTHERS.iter().find(|(part, _)| plain.contains(part)) {
            return keys.unsupported(format!("models `{name}` are not supported: {kind}"));
        }
        if let Some((_, missing)) = MISSING.iter().find(|(part, _)| plain.contains(part)) {
            return keys
                .unsupported(format!("the model family `{name}` is not supported: it needs {missing}"));
        }
        let near = match near(&plain).as_slice() {
            [] => String::new(),
            names => format!(" (there are {})", names.join(", ")),
        };
        let message = format!(
            "the model family `{name}` is not known{near}; docs/families.md lists the {} that are",
            FAMILIES.len()
        );
        Error::new(ErrorKind::UnknownFamily, keys.path(), message)
    })
}

/// The type of the model, or of its text tower.
pub(super) fn model_type<'a>(keys: &Keys<'a>) -> Result<Option<&'a str>, Error> {
    if let Some(tower) = keys.text_tower() {
        return Ok(Some(tower));
    }
    let model_type = keys.text("model_type")?;
    // transformers takes a Mistral that lists its layers for a Ministral, whose layers may differ.
    let is_ministral = model_type == Some("mistral") && keys.reads("layer_types");
    // Jina's own classes call themselves by the types that they changed.
    let positions = keys.json("position_embedding_type").and_then(Value::as_str);
    Ok(match (model_type, positions) {
        _ if is_ministral => Some("ministral"),
        (Some("bert"), Some("alibi")) => Some("jina_bert_v2"),
        (Some("xlm-roberta"), Some("rotary")) => Some("jina_embeddings_v3"),
        (given, _) => given,
    })
}

/// A name in lower case, without what joins words; of a long one the beginning.
fn plain(name: &str) -> String {
    let plain = name.chars().filter(|c| !matches!(c, '_' | '-')).take(2 * NAME_CHARS_MAX);
    plain.collect::<String>().to_ascii_lowercase()
}

/// The families whose names begin as one of these names does, those that are most alike first.
fn near(plain_names: &str) -> Vec<&'static str> {
    const SHOWN_MAX: usize = 6;
    /// Letters that a name has in common with another by chance.
    const ALIKE_MIN: usize = 3;
    let alike = |family: &&Family| {
        let own = plain(family.name);
        let of = |name: &str| own.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
        plain_names.split("`, `").map(of).max().unwrap_or(0)
    };
    let mut near: Vec<(usize, &str)> = FAMILIES.iter().map(|f| (alike(f), f.name)).collect();
    near.retain(|(alike, _)| *alike >= ALIKE_MIN);
    near.sort_by_key(|(alike, _)| std::cmp::Reverse(*alike));
    near.into_iter().take(SHOWN_MAX).map(|(_, name)| name).collect()
}

/// Part of the names of models that give scores of a text, or of a query and a text.
pub(crate) const CLASSIFIES: &str = "ForSequenceClassification";

/// Refuses what is of a known family but no causal language model with plain weights.
fn refuse_other_tasks(keys: &Keys<'_>, architecture: Option<&str>) -> Result<(), Error> {
    let other = |a: &&str| a.contains("For") && !a.contains("ForCausalLM") && !a.contains(CLASSIFIES);
    if let Some(name) = architecture.filter(other) {
        let name = shortened(name, NAME_CHARS_MAX);
        return Err(
            keys.unsupported(format!("`{name}` is neither a causal language model nor one of embeddings"))
        );
    }
    quantisation::refuse_unknown(keys)
}

/// Refuses configuration values that the family names.
pub(crate) fn refuse(keys: &Keys<'_>, family: &Family) -> Result<(), Error> {
    // `vision` is said of the tokens of images: text stays causal.
    match keys.json("use_bidirectional_attention") {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) if family.ahead_if_said => {}
        Some(Value::String(which)) if which == "vision" => {}
        Some(_) => {
            let message = "`use_bidirectional_attention` is not supported of this family";
            return Err(keys.unsupported(message));
        }
    }
    if keys.json("per_layer_config").is_some() && !family.wide_heads {
        return Err(keys.unsupported("`per_layer_config` is not supported"));
    }
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
