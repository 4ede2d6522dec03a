//! How many lines there are, and how long.

use aerostat::{Hidden, Layer, Need, Want};
use aerostat_openai::Task;
use serde::Serialize;

use crate::database::LineRow;

/// How many lines of the input are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All lines.
    pub total: u64,
    /// Lines with a result in the output.
    pub done: u64,
    /// Lines in the error file.
    pub failed: u64,
}

impl Counts {
    /// Lines that are neither done nor failed.
    pub fn left(&self) -> u64 {
        self.total - self.done - self.failed
    }
}

/// What the engine must have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Sequences that are left.
    pub sequences: usize,
    /// Tokens of the longest sequence at most, prompt and answer.
    pub longest: usize,
    /// Tokens of all sequences together at most, prompts and answers.
    pub total: usize,
    /// Tokens of the prompts of all sequences together.
    pub prompts: usize,
}

pub(crate) fn lengths<'a>(rows: impl Iterator<Item = &'a LineRow>) -> Lengths {
    rows.fold(Lengths::default(), |sum, row| Lengths {
        sequences: sum.sequences + row.parts as usize,
        longest: sum.longest.max(row.longest as usize),
        total: sum.total + row.prompt as usize + row.parts as usize * row.answer as usize,
        prompts: sum.prompts + row.prompt as usize,
    })
}

/// What is held for a token of an answer under way.
const TOKEN_BYTES: u64 = 100;
/// And with its log-probability; for each alternative.
const LOGPROB_BYTES: (u64, u64) = (200, 24);
/// And while it is written as JSON, with itself as one alternative more.
const WRITTEN_BYTES: u64 = 800;

/// What is held of a line without an answer until all its parts are done: for each of its tokens its id, its log-probability, and
/// the id of one of the line behind it; and for each part.
const UNANSWERED_BYTES: (u64, u64) = (16, 128);

/// What lines ask for, as far as a plan must know it beside their lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kinds {
    /// What is wanted of lines without an answer.
    pub(crate) unanswered: Want,
    /// Alternatives at most, where log-probabilities of answers or prompts are wanted.
    pub(crate) top_logprobs: Option<usize>,
    /// Those of prompts are.
    pub(crate) prompts: bool,
}

impl Kinds {
    /// What a task asks for.
    pub(crate) fn of(task: &Task) -> Self {
        let (unanswered, top_logprobs) = match task {
            // What has no answer has a prompt whose tokens are scored.
            Task::Chat(g) | Task::Completions(g) => {
                let unanswered = if g.max_new_tokens > 0 { HIDDEN } else { SCORE };
                (unanswered, g.top_logprobs.max(g.prompt_logprobs))
            }
            Task::Embeddings(_) => (HIDDEN, None),
            Task::Score(_) => (SCORE, None),
        };
        let prompts = match task {
            Task::Chat(g) | Task::Completions(g) => g.prompt_logprobs.is_some() || g.echo.is_some(),
            Task::Embeddings(_) | Task::Score(_) => false,
        };
        Self { unanswered, top_logprobs, prompts }
    }

    /// What both ask for: scores take what embeddings take, and more.
    pub(crate) fn and(self, other: Self) -> Self {
        let unanswered = if other.unanswered == HIDDEN { self.unanswered } else { other.unanswered };
        let prompts = self.prompts || other.prompts;
        Self { unanswered, top_logprobs: self.top_logprobs.max(other.top_logprobs), prompts }
    }

    /// As a job's database keeps it.
    pub(crate) fn words(self) -> String {
        let unanswered = if self.unanswered == HIDDEN { "hidden" } else { "score" };
        let top = self.top_logprobs.map_or_else(String::new, |k| format!(" {k}"));
        format!("{unanswered}{top}{}", if self.prompts { " prompts" } else { "" })
    }

    /// Back again. Jobs of before did not keep it.
    pub(crate) fn of_words(words: Option<&str>) -> Self {
        let mut words = words.unwrap_or_default().split(' ');
        let unanswered = match words.next() {
            Some("hidden") => HIDDEN,
            Some("score") => SCORE,
            _ => Want::Generate,
        };
        let mut kinds = Self { unanswered, ..Self::default() };
        for word in words {
            match word.parse() {
                Ok(k) => kinds.top_logprobs = Some(k),
                Err(_) => kinds.prompts |= word == "prompts",
            }
        }
        kinds
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Self { unanswered: HIDDEN, top_logprobs: None, prompts: false }
    }
}

