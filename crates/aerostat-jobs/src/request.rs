//! One line of the input: from OpenAI's JSON to token ids and settings.

use std::sync::Arc;

use aerostat::{ChatTemplate, Hidden, Layer, Message, ModelFiles, Pooling, Sampling, Tokenizer};
use serde_json::{Map, Value, json};

use crate::fields::{Fields, Refusal, brief};
use crate::grammar::Shape;
use crate::{Error, JobOptions};

/// Sequences of one line at most.
pub(crate) const PARTS_MAX: usize = 1 << 16;
/// Log-probabilities of alternatives at most.
const TOP_LOGPROBS_MAX: i64 = 20;
/// Tokens of an answer to `/v1/completions` that names no number, as everywhere.
const COMPLETION_TOKENS_DEFAULT: usize = 16;

/// What requests are read against: the model's tokenizer, template, limits and defaults.
pub struct Setting {
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) end_tokens: Vec<u32>,
    pub(crate) sampling: Sampling,
    pub(crate) vocab: usize,
    pub(crate) hidden: usize,
    pub(crate) context_max: usize,
    pub(crate) max_new_tokens: usize,
    pub(crate) seed: u64,
    pub(crate) model: String,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) custom_id: String,
    /// The model as the request names it.
    pub(crate) model: Option<String>,
    pub(crate) task: Task,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Task {
    Chat(Generation),
    Completions(Generation),
    Embeddings(Embedding),
    Score(Scoring),
}

/// Answers to prompts: `n` to each.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) prompts: Vec<Vec<u32>>,
    pub(crate) n: usize,
    pub(crate) max_new_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) stop: Vec<String>,
    pub(crate) end_tokens: Vec<u32>,
    pub(crate) top_logprobs: Option<usize>,
    pub(crate) shape: Option<Shape>,
}

/// A vector for each input.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub(crate) inputs: Vec<Vec<u32>>,
    pub(crate) hidden: Hidden,
    pub(crate) base64: bool,
}

/// Log-probabilities of continuations.
#[derive(Debug)]
pub(crate) struct Scoring {
    /// Tokens, and how many of them are given.
    pub(crate) sequences: Vec<(Vec<u32>, usize)>,
}

impl Task {
    /// The sequences it takes.
    pub(crate) fn parts(&self) -> usize {
        match self {
            Self::Chat(g) | Self::Completions(g) => g.prompts.len() * g.n,
            Self::Embeddings(e) => e.inputs.len(),
            Self::Score(s) => s.sequences.len(),
        }
    }
}

impl Setting {
    /// The setting of a model. `name` is what responses call it where requests do not.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Engine`] for a broken tokenizer or template.
    pub fn new(files: &ModelFiles, name: &str, options: &JobOptions) -> Result<Self, Error> {
        let tokenizer = files.tokenizer()?;
        let template = files.chat_template(tokenizer.as_ref())?;
        let end_tokens = files.end_tokens(tokenizer.as_ref());
        let spec = files.spec();
        Ok(Self {
            tokenizer: tokenizer.map(Arc::new),
            template,
            end_tokens,
            sampling: files.sampling(),
            vocab: spec.vocab,
            hidden: spec.hidden,
            context_max: options.context.unwrap_or(spec.context_max).max(1),
            max_new_tokens: options.max_new_tokens,
            seed: options.seed,
            model: name.to_owned(),
        })
    }

    /// Stops the clock that templates may look at, so that a prompt is the same after a resume.
    pub(crate) fn stop_clock(&mut self, seconds: u64) {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        self.template = self.template.take().map(|template| template.at(seconds));
    }

