//! From texts and lists of token ids to prompts.

use std::borrow::Cow;

use aerostat::rerank::Pair;
use aerostat::{Embedding, Reranker, Want};
use serde_json::Value;

use crate::context::{AnswerTokens, TooLong, answer_tokens, longer_than};
use crate::fields::{Fields, brief};
use crate::part::PARTS_MAX;
use crate::refusal::Refusal;
use crate::request::Scoring;
use crate::setting::{Setting, TOKEN_BYTES_MAX};

/// The member of a body that cuts prompts.
const TRUNCATE: &str = "truncate_prompt_tokens";

impl Setting {
    /// Tokens of a prompt at most, before it is cut if the body says that it is.
    pub(crate) fn prompt_max(&self, body: &Fields<'_>) -> usize {
        if body.peek(TRUNCATE).is_some() { usize::MAX } else { self.context_max }
    }

    /// Token ids of a prompt or input: text, token ids, or a list of either. Texts of more than `most` tokens are refused as
    /// soon as that is known.
    pub(crate) fn inputs(&self, name: &str, value: &Value, most: usize) -> Result<Vec<Vec<u32>>, Refusal> {
        self.each_input(name, value, &|text| self.encode(name, text, true, most))
    }

    /// The same of texts to be embedded: behind a prompt, and cut at their end where the model's makers cut them.
    pub(crate) fn texts_to_embed(
        &self,
        name: &str,
        value: &Value,
        (embedding, prompt): (&Embedding, &str),
    ) -> Result<Vec<Vec<u32>>, Refusal> {
        self.each_input(name, value, &|text| match &self.tokenizer {
            Some(tokenizer) if embedding.cuts => {
                let made = embedding.encode(tokenizer, prompt, text);
                let made = made.map_err(|error| Refusal::value(name, error.to_string()))?;
                Ok(made.token_ids)
            }
            _ => self.encode(name, &[prompt, text].concat(), true, self.context_max),
        })
    }

