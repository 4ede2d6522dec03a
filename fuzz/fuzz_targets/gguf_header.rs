//! Any bytes as a GGUF file.
#![no_main]

use aerostat_checkpoint::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok((metadata, catalog)) = fuzzing::gguf(bytes) else { return };
    for tensor in catalog.tensors() {
        assert!(tensor.extent.offset + tensor.extent.bytes <= bytes.len() as u64);
    }
    for array in metadata.keys().filter_map(|key| metadata.array(key)) {
        assert!(array.strings().is_none_or(|strings| strings.count() == array.len()));
        assert!(array.ints().is_none_or(|ints| ints.count() == array.len()));
    }
});