    /// Reads a line; with the refusal comes its custom_id where there is one.
    pub(crate) fn read(&self, number: u64, line: &[u8]) -> Result<Item, (Option<String>, Refusal)> {
        let value: Value = serde_json::from_slice(line)
            .map_err(|e| (None, Refusal::new("invalid_json", format!("the line is not JSON: {e}"))))?;
        let Value::Object(map) = value else {
            let message = format!("the line is {}, not a JSON object", brief(&value));
            return Err((None, Refusal::new("invalid_json", message)));
        };
        let mut fields = Fields::new(map);
        let custom_id = match fields.need("custom_id") {
            Ok(Value::String(id)) => id,
            Ok(other) => {
                let message = format!("`custom_id` is {}; it must be text", brief(&other));
                return Err((None, Refusal::value("custom_id", message)));
            }
            Err(refusal) => return Err((None, refusal)),
        };
        match self.envelope(number, fields) {
            Ok((model, task)) => Ok(Item { custom_id, model, task }),
            Err(refusal) => Err((Some(custom_id), refusal)),
        }
    }

    fn envelope(&self, number: u64, mut fields: Fields) -> Result<(Option<String>, Task), Refusal> {
        fields.only("method", &[json!("POST")])?;
        let url = match fields.need("url")? {
            Value::String(url) => url,
            other => {
                return Err(Refusal::value("url", format!("`url` is {}; it must be text", brief(&other))));
            }
        };
        let Value::Object(body) = fields.need("body")? else {
            return Err(Refusal::value("body", "`body` must be a JSON object"));
        };
        fields.finish()?;
        let mut body = Fields::new(body);
        let model = body.text("model")?;
        // They say who asks and how soon an answer is wanted.
        body.ignore(&[
            "user",
            "metadata",
            "store",
            "service_tier",
            "safety_identifier",
            "prompt_cache_key",
            "priority",
            "request_id",
        ]);
        let task = match url.as_str() {
            "/v1/chat/completions" => Task::Chat(self.chat(number, &mut body)?),
            "/v1/completions" => Task::Completions(self.completions(number, &mut body)?),
            "/v1/embeddings" => Task::Embeddings(self.embeddings(&mut body)?),
            "/v1/score" => Task::Score(self.score(&mut body)?),
            _ => {
                let message = format!(
                    "`url` {url:?} is not known; it is one of /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/score"
                );
                return Err(Refusal {
                    param: Some("url".to_owned()),
                    ..Refusal::new("unknown_url", message)
                });
            }
        };
        body.finish()?;
        Ok((model, task))
    }

    fn chat(&self, number: u64, body: &mut Fields) -> Result<Generation, Refusal> {
        let messages = messages(body.need("messages")?)?;
        let prompt = self.render(&messages, body)?;
        body.only("modalities", &[json!(["text"])])?;
        body.only("tools", &[json!([])])?;
        body.only("functions", &[json!([])])?;
        body.only("tool_choice", &[json!("none"), json!("auto")])?;
        body.only("function_call", &[json!("none"), json!("auto")])?;
        body.ignore(&["parallel_tool_calls"]);
        let wants = body.boolean("logprobs")?.unwrap_or(false);
        let top = body.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?;
        if top.is_some_and(|k| k > 0) && !wants {
            return Err(Refusal::value("top_logprobs", "`top_logprobs` needs `logprobs`: true"));
        }
        let older = body.integer("max_tokens", 1..=i64::from(u32::MAX))?;
        let newer = body.integer("max_completion_tokens", 1..=i64::from(u32::MAX))?;
        let asked = newer.or(older).map(|n| n as usize);
        let top_logprobs = wants.then(|| top.unwrap_or(0) as usize);
        self.generation(number, body, vec![prompt], asked, self.max_new_tokens, top_logprobs)
    }

    fn completions(&self, number: u64, body: &mut Fields) -> Result<Generation, Refusal> {
        let prompts = self.inputs("prompt", body.need("prompt")?, true)?;
        body.only("echo", &[json!(false)])?;
        body.only("suffix", &[json!("")])?;
        let top = body.integer("logprobs", 0..=TOP_LOGPROBS_MAX)?;
        let asked = body.integer("max_tokens", 1..=i64::from(u32::MAX))?.map(|n| n as usize);
        self.generation(number, body, prompts, asked, COMPLETION_TOKENS_DEFAULT, top.map(|k| k as usize))
    }

