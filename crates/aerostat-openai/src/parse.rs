//! From OpenAI's JSON to requests.

use std::borrow::Cow;

use aerostat::{Hidden, Layer, Message, Pooling};
use serde_json::{Map, Value, json};

use crate::calls::fnv;
use crate::context::AnswerTokens;
use crate::fields::{Fields, Reading};
use crate::messages::messages;
use crate::part::PARTS_MAX;
use crate::refusal::Refusal;
use crate::request::{ApiRequest, Embedding, Endpoint, Generation, Scoring, Task};
use crate::setting::Setting;
use crate::shape::{Shape, shape};
use crate::split::Split;
use crate::tools::Tools;

/// Log-probabilities of alternatives at most.
const TOP_LOGPROBS_MAX: i64 = 20;
/// Answers to each prompt at most.
const ANSWERS_MAX: i64 = 128;
/// Texts of `stop` and their bytes at most, and tokens of `stop_token_ids`: each of up to [`ANSWERS_MAX`] answers holds them, and
/// looks for them with each token. OpenAI takes four.
const STOPS_MAX: usize = 64;
const STOP_BYTES_MAX: usize = 16 << 10;
const STOP_IDS_MAX: usize = 1_024;
/// Tokens of an answer to `/v1/completions` that names no number, as everywhere.
const COMPLETION_TOKENS_DEFAULT: usize = 16;

/// What `service_tier` may be.
const TIERS: &[&str] = &["auto", "default", "flex"];

/// What chat and completions read in ways of their own.
struct Asked {
    prompts: Vec<Vec<u32>>,
    /// By number, or what it is otherwise.
    answer: AnswerTokens,
    top_logprobs: Option<usize>,
    /// The texts of the prompts, if they are to be part of the response.
    echo: Option<Vec<String>>,
    /// How an answer is taken apart.
    split: Option<Split>,
    /// What it must look like.
    shape: Option<Shape>,
}

impl Setting {
    /// Reads the body of a request. `number` is what makes its seed another one than that of its neighbours, where the
    /// request names none: it is added to [`Rules::seed`](crate::Rules::seed).
    ///
    /// # Errors
    /// The request cannot be served, and why.
    pub fn read(
        &self,
        endpoint: Endpoint,
        body: Map<String, Value>,
        number: u64,
    ) -> Result<ApiRequest, Refusal> {
        let reading = Reading::new(self.lenient());
        let mut body = Fields::new(body, &reading);
        let model = body.text("model")?;
        model.as_deref().map_or(Ok(()), |name| self.check_model(name))?;
        without_effect(&mut body)?;
        let task = match endpoint {
            Endpoint::Chat => {
                let asked = self.chat(&mut body, &reading)?;
                Task::Chat(self.generation(number, &mut body, asked)?)
            }
            Endpoint::Completions => {
                let asked = self.completions(&mut body)?;
                Task::Completions(self.generation(number, &mut body, asked)?)
            }
            Endpoint::Embeddings => Task::Embeddings(self.embeddings(&mut body)?),
            Endpoint::Score => Task::Score(self.score(&mut body)?),
        };
        body.finish()?;
        Ok(ApiRequest { model, task, ignored: reading.into_ignored() })
    }

    fn chat(&self, body: &mut Fields<'_>, reading: &Reading) -> Result<Asked, Refusal> {
        let tools = Tools::take(body, reading)?;
        let (prompt, text) = self.conversation(body, &tools, reading)?;
        let (split, shape) = self.parts_of_answer(&tools, &text, shape(body)?)?;
        body.only("modalities", &[json!(["text"])])?;
        let wants = body.boolean("logprobs")?.unwrap_or(false);
        let top = body.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?;
        if top.is_some_and(|k| k > 0) && !wants {
            return Err(Refusal::value("top_logprobs", "`top_logprobs` needs `logprobs`: true"));
        }
        let older = answer_length(body, "max_tokens", 1)?;
        let newer = answer_length(body, "max_completion_tokens", 1)?;
        let otherwise = AnswerTokens::UpTo { least: 1, most: self.rules.max_new_tokens };
        Ok(Asked {
            prompts: vec![prompt],
            answer: newer.or(older).unwrap_or(otherwise),
            top_logprobs: wants.then(|| top.unwrap_or(0) as usize),
            echo: None,
            split,
            shape,
        })
    }

