//! Weights as they come from the disk: what every sweep uses ahead of time, experts once they are known.
//!
//! Tiles that are certain are asked for in the order of the sweep, up to the first block whose router has not spoken and a
//! few beyond it, so that the disk has work while the router computes. The experts of that block queue up behind those few.
//! When experts are taken out, the tiles before them are set aside: they hold buffers of the ring, but fewer than there
//! are. Without experts a whole sweep is asked for at once, and the next one's blocks too.

use std::collections::VecDeque;

use aerostat_arch::ModelSpec;
use aerostat_checkpoint::Extent;
use aerostat_plan::{Plan, Step};
use aerostat_stream::{CacheSlot, Error, Ring, Tile};

/// The streamed tiles of sweep after sweep.
pub(crate) struct Flow {
    pub(crate) ring: Ring,
    certain: Certain,
    /// What the ring will give, in order.
    order: VecDeque<Kind>,
    /// Certain tiles that came before the experts that were needed first.
    aside: VecDeque<Tile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Certain,
    Expert,
}

impl Flow {
    /// For this plan; the ring has its buffers.
    pub(crate) fn new(ring: Ring, plan: &Plan, spec: &ModelSpec) -> Self {
        let certain = Certain::new(plan, spec, (ring.slots() / 4).max(1));
        Self { ring, certain, order: VecDeque::new(), aside: VecDeque::new() }
    }

    /// Begins a sweep, with or without the head. `more`: another is likely to follow.
    pub(crate) fn begin(&mut self, head: bool, more: bool) -> Result<(), Error> {
        self.certain.begin(head, more);
        self.ask()
    }

    /// The router of the next block with experts has spoken: these are the tiles it asks for, each with the slot that it is
    /// to stay in, if it is.
    pub(crate) fn route(&mut self, experts: &[(Extent, Option<&CacheSlot>)]) -> Result<(), Error> {
        for (extent, stays) in experts {
            match stays {
                Some(slot) => self.ring.request_into(*extent, slot)?,
                None => self.ring.request(&[*extent])?,
            }
            self.order.push_back(Kind::Expert);
        }
        self.certain.spoken += 1;
        self.ask()
    }

    /// The next certain tile.
    pub(crate) fn certain(&mut self) -> Result<Tile, Error> {
        match self.aside.pop_front() {
            Some(tile) => Ok(tile),
            None => {
                self.order.pop_front();
                self.ring.next()
            }
        }
    }

    /// The next tile of an expert.
    pub(crate) fn expert(&mut self) -> Result<Tile, Error> {
        while self.order.pop_front() == Some(Kind::Certain) {
            let tile = self.ring.next()?;
            self.aside.push_back(tile);
        }
        self.ring.next()
    }

    /// Forgets tiles that were asked for; the next sweep starts afresh.
    pub(crate) fn cancel(&mut self) {
        self.aside.clear();
        self.order.clear();
        self.ring.cancel();
        self.certain.forget();
    }

    fn ask(&mut self) -> Result<(), Error> {
        let (this, next) = self.certain.due();
        for range in [this, next] {
            self.ring.request(&self.certain.tiles[range.clone()])?;
            self.order.extend(range.map(|_| Kind::Certain));
        }
        Ok(())
    }
}

/// Which of the tiles that every sweep uses have been asked for.
#[derive(Debug)]
struct Certain {
    /// The streamed ones, the head's last.
    tiles: Vec<Extent>,
    /// The first of the head.
    head: usize,
    /// For each block with experts, how many of `tiles` come before them. What their sum is multiplied by comes after: asked
    /// for before, it would take the buffers that they need.
    gates: Vec<usize>,
    /// How many are asked for past a gate that is not yet open.
    beyond: usize,
    /// Asked for: of this sweep, and of the next.
    asked: (usize, usize),
    /// How many this sweep uses.
    end: usize,
    more: bool,
    /// Gates that are open in this sweep.
    spoken: usize,
}

impl Certain {
    fn new(plan: &Plan, spec: &ModelSpec, beyond: usize) -> Self {
        let streamed = plan.steps.iter().filter(|s| s.is_streamed());
        let is_before = |s: &Step, block| s.block < block || s.block == block && !s.role.follows_experts();
        let before = |block: usize| streamed.clone().take_while(|s| is_before(s, block)).count();
        let blocks = spec.blocks.iter().enumerate();
        let gates = blocks.filter(|(_, block)| block.experts.is_some()).map(|(i, _)| before(i)).collect();
        Self {
            tiles: streamed.clone().map(|s| s.extent).collect(),
            head: streamed.clone().take_while(|s| s.block < spec.blocks.len()).count(),
            gates,
            beyond,
            asked: (0, 0),
            end: 0,
            more: false,
            spoken: 0,
        }
    }

    fn begin(&mut self, head: bool, more: bool) {
        self.asked = (self.asked.1, 0);
        self.end = if head { self.tiles.len() } else { self.head };
        self.more = more;
        self.spoken = 0;
    }

    fn forget(&mut self) {
        self.asked = (0, 0);
    }

    /// The tiles of this sweep, and of the next, that can be asked for now and have not been.
    fn due(&mut self) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let gate = self.gates.get(self.spoken).map_or(usize::MAX, |gate| gate + self.beyond);
        let this = self.asked.0..self.end.min(gate).max(self.asked.0);
        let first = self.gates.first().map_or(usize::MAX, |gate| gate + self.beyond);
        let next = if self.more { gate.saturating_sub(self.end).min(first).min(self.head) } else { 0 };
        let next = self.asked.1..next.max(self.asked.1);
        self.asked = (this.end, next.end);
        (this, next)
    }
}

#[cfg(test)]
mod tests {
    use aerostat_checkpoint::FileId;

    use super::*;

    fn certain(gates: &[usize], beyond: usize) -> Certain {
        let tiles = (0..10).map(|i| Extent { file: FileId(0), offset: i, bytes: 1 }).collect();
        let gates = gates.to_vec();
        Certain { tiles, head: 8, gates, beyond, asked: (0, 0), end: 0, more: false, spoken: 0 }
    }

    #[test]
    fn without_experts_a_sweep_and_the_next_are_asked_for_at_once() {
        let mut all = certain(&[], 3);
        all.begin(true, true);
        assert_eq!(all.due(), (0..10, 0..8));
        all.begin(false, false);
        assert_eq!(all.due(), (8..8, 0..0));
        all.begin(true, false);
        assert_eq!(all.due(), (0..10, 0..0));
    }

    #[test]
    fn a_silent_router_holds_back_all_but_a_few() {
        let mut all = certain(&[3, 7], 2);
        all.begin(true, true);
        assert_eq!(all.due(), (0..5, 0..0));
        assert_eq!(all.due(), (5..5, 0..0));
        all.spoken = 1;
        assert_eq!(all.due(), (5..9, 0..0));
        all.spoken = 2;
        assert_eq!(all.due(), (9..10, 0..5));
        all.begin(false, true);
        assert_eq!(all.due(), (5..5, 0..0));
        all.spoken = 1;
        assert_eq!(all.due(), (5..8, 0..1));
        all.spoken = 2;
        assert_eq!(all.due(), (8..8, 1..5));
    }
}
