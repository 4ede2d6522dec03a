//! Which rows ride on which sweep.
//!
//! Every sweep carries the decoding rows of all active sequences, then rows of prompts in the order of arrival, up to
//! the plan's rows. A sequence enters while there are rows for it and when the pages that its longest answer needs are
//! free; it leaves when it is finished. What rows it shares a sweep with never changes its bits.

use aerostat_backend::{Placement, RowPlace};
use aerostat_model::{Batch, Limits, Pages};

use crate::Error;
use crate::task::Task;

/// The rows of one sweep and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) tokens: Vec<u32>,
    places: Vec<RowPlace>,
    pages: Vec<u32>,
    lengths: Vec<u32>,
    logit_rows: Vec<u32>,
    /// For each logit row, the index of its active sequence and its position.
    pub(crate) owners: Vec<(usize, usize)>,
    /// Some row continues an answer.
    pub(crate) decodes: bool,
    /// Some row is of a sequence that is to be answered.
    pub(crate) generates: bool,
    /// Rows of sequences that are not to be answered.
    pub(crate) given: u64,
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
        (self.decodes, self.generates, self.given) = (false, false, 0);
    }
}

/// A sequence on its way through the model.
#[derive(Debug)]
pub(crate) struct Sequence<'t> {
    /// The request it belongs to.
    pub(crate) id: u64,
    /// Prompt and answer so far.
    pub(crate) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// Positions whose keys and values are in the cache once the sweep at hand is done.
    pub(crate) computed: usize,
    /// Positions it can have at most.
    capacity: usize,
    pages: Vec<u32>,
    pub(crate) task: Task<'t>,
    /// Its logits were not numbers.
    pub(crate) not_finite: bool,
    pub(crate) failed: Option<Error>,
}

impl<'t> Sequence<'t> {
    pub(crate) fn with_task(
        id: u64,
        tokens: Vec<u32>,
        prompt: usize,
        capacity: usize,
        task: Task<'t>,
    ) -> Self {
        let pages = Vec::new();
        Self { id, tokens, prompt, computed: 0, capacity, pages, task, not_finite: false, failed: None }
    }

    fn decodes(&self) -> bool {
        self.computed >= self.prompt
    }

    fn generates(&self) -> bool {
        matches!(self.task, Task::Generate(_))
    }
}

/// Where the next sequence comes from.
pub(crate) type Next<'a, 't> = &'a mut dyn FnMut() -> Result<Option<Sequence<'t>>, Error>;

/// The sequences that are active, in order of arrival, and the one that waits for room.
#[derive(Debug)]
pub(crate) struct Schedule<'t> {
    waiting: Option<Sequence<'t>>,
    pub(crate) active: Vec<Sequence<'t>>,
    /// Rows of one sequence in one sweep at most.
    chunk: usize,
}

impl<'t> Schedule<'t> {
    pub(crate) fn new(chunk: usize) -> Self {
        Self { waiting: None, active: Vec::new(), chunk }
    }

    /// Chooses the rows of the next sweep; false if there is nothing left to do.
    pub(crate) fn fill(
        &mut self,
        rows: &mut Rows,
        limits: Limits,
        pages: &mut Pages,
        next: Next<'_, 't>,
    ) -> Result<bool, Error> {
        rows.clear();
        for decoding in [true, false] {
            for index in 0..self.active.len() {
                if self.active[index].decodes() == decoding {
                    self.take_rows(index, rows, limits);
                }
            }
        }
        while self.admit(rows, limits, pages, next)? {
            self.take_rows(self.active.len() - 1, rows, limits);
        }
        Ok(!rows.tokens.is_empty())
    }

    /// Lets the next sequence in if there are rows and pages for it.
    fn admit(
        &mut self,
        rows: &Rows,
        limits: Limits,
        pages: &mut Pages,
        next: Next<'_, 't>,
    ) -> Result<bool, Error> {
        let full = rows.tokens.len() >= limits.rows_max || rows.logit_rows.len() >= limits.logit_rows_max;
        // More than can have logits would hold pages and wait for each other.
        if full || self.active.len() >= limits.logit_rows_max {
            return Ok(false);
        }
        if self.waiting.is_none() {
            self.waiting = next()?;
        }
        let Some(mut sequence) = self.waiting.take() else { return Ok(false) };
        match pages.reserve(sequence.capacity) {
            Some(reserved) => sequence.pages = reserved,
            None => {
                self.waiting = Some(sequence);
                return Ok(false);
            }
        }
        self.active.push(sequence);
        Ok(true)
    }

