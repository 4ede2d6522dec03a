//! Texts that are too long for the context, cut.

use std::sync::Arc;

use aerostat::Tokenizer;

use crate::encode::{Chat, Encoder};
use crate::failure::Failure;
use crate::prompts::Prompt;
use crate::table::{Truncate, filled};
use crate::template::Template;

/// Cuts texts so that their prompts have no more tokens than there is room for.
pub(crate) struct Fit {
    pub(crate) truncate: Truncate,
    /// Tokens of a prompt at most.
    pub(crate) room: usize,
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    pub(crate) chat: Option<Chat>,
}

impl Fit {
    /// A prompt that is the text itself, or tokens.
    pub(crate) fn prompt(&self, prompt: Prompt) -> Result<Prompt, String> {
        match prompt {
            Prompt::Text(text) => self.text(text, |text| text.to_owned()).map(Prompt::Text),
            Prompt::TokenIds(mut ids) => {
                match self.truncate {
                    Truncate::Left => drop(ids.drain(..ids.len().saturating_sub(self.room))),
                    Truncate::Right => ids.truncate(self.room),
                    Truncate::First(tokens) => ids.truncate(tokens),
                }
                Ok(Prompt::TokenIds(ids))
            }
        }
    }

    /// A prompt that a template makes of cells: the longest of these is cut.
    pub(crate) fn filled(
        &self,
        template: &Template,
        mut cells: Vec<(&str, String)>,
        is_text: &dyn Fn(&str) -> bool,
    ) -> Result<Prompt, String> {
        let longest = (0..cells.len()).max_by_key(|i| cells[*i].1.len());
        let Some(longest) = longest else { return Ok(Prompt::Text(filled(template, &cells, is_text))) };
        let whole = std::mem::take(&mut cells[longest].1);
        let others = cells.clone();
        let made = |text: &str| {
            let mut cells = others.clone();
            text.clone_into(&mut cells[longest].1);
            filled(template, &cells, is_text)
        };
        self.text(whole, made).map(Prompt::Text)
    }

    /// The prompt that is made of as much of a text as there is room for.
    fn text(&self, text: String, made: impl Fn(&str) -> String) -> Result<String, String> {
        let text = match self.truncate {
            Truncate::First(tokens) => {
                let plain = Encoder::plain(self.tokenizer.as_deref()).within(tokens);
                let fits = |text: &str| plain.continuation(text).is_ok_and(|ids| ids.len() <= tokens);
                cut(&text, false, &fits).ok_or("no token of the text fits")?.to_owned()
            }
            _ => text,
        };
        let encoder = Encoder::plain(self.tokenizer.as_deref()).within(self.room).through(self.chat.clone());
        // Of an empty text, too, so that what is wrong with the tokenizer is told as such.
        let tokens = |text: &str| encoder.prompt(&Prompt::Text(made(text)));
        let fits = |text: &str| tokens(text).is_ok_and(|ids| ids.len() <= self.room);
        let kept = match self.truncate {
            Truncate::First(_) => return Ok(made(&text)),
            Truncate::Left => cut(&text, true, &fits),
            Truncate::Right => cut(&text, false, &fits),
        };
        match kept {
            Some(kept) => Ok(made(kept)),
            None => {
                let why =
                    tokens("").map(|ids| format!("{} tokens without the text leave it no room", ids.len()));
                Err(why.unwrap_or_else(Failure::message))
            }
        }
    }
}

/// The longest end (`left`) or beginning of a text that fits; `None` if not even a character does.
fn cut<'t>(text: &'t str, left: bool, fits: &dyn Fn(&str) -> bool) -> Option<&'t str> {
    if fits(text) {
        return Some(text);
    }
    let part = |chars: usize, all: usize| {
        let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
        if left { text.get(at(all - chars)..) } else { text.get(..at(chars)) }.unwrap_or_default()
    };
    let all = text.chars().count();
    let (mut most, mut too_many) = (0, all);
    while most + 1 < too_many {
        let middle = most + (too_many - most) / 2;
        if fits(part(middle, all)) { most = middle } else { too_many = middle }
    }
    (most > 0).then(|| part(most, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_of_a_text_as_fits_is_kept() {
        let fits = |text: &str| text.chars().count() <= 3;
        assert_eq!(cut("äbc", false, &fits), Some("äbc"));
        assert_eq!(cut("äbcdé", false, &fits), Some("äbc"));
        assert_eq!(cut("äbcdé", true, &fits), Some("cdé"));
        assert_eq!(cut("abc", true, &|text| text.is_empty()), None);
    }
}