    /// The prompt of a conversation, as tokens and as text.
    fn conversation(
        &self,
        body: &mut Fields<'_>,
        tools: &Tools,
        reading: &Reading,
    ) -> Result<(Vec<u32>, String), Refusal> {
        let mut messages = messages(body.need("messages")?, reading)?;
        let Some(template) = &self.template else {
            let message = "this model has no chat template; use /v1/completions";
            return Err(Refusal::new("unknown_url", message));
        };
        self.arguments(&mut messages);
        let mut extra = match body.take("chat_template_kwargs") {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                let message = "`chat_template_kwargs` must be a JSON object";
                return Err(Refusal::value("chat_template_kwargs", message));
            }
        };
        if let Some(tools) = tools.for_template().filter(|_| self.dialect().shows_tools) {
            extra.insert("tools".to_owned(), tools);
        } else {
            tools.tell(&mut messages);
        }
        let goes_on = body.boolean("continue_final_message")?.unwrap_or(false);
        let asks = body.boolean("add_generation_prompt")?;
        if goes_on && asks == Some(true) {
            let message = "`continue_final_message` and `add_generation_prompt` contradict each other";
            return Err(Refusal::value("continue_final_message", message));
        }
        if let Some(effort) = body.text("reasoning_effort")? {
            let with = |effort: &str| {
                let mut extra = extra.clone();
                extra.insert("reasoning_effort".to_owned(), effort.into());
                template.render(&messages, true, extra).ok()
            };
            if with("low") == with("high") {
                let message = "`reasoning_effort` changes nothing in this model's chat template; leave it out, or see `chat_template_kwargs`";
                return Err(Refusal::unsupported("reasoning_effort", message));
            }
            extra.insert("reasoning_effort".to_owned(), effort.into());
        }
        let text = template.render(&messages, asks.unwrap_or(!goes_on), extra);
        let mut text = text.map_err(|e| Refusal::value("messages", format!("`messages`: {e}")))?;
        if goes_on {
            cut_to_go_on(&mut text, messages.last())?;
        }
        // The template writes the special tokens out.
        let ids = self.encode("messages", &text, false, self.prompt_max(body))?;
        if ids.is_empty() {
            return Err(Refusal::value("messages", "`messages` give an empty prompt"));
        }
        Ok((ids, text))
    }

    fn completions(&self, body: &mut Fields<'_>) -> Result<Asked, Refusal> {
        let given = body.need("prompt")?;
        let prompts = self.inputs("prompt", &given, self.prompt_max(body))?;
        let echo = body.boolean("echo")?.unwrap_or(false).then(|| self.prompt_texts(&given, &prompts));
        body.only("suffix", &[json!("")])?;
        let top = body.integer("logprobs", 0..=TOP_LOGPROBS_MAX)?;
        let otherwise = AnswerTokens::UpTo { least: 1, most: COMPLETION_TOKENS_DEFAULT };
        // What is echoed may be all that is wanted.
        let least = i64::from(echo.is_none());
        let answer = answer_length(body, "max_tokens", least)?.unwrap_or(otherwise);
        let top_logprobs = top.map(|k| k as usize);
        Ok(Asked { prompts, answer, top_logprobs, echo, split: None, shape: shape(body)? })
    }

    /// What chat and completions share.
    /// Texts that end answers. Each answer is looked through for all of them, token by token.
    fn stops(&self, body: &mut Fields<'_>) -> Result<Vec<String>, Refusal> {
        let stops = body.texts("stop")?.unwrap_or_default();
        if stops.iter().any(String::is_empty) {
            return Err(Refusal::value("stop", "a text of `stop` is empty: every answer has it at once"));
        }
        if stops.len() > STOPS_MAX || stops.iter().map(String::len).sum::<usize>() > STOP_BYTES_MAX {
            let message = format!(
                "`stop` has more than {STOPS_MAX} texts, or more than {STOP_BYTES_MAX} bytes of them"
            );
            return Err(Refusal::value("stop", message));
        }
        if !stops.is_empty() && self.tokenizer.is_none() {
            return Err(Refusal::unsupported("stop", "`stop` needs a tokenizer; this model has none"));
        }
        Ok(stops)
    }

    fn generation(&self, number: u64, body: &mut Fields<'_>, asked: Asked) -> Result<Generation, Refusal> {
        let Asked { mut prompts, answer, top_logprobs, mut echo, split, shape } = asked;
        self.truncate(body, &mut prompts, &mut echo, answer)?;
        let n = body.integer("n", 1..=ANSWERS_MAX)?.unwrap_or(1) as usize;
        if n * prompts.len() > PARTS_MAX {
            return Err(Refusal::value("n", format!("more than {PARTS_MAX} answers in one request")));
        }
        body.only("best_of", &[json!(1), json!(n)])?;
        body.only("use_beam_search", &[json!(false)])?;
        body.only("stream", &[json!(false)])?;
        stream_options(body)?;
        let prompt_max = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let max_new_tokens = self.answer_tokens(prompt_max, answer)?;
        let stop = self.stops(body)?;
        let ignore_eos = body.boolean("ignore_eos")?.unwrap_or(false);
        let stop_token_ids = match body.take("stop_token_ids") {
            None => Vec::new(),
            Some(ids) => self.ids("stop_token_ids", &ids)?,
        };
        if stop_token_ids.len() > STOP_IDS_MAX {
            let message = format!("`stop_token_ids` has more than {STOP_IDS_MAX} tokens");
            return Err(Refusal::value("stop_token_ids", message));
        }
        let keep_special_tokens = !body.boolean("skip_special_tokens")?.unwrap_or(true);
        body.only("spaces_between_special_tokens", &[json!(true)])?;
        let include_stop = body.boolean("include_stop_str_in_output")?.unwrap_or(false);
        let prompt_logprobs = body.integer("prompt_logprobs", 0..=TOP_LOGPROBS_MAX)?.map(|k| k as usize);
        let mut sampling = self.sampling(number, body)?;
        self.rules(body, max_new_tokens, &mut sampling)?;
        let keep_special_tokens =
            keep_special_tokens || split.as_ref().is_some_and(|split| self.split_by_special_tokens(split));
        if shape.is_some() && self.tokenizer.is_none() {
            return Err(Refusal::unsupported(
                "response_format",
                "a grammar needs a tokenizer; this model has none",
            ));
        }
        let end_tokens = self.end_tokens.clone();
        Ok(Generation {
            prompts,
            n,
            max_new_tokens,
            sampling,
            stop,
            end_tokens,
            ignore_eos,
            stop_token_ids,
            include_stop,
            keep_special_tokens,
            top_logprobs,
            prompt_logprobs,
            echo,
            cache_salt: cache_salt(body)?,
            shape,
            split,
        })
    }

    fn embeddings(&self, body: &mut Fields<'_>) -> Result<Embedding, Refusal> {
        let made = self.embedding.as_ref().map_err(|why| Refusal::value("input", why.clone()))?;
        let name = body.text("prompt_name")?;
        let prompt = made.prompt(name.as_deref());
        let prompt = prompt.map_err(|error| Refusal::value("prompt_name", error.to_string()))?;
        let cut = self.cut_to_embed(made, body)?;
        let mut inputs = self.texts_to_embed("input", &body.need("input")?, (&cut, prompt))?;
        if let Cow::Owned(cut) = &cut {
            inputs.iter_mut().for_each(|ids| ids.truncate(cut.tokens_max));
        }
        self.fit(inputs.iter().map(Vec::len))?;
        let dimensions = body.integer("dimensions", 1..=made.width as i64)?.map(|d| d as usize);
        let base64 = match body.text("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let message = format!("`encoding_format` is {other:?}; it must be \"float\" or \"base64\"");
                return Err(Refusal::value("encoding_format", message));
            }
        };
        let pooling = match body.text("pooling")?.as_deref() {
            None => made.pooling,
            Some("mean") => Pooling::Mean,
            Some("last") => Pooling::LastToken,
            Some("cls") => Pooling::Cls,
            Some("weighted") => Pooling::WeightedMean,
            Some(other) => {
                let message =
                    format!("`pooling` is {other:?}; it must be \"mean\", \"last\", \"cls\" or \"weighted\"");
                return Err(Refusal::value("pooling", message));
            }
        };
        let normalize = body.boolean("normalize")?.unwrap_or(made.normalize);
        let hidden = Hidden { layer: Layer::Final, pooling: Some(pooling), dimensions, normalize };
        Ok(Embedding { inputs, hidden, base64 })
    }

    fn score(&self, body: &mut Fields<'_>) -> Result<Scoring, Refusal> {
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
        let scoring = match &self.scorer {
            None => {
                let continued = texts.iter().map(|text| self.continued(&given, text));
                Scoring { sequences: continued.collect::<Result<_, _>>()?, head: None }
            }
            Some(Ok(scorer)) => self.pairs(scorer, &given, &texts)?,
            Some(Err(why)) => return Err(Refusal::value("text_1", why.as_str())),
        };
        self.fit(scoring.sequences.iter().map(|(ids, _)| ids.len()))?;
        Ok(scoring)
    }

    /// Refuses texts of which one is longer than the context.
    fn fit(&self, lengths: impl Iterator<Item = usize>) -> Result<(), Refusal> {
        self.answer_tokens(lengths.max().unwrap_or(0), AnswerTokens::Exactly(0)).map(drop)
    }
}

