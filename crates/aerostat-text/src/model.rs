//! The model behind a tokenizer: what turns a piece of text into ids.

use crate::bpe::{Bpe, Vocab};
use crate::error::Error;
use crate::meter::Meter;
use crate::unigram::Unigram;
use crate::words::Words;

/// A model of one of the kinds there are.
pub(crate) enum TextModel {
    /// Byte-pair merging.
    Bpe(Bpe),
    /// The likeliest cut.
    Unigram(Unigram),
    /// WordPiece and WordLevel.
    Words(Words),
}

impl TextModel {
    pub(crate) fn vocab(&self) -> &Vocab {
        match self {
            TextModel::Bpe(model) => model.vocab(),
            TextModel::Unigram(model) => model.vocab(),
            TextModel::Words(model) => model.vocab(),
        }
    }

    /// Appends the ids of a piece of text that is not empty.
    pub(crate) fn tokenize(&self, text: &str, ids: &mut Vec<u32>, meter: &Meter) -> Result<(), Error> {
        match self {
            TextModel::Bpe(model) => model.tokenize(text, ids, meter),
            TextModel::Unigram(model) => model.tokenize(text, ids, meter),
            TextModel::Words(model) => model.tokenize(text, ids, meter),
        }
    }
}
