//! Which rows ride on which sweep.
//!
//! Every sweep carries one decoding row of each active sequence, then rows of prompts in the order of arrival, up to
//! the plan's rows. A sequence enters when the pages that its longest answer needs are free, and leaves when it is
//! finished. What rows it shares a sweep with never changes its bits.

use std::collections::VecDeque;

use aerostat_backend::{Placement, RowPlace};
use aerostat_model::{Batch, Limits, Pages};

/// The rows of one sweep and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) tokens: Vec<u32>,
    places: Vec<RowPlace>,
    pages: Vec<u32>,
    lengths: Vec<u32>,
    logit_rows: Vec<u32>,
    /// For each logit row, the sequence's request and the row's position.
    pub(crate) owners: Vec<(usize, usize)>,
    /// Some row continues an answer.
    pub(crate) decodes: bool,
}

impl Rows {
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch {
            places: Placement { rows: &self.places, pages: &self.pages },
            lengths: &self.lengths,
            logit_rows: &self.logit_rows,
        }
    }

    fn clear(&mut self) {
        self.tokens.clear();
        self.places.clear();
        self.pages.clear();
        self.lengths.clear();
        self.logit_rows.clear();
        self.owners.clear();
        self.decodes = false;
    }
}

/// Which rows of a sequence need logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// That of its last token.
    Last,
    /// All.
    All,
}

/// A sequence on its way through the model.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// The request it belongs to.
    pub(crate) request: usize,
    /// Prompt and answer so far.
    pub(crate) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// Positions whose keys and values are in the cache.
    computed: usize,
    /// Positions it can have at most.
    capacity: usize,
    want: Want,
    pages: Vec<u32>,
}

impl Sequence {
    pub(crate) fn new(request: usize, tokens: Vec<u32>, answer_max: usize, want: Want) -> Self {
        let prompt = tokens.len();
        Self { request, tokens, prompt, computed: 0, capacity: prompt + answer_max, want, pages: Vec::new() }
    }

    /// Gives up its pages.
    pub(crate) fn into_pages(self) -> Vec<u32> {
        self.pages
    }
}

/// Sequences that wait and sequences that are active.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    waiting: VecDeque<Sequence>,
    pub(crate) active: Vec<Sequence>,
}

impl Schedule {
    pub(crate) fn new(sequences: impl IntoIterator<Item = Sequence>) -> Self {
        Self { waiting: sequences.into_iter().collect(), active: Vec::new() }
    }

    /// Chooses the rows of the next sweep; false if there is nothing left to do.
    pub(crate) fn fill(&mut self, rows: &mut Rows, limits: Limits, pages: &mut Pages, chunk: usize) -> bool {
        self.admit(pages);
        rows.clear();
        for decoding in [true, false] {
            for sequence in &mut self.active {
                let decodes = sequence.computed >= sequence.prompt;
                if decodes == decoding {
                    take_rows(sequence, rows, limits, chunk);
                    rows.decodes |= decodes;
                }
            }
        }
        !rows.tokens.is_empty()
    }

    /// Lets waiting sequences in while there are pages for their longest answer.
    fn admit(&mut self, pages: &mut Pages) {
        while let Some(next) = self.waiting.front() {
            let Some(reserved) = pages.reserve(next.capacity) else { break };
            if let Some(mut sequence) = self.waiting.pop_front() {
                sequence.pages = reserved;
                self.active.push(sequence);
            }
        }
    }

    /// The active sequence of a request.
    pub(crate) fn sequence(&mut self, request: usize) -> Option<&mut Sequence> {
        self.active.iter_mut().find(|s| s.request == request)
    }

    /// Takes a finished sequence out.
    pub(crate) fn finish(&mut self, request: usize, pages: &mut Pages) {
        if let Some(i) = self.active.iter().position(|s| s.request == request) {
            pages.release(self.active.remove(i).pages);
        }
    }

