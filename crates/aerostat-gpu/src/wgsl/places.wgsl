// Where the rows of a sweep stand. Each row has five words: its position, where its pages begin in this list, the
// first position that lies in a slot of its own (or all ones), where such slots begin in this list, and the last position that
// it sees where attention looks both ways.

const ROW_WORDS = 5u;

@group(0) @binding(0) var<storage, read> places: array<u32>;

fn slot_of(row: u32, position: u32, page_tokens: u32) -> u32 {
    let source = places[row * ROW_WORDS + 2u];
    if position >= source {
        return places[places[row * ROW_WORDS + 3u] + position - source];
    }
    let page = places[places[row * ROW_WORDS + 1u] + position / page_tokens];
    return page * page_tokens + position % page_tokens;
}
