// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    return bitcast<f32>(w[row / 4u + k]);
}
