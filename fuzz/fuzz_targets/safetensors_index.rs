//! Any bytes as the index of a sharded model.
#![no_main]

use aerostat_checkpoint::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzzing::index(bytes);
});
