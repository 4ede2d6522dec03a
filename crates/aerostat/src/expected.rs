//! Room that is kept free for urgent requests: as much as those that came lately needed.

/// Who came is expected again for so many sweeps.
const SWEEPS: u32 = 256;
/// At most this part of the pages is kept free.
const PART: usize = 8;

/// What urgent requests of the last sweeps needed, each.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pages: usize,
    sweeps_left: u32,
}

impl Expected {
    /// Counts a sweep. `pages`: what the longest urgent sequence that waits for it or rides on it may need.
    pub(crate) fn sweep(&mut self, pages: Option<usize>) {
        match pages {
            Some(pages) => (self.pages, self.sweeps_left) = (self.pages.max(pages), SWEEPS),
            None if self.sweeps_left > 1 => self.sweeps_left -= 1,
            None => *self = Self::default(),
        }
    }

    /// Pages and recurrent states that others leave free when they enter, of so many pages.
    pub(crate) fn room(&self, pages: usize) -> (usize, usize) {
        (self.pages.min(pages / PART), usize::from(self.sweeps_left > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_is_expected_again_for_a_while() {
        let mut expected = Expected::default();
        assert_eq!(expected.room(100), (0, 0));
        expected.sweep(Some(9));
        expected.sweep(Some(3));
        assert_eq!((expected.room(100), expected.room(16)), ((9, 1), (2, 1)));
        (1..SWEEPS).for_each(|_| expected.sweep(None));
        assert_eq!(expected.room(100), (9, 1));
        expected.sweep(None);
        assert_eq!(expected.room(100), (0, 0));
    }
}
