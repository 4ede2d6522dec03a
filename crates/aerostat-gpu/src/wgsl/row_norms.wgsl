// `y[0, n]` is the reciprocal of the norm of row `n` of the weights; a workgroup for each.

var<workgroup> squares: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32) {
    for (var n = group.x; n < p.n; n += groups.x) {
        var sum = 0.0;
        for (var k = thread; k < p.k; k += 64u) {
            let value = weight(n, k);
            sum = fma(value, value, sum);
        }
        squares[thread] = sum;
        workgroupBarrier();
        for (var width = 32u; width > 0u; width /= 2u) {
            if thread < width {
                squares[thread] += squares[thread + width];
            }
            workgroupBarrier();
        }
        if thread == 0u {
            y[p.y + n] = 1.0 / max(sqrt(squares[0]), 1e-12);
        }
        workgroupBarrier();
    }
}
