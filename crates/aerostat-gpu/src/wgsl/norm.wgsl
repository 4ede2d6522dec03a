// A workgroup for each group of columns of a row: root mean square norms (`layer` 0) and layer norms (1). Each of 64
// threads adds up every 64th element, in ascending order; their sums are added as a tree.

struct Params {
    x: u32, x_stride: u32,
    weight: u32,
    out: u32, out_stride: u32,
    rows: u32, size: u32,
    layer: u32,
    eps: f32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, 64>;

fn total(own: f32, thread: u32) -> f32 {
    sums[thread] = own;
    workgroupBarrier();
    for (var width = 32u; width > 0u; width /= 2u) {
        if thread < width {
            sums[thread] += sums[thread + width];
        }
        workgroupBarrier();
    }
    let all = sums[0];
    workgroupBarrier();
    return all;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var r = group.y; r < p.rows; r += groups.y) {
        let source = p.x + r * p.x_stride + group.x * p.size;
        let to = p.out + r * p.out_stride + group.x * p.size;
        var mean = 0.0;
        if p.layer == 1u {
            var sum = 0.0;
            for (var i = thread; i < p.size; i += 64u) {
                sum += x[source + i];
            }
            mean = total(sum, thread) / f32(p.size);
        }
        var squares = 0.0;
        for (var i = thread; i < p.size; i += 64u) {
            let v = x[source + i] - mean;
            squares = fma(v, v, squares);
        }
        let scale = 1.0 / sqrt(total(squares, thread) / f32(p.size) + p.eps);
        for (var i = thread; i < p.size; i += 64u) {
            let v = (x[source + i] - mean) * scale;
            if p.layer == 1u {
                out[to + i] = v;
            } else {
                out[to + i] = v * weight[p.weight + i];
            }
        }
    }
}
