//! Which tokens may come next, by rules that look at token ids alone: bans, permissions, shortest lengths.

use crate::{Error, ErrorKind};

/// Rules about which tokens an answer may hold. They change logits after biases and penalties: that of a token that may not
/// come becomes minus infinity, so that their order among each other does not matter.
///
/// Each does what the option of its name does in vLLM or transformers, whose names they have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenRules {
    /// Tokens that an answer has at least: no token that would end it comes before, and stop strings that are complete
    /// before do not end it (`min_tokens` of vLLM, `min_new_tokens` of transformers). 0: no such rule.
    pub min_tokens: usize,
    /// The same for prompt and answer together (`min_length` of transformers). 0: no such rule.
    pub min_length: usize,
    /// No other tokens come; `None`: all may.
    pub allowed_token_ids: Option<Vec<u32>>,
    /// These tokens never come.
    pub suppress_tokens: Vec<u32>,
    /// These tokens are not the answer's first.
    pub begin_suppress_tokens: Vec<u32>,
    /// Sequences of tokens that the answer does not hold: the last token of one does not come where those before it stand at
    /// the answer's end. The prompt does not count, as in vLLM's `bad_words`.
    pub bad_words: Vec<Vec<u32>>,
    /// The same where the prompt counts too, as in transformers' `bad_words_ids`. A single token that ends answers is not
    /// banned.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// No sequence of so many tokens comes twice, the prompt counted. 0: no such rule.
    pub no_repeat_ngram_size: usize,
    /// The token after a prompt of one token (`forced_bos_token_id` of transformers). A grammar goes before it.
    pub forced_bos: Option<u32>,
    /// The last token of an answer that reaches its longest is one of these (`forced_eos_token_id` of transformers); empty:
    /// any. A grammar goes before it.
    pub forced_eos: Vec<u32>,
}

/// Where a token is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Prompt and answer so far.
    pub(crate) tokens: &'a [u32],
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// It is the last token of the longest answer that may be.
    pub(crate) last: bool,
    /// Tokens that end answers.
    pub(crate) ends: &'a [u32],
    /// A grammar has spoken.
    pub(crate) constrained: bool,
}

impl TokenRules {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// An answer with so many tokens is too short to end.
    pub(crate) fn is_short(&self, prompt: usize, answer: usize) -> bool {
        answer < self.min_tokens || prompt + answer < self.min_length
    }

    /// Lists that cannot be followed, or that name tokens outside the vocabulary, in words.
    pub(crate) fn check(&self, vocab: usize) -> Result<(), String> {
        let mut lists: Vec<(&str, &[u32])> = vec![
            ("allowed_token_ids", self.allowed_token_ids.as_deref().unwrap_or_default()),
            ("suppress_tokens", &self.suppress_tokens),
            ("begin_suppress_tokens", &self.begin_suppress_tokens),
            ("forced_bos", self.forced_bos.as_slice()),
            ("forced_eos", &self.forced_eos),
        ];
        lists.extend(self.bad_words.iter().map(|word| ("bad_words", &word[..])));
        lists.extend(self.bad_words_ids.iter().map(|word| ("bad_words_ids", &word[..])));
        for (name, list) in lists {
            if let Some(token) = list.iter().find(|token| **token as usize >= vocab) {
                return Err(format!("`{name}`: token {token} is outside the vocabulary of {vocab} tokens"));
            }
            if list.is_empty() && name.starts_with("bad_words") {
                return Err(format!("`{name}` holds an empty sequence"));
            }
        }
        match &self.allowed_token_ids {
            Some(allowed) if allowed.is_empty() => Err("`allowed_token_ids` allows no token".to_owned()),
            _ => Ok(()),
        }
    }