    /// What chat and completions share.
    fn generation(
        &self,
        number: u64,
        body: &mut Fields,
        prompts: Vec<Vec<u32>>,
        asked: Option<usize>,
        otherwise: usize,
        top_logprobs: Option<usize>,
    ) -> Result<Generation, Refusal> {
        let n = body.integer("n", 1..=128)?.unwrap_or(1) as usize;
        if n * prompts.len() > PARTS_MAX {
            return Err(Refusal::value("n", format!("more than {PARTS_MAX} answers in one request")));
        }
        body.only("best_of", &[json!(1), json!(n)])?;
        body.only("use_beam_search", &[json!(false)])?;
        body.only("stream", &[json!(false)])?;
        body.ignore(&["stream_options"]);
        let prompt_max = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let max_new_tokens = self.answer_tokens(prompt_max, asked, otherwise)?;
        let stop = body.texts("stop")?.unwrap_or_default();
        if !stop.is_empty() && self.tokenizer.is_none() {
            return Err(Refusal::unsupported("stop", "`stop` needs a tokenizer; this model has none"));
        }
        let mut end_tokens = self.end_tokens.clone();
        if body.boolean("ignore_eos")?.unwrap_or(false) {
            end_tokens.clear();
        }
        if let Some(more) = body.take("stop_token_ids") {
            end_tokens.extend(self.ids("stop_token_ids", &more)?);
        }
        body.only("skip_special_tokens", &[json!(true)])?;
        body.only("spaces_between_special_tokens", &[json!(true)])?;
        body.only("include_stop_str_in_output", &[json!(false)])?;
        body.only("min_tokens", &[json!(0)])?;
        let sampling = self.sampling(number, body)?;
        let shape = shape(body)?;
        if shape.is_some() && self.tokenizer.is_none() {
            return Err(Refusal::unsupported(
                "response_format",
                "a grammar needs a tokenizer; this model has none",
            ));
        }
        Ok(Generation { prompts, n, max_new_tokens, sampling, stop, end_tokens, top_logprobs, shape })
    }

