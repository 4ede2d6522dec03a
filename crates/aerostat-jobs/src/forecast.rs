//! How long what is left will take: sweeps follow from the lengths that are left, not from the lines that are done.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use aerostat::Plan;

/// Positions in a page of the KV cache, as the plan counts them.
const PAGE_TOKENS: usize = 16;
/// The part of the cache that is in use while others wait for it: who comes next seldom fits just so.
const PACKED: f64 = 0.95;
/// Slices of time in which rows are counted.
const SLICES: usize = 2048;

/// A sequence that is not finished.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Tokens of the prompt that are not computed yet.
    pub(crate) prompt: usize,
    /// Tokens that it may still generate.
    pub(crate) answer: usize,
    /// Positions it has in the end, at most.
    pub(crate) positions: usize,
}

/// How often answers end before they must.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Endings {
    /// Tokens generated, of unfinished answers too.
    pub(crate) tokens: u64,
    /// Answers that ended by themselves.
    pub(crate) ended: u64,
}

impl Endings {
    /// The length of the `i`th answer of at most `max` tokens: as many end early as did so far, spread evenly.
    fn length(self, i: usize, max: usize) -> f64 {
        let hazard = self.ended as f64 / self.tokens.max(1) as f64;
        if hazard <= 0.0 {
            return max as f64;
        }
        if hazard >= 1.0 {
            return 1.0;
        }
        // The golden ratio's multiples spread over [0, 1) without clusters.
        let spread = (i as f64 * 0.618_033_988_749_895 + 0.5).fract();
        ((1.0 - spread).ln() / (1.0 - hazard).ln()).ceil().clamp(1.0, max.max(1) as f64)
    }
}

/// What sweeps can carry, and what they cost.
pub(crate) struct Pace<'a> {
    /// Rows of a sweep at most.
    pub(crate) rows_max: usize,
    /// Positions that the KV cache holds.
    pub(crate) positions: usize,
    /// Sequences that are active at most: one for each recurrent state there is room for.
    pub(crate) sequences_max: usize,
    /// Seconds of a sweep with some rows, some of them with logits.
    pub(crate) seconds: &'a dyn Fn(usize, usize) -> f64,
}

/// What the plan's sweeps can carry.
pub(crate) fn pace<'a>(plan: &Plan, seconds: &'a dyn Fn(usize, usize) -> f64) -> Pace<'a> {
    // Families without recurrent states have no places for them.
    let sequences_max = if plan.state_slots > 0 { plan.state_slots } else { usize::MAX };
    Pace { rows_max: plan.rows_max, positions: plan.kv_pages * PAGE_TOKENS, sequences_max, seconds }
}

/// What is left, in sweeps and in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Forecast {
    pub(crate) sweeps: f64,
    pub(crate) seconds: f64,
}

/// Plays the schedule through: sequences enter in order when there is room, prompts fill what decoding leaves.
pub(crate) fn forecast(left: impl Iterator<Item = Left>, endings: Endings, pace: &Pace<'_>) -> Forecast {
    let rows_max = pace.rows_max.max(1);
    let crowd = rows_max.min(pace.sequences_max.max(1));
    let mut free = ((pace.positions as f64 * PACKED) as usize).max(PAGE_TOKENS);
    let free_max = free;
    let mut active: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut spans: Vec<Span> = Vec::new();
    // The time now, and when the prompts that were let in are read; in thousandths of a sweep for the heap.
    let (mut now, mut read) = (0.0f64, 0.0f64);
    for (i, left) in left.enumerate() {
        // Pages are taken as it grows: what it holds on average.
        let held = left.positions - (left.answer / 2).min(left.positions);
        let pages = (held.div_ceil(PAGE_TOKENS).max(1) * PAGE_TOKENS).min(free_max);
        while (free < pages || active.len() >= crowd) && !active.is_empty() {
            if let Some(Reverse((end, positions))) = active.pop() {
                now = now.max(end as f64 / 1000.0);
                free += positions;
            }
        }
        let start = now.max(read);
        // All that are in by then have read their prompts: those that are not over decode.
        while let Some(&Reverse((end, positions))) = active.peek()
            && end as f64 / 1000.0 <= start
        {
            active.pop();
            free += positions;
        }
        let room = rows_max.saturating_sub(active.len()).max(1);
        read = start + left.prompt as f64 / room as f64;
        let answer = if left.answer == 0 { 1.0 } else { endings.length(i, left.answer) };
        let first = read.max(start + if left.prompt > 0 { 1.0 } else { 0.0 });
        let end = if left.prompt > 0 { first + answer - 1.0 } else { first + answer };
        spans.push(Span { start, first, end, prompt: left.prompt as f64 });
        free = free.saturating_sub(pages);
        active.push(Reverse(((end * 1000.0) as u64, pages)));
    }
    cost(&spans, pace)
}

