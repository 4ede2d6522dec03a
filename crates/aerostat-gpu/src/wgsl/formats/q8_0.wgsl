// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 32u * 34u;
    let i = k % 32u;
    return signed_byte(b + 2u + i) * f16_at(b);
}