const HIDDEN: Want =
    Want::Hidden(Hidden { layer: Layer::Final, pooling: None, dimensions: None, normalize: false });
const SCORE: Want = Want::Score { from: 1, logits_last: false };

/// What an engine must have room for, so that lines are done together.
pub(crate) fn need(rows: impl Iterator<Item = LineRow>, kinds: Kinds) -> Need {
    let mut need = Need::none();
    let (mut empty, mut told_max, mut unanswered_max) = (true, 0, 0);
    for row in rows {
        let answer = row.answer as usize;
        let want = if answer > 0 { Want::Generate } else { kinds.unanswered };
        let told = if kinds.prompts { row.longest as usize } else { answer };
        told_max = told.max(told_max);
        if answer == 0 {
            let (token, part) = UNANSWERED_BYTES;
            unanswered_max = unanswered_max.max(u64::from(row.prompt) * token + u64::from(row.parts) * part);
        }
        // Its longest sequence, and others that share the rest of its prompts.
        let longest = (row.longest as usize).saturating_sub(answer);
        need.add_tokens(longest, answer, want);
        let (rest, others) = ((row.prompt as usize).saturating_sub(longest), row.parts.max(1) as usize - 1);
        for i in 0..others {
            need.add_tokens(rest / others + usize::from(i < rest % others), answer, want);
        }
        empty = false;
    }
    if empty {
        return Need::one(1);
    }
    need.hold_results(unanswered_max);
    if told_max > 0 {
        let each = |k: usize| LOGPROB_BYTES.0 + k as u64 * LOGPROB_BYTES.1;
        need.hold_tokens(kinds.top_logprobs.map_or(TOKEN_BYTES, each));
    }
    if let Some(k) = kinds.top_logprobs {
        need.hold_results(told_max as u64 * (k as u64 + 1) * WRITTEN_BYTES);
    }
    need
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::State;

    /// A batch of embeddings was once planned as one of answers, with a row of logits for each of its sequences.
    #[test]
    fn what_is_needed_has_all_tokens_and_the_longest_sequence_and_logits_where_they_are_wanted() {
        let row = |parts, prompt, answer, longest| LineRow {
            number: 0,
            state: State::ToDo,
            parts,
            prompt,
            answer,
            longest,
            generated: 0,
            mark: [0; 3],
        };
        let words = |need: Need| format!("{need:?}");
        let of = |prompts: &[usize], answer, want| {
            let mut need = Need::none();
            prompts.iter().for_each(|prompt| need.add_tokens(*prompt, answer, want));
            match answer {
                0 => need.hold_results(20 * 16 + 3 * 128),
                _ => need.hold_tokens(TOKEN_BYTES),
            }
            need
        };
        let hidden = Kinds::default();
        let score = Kinds { unanswered: SCORE, ..hidden };
        let three = [row(3, 20, 0, 9)];
        assert_eq!(words(need(three.iter().copied(), hidden)), words(of(&[9, 6, 5], 0, HIDDEN)));
        assert_eq!(words(need(three.iter().copied(), score)), words(of(&[9, 6, 5], 0, SCORE)));
        let answered = [row(2, 12, 5, 11)];
        assert_eq!(words(need(answered.iter().copied(), score)), words(of(&[6, 6], 5, Want::Generate)));
        assert_eq!(words(need([].into_iter(), hidden)), words(Need::one(1)));
        let mut logprobs = of(&[6, 6], 5, Want::Generate);
        logprobs.hold_tokens(680);
        logprobs.hold_results(5 * 21 * WRITTEN_BYTES);
        let top = Kinds { top_logprobs: Some(20), ..hidden };
        assert_eq!(words(need(answered.iter().copied(), top)), words(logprobs));
    }

    #[test]
    fn kinds_come_back_from_words() {
        for unanswered in [HIDDEN, SCORE] {
            for top_logprobs in [None, Some(0), Some(20)] {
                for prompts in [false, true] {
                    let kinds = Kinds { unanswered, top_logprobs, prompts };
                    assert_eq!(Kinds::of_words(Some(&kinds.words())), kinds);
                    assert_eq!(Kinds::default().and(kinds), kinds);
                    assert_eq!(kinds.and(Kinds::default()), kinds);
                }
            }
        }
        assert_eq!(Kinds::of_words(None).unanswered, Want::Generate);
    }
}
