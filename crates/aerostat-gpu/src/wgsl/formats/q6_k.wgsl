// Element `k` of the row at byte `row`.
fn element(row: u32, k: u32) -> f32 {
    let b = row + k / 256u * 210u;
    let i = k % 256u;
    let part = i / 128u;
    let within = i % 128u;
    let low = (byte(b + 64u * part + within % 64u) >> (4u * (within / 64u))) & 15u;
    let high = (byte(b + 128u + 32u * part + within % 32u) >> (2u * (within / 32u))) & 3u;
    return (f16_at(b + 208u) * signed_byte(b + 192u + i / 16u)) * (f32(low | (high << 4u)) - 32.0);
}
