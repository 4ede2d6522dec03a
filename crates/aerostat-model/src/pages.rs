//! Which pages of the KV cache belong to which sequence.

/// The free pages. A sequence reserves what its longest answer needs before it starts, so that it can always finish.
#[derive(Debug)]
pub struct Pages {
    free: Vec<u32>,
    pages: usize,
    page_tokens: usize,
}

impl Pages {
    /// `pages` free pages of `page_tokens` positions.
    pub fn new(pages: usize, page_tokens: usize) -> Self {
        Self { free: (0..pages as u32).rev().collect(), pages, page_tokens }
    }

    /// Positions of all pages.
    pub fn tokens(&self) -> usize {
        self.pages * self.page_tokens
    }

    /// Pages that `tokens` positions need.
    pub fn needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_tokens)
    }

    /// Takes the pages for `tokens` positions, or none if there are not enough.
    pub fn reserve(&mut self, tokens: usize) -> Option<Vec<u32>> {
        let keep = self.free.len().checked_sub(self.needed(tokens))?;
        Some(self.free.split_off(keep))
    }

    /// Gives pages back.
    pub fn release(&mut self, pages: Vec<u32>) {
        self.free.extend(pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_belongs_to_one_sequence_at_a_time() {
        let mut pages = Pages::new(5, 16);
        let a = pages.reserve(17).unwrap();
        let b = pages.reserve(48).unwrap();
        assert_eq!((a.len(), b.len()), (2, 3));
        assert!(a.iter().all(|p| !b.contains(p)));
        assert!(pages.reserve(1).is_none());
        pages.release(a);
        assert_eq!(pages.reserve(32).unwrap().len(), 2);
        assert_eq!(pages.reserve(0).unwrap().len(), 0);
    }
}
