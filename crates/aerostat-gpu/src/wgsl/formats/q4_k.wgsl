// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 256u * 144u;
    let i = k % 256u;
    return scaled(b, i, long_nibble(b + 16u, i));
}
