//! Weights: those that pass through device memory in slots, and those that stay there.

use aerostat_backend::{
    Error, ErrorKind, Home, HostBytes, Tile, TileShape, UploadId, Weight, WeightId, defect, packed, rules,
};
use wgpu::BufferUsages;

use crate::budget::{Budget, Buffer};
use crate::memory::{Shared, Transfer};
use crate::stream::Stream;

/// Slots of device memory that tiles pass through: one is computed while the next is written.
pub(crate) const SLOTS: usize = 3;
/// Allocations that tiles which stay share: an eighth of what there is, within these bounds.
const CHUNK_BYTES: (u64, u64) = (4 << 20, 64 << 20);
/// Where tiles begin in those.
const ALIGN_BYTES: u64 = 256;

/// All weights.
pub(crate) struct Weights {
    resident: Vec<Resident>,
    /// Memory of tiles that stay, and how much of it is taken.
    chunks: Vec<(Buffer, u64)>,
    places: Vec<(u32, Option<Held>)>,
    free: Vec<u32>,
    slots: Slots,
}

enum Resident {
    Device { shape: TileShape, buffer: Buffer, at: u64 },
    Host(Held),
}

/// A tile in host memory.
struct Held {
    shape: TileShape,
    bytes: HostBytes,
    /// The slot that it is in, and that slot's number of the use.
    slot: Option<(usize, u64)>,
}

/// A tile in device memory.
pub(crate) struct Found {
    /// Not packed.
    pub(crate) shape: TileShape,
    pub(crate) buffer: Buffer,
    /// Where its bytes begin.
    pub(crate) at: u64,
}

/// The slots of tiles that pass through.
struct Slots {
    mapped: bool,
    bytes: u64,
    slots: Vec<Slot>,
    next: usize,
    uses: u64,
}

enum Slot {
    /// The host writes to it.
    Mapped(Shared, u64),
    /// It is copied to.
    Staged(Buffer, u64),
}

impl Weights {
    pub(crate) fn new(mapped: bool) -> Self {
        let slots = Slots { mapped, bytes: 0, slots: Vec::new(), next: 0, uses: 0 };
        Self { resident: Vec::new(), chunks: Vec::new(), places: Vec::new(), free: Vec::new(), slots }
    }

    /// Bytes of tiles that stay, in device memory and in the host's.
    pub(crate) fn resident_bytes(&self) -> (u64, u64) {
        let host = self.resident.iter().map(|tile| match tile {
            Resident::Device { .. } => 0,
            Resident::Host(held) => held.bytes.len() as u64,
        });
        (self.chunks.iter().map(|(chunk, _)| chunk.bytes).sum(), host.sum())
    }

    /// Bytes of slots.
    pub(crate) fn slot_bytes(&self) -> u64 {
        self.slots.bytes * self.slots.slots.len() as u64
    }

    /// Room for tiles of so many bytes to pass through.
    pub(crate) fn reserve(&mut self, bytes: u64, budget: &Budget, stream: &mut Stream) -> Result<(), Error> {
        self.slots.grow(bytes, budget, stream)
    }

    /// Takes a tile that passes through.
    pub(crate) fn upload(&mut self, shape: TileShape, bytes: HostBytes) -> Result<UploadId, Error> {
        if !shape.packed {
            rules::tile(&shape.tile(&bytes))?;
        }
        let place = self.free.pop().unwrap_or(self.places.len() as u32);
        if place as usize == self.places.len() {
            self.places.push((0, None));
        }
        let entry = self.places.get_mut(place as usize).filter(|entry| entry.1.is_none());
        let entry = entry.ok_or_else(|| defect!("place {place} of a weight tile is not free"))?;
        entry.1 = Some(Held { shape, bytes, slot: None });
        Ok(UploadId { place, turn: entry.0 })
    }

    /// Drops a tile that passed through.
    pub(crate) fn release(&mut self, upload: UploadId, stream: &mut Stream) -> Result<(), Error> {
        let entry = self.places.get_mut(upload.place as usize).filter(|entry| entry.0 == upload.turn);
        let Some((entry, held)) = entry.and_then(|entry| entry.1.take().map(|held| (&mut entry.0, held)))
        else {
            debug_assert!(false, "{upload:?} was released before, or never there");
            return Ok(());
        };
        *entry = entry.wrapping_add(1);
        self.free.push(upload.place);
        match held.slot {
            Some(slot) => self.slots.give_back(slot, stream),
            None => Ok(()),
        }
    }

    /// Drops all tiles that were passing through.
    pub(crate) fn release_all(&mut self) {
        for (place, (turn, held)) in self.places.iter_mut().enumerate() {
            if held.take().is_some() {
                *turn = turn.wrapping_add(1);
                self.free.push(place as u32);
            }
        }
    }

