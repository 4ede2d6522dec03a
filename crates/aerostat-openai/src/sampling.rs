//! How tokens are chosen: the model's defaults, and what a request says over them.

use std::sync::Arc;

use aerostat::{Sampling, TokenRules};
use serde_json::Value;

use crate::fields::{Fields, brief};
use crate::refusal::Refusal;
use crate::setting::Setting;

/// The highest temperature by OpenAI's rule.
const TEMPERATURE_MAX: f64 = 2.0;

impl Setting {
    /// The sampling of request `number`. Without a seed of its own each has another, and always the same.
    pub(crate) fn sampling(&self, number: u64, body: &mut Fields<'_>) -> Result<Sampling, Refusal> {
        let mut sampling = self.sampling.clone();
        sampling.seed = self.rules.seed.wrapping_add(number);
        if let Some(seed) = body.integer("seed", i64::MIN..=i64::MAX)? {
            sampling.seed = seed as u64;
        }
        let set = |field: &mut f32, value: Option<f32>| *field = value.unwrap_or(*field);
        set(&mut sampling.temperature, self.temperature(body)?);
        set(&mut sampling.top_p, body.number("top_p", 0.0..=1.0)?);
        set(&mut sampling.min_p, body.number("min_p", 0.0..=1.0)?);
        set(&mut sampling.repetition_penalty, body.number("repetition_penalty", 1e-3..=1e3)?);
        set(&mut sampling.frequency_penalty, body.number("frequency_penalty", -2.0..=2.0)?);
        set(&mut sampling.presence_penalty, body.number("presence_penalty", -2.0..=2.0)?);
        if let Some(k) = body.integer("top_k", -1..=i64::from(u32::MAX))? {
            sampling.top_k = k.max(0) as usize;
        }
        if let Some(bias) = body.take("logit_bias") {
            sampling.logit_bias = self.logit_bias(&bias)?.into();
        }
        Ok(sampling)
    }

    /// Which tokens may come, by the names of vLLM, over what the model's makers say.
    pub(crate) fn rules(
        &self,
        body: &mut Fields<'_>,
        max_new_tokens: usize,
        sampling: &mut Sampling,
    ) -> Result<(), Refusal> {
        let mut set = |change: &dyn Fn(&mut TokenRules)| change(Arc::make_mut(&mut sampling.rules));
        if let Some(least) = body.integer("min_tokens", 0..=i64::from(u32::MAX))? {
            let least = least as usize;
            if least > max_new_tokens {
                let message =
                    format!("`min_tokens` is {least}, and the answer may have {max_new_tokens} tokens");
                return Err(Refusal::value("min_tokens", message));
            }
            set(&|rules| rules.min_tokens = least);
        }
        if let Some(allowed) = body.take("allowed_token_ids") {
            let allowed = self.ids("allowed_token_ids", &allowed)?;
            if allowed.is_empty() {
                let message = "`allowed_token_ids` must hold at least one token";
                return Err(Refusal::value("allowed_token_ids", message));
            }
            set(&|rules| rules.allowed_token_ids = Some(allowed.clone()));
        }
        if let Some(words) = body.texts("bad_words")? {
            let mut all = Vec::new();
            for word in &words {
                all.extend(self.bad_word(word)?);
            }
            set(&|rules| rules.bad_words = all.clone());
        }
        Ok(())
    }

    /// The sequences of tokens that a bad word is: as it begins a text, and after a space, if that is another first token and
    /// as many of them. That is how vLLM reads them.
    fn bad_word(&self, word: &str) -> Result<Vec<Vec<u32>>, Refusal> {
        let word = word.trim_start();
        let first = self.encode("bad_words", word, false, self.context_max)?;
        if first.is_empty() {
            return Err(Refusal::value("bad_words", "`bad_words` must hold texts that are not empty"));
        }
        let spaced = self.encode("bad_words", &format!(" {word}"), false, self.context_max)?;
        let differs = spaced.first() != first.first() && spaced.len() == first.len();
        Ok([first].into_iter().chain(differs.then_some(spaced)).collect())
    }

    /// From 0 to 2, as OpenAI has it; a lenient reading takes any from 0, as vLLM does.
    fn temperature(&self, body: &mut Fields<'_>) -> Result<Option<f32>, Refusal> {
        let value = body.peek("temperature").and_then(Value::as_f64);
        if self.lenient() && value.is_some_and(|t| t > TEMPERATURE_MAX && t <= f64::from(f32::MAX)) {
            return body.number("temperature", 0.0..=f64::from(f32::MAX));
        }
        body.number("temperature", 0.0..=TEMPERATURE_MAX)
    }

    fn logit_bias(&self, value: &Value) -> Result<Vec<(u32, f32)>, Refusal> {
        let wrong = |what: String| {
            let message = format!("`logit_bias`: {what}; it maps token ids to numbers from -100 to 100");
            Refusal::value("logit_bias", message)
        };
        let map = value.as_object().ok_or_else(|| wrong(brief(value)))?;
        let mut biases = Vec::with_capacity(map.len());
        for (id, bias) in map {
            // As it is written by programs: 05 beside 5 would be the same token twice.
            let token = id.parse::<u32>().ok().filter(|t| (*t as usize) < self.vocab && t.to_string() == *id);
            let bias = bias.as_f64().filter(|b| (-100.0..=100.0).contains(b));
            let (Some(token), Some(bias)) = (token, bias) else {
                return Err(wrong(format!("{id:?}")));
            };
            biases.push((token, bias as f32));
        }
        biases.sort_unstable_by_key(|(token, _)| *token);
        Ok(biases)
    }
}