    fn embeddings(&self, body: &mut Fields) -> Result<Embedding, Refusal> {
        let inputs = self.inputs("input", body.need("input")?, true)?;
        self.fits(inputs.iter().map(Vec::len).max().unwrap_or(0))?;
        let dimensions = body.integer("dimensions", 1..=self.hidden as i64)?.map(|d| d as usize);
        let base64 = match body.text("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let message = format!("`encoding_format` is {other:?}; it must be \"float\" or \"base64\"");
                return Err(Refusal::value("encoding_format", message));
            }
        };
        let pooling = match body.text("pooling")?.as_deref() {
            None | Some("mean") => Pooling::Mean,
            Some("last") => Pooling::LastToken,
            Some("cls") => Pooling::Cls,
            Some("weighted") => Pooling::WeightedMean,
            Some(other) => {
                let message =
                    format!("`pooling` is {other:?}; it must be \"mean\", \"last\", \"cls\" or \"weighted\"");
                return Err(Refusal::value("pooling", message));
            }
        };
        let normalize = body.boolean("normalize")?.unwrap_or(true);
        let hidden = Hidden { layer: Layer::Final, pooling: Some(pooling), dimensions, normalize };
        Ok(Embedding { inputs, hidden, base64 })
    }

    fn score(&self, body: &mut Fields) -> Result<Scoring, Refusal> {
        let mut sequences = Vec::new();
        // As vLLM names them, earlier and now.
        let given = body.take("queries").map_or_else(|| body.need("text_1"), Ok)?;
        let texts = body.take("documents").map_or_else(|| body.need("text_2"), Ok)?;
        let texts = match texts {
            Value::Array(list) if list.iter().all(|t| !t.is_number()) => list,
            one => vec![one],
        };
        if texts.is_empty() || texts.len() > PARTS_MAX {
            return Err(Refusal::value("text_2", format!("`text_2` must hold 1 to {PARTS_MAX} texts")));
        }
        for text in &texts {
            sequences.push(self.continued(&given, text)?);
        }
        self.fits(sequences.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0))?;
        Ok(Scoring { sequences })
    }

    /// A text and what follows it, tokenised as one, and where the continuation begins.
    fn continued(&self, given: &Value, text: &Value) -> Result<(Vec<u32>, usize), Refusal> {
        if let (Value::String(given), Value::String(text)) = (given, text) {
            let before = self.encode("text_1", given, true)?;
            let whole = self.encode("text_1", &format!("{given}{text}"), true)?;
            let same = before.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            // The first token has no probability: nothing is before it.
            return Ok((whole, same.max(1)));
        }
        if given.is_string() || text.is_string() {
            return Err(Refusal::value(
                "text_2",
                "`text_1` and `text_2` must both be text, or both token ids",
            ));
        }
        let mut ids = self.ids("text_1", given)?;
        let start = ids.len().max(1);
        ids.extend(self.ids("text_2", text)?);
        Ok((ids, start))
    }

    /// Token ids of a prompt or input: text, token ids, or a list of either.
    fn inputs(&self, name: &str, value: Value, special: bool) -> Result<Vec<Vec<u32>>, Refusal> {
        let one = |value: &Value| match value {
            Value::String(text) => self.encode(name, text, special),
            other => self.ids(name, other),
        };
        let inputs = match &value {
            Value::Array(list) if !list.iter().any(Value::is_number) => {
                list.iter().map(one).collect::<Result<Vec<_>, _>>()?
            }
            value => vec![one(value)?],
        };
        if inputs.is_empty() || inputs.len() > PARTS_MAX || inputs.iter().any(Vec::is_empty) {
            let message = format!("`{name}` must hold 1 to {PARTS_MAX} texts of at least one token each");
            return Err(Refusal::value(name, message));
        }
        Ok(inputs)
    }

    fn ids(&self, name: &str, value: &Value) -> Result<Vec<u32>, Refusal> {
        let vocab = self.vocab as u64;
        let ids = value.as_array().and_then(|list| {
            list.iter().map(|id| id.as_u64().filter(|id| *id < vocab).map(|id| id as u32)).collect()
        });
        ids.ok_or_else(|| {
            let message = format!("`{name}` is {}; it must be text or token ids below {vocab}", brief(value));
            Refusal::value(name, message)
        })
    }

    fn encode(&self, name: &str, text: &str, special: bool) -> Result<Vec<u32>, Refusal> {
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Refusal::value(
                name,
                format!("`{name}`: this model has no tokenizer; give token ids"),
            ));
        };
        // A token is rarely longer than some dozen bytes: what is far too long need not be tokenised to know it.
        const TOKEN_BYTES_MAX: usize = 512;
        if text.len() / TOKEN_BYTES_MAX > self.context_max {
            self.fits(text.len() / TOKEN_BYTES_MAX)?;
        }
        tokenizer.encode(text, special).map_err(|e| Refusal::value(name, format!("`{name}`: {e}")))
    }

    /// The prompt of a conversation.
    fn render(&self, messages: &[Message], body: &mut Fields) -> Result<Vec<u32>, Refusal> {
        let Some(template) = &self.template else {
            let message = "this model has no chat template; use /v1/completions";
            return Err(Refusal::new("unknown_url", message));
        };
        let extra = match body.take("chat_template_kwargs") {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                let message = "`chat_template_kwargs` must be a JSON object";
                return Err(Refusal::value("chat_template_kwargs", message));
            }
        };
        let asks = body.boolean("add_generation_prompt")?.unwrap_or(true);
        body.only("continue_final_message", &[json!(false)])?;
        let text = template
            .render(messages, asks, extra)
            .map_err(|e| Refusal::value("messages", format!("`messages`: {e}")))?;
        // The template writes the special tokens out.
        let ids = self.encode("messages", &text, false)?;
        if ids.is_empty() {
            return Err(Refusal::value("messages", "`messages` give an empty prompt"));
        }
        Ok(ids)
    }

    /// The model's defaults, and what the request says over them.
    fn sampling(&self, number: u64, body: &mut Fields) -> Result<Sampling, Refusal> {
        let mut sampling = self.sampling.clone();
        // Without a seed of its own each line has another, and always the same.
        sampling.seed = self.seed.wrapping_add(number);
        if let Some(seed) = body.integer("seed", i64::MIN..=i64::MAX)? {
            sampling.seed = seed as u64;
        }
        let set = |field: &mut f32, value: Option<f32>| *field = value.unwrap_or(*field);
        set(&mut sampling.temperature, body.number("temperature", 0.0..=100.0)?);
        set(&mut sampling.top_p, body.number("top_p", 0.0..=1.0)?);
        set(&mut sampling.min_p, body.number("min_p", 0.0..=1.0)?);
        set(&mut sampling.repetition_penalty, body.number("repetition_penalty", 1e-3..=1e3)?);
        set(&mut sampling.frequency_penalty, body.number("frequency_penalty", -2.0..=2.0)?);
        set(&mut sampling.presence_penalty, body.number("presence_penalty", -2.0..=2.0)?);
        if let Some(k) = body.integer("top_k", -1..=i64::from(u32::MAX))? {
            sampling.top_k = k.max(0) as usize;
        }
        if let Some(bias) = body.take("logit_bias") {
            sampling.logit_bias = self.logit_bias(&bias)?;
        }
        Ok(sampling)
    }

    fn logit_bias(&self, value: &Value) -> Result<Vec<(u32, f32)>, Refusal> {
        let wrong = |what: String| {
            let message = format!("`logit_bias`: {what}; it maps token ids to numbers from -100 to 100");
            Refusal::value("logit_bias", message)
        };
        let map = value.as_object().ok_or_else(|| wrong(brief(value)))?;
        let mut biases = Vec::with_capacity(map.len());
        for (id, bias) in map {
            let token = id.parse::<u32>().ok().filter(|t| (*t as usize) < self.vocab);
            let bias = bias.as_f64().filter(|b| (-100.0..=100.0).contains(b));
            let (Some(token), Some(bias)) = (token, bias) else {
                return Err(wrong(format!("{id:?}")));
            };
            biases.push((token, bias as f32));
        }
        biases.sort_unstable_by_key(|(token, _)| *token);
        Ok(biases)
    }

    /// Tokens that an answer may have: what is asked for, if the context holds it; else what fits up to the default.
    fn answer_tokens(&self, prompt: usize, asked: Option<usize>, otherwise: usize) -> Result<usize, Refusal> {
        match asked {
            Some(asked) => {
                self.fits(prompt.saturating_add(asked)).map(|()| asked).map_err(|refusal| Refusal {
                    message: format!("{} ({prompt} of the prompt and {asked} asked for)", refusal.message),
                    ..refusal
                })
            }
            None => {
                self.fits(prompt + 1)?;
                Ok(otherwise.max(1).min(self.context_max - prompt))
            }
        }
    }

    fn fits(&self, tokens: usize) -> Result<(), Refusal> {
        if tokens <= self.context_max {
            return Ok(());
        }
        let message = format!("the context holds {} tokens; this request needs {tokens}", self.context_max);
        Err(Refusal::new("context_length_exceeded", message))
    }
}

