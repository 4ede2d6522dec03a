// The best `count` positions of each row by ascending position, of equal ones the first; then -1. A workgroup for each row
// finds the least score that is chosen, byte by byte of its bits, and how many that are equal to it are; then each of 64
// threads gives what is chosen of a run of positions.

struct Params {
    out: u32, out_stride: u32,
    first: u32, rows: u32, pitch: u32,
    count: u32,
}
var<immediate> p: Params;
@group(0) @binding(1) var<storage, read_write> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> better: array<u32, 64>;
var<workgroup> equal: array<u32, 64>;
// Bits that are known of the least score, and how many are still to be chosen of those that begin with them.
var<workgroup> found: vec2u;

// Orders scores as whole numbers.
fn ordered(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn narrow(i: u32, end: u32, shift: u32, thread: u32) {
    for (var bin = thread; bin < 256u; bin += 64u) {
        atomicStore(&bins[bin], 0u);
    }
    workgroupBarrier();
    let known = found.x;
    for (var j = thread; j < end; j += 64u) {
        let bits = ordered(scores[i * p.pitch + j]);
        if shift == 24u || bits >> (shift + 8u) == known >> (shift + 8u) {
            atomicAdd(&bins[(bits >> shift) & 0xffu], 1u);
        }
    }
    workgroupBarrier();
    if thread == 0u {
        var left = found.y;
        var bin = 255u;
        while bin > 0u && atomicLoad(&bins[bin]) < left {
            left -= atomicLoad(&bins[bin]);
            bin--;
        }
        found = vec2u(known | (bin << shift), left);
    }
    workgroupBarrier();
}

fn give(i: u32, end: u32, thread: u32) {
    let least = found.x;
    let ties = found.y;
    let share = (end + 63u) / 64u;
    let begin = min(thread * share, end);
    let stop = min(begin + share, end);
    better[thread] = 0u;
    equal[thread] = 0u;
    for (var j = begin; j < stop; j++) {
        let bits = ordered(scores[i * p.pitch + j]);
        better[thread] += u32(bits > least);
        equal[thread] += u32(bits == least);
    }
    workgroupBarrier();
    var at = 0u;
    var tied = 0u;
    for (var before = 0u; before < thread; before++) {
        at += better[before];
        tied += equal[before];
    }
    at += min(tied, ties);
    let to = p.out + (p.first + i) * p.out_stride;
    for (var j = begin; j < stop; j++) {
        let bits = ordered(scores[i * p.pitch + j]);
        let is_tied = bits == least && tied < ties;
        tied += u32(is_tied);
        if (bits > least || is_tied) && at < p.count {
            out[to + at] = f32(j);
            at++;
        }
    }
    workgroupBarrier();
}

fn all_of(i: u32, end: u32, thread: u32) {
    for (var j = thread; j < p.count; j += 64u) {
        out[p.out + (p.first + i) * p.out_stride + j] = select(-1.0, f32(j), j < end);
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var i = group.y; i < p.rows; i += groups.y) {
        let end = places[(p.first + i) * ROW_WORDS] + 1u;
        if end <= p.count {
            all_of(i, end, thread);
        } else {
            if thread == 0u {
                found = vec2u(0u, p.count);
            }
            workgroupBarrier();
            narrow(i, end, 24u, thread);
            narrow(i, end, 16u, thread);
            narrow(i, end, 8u, thread);
            narrow(i, end, 0u, thread);
            give(i, end, thread);
        }
    }
}
