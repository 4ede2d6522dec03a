//! Who is put aside so that urgent sequences can enter at once.

use aerostat_model::Pages;

use crate::room::{self, Claim};
use crate::sequence::Sequence;

/// What the cache has for sequences that are to enter, if some of those that are active were not.
#[derive(Clone, Debug)]
struct Vacancy {
    /// What is active, by its place in the list.
    claims: Vec<(usize, Claim)>,
    pages: usize,
    states: usize,
}

impl Vacancy {
    /// Whether a sequence that needs so many pages to begin with has room, and all others to grow beside it.
    fn takes(&self, (begin, claim): (usize, Claim), spills: bool, page_tokens: usize) -> bool {
        let claims = || self.claims.iter().map(|(_, claim)| *claim).chain([claim]).collect::<Vec<_>>();
        self.states > 0
            && self
                .pages
                .checked_sub(begin)
                .is_some_and(|left| spills || room::fits(&claims(), left, page_tokens))
    }

    fn leave(&mut self, index: usize, sequence: &Sequence<'_>) {
        if let Some(at) = self.claims.iter().position(|(place, _)| *place == index) {
            self.pages += self.claims.remove(at).1.own;
            self.states = self.states.saturating_add(usize::from(sequence.state.is_some()));
        }
    }
}

/// The places in `active` of sequences to be put aside until those `waiting` can enter, which are urgent, in turn: first
/// those that have most left to generate, which have computed least. None for one that would not have room even so, and
/// for those after it. Where pages `spill`, others need none to grow.
pub(crate) fn yielding<'a, 't: 'a>(
    waiting: impl Iterator<Item = &'a Sequence<'t>>,
    active: &[Sequence<'t>],
    pages: &Pages,
    spill: bool,
) -> Vec<usize> {
    let page_tokens = pages.page_tokens();
    let claims = active.iter().map(|s| s.claim(pages)).enumerate().collect();
    let mut vacancy = Vacancy { claims, pages: pages.available(), states: pages.states_available() };
    let may_yield = |i: &usize| !active[*i].urgent && active[*i].generates() && !active[*i].done();
    let mut order: Vec<usize> = (0..active.len()).filter(may_yield).collect();
    order.sort_by_key(|&i| active[i].due());
    let mut aside = Vec::new();
    for sequence in waiting {
        let positions = sequence.tokens.len() + if spill { page_tokens } else { 0 };
        let begin = pages.needed(positions.min(sequence.capacity));
        let claim = Claim { held: begin, own: begin, ..sequence.claim(pages) };
        let (mut then, mut more) = (vacancy.clone(), Vec::new());
        while !then.takes((begin, claim), spill, page_tokens) {
            let Some(index) = order.pop() else { return aside };
            then.leave(index, &active[index]);
            more.push(index);
        }
        aside.append(&mut more);
        (then.pages, then.states) = (then.pages - begin, then.states - 1);
        then.claims.push((usize::MAX, claim));
        vacancy = then;
    }
    aside
}
