//! Reading `tokenizer.json` and `tokenizer_config.json`.
//!
//! The file is read as a stream: tokens and merges go straight into their compact form, so that a file of 33 MB is
//! never in memory, nor a tree of it. All that is small goes through a [`Value`], whose errors the library reports
//! where its own readers would panic.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::added::{AddedList, AddedToken};
use crate::bpe::{Bpe, Merges, Settings, Vocab};
use crate::error::{Error, clip};
use crate::model::TextModel;
use crate::read::{Small, TOKENIZER_BYTES_MAX, open};
use crate::strings::Strings;
use crate::unigram::Unigram;
use crate::words::{Parts, Words};

/// The greatest token id that is taken seriously.
pub(crate) const ID_MAX: u32 = 1 << 21;

/// The most merges that are read.
const MERGES_MAX: usize = 1 << 22;

/// `tokenizer.json`, its small parts not looked into yet. Truncation and padding are for batches, and not read.
#[derive(Deserialize)]
pub(crate) struct TokenizerJson {
    #[serde(default)]
    pub(crate) added_tokens: AddedList,
    #[serde(default)]
    pub(crate) normalizer: Small,
    #[serde(default)]
    pub(crate) pre_tokenizer: Small,
    #[serde(default)]
    pub(crate) post_processor: Small,
    #[serde(default)]
    pub(crate) decoder: Small,
    pub(crate) model: TextModel,
}

impl TokenizerJson {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let file = open(path, TOKENIZER_BYTES_MAX)?;
        let wrong = |error: serde_json::Error| {
            let error = clip(&error.to_string());
            Error::malformed(format!("{} is not a tokenizer: {error}", path.display()))
        };
        serde_json::from_reader(file).map_err(wrong)
    }
}

/// What of `tokenizer_config.json` changes ids or names tokens.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct TokenizerConfig {
    pub(crate) added_tokens_decoder: AddedList,
    pub(crate) bos_token: NamedToken,
    pub(crate) eos_token: NamedToken,
    pub(crate) unk_token: NamedToken,
    pub(crate) pad_token: NamedToken,
    pub(crate) sep_token: NamedToken,
    pub(crate) cls_token: NamedToken,
    pub(crate) mask_token: NamedToken,
    pub(crate) additional_special_tokens: Small,
    pub(crate) extra_special_tokens: Small,
    pub(crate) chat_template: Small,
    pub(crate) tokenizer_class: Option<String>,
    pub(crate) add_bos_token: Option<bool>,
    pub(crate) add_eos_token: Option<bool>,
    pub(crate) add_prefix_space: Option<bool>,
    pub(crate) legacy: Option<bool>,
    /// What a file beside it lists.
    #[serde(skip)]
    pub(crate) listed_beside: Vec<AddedToken>,
}

impl TokenizerConfig {
    /// The tokens it adds to those of a vocabulary, in lists that are numbered one after the other.
    pub(crate) fn added(&self) -> Vec<Vec<AddedToken>> {
        let listed = self.added_tokens_decoder.0.clone();
        let special: HashSet<&str> =
            listed.iter().filter(|token| token.special).map(|token| token.content.as_str()).collect();
        let named = self.specials().into_iter().filter(|token| !special.contains(token.as_str()));
        let named = named.map(|token| AddedToken::raw(&token, true)).collect();
        vec![self.listed_beside.clone(), listed, named]
    }

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
        let more = [&self.additional_special_tokens, &self.extra_special_tokens];
        let more = more.into_iter().flat_map(|list| token_values(&list.0)).filter_map(token_text);
        let mut all: Vec<String> =
            named.into_iter().filter_map(NamedToken::text).map(str::to_owned).chain(more).collect();
        let mut seen = HashSet::new();
        all.retain(|token| seen.insert(token.clone()));
        all
    }
}

/// A token given as its text, or as an object with the text as its `content`.
#[derive(Deserialize, Default, Clone)]
#[serde(from = "Small")]
pub(crate) struct NamedToken(Option<String>);

