// Weights whose format says all.

fn weight(n: u32, k: u32) -> f32 {
    if INPUTS_FIRST {
        return element(p.w + k * p.row_bytes, n);
    }
    return element(p.w + n * p.row_bytes, k);
}
