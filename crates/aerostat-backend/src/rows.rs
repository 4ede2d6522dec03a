//! The rows of a sweep: where they stand, and whose states they change.

use crate::delta::{self, StateRun};
use crate::{Error, KvLayout, Placement, RowPlace, SweepRows, Window, check};

/// The rows of a sweep, checked as far as they can be without knowing the op; vectors are used again.
#[derive(Default)]
pub(crate) struct Rows {
    places: Vec<RowPlace>,
    pages: Vec<u32>,
    slots: Vec<u32>,
    /// For each row the first position from which on all pages up to its own exist.
    reaches: Vec<u32>,
    /// Where those are put that are not known to be good.
    next: Vec<u32>,
    runs: Vec<StateRun>,
    /// Rows that have states.
    states: usize,
}

impl Rows {
    /// Sets the rows; without a cache no place can be used.
    pub(crate) fn set(&mut self, layout: Option<&KvLayout>, rows: SweepRows<'_>) -> Result<(), Error> {
        let SweepRows { places, states } = rows;
        if !states.is_empty() && states.len() != places.rows.len() {
            let (states, rows) = (states.len(), places.rows.len());
            return Err(Error::shape(format!("{states} states were given for {rows} rows")));
        }
        let runs = delta::runs(states)?;
        self.next.clear();
        if let Some(layout) = layout {
            for (row, &place) in places.rows.iter().enumerate() {
                let reach = reach(layout, &places, place);
                self.next.push(reach.ok_or_else(|| no_page(row, place, &places, layout))?);
            }
        }
        self.clear();
        std::mem::swap(&mut self.reaches, &mut self.next);
        self.runs.extend(runs);
        self.states = states.len();
        self.places.extend_from_slice(places.rows);
        self.pages.extend_from_slice(places.pages);
        self.slots.extend_from_slice(places.slots);
        Ok(())
    }

    /// No rows.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.pages.clear();
        self.slots.clear();
        self.reaches.clear();
        self.runs.clear();
        self.states = 0;
    }

    /// What was set.
    pub(crate) fn placement(&self) -> Placement<'_> {
        Placement { rows: &self.places, pages: &self.pages, slots: &self.slots }
    }

    /// The runs of rows of sequences, for an op on `wanted` rows over the states of `slots` sequences.
    pub(crate) fn runs(&self, wanted: usize, slots: usize) -> Result<&[StateRun], Error> {
        if self.states != wanted {
            return Err(Error::shape(format!("{} states were set for {wanted} rows", self.states)));
        }
        match self.runs.iter().find(|run| run.slot >= slots) {
            Some(run) => Err(Error::shape(format!("there are {slots} states, but {run:?} needs another"))),
            None => Ok(&self.runs),
        }
    }

    /// The places for an op on `wanted` rows of a layer: it exists, its widths are `key` and `value` (if any is named), and
    /// every row's pages from its first visible position to its own exist; `window` as in [`crate::Attention`].
    pub(crate) fn places(
        &self,
        layout: &KvLayout,
        layer: usize,
        widths: (usize, Option<usize>),
        wanted: usize,
        window: Option<Window>,
    ) -> Result<Placement<'_>, Error> {
        match (layout.key_widths.get(layer), layout.value_widths.get(layer)) {
            (Some(&key), Some(&value)) if key == widths.0 && widths.1.is_none_or(|want| want == value) => {}
            (key, value) => {
                return Err(Error::shape(format!(
                    "layer {layer} of the KV cache has widths {key:?} and {value:?}, not {} and {:?}",
                    widths.0, widths.1
                )));
            }
        }
        if self.reaches.len() != wanted {
            return Err(Error::shape(format!("{} places were set for {wanted} rows", self.reaches.len())));
        }
        for (row, (place, &reach)) in self.places.iter().zip(&self.reaches).enumerate() {
            if check::first_visible(place.position as usize, window) < reach as usize {
                return Err(no_page(row, *place, &self.placement(), layout));
            }
        }
        Ok(self.placement())
    }

    /// What it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = self.places.capacity() * size_of::<RowPlace>()
            + (self.pages.capacity()
                + self.slots.capacity()
                + self.reaches.capacity()
                + self.next.capacity())
                * size_of::<u32>()
            + self.runs.capacity() * size_of::<StateRun>();
        bytes as u64
    }
}

/// What [`Rows`] takes for each row and for each position of the cache: vectors grow to twice what they hold. A page has at
/// least eight positions, and sequences share none.
pub(crate) const ROW_BYTES: u64 =
    2 * (size_of::<RowPlace>() + 3 * size_of::<u32>() + size_of::<StateRun>()) as u64;
pub(crate) const POSITION_BYTES: u64 = 1;

/// The first position from which on all pages and slots up to the row's own exist; `None` where not even that one does.
fn reach(layout: &KvLayout, places: &Placement<'_>, place: RowPlace) -> Option<u32> {
    let total = layout.pages * layout.page_tokens;
    if place.position.max(place.last) as usize >= total {
        return None;
    }
    let Some(branch) = place.branch.filter(|branch| branch.from <= place.position) else {
        return reach_in_pages(layout, places, place);
    };
    let (first, count) = (branch.slots as usize, (place.position - branch.from) as usize);
    let slots = places.slots.get(first..=first.checked_add(count)?)?;
    if slots.iter().any(|slot| *slot as usize >= total) {
        return None;
    }
    if place.last > place.position {
        return None;
    }
    match branch.from.checked_sub(1) {
        None => Some(0),
        Some(before) => {
            let before = RowPlace { position: before, last: before, ..place };
            Some(reach_in_pages(layout, places, before).unwrap_or(branch.from))
        }
    }
}

/// The same of a position that lies in a page.
fn reach_in_pages(layout: &KvLayout, places: &Placement<'_>, place: RowPlace) -> Option<u32> {
    // Those that it may look ahead to exist, too.
    let (position, start) = (place.position.max(place.last) as usize, place.table as usize);
    let own = position / layout.page_tokens;
    let pages = places.pages.get(start..=start.checked_add(own)?)?;
    let exist = pages.iter().rev().take_while(|&&page| (page as usize) < layout.pages).count();
    (exist > 0).then_some(((own + 1 - exist) * layout.page_tokens) as u32)
}

fn no_page(row: usize, place: RowPlace, places: &Placement<'_>, layout: &KvLayout) -> Error {
    Error::shape(format!(
        "row {row} at {place:?} has no valid page for each of its positions: {} entries, {} pages",
        places.pages.len(),
        layout.pages
    ))
}
