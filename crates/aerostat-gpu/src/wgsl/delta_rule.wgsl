// The gated delta rule, position by position: a thread for each run of rows, value head and element of a value, which owns
// a column of the head's state. Runs are as in short_conv.wgsl.

struct Params {
    x: u32, x_stride: u32,
    strengths: u32, strengths_stride: u32,
    parameters: u32, parameters_stride: u32,
    state: u32, state_stride: u32,
    out: u32, out_stride: u32,
    key_heads: u32, value_heads: u32, key_dim: u32, value_dim: u32,
    // 1: value heads of different key heads take turns; 2: each row of a state has a decay, which is given as it is.
    turn: u32, options: u32,
    runs: u32, count: u32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> places: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> strengths: array<f32>;
@group(0) @binding(3) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn row_of(r: u32, head: u32, column: u32, kept: u32, is_fresh: bool) {
    let keys = p.key_heads * p.key_dim;
    let key_head = select(head / (p.value_heads / p.key_heads), head % p.key_heads, (p.options & 1u) == 1u);
    let q = p.x + r * p.x_stride + key_head * p.key_dim;
    let k = q + keys;
    let v = x[p.x + r * p.x_stride + 2u * keys + head * p.value_dim + column];
    let each = (p.options & 2u) == 2u;
    let row = p.strengths + r * p.strengths_stride;
    let at = row + select(head / p.turn * 2u * p.turn + head % p.turn, head, each);
    let strength = sigmoid(strengths[at]);
    let decays = row + p.value_heads + head * p.key_dim;
    var decay = 1.0;
    if !each {
        let rate = parameters[p.parameters + head];
        let bias = parameters[p.parameters + p.parameters_stride + head];
        decay = exp_of(-(rate * softplus(strengths[at + p.turn] + bias)));
    }
    var known = 0.0;
    if !is_fresh {
        for (var i = 0u; i < p.key_dim; i++) {
            if each {
                decay = strengths[decays + i];
            }
            known = fma(state[kept + i * p.value_dim] * decay, x[k + i], known);
        }
    }
    let change = (v - known) * strength;
    var read = 0.0;
    for (var i = 0u; i < p.key_dim; i++) {
        var before = 0.0;
        if !is_fresh {
            if each {
                decay = strengths[decays + i];
            }
            before = state[kept + i * p.value_dim] * decay;
        }
        let s = fma(x[k + i], change, before);
        state[kept + i * p.value_dim] = s;
        read = fma(s, x[q + i], read);
    }
    out[p.out + r * p.out_stride + head * p.value_dim + column] = read;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    if id.x >= p.value_heads * p.value_dim {
        return;
    }
    let head = id.x / p.value_dim;
    let column = id.x % p.value_dim;
    for (var i = id.y; i < p.count; i += groups.y) {
        let run = p.runs + i * 4u;
        let kept = p.state + places[run] * p.state_stride + head * p.key_dim * p.value_dim + column;
        let start = places[run + 1u];
        for (var r = start; r < start + places[run + 2u]; r++) {
            row_of(r, head, column, kept, r == start && places[run + 3u] == 1u);
        }
    }
}
