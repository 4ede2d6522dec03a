//! Prompts inside responses: their text and the log-probabilities of their tokens.

use aerostat::TokenLogprobs;
use serde_json::{Map, Value, json};

use crate::part::{Part, PartResult};
use crate::refusal::Refusal;
use crate::request::Generation;
use crate::respond::{decimal, logprob};
use crate::setting::Setting;

impl Setting {
    /// Log-probabilities of a prompt's tokens and those of the answer as one list, as `/v1/completions` gives them with
    /// `echo`: the first token has none. The answer's last token is among them, even if it ended the answer.
    pub(crate) fn echoed_logprobs(&self, prompt: &[u32], part: &Part, k: usize) -> Result<Value, Refusal> {
        let of_prompt = prompt_logprobs(part)?;
        if of_prompt.len() != prompt.len() {
            let what =
                format!("{} tokens of a prompt have {} log-probabilities", prompt.len(), of_prompt.len());
            return Err(Refusal::defect(what));
        }
        let top = |top: &[(u32, f32)]| {
            let pairs = top.iter().take(k);
            Value::from(pairs.map(|(id, l)| (self.token_text(*id), decimal(*l))).collect::<Map<_, _>>())
        };
        let mut rows: Vec<(u32, Value, Value)> = Vec::with_capacity(prompt.len() + part.tokens.len());
        for (&id, known) in prompt.iter().zip(of_prompt) {
            rows.push(match known {
                None => (id, Value::Null, Value::Null),
                Some(known) => (id, decimal(known.logprob), top(&known.top)),
            });
        }
        for token in &part.tokens {
            rows.push((token.id, decimal(logprob(token)?), top(&token.top)));
        }
        let texts: Vec<String> = rows.iter().map(|row| self.token_text(row.0)).collect();
        let offsets = texts.iter().scan(0, |offset, text| {
            let start = *offset;
            *offset += text.chars().count();
            Some(start)
        });
        let offsets: Vec<usize> = offsets.collect();
        let (logprobs, tops): (Vec<Value>, Vec<Value>) = rows.into_iter().map(|row| (row.1, row.2)).unzip();
        Ok(json!({"tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}))
    }

    /// `prompt_logprobs` as vLLM writes them: null for the first token; for each other one what is known of it and of the
    /// likeliest in its place, by token id. `None` if they were not asked for.
    pub(crate) fn prompt_logprobs(
        &self,
        generation: &Generation,
        prompt: &[u32],
        part: &Part,
    ) -> Result<Option<Value>, Refusal> {
        let Some(k) = generation.prompt_logprobs else { return Ok(None) };
        let entry = |id: u32, logprob: f32, rank: u32| json!({"logprob": decimal(logprob), "rank": rank, "decoded_token": self.token_text(id)});
        let one = |(id, known): (&u32, &Option<TokenLogprobs>)| {
            let Some(known) = known else { return Value::Null };
            let mut entries = Map::new();
            entries.insert(id.to_string(), entry(*id, known.logprob, known.rank));
            for (rank, (id, logprob)) in (1..).zip(known.top.iter().take(k)) {
                entries.entry(id.to_string()).or_insert_with(|| entry(*id, *logprob, rank));
            }
            entries.into()
        };
        Ok(Some(prompt.iter().zip(prompt_logprobs(part)?).map(one).collect::<Vec<_>>().into()))
    }

    /// The texts of prompts of which a request gives the text or the token ids.
    pub(crate) fn prompt_texts(&self, given: &Value, prompts: &[Vec<u32>]) -> Vec<String> {
        let given = given.as_array().map_or(std::slice::from_ref(given), Vec::as_slice);
        let text = |(i, ids): (usize, &Vec<u32>)| match given.get(i).and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => self.text_of(ids),
        };
        prompts.iter().enumerate().map(text).collect()
    }

    /// The text of a prompt, special tokens included.
    pub(crate) fn text_of(&self, ids: &[u32]) -> String {
        match &self.tokenizer {
            Some(tokenizer) => tokenizer.decode(ids, false),
            None => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        }
    }
}

fn prompt_logprobs(part: &Part) -> Result<&[Option<TokenLogprobs>], Refusal> {
    match &part.result {
        PartResult::Text { more, .. } => more.prompt_logprobs.as_deref(),
        _ => None,
    }
    .ok_or_else(|| Refusal::defect("the log-probabilities of a prompt are missing"))
}
