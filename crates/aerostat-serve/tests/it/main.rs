//! The server as clients see it: in this process, on a loopback port.

mod answers;
mod basics;
mod batches;
mod files;
mod heads;
mod hostile;
mod ollama;
mod responses;
mod shares;
mod streams;
mod support;
mod tools;
