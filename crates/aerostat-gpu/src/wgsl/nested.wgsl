// Scales that are codes themselves: `out[r, c] = values[code] * scales[number / len] + offset`.

struct Params {
    w: u32,
    values: u32, scales: u32,
    out: u32, out_stride: u32,
    rows: u32, cols: u32,
    first: u32, len: u32,
    offset: f32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> scales: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read> w: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    if id.x >= p.cols {
        return;
    }
    for (var r = id.y; r < p.rows; r += groups.y) {
        let at = r * p.cols + id.x;
        let value = values[p.values + byte(p.w + at)];
        out[p.out + r * p.out_stride + id.x] = value * scales[p.scales + (p.first + at) / p.len] + p.offset;
    }
}
