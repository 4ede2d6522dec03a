// A causal convolution of each channel with the last positions of its sequence, in place, and SiLU of it if asked. A thread for
// each channel and run of rows; a run has four words: slot, first row, rows, whether it begins with position 0.

struct Params {
    x: u32, x_stride: u32,
    weights: u32, weights_stride: u32, kernel: u32,
    state: u32, state_stride: u32,
    channels: u32,
    runs: u32, count: u32,
    bias: u32, has_bias: u32, silu: u32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> places: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> state: array<f32>;
@group(0) @binding(4) var<storage, read_write> added: array<f32>;

fn convolve(run: u32, channel: u32) {
    let slot = places[run];
    let start = places[run + 1u];
    let rows = places[run + 2u];
    let kept = p.state + slot * p.state_stride + channel;
    let before = p.kernel - 1u;
    var inputs: array<f32, 8>;
    var bias = 0.0;
    if p.has_bias == 1u {
        bias = added[p.bias + channel];
    }
    for (var i = 0u; i < before; i++) {
        if places[run + 3u] == 0u {
            inputs[i] = state[kept + i * p.channels];
        }
    }
    for (var r = start; r < start + rows; r++) {
        let at = p.x + r * p.x_stride + channel;
        inputs[before] = x[at];
        var sum = bias;
        for (var i = 0u; i < p.kernel; i++) {
            sum = fma(weights[p.weights + i * p.weights_stride + channel], inputs[i], sum);
        }
        if p.silu == 1u {
            sum = sum / (1.0 + exp_of(-sum));
        }
        x[at] = sum;
        for (var i = 0u; i < before; i++) {
            inputs[i] = inputs[i + 1u];
        }
    }
    for (var i = 0u; i < before; i++) {
        state[kept + i * p.channels] = inputs[i];
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    if id.x >= p.channels {
        return;
    }
    for (var run = id.y; run < p.count; run += groups.y) {
        convolve(p.runs + run * 4u, id.x);
    }
}