/// Messages as templates want them: content as text.
fn messages(value: Value) -> Result<Vec<Message>, Refusal> {
    let wrong = |what: String| Refusal::value("messages", format!("`messages`: {what}"));
    let Value::Array(list) = value else { return Err(wrong("it must be a list".to_owned())) };
    if list.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    let mut messages = Vec::with_capacity(list.len());
    for (i, value) in list.into_iter().enumerate() {
        let mut message: Message =
            serde_json::from_value(value).map_err(|e| wrong(format!("message {i}: {e}")))?;
        if message.role == "developer" {
            message.role = "system".to_owned();
        }
        message.content = content(message.content).map_err(|what| wrong(format!("message {i}: {what}")))?;
        messages.push(message);
    }
    Ok(messages)
}

/// Content as one text: parts of text follow each other on lines.
fn content(value: Value) -> Result<Value, String> {
    let parts = match value {
        Value::Null | Value::String(_) => return Ok(value),
        Value::Array(parts) => parts,
        other => return Err(format!("content {} is neither text nor a list of parts", brief(&other))),
    };
    let text = |part: &Value| match part {
        Value::String(text) => Ok(text.clone()),
        part => {
            let is_text = part.get("type").is_none_or(|t| t == "text");
            let text = part.get("text").and_then(Value::as_str).filter(|_| is_text);
            text.map(str::to_owned).ok_or_else(|| format!("content part {} is not text", brief(part)))
        }
    };
    let texts = parts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("\n").into())
}

