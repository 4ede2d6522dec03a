// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    return f16_at(row + 2u * k);
}