    /// Keeps a tile.
    pub(crate) fn pin(
        &mut self,
        shape: TileShape,
        bytes: HostBytes,
        home: Home,
        (budget, stream, transfer): (&Budget, &mut Stream, &mut Transfer),
    ) -> Result<WeightId, Error> {
        if home == Home::Disk {
            let message = "a weight tile whose home is the disk cannot be kept in memory";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let held = Held { shape, bytes: Box::new(bytes.to_vec()), slot: None };
        drop(bytes);
        let mut expanded = Vec::new();
        let (plain, stored) = held.stored(&mut expanded)?;
        rules::tile(&plain.tile(stored))?;
        let kept = match home {
            Home::Device => {
                let (buffer, at) = room(&mut self.chunks, budget, stored.len() as u64)?;
                transfer.write(budget, stream, stored, (&buffer, at))?;
                stream.counters.uploaded_bytes += stored.len() as u64;
                Resident::Device { shape: plain, buffer, at }
            }
            _ => Resident::Host(held),
        };
        self.resident.push(kept);
        Ok(WeightId(self.resident.len() as u32 - 1))
    }

    /// The stored shape of a weight.
    pub(crate) fn shape(&self, weight: Weight) -> Result<TileShape, Error> {
        Ok(match weight {
            Weight::Resident(WeightId(id)) => match self.resident.get(id as usize) {
                Some(Resident::Device { shape, .. }) => *shape,
                Some(Resident::Host(held)) => held.shape,
                None => return Err(no_resident(id, self.resident.len())),
            },
            Weight::Arriving(upload) => self.arriving(upload)?.shape,
        })
    }

    /// The bytes of a weight in host memory, as they are stored, for what is computed there.
    pub(crate) fn host_tile(&self, weight: Weight) -> Result<Tile<'_>, Error> {
        let held = match weight {
            Weight::Resident(WeightId(id)) => match self.resident.get(id as usize) {
                Some(Resident::Host(held)) => held,
                Some(Resident::Device { .. }) => {
                    return Err(Error::shape(format!("resident weight {id} is on the device")));
                }
                None => return Err(no_resident(id, self.resident.len())),
            },
            Weight::Arriving(upload) => self.arriving(upload)?,
        };
        Ok(held.shape.tile(&held.bytes))
    }

    /// A weight in device memory; it is sent there if it is not there yet.
    pub(crate) fn find(
        &mut self,
        weight: Weight,
        (budget, stream, transfer): (&Budget, &mut Stream, &mut Transfer),
    ) -> Result<Found, Error> {
        let count = self.resident.len();
        let held = match weight {
            Weight::Resident(WeightId(id)) => match self.resident.get_mut(id as usize) {
                Some(Resident::Device { shape, buffer, at }) => {
                    return Ok(Found { shape: *shape, buffer: buffer.clone(), at: *at });
                }
                Some(Resident::Host(held)) => held,
                None => return Err(no_resident(id, count)),
            },
            Weight::Arriving(upload) => {
                let entry = self.places.get_mut(upload.place as usize);
                let entry = entry.filter(|entry| entry.0 == upload.turn).and_then(|entry| entry.1.as_mut());
                entry.ok_or_else(|| gone(upload))?
            }
        };
        let shape = TileShape { packed: false, ..held.shape };
        if let Some(buffer) = held.slot.and_then(|slot| self.slots.still(slot)) {
            return Ok(Found { shape, buffer, at: 0 });
        }
        let mut expanded = Vec::new();
        let (shape, stored) = held.stored(&mut expanded)?;
        rules::tile(&shape.tile(stored))?;
        stream.counters.uploaded_bytes += stored.len() as u64;
        let (slot, buffer) = self.slots.take(stored, (budget, stream, transfer))?;
        held.slot = Some(slot);
        Ok(Found { shape, buffer, at: 0 })
    }

