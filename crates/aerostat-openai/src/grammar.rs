//! Grammars that answers must follow: JSON schemas, regular expressions, choices and Lark grammars, by llguidance.
//!
//! They belong to the vocabulary and not to a face, for two reasons. Whether a schema can be followed is part of whether a
//! request is good, and must be known when it is checked: a job and a server that compiled grammars by themselves would
//! refuse different requests. And how JSON is spaced is part of an answer's bytes, which are the same through either. The
//! engine knows no grammar: it takes whatever implements [`Constraint`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use aerostat::{Constraint, Error, ErrorKind, Tokenizer};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::refusal::Refusal;
use crate::setting::Setting;
use crate::shape::Shape;

/// Compiled grammars that are kept for the next request with the same one.
const CACHED_MAX: usize = 64;

/// Makes constraints for one tokenizer.
pub struct Grammars {
    factory: ParserFactory,
    compiled: HashMap<String, Matcher>,
}

impl Grammars {
    /// Builds the trie of the vocabulary: some tens of bytes for each token.
    ///
    /// # Errors
    /// The vocabulary cannot be used, in words.
    pub fn new(tokenizer: Arc<Tokenizer>, end_tokens: &[u32], vocab: usize) -> Result<Self, String> {
        let env: TokEnv = Arc::new(Environment::new(tokenizer, end_tokens, vocab)?);
        let capabilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, capabilities, &slices).map_err(|e| e.to_string())?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
        Ok(Self { factory, compiled: HashMap::new() })
    }

    /// The constraint of a shape.
    ///
    /// # Errors
    /// The shape is not well formed or not supported, in words.
    pub fn constraint(&mut self, shape: &Shape) -> Result<Grammar, String> {
        let key = format!("{shape:?}");
        if self.compiled.len() >= CACHED_MAX && !self.compiled.contains_key(&key) {
            self.compiled.clear();
        }
        let matcher = match self.compiled.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let matcher = Matcher::new(self.factory.create_parser(grammar(shape)));
                if let Some(error) = matcher.get_error() {
                    return Err(error);
                }
                place.insert(matcher)
            }
        };
        Ok(Grammar { matcher: matcher.deep_clone() })
    }
}

/// The grammars of one model, built when the first request asks for one.
#[derive(Default)]
pub struct LazyGrammars(Option<Grammars>);

impl LazyGrammars {
    /// The constraint of a shape. Always give the same setting.
    ///
    /// # Errors
    /// The shape cannot be followed.
    pub fn constraint(&mut self, setting: &Setting, shape: &Shape) -> Result<Grammar, Refusal> {
        let constraint = match &mut self.0 {
            Some(grammars) => grammars.constraint(shape),
            none => Self::build(setting).and_then(|grammars| none.insert(grammars).constraint(shape)),
        };
        constraint.map_err(|e| Refusal::value("response_format", format!("the grammar cannot be used: {e}")))
    }

    fn build(setting: &Setting) -> Result<Grammars, String> {
        let tokenizer = setting.tokenizer.clone().ok_or("the model has no tokenizer")?;
        Grammars::new(tokenizer, &setting.end_tokens, setting.vocab)
    }
}

/// One answer's place in its grammar.
pub struct Grammar {
    matcher: Matcher,
}

impl Grammar {
    fn failed(&self, what: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Usage, format!("the grammar cannot go on: {what}"))
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Constraint for Grammar {
    fn forced(&mut self) -> Result<Vec<u32>, Error> {
        Ok(self.matcher.compute_ff_tokens())
    }

    fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|e| self.failed(e))?;
        for (id, logit) in logits.iter_mut().enumerate() {
            if id >= allowed.len() || !allowed.is_allowed(id as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.matcher.consume_token(token).map_err(|e| self.failed(e))
    }

    fn ended(&self) -> bool {
        self.matcher.is_stopped()
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(Self { matcher: self.matcher.deep_clone() })
    }
}

/// A shape in llguidance's terms.
fn grammar(shape: &Shape) -> TopLevelGrammar {
    match shape {
        Shape::Schema(schema) => TopLevelGrammar::from_json_schema(with_separators(schema.clone())),
        Shape::JsonObject => TopLevelGrammar::from_json_schema(with_separators(json!({"type": "object"}))),
        Shape::Regex(regex) => TopLevelGrammar::from_regex(regex),
        Shape::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
        Shape::Choice(choices) => {
            let quoted: Vec<String> = choices.iter().map(|c| Value::from(c.as_str()).to_string()).collect();
            TopLevelGrammar::from_lark(format!("start: {}", quoted.join(" | ")))
        }
    }
}

/// JSON on one line, as Python writes it: white space chosen by a model can go on for ever, and each token costs a
/// sweep, while what is certain costs none.
fn with_separators(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut()
        && !fields.contains_key("x-guidance")
    {
        let options = json!({
            "whitespace_flexible": false,
            "item_separator": ", ",
            "key_separator": ": ",
        });
        fields.insert("x-guidance".to_owned(), options);
    }
    schema
}

/// Our tokenizer as llguidance sees it.
struct Environment {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl Environment {
    fn new(tokenizer: Arc<Tokenizer>, end_tokens: &[u32], vocab: usize) -> Result<Self, String> {
        let eos = end_tokens.first().copied().or(tokenizer.eos()).unwrap_or(0);
        let words: Vec<Vec<u8>> = (0..vocab as u32).map(|id| word(&tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab as u32, eos), &words);
        let ends: Vec<u32> = end_tokens.iter().copied().filter(|id| (*id as usize) < vocab).collect();
        let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(&ends) };
        Ok(Self { tokenizer, trie })
    }
}

/// A token's bytes; special ones are marked, so that no text matches them.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    if let Some(bytes) = tokenizer.token_bytes(id) {
        return bytes;
    }
    let name = tokenizer.token_text(id).unwrap_or_else(|| format!("<[{id}]>"));
    [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat()
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let bytes_of =
            |ids: &[TokenId]| ids.iter().flat_map(|id| word(&self.tokenizer, *id)).collect::<Vec<u8>>();
        let encode = |text: &str| match self.tokenizer.encode(text, false) {
            Ok(ids) if bytes_of(&ids) == text.as_bytes() => ids,
            // Tokenizers that put a space before a text, change it or refuse it do not give the bytes back.
            _ => self.trie.greedy_tokenize(text.as_bytes()),
        };
        self.trie.tokenize_with_greedy_fallback(bytes, encode)
    }
}
