// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 256u * 66u;
    let i = k % 256u;
    return f16_at(b + 64u) * (f32(two_bits(b, i)) - 1.0);
}
