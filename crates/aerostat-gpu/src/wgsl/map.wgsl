// Works element by element: `out[r, c] = map(a[r, c], b[r, c])`. `b` may be one row or one column, repeated.

struct Params {
    a: u32, a_stride: u32,
    b: u32, b_stride: u32, b_step: u32,
    out: u32, out_stride: u32,
    rows: u32, cols: u32,
    map: u32, activation: u32,
    x: f32, y: f32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn clip(x: f32, limit: f32) -> f32 {
    return max(min(x, limit), -limit);
}

fn activate(x: f32) -> f32 {
    switch p.activation {
        case 0u: { return sigmoid(x); }
        case 1u: { return x / (1.0 + exp_of(-x)); }
        case 2u: {
            let inner = 0.7978846 * (x + 0.044715 * (x * x * x));
            return 0.5 * x * (1.0 + tanh_of(inner));
        }
        case 3u: { return 0.5 * x * (1.0 + erf_of(x * 0.70710677)); }
        case 4u: { return max(x, 0.0); }
        case 5u: { return max(x, 0.0) * max(x, 0.0); }
        case 6u: { return min(max(x, 0.0), 6.0); }
        case 7u: { return x / (1.0 + exp_of(-(1.702 * x))); }
        case 8u: {
            let e = exp_of(min(x, 20.0));
            let n = e * (e + 2.0);
            return x * (n / (n + 2.0));
        }
        case 10u: { return tanh_of(x); }
        case 11u: { return exp_of(x); }
        case 12u: { return softplus(x); }
        default: {
            let at_most = min(x, p.y);
            return at_most / (1.0 + exp_of(-(p.x * at_most)));
        }
    }
}

fn gated(x: f32) -> f32 {
    return select(x, clip(x, p.y) + 1.0, p.activation == 9u);
}

fn apply(x: f32, other: f32) -> f32 {
    switch p.map {
        case 0u: { return x + other; }
        case 1u: { return x * other; }
        case 2u: { return x * p.x; }
        case 3u: { return softcap(x, p.x); }
        case 4u: { return clip(x, p.x); }
        case 5u: { return activate(x); }
        case 6u: { return activate(x) * gated(other); }
        default: { return 0.0; }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    if id.x >= p.cols {
        return;
    }
    for (var r = id.y; r < p.rows; r += groups.y) {
        let other = b[p.b + r * p.b_stride + id.x * p.b_step];
        out[p.out + r * p.out_stride + id.x] = apply(a[p.a + r * p.a_stride + id.x], other);
    }
}
