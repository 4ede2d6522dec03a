//! Grammars that answers must follow: JSON schemas, regular expressions, choices and Lark grammars, by llguidance.
//!
//! They belong to the vocabulary and not to a face, for two reasons. Whether a schema can be followed is part of whether a
//! request is good, and must be known when it is checked: a job and a server that compiled grammars by themselves would
//! refuse different requests. And how JSON is spaced is part of an answer's bytes, which are the same through either. The
//! engine knows no grammar: it takes whatever implements [`Constraint`].

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use aerostat::{Constraint, Error, ErrorKind, Tokenizer};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::refusal::Refusal;
use crate::setting::Setting;
use crate::shape::Shape;

/// Bytes of a schema, a grammar or all choices together at most: they are compiled in well under a second.
const GRAMMAR_BYTES_MAX: usize = 1 << 20;
/// Memory that a byte of a grammar takes when it is compiled. Measured: 150 of regular expressions and choices, 300 of schemas
/// with many members.
const MEMORY_PER_BYTE: u64 = 256;
/// A few bytes can be a large automaton, `((a{50}){50}){50}`: what is built of a grammar may take this part of the memory,
const AUTOMATON_PART: u64 = 64;
/// where the library counts expressions (measured: 180 bytes each) and states (750 bytes). The least of both does for a schema of
/// hundreds of members of all kinds, or thousands of choices, and for answers with texts of bounded length of some 2,000 letters.
const EXPRESSION_BYTES: u64 = 180;
const EXPRESSIONS: (u64, u64) = (60_000, 500_000);
const STATE_BYTES: u64 = 750;
const STATES: (u64, u64) = (20_000, 50_000);
/// Bytes of the stack of the thread that compiles: it goes as deep as grammars are nested.
const STACK_BYTES: usize = 64 << 20;

/// Compiled grammars that are kept for the next request with the same one.
const CACHED_MAX: usize = 64;

/// Members that one object of a schema may list: the time to compile them grows with their square.
const MEMBERS_MAX: u64 = 2_500;
/// Schemas that one grammar may hold.
const SCHEMAS_MAX: usize = 1_000;
/// The greatest number whose multiples can be asked for, counted in its last decimal: an automaton has a state for each remainder.
const MULTIPLE_MAX: u64 = 100_000;
/// Its digits times ten for each decimal at most: the library's numbers overflow with more, and what it allows is wrong then.
const WHOLE_MAX: u64 = 400_000_000;

/// What compiling and following a grammar may take. A row of items is what may come next: an object whose properties are
/// all optional has four for each.
fn limits(memory_bytes: u64) -> ParserLimits {
    let part =
        |each: u64, (least, most): (u64, u64)| (memory_bytes / AUTOMATON_PART / each).clamp(least, most);
    ParserLimits {
        max_items_in_row: 10_000,
        step_max_items: 100_000,
        max_lexer_states: usize::try_from(part(STATE_BYTES, STATES)).unwrap_or(usize::MAX),
        initial_lexer_fuel: part(EXPRESSION_BYTES, EXPRESSIONS),
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Makes constraints for one tokenizer.
pub struct Grammars {
    factory: ParserFactory,
    compiled: HashMap<String, Arc<Mutex<Compiled>>>,
    /// Bytes of the grammars that are kept.
    compiled_bytes: usize,
    /// Bytes that a grammar may have, and those that are kept together.
    bytes_max: usize,
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
        *factory.limits_mut() = limits(u64::MAX);
        Ok(Self { factory, compiled: HashMap::new(), compiled_bytes: 0, bytes_max: GRAMMAR_BYTES_MAX })
    }

    /// The same where reading a request may take so much memory, in bytes ([`Setting::request_bytes_max`]), and the process
    /// so much in all: what is built of a grammar takes a part of either.
    pub fn within(mut self, request_bytes: u64, memory_bytes: u64) -> Self {
        *self.factory.limits_mut() = limits(memory_bytes);
        let most = usize::try_from(request_bytes / MEMORY_PER_BYTE).unwrap_or(usize::MAX);
        Self { bytes_max: most.min(GRAMMAR_BYTES_MAX), ..self }
    }

    /// The constraint of a shape.
    ///
    /// # Errors
    /// The shape is not well formed or not supported, in words.
    pub fn constraint(&mut self, shape: &Shape) -> Result<Grammar, String> {
        let key = format!("{shape:?}");
        let (bytes, bytes_max) = (key.len(), self.bytes_max);
        if bytes > bytes_max {
            let memory = if bytes_max < GRAMMAR_BYTES_MAX { " with so little memory" } else { "" };
            return Err(format!("it has {bytes} bytes; at most {bytes_max} are taken{memory}"));
        }
        weigh(shape)?;
        if !self.compiled.contains_key(&key) {
            if self.compiled.len() >= CACHED_MAX || self.compiled_bytes + bytes > bytes_max {
                self.compiled.clear();
                self.compiled_bytes = 0;
            }
            self.compiled_bytes += bytes;
        }
        let compiled = match self.compiled.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let compiled = Compiled::new(compiled(&mut self.factory, shape)?);
                place.insert(Arc::new(Mutex::new(compiled)))
            }
        };
        Ok(Grammar::new(Arc::clone(compiled)))
    }
}

