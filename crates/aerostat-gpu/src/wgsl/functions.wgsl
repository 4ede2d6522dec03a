// The functions of `aerostat_backend::numerics`, step by step as they are there.

const LOWEST: f32 = -3.4028234e38;

fn power_of_two(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}

fn exp_of(value: f32) -> f32 {
    var x = max(value, -104.0);
    x = min(x, 89.0);
    // Adding 1.5 * 2^23 rounds to an integer; said with bits, so that no driver simplifies it away.
    let shifted = x * 1.4426950408889634 + 12582912.0;
    let n = i32(bitcast<u32>(shifted) - 0x4b400000u);
    let whole = f32(n);
    var r = fma(whole, -0.6933594, x);
    r = fma(whole, 2.1219444e-4, r);
    var q = 1.9875691e-4;
    q = fma(q, r, 1.3981999e-3);
    q = fma(q, r, 8.333452e-3);
    q = fma(q, r, 4.1665796e-2);
    q = fma(q, r, 1.6666665e-1);
    q = fma(q, r, 0.5);
    let e = fma(q, r * r, r) + 1.0;
    let low = n >> 1u;
    return e * power_of_two(low) * power_of_two(n - low);
}

fn tanh_of(x: f32) -> f32 {
    let a = min(abs(x), 40.0);
    let z = a * a;
    var q = -5.7049887e-3;
    q = fma(q, z, 2.063909e-2);
    q = fma(q, z, -5.3739716e-2);
    q = fma(q, z, 1.3331442e-1);
    q = fma(q, z, -3.333328e-1);
    let small = fma(q * z, a, a);
    let large = 1.0 - 2.0 / (exp_of(a + a) + 1.0);
    let size = select(large, small, a < 0.625);
    return select(size, -size, x < 0.0);
}

fn erf_of(x: f32) -> f32 {
    let a = min(abs(x), 10.0);
    let t = 1.0 / fma(0.3275911, a, 1.0);
    var q = 1.0614054;
    q = fma(q, t, -1.4531521);
    q = fma(q, t, 1.4214138);
    q = fma(q, t, -0.28449672);
    q = fma(q, t, 0.2548296);
    let y = 1.0 - q * t * exp_of(-(a * a));
    return select(y, -y, x < 0.0);
}

fn softplus(x: f32) -> f32 {
    let u = exp_of(-abs(x));
    let t = u / (2.0 + u);
    let z = t * t;
    var q = 0.13333334;
    q = fma(z, q, 0.15384616);
    q = fma(z, q, 0.18181819);
    q = fma(z, q, 0.22222222);
    q = fma(z, q, 0.2857143);
    q = fma(z, q, 0.4);
    q = fma(z, q, 0.6666667);
    let log = fma(t * z, q, t + t);
    return select(log, x + log, x > 0.0);
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp_of(-x));
}

fn softcap(x: f32, cap: f32) -> f32 {
    return cap * tanh_of(x / cap);
}

fn to_bf16(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    return select(rounded, (bits >> 16u) | 0x40u, (bits & 0x7fffffffu) > 0x7f800000u);
}

fn round_bf16(x: f32) -> f32 {
    return bitcast<f32>(to_bf16(x) << 16u);
}

// To nearest even, as drivers may not do it.
fn to_f16(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let size = bits & 0x7fffffffu;
    if size > 0x7f800000u {
        return sign | 0x7e00u;
    }
    if size >= 0x477ff000u {
        return sign | 0x7c00u;
    }
    if size >= 0x38800000u {
        let rounded = size + 0xfffu + ((size >> 13u) & 1u);
        return sign | ((rounded - 0x38000000u) >> 13u);
    }
    if size < 0x33000000u {
        return sign;
    }
    // Subnormal: multiples of 2^-24.
    let shift = 126u - (size >> 23u);
    let mantissa = (size & 0x7fffffu) | 0x800000u;
    let halfway = 1u << (shift - 1u);
    let odd = (mantissa >> shift) & 1u;
    return sign | ((mantissa + halfway - 1u + odd) >> shift);
}

fn from_f16(bits: u32) -> f32 {
    return unpack2x16float(bits & 0xffffu).x;
}