    /// Whether sweeps will follow the one that `fill` chose, whatever its logits say.
    pub(crate) fn more(&self) -> bool {
        let unfinished = |s: &Sequence| match s.want {
            Want::Last => s.computed < s.tokens.len() || s.tokens.len() + 1 < s.capacity,
            Want::All => s.computed < s.tokens.len(),
        };
        !self.waiting.is_empty() || self.active.iter().any(unfinished)
    }
}

/// Adds the next rows of a sequence, as far as limits allow.
fn take_rows(sequence: &mut Sequence, rows: &mut Rows, limits: Limits, chunk: usize) {
    let last = sequence.tokens.len();
    let end = last.min(sequence.computed.saturating_add(chunk));
    if sequence.computed >= end || rows.tokens.len() >= limits.rows_max {
        return;
    }
    let table = rows.pages.len() as u32;
    rows.pages.extend(&sequence.pages);
    for position in sequence.computed..end {
        let logits = sequence.want == Want::All || position + 1 == last;
        let full = rows.tokens.len() >= limits.rows_max
            || (logits && rows.logit_rows.len() >= limits.logit_rows_max);
        if full {
            break;
        }
        if logits {
            rows.logit_rows.push(rows.tokens.len() as u32);
            rows.owners.push((sequence.request, position));
        }
        rows.tokens.push(sequence.tokens[position]);
        rows.places.push(RowPlace { position: position as u32, table });
        rows.lengths.push(sequence.prompt.max(position + 1) as u32);
        sequence.computed = position + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { rows_max: 6, logit_rows_max: 2 };

    #[test]
    fn decoding_rows_come_first_and_prompts_fill_the_rest() {
        let sequences = [(0, 3), (1, 9)].map(|(i, n)| Sequence::new(i, vec![7; n], 4, Want::Last));
        let mut schedule = Schedule::new(sequences);
        let (mut rows, mut pages) = (Rows::default(), Pages::new(10, 16));
        assert!(schedule.fill(&mut rows, LIMITS, &mut pages, usize::MAX));
        assert_eq!((rows.tokens.len(), rows.owners.as_slice()), (6, &[(0, 2)][..]));
        schedule.sequence(0).unwrap().tokens.push(5);
        assert!(schedule.fill(&mut rows, LIMITS, &mut pages, usize::MAX));
        assert_eq!(rows.tokens, [5, 7, 7, 7, 7, 7]);
        assert!(rows.decodes && schedule.more());
        assert_eq!(rows.owners, [(0, 3)]);
    }

    #[test]
    fn a_sequence_waits_until_its_longest_answer_has_pages() {
        let sequences = (0..3).map(|i| Sequence::new(i, vec![1; 10], 6, Want::Last));
        let mut schedule = Schedule::new(sequences);
        let (mut rows, mut pages) = (Rows::default(), Pages::new(2, 16));
        schedule.fill(&mut rows, Limits { rows_max: 100, logit_rows_max: 100 }, &mut pages, usize::MAX);
        assert_eq!(schedule.active.len(), 2);
        schedule.finish(0, &mut pages);
        schedule.fill(&mut rows, Limits { rows_max: 100, logit_rows_max: 100 }, &mut pages, usize::MAX);
        assert_eq!(schedule.active.iter().map(|s| s.request).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn scored_rows_are_bounded_by_logit_rows_and_chunks() {
        for (chunk, wanted) in [(usize::MAX, vec![2, 2, 1]), (1, vec![1, 1, 1, 1, 1])] {
            let mut schedule = Schedule::new([Sequence::new(0, vec![1; 5], 0, Want::All)]);
            let (mut rows, mut pages) = (Rows::default(), Pages::new(2, 16));
            let mut taken = Vec::new();
            while schedule.fill(&mut rows, LIMITS, &mut pages, chunk) {
                taken.push(rows.tokens.len());
            }
            assert_eq!(taken, wanted);
        }
    }
}