/// The grammar that a request asks for, by whichever of the names it uses.
fn shape(body: &mut Fields) -> Result<Option<Shape>, Refusal> {
    let mut shapes = Vec::new();
    if let Some(format) = body.take("response_format") {
        shapes.extend(response_format(&format)?);
    }
    if let Some(value) = body.take("structured_outputs") {
        let Value::Object(map) = value else {
            return Err(Refusal::value("structured_outputs", "`structured_outputs` must be a JSON object"));
        };
        let mut fields = Fields::new(map);
        shapes.extend(guided(&mut fields, "")?);
        fields.ignore(&[
            "disable_fallback",
            "disable_any_whitespace",
            "disable_additional_properties",
            "whitespace_pattern",
        ]);
        fields.finish()?;
    }
    shapes.extend(guided(body, "guided_")?);
    body.ignore(&["guided_decoding_backend", "guided_whitespace_pattern"]);
    if shapes.len() > 1 {
        return Err(Refusal::value("response_format", "more than one grammar for one answer"));
    }
    Ok(shapes.pop())
}

fn response_format(format: &Value) -> Result<Option<Shape>, Refusal> {
    let wrong = |message: String| Err(Refusal::value("response_format", message));
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Shape::JsonObject)),
        Some("json_schema") => match format.pointer("/json_schema/schema") {
            Some(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Some(Shape::Schema(schema.clone()))),
            _ => wrong("`response_format`: `json_schema` needs a `schema` inside".to_owned()),
        },
        _ => wrong(format!(
            "`response_format` is {}; its type must be text, json_object or json_schema",
            brief(format)
        )),
    }
}

/// The fields `json`, `json_object`, `regex`, `choice` and `grammar`, with a prefix before each.
fn guided(fields: &mut Fields, prefix: &str) -> Result<Vec<Shape>, Refusal> {
    let mut shapes = Vec::new();
    let name = format!("{prefix}json");
    match fields.take(&name) {
        None => {}
        // A schema may come as text, too.
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(schema) => shapes.push(Shape::Schema(schema)),
            Err(e) => return Err(Refusal::value(&name, format!("`{name}` is not JSON: {e}"))),
        },
        Some(schema) => shapes.push(Shape::Schema(schema)),
    }
    if fields.boolean(&format!("{prefix}json_object"))? == Some(true) {
        shapes.push(Shape::JsonObject);
    }
    shapes.extend(fields.text(&format!("{prefix}regex"))?.map(Shape::Regex));
    shapes.extend(fields.text(&format!("{prefix}grammar"))?.map(Shape::Lark));
    let name = format!("{prefix}choice");
    if let Some(choices) = fields.texts(&name)? {
        if choices.is_empty() || choices.iter().any(String::is_empty) {
            return Err(Refusal::value(&name, format!("`{name}` must hold texts that are not empty")));
        }
        shapes.push(Shape::Choice(choices));
    }
    Ok(shapes)
}
