// Rotates pairs of elements of each head in place; a thread for each pair.

struct Params {
    x: u32, x_stride: u32,
    angles: u32, angles_stride: u32,
    rows: u32, heads: u32, head_dim: u32, start: u32, half_rotary: u32,
    interleaved: u32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> angles: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    if id.x >= p.heads * p.half_rotary {
        return;
    }
    let head = id.x / p.half_rotary;
    let i = id.x % p.half_rotary;
    for (var r = id.y; r < p.rows; r += groups.y) {
        let at = p.x + r * p.x_stride + head * p.head_dim + p.start;
        let first = at + select(i, 2u * i, p.interleaved == 1u);
        let second = select(first + p.half_rotary, first + 1u, p.interleaved == 1u);
        let angle = p.angles + r * p.angles_stride + i;
        let cosine = angles[angle];
        let sine = angles[angle + p.half_rotary];
        let a = x[first];
        let b = x[second];
        x[first] = a * cosine - b * sine;
        x[second] = b * cosine + a * sine;
    }
}
