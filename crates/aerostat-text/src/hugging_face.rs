//! Reading `tokenizer.json` and `tokenizer_config.json`.
//!
//! The file is read as a stream: tokens and merges go straight into their compact form, so that a file of 33 MB is
//! never in memory, nor a tree of it. All that is small goes through a [`Value`], whose errors the library reports
//! where its own readers would panic.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tokenizers::{AddedToken, ModelWrapper};

use crate::bpe::{Bpe, Merges, Settings, Vocab};
use crate::error::Error;
use crate::model::TextModel;
use crate::strings::Strings;

/// The size of a configuration file beyond which it is not read.
const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// The greatest token id that is taken seriously.
const ID_MAX: u32 = 1 << 24;

/// `tokenizer.json`, its small parts not looked into yet. Truncation and padding are for batches, and not read.
#[derive(Deserialize)]
pub(crate) struct TokenizerJson {
    #[serde(default)]
    pub(crate) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(crate) normalizer: Value,
    #[serde(default)]
    pub(crate) pre_tokenizer: Value,
    #[serde(default)]
    pub(crate) post_processor: Value,
    #[serde(default)]
    pub(crate) decoder: Value,
    pub(crate) model: TextModel,
}

impl TokenizerJson {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        let wrong = |error| Error::malformed(format!("{} is not a tokenizer: {error}", path.display()));
        serde_json::from_reader(BufReader::with_capacity(1 << 16, file)).map_err(wrong)
    }
}

/// What of `tokenizer_config.json` changes ids or names tokens.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct TokenizerConfig {
    pub(crate) added_tokens_decoder: std::collections::BTreeMap<u32, AddedToken>,
    pub(crate) bos_token: NamedToken,
    pub(crate) eos_token: NamedToken,
    pub(crate) unk_token: NamedToken,
    pub(crate) pad_token: NamedToken,
    pub(crate) sep_token: NamedToken,
    pub(crate) cls_token: NamedToken,
    pub(crate) mask_token: NamedToken,
    pub(crate) additional_special_tokens: Value,
    pub(crate) extra_special_tokens: Value,
    pub(crate) chat_template: Value,
}

impl TokenizerConfig {
    /// All special tokens the file names, each once, the named ones first.
    pub(crate) fn specials(&self) -> Vec<String> {
        let named = [
            &self.bos_token,
            &self.eos_token,
            &self.unk_token,
            &self.pad_token,
            &self.sep_token,
            &self.cls_token,
            &self.mask_token,
        ];
        let more =
            [&self.additional_special_tokens, &self.extra_special_tokens].into_iter().flat_map(token_values);
        let mut all: Vec<String> = Vec::new();
        for token in named
            .into_iter()
            .filter_map(NamedToken::text)
            .map(str::to_owned)
            .chain(more.filter_map(token_text))
        {
            if !all.contains(&token) {
                all.push(token);
            }
        }
        all
    }
}

/// A token given as its text, or as an object with the text as its `content`.
#[derive(Deserialize, Default, Clone)]
#[serde(from = "Value")]
pub(crate) struct NamedToken(Option<String>);

impl NamedToken {
    pub(crate) fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl From<Value> for NamedToken {
    fn from(value: Value) -> Self {
        NamedToken(token_text(&value))
    }
}

fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

fn token_values(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// Reads a JSON file of moderate size.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| Error::malformed(format!("{}: {error}", path.display())))
}

/// Reads a text file of moderate size.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?.len();
    if bytes > CONFIG_BYTES_MAX {
        let message = format!("{} has {bytes} bytes; at most {CONFIG_BYTES_MAX} are read", path.display());
        return Err(Error::malformed(message));
    }
    std::fs::read_to_string(path).map_err(|error| Error::io(path, &error))
}

/// The field `model`. One that says it is a BPE, then gives its vocabulary, then its merges, as all writers do, is read
/// as a stream; any other is read whole first.
impl<'de> Deserialize<'de> for TextModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = TextModel;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a tokenizer model")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextModel, A::Error> {
                let mut rest = Map::new();
                let (mut vocab, mut merges) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    let is_bpe = rest.get("type").and_then(Value::as_str) == Some("BPE");
                    match (key.as_str(), &vocab) {
                        ("vocab", _) if is_bpe => vocab = Some(map.next_value::<Vocab>()?),
                        ("merges", Some(vocab)) if is_bpe => {
                            merges = Some(map.next_value_seed(MergeList(vocab, prefix_bytes(&rest)))?)
                        }
                        _ => drop(rest.insert(key, map.next_value()?)),
                    }
                }
                finish_model(rest, vocab, merges).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Builds the model from what was streamed and the `rest` of its fields.
