// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 256u * 84u;
    let i = k % 256u;
    let scale = byte(b + i / 16u);
    return (f16_at(b + 80u) * f32(scale & 15u)) * f32(two_bits(b + 16u, i)) - f16_at(b + 82u) * f32(scale >> 4u);
}
