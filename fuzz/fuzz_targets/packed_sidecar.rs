//! Any bytes as what a packed folder's sidecar says of its tensors.
#![no_main]

use aerostat_checkpoint::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(catalog) = fuzzing::sidecar(bytes) else { return };
    for tensor in catalog.tensors() {
        let Some(tiles) = catalog.tiles(&tensor.name) else { continue };
        let mut end = tensor.extent.offset;
        for tile in tiles.iter() {
            assert_eq!(tile.extent.offset, end);
            end += tile.extent.bytes;
        }
        assert_eq!(end, tensor.extent.offset + tensor.extent.bytes);
    }
});
