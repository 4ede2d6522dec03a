//! Tokenizers, chat templates, incremental detokenising and stop strings.
//!
//! Three things meet here, none of which knows what a weight is:
//!
//! - [`Tokenizer`] turns text into token ids and back, from a `tokenizer.json`, from the files that models were released
//!   with instead (SentencePiece, tiktoken, tekken, GPT-2's), or from the vocabulary of a GGUF file.
//!   What the file says is run by our own steps, each bounded in time and in what it makes of a text; the vocabulary and
//!   the merges are held in a compact form ([`Strings`] plus two hash indices of `u32`), because memory is what this
//!   project saves. Unicode's normal forms and other small steps are the `tokenizers` crate's.
//! - [`ChatTemplate`] renders the Jinja template of a model as `transformers` does.
//! - [`Detokenizer`] and [`Stops`] stand between sampled ids and the screen: whole characters only, and nothing that
//!   may still turn out to be a stop string.

#![forbid(unsafe_code)]

mod added;
mod around;
mod bpe;
mod bytes;
mod charsmap;
mod chat;
mod decode;
mod detokenize;
mod ends;
mod error;
mod gguf;
mod gguf_words;
mod hugging_face;
mod meter;
mod model;
mod normalize;
mod pair;
mod pattern;
mod pre_tokenizers;
mod read;
mod released;
mod sentence_piece;
mod split;
mod stops;
mod strings;
mod template;
mod tiktoken;
mod tokenizer;
mod unigram;
mod words;

pub use chat::{ChatTemplate, Message, Specials};
pub use detokenize::Detokenizer;
pub use error::{Error, ErrorKind};
pub use gguf::GgufVocab;
pub use pair::PairTokens;
pub use stops::Stops;
pub use strings::Strings;
pub use tokenizer::Tokenizer;