/// When a sequence reads its prompt and when it generates, in sweeps.
struct Span {
    start: f64,
    first: f64,
    end: f64,
    prompt: f64,
}

fn cost(spans: &[Span], pace: &Pace<'_>) -> Forecast {
    let sweeps = spans.iter().map(|s| s.end).fold(0.0, f64::max);
    if sweeps <= 0.0 {
        return Forecast::default();
    }
    let slices = (sweeps.ceil() as usize).clamp(1, SLICES);
    let width = sweeps / slices as f64;
    let mut prompts = vec![0.0; slices];
    let mut decodes = vec![0.0; slices];
    for span in spans {
        spread(&mut prompts, width, span.start, span.first, span.prompt);
        spread(&mut decodes, width, span.first, span.end, span.end - span.first);
    }
    let second = |(prompt, decode): (&f64, &f64)| {
        let (prompt, decode) = (prompt / width, decode / width);
        let rows = (prompt + decode).round().clamp(1.0, pace.rows_max.max(1) as f64);
        (pace.seconds)(rows as usize, (decode.round() as usize).max(1)) * width
    };
    Forecast { sweeps, seconds: prompts.iter().zip(&decodes).map(second).sum() }
}

/// Spreads rows evenly over the slices between two times.
fn spread(slices: &mut [f64], width: f64, from: f64, to: f64, rows: f64) {
    let last = slices.len().saturating_sub(1);
    let slice = |time: f64| ((time / width) as usize).min(last);
    let (a, b) = (slice(from), slice(to));
    let length = (to - from).max(f64::EPSILON);
    for (i, sum) in slices.iter_mut().enumerate().take(b + 1).skip(a) {
        let (begin, end) = (i as f64 * width, (i + 1) as f64 * width);
        let share = if a == b { 1.0 } else { (to.min(end) - from.max(begin)).max(0.0) / length };
        *sum += rows * share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs sequences as an engine does; gives the seconds of each sweep and what was left before each.
    struct Play {
        rows_max: usize,
        positions: usize,
        cost: fn(usize) -> f64,
    }

    /// A sequence of the play: prompt, the longest answer, the real one.
    type Real = (usize, usize, usize);

    impl Play {
        /// Relative errors of the forecasts made after 5 %, 20 % and 50 % of the time.
        fn errors(&self, all: &[Real]) -> Vec<f64> {
            let (mut active, mut next) = (Vec::<[usize; 3]>::new(), 0);
            let (mut clock, mut endings, mut log) = (0.0, Endings::default(), Vec::new());
            loop {
                while next < all.len() && self.fits(all, &active, next) {
                    active.push([next, all[next].0, 0]);
                    next += 1;
                }
                if active.is_empty() {
                    break;
                }
                log.push((clock, self.guess(all, &active, next, endings)));
                let mut rows = active.iter().filter(|a| a[1] == 0).count();
                for a in &mut active {
                    let was = a[1];
                    let take = was.min(self.rows_max.saturating_sub(rows));
                    rows += take;
                    a[1] -= take;
                    if a[1] == 0 && (was == 0 || take > 0) {
                        a[2] += 1;
                        endings.tokens += 1;
                    }
                }
                clock += (self.cost)(rows);
                active.retain(|a| {
                    let (_, max, real) = all[a[0]];
                    let over = a[2] >= real;
                    endings.ended += u64::from(over && real < max);
                    !over
                });
            }
            let at = |part: f64| log.iter().find(|(t, _)| *t >= part * clock).copied().unwrap();
            [0.05, 0.2, 0.5].iter().map(|p| at(*p)).map(|(t, guess)| guess / (clock - t) - 1.0).collect()
        }

        /// Whether all can go on together to their longest ends with one more beside them.
        fn fits(&self, all: &[Real], active: &[[usize; 3]], next: usize) -> bool {
            let with: Vec<(usize, usize)> = active.iter().map(|a| (a[0], a[2])).chain([(next, 0)]).collect();
            let left = |(i, has): (usize, usize)| all[i].1 - has;
            with.iter().all(|&one| {
                let there = with.iter().filter(|&&other| left(other) >= left(one));
                let pages = there.map(|&(i, has)| (all[i].0 + has + left(one)).div_ceil(16));
                pages.sum::<usize>() <= self.positions / 16
            })
        }

        fn guess(&self, all: &[Real], active: &[[usize; 3]], next: usize, endings: Endings) -> f64 {
            let under_way = active.iter().map(|a| Left {
                prompt: a[1],
                answer: all[a[0]].1 - a[2],
                positions: all[a[0]].0 + all[a[0]].1,
            });
            let waiting = all[next..].iter().map(|a| Left { prompt: a.0, answer: a.1, positions: a.0 + a.1 });
            let cost = self.cost;
            let pace = Pace {
                rows_max: self.rows_max,
                positions: self.positions,
                sequences_max: usize::MAX,
                seconds: &|rows, _| cost(rows),
            };
            forecast(under_way.chain(waiting), endings, &pace).seconds
        }
    }

    /// Even numbers without a generator.
    fn noise(i: usize) -> f64 {
        (i as f64 * 0.754_877_666_246_693).fract()
    }

    #[test]
    fn what_is_left_is_known_within_a_fifth_after_a_twentieth() {
        let flat: fn(usize) -> f64 = |_| 10.0;
        let knee: fn(usize) -> f64 = |rows| 10.0f64.max(rows as f64 * 0.1);
        let mixed = |i: usize| (16 + (noise(i) * 496.0) as usize, 1 + (noise(i * 7 + 3) * 127.0) as usize);
        let fixed =
            |n: usize| -> Vec<Real> { (0..n).map(mixed).map(|(prompt, max)| (prompt, max, max)).collect() };
        let ending = |n: usize, hazard: f64| -> Vec<Real> {
            let real = |i: usize| ((1.0 - noise(i * 13 + 5)).ln() / (1.0 - hazard).ln()).ceil() as usize;
            (0..n).map(|i| (mixed(i).0, 256, real(i).clamp(1, 256))).collect()
        };
        let short_last: Vec<Real> =
            (0..800).map(|i| (32, if i < 400 { 200 } else { 20 }, if i < 400 { 200 } else { 20 })).collect();
        for (name, all, rows_max, positions, cost) in [
            ("a thousand mixed", fixed(1000), 256, 60_000, flat),
            ("past the knee", fixed(1000), 512, 60_000, knee),
            ("answers that end", ending(1000, 0.02), 256, 60_000, flat),
            ("all at once", ending(100, 0.02), 256, 1_000_000, flat),
            ("little cache", fixed(300), 256, 3000, flat),
            ("few rows", fixed(300), 16, 60_000, flat),
            ("the short ones last", short_last, 128, 20_000, flat),
            ("reading only", (0..2000).map(|i| (mixed(i).0, 1, 1)).collect(), 256, 60_000, flat),
        ] {
            let errors = Play { rows_max, positions, cost }.errors(&all);
            assert!(errors[0].abs() < 0.2, "{name}: {errors:?}");
            // The last of a hundred answers ends when chance wants it: nobody knows that better.
            assert!(errors.iter().all(|e| e.abs() < 0.3), "{name}: {errors:?}");
        }
    }

    #[test]
    fn nothing_left_takes_no_time() {
        let pace = Pace { rows_max: 8, positions: 64, sequences_max: usize::MAX, seconds: &|_, _| 1.0 };
        assert_eq!(forecast([].into_iter(), Endings::default(), &pace), Forecast::default());
        let one = Left { prompt: 5, answer: 3, positions: 8 };
        assert_eq!(forecast([one].into_iter(), Endings::default(), &pace).sweeps, 3.0);
    }

    #[test]
    fn sequences_wait_for_a_place_for_their_state() {
        let left = [Left { prompt: 1, answer: 10, positions: 11 }; 6];
        let sweeps = |sequences_max| {
            let pace = Pace { rows_max: 8, positions: 4000, sequences_max, seconds: &|_, _| 1.0 };
            forecast(left.into_iter(), Endings::default(), &pace).sweeps
        };
        assert!(sweeps(usize::MAX) < 12.0 && (29.0..34.0).contains(&sweeps(2)), "{}", sweeps(2));
    }
}