/// A grammar, and the automaton that all answers build up together which follow it. It grows with what they have in them, by
/// some kilobytes for each letter of a text of bounded length: one for each answer took more than all else.
struct Compiled {
    /// As it was compiled.
    new: Matcher,
    /// With the automaton at hand: clones of it build up the same.
    shared: Matcher,
    /// How many automata there were before that one.
    number: u64,
}

impl Compiled {
    fn new(matcher: Matcher) -> Self {
        Self { shared: matcher.deep_clone(), new: matcher, number: 0 }
    }

    /// Begins a new automaton; the one at hand goes with those that use it.
    fn renew(&mut self) {
        self.shared = self.new.deep_clone();
        self.number += 1;
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
        let param = if matches!(shape, Shape::Calls(_)) { "tools" } else { "response_format" };
        constraint.map_err(|e| Refusal::value(param, format!("the grammar cannot be used: {e}")))
    }

    fn build(setting: &Setting) -> Result<Grammars, String> {
        let tokenizer = setting.tokenizer.clone().ok_or("the model has no tokenizer")?;
        let grammars = Grammars::new(tokenizer, &setting.end_tokens, setting.vocab)?;
        Ok(grammars.within(setting.request_bytes_max(), setting.memory_bytes()))
    }
}

/// One answer's place in its grammar.
pub struct Grammar {
    compiled: Arc<Mutex<Compiled>>,
    /// In the automaton of this number, behind these tokens.
    matcher: Matcher,
    number: u64,
    tokens: Vec<u32>,
}

impl Grammar {
    fn new(compiled: Arc<Mutex<Compiled>>) -> Self {
        let (matcher, number) = {
            let compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
            (compiled.shared.clone(), compiled.number)
        };
        Self { compiled, matcher, number, tokens: Vec::new() }
    }

    /// Does something at this place. Where that fails it is done again in the automaton that others use by now, and then in a
    /// new one: the one at hand may be full of what others had in them, and no answer may depend on that.
    fn at<T>(&mut self, mut act: impl FnMut(&mut Matcher) -> Result<T, String>) -> Result<T, Error> {
        let mut done = act(&mut self.matcher);
        while done.is_err() {
            let is_own = self.renew();
            let tokens = &self.tokens;
            let replayed = self.matcher.consume_tokens(tokens).map_err(|e| e.to_string());
            done = replayed.and_then(|()| act(&mut self.matcher));
            if is_own {
                break;
            }
        }
        done.map_err(|what| Error::new(ErrorKind::Usage, format!("the grammar cannot go on: {what}")))
    }

