// Attention of a row's head over the positions that it sees; a workgroup for each row and head. Positions come in blocks
// of 64, from a multiple of 64 on, whatever window or chunk: a block's largest score is found, what was summed before is
// scaled to it, and the block's values are added in ascending order.

struct Params {
    q: u32, q_stride: u32,
    out: u32, out_stride: u32,
    sinks: u32,
    rows: u32, heads: u32, kv_heads: u32,
    page_tokens: u32,
    keys: u32, values: u32,
    window: u32, window_size: u32,
    selected: u32, selected_stride: u32, selected_count: u32,
    has_sinks: u32, has_softcap: u32, alibi: u32, ahead: u32,
    scale: f32, softcap: f32,
}
var<immediate> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> sinks: array<f32>;
// Positions that were chosen, a row of them for each row; where all are seen, biases by distance, a row for each head.
@group(0) @binding(4) var<storage, read_write> chosen: array<f32>;
@group(0) @binding(5) var<storage, read_write> keys: array<u32>;
@group(0) @binding(6) var<storage, read_write> values: array<u32>;
@group(0) @binding(7) var<storage, read> slopes: array<u32>;

var<workgroup> query: array<f32, KEY_DIM>;
var<workgroup> scores: array<f32, 64>;
var<workgroup> slots: array<u32, 64>;
var<workgroup> bounds: vec2u;

fn element(words: ptr<function, u32>, kind: u32, i: u32) -> f32 {
    let word = *words;
    switch kind {
        case 0u: {
            let pair = unpack2x16float(word);
            return select(pair.x, pair.y, i % 2u == 1u);
        }
        case 1u: { return bitcast<f32>(select(word << 16u, word & 0xffff0000u, i % 2u == 1u)); }
        case 2u: { return bitcast<f32>(word); }
        default: { return f32(bitcast<i32>(word << (24u - 8u * (i % 4u))) >> 24u); }
    }
}

fn word_of(kind: u32, i: u32) -> u32 {
    switch kind {
        case 2u: { return i; }
        case 3u: { return i / 32u * 9u + 1u + i % 32u / 4u; }
        default: { return i / 2u; }
    }
}

fn key(row: u32, i: u32) -> f32 {
    var word = keys[row + word_of(KEY_KIND, i)];
    let value = element(&word, KEY_KIND, i);
    if KEY_KIND == 3u {
        return value * from_f16(keys[row + i / 32u * 9u]);
    }
    return value;
}

fn value_at(row: u32, i: u32) -> f32 {
    if VALUES_IN_KEYS {
        return key(row, i);
    }
    var word = values[row + word_of(VALUE_KIND, i)];
    let value = element(&word, VALUE_KIND, i);
    if VALUE_KIND == 3u {
        return value * from_f16(values[row + i / 32u * 9u]);
    }
    return value;
}

fn key_row(slot: u32, head: u32) -> u32 {
    return p.keys + cache_line(slot, head, p.kv_heads, p.page_tokens) * row_words(KEY_KIND, KEY_DIM);
}

fn value_row(slot: u32, head: u32) -> u32 {
    if VALUES_IN_KEYS {
        return key_row(slot, head);
    }
    return p.values + cache_line(slot, head, p.kv_heads, p.page_tokens) * row_words(VALUE_KIND, VALUE_DIM);
}

// What a slope adds to the score of position `j` as seen from `own`.
fn bias(head: u32, j: u32, own: u32) -> f32 {
    let slope = bitcast<f32>(slopes[head]);
    if p.alibi == 1u {
        return slope * -f32(abs(i32(j) - i32(own)));
    }
    let near = round_bf16(slope * round_bf16(f32(j)));
    let far = round_bf16(slope * round_bf16(f32(own)));
    return (near - far) * p.scale;
}

// Where in a row of biases that of position `j` lies as seen from `own`.
fn bias_place(width: u32, j: u32, own: u32) -> u32 {
    let reach = width / 2u;
    if j < own {
        return reach - min(own - j, reach);
    }
    return reach + min(j - own, reach);
}

