//! Batch jobs that survive anything: OpenAI Batch files in, durable results out.
//!
//! A [`Job`] reads its input twice: once to validate every line and to learn its lengths, and once, lazily, while it
//! runs, with an engine for itself ([`Job::run`]) or beside others in a session ([`Job::attach`]). It is a source of
//! work: a line becomes one request or several, and when all of them are answered
//! the result is appended to the output. What is durable is counted, what is under way is journalled:
//!
//! 1. result lines are appended to the output (or the error file) and fsynced;
//! 2. one transaction of the job's database counts them and saves the tokens that unfinished answers gained.
//!
//! A stop between the two leaves lines that are not counted: the next start finds them behind the counted size, and
//! adopts those that are whole. A stop anywhere else costs at most the work since the last commit.

#![forbid(unsafe_code)]

mod active;
mod apart;
mod batch_file;
mod cells;
mod compiler;
mod counts;
mod database;
pub mod disk;
mod encoding;
mod error;
mod forecast;
mod identity;
mod input;
mod job;
mod journal;
mod line;
mod list;
mod merge;
mod names;
mod options;
mod output;
mod requests;
mod results;
mod runner;
mod source;
mod survey;
mod table;
mod tables;
mod watch;

pub use aerostat_openai::{Grammar, Grammars, Setting, Shape};
pub use apart::{Named, keep_apart, model_files};
pub use counts::{Counts, Lengths};
pub use encoding::{Encoding, open_text};
pub use error::{Error, ErrorKind};
pub use identity::{files_digest, model_digest};
pub use job::Job;
pub use line::check_line;
pub use list::{JobStatus, list_jobs};
pub use merge::{Merged, merge};
pub use names::Names;
pub use options::{JobOptions, JobPaths, Shard};
pub use output::Packer;
pub use results::TableResults;
pub use source::{AttachedJob, JobHandle};
pub use survey::{Survey, forecast_alike, is_pipe, keep_input, keep_pipe, survey};
pub use table::{Cells, Columns, LITTLE_MEMORY, Prompt, RowCells, TextFormat, TextTable, row_bytes_within};
pub use tables::{Row, RowTask, Rows, Table, TableOptions, survey_table};
pub use watch::{JobProgress, Unwatched, Watcher};