    /// How texts are to be embedded, where the body says to how many tokens they are cut; -1 stands for as many as fit.
    pub(crate) fn cut_to_embed<'e>(
        &self,
        embedding: &'e Embedding,
        body: &mut Fields<'_>,
    ) -> Result<Cow<'e, Embedding>, Refusal> {
        let Some(kept) = kept(body)? else { return Ok(Cow::Borrowed(embedding)) };
        let most = self.context_max.min(embedding.tokens_max);
        let tokens_max = kept.map_or(most, |kept| kept.min(embedding.tokens_max));
        let mut cut = embedding.clone();
        (cut.cuts, cut.tokens_max) = (true, tokens_max);
        Ok(Cow::Owned(cut))
    }

    /// A text with others, as the model's head knows them.
    pub(crate) fn pairs(
        &self,
        scorer: &Reranker,
        given: &Value,
        texts: &[Value],
    ) -> Result<Scoring, Refusal> {
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Refusal::defect("a head without a tokenizer"));
        };
        let text = |name: &str, value: &Value| {
            let refuse = || {
                let given = brief(value);
                Refusal::value(name, format!("`{name}` is {given}; the head of this model reads texts"))
            };
            value.as_str().map(str::to_owned).ok_or_else(refuse)
        };
        let given = text("text_1", given)?;
        let mut scoring = Scoring::default();
        for value in texts {
            let pair = scorer.pair(tokenizer, &given, &text("text_2", value)?, None);
            let Pair { requests, .. } = pair.map_err(|error| Refusal::value("text_2", error.to_string()))?;
            let one = <[aerostat::Request; 1]>::try_from(requests);
            let [request] = one.map_err(|_| Refusal::defect("a head that reads no single vector"))?;
            let Want::Hidden(hidden) = request.want else {
                return Err(Refusal::defect("a head that reads no vector"));
            };
            scoring.head = Some(hidden);
            scoring.sequences.push((request.token_ids, request.second.unwrap_or(0)));
        }
        Ok(scoring)
    }

    fn each_input(
        &self,
        name: &str,
        value: &Value,
        encode: &dyn Fn(&str) -> Result<Vec<u32>, Refusal>,
    ) -> Result<Vec<Vec<u32>>, Refusal> {
        let one = |value: &Value| match value {
            Value::String(text) => encode(text),
            other => self.ids(name, other),
        };
        let inputs = match value {
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

    /// Cuts prompts to their last `truncate_prompt_tokens` tokens, if the body says so; -1 stands for as many as leave room
    /// for the answer.
    pub(crate) fn truncate(
        &self,
        body: &mut Fields<'_>,
        prompts: &mut [Vec<u32>],
        echo: &mut Option<Vec<String>>,
        answer: AnswerTokens,
    ) -> Result<(), Refusal> {
        let Some(kept) = kept(body)? else { return Ok(()) };
        let kept = kept.unwrap_or_else(|| {
            let (AnswerTokens::Exactly(answer) | AnswerTokens::UpTo { least: answer, .. }) = answer;
            self.context_max.saturating_sub(answer).max(1)
        });
        for (index, ids) in prompts.iter_mut().enumerate().filter(|(_, ids)| ids.len() > kept) {
            ids.drain(..ids.len() - kept);
            if let Some(text) = echo.as_mut().and_then(|texts| texts.get_mut(index)) {
                *text = self.text_of(ids);
            }
        }
        Ok(())
    }

    /// A text and what follows it, tokenised as one, and where the continuation begins.
    pub(crate) fn continued(&self, given: &Value, text: &Value) -> Result<(Vec<u32>, usize), Refusal> {
        if let (Value::String(given), Value::String(text)) = (given, text) {
            let before = self.encode("text_1", given, true, self.context_max)?;
            let whole = self.encode("text_1", &format!("{given}{text}"), true, self.context_max)?;
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

    /// A list of token ids of the vocabulary.
    pub(crate) fn ids(&self, name: &str, value: &Value) -> Result<Vec<u32>, Refusal> {
        let vocab = self.vocab as u64;
        let ids = value.as_array().and_then(|list| {
            list.iter().map(|id| id.as_u64().filter(|id| *id < vocab).map(|id| id as u32)).collect()
        });
        ids.ok_or_else(|| {
            let message = format!("`{name}` is {}; it must be text or token ids below {vocab}", brief(value));
            Refusal::value(name, message)
        })
    }

    /// Token ids of a text; `special` adds those that the model wants around one. One of more than `most` tokens is refused
    /// as soon as that is known.
    pub(crate) fn encode(
        &self,
        name: &str,
        text: &str,
        special: bool,
        most: usize,
    ) -> Result<Vec<u32>, Refusal> {
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Refusal::value(
                name,
                format!("`{name}`: this model has no tokenizer; give token ids"),
            ));
        };
        if text.len() / TOKEN_BYTES_MAX > most {
            self.answer_tokens(text.len() / TOKEN_BYTES_MAX, AnswerTokens::Exactly(0))?;
        }
        if let Some(tokens) = longer_than(tokenizer, text, most) {
            let message = format!("`{name}` has more than {tokens} tokens; the context holds {most}");
            return Err(Refusal::new("context_length_exceeded", message));
        }
        tokenizer.encode(text, special).map_err(|e| Refusal::value(name, format!("`{name}`: {e}")))
    }

    /// Tokens that the answer to a prompt may have.
    pub(crate) fn answer_tokens(&self, prompt: usize, answer: AnswerTokens) -> Result<usize, Refusal> {
        let too_long = |e: TooLong| Refusal::new("context_length_exceeded", e.to_string());
        answer_tokens(self.context_max, prompt, answer).map_err(too_long)
    }
}

/// How many tokens of a text are kept, if the body says so: `Some(None)` for as many as there is room for.
fn kept(body: &mut Fields<'_>) -> Result<Option<Option<usize>>, Refusal> {
    match body.integer(TRUNCATE, -1..=i64::from(u32::MAX))? {
        Some(0) => {
            let message = format!("`{TRUNCATE}` is 0; it must be a number of tokens from 1, or -1");
            Err(Refusal::value(TRUNCATE, message))
        }
        kept => Ok(kept.map(|kept| usize::try_from(kept).ok())),
    }
}
