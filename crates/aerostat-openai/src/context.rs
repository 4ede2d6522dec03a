//! Whether a request fits the context, and how long its answer may be: the one place that decides it.

use std::fmt;

use aerostat::Tokenizer;

/// A text that is longer than this is measured in pieces before it is tokenised as a whole, which takes a hundred bytes of
/// memory and more for each of its own.
const PIECE_BYTES: usize = 1 << 16;
/// Tokens that cutting a text in pieces may add to a piece, and many more.
const CUT_TOKENS: usize = 64;

/// How long an answer is to be, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerTokens {
    /// So many were asked for: a context that does not hold them is too short. 0 where there is no answer: a text that
    /// is scored or embedded.
    Exactly(usize),
    /// As many as fit, within these bounds.
    UpTo {
        /// The fewest that are an answer: a context that does not hold them is too short.
        least: usize,
        /// The most that are wanted.
        most: usize,
    },
}

/// A request that is longer than the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Tokens that the context holds.
    pub context: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that the context would have to hold.
    pub needed: usize,
    /// Tokens of the answer that were asked for by number; 0 if none were.
    pub asked: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { context, prompt, needed, asked } = self;
        write!(f, "the context holds {context} tokens; this request needs {needed}")?;
        if *asked > 0 {
            write!(f, " ({prompt} of the prompt and {asked} asked for)")?;
        }
        Ok(())
    }
}

impl std::error::Error for TooLong {}

/// The tokens that an answer to a prompt of `prompt` tokens may have in a context of `context` tokens.
///
/// # Errors
/// [`TooLong`] if prompt and answer do not fit.
pub fn answer_tokens(context: usize, prompt: usize, answer: AnswerTokens) -> Result<usize, TooLong> {
    let (least, asked) = match answer {
        AnswerTokens::Exactly(asked) => (asked, asked),
        AnswerTokens::UpTo { least, .. } => (least, 0),
    };
    let needed = prompt.saturating_add(least);
    match answer {
        _ if needed > context => Err(TooLong { context, prompt, needed, asked }),
        AnswerTokens::Exactly(asked) => Ok(asked),
        AnswerTokens::UpTo { least, most } => Ok(most.max(least).min(context - prompt)),
    }
}

/// The number of tokens that a long text has at the least, if that is more than `most`; found piece by piece, in little
/// memory, and no further than it must. `None`: the text may fit.
pub fn longer_than(tokenizer: &Tokenizer, text: &str, most: usize) -> Option<usize> {
    if text.len() <= PIECE_BYTES {
        return None;
    }
    let (mut rest, mut tokens) = (text, 0);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        // What cannot be tokenised in pieces is told when it is tokenised whole.
        tokens += tokenizer.encode(piece, false).ok()?.len().saturating_sub(CUT_TOKENS);
        if tokens > most {
            return Some(tokens);
        }
        rest = more;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::AnswerTokens::{Exactly, UpTo};
    use super::*;

    fn up_to(most: usize) -> AnswerTokens {
        UpTo { least: 1, most }
    }

    #[test]
    fn what_is_asked_for_is_held_and_what_is_not_is_cut_to_what_fits() {
        for (prompt, answer, want) in [
            (90, Exactly(10), Ok(10)),
            (90, Exactly(11), Err(101)),
            (100, Exactly(0), Ok(0)),
            (101, Exactly(0), Err(101)),
            (90, up_to(256), Ok(10)),
            (90, up_to(3), Ok(3)),
            (90, up_to(0), Ok(1)),
            (99, up_to(256), Ok(1)),
            (100, up_to(256), Err(101)),
            (100, UpTo { least: 0, most: 256 }, Ok(0)),
            (101, UpTo { least: 0, most: 256 }, Err(101)),
            (1, Exactly(usize::MAX), Err(usize::MAX)),
        ] {
            assert_eq!(answer_tokens(100, prompt, answer).map_err(|e| e.needed), want, "{prompt} {answer:?}");
        }
    }

    #[test]
    fn the_message_tells_the_parts_of_what_was_asked_for() {
        let told = |answer| answer_tokens(8, 9, answer).unwrap_err().to_string();
        assert_eq!(told(up_to(5)), "the context holds 8 tokens; this request needs 10");
        assert_eq!(
            told(Exactly(5)),
            "the context holds 8 tokens; this request needs 14 (9 of the prompt and 5 asked for)"
        );
    }
}
