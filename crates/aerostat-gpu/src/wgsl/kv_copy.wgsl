// Copies rows of the cache from slots to others; pair `i` of the list says from where to where.

struct Params {
    pairs: u32, list: u32,
    heads: u32, page_tokens: u32,
    words: u32, at: u32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> cache: array<u32>;
@group(0) @binding(1) var<storage, read> list: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    if id.x >= p.words * p.heads {
        return;
    }
    let head = id.x / p.words;
    let word = id.x % p.words;
    for (var i = id.y; i < p.pairs; i += groups.y) {
        let source = cache_line(list[p.list + 2u * i], head, p.heads, p.page_tokens);
        let to = cache_line(list[p.list + 2u * i + 1u], head, p.heads, p.page_tokens);
        cache[p.at + to * p.words + word] = cache[p.at + source * p.words + word];
    }
}
