// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 256u * 136u;
    let i = k % 256u;
    let group = i / 32u;
    let high = ((byte(b + 2u) | (byte(b + 3u) << 8u)) >> (2u * group)) & 3u;
    let low = (byte(b + 4u + group / 2u) >> (4u * (group % 2u))) & 15u;
    let scale = f32(low | (high << 4u)) - 32.0;
    return (f16_at(b) * scale) * iq4(nibble(b + 8u + 16u * group, i % 32u));
}
