// Weights that are codes, with scales and zero points that lie apart: `aerostat_backend::quantised::expand`.

@group(0) @binding(3) var<storage, read_write> scales: array<f32>;
@group(0) @binding(4) var<storage, read_write> zeros: array<f32>;
@group(0) @binding(5) var<storage, read_write> groups: array<f32>;

const NONE: u32 = 0xffffffffu;

fn word(at: u32) -> u32 {
    return w[at >> 2u];
}

fn e4m3(bits: u32) -> f32 {
    let size = bits & 0x7fu;
    let normal = bitcast<f32>((size << 20u) + 0x3c000000u);
    let value = select(normal, f32(size) / 512.0, size < 8u);
    // Written with bits, since a NaN may not be.
    let whole = select(bitcast<u32>(value), 0x7fc00000u, size == 0x7fu);
    return bitcast<f32>(whole | ((bits & 0x80u) << 24u));
}

fn nf4(bits: u32) -> f32 {
    var table = array<f32, 16>(
        -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.4407098, 0.562617, 0.72295684, 1.0);
    return table[bits];
}

fn fp4(bits: u32) -> f32 {
    var table = array<f32, 8>(0.0, 0.0052083335, 0.6666667, 1.0, 0.33333334, 0.5, 0.16666667, 0.25);
    let size = table[bits & 7u];
    return select(size, -size, bits > 8u);
}

fn table_value(bits: u32) -> f32 {
    switch TABLE {
        case 0u: { return 0.5 * e2m1_doubled(bits); }
        case 1u: { return nf4(bits); }
        default: { return fp4(bits); }
    }
}

// What column `i` of a run of rows at byte `base` stands for before it is scaled.
fn look_up(base: u32, within: u32, i: u32) -> f32 {
    switch CODE {
        case 0u: { return e4m3(byte(base + i)); }
        case 1u: { return from_f16(byte(base + i) << 8u); }
        case 2u: { return signed_byte(base + i); }
        case 3u: {
            let at = i * BITS;
            let both = byte(base + at / 8u) | (byte(base + at / 8u + 1u) << 8u);
            return f32((both >> (at % 8u)) & ((1u << BITS) - 1u)) - p.middle;
        }
        case 4u: { return table_value((byte(base + i / 2u) >> (4u * (i % 2u))) & 15u); }
        case 5u: { return table_value((byte(base + i / 2u) >> (4u * (1u - i % 2u))) & 15u); }
        case 6u: {
            let at = within * BITS;
            let shift = at % 32u;
            let first = base + (at / 32u * p.columns + i) * 4u;
            var bits = word(first) >> shift;
            if shift + BITS > 32u {
                bits |= word(first + p.columns * 4u) << (32u - shift);
            }
            return f32(bits & ((1u << BITS) - 1u)) - p.middle;
        }
        default: {
            let shift = 4u * (i % 8u / 2u) + 16u * (i % 2u);
            return f32((word(base + i / 8u * 4u) >> shift) & 15u) - p.middle;
        }
    }
}

fn weight(n: u32, k: u32) -> f32 {
    let row = select(n, k, INPUTS_FIRST);
    let column = select(k, n, INPUTS_FIRST);
    var block = (p.first_row + row) / p.block_rows;
    var group = column / p.block_cols;
    if p.groups != NONE {
        if INPUTS_FIRST {
            block = u32(groups[p.groups + p.first_row + row]);
        } else {
            group = u32(groups[p.groups + column]);
        }
    }
    var value = look_up(p.w + row / p.run * p.row_bytes, row % p.run, column);
    if p.zeros != NONE {
        value -= zeros[p.zeros + block * p.zeros_stride + group];
    }
    value = value * scales[p.scales + block * p.scales_stride + group] * p.factor;
    switch p.rounding {
        case 0u: { return value; }
        case 1u: { return from_f16(to_f16(value)); }
        default: { return round_bf16(value); }
    }
}
