// Where the rows of a sweep stand. Each row has four words: its position, where its pages begin in this list, the
// first position that lies in a slot of its own (or all ones), and where such slots begin in this list.

@group(0) @binding(0) var<storage, read> places: array<u32>;

fn slot_of(row: u32, position: u32, page_tokens: u32) -> u32 {
    let source = places[row * 4u + 2u];
    if position >= source {
        return places[places[row * 4u + 3u] + position - source];
    }
    let page = places[places[row * 4u + 1u] + position / page_tokens];
    return page * page_tokens + position % page_tokens;
}