fn finish_model(
    mut rest: Map<String, Value>,
    vocab: Option<Vocab>,
    merges: Option<Merges>,
) -> Result<TextModel, String> {
    let is_bpe = match rest.get("type").and_then(Value::as_str) {
        Some(kind) => kind == "BPE",
        None => rest.contains_key("merges"),
    };
    if !is_bpe {
        let model = ModelWrapper::deserialize(Value::Object(rest)).map_err(|error| error.to_string())?;
        return Ok(TextModel::Library(model));
    }
    let read = |error: serde_json::Error| error.to_string();
    let vocab = match vocab {
        Some(vocab) => vocab,
        None => Vocab::deserialize(rest.remove("vocab").unwrap_or_default()).map_err(read)?,
    };
    let merges = match (merges, rest.remove("merges")) {
        (Some(merges), _) => merges,
        (None, Some(list)) => {
            serde::de::DeserializeSeed::deserialize(MergeList(&vocab, prefix_bytes(&rest)), list)
                .map_err(read)?
        }
        (None, None) => Merges::ranked(Vec::new()),
    };
    let text = |name: &str| rest.get(name).and_then(Value::as_str).map(str::to_owned);
    let flag = |name: &str| rest.get(name).and_then(Value::as_bool).unwrap_or(false);
    if rest.get("dropout").and_then(Value::as_f64).is_some_and(|chance| chance > 0.0) {
        return Err("the model drops merges at random (dropout), which is for training".to_owned());
    }
    let settings = Settings {
        unknown: text("unk_token"),
        fuse_unknown: flag("fuse_unk"),
        byte_fallback: flag("byte_fallback"),
        ignore_merges: flag("ignore_merges"),
        prefix: text("continuing_subword_prefix").unwrap_or_default(),
        suffix: text("end_of_word_suffix").unwrap_or_default(),
    };
    Bpe::new(vocab, merges, settings).map(TextModel::Compact).map_err(|error| error.to_string())
}

/// A vocabulary as an object from text to id.
impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocab;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of tokens and their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let (mut texts, mut ids) = (Strings::new(), Vec::new());
                while let Some((text, id)) = map.next_entry::<String, u32>()? {
                    if id > ID_MAX || !texts.push(text.as_bytes()) {
                        return Err(A::Error::custom(format!(
                            "token {text:?} has the id {id}, more than can be"
                        )));
                    }
                    ids.push(id);
                }
                Ok(Vocab::new(in_order_of_ids(texts, &ids)))
            }
        }
        deserializer.deserialize_map(Tokens)
    }
}

/// The texts put where their ids say, with empty texts for ids that have none.
fn in_order_of_ids(texts: Strings, ids: &[u32]) -> Strings {
    if ids.iter().enumerate().all(|(at, id)| at == *id as usize) {
        return texts;
    }
    let mut places = vec![usize::MAX; ids.iter().max().map_or(0, |id| *id as usize + 1)];
    for (at, id) in ids.iter().enumerate() {
        if let Some(place) = places.get_mut(*id as usize) {
            *place = at;
        }
    }
    places.iter().map(|at| texts.get(*at).unwrap_or_default()).collect()
}

/// The length of what tokens inside words begin with, which joins drop.
fn prefix_bytes(fields: &Map<String, Value>) -> usize {
    fields.get("continuing_subword_prefix").and_then(Value::as_str).map_or(0, str::len)
}

/// Reads merges of tokens of a vocabulary, and knows how many bytes of the right side are its prefix.
struct MergeList<'a>(&'a Vocab, usize);

impl<'de> serde::de::DeserializeSeed<'de> for MergeList<'_> {
    type Value = Merges;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Merges, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MergeList<'_> {
    type Value = Merges;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
        let mut pairs = Vec::new();
        while let Some(Merge(left, right)) = list.next_element()? {
            let merge = merge_ids(self.0, &left, &right, self.1);
            pairs.push(
                merge
                    .ok_or_else(|| A::Error::custom(format!("merge {left:?} {right:?} is not of tokens")))?,
            );
        }
        Ok(Merges::ranked(pairs))
    }
}

/// The ids of both sides of a merge and of what they join to; `skipped` bytes of the right side are its prefix.
pub(crate) fn merge_ids(vocab: &Vocab, left: &str, right: &str, skipped: usize) -> Option<[u32; 3]> {
    let joined = [left, right.get(skipped..)?].concat();
    Some([vocab.id(left)?, vocab.id(right)?, vocab.id(&joined)?])
}

/// A merge written as `"left right"` or as `["left", "right"]`.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sides;
        impl<'de> Visitor<'de> for Sides {
            type Value = Merge;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("two tokens")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                let sides = text.split_once(' ').filter(|(_, right)| !right.contains(' '));
                let (left, right) = sides.ok_or_else(|| E::custom(format!("{text:?} is not two tokens")))?;
                Ok(Merge(left.to_owned(), right.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                let sides = (list.next_element()?, list.next_element()?, list.next_element::<IgnoredAny>()?);
                match sides {
                    (Some(left), Some(right), None) => Ok(Merge(left, right)),
                    _ => Err(A::Error::custom("a merge is not of two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Sides)
    }
}
