// Copies elements to where they belong, by the kind of copy:
// 0: `out = x[rows[i], :]`. 1: `out[r, c] = x[r, first + c * step]`. 2: columns of heads. 3: zeros.
// 4: `out[rows[i], :] += factors[i] * x[i, :]`, the rows all different. 5: the same by ascending `i`, one after the other.

struct Params {
    x: u32, x_stride: u32,
    out: u32, out_stride: u32,
    rows: u32, cols: u32,
    kind: u32,
    list: u32,
    first: u32, step: u32,
    from_dim: u32, from_start: u32, to_dim: u32, to_start: u32, len: u32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<storage, read> list: array<u32>;

fn add(i: u32, c: u32) {
    let row = list[p.list + i];
    let factor = bitcast<f32>(list[p.list + p.rows + i]);
    out[p.out + row * p.out_stride + c] += factor * x[p.x + i * p.x_stride + c];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let c = id.x;
    if c >= p.cols {
        return;
    }
    if p.kind == 5u {
        for (var i = 0u; i < p.rows; i++) {
            add(i, c);
        }
        return;
    }
    for (var r = id.y; r < p.rows; r += groups.y) {
        let to = p.out + r * p.out_stride;
        let source = p.x + r * p.x_stride;
        switch p.kind {
            case 0u: { out[to + c] = x[p.x + list[p.list + r] * p.x_stride + c]; }
            case 1u: { out[to + c] = x[source + p.first + c * p.step]; }
            case 2u: {
                let head = c / p.len;
                let i = c % p.len;
                out[to + head * p.to_dim + p.to_start + i] = x[source + head * p.from_dim + p.from_start + i];
            }
            case 4u: { add(r, c); }
            default: { out[to + c] = 0.0; }
        }
    }
}