    /// Takes finished sequences out.
    pub(crate) fn take_done(&mut self, pages: &mut Pages) -> Vec<Sequence<'t>> {
        let done: Vec<Sequence<'t>> = self.active.extract_if(.., |s| s.done()).collect();
        done.into_iter().map(|s| without_pages(s, pages)).collect()
    }

    /// Takes all sequences out.
    pub(crate) fn clear(&mut self, pages: &mut Pages) -> Vec<Sequence<'t>> {
        let all = self.active.drain(..).chain(self.waiting.take());
        all.map(|s| without_pages(s, pages)).collect()
    }

    /// Whether sweeps will follow the one that `fill` chose, whatever its logits say.
    pub(crate) fn more(&self) -> bool {
        let unfinished = |s: &Sequence<'_>| s.computed < s.end() || s.generates() && s.tokens_left() > 1;
        self.waiting.is_some() || self.active.iter().any(unfinished)
    }

    /// Tokens that active sequences may still take.
    pub(crate) fn tokens_left(&self) -> u64 {
        self.active.iter().chain(&self.waiting).map(|s| s.tokens_left() as u64).sum()
    }

    /// Adds the next rows of an active sequence, as far as limits allow.
    fn take_rows(&mut self, index: usize, rows: &mut Rows, limits: Limits) {
        let sequence = &mut self.active[index];
        let end = sequence.end().min(sequence.computed.saturating_add(self.chunk));
        if sequence.computed >= end || rows.tokens.len() >= limits.rows_max {
            return;
        }
        rows.decodes |= sequence.decodes();
        rows.generates |= sequence.generates();
        let table = rows.pages.len() as u32;
        rows.pages.extend(&sequence.pages);
        let logits_from = sequence.logits_from();
        for position in sequence.computed..end {
            let logits = position >= logits_from;
            let full = rows.tokens.len() >= limits.rows_max
                || (logits && rows.logit_rows.len() >= limits.logit_rows_max);
            if full {
                break;
            }
            if logits {
                rows.logit_rows.push(rows.tokens.len() as u32);
                rows.owners.push((index, position));
            }
            rows.tokens.push(sequence.tokens[position]);
            rows.places.push(RowPlace { position: position as u32, table });
            rows.lengths.push(sequence.prompt.max(position + 1) as u32);
            rows.given += u64::from(!sequence.generates());
            sequence.computed = position + 1;
        }
    }
}

fn without_pages<'t>(mut sequence: Sequence<'t>, pages: &mut Pages) -> Sequence<'t> {
    pages.release(std::mem::take(&mut sequence.pages));
    sequence
}

#[cfg(test)]
mod tests {
    use crate::Silent;
    use crate::run::{Request, Want};

    use super::*;

    const LIMITS: Limits = Limits { rows_max: 6, logit_rows_max: 2 };

    fn sequence(id: u64, tokens: usize, max_new_tokens: usize, want: Want) -> Sequence<'static> {
        let request = Request { id, token_ids: vec![7; tokens], max_new_tokens, want, ..Request::default() };
        Sequence::new(request, None, &mut Silent).unwrap()
    }

    /// Takes a token for every sequence whose last row has logits.
    fn answer(schedule: &mut Schedule<'_>, rows: &Rows) {
        let mut sampler = crate::logits::Sampler::default();
        for &(index, position) in &rows.owners {
            schedule.active[index].take_logits(position, &[0.0, 1.0], &mut sampler, &mut Silent);
        }
    }

    #[test]
    fn decoding_rows_come_first_and_prompts_fill_the_rest() {
        let mut coming = vec![sequence(1, 9, 4, Want::Generate), sequence(0, 3, 4, Want::Generate)];
        let mut next = || Ok(coming.pop());
        let mut schedule = Schedule::new(usize::MAX);
        let (mut rows, mut pages) = (Rows::default(), Pages::new(10, 16));
        assert!(schedule.fill(&mut rows, LIMITS, &mut pages, &mut next).unwrap());
        assert_eq!((rows.tokens.len(), rows.owners.as_slice()), (6, &[(0, 2)][..]));
        answer(&mut schedule, &rows);
        assert!(schedule.fill(&mut rows, LIMITS, &mut pages, &mut next).unwrap());
        assert_eq!(rows.tokens, [1, 7, 7, 7, 7, 7]);
        assert!(rows.decodes && schedule.more());
        assert_eq!(rows.owners, [(0, 3)]);
    }

    #[test]
    fn a_sequence_waits_until_its_longest_answer_has_pages() {
        let mut coming: Vec<_> = (0..3).rev().map(|i| sequence(i, 10, 7, Want::Generate)).collect();
        let mut next = || Ok(coming.pop());
        let limits = Limits { rows_max: 100, logit_rows_max: 100 };
        let mut schedule = Schedule::new(usize::MAX);
        let (mut rows, mut pages) = (Rows::default(), Pages::new(2, 16));
        schedule.fill(&mut rows, limits, &mut pages, &mut next).unwrap();
        assert_eq!(schedule.active.len(), 2);
        schedule.active[0].failed = Some(Error::interrupted());
        assert_eq!(schedule.take_done(&mut pages).len(), 1);
        schedule.fill(&mut rows, limits, &mut pages, &mut next).unwrap();
        assert_eq!(schedule.active.iter().map(|s| s.id).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn scored_rows_are_bounded_by_logit_rows_and_chunks() {
        let want = Want::Score { from: 1, logits_last: true };
        for (chunk, wanted) in [(usize::MAX, vec![2, 2, 1]), (1, vec![1, 1, 1, 1, 1])] {
            let mut coming = vec![sequence(0, 5, 0, want)];
            let mut next = || Ok(coming.pop());
            let mut schedule = Schedule::new(chunk);
            let (mut rows, mut pages) = (Rows::default(), Pages::new(2, 16));
            let mut taken = Vec::new();
            while schedule.fill(&mut rows, LIMITS, &mut pages, &mut next).unwrap() {
                taken.push(rows.tokens.len());
            }
            assert_eq!(taken, wanted);
        }
    }
}