fn score(head: u32, j: u32, own: u32, key_at: u32) -> f32 {
    var dot = 0.0;
    for (var i0 = 0u; i0 < KEY_DIM; i0 += 32u) {
        var part = 0.0;
        for (var i = i0; i < min(i0 + 32u, KEY_DIM); i++) {
            part = fma(query[i], key(key_at, i), part);
        }
        dot += part;
    }
    var s = dot * p.scale;
    if p.has_softcap == 1u {
        s = softcap(s, p.softcap);
    }
    if p.alibi > 0u {
        s += bias(head, j, own);
    }
    if !SELECTED && p.selected_count > 0u {
        s += chosen[p.selected + head * p.selected_stride + bias_place(p.selected_count, j, own)];
    }
    return s;
}

// The first position that a row sees and one past the last, or numbers of chosen positions.
fn seen(row: u32, own: u32) -> vec2u {
    if SELECTED {
        var count = 0u;
        while count < p.selected_count && chosen[p.selected + row * p.selected_stride + count] >= 0.0 {
            count++;
        }
        return vec2u(0u, count);
    }
    var first = 0u;
    var last = own;
    if p.ahead == 1u {
        last = max(own, places[row * ROW_WORDS + 4u]);
    }
    if p.window == 1u && own + 1u > p.window_size {
        first = own + 1u - p.window_size;
    }
    if p.window == 2u {
        first = own - own % p.window_size;
    }
    if p.window == 3u {
        first = own - min(own, p.window_size);
        last = min(last, own + p.window_size);
    }
    return vec2u(first, last + 1u);
}

fn attend(row: u32, head: u32, thread: u32) {
    let own = places[row * ROW_WORDS];
    let kv_head = head / (p.heads / p.kv_heads);
    for (var i = thread; i < KEY_DIM; i += 64u) {
        query[i] = q[p.q + row * p.q_stride + head * KEY_DIM + i];
    }
    if thread == 0u {
        bounds = seen(row, own);
    }
    let range = workgroupUniformLoad(&bounds);
    var most = LOWEST;
    var sum = 0.0;
    var totals: array<f32, TOTALS>;
    for (var block = range.x / 64u; block * 64u < range.y; block++) {
        let at = block * 64u + thread;
        let is_seen = at >= range.x && at < range.y;
        var s = LOWEST;
        if is_seen {
            var j = at;
            if SELECTED {
                j = min(u32(chosen[p.selected + row * p.selected_stride + at]), own);
            }
            let slot = slot_of(row, j, p.page_tokens);
            slots[thread] = slot;
            s = score(head, j, own, key_row(slot, kv_head));
        }
        scores[thread] = s;
        workgroupBarrier();
        var largest = most;
        for (var i = 0u; i < 64u; i++) {
            largest = max(largest, scores[i]);
        }
        workgroupBarrier();
        scores[thread] = select(0.0, exp_of(s - largest), is_seen);
        workgroupBarrier();
        let shrink = exp_of(most - largest);
        most = largest;
        sum *= shrink;
        for (var t = 0u; t < TOTALS; t++) {
            totals[t] *= shrink;
        }
        let begin = max(range.x, block * 64u) - block * 64u;
        let end = min(range.y - block * 64u, 64u);
        for (var i = begin; i < end; i++) {
            let weight = scores[i];
            let source = value_row(slots[i], kv_head);
            sum += weight;
            for (var t = 0u; t < TOTALS; t++) {
                let d = t * 64u + thread;
                if d < VALUE_DIM {
                    totals[t] = fma(weight, value_at(source, d), totals[t]);
                }
            }
        }
        workgroupBarrier();
    }
    if p.has_sinks == 1u {
        let sink = sinks[p.sinks + head];
        let largest = max(most, sink);
        let shrink = exp_of(most - largest);
        sum = sum * shrink + exp_of(sink - largest);
        for (var t = 0u; t < TOTALS; t++) {
            totals[t] *= shrink;
        }
    }
    for (var t = 0u; t < TOTALS; t++) {
        let d = t * 64u + thread;
        if d < VALUE_DIM {
            out[p.out + row * p.out_stride + head * VALUE_DIM + d] = totals[t] / sum;
        }
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var row = group.y; row < p.rows; row += groups.y) {
        attend(row, group.x, thread);
        workgroupBarrier();
    }
}
