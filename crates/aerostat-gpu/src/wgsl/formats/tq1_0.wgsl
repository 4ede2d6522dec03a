// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 256u * 54u;
    let i = k % 256u;
    var at = b + i % 32u;
    var digit = i / 32u;
    if i >= 240u {
        at = b + 48u + i % 4u;
        digit = (i - 240u) / 4u;
    } else if i >= 160u {
        at = b + 32u + i % 16u;
        digit = (i - 160u) / 16u;
    }
    var power = 1u;
    for (var d = 0u; d < digit; d++) {
        power *= 3u;
    }
    let fraction = (byte(at) * power) & 0xffu;
    return f16_at(b + 52u) * (f32((fraction * 3u) >> 8u) - 1.0);
}