/// Cuts a conversation to the end of its last message, so that the answer goes on with it.
fn cut_to_go_on(text: &mut String, last: Option<&Message>) -> Result<(), Refusal> {
    let content = last.and_then(|message| message.content.as_str()).unwrap_or_default().trim();
    match text.rfind(content).filter(|_| !content.is_empty()) {
        Some(at) => text.truncate(at + content.len()),
        None => {
            let message = "the last message has no text that the chat template shows, so that nothing can go on with it";
            return Err(Refusal::value("continue_final_message", message));
        }
    }
    Ok(())
}

/// Members of a body that say who asks and how soon an answer is wanted, and change none.
fn without_effect(body: &mut Fields<'_>) -> Result<(), Refusal> {
    for name in ["user", "safety_identifier", "prompt_cache_key", "request_id"] {
        body.text(name)?;
    }
    body.boolean("store")?;
    body.integer("priority", i64::MIN..=i64::MAX)?;
    body.object("metadata")?;
    match body.text("service_tier")? {
        Some(tier) if !TIERS.contains(&tier.as_str()) => {
            let message = format!("`service_tier` is {tier:?}; it must be one of {}", TIERS.join(", "));
            Err(Refusal::value("service_tier", message))
        }
        _ => Ok(()),
    }
}

fn answer_length(body: &mut Fields<'_>, name: &str, least: i64) -> Result<Option<AnswerTokens>, Refusal> {
    let asked = body.integer(name, least..=i64::from(u32::MAX))?;
    Ok(asked.map(|n| AnswerTokens::Exactly(n as usize)))
}

/// The number of a text that tells prompts apart which are to share nothing; 0 if there is none.
fn cache_salt(body: &mut Fields<'_>) -> Result<u64, Refusal> {
    match body.text("cache_salt")? {
        None => Ok(0),
        Some(salt) if salt.is_empty() => Err(Refusal::value("cache_salt", "`cache_salt` must not be empty")),
        Some(salt) => Ok(fnv(salt.bytes()).max(1)),
    }
}

/// What only matters where an answer is streamed.
fn stream_options(body: &mut Fields<'_>) -> Result<(), Refusal> {
    let Some(mut options) = body.object("stream_options")? else { return Ok(()) };
    for name in ["include_usage", "continuous_usage_stats", "include_obfuscation"] {
        options.boolean(name)?;
    }
    options.finish()
}