    /// Goes to the beginning of the automaton that there is by now, or of a new one, which is true, if this is there already.
    fn renew(&mut self) -> bool {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = compiled.number == self.number;
        if is_new {
            compiled.renew();
        }
        self.matcher = compiled.shared.clone();
        self.number = compiled.number;
        is_new
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Drop for Grammar {
    /// Of what nobody uses any more only the grammar is kept.
    fn drop(&mut self) {
        const KEPT_AND_OWN: usize = 2;
        if Arc::strong_count(&self.compiled) <= KEPT_AND_OWN {
            self.compiled.lock().unwrap_or_else(PoisonError::into_inner).renew();
        }
    }
}

impl Constraint for Grammar {
    fn forced(&mut self) -> Result<Vec<u32>, Error> {
        self.at(|matcher| {
            let forced = matcher.compute_ff_tokens();
            matcher.get_error().map_or(Ok(forced), Err)
        })
    }

    fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        let allowed = self.at(|matcher| matcher.compute_mask_or_eos().map_err(|e| e.to_string()))?;
        for (id, logit) in logits.iter_mut().enumerate() {
            if id >= allowed.len() || !allowed.is_allowed(id as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.at(|matcher| matcher.consume_token(token).map_err(|e| e.to_string()))?;
        self.tokens.push(token);
        Ok(())
    }

    fn ended(&self) -> bool {
        self.matcher.is_stopped()
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(Self {
            compiled: Arc::clone(&self.compiled),
            matcher: self.matcher.clone(),
            number: self.number,
            tokens: self.tokens.clone(),
        })
    }
}

/// Compiles a shape on a thread of its own: what that held goes to the next one, where each of a server's threads would keep
/// as much as the largest grammar took.
fn compiled(factory: &mut ParserFactory, shape: &Shape) -> Result<Matcher, String> {
    let compile = move || {
        let matcher = Matcher::new(factory.create_parser(grammar(shape)));
        begin(&matcher).map(|()| matcher)
    };
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("grammar".to_owned()).stack_size(STACK_BYTES);
        let thread =
            builder.spawn_scoped(scope, compile).map_err(|e| format!("no thread can be started: {e}"))?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Whether an answer can begin: some grammars compile that no text follows, or whose first token takes too much to find.
fn begin(matcher: &Matcher) -> Result<(), String> {
    // What follows is for those who look into the library.
    let told = |error: String| error.lines().next().unwrap_or_default().to_owned();
    if let Some(error) = matcher.get_error() {
        return Err(told(error));
    }
    let mut first = matcher.deep_clone();
    for token in first.compute_ff_tokens() {
        first.consume_token(token).map_err(|e| told(e.to_string()))?;
    }
    if first.is_stopped() && !first.is_error() {
        return Ok(());
    }
    match first.compute_mask_or_eos() {
        Ok(_) => Ok(()),
        Err(e) if e.to_string().starts_with("NoExtension") => Err("no text follows it".to_owned()),
        Err(e) => Err(told(e.to_string())),
    }
}

/// Refuses schemas that take more than seconds to compile.
fn weigh(shape: &Shape) -> Result<(), String> {
    let mut members = Members::default();
    match shape {
        Shape::Schema(schema) => members.count(schema),
        // Grammars hold schemas, too, which JSON's own end parts from what follows.
        Shape::Lark(lark) | Shape::Calls(lark) => {
            let schemas = lark.split("%json").skip(1);
            if schemas.clone().nth(SCHEMAS_MAX).is_some() {
                return Err(format!("it holds more than {SCHEMAS_MAX} schemas"));
            }
            for rest in schemas {
                if let Some(Ok(schema)) = serde_json::Deserializer::from_str(rest).into_iter().next() {
                    members.count(&schema);
                }
            }
        }
        Shape::JsonObject | Shape::Regex(_) | Shape::Choice(_) => {}
    }
    if members.remainders() > MULTIPLE_MAX || members.whole() > WHOLE_MAX {
        return Err(format!(
            "a `multipleOf` is too large or has too many decimals: its digits are taken up to {MULTIPLE_MAX}"
        ));
    }
    let weight = if members.mixed { members.sum.saturating_mul(members.sum) } else { members.squares };
    match weight <= MEMBERS_MAX * MEMBERS_MAX {
        true => Ok(()),
        false => {
            Err(format!("its objects list {} members; at most {MEMBERS_MAX} of one are taken", members.sum))
        }
    }
}

/// The members that the objects of schemas list.
#[derive(Default)]
struct Members {
    sum: u64,
    /// The sum of the squares of each object's.
    squares: u64,
    /// Some objects are put together from others, so that members of all may be one's.
    mixed: bool,
    /// The numbers whose multiples are asked for.
    multiples: BTreeSet<(u64, usize)>,
}

impl Members {
    /// What numbers are divided by, at most: the remainders that there are.
    fn remainders(&self) -> u64 {
        if !self.mixed || self.multiples.len() < 2 {
            return self.multiples.iter().map(|(number, _)| *number).max().unwrap_or(0);
        }
        // Those of one object may be multiples of all.
        self.multiples.iter().fold(1, |all, multiple| all.saturating_mul(whole(*multiple)))
    }

    /// The greatest of them without its point, by as many tenths as it has besides.
    fn whole(&self) -> u64 {
        self.multiples.iter().map(|multiple| whole(*multiple)).max().unwrap_or(0)
    }

    fn count(&mut self, schema: &Value) {
        match schema {
            Value::Array(list) => list.iter().for_each(|part| self.count(part)),
            Value::Object(fields) => {
                let listed =
                    fields.get("properties").and_then(Value::as_object).map_or(0, |all| all.len() as u64);
                let beside = ["anyOf", "oneOf", "$ref"].iter().any(|key| fields.contains_key(*key));
                self.multiples.extend(fields.get("multipleOf").and_then(decimal));
                self.sum += listed;
                self.squares += listed * listed;
                self.mixed |= fields.contains_key("allOf") || listed > 0 && beside;
                fields.values().for_each(|part| self.count(part));
            }
            _ => {}
        }
    }
}

/// A number as digits and how many of them are behind the point: 0.25 is 25 and 2.
fn decimal(number: &Value) -> Option<(u64, usize)> {
    let text = number.as_number()?.to_string();
    let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text.as_str(), "0"));
    let (whole, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: String = [whole.trim_start_matches('-'), behind].concat();
    let mut decimals = behind.len() as i64 - power.parse::<i64>().ok()?;
    while decimals > 0 && digits.ends_with('0') {
        digits.pop();
        decimals -= 1;
    }
    // More than 20 digits are too many, whatever they are.
    digits.extend((decimals..0).take(20).map(|_| '0'));
    let digits = digits.trim_start_matches('0');
    let number = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u64::MAX) };
    Some((number, usize::try_from(decimals).unwrap_or(0)))
}

/// Digits times ten for each that is behind the point.
fn whole((digits, decimals): (u64, usize)) -> u64 {
    (0..decimals.min(20)).fold(digits, |all, _| all.saturating_mul(10))
}

/// A shape in llguidance's terms.
fn grammar(shape: &Shape) -> TopLevelGrammar {
    match shape {
        Shape::Schema(schema) => TopLevelGrammar::from_json_schema(with_separators(schema.clone())),
        Shape::JsonObject => TopLevelGrammar::from_json_schema(with_separators(json!({"type": "object"}))),
        Shape::Regex(regex) => TopLevelGrammar::from_regex(regex),
        Shape::Lark(lark) | Shape::Calls(lark) => TopLevelGrammar::from_lark(lark.clone()),
        Shape::Choice(choices) => {
            let quoted: Vec<String> = choices.iter().map(|c| Value::from(c.as_str()).to_string()).collect();
            // As one terminal, which is an automaton: as alternatives of a rule, each would be looked at by itself.
            TopLevelGrammar::from_lark(format!("start: CHOICE\nCHOICE: {}", quoted.join(" | ")))
        }
    }
}

/// JSON on one line, as Python writes it: white space chosen by a model can go on for ever, and each token costs a
/// sweep, while what is certain costs none.
pub(crate) fn with_separators(mut schema: Value) -> Value {
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use aerostat::ModelFiles;

    use super::*;

    fn grammars() -> (Grammars, Arc<Tokenizer>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat");
        let files = ModelFiles::open(&path).unwrap();
        let tokenizer = Arc::new(files.tokenizer().unwrap().unwrap());
        let ends = files.end_tokens(Some(&tokenizer));
        (Grammars::new(Arc::clone(&tokenizer), &ends, files.spec().vocab).unwrap(), tokenizer)
    }

    /// The text of an answer that takes the last token of those that may come.
    fn last(mut grammar: Grammar, tokenizer: &Tokenizer) -> String {
        let (mut ids, mut logits) = (Vec::new(), vec![0.0; 320]);
        while !grammar.ended() && ids.len() < 400 {
            let forced = grammar.forced().unwrap();
            let next = match forced.is_empty() {
                false => forced,
                true => {
                    logits.fill(0.0);
                    grammar.mask(&mut logits).unwrap();
                    let allowed = (0..320u32).rev().find(|id| logits[*id as usize] == 0.0).unwrap();
                    if tokenizer.is_special(allowed) {
                        break;
                    }
                    vec![allowed]
                }
            };
            for id in next {
                grammar.accept(id).unwrap();
                ids.push(id);
            }
        }
        tokenizer.decode(&ids, true)
    }

    /// 2,500 of them passed the check and failed in the run; ten thousand panicked after half a minute.
    #[test]
    fn thousands_of_choices_are_compiled_at_once_and_followed() {
        let (mut grammars, tokenizer) = grammars();
        for count in [3, 2_500, 20_000] {
            let choices: Vec<String> = (0..count).map(|i| format!("category number {i}")).collect();
            let begun = Instant::now();
            let choice = grammars.constraint(&Shape::Choice(choices.clone())).unwrap();
            let found = last(choice, &tokenizer);
            assert!(choices.contains(&found), "{found:?} of {count}");
            let listed = grammars.constraint(&Shape::Schema(json!({"enum": choices}))).unwrap();
            let found = last(listed, &tokenizer);
            assert!(choices.iter().any(|c| found == format!("\"{c}\"")), "{found:?} of {count}");
            assert!(begun.elapsed().as_secs() < 20, "{count} took {:?}", begun.elapsed());
        }
        let many = (0..200_000).map(|i| format!("category number {i}")).collect();
        assert!(grammars.constraint(&Shape::Choice(many)).unwrap_err().contains("at most"));
    }

    #[test]
    fn objects_of_many_optional_members_are_followed() {
        let (mut grammars, tokenizer) = grammars();
        let members: serde_json::Map<String, Value> = (0..1_000)
            .map(|i| (format!("field_{i}"), json!({"type": "integer", "maximum": 9, "minimum": 9})))
            .collect();
        let schema = json!({"type": "object", "properties": members, "additionalProperties": false});
        let grammar = grammars.constraint(&Shape::Schema(schema)).unwrap();
        let found = last(grammar, &tokenizer);
        assert!(found.starts_with("{"), "{found:?}");
    }

    /// Nine thousand took half a minute, and were refused then.
    #[test]
    fn objects_of_more_members_than_can_be_compiled_soon_are_refused() {
        let (mut grammars, _) = grammars();
        let begun = Instant::now();
        let object = |count: usize, from: usize| {
            let member = |i: usize| (format!("field_{}", from + i), json!({"type": "integer"}));
            json!({"type": "object", "properties": (0..count).map(member).collect::<serde_json::Map<_, _>>()})
        };
        let parts: Vec<Value> = (0..9).map(|part| object(1_000, part * 1_000)).collect();
        let calls = format!("start: \"a\" %json {}\n", object(9_000, 0));
        for shape in [
            Shape::Schema(object(9_000, 0)),
            Shape::Schema(json!({"allOf": parts})),
            Shape::Schema(json!({"type": "array", "items": {"anyOf": vec![object(2_000, 0); 3]}})),
            Shape::Lark(calls.clone()),
            Shape::Calls(calls),
        ] {
            let refused = grammars.constraint(&shape).err().unwrap();
            assert!(refused.contains("members"), "{refused}");
        }
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    /// A million took minutes and gigabytes; thousands of schemas in one grammar made the library panic.
    #[test]
    fn multiples_and_schemas_that_cannot_be_compiled_soon_are_refused() {
        let (mut grammars, _) = grammars();
        let begun = Instant::now();
        let multiple = |of: Value| json!({"type": "number", "multipleOf": of});
        for of in [json!(0.01), json!(1e-8), json!(1_000), json!(99_991), json!(12.5), json!(2.5e3)] {
            let made = grammars.constraint(&Shape::Schema(multiple(of.clone())));
            assert!(made.is_ok(), "{of}: {:?}", made.err());
        }
        let schemas = "%json {\"type\": \"integer\"} ".repeat(5_000);
        for (shape, told) in [
            (Shape::Schema(multiple(json!(1_234_567))), "multipleOf"),
            (Shape::Schema(multiple(json!(12.34567))), "multipleOf"),
            (Shape::Schema(multiple(json!(1e-9))), "multipleOf"),
            (Shape::Schema(multiple(json!(0.00099991))), "multipleOf"),
            (Shape::Schema(multiple(json!(864e5))), "multipleOf"),
            (Shape::Schema(multiple(json!(1e300))), "multipleOf"),
            (Shape::Schema(json!({"items": multiple(json!(u64::MAX))})), "multipleOf"),
            (Shape::Schema(json!({"allOf": [multiple(json!(1_009)), multiple(json!(1_013))]})), "multipleOf"),
            (Shape::Lark(format!("start: {schemas}")), "schemas"),
        ] {
            let refused = grammars.constraint(&shape).err().unwrap();
            assert!(refused.contains(told), "{refused}");
        }
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    /// Sixty different ones took four megabytes each, and were all kept, whatever the budget.
    #[test]
    fn what_is_compiled_and_what_is_kept_of_it_is_bounded() {
        let (grammars, _) = grammars();
        let mut grammars = grammars.within(1000 * MEMORY_PER_BYTE, u64::MAX);
        let choice = |from: usize, count: usize| {
            Shape::Choice((from..from + count).map(|i| format!("label {i}")).collect())
        };
        let refused = grammars.constraint(&choice(0, 500)).err().unwrap();
        assert!(refused.contains("at most 1000") && refused.contains("little memory"), "{refused}");
        for from in 0..50 {
            grammars.constraint(&choice(10 * from, 20)).unwrap();
            let kept: usize = grammars.compiled.keys().map(String::len).sum();
            assert!(kept <= 1000 && kept == grammars.compiled_bytes, "{kept}");
        }
        assert!(grammars.compiled.len() > 1);
    }

    /// They are 22 bytes, and took 90 MB.
    #[test]
    fn a_short_grammar_of_a_large_automaton_takes_little() {
        let (grammars, _) = grammars();
        let mut grammars = grammars.within(4 << 20, 16 << 20);
        let before = peak_bytes();
        let refused = grammars.constraint(&Shape::Regex("(((a{50}){50}){50}){50}".to_owned())).err().unwrap();
        assert!(refused.contains("too many expressions"), "{refused}");
        assert!(peak_bytes() - before < 20 << 20, "{} bytes", peak_bytes() - before);
        let types = ["string", "integer", "number"].into_iter().cycle();
        let members = (0..60).zip(types).map(|(i, kind)| (format!("field {i}"), json!({ "type": kind })));
        let schema = json!({"type": "object", "properties": members.collect::<serde_json::Map<_, _>>()});
        assert!(grammars.constraint(&Shape::Schema(schema)).is_ok());
    }

    fn peak_bytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Takes a token of those that may come, as chance has it.
    fn step(grammar: &mut Grammar, chance: &mut u64) -> Option<u32> {
        let mut logits = vec![0.0; 320];
        grammar.mask(&mut logits).unwrap();
        let allowed: Vec<u32> = (70..96).filter(|id| logits[*id as usize] == 0.0).collect();
        *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let token = *allowed.get((*chance >> 33) as usize % allowed.len().max(1))?;
        grammar.accept(token).unwrap();
        Some(token)
    }

    /// Each took some kilobytes for each letter, of which no plan knew: 400 answers of 300 letters took 64 MiB to 120.
    #[test]
    fn answers_build_one_automaton_together() {
        let (mut grammars, _) = grammars();
        let text = json!({"type": "string", "minLength": 200, "maxLength": 400});
        let schema = Shape::Schema(json!({"type": "object", "properties": {"t": text}, "required": ["t"]}));
        let mut answers: Vec<Grammar> = (0..200).map(|_| grammars.constraint(&schema).unwrap()).collect();
        let before = peak_bytes();
        for (number, answer) in answers.iter_mut().enumerate() {
            for token in answer.forced().unwrap() {
                answer.accept(token).unwrap();
            }
            let mut chance = number as u64;
            for _ in 0..150 {
                step(answer, &mut chance).unwrap();
            }
        }
        assert!(peak_bytes() - before < 32 << 20, "{} bytes", peak_bytes() - before);
        let automata = || grammars.compiled.values().next().unwrap().lock().unwrap().number;
        assert_eq!(automata(), 0);
        drop(answers);
        assert_eq!(automata(), 1);
    }

    /// What others have in them fills an automaton, and changes no answer.
    #[test]
    fn a_full_automaton_is_renewed_and_no_answer_depends_on_it() {
        let regex = Shape::Regex("(.*[a-m].{6}[n-z])*".to_owned());
        let tight = || {
            let (mut grammars, tokenizer) = grammars();
            grammars.factory.limits_mut().max_lexer_states = 700;
            (grammars, tokenizer)
        };
        let follow = |answer: &mut Grammar, chance: &mut u64, tokens: &mut Vec<u32>| {
            tokens.extend(step(answer, chance));
        };
        let alone = |number: u64| {
            let (mut answer, mut chance, mut tokens) =
                (tight().0.constraint(&regex).unwrap(), number, Vec::new());
            (0..25).for_each(|_| follow(&mut answer, &mut chance, &mut tokens));
            tokens
        };
        let mut grammars = tight().0;
        let mut crowd: Vec<(Grammar, u64, Vec<u32>)> =
            (0..12).map(|number| (grammars.constraint(&regex).unwrap(), number, Vec::new())).collect();
        for _ in 0..25 {
            crowd.iter_mut().for_each(|(answer, chance, tokens)| follow(answer, chance, tokens));
        }
        for (number, (_, _, tokens)) in crowd.iter().enumerate() {
            assert_eq!(*tokens, alone(number as u64), "{number}");
        }
        let compiled = grammars.compiled.values().next().unwrap().lock().unwrap();
        assert!((1..40).contains(&compiled.number), "{} automata", compiled.number);
    }

    #[test]
    fn terminals_that_double_themselves_are_refused() {
        let (mut grammars, _) = grammars();
        let lines = (0..40).map(|i| format!("A{i}: A{} A{}\n", i + 1, i + 1)).collect::<String>();
        let refused =
            grammars.constraint(&Shape::Lark(format!("start: A0\n{lines}A40: \"x\"\n"))).err().unwrap();
        assert!(refused.contains("too big"), "{refused}");
        // A megabyte of choices is as much as is taken.
        let choices = (0..15_000).map(|i| format!("a rather long name of category number {i} of a list"));
        assert!(grammars.constraint(&Shape::Choice(choices.collect())).is_ok());
    }

    /// They passed the check, and failed in the run.
    #[test]
    fn what_no_answer_can_follow_is_told_when_it_is_checked() {
        let (mut grammars, _) = grammars();
        let round =
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
        for shape in
            [Shape::Schema(round), Shape::Schema(json!(false)), Shape::Lark("start: start \"a\"".to_owned())]
        {
            assert!(grammars.constraint(&shape).is_err(), "{shape:?}");
        }
    }
}
