//! Experts in memory beside the ring: each lies in slots of its own, which reads fill without a copy.

use std::ops::Deref;
use std::sync::Arc;

use aerostat_arch::ModelSpec;
use aerostat_backend::HostBytes;
use aerostat_plan::Plan;
use aerostat_stream::{CacheSlot, Ring, Tile};

use crate::Error;
use crate::residency::{Place, Residency};

/// Experts in memory, block by block.
pub(crate) struct ExpertCache {
    blocks: Vec<Block>,
}

struct Block {
    residency: Residency,
    slots: Vec<Slot>,
}

/// Room for one expert: a slot of the source's for each tile, and the tiles that have come.
struct Slot {
    places: Vec<CacheSlot>,
    tiles: Vec<Arc<Tile>>,
}

/// A tile that stays, as a device borrows it.
struct Shared(Arc<Tile>);

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl ExpertCache {
    /// With the plan's slots, all empty.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(crate) fn new(plan: &Plan, spec: &ModelSpec, ring: &Ring) -> Result<Self, Error> {
        let mut blocks = Vec::new();
        for (index, block) in spec.blocks.iter().enumerate() {
            let experts = block.experts.as_ref().map_or(0, |experts| experts.mlps.len());
            // What is pinned as a whole has slots of no use.
            let slots = if plan.resident { 0 } else { plan.expert_slots.get(index).copied().unwrap_or(0) };
            let sizes = if slots == 0 { Vec::new() } else { plan.expert_tile_sizes(spec, index) };
            let sizes: Vec<usize> = sizes.iter().map(|size| *size as usize).collect();
            let mut places = ring.cache_slots(&sizes.repeat(slots))?.into_iter();
            let slot = |_| Slot { places: places.by_ref().take(sizes.len()).collect(), tiles: Vec::new() };
            let slots: Vec<Slot> = (0..slots).map(slot).collect();
            blocks.push(Block { residency: Residency::new(slots.len(), experts), slots });
        }
        Ok(Self { blocks })
    }

    /// How many experts of the block were used since this one was; `None`: it never was.
    pub(crate) fn used_since(&self, block: usize, expert: u32) -> Option<usize> {
        self.blocks.get(block)?.residency.used_since(expert)
    }

    /// A sweep uses these experts of a block: where each is found. Slots whose experts have to leave are free from now on.
    pub(crate) fn sweep(&mut self, block: usize, used: &[u32]) -> Vec<Place> {
        let Some(block) = self.blocks.get_mut(block) else { return vec![Place::Passing; used.len()] };
        let places = block.residency.sweep(used);
        for place in &places {
            if let Place::Into(slot) = place {
                block.slots[*slot].tiles.clear();
            }
        }
        places
    }

    /// Puts an expert into an empty slot, before any sweep.
    pub(crate) fn put(&mut self, block: usize, slot: usize, expert: u32) {
        self.blocks[block].residency.put(slot, expert);
    }

    /// Where a tile of the expert in a slot is read to.
    pub(crate) fn room(&self, block: usize, slot: usize, tile: usize) -> Option<&CacheSlot> {
        self.blocks.get(block)?.slots.get(slot)?.places.get(tile)
    }

    /// The next tile of the expert in a slot has come.
    pub(crate) fn keep(&mut self, block: usize, slot: usize, tile: Tile) -> HostBytes {
        let tile = Arc::new(tile);
        self.blocks[block].slots[slot].tiles.push(Arc::clone(&tile));
        Box::new(Shared(tile))
    }

    /// A tile that is there.
    pub(crate) fn tile(&self, block: usize, slot: usize, tile: usize) -> Option<HostBytes> {
        let tile = self.blocks.get(block)?.slots.get(slot)?.tiles.get(tile)?;
        Some(Box::new(Shared(Arc::clone(tile))))
    }

    /// Forgets the experts of a block, whose tiles may be damaged or half there.
    pub(crate) fn forget(&mut self, block: usize) {
        let Some(block) = self.blocks.get_mut(block) else { return };
        for (index, slot) in block.slots.iter_mut().enumerate() {
            slot.tiles.clear();
            block.residency.empty(index);
        }
    }
}
