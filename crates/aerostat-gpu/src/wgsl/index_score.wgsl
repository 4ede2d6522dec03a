// How good each position is that a row may attend to; a thread for each row and position. Products are added up as
// `aerostat_backend::numerics::dot` does, so that choices agree.

struct Params {
    q: u32, q_stride: u32,
    weights: u32, weights_stride: u32,
    heads: u32, page_tokens: u32,
    keys: u32,
    first: u32, rows: u32, pitch: u32,
    scale: f32,
}
var<immediate> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<f32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;
@group(0) @binding(4) var<storage, read_write> scores: array<f32>;

fn key(row: u32, i: u32) -> f32 {
    switch KEY_KIND {
        case 0u: {
            let pair = unpack2x16float(keys[row + i / 2u]);
            return select(pair.x, pair.y, i % 2u == 1u);
        }
        case 1u: {
            let word = keys[row + i / 2u];
            return bitcast<f32>(select(word << 16u, word & 0xffff0000u, i % 2u == 1u));
        }
        case 2u: { return bitcast<f32>(keys[row + i]); }
        default: {
            let run = row + i / 32u * 9u;
            let word = keys[run + 1u + i % 32u / 4u];
            return f32(bitcast<i32>(word << (24u - 8u * (i % 4u))) >> 24u) * from_f16(keys[run]);
        }
    }
}

fn dot_of(query: u32, row: u32) -> f32 {
    var lanes: array<f32, 16>;
    for (var i = 0u; i < KEY_DIM; i++) {
        lanes[i % 16u] = fma(q[query + i], key(row, i), lanes[i % 16u]);
    }
    for (var width = 8u; width > 0u; width /= 2u) {
        for (var i = 0u; i < width; i++) {
            lanes[i] += lanes[i + width];
        }
    }
    return lanes[0];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    for (var i = id.y; i < p.rows; i += groups.y) {
        let row = p.first + i;
        if id.x > places[row * ROW_WORDS] {
            continue;
        }
        let slot = slot_of(row, id.x, p.page_tokens);
        let at = p.keys + cache_line(slot, 0u, 1u, p.page_tokens) * row_words(KEY_KIND, KEY_DIM);
        var sum = 0.0;
        for (var head = 0u; head < p.heads; head++) {
            let product = dot_of(p.q + row * p.q_stride + head * KEY_DIM, at);
            sum = fma(weights[p.weights + row * p.weights_stride + head], max(product * p.scale, 0.0), sum);
        }
        scores[i * p.pitch + id.x] = sum;
    }
}
