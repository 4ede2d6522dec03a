// The selective scan of a state space, position by position: a thread for each run of rows, head and element of a head's input,
// which owns a column of the head's state. Runs are as in short_conv.wgsl.

struct Params {
    x: u32, x_stride: u32,
    steps: u32, steps_stride: u32,
    parameters: u32, parameters_stride: u32,
    state: u32, state_stride: u32,
    out: u32, out_stride: u32,
    heads: u32, head_dim: u32, groups: u32, state_dim: u32,
    runs: u32, count: u32,
    // Each element of an input has a time step, which is given as it is, and each element of a state a rate.
    each: u32,
    least: f32, most: f32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> places: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> steps: array<f32>;
@group(0) @binding(3) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn row_of(r: u32, head: u32, column: u32, kept: u32, is_fresh: bool) {
    let row = p.x + r * p.x_stride;
    let input = x[row + head * p.head_dim + column];
    let b = row + p.heads * p.head_dim + head / (p.heads / p.groups) * p.state_dim;
    let c = b + p.groups * p.state_dim;
    let each = p.each == 1u;
    let number = select(head, head * p.head_dim + column, each);
    let at = p.parameters + number;
    var step = steps[p.steps + r * p.steps_stride + number];
    var decay = 1.0;
    if !each {
        step = max(min(softplus(step + parameters[at + p.parameters_stride]), p.most), p.least);
        decay = exp_of(-(parameters[at] * step));
    }
    let taken = input * step;
    var read = input * parameters[at + select(2u, p.state_dim, each) * p.parameters_stride];
    for (var i = 0u; i < p.state_dim; i++) {
        var before = 0.0;
        if !is_fresh {
            if each {
                decay = exp_of(-(parameters[at + i * p.parameters_stride] * step));
            }
            before = state[kept + i * p.head_dim] * decay;
        }
        let s = fma(x[b + i], taken, before);
        state[kept + i * p.head_dim] = s;
        read = fma(s, x[c + i], read);
    }
    out[p.out + r * p.out_stride + head * p.head_dim + column] = read;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    if id.x >= p.heads * p.head_dim {
        return;
    }
    let head = id.x / p.head_dim;
    let column = id.x % p.head_dim;
    for (var i = id.y; i < p.count; i += groups.y) {
        let run = p.runs + i * 4u;
        let kept = p.state + places[run] * p.state_stride + head * p.state_dim * p.head_dim + column;
        let start = places[run + 1u];
        for (var r = start; r < start + places[run + 2u]; r++) {
            row_of(r, head, column, kept, r == start && places[run + 3u] == 1u);
        }
    }
}
