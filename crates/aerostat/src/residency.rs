//! Which experts of a block are in memory: those that were used last.
//!
//! Text keeps to the same experts for a while, so one that was used lately is likely to be used again. Whoever is used and
//! not there takes the place of the one that was not used for longest; but no expert that the sweep at hand uses makes room
//! for another of it. A sweep that uses more than there is room for thus keeps what it finds, and the rest passes.

/// The experts of one block, and the slots for some of them.
#[derive(Clone, Debug)]
pub(crate) struct Residency {
    /// The expert in each slot.
    slots: Vec<Option<u32>>,
    /// The slot of each expert.
    places: Vec<Option<usize>>,
    /// When each expert was last used: the number of that use; 0: never.
    last: Vec<u64>,
    /// Uses so far.
    uses: u64,
}

/// Where an expert that is used is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this slot.
    Here(usize),
    /// On the disk; it is kept in this slot from now on.
    Into(usize),
    /// On the disk, and there is no room to keep it.
    Passing,
}

impl Residency {
    pub(crate) fn new(slots: usize, experts: usize) -> Self {
        Self { slots: vec![None; slots], places: vec![None; experts], last: vec![0; experts], uses: 0 }
    }

    /// A sweep uses these experts, each named once, in this order: where each is found.
    pub(crate) fn sweep(&mut self, used: &[u32]) -> Vec<Place> {
        let before = self.uses;
        // Those that may leave, the one to leave first last; empty slots before all.
        let held = self.slots.iter().enumerate();
        let held = held.map(|(slot, expert)| (expert.map_or(0, |e| self.last[e as usize] + 1), slot));
        let mut leaving: Vec<(u64, usize)> = held.collect();
        leaving.sort_unstable_by(|a, b| b.cmp(a));
        for expert in used {
            self.uses += 1;
            self.last[*expert as usize] = self.uses;
        }
        leaving.retain(|(_, slot)| self.slots[*slot].is_none_or(|e| self.last[e as usize] <= before));
        used.iter().map(|expert| self.place(*expert, &mut leaving)).collect()
    }

    fn place(&mut self, expert: u32, leaving: &mut Vec<(u64, usize)>) -> Place {
        match (self.places[expert as usize], leaving.is_empty()) {
            (Some(slot), _) => Place::Here(slot),
            (None, true) => Place::Passing,
            (None, false) => {
                let slot = leaving.pop().map_or(0, |(_, slot)| slot);
                self.put(slot, expert);
                Place::Into(slot)
            }
        }
    }

    /// Puts an expert into a slot, in place of what is there.
    pub(crate) fn put(&mut self, slot: usize, expert: u32) {
        self.empty(slot);
        self.slots[slot] = Some(expert);
        self.places[expert as usize] = Some(slot);
    }

    /// What was to be in a slot is not.
    pub(crate) fn empty(&mut self, slot: usize) {
        if let Some(before) = self.slots[slot].take() {
            self.places[before as usize] = None;
        }
    }

    /// How many other experts were used since this one was; `None`: it never was.
    pub(crate) fn used_since(&self, expert: u32) -> Option<usize> {
        let when = self.last[expert as usize];
        (when > 0).then(|| self.last.iter().filter(|last| **last > when).count())
    }
}

#[cfg(test)]
mod tests {
    use super::Place::{Here, Into, Passing};
    use super::*;

    #[test]
    fn the_one_that_was_not_used_for_longest_makes_room() {
        let mut residency = Residency::new(3, 8);
        assert_eq!(residency.sweep(&[5, 2]), [Into(0), Into(1)]);
        assert_eq!(residency.sweep(&[2, 7]), [Here(1), Into(2)]);
        assert_eq!(residency.sweep(&[1, 2]), [Into(0), Here(1)], "5 leaves");
        let since = [5, 7, 2, 0].map(|expert| residency.used_since(expert));
        assert_eq!(since, [Some(3), Some(2), Some(0), None]);
        assert_eq!(residency.sweep(&[0, 5]), [Into(2), Into(0)], "7 leaves, then 1");
    }

    #[test]
    fn a_sweep_that_uses_more_than_there_is_room_for_keeps_what_it_finds() {
        let mut residency = Residency::new(3, 8);
        residency.sweep(&[1, 2, 3]);
        let all: Vec<u32> = (0..8).collect();
        for _ in 0..3 {
            let places = residency.sweep(&all);
            assert_eq!(places, [Passing, Here(0), Here(1), Here(2), Passing, Passing, Passing, Passing]);
        }
        // One that the sweep does not use makes room for one that it does.
        assert_eq!(residency.sweep(&[0, 1, 3, 4]), [Into(1), Here(0), Here(2), Passing]);
        residency.empty(1);
        assert_eq!(residency.sweep(&[0]), [Into(1)]);
        assert_eq!(Residency::new(0, 2).sweep(&[0, 1]), [Passing, Passing]);
    }
}
