//! The server as clients see it: in this process, on a loopback port.

mod answers;
mod basics;
mod batches;
mod files;
mod hostile;
mod streams;
mod support;
