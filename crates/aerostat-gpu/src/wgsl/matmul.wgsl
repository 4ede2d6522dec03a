// `y[r, n] = Σ_k weight(n, k) x[r, k]`. A workgroup computes 64 outputs of ROWS rows: it expands 64 x 32 weights into
// memory that its threads share, and each thread adds up PER rows of one output.

const THREADS: u32 = 64u * ROWS / PER;
// Columns of the expanded weights, so that neighbouring threads use different banks of the memory.
const PITCH: u32 = 65u;

var<workgroup> weights: array<f32, 2080>;
var<workgroup> inputs: array<vec4f, ROWS * 8u>;

fn input(r: u32, k: u32) -> f32 {
    if r < p.rows && k < p.k {
        return x[p.x + r * p.x_stride + k];
    }
    return 0.0;
}

fn load(n0: u32, r0: u32, k0: u32, thread: u32) {
    for (var i = thread; i < 2048u; i += THREADS) {
        let n = i / 32u;
        let k = i % 32u;
        var value = 0.0;
        if n0 + n < p.n && k0 + k < p.k {
            value = weight(n0 + n, k0 + k);
        }
        weights[k * PITCH + n] = value;
    }
    for (var i = thread; i < ROWS * 8u; i += THREADS) {
        let r = r0 + i / 8u;
        let k = k0 + i % 8u * 4u;
        inputs[i] = vec4f(input(r, k), input(r, k + 1u), input(r, k + 2u), input(r, k + 3u));
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let n0 = group.x * 64u;
    let r0 = group.y * ROWS;
    let n = thread % 64u;
    let first = thread / 64u * PER;
    var totals: array<f32, PER>;
    for (var k0 = 0u; k0 < p.k; k0 += 32u) {
        load(n0, r0, k0, thread);
        workgroupBarrier();
        var parts: array<f32, PER>;
        for (var k = 0u; k < 8u; k++) {
            let at = k * 4u * PITCH + n;
            let a = weights[at];
            let b = weights[at + PITCH];
            let c = weights[at + 2u * PITCH];
            let d = weights[at + 3u * PITCH];
            for (var r = 0u; r < PER; r++) {
                let v = inputs[(first + r) * 8u + k];
                parts[r] = fma(d, v.w, fma(c, v.z, fma(b, v.y, fma(a, v.x, parts[r]))));
            }
        }
        for (var r = 0u; r < PER; r++) {
            totals[r] += parts[r];
        }
        workgroupBarrier();
    }
    if n0 + n < p.n {
        for (var r = 0u; r < PER; r++) {
            if r0 + first + r < p.rows {
                y[p.y + (r0 + first + r) * p.y_stride + n0 + n] = totals[r];
            }
        }
    }
}
