//! The rows of one sweep.

use aerostat_backend::{Placement, RowPlace, StateRow};
use aerostat_model::Batch;
use aerostat_plan::Guesses;

use crate::request::Layer;

/// The rows of one sweep and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) tokens: Vec<u32>,
    pub(crate) places: Vec<RowPlace>,
    pub(crate) pages: Vec<u32>,
    /// Where guesses lie in the cache.
    pub(crate) slots: Vec<u32>,
    pub(crate) lengths: Vec<u32>,
    /// The part of its text that each row is of.
    pub(crate) types: Vec<u32>,
    /// One for each row, if sequences keep recurrent states.
    pub(crate) states: Vec<StateRow>,
    pub(crate) logit_rows: Vec<u32>,
    /// For each logit row but those of guesses, which come last, the index of its active sequence and its position.
    pub(crate) owners: Vec<(usize, usize)>,
    /// The rows whose hidden states are wanted.
    pub(crate) taps: Vec<Tap>,
    /// Some row continues an answer.
    pub(crate) decodes: bool,
    /// Some row is of a sequence that is to be answered.
    pub(crate) generates: bool,
    /// Rows of sequences that are not to be answered.
    pub(crate) given: u64,
    /// The last rows are guesses, so many.
    pub(crate) guesses: Guesses,
}

impl Rows {
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch {
            places: Placement { rows: &self.places, pages: &self.pages, slots: &self.slots },
            lengths: &self.lengths,
            types: &self.types,
            states: &self.states,
            logit_rows: &self.logit_rows,
        }
    }

    /// Whether nothing follows the row of these logits.
    pub(crate) fn is_last(&self, logits: usize) -> bool {
        self.logit_rows.get(logits).is_some_and(|row| *row as usize + 1 == self.tokens.len())
    }

    /// Rows at the end that have the last one's recurrent state.
    pub(crate) fn of_last_state(&self) -> usize {
        let last = self.states.last().map(|state| state.slot);
        self.states.iter().rev().take_while(|state| Some(state.slot) == last).count()
    }

    /// The place of a page table that is added.
    pub(crate) fn table(&mut self, pages: &[u32]) -> u32 {
        self.pages.extend(pages);
        (self.pages.len() - pages.len()) as u32
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.places.clear();
        self.pages.clear();
        self.slots.clear();
        self.lengths.clear();
        self.types.clear();
        self.states.clear();
        self.logit_rows.clear();
        self.owners.clear();
        self.taps.clear();
        (self.decodes, self.generates, self.given) = (false, false, 0);
        self.guesses = Guesses::default();
    }
}

/// A row whose hidden state is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// Among the sweep's rows.
    pub(crate) row: usize,
    /// Of its active sequence.
    pub(crate) index: usize,
    pub(crate) position: usize,
    pub(crate) layer: Layer,
}
