//! How many lines there are, and how long.

use aerostat::{Need, Want};
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

/// What an engine must have room for, so that lines are done together; `unanswered` is what is wanted of those that have
/// no answer.
pub(crate) fn need<'a>(rows: impl Iterator<Item = &'a LineRow>, unanswered: Want) -> Need {
    let mut need = Need::none();
    let mut empty = true;
    for row in rows {
        let answer = row.answer as usize;
        let want = if answer > 0 { Want::Generate } else { unanswered };
        // Its longest sequence, and others that share the rest of its prompts.
        let longest = (row.longest as usize).saturating_sub(answer);
        need.add_tokens(longest, answer, want);
        let (rest, others) = ((row.prompt as usize).saturating_sub(longest), row.parts.max(1) as usize - 1);
        for i in 0..others {
            need.add_tokens(rest / others + usize::from(i < rest % others), answer, want);
        }
        empty = false;
    }
    if empty { Need::one(1) } else { need }
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
        };
        let words = |need: Need| format!("{need:?}");
        let of = |prompts: &[usize], answer, want| {
            let mut need = Need::none();
            prompts.iter().for_each(|prompt| need.add_tokens(*prompt, answer, want));
            words(need)
        };
        let hidden = Want::Hidden(aerostat::Hidden::default());
        let score = Want::Score { from: 1, logits_last: false };
        let three = [row(3, 20, 0, 9)];
        assert_eq!(words(need(three.iter(), hidden)), of(&[9, 6, 5], 0, hidden));
        assert_eq!(words(need(three.iter(), score)), of(&[9, 6, 5], 0, score));
        let answered = [row(2, 12, 5, 11)];
        assert_eq!(words(need(answered.iter(), hidden)), of(&[6, 6], 5, Want::Generate));
        assert_eq!(words(need([].iter(), hidden)), words(Need::one(1)));
    }
}
