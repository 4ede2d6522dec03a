// The KV cache of a layer: `[pages, heads, page_tokens]` rows of keys, and the same of values. A row is whole words:
// two elements of 16 bits in a word, one of 32 bits, or for each 32 elements of 8 bits a word with their scale as f16 and
// eight with four elements each.

fn row_words(element: u32, dim: u32) -> u32 {
    switch element {
        case 2u: { return dim; }
        case 3u: { return (dim + 31u) / 32u * 9u; }
        default: { return (dim + 1u) / 2u; }
    }
}

// Number of a head's row in a slot.
fn cache_line(slot: u32, head: u32, heads: u32, page_tokens: u32) -> u32 {
    return (slot / page_tokens * heads + head) * page_tokens + slot % page_tokens;
}
