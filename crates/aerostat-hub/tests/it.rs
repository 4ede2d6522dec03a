//! The client against a scripted Hub on the loopback.

#[path = "it/demo.rs"]
mod demo;
#[path = "it/faults.rs"]
mod faults;
#[path = "it/layout.rs"]
mod layout;
#[path = "it/server.rs"]
mod server;