    /// Nothing stays in slots that belongs to the host: tiles of the host that stay are sent again when they are used.
    pub(crate) fn used(&mut self, weight: Weight, stream: &mut Stream) -> Result<(), Error> {
        let Weight::Resident(WeightId(id)) = weight else { return Ok(()) };
        match self.resident.get_mut(id as usize) {
            Some(Resident::Host(held)) => match held.slot.take() {
                Some(slot) => self.slots.give_back(slot, stream),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn arriving(&self, upload: UploadId) -> Result<&Held, Error> {
        let entry = self.places.get(upload.place as usize).filter(|entry| entry.0 == upload.turn);
        entry.and_then(|entry| entry.1.as_ref()).ok_or_else(|| gone(upload))
    }
}

impl Held {
    /// Its shape and bytes once they are not packed; every checksum is checked.
    fn stored<'a>(&'a self, expanded: &'a mut Vec<u8>) -> Result<(TileShape, &'a [u8]), Error> {
        if !self.shape.packed {
            return Ok((self.shape, &self.bytes));
        }
        for part in packed::parts(&self.shape.tile(&self.bytes)) {
            part?.expand(expanded)?;
        }
        Ok((TileShape { packed: false, ..self.shape }, expanded))
    }
}

/// Room for a tile that stays.
fn room(chunks: &mut Vec<(Buffer, u64)>, budget: &Budget, bytes: u64) -> Result<(Buffer, u64), Error> {
    let taken = bytes.max(1).next_multiple_of(ALIGN_BYTES);
    let fits = |(chunk, used): &(Buffer, u64)| chunk.bytes - used >= taken;
    let place = chunks.iter().position(fits).unwrap_or(chunks.len());
    if place == chunks.len() {
        let all: u64 = chunks.iter().map(|(chunk, _)| chunk.bytes).sum();
        let wanted = (all / 8).clamp(CHUNK_BYTES.0, CHUNK_BYTES.1);
        let wanted = taken.max(wanted.min(budget.left()).min(budget.buffer_bytes_max()));
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        chunks.push((budget.buffer("a weight tile that stays", wanted, usage, false)?, 0));
    }
    let chunk = chunks.get_mut(place).ok_or_else(|| defect!("there is no chunk of weights"))?;
    let at = chunk.1;
    chunk.1 += taken;
    Ok((chunk.0.clone(), at))
}

impl Slots {
    /// The slot's buffer if it still holds what it held in that use.
    fn still(&self, (slot, number): (usize, u64)) -> Option<Buffer> {
        let (buffer, now) = match self.slots.get(slot)? {
            Slot::Mapped(shared, now) => (&shared.buffer, now),
            Slot::Staged(buffer, now) => (buffer, now),
        };
        (*now == number).then(|| buffer.clone())
    }

    /// Puts bytes into a slot; waits while all are in use.
    fn take(
        &mut self,
        bytes: &[u8],
        (budget, stream, transfer): (&Budget, &mut Stream, &mut Transfer),
    ) -> Result<((usize, u64), Buffer), Error> {
        self.grow(bytes.len() as u64, budget, stream)?;
        self.next = (self.next + 1) % self.slots.len();
        self.uses += 1;
        let (place, number) = (self.next, self.uses);
        let buffer = match &mut self.slots[place] {
            Slot::Mapped(shared, now) => {
                *now = number;
                // What was not released is sent again when it is needed.
                shared.give_back(stream);
                shared.wait(stream)?;
                shared.write(bytes)?;
                stream.counters.turns += 1;
                shared.buffer.clone()
            }
            Slot::Staged(buffer, now) => {
                *now = number;
                transfer.write(budget, stream, bytes, (buffer, 0))?;
                buffer.clone()
            }
        };
        Ok(((place, number), buffer))
    }

    /// What a slot held is not needed any more.
    fn give_back(&mut self, (slot, number): (usize, u64), stream: &mut Stream) -> Result<(), Error> {
        if let Some(Slot::Mapped(shared, now)) = self.slots.get_mut(slot)
            && *now == number
        {
            shared.give_back(stream);
        }
        // The device begins while the next tile is on its way.
        stream.flush()
    }

    /// Room for tiles of so many bytes.
    fn grow(&mut self, bytes: u64, budget: &Budget, stream: &mut Stream) -> Result<(), Error> {
        if bytes <= self.bytes && self.slots.len() == SLOTS {
            return Ok(());
        }
        if bytes > self.bytes {
            stream.wait_all()?;
            stream.forget();
            self.slots.clear();
            self.bytes = bytes.max(4096).next_multiple_of(4096);
        }
        while self.slots.len() < SLOTS {
            self.uses += 1;
            let slot = match self.mapped {
                true => {
                    let shared = Shared::new(budget, "a weight tile", self.bytes, BufferUsages::STORAGE)?;
                    Slot::Mapped(shared, self.uses)
                }
                false => {
                    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
                    Slot::Staged(budget.buffer("a weight tile", self.bytes, usage, false)?, self.uses)
                }
            };
            self.slots.push(slot);
        }
        Ok(())
    }
}

fn gone(upload: UploadId) -> Error {
    Error::shape(format!("{upload:?} was released, or never there"))
}

fn no_resident(id: u32, count: usize) -> Error {
    Error::shape(format!("there is no resident weight {id}; there are {count}"))
}
