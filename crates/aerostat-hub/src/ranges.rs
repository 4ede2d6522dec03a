//! Sets of byte ranges: which parts of a file are here.

/// Disjoint, sorted, half-open ranges of bytes; ranges that touch are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `[start, end)` and returns how many of its bytes were new.
    pub(crate) fn add(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let first = self.0.partition_point(|&(_, e)| e < start);
        let last = self.0.partition_point(|&(s, _)| s <= end);
        let touched: Vec<(u64, u64)> = self.0.drain(first..last).collect();
        let here: u64 = touched.iter().map(|&(s, e)| e.min(end).saturating_sub(s.max(start))).sum();
        let low = touched.first().map_or(start, |&(s, _)| s.min(start));
        let high = touched.last().map_or(end, |&(_, e)| e.max(end));
        self.0.insert(first, (low, high));
        end - start - here
    }

    /// How many bytes are in the set.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// The gaps in `[0, size)`, cut into pieces of at most `piece_bytes_max`.
    pub(crate) fn missing(&self, size: u64, piece_bytes_max: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut position = 0;
        for &(start, end) in self.0.iter().chain([&(size, size)]) {
            while position < start {
                let next = start.min(position.saturating_add(piece_bytes_max.max(1)));
                gaps.push((position, next));
                position = next;
            }
            position = position.max(end);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_a_map_of_bytes() {
        const SIZE: u64 = 40;
        let mut state = 7u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % bound
        };
        for _ in 0..200 {
            let (mut ranges, mut map) = (Ranges::default(), [false; SIZE as usize]);
            for _ in 0..12 {
                let (start, length) = (next(SIZE), next(9));
                let end = (start + length).min(SIZE);
                let new = map[start as usize..end as usize].iter().filter(|here| !**here).count();
                map[start as usize..end as usize].fill(true);
                assert_eq!(ranges.add(start, end), new as u64);
                assert_eq!(ranges.bytes(), map.iter().filter(|here| **here).count() as u64);
                let gaps = ranges.missing(SIZE, 5);
                assert!(gaps.iter().all(|&(s, e)| s < e && e - s <= 5));
                let gone: Vec<u64> = gaps.iter().flat_map(|&(s, e)| s..e).collect();
                let want: Vec<u64> = (0..SIZE).filter(|&i| !map[i as usize]).collect();
                assert_eq!(gone, want);
            }
        }
    }
}
