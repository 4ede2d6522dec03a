// Stores the keys or the values of every row at its place. A thread for each word of a row of the cache, or each run of 32
// elements of 8 bits.

struct Params {
    x: u32, x_stride: u32,
    rows: u32, heads: u32, dim: u32, page_tokens: u32,
    element: u32,
    at: u32,
}
var<immediate> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> cache: array<u32>;

fn value(source: u32, i: u32) -> f32 {
    if i < p.dim {
        return x[source + i];
    }
    return 0.0;
}

// What is not finite makes all of the run NaN.
fn store_run(source: u32, run: u32, to: u32) {
    var largest = 0.0;
    var finite = true;
    for (var i = 0u; i < 32u; i++) {
        let v = value(source, run * 32u + i);
        largest = max(largest, abs(v));
        finite = finite && (bitcast<u32>(v) & 0x7f800000u) != 0x7f800000u;
    }
    let scale = select(0x7e00u, to_f16(largest / 127.0), finite);
    cache[to] = scale;
    let d = from_f16(scale);
    var inverse = 0.0;
    if (scale & 0x7fffu) != 0u && finite {
        inverse = 1.0 / d;
    }
    for (var word = 0u; word < 8u; word++) {
        var bits = 0u;
        for (var i = 0u; i < 4u; i++) {
            let v = value(source, run * 32u + word * 4u + i) * inverse;
            let whole = i32(clamp(round(v), -127.0, 127.0));
            bits |= (bitcast<u32>(whole) & 0xffu) << (8u * i);
        }
        cache[to + 1u + word] = bits;
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let words = row_words(p.element, p.dim);
    let parts = select(words, words / 9u, p.element == 3u);
    if id.x >= parts * p.heads {
        return;
    }
    let head = id.x / parts;
    let part = id.x % parts;
    for (var r = id.y; r < p.rows; r += groups.y) {
        let slot = slot_of(r, places[r * ROW_WORDS], p.page_tokens);
        let to = p.at + cache_line(slot, head, p.heads, p.page_tokens) * words;
        let source = p.x + r * p.x_stride + head * p.dim;
        switch p.element {
            case 0u: {
                cache[to + part] = to_f16(value(source, 2u * part)) | (to_f16(value(source, 2u * part + 1u)) << 16u);
            }
            case 1u: {
                cache[to + part] = to_bf16(value(source, 2u * part)) | (to_bf16(value(source, 2u * part + 1u)) << 16u);
            }
            case 2u: { cache[to + part] = bitcast<u32>(value(source, part)); }
            default: { store_run(source, part, to + 9u * part); }
        }
    }
}
