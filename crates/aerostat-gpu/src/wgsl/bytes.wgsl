// Stored bytes, addressed one by one.

fn byte(at: u32) -> u32 {
    return (w[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu;
}

fn signed_byte(at: u32) -> f32 {
    return f32(bitcast<i32>(byte(at) << 24u) >> 24u);
}

// At an even address.
fn f16_at(at: u32) -> f32 {
    let pair = unpack2x16float(w[at >> 2u]);
    return select(pair.x, pair.y, (at & 2u) != 0u);
}

// 32 elements: the low nibbles, then the high ones.
fn nibble(q: u32, i: u32) -> u32 {
    return (byte(q + i % 16u) >> (4u * (i / 16u))) & 15u;
}

// `high_bits[4] nibbles[16]`.
fn five_bits(q: u32, i: u32) -> u32 {
    return nibble(q + 4u, i) | (((byte(q + i / 8u) >> (i % 8u)) & 1u) << 4u);
}

// 256 elements in runs of 64: 32 low nibbles, then 32 high ones.
fn long_nibble(q: u32, i: u32) -> u32 {
    return (byte(q + 32u * (i / 64u) + i % 32u) >> (4u * ((i / 32u) % 2u))) & 15u;
}

// 256 elements in runs of 128: 32 bytes, four times two bits.
fn two_bits(q: u32, i: u32) -> u32 {
    return (byte(q + 32u * (i / 128u) + i % 32u) >> (2u * ((i / 32u) % 4u))) & 3u;
}

// `d * scale * q - dmin * minimum` of Q4_K and Q5_K, with six bits of each for 32 elements.
fn scaled(b: u32, i: u32, q: u32) -> f32 {
    let s = b + 4u;
    let group = i / 32u;
    var scale: u32;
    var minimum: u32;
    if group < 4u {
        scale = byte(s + group) & 63u;
        minimum = byte(s + group + 4u) & 63u;
    } else {
        let both = byte(s + group + 4u);
        scale = (both & 15u) | ((byte(s + group - 4u) >> 6u) << 4u);
        minimum = (both >> 4u) | ((byte(s + group) >> 6u) << 4u);
    }
    return (f16_at(b) * f32(scale)) * f32(q) - f16_at(b + 2u) * f32(minimum);
}

// What the four bits of IQ4_NL and IQ4_XS stand for.
fn iq4(bits: u32) -> f32 {
    const values = array<f32, 16>(
        -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0,
        1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0);
    var table = values;
    return table[bits];
}

// Twice what the four bits of MXFP4 stand for: a sign, two bits of exponent, one of mantissa.
fn e2m1_doubled(bits: u32) -> f32 {
    let exponent = (bits >> 1u) & 3u;
    let mantissa = bits & 1u;
    let size = select((2u + mantissa) << (exponent - 1u), mantissa, exponent == 0u);
    return select(f32(size), -f32(size), (bits & 8u) != 0u);
}

fn e8m0_half(bits: u32) -> f32 {
    return bitcast<f32>(select((bits - 1u) << 23u, 0x00200000u << bits, bits < 2u));
}
