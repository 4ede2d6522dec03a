//! Any bytes as a PyTorch file.
#![no_main]

use aerostat_checkpoint::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(catalog) = fuzzing::pytorch(bytes) {
        for tensor in catalog.tensors() {
            assert!(tensor.extent.offset + tensor.extent.bytes <= bytes.len() as u64);
        }
    }
});
