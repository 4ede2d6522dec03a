// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let at = row + 2u * k;
    return bitcast<f32>(select(w[at >> 2u] << 16u, w[at >> 2u] & 0xffff0000u, (at & 2u) != 0u));
}
