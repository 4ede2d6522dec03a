// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 32u * 17u;
    let i = k % 32u;
    return e8m0_half(byte(b)) * e2m1_doubled(nibble(b + 1u, i));
}
