//! The KV cache: keys and values of each layer, in rows of whole words.

use aerostat_backend::{Error, KvElement, KvLayout, Mat, Window, rules};
use wgpu::BufferUsages;

use crate::budget::{Budget, Buffer};
use crate::gpu::Gpu;
use crate::pipelines::{Kernel, Words, kind};

/// Layers share allocations of up to this size, where they are smaller.
const CHUNK_BYTES: u64 = 64 << 20;

/// The KV cache on the device.
pub(crate) struct Cache {
    pub(crate) layout: KvLayout,
    /// Of each layer, keys and values.
    parts: Vec<[Part; 2]>,
    bytes: u64,
}

/// Keys or values of a layer, `[pages, heads, page_tokens]` rows.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) buffer: Buffer,
    /// Where it begins, in words.
    pub(crate) at: usize,
    pub(crate) element: KvElement,
    pub(crate) heads: usize,
    /// Elements of a row, and words.
    pub(crate) dim: usize,
    pub(crate) row_words: usize,
}

/// Words of a row of so many elements.
pub(crate) fn row_words(element: KvElement, dim: usize) -> usize {
    match element {
        KvElement::F16 | KvElement::BF16 => dim.div_ceil(2),
        KvElement::F32 => dim,
        KvElement::Q8 => dim.div_ceil(32).saturating_mul(9),
    }
}

impl Cache {
    pub(crate) fn new(layout: &KvLayout, budget: &Budget) -> Result<Self, Error> {
        let slots = rules::kv_layout(layout)?;
        let mut parts: Vec<(KvElement, usize, usize)> = Vec::new();
        for (layer, &heads) in layout.heads.iter().enumerate() {
            parts.push((layout.keys, heads, layout.key_widths[layer] / heads));
            parts.push((layout.values, heads, layout.value_widths[layer] / heads));
        }
        let words = |&(element, heads, dim): &(KvElement, usize, usize)| {
            let words = slots.checked_mul(heads).and_then(|rows| rows.checked_mul(row_words(element, dim)));
            words.ok_or_else(|| Error::shape("the KV cache has more words than fit a usize"))
        };
        let mut left = parts.iter().map(words).sum::<Result<usize, Error>>()? as u64 * 4;
        let most = CHUNK_BYTES.min(budget.buffer_bytes_max());
        let (mut found, mut bytes): (Vec<Part>, u64) = (Vec::new(), 0);
        let mut chunk: Option<(Buffer, u64)> = None;
        for part in &parts {
            let needed = words(part)? as u64 * 4;
            if chunk.as_ref().is_none_or(|(buffer, used)| buffer.bytes - used < needed) {
                let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
                let buffer = budget.buffer("the KV cache", left.min(most).max(needed), usage, false)?;
                bytes += buffer.bytes;
                chunk = Some((buffer, 0));
            }
            if let Some((buffer, used)) = &mut chunk {
                let (element, heads, dim) = *part;
                let (at, row_words) = ((*used / 4) as usize, row_words(element, dim));
                found.push(Part { buffer: buffer.clone(), at, element, heads, dim, row_words });
                *used += needed;
            }
            left -= needed;
        }
        Ok(Self { layout: layout.clone(), parts: found.as_chunks::<2>().0.to_vec(), bytes })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keys and values of a layer, which was checked.
    pub(crate) fn layer(&self, layer: usize) -> Result<[Part; 2], Error> {
        let found = self.parts.get(layer).cloned();
        found.ok_or_else(|| Error::shape(format!("the KV cache has no layer {layer}")))
    }

    fn check_page(&self, page: u32) -> Result<usize, Error> {
        let pages = self.layout.pages;
        if (page as usize) < pages {
            return Ok(page as usize);
        }
        Err(Error::shape(format!("there is no page {page}; the KV cache has {pages}")))
    }

    /// Where a page lies: for each part its buffer, the first byte, and how many.
    fn page(&self, page: usize) -> Vec<(Buffer, u64, u64)> {
        let place = |part: &Part| {
            let words = part.heads * self.layout.page_tokens * part.row_words;
            (part.buffer.clone(), (part.at + page * words) as u64 * 4, words as u64 * 4)
        };
        self.parts.iter().flatten().map(place).collect()
    }
}

impl Gpu {
    pub(crate) fn write_cache(&mut self, layer: usize, k: Mat, v: Mat) -> Result<(), Error> {
        let cache = self.cached()?;
        rules::shape(&v, k.rows, v.cols, "the values")?;
        // A window of 1: only the page that is written must exist.
        let (widths, window) = ((k.cols, Some(v.cols)), Some(Window::Last(1)));
        self.rows.places(&cache.layout, layer, widths, k.rows, window)?;
        let (parts, page_tokens) = (cache.layer(layer)?, cache.layout.page_tokens);
        let (places, _) = self.placed()?;
        for (part, from) in parts.iter().zip([k, v]) {
            let x = self.at(&from)?;
            let words = [x.offset, from.stride, from.rows, part.heads, part.dim, page_tokens];
            let words = Words::of(&words)?.bits(&[kind(part.element)])?.and(&[part.at])?;
            let parts = if part.element == KvElement::Q8 { part.row_words / 9 } else { part.row_words };
            let groups = ((parts * part.heads).div_ceil(64), from.rows);
            self.run(Kernel::KvWrite, &[&places, &x.buffer, &part.buffer], &words, groups)?;
        }
        Ok(())
    }

