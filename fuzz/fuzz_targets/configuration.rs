//! Any JSON as the configuration of a tiny model, whose tensors are there; or any GGUF header by itself.
#![no_main]

use aerostat_arch::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::describe(bytes));