impl NamedToken {
    pub(crate) fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl From<Small> for NamedToken {
    fn from(value: Small) -> Self {
        NamedToken(token_text(&value.0))
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

/// The field `model`. One that says it is a BPE, then gives its vocabulary, then its merges, as all writers do, is read
/// as a stream; where merges come first, their texts are kept until the vocabulary is there.
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
                let (mut vocab, mut merges) = (None::<ReadVocab>, None);
                while let Some(key) = map.next_key::<String>()? {
                    match (key.as_str(), &vocab) {
                        ("vocab", _) => vocab = Some(map.next_value()?),
                        ("merges", Some(vocab)) => {
                            let list = MergeList(&vocab.tokens, prefix_bytes(&rest));
                            merges = Some(ReadMerges::Ids(map.next_value_seed(list)?));
                        }
                        ("merges", None) => merges = Some(ReadMerges::Texts(map.next_value()?)),
                        _ if rest.len() < FIELDS_MAX => drop(rest.insert(key, map.next_value::<Small>()?.0)),
                        _ => return Err(A::Error::custom("a model of too many fields")),
                    }
                }
                let vocab = vocab.ok_or_else(|| A::Error::missing_field("vocab"))?;
                finish_model(&rest, vocab, merges).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The most fields of a model beside its vocabulary and its merges.
const FIELDS_MAX: usize = 64;

/// Builds the model from what was streamed and the `rest` of its fields.
fn finish_model(
    rest: &Map<String, Value>,
    vocab: ReadVocab,
    merges: Option<ReadMerges>,
) -> Result<TextModel, Error> {
    let kind = match rest.get("type").and_then(Value::as_str) {
        Some(kind) => kind,
        None if merges.is_some() => "BPE",
        None if vocab.scores.is_some() => "Unigram",
        None if rest.contains_key("max_input_chars_per_word") => "WordPiece",
        None => "WordLevel",
    };
    let text = |name: &str| rest.get(name).and_then(Value::as_str);
    let flag = |name: &str| rest.get(name).and_then(Value::as_bool).unwrap_or(false);
    match (kind, vocab.scores) {
        ("BPE", None) => bpe(rest, vocab.tokens, merges).map(TextModel::Bpe),
        ("Unigram", Some(scores)) => {
            let unknown =
                rest.get("unk_id").and_then(Value::as_u64).map(|id| u32::try_from(id).unwrap_or(u32::MAX));
            Unigram::new(vocab.tokens, scores, unknown, flag("byte_fallback")).map(TextModel::Unigram)
        }
        ("WordPiece", None) => {
            let characters_max = rest.get("max_input_chars_per_word").and_then(Value::as_u64).unwrap_or(100);
            let prefix = text("continuing_subword_prefix").unwrap_or("##").to_owned();
            let parts =
                Parts { prefix, characters_max: usize::try_from(characters_max).unwrap_or(usize::MAX) };
            let unknown = text("unk_token").unwrap_or("[UNK]");
            Ok(TextModel::Words(Words::new(vocab.tokens, unknown, Some(parts))))
        }
        ("WordLevel", None) => {
            let unknown = text("unk_token").unwrap_or("<unk>");
            Ok(TextModel::Words(Words::new(vocab.tokens, unknown, None)))
        }
        ("BPE" | "Unigram" | "WordPiece" | "WordLevel", _) => {
            Err(Error::malformed(format!("the vocabulary is not written as that of a {kind} model is")))
        }
        (kind, _) => Err(Error::malformed(format!("the model {:?} is unknown", clip(kind)))),
    }
}

fn bpe(rest: &Map<String, Value>, vocab: Vocab, merges: Option<ReadMerges>) -> Result<Bpe, Error> {
    let merges = match merges {
        Some(ReadMerges::Ids(merges)) => merges,
        Some(ReadMerges::Texts(texts)) => texts.resolve(&vocab, prefix_bytes(rest))?,
        None => Merges::ranked(Vec::new()),
    };
    let text = |name: &str| rest.get(name).and_then(Value::as_str).map(str::to_owned);
    let flag = |name: &str| rest.get(name).and_then(Value::as_bool).unwrap_or(false);
    if rest.get("dropout").and_then(Value::as_f64).is_some_and(|chance| chance > 0.0) {
        return Err(Error::malformed("the model drops merges at random (dropout), which is for training"));
    }
    let settings = Settings {
        unknown: text("unk_token"),
        fuse_unknown: flag("fuse_unk"),
        byte_fallback: flag("byte_fallback"),
        ignore_merges: flag("ignore_merges"),
        prefix: text("continuing_subword_prefix").unwrap_or_default(),
        suffix: text("end_of_word_suffix").unwrap_or_default(),
    };
    Bpe::new(vocab, merges, settings)
}

/// A vocabulary as it was read, with a score for each token if it is a list of pairs.
pub(crate) struct ReadVocab {
    pub(crate) tokens: Vocab,
    scores: Option<Vec<f32>>,
}

/// An object from text to id, or a list of texts with their scores.
impl<'de> Deserialize<'de> for ReadVocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = ReadVocab;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("tokens with their ids or scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadVocab, A::Error> {
                let (mut texts, mut ids) = (Strings::new(), Vec::new());
                while let Some((text, id)) = map.next_entry::<String, u32>()? {
                    if id > ID_MAX || ids.len() > ID_MAX as usize || !texts.push(text.as_bytes()) {
                        let text = clip(&text);
                        return Err(A::Error::custom(format!(
                            "token {text:?} has the id {id}, more than can be"
                        )));
                    }
                    ids.push(id);
                }
                Ok(ReadVocab { tokens: Vocab::new(in_order_of_ids(texts, &ids)), scores: None })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ReadVocab, A::Error> {
                let (mut texts, mut scores) = (Strings::new(), Vec::new());
                while let Some((text, score)) = list.next_element::<(String, f64)>()? {
                    if scores.len() > ID_MAX as usize || !texts.push(text.as_bytes()) {
                        return Err(A::Error::custom("more tokens than can be"));
                    }
                    scores.push(score as f32);
                }
                Ok(ReadVocab { tokens: Vocab::new(texts), scores: Some(scores) })
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

/// The texts put where their ids say, with empty texts for ids that have none.
fn in_order_of_ids(texts: Strings, ids: &[u32]) -> Strings {
    if ids.iter().enumerate().all(|(at, id)| at == *id as usize) {
        return texts;
    }
    let mut places = vec![u32::MAX; ids.iter().max().map_or(0, |id| *id as usize + 1)];
    for (at, id) in ids.iter().enumerate() {
        if let Some(place) = places.get_mut(*id as usize) {
            *place = at as u32;
        }
    }
    places.iter().map(|at| texts.get(*at as usize).unwrap_or_default()).collect()
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
            if pairs.len() == MERGES_MAX {
                return Err(A::Error::custom("more merges than can be"));
            }
            pairs.push(merge_of(self.0, &left, &right, self.1).map_err(A::Error::custom)?);
        }
        Ok(Merges::ranked(pairs))
    }
}

/// Merges as they were read: of a vocabulary that was known, or as texts.
enum ReadMerges {
    Ids(Merges),
    Texts(MergeTexts),
}

/// Both sides of each merge, one after the other.
struct MergeTexts(Strings);

impl MergeTexts {
    fn resolve(&self, vocab: &Vocab, skipped: usize) -> Result<Merges, Error> {
        let side = |at: usize| String::from_utf8_lossy(self.0.get(at).unwrap_or_default());
        let pairs =
            (0..self.0.len() / 2).map(|at| merge_of(vocab, &side(2 * at), &side(2 * at + 1), skipped));
        pairs.collect::<Result<_, _>>().map(Merges::ranked)
    }
}

impl<'de> Deserialize<'de> for MergeTexts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = MergeTexts;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<MergeTexts, A::Error> {
                let mut texts = Strings::new();
                while let Some(Merge(left, right)) = list.next_element()? {
                    let fits = texts.push(left.as_bytes()) && texts.push(right.as_bytes());
                    if !fits || texts.len() > 2 * MERGES_MAX {
                        return Err(A::Error::custom("more merges than can be"));
                    }
                }
                Ok(MergeTexts(texts))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

fn merge_of(vocab: &Vocab, left: &str, right: &str, skipped: usize) -> Result<[u32; 3], Error> {
    merge_ids(vocab, left, right, skipped)
        .ok_or_else(|| Error::malformed(format!("merge {:?} {:?} is not of tokens", clip(left), clip(right))))
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
                let (left, right) =
                    sides.ok_or_else(|| E::custom(format!("{:?} is not two tokens", clip(text))))?;
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