    pub(crate) fn copy_cache(&mut self, slots: &[(u32, u32)]) -> Result<(), Error> {
        let cache = self.cached()?;
        let (total, page_tokens) = (cache.layout.pages * cache.layout.page_tokens, cache.layout.page_tokens);
        if let Some(pair) = slots.iter().find(|(from, to)| (*from).max(*to) as usize >= total) {
            return Err(Error::shape(format!("slots {pair:?} of a KV cache of {total}")));
        }
        let parts: Vec<Part> = cache.parts.iter().flatten().cloned().collect();
        for slots in apart(slots) {
            let words: Vec<u32> = slots.iter().flat_map(|&(from, to)| [from, to]).collect();
            let list = self.list(&words)?;
            for part in &parts {
                let words = [slots.len(), 0, part.heads, page_tokens, part.row_words, part.at];
                let groups = ((part.row_words * part.heads).div_ceil(64), slots.len());
                self.run(Kernel::KvCopy, &[&part.buffer, &list], &Words::of(&words)?, groups)?;
            }
        }
        Ok(())
    }

    pub(crate) fn save_page(&mut self, page: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let cache = self.cached()?;
        let places = cache.page(cache.check_page(page)?);
        let ranges: Vec<(&Buffer, u64, u64)> = places.iter().map(|(b, at, len)| (b, *at, *len)).collect();
        let mut pieces: Vec<Vec<u8>> = vec![Vec::new(); ranges.len()];
        let Self { context, budget, stream, transfer, .. } = self;
        transfer.read(context, budget, stream, &ranges, &mut |number, bytes| {
            pieces[number].extend_from_slice(bytes);
        })?;
        pieces.iter().for_each(|piece| take(piece));
        Ok(())
    }

    pub(crate) fn load_page(&mut self, page: u32, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), Error> {
        let cache = self.cached()?;
        for (buffer, at, len) in cache.page(cache.check_page(page)?) {
            let mut bytes = vec![0; len as usize];
            fill(&mut bytes);
            self.write_bytes(&bytes, (&buffer, at))?;
        }
        Ok(())
    }
}

/// Copies in runs of which none reads or writes what another of its run writes.
fn apart(slots: &[(u32, u32)]) -> Vec<&[(u32, u32)]> {
    let (mut runs, mut start) = (Vec::new(), 0);
    let mut written = std::collections::HashSet::new();
    let mut read = std::collections::HashSet::new();
    for (i, (from, to)) in slots.iter().enumerate() {
        if written.contains(from) || written.contains(to) || read.contains(to) {
            runs.push(&slots[start..i]);
            start = i;
            written.clear();
            read.clear();
        }
        written.insert(*to);
        read.insert(*from);
    }
    if start < slots.len() {
        runs.push(&slots[start..]);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn copies_that_build_on_each_other_are_made_one_after_the_other() {
        assert!(apart(&[]).is_empty());
        assert_eq!(apart(&[(1, 2), (3, 4), (1, 5)]).len(), 1);
        assert_eq!(apart(&[(1, 2), (2, 3)]), [&[(1, 2)], &[(2, 3)]]);
        assert_eq!(apart(&[(1, 2), (3, 1)]), [&[(1, 2)], &[(3, 1)]]);
        assert_eq!(apart(&[(1, 2), (3, 2), (4, 5)]), [&[(1, 2)][..], &[(3, 2), (4, 5)]]);
    }
}
