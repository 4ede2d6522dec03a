//! The two kinds of model behind a tokenizer, as the `tokenizers` crate wants to see them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenizers::{AddedToken, Model, ModelWrapper, Result, Token, Trainer};

use crate::bpe::Bpe;

/// Our own compact byte-pair model, or one of the library's (WordPiece, WordLevel, Unigram).
pub(crate) enum TextModel {
    /// Byte-pair merging.
    Compact(Bpe),
    /// Anything else.
    Library(ModelWrapper),
}

impl TextModel {
    /// One more than the greatest id.
    pub(crate) fn ids(&self) -> usize {
        match self {
            TextModel::Compact(bpe) => bpe.vocab().ids(),
            TextModel::Library(model) => {
                model.get_vocab().values().max().map_or(0, |id| (*id as usize).saturating_add(1))
            }
        }
    }
}

impl Model for TextModel {
    type Trainer = NoTrainer;

    /// Tokens carry no text: only ids are asked for, and a prompt has many tokens.
    fn tokenize(&self, sequence: &str) -> Result<Vec<Token>> {
        let bpe = match self {
            TextModel::Compact(bpe) => bpe,
            TextModel::Library(model) => return model.tokenize(sequence),
        };
        let mut start = 0;
        let token = |(id, bytes): (u32, usize)| {
            let offsets = (start, start + bytes);
            start += bytes;
            Token::new(id, String::new(), offsets)
        };
        Ok(bpe.tokenize(sequence)?.into_iter().map(token).collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            TextModel::Compact(bpe) => bpe.vocab().id(token),
            TextModel::Library(model) => model.token_to_id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            TextModel::Compact(bpe) => bpe.vocab().text(id),
            TextModel::Library(model) => model.id_to_token(id),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            TextModel::Compact(bpe) => {
                (0..bpe.vocab().ids() as u32).filter_map(|id| Some((bpe.vocab().text(id)?, id))).collect()
            }
            TextModel::Library(model) => model.get_vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            TextModel::Compact(bpe) => bpe.vocab().count(),
            TextModel::Library(model) => model.get_vocab_size(),
        }
    }

    fn save(&self, _: &Path, _: Option<&str>) -> Result<Vec<PathBuf>> {
        Err("this model is read, never written".into())
    }

    fn get_trainer(&self) -> NoTrainer {
        NoTrainer
    }
}

/// The library asks every model for a trainer; ours trains nothing.
pub(crate) struct NoTrainer;

impl Trainer for NoTrainer {
    type Model = TextModel;

    fn should_show_progress(&self) -> bool {
        false
    }

    fn train(&self, _: &mut TextModel) -> Result<Vec<AddedToken>> {
        Err("this model is not trained".into())
    }

    fn feed<I, S, F>(&mut self, _: I, _: F) -> Result<()>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
        F: Fn(&str) -> Result<Vec<String>> + Sync,
    {
        Err("this model is not trained".into())
    }
}