    /// Changes the logits at a place.
    pub(crate) fn apply(&self, place: &Place<'_>, logits: &mut [f32]) {
        let Place { tokens, prompt, ends, .. } = *place;
        let answer = tokens.get(prompt..).unwrap_or_default();
        if let Some(allowed) = &self.allowed_token_ids {
            keep(logits, allowed);
        }
        for word in &self.bad_words {
            ban_end(logits, word, answer);
        }
        for word in self.bad_words_ids.iter().filter(|w| w.len() > 1 || !ends.contains(&w[0])) {
            ban_end(logits, word, tokens);
        }
        self.ban_repetitions(tokens, logits);
        if self.is_short(prompt, answer.len()) {
            ban(logits, ends);
        }
        if !place.constrained {
            self.force(place, logits);
        }
        ban(logits, &self.suppress_tokens);
        // A forced token goes before the answer's first.
        let first = prompt + usize::from(prompt == 1 && self.forced_bos.is_some());
        if tokens.len() == first {
            ban(logits, &self.begin_suppress_tokens);
        }
    }

    /// Bans what would repeat a sequence of tokens that there is already.
    fn ban_repetitions(&self, tokens: &[u32], logits: &mut [f32]) {
        let size = self.no_repeat_ngram_size;
        if size == 0 || tokens.len() + 1 < size {
            return;
        }
        let (_, end) = tokens.split_at(tokens.len() + 1 - size);
        for gram in tokens.windows(size) {
            if let Some((last, before)) = gram.split_last()
                && before == end
            {
                ban(logits, &[*last]);
            }
        }
    }

    fn force(&self, place: &Place<'_>, logits: &mut [f32]) {
        let mut force = |tokens: &[u32]| {
            logits.fill(f32::NEG_INFINITY);
            for token in tokens {
                if let Some(logit) = logits.get_mut(*token as usize) {
                    *logit = 0.0;
                }
            }
        };
        if let Some(token) = self.forced_bos.filter(|_| place.tokens.len() == 1) {
            force(&[token]);
        }
        if place.last && !self.forced_eos.is_empty() {
            force(&self.forced_eos);
        }
    }
}

/// Bans the last token of a sequence if those before it are what `text` ends with.
fn ban_end(logits: &mut [f32], word: &[u32], text: &[u32]) {
    if let Some((last, before)) = word.split_last()
        && text.ends_with(before)
    {
        ban(logits, &[*last]);
    }
}

