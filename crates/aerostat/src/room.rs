//! Whether sequences can grow in the pages there are.
//!
//! A sequence takes pages as it grows, and gives them back when it leaves. Every sequence says how far it may grow, so
//! that two questions can be answered: whether all can go on together without ever waiting for a page ([`fits`]), and
//! whether all can be finished at all, if need be one after the other ([`safe`]).

/// What a sequence holds of the cache, and what it may come to hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// Pages it holds.
    pub(crate) held: usize,
    /// Those of them that nobody else holds: they are free when it leaves.
    pub(crate) own: usize,
    /// Positions it has after the next sweep; one more with every sweep that follows.
    pub(crate) positions: usize,
    /// Positions it can have at most.
    pub(crate) positions_max: usize,
    /// Sweeps after which it has left at the latest, if its prompt is computed.
    pub(crate) sweeps: usize,
    /// Its prompt is not computed yet: how many sweeps that takes depends on others, so that nobody may count on its
    /// leaving.
    pub(crate) begins: bool,
}

impl Claim {
    /// Pages it may still take.
    pub(crate) fn growth(&self, page_tokens: usize) -> usize {
        self.positions_max.div_ceil(page_tokens).saturating_sub(self.held)
    }

    /// Pages that it has taken in addition once so many sweeps are over.
    fn grown(&self, sweeps: usize, page_tokens: usize) -> usize {
        let positions = (self.positions + sweeps.saturating_sub(1)).min(self.positions_max);
        positions.div_ceil(page_tokens).saturating_sub(self.held)
    }
}

/// Whether sequences that go on together, each by a position a sweep, never need more pages than are `available` and
/// come free as others leave. What is needed is greatest just before one of them leaves.
pub(crate) fn fits(claims: &[Claim], available: usize, page_tokens: usize) -> bool {
    if claims.iter().map(|c| c.growth(page_tokens)).sum::<usize>() <= available {
        return true;
    }
    claims.iter().all(|at| {
        let (mut taken, mut free) = (0, available);
        for claim in claims {
            match claim.sweeps < at.sweeps && !claim.begins {
                true => free += claim.own,
                false => taken += claim.grown(at.sweeps, page_tokens),
            }
        }
        taken <= free
    })
}

/// Whether there is an order in which each sequence can take all it may still need, once those before it have left: those
/// that need least first, which is the best order there is.
pub(crate) fn safe(claims: &mut [Claim], available: usize, page_tokens: usize) -> bool {
    claims.sort_by_key(|c| c.growth(page_tokens));
    let mut free = available;
    claims.iter().all(|claim| {
        let enough = claim.growth(page_tokens) <= free;
        free += claim.own;
        enough
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence of its own pages that has so many positions and takes so many more.
    fn claim(positions: usize, more: usize) -> Claim {
        let held = positions.div_ceil(16);
        let (positions, positions_max) = (positions + 1, positions + more);
        Claim { held, own: held, positions, positions_max, sweeps: more, begins: false }
    }

    /// A prompt of many chunks was thought to leave as soon as its answer is short, and others found no page.
    #[test]
    fn nobody_counts_on_pages_of_those_whose_prompts_are_not_computed() {
        let begins = Claim { begins: true, ..claim(16, 8) };
        assert!(fits(&[claim(32, 40), claim(16, 8)], 2, 16));
        assert!(!fits(&[claim(32, 40), begins], 2, 16));
        assert!(fits(&[claim(32, 40), begins], 4, 16));
    }

    #[test]
    fn those_that_leave_make_room_for_those_that_grow() {
        // The first leaves with two pages before the other needs its third.
        for (claims, available, together, at_all) in [
            (vec![claim(32, 40), claim(16, 8)], 2, true, true),
            (vec![claim(32, 40), claim(16, 8)], 1, false, false),
            // Both need their next page at the same time: one after the other.
            (vec![claim(16, 16), claim(16, 16)], 1, false, true),
            (vec![claim(16, 32), claim(16, 32)], 1, false, false),
            (vec![claim(16, 32), claim(16, 32)], 3, false, true),
            (vec![claim(16, 32), claim(16, 32)], 4, true, true),
            (vec![], 0, true, true),
        ] {
            assert_eq!(fits(&claims, available, 16), together, "{claims:?} in {available}");
            assert_eq!(safe(&mut claims.clone(), available, 16), at_all, "{claims:?} in {available}");
        }
    }

    #[test]
    fn pages_that_others_hold_too_do_not_come_free() {
        let shared = |claim: Claim| Claim { own: 0, ..claim };
        let claims = [claim(32, 40), claim(16, 8)].map(shared);
        assert!(!fits(&claims, 2, 16) && !safe(&mut claims.clone(), 2, 16));
        assert!(fits(&claims, 4, 16) && safe(&mut claims.clone(), 4, 16));
    }

    proptest::proptest! {
        #[test]
        fn what_goes_on_together_can_also_be_done_in_turn(
            lengths in proptest::collection::vec((1usize..100, 1usize..60), 0..8), available in 0usize..20,
        ) {
            let mut claims: Vec<Claim> = lengths.iter().map(|(has, more)| claim(*has, *more)).collect();
            if fits(&claims, available, 16) {
                proptest::prop_assert!(safe(&mut claims, available, 16));
            }
        }
    }
}
