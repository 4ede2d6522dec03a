//! Tokenizers, chat templates, incremental detokenising and stop strings.
//!
//! Three things meet here, none of which knows what a weight is:
//!
//! - [`Tokenizer`] turns text into token ids and back, from a `tokenizer.json` or from the vocabulary of a GGUF file.
//!   Normalising, splitting and post-processing are the `tokenizers` crate's; the vocabulary and the merges are held
//!   in our own compact form ([`Strings`] plus two hash indices of `u32`), because memory is what this project saves.
//! - [`ChatTemplate`] renders the Jinja template of a model as `transformers` does.
//! - [`Detokenizer`] and [`Stops`] stand between sampled ids and the screen: whole characters only, and nothing that
//!   may still turn out to be a stop string.

#![forbid(unsafe_code)]

mod bpe;
mod chat;
mod detokenize;
mod error;
mod gguf;
mod hugging_face;
mod model;
mod stops;
mod strings;
mod template;
mod tokenizer;

pub use chat::{ChatTemplate, Message, Specials};
pub use detokenize::Detokenizer;
pub use error::{Error, ErrorKind};
pub use gguf::GgufVocab;
pub use stops::Stops;
pub use strings::Strings;
pub use tokenizer::Tokenizer;