fn ban(logits: &mut [f32], tokens: &[u32]) {
    for token in tokens {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Bans all other tokens.
fn keep(logits: &mut [f32], tokens: &[u32]) {
    let kept: Vec<(u32, f32)> = tokens.iter().filter_map(|t| Some((*t, *logits.get(*t as usize)?))).collect();
    logits.fill(f32::NEG_INFINITY);
    for (token, logit) in kept {
        logits[token as usize] = logit;
    }
}

/// A request whose rules cannot be followed.
pub(crate) fn no_token() -> Error {
    Error::new(ErrorKind::Usage, "its rules, its grammar or its processor of logits allow no token here")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What may come of a vocabulary of eight tokens, where 7 ends answers and the prompt has two tokens.
    fn allowed(rules: &TokenRules, tokens: &[u32]) -> Vec<u32> {
        let mut logits = [1.0; 8];
        let place = Place { tokens, prompt: 2, last: tokens.len() == 6, ends: &[7], constrained: false };
        rules.apply(&place, &mut logits);
        (0..8).filter(|token| logits[*token as usize] > f32::NEG_INFINITY).collect()
    }

    fn without(banned: &[u32]) -> Vec<u32> {
        (0..8).filter(|token| !banned.contains(token)).collect()
    }

    #[test]
    fn answers_do_not_end_before_their_shortest_length() {
        let rules = TokenRules { min_tokens: 2, ..TokenRules::default() };
        assert_eq!(allowed(&rules, &[1, 2]), without(&[7]));
        assert_eq!(allowed(&rules, &[1, 2, 3]), without(&[7]));
        assert_eq!(allowed(&rules, &[1, 2, 3, 4]), without(&[]));
        let rules = TokenRules { min_length: 4, ..TokenRules::default() };
        assert_eq!(allowed(&rules, &[1, 2, 3]), without(&[7]));
        assert_eq!(allowed(&rules, &[1, 2, 3, 4]), without(&[]));
    }

    /// vLLM looks at the answer, transformers at the prompt too.
    #[test]
    fn bad_words_are_not_completed() {
        let words = vec![vec![5], vec![2, 3], vec![7]];
        let rules = TokenRules { bad_words: words.clone(), ..TokenRules::default() };
        assert_eq!(allowed(&rules, &[1, 2]), without(&[5, 7]));
        assert_eq!(allowed(&rules, &[1, 1, 2]), without(&[3, 5, 7]));
        let rules = TokenRules { bad_words_ids: words, ..TokenRules::default() };
        assert_eq!(allowed(&rules, &[1, 2]), without(&[3, 5]));
        assert_eq!(allowed(&rules, &[1, 2, 2, 1]), without(&[5]));
    }

    #[test]
    fn sequences_do_not_come_twice() {
        let rules = |no_repeat_ngram_size| TokenRules { no_repeat_ngram_size, ..TokenRules::default() };
        assert_eq!(allowed(&rules(1), &[1, 2, 3, 1]), without(&[1, 2, 3]));
        assert_eq!(allowed(&rules(2), &[1, 2, 1]), without(&[2]));
        assert_eq!(allowed(&rules(2), &[1, 2, 1, 3, 1]), without(&[2, 3]));
        assert_eq!(allowed(&rules(3), &[1, 2, 4, 1, 2]), without(&[4]));
        assert_eq!(allowed(&rules(4), &[1, 2]), without(&[]));
    }

    #[test]
    fn tokens_are_allowed_suppressed_and_forced() {
        let rules = TokenRules { allowed_token_ids: Some(vec![3, 1, 3]), ..TokenRules::default() };
        assert_eq!(allowed(&rules, &[1, 2]), [1, 3]);
        let rules = TokenRules { suppress_tokens: vec![0, 6], ..TokenRules::default() };
        assert_eq!(allowed(&rules, &[1, 2, 3]), without(&[0, 6]));
        let rules = TokenRules { begin_suppress_tokens: vec![4], ..TokenRules::default() };
        assert_eq!((allowed(&rules, &[1, 2]), allowed(&rules, &[1, 2, 3])), (without(&[4]), without(&[])));
        let rules = TokenRules { forced_eos: vec![7], min_tokens: 9, ..TokenRules::default() };
        assert_eq!(
            (allowed(&rules, &[1, 2]), allowed(&rules, &[1, 2, 3, 4, 5, 6])),
            (without(&[7]), vec![7])
        );
        let rules = TokenRules { forced_bos: Some(2), ..TokenRules::default() };
        assert_eq!((allowed(&rules, &[1]), allowed(&rules, &[1, 2])), (vec![2], without(&[])));
    }

    #[test]
    fn what_cannot_be_followed_is_told() {
        let none = TokenRules::default();
        assert!(none.is_empty() && none.check(8).is_ok());
        for rules in [
            TokenRules { allowed_token_ids: Some(Vec::new()), ..none.clone() },
            TokenRules { allowed_token_ids: Some(vec![8]), ..none.clone() },
            TokenRules { suppress_tokens: vec![8], ..none.clone() },
            TokenRules { begin_suppress_tokens: vec![9], ..none.clone() },
            TokenRules { bad_words: vec![vec![1], Vec::new()], ..none.clone() },
            TokenRules { bad_words: vec![vec![1, 8]], ..none.clone() },
            TokenRules { bad_words_ids: vec![vec![8]], ..none.clone() },
            TokenRules { forced_bos: Some(8), ..none.clone() },
            TokenRules { forced_eos: vec![8], ..none.clone() },
        ] {
            assert!(!rules.is_empty() && rules.check(8).is_err(), "{rules:?}");
        }
    }
}
