//! The tokens that end a turn, by how they are written.
//!
//! Files name one of them as a rule, and models use several. Public tools for GGUF files therefore go by the texts; the
//! list here is that of llama.cpp, without what ends pieces of code.

use crate::tokenizer::Tokenizer;

/// Tokens that end a turn wherever they are in a vocabulary, but for [`Tokenizer::turn_ends`]'s exceptions.
pub(crate) const TURN_ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[e~[",
];

impl Tokenizer {
    /// The ids of all tokens that end a turn by how they are written (`<|im_end|>`, `<end_of_turn>` …), ascending.
    ///
    /// Where a vocabulary has the tokens of OpenAI's harmony (`<|return|>`, `<|call|>`) or Solar Open's (`<|flush|>`,
    /// `<|calls|>`), `<|end|>` ends a message within a turn, and is none of them; where it has Gemma 4's
    /// `<|tool_response>`, `</s>` is a token like others, as it is wherever it is no special token.
    pub fn turn_ends(&self) -> Vec<u32> {
        let has = |text: &str| self.token_id(text).is_some();
        let inner = |text: &str| text == "<|end|>" && self.ends_messages();
        let texts = TURN_ENDS.iter().filter(|text| !inner(text));
        let mut ids: Vec<u32> = texts.filter_map(|text| self.token_id(text)).collect();
        // In text of the web it is a tag, and some vocabularies have it as such.
        let tag = self.token_id("</s>").filter(|id| self.is_special(*id) && !has("<|tool_response>"));
        ids.extend(tag);
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The ids that end a turn in a vocabulary whose `<|end|>` ends a message only, and that id; `None` for others.
    pub fn message_end(&self) -> Option<(u32, Vec<u32>)> {
        let end = self.token_id("<|end|>").filter(|_| self.ends_messages())?;
        let ends = ["<|return|>", "<|call|>", "<|calls|>", "<|flush|>"];
        Some((end, ends.iter().filter_map(|text| self.token_id(text)).collect()))
    }

    /// Whether `<|end|>` ends a message and not the turn.
    fn ends_messages(&self) -> bool {
        let has = |text: &str| self.token_id(text).is_some();
        let call = has("<|call|>") || has("<|calls|>");
        call && (has("<|return|>") || has("<|flush|>"))
    }
}
