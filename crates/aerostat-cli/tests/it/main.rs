//! The command as users meet it: arguments in, stdout, stderr and exit code out.

mod apart;
mod batch;
mod bench;
mod cases;
#[cfg(target_os = "linux")]
mod chat;
mod documents;
mod errors;
mod formats;
mod generation;
#[cfg(all(target_os = "linux", feature = "gpu"))]
mod gpu;
#[cfg(all(target_os = "linux", feature = "gpu"))]
mod gpu_memory;
#[cfg(unix)]
mod interrupts;
#[cfg(unix)]
mod memory;
mod models;
mod pack;
mod plan;
mod prompts;
mod rerank;
mod serve;
mod support;
mod table_formats;
mod table_jobs;
mod tables;
#[cfg(target_os = "linux")]
mod terminal;
mod usage;
mod vocabulary;
