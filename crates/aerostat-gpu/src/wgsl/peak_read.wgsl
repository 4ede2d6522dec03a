// Reads a buffer from end to end, sixteen bytes of each thread at a time: what the memory of a device gives at most.

struct Params {
    out: u32, vectors: u32, threads: u32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> words: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    var sums = vec4u(0u);
    for (var i = id.x; i < p.vectors; i += p.threads) {
        sums ^= words[i];
    }
    // It never is, since what is read are zeros, and no compiler knows.
    if (sums.x ^ sums.y ^ sums.z ^ sums.w) == 0x5eedu {
        out[p.out] = 1.0;
    }
}
