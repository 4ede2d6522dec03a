// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 32u * 18u;
    let i = k % 32u;
    return f16_at(b) * iq4(nibble(b + 2u, i));
}
