//! Ids to text as they come, whole characters only.

use std::str;

use crate::bytes::{byte_token, from_byte_level};
use crate::tokenizer::Tokenizer;

/// Decodes ids one by one; made by [`Tokenizer::stream`].
///
/// The pieces joined are what [`Tokenizer::decode`] gives for all ids at once, but for broken UTF-8 in vocabularies with
/// byte tokens (`<0x0A>`): there `decode` gives up on a whole run of them, which a stream cannot take back.
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    byte_level: bool,
    previous: Option<u32>,
    /// The start of a character whose rest has not come yet.
    half: Vec<u8>,
}

impl<'a> Detokenizer<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        let byte_level = tokenizer.is_byte_level();
        Detokenizer { tokenizer, skip_special, byte_level, previous: None, half: Vec::new() }
    }

    /// Takes the next id; returns the text that is complete now, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        let Some(token) = self.tokenizer.token_text(id) else { return String::new() };
        if self.byte_level {
            self.half.extend(from_byte_level(&token).unwrap_or_else(|| token.into_bytes()));
            return self.take_whole();
        }
        if let Some(byte) = byte_token(&token).filter(|_| self.tokenizer.decode(&[id], false) != token) {
            self.half.push(byte);
            self.previous = Some(id);
            return self.take_whole();
        }
        // What comes after a token may depend on the one before it: a leading space is stripped once.
        let mut text = self.finish();
        let context: Vec<u32> = self.previous.replace(id).into_iter().collect();
        let before = self.tokenizer.decode(&context, false);
        let both = self.tokenizer.decode(&[context, vec![id]].concat(), false);
        text.push_str(both.strip_prefix(&before).unwrap_or(&both));
        text
    }

    /// Ends the text: what was held back as half a character comes out as U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.half)).into_owned()
    }

    /// Takes from `half` all that no further byte can change.
    fn take_whole(&mut self) -> String {
        let mut whole = String::new();
        loop {
            match str::from_utf8(&self.half) {
                Ok(text) => {
                    whole.push_str(text);
                    self.half.clear();
                    return whole;
                }
                Err(error) => {
                    let (valid, rest) = self.half.split_at(error.valid_up_to());
                    whole.push_str(str::from_utf8(valid).unwrap_or_default());
                    let Some(broken) = error.error_len() else {
                        self.half = rest.to_vec();
                        return whole;
                    };
                    whole.push(char::REPLACEMENT_CHARACTER);
                    self.half = rest.get(broken..).unwrap_or_default().to_vec();
                }
            }
        }
    }
}
