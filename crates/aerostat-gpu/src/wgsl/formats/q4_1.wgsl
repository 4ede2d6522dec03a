// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 32u * 20u;
    let i = k % 32u;
    return f16_at(b) * f32(nibble(b + 4u, i)) + f16_at(b + 2u);
}
