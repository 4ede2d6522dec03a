//! Any bytes as a packed tile, whose checksums are made to fit.
#![no_main]

use aerostat_backend::packed::PackedTile;

/// Of the tile's header, and of each group in its table.
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 8;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    let Some(header) = bytes.get(..HEADER_BYTES) else { return };
    let groups = u32::from_le_bytes([header[24], header[25], header[26], header[27]]) as usize;
    let start = HEADER_BYTES + groups * ENTRY_BYTES;
    let Some(checked) = bytes.get(4..start) else { return };
    let crc = crc32c::crc32c(checked);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    let Ok((tile, _)) = PackedTile::parse(&bytes) else { return };
    let _ = tile.check();
    let mut out = Vec::new();
    for group in 0..tile.groups {
        out.clear();
        let place = tile.place(group).0;
        if tile.expand_group(group, &tile.bytes()[place], &mut out).is_ok() {
            assert_eq!(out.len(), tile.rows_of(group) * tile.row_bytes());
        }
    }
});
