// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 256u * 176u;
    let i = k % 256u;
    let high = (byte(b + 16u + i % 32u) >> (i / 32u)) & 1u;
    return scaled(b, i, long_nibble(b + 48u, i) | (high << 4u));
}
