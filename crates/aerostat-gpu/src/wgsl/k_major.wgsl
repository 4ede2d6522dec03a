// A tile of a matrix that is stored by inputs: inputs `k0 .. k0 + k` of `n` outputs. A thread for each output and eight
// rows. What the tiles before gave waits in `sums`, `[rows, 2, n]`: totals, and the sum of the 32 inputs that are not all there.

@group(0) @binding(6) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let n = id.x;
    if n >= p.n {
        return;
    }
    let r0 = id.y * 8u;
    let count = min(8u, p.rows - r0);
    var totals: array<f32, 8>;
    var parts: array<f32, 8>;
    if p.k0 > 0u {
        for (var r = 0u; r < count; r++) {
            totals[r] = sums[(r0 + r) * 2u * p.n + n];
            parts[r] = sums[((r0 + r) * 2u + 1u) * p.n + n];
        }
    }
    for (var i = 0u; i < p.k; i++) {
        let k = p.k0 + i;
        let value = weight(n, i);
        let full = k % 32u == 31u;
        for (var r = 0u; r < count; r++) {
            parts[r] = fma(value, x[p.x + (r0 + r) * p.x_stride + k], parts[r]);
            if full {
                totals[r] += parts[r];
                parts[r] = 0.0;
            }
        }
    }
    for (var r = 0u; r < count; r++) {
        if p.last == 1u {
            y[p.y + (r0 + r) * p.y_stride + n] = totals[r] + parts[r];
        } else {
            sums[(r0 + r) * 2u * p.n + n] = totals[r];
            sums[((r0 + r) * 2u + 1u) * p.n + n] = parts[r];
        }
    }
}
