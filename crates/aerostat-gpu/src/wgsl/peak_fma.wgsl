// Fused multiply-adds on registers, sixty-four in a step of each thread: what the arithmetic of a device can do at most.

struct Params {
    out: u32, steps: u32,
    factor: f32, added: f32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let factor = vec4f(p.factor);
    let added = vec4f(p.added);
    var a = vec4f(f32(id.x));
    var b = a + 1.0;
    var c = a + 2.0;
    var d = a + 3.0;
    for (var step = 0u; step < p.steps; step++) {
        a = fma(a, factor, added); b = fma(b, factor, added); c = fma(c, factor, added); d = fma(d, factor, added);
        a = fma(a, factor, added); b = fma(b, factor, added); c = fma(c, factor, added); d = fma(d, factor, added);
        a = fma(a, factor, added); b = fma(b, factor, added); c = fma(c, factor, added); d = fma(d, factor, added);
        a = fma(a, factor, added); b = fma(b, factor, added); c = fma(c, factor, added); d = fma(d, factor, added);
    }
    let sums = a + b + c + d;
    // It never is, and no compiler knows.
    if sums.x + sums.y + sums.z + sums.w == -1.25 {
        out[p.out] = sums.x;
    }
}
