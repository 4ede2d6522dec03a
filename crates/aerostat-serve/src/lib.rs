//! OpenAI's API over HTTP, from a model that many clients share.
//!
//! Sweeps of a model that is streamed take seconds to minutes, and every client gives up some time. A [`Server`] lets many
//! requests ride on each sweep, and gives signs of life meanwhile: comments and empty chunks in streams, white space before
//! answers that come whole.
//!
//! ```text
//! connection ── router ── gate (host, origin, key)
//!                 │
//!                 ├─ answer ── Setting::read ── Run ── aerostat::Session     wait: late answers, chunks
//!                 ├─ info, tokens
//!                 └─ files, batches ── Store (SQLite, files)               worker: a Job for each batch, in the session
//! ```
//!
//! One thread serves all connections and never waits for anything but them; what takes time to read (templates, tokens,
//! grammars) runs on a few others, and the engine on its own. What comes back from the engine goes through a channel
//! for each request, so that the engine never waits for a client. What clients may hold is bounded: connections, requests,
//! bytes ([`Limits`]).

#![forbid(unsafe_code)]

mod alarm;
mod answer;
mod app;
mod batches;
mod body;
mod config;
mod connection;
mod engine;
mod error;
mod events;
mod files;
mod folder;
mod gate;
mod held;
mod ids;
mod info;
mod metrics;
mod ollama;
mod orphans;
mod page;
mod problem;
mod progress;
mod query;
mod registry;
mod responses;
mod router;
mod run;
mod scan;
mod server;
mod store;
mod stored;
mod text;
mod tokens;
mod turns;
mod wait;
mod worker;

pub use config::{Config, Limits};
pub use error::{Error, ErrorKind};
pub use gate::Keys;
pub use server::Server;
