// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 256u * 110u;
    let i = k % 256u;
    let high = (byte(b + i % 32u) >> (i / 32u)) & 1u;
    let q = f32(two_bits(b + 32u, i)) - select(4.0, 0.0, high == 1u);
    let s = i / 16u;
    let low = (byte(b + 96u + s % 8u) >> (4u * (s / 8u))) & 15u;
    let scale = low | (((byte(b + 104u + s % 4u) >> (2u * (s / 4u))) & 3u) << 4u);
    return (f16_at(b + 108u) * (f32(scale) - 32.0)) * q;
}
