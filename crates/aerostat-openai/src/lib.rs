//! OpenAI's requests and responses as types: one vocabulary for everything that speaks it.
//!
//! A batch job and a server differ in where requests come from and where responses go. What a request means, whether it
//! is served, and which bytes answer it must not differ, so that is decided here, once:
//!
//! ```text
//! JSON body ── Setting::read ──► ApiRequest ── Task::part ──► aerostat::Request
//!                                                                   │ engine
//! JSON body ◄── Setting::respond ── Part ◄── Part::of ── aerostat::Outcome
//! ```
//!
//! A [`Setting`] is what requests are read against: one model's tokenizer, chat template, limits and defaults. What
//! cannot be served is a [`Refusal`], which is OpenAI's error object. Nothing is accepted in silence: every member of a
//! body and of every object inside it is known, or named in an error by its path. [`Rules::lenient`] takes what vLLM takes.
//! Grammars are compiled here, too: [`LazyGrammars`].
//!
//! The crate runs no engine, opens no file or socket, and looks at no clock: the caller gives times, ids and seeds.

#![forbid(unsafe_code)]

mod calls;
mod context;
mod dialect;
mod echo;
mod fields;
mod grammar;
pub mod json;
mod lines;
mod messages;
mod parse;
mod part;
mod piecewise;
mod prompts;
mod refusal;
mod request;
mod respond;
mod sampling;
mod setting;
mod shape;
mod split;
mod stream;
mod tools;

pub use context::{AnswerTokens, TooLong, answer_tokens, longer_than};
pub use fields::{Fields, Reading, brief};
pub use grammar::{Grammar, Grammars, LazyGrammars};
pub use lines::{one_line, write_one_line};
pub use part::{Finish, More, PARTS_MAX, Part, PartResult, Stamp, Token};
pub use piecewise::WriteError;
pub use refusal::{Refusal, RefusalKind};
pub use request::{ApiRequest, Embedding, Endpoint, Generation, Scoring, Task};
pub use setting::{Rules, Setting, request_bytes_within};
pub use shape::Shape;
pub use split::{Piece, Split, Splitter};
pub use stream::Delta;
