//! Weight tiles in host memory: those that stay, and those that pass through.

use crate::aligned::Advise;
use crate::{
    Error, ErrorKind, HostBytes, Tile, TileShape, UploadId, Weight, WeightId, check, defect, packed,
};

/// Alignment of tiles that stay.
const TILE_ALIGN_BYTES: usize = 64;
/// Address space of tiles that stay that is taken at a time, so that huge pages hold many small tiles; memory is used only
/// as far as tiles reach, but for the rest of one huge page.
const ARENA_BYTES: usize = 1 << 30;
/// Bytes of resident tiles before huge pages are asked for.
const SMALL_BYTES: usize = 2 << 20;

/// All weight tiles of a host device.
#[derive(Default)]
pub(crate) struct Weights {
    resident: Resident,
    arriving: Arriving,
}

/// A weight operand whose bytes have been found.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// As stored, and checked.
    Plain(Tile<'a>),
    /// Packed; whether its checksums have been checked.
    Packed(Tile<'a>, bool),
}

/// Tiles that stay, end to end in large allocations.
#[derive(Default)]
struct Resident {
    arenas: Vec<Vec<u8>>,
    tiles: Vec<Place>,
}

/// Where a tile that stays lies.
#[derive(Clone, Copy)]
struct Place {
    shape: TileShape,
    arena: usize,
    start: usize,
    len: usize,
}

/// Tiles that pass through. Places are taken again, those that were given up last first.
#[derive(Default)]
struct Arriving {
    places: Vec<Arrival>,
    free: Vec<u32>,
}

/// A place of a tile that passes through.
struct Arrival {
    turn: u32,
    tile: Option<(TileShape, HostBytes)>,
}

impl<'a> Operand<'a> {
    pub(crate) fn tile(self) -> Tile<'a> {
        match self {
            Self::Plain(tile) | Self::Packed(tile, _) => tile,
        }
    }

    /// The tile of a matrix that is stored by inputs: of packed ones one that is stored, whose checksums are checked.
    pub(crate) fn by_inputs(self) -> Result<Tile<'a>, Error> {
        match self {
            Self::Plain(tile) => Ok(tile),
            Self::Packed(tile, _) => packed::stored(&tile),
        }
    }
}

impl Weights {
    /// Takes a tile that passes through.
    pub(crate) fn upload(&mut self, shape: TileShape, bytes: HostBytes) -> Result<UploadId, Error> {
        if !shape.packed {
            check::tile(&shape.tile(&bytes))?;
        }
        let Arriving { places, free } = &mut self.arriving;
        let place = free.pop().unwrap_or(places.len() as u32);
        if place as usize == places.len() {
            places.push(Arrival { turn: 0, tile: None });
        }
        let arrival = places.get_mut(place as usize).filter(|arrival| arrival.tile.is_none());
        let arrival = arrival.ok_or_else(|| defect!("place {place} of a weight tile is not free"))?;
        arrival.tile = Some((shape, bytes));
        Ok(UploadId { place, turn: arrival.turn })
    }

    /// Drops a tile that passed through.
    pub(crate) fn release(&mut self, upload: UploadId) {
        let Arriving { places, free } = &mut self.arriving;
        let arrival = places.get_mut(upload.place as usize).filter(|arrival| arrival.turn == upload.turn);
        let Some(arrival) = arrival.filter(|arrival| arrival.tile.is_some()) else {
            debug_assert!(false, "{upload:?} was released before, or never there");
            return;
        };
        arrival.clear();
        free.push(upload.place);
    }

    /// Drops all tiles that were passing through.
    pub(crate) fn release_all(&mut self) {
        let Arriving { places, free } = &mut self.arriving;
        for (place, arrival) in places.iter_mut().enumerate() {
            if arrival.tile.is_some() {
                arrival.clear();
                free.push(place as u32);
            }
        }
    }

    /// Copies a tile that stays; it was checked.
    pub(crate) fn pin(
        &mut self,
        shape: TileShape,
        bytes: &[u8],
        advise: Advise<'_>,
    ) -> Result<WeightId, Error> {
        self.resident.add(shape, bytes, advise)
    }

    /// A tile that stays.
    pub(crate) fn resident(&self, WeightId(id): WeightId) -> Result<Operand<'_>, Error> {
        let Some(&Place { shape, arena, start, len }) = self.resident.tiles.get(id as usize) else {
            let count = self.resident.tiles.len();
            return Err(Error::shape(format!("there is no resident weight {id}; there are {count}")));
        };
        let tile = shape.tile(&self.resident.arenas[arena][start..][..len]);
        Ok(if shape.packed { Operand::Packed(tile, true) } else { Operand::Plain(tile) })
    }

    /// The tile of an operand.
    pub(crate) fn operand(&self, weight: Weight) -> Result<Operand<'_>, Error> {
        let upload = match weight {
            Weight::Resident(id) => return self.resident(id),
            Weight::Arriving(upload) => upload,
        };
        let arrival = self.arriving.places.get(upload.place as usize);
        let tile = arrival.filter(|arrival| arrival.turn == upload.turn).and_then(|a| a.tile.as_ref());
        let (shape, bytes) =
            tile.ok_or_else(|| Error::shape(format!("{upload:?} was released, or never there")))?;
        let tile = shape.tile(bytes);
        Ok(if shape.packed { Operand::Packed(tile, false) } else { Operand::Plain(tile) })
    }

    /// Bytes of the tiles that stay.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.resident.arenas.iter().map(|arena| arena.len() as u64).sum()
    }
}

impl Arrival {
    fn clear(&mut self) {
        self.tile = None;
        self.turn = self.turn.wrapping_add(1);
    }
}

impl Resident {
    fn add(&mut self, shape: TileShape, bytes: &[u8], advise: Advise<'_>) -> Result<WeightId, Error> {
        let needed = bytes.len().saturating_add(TILE_ALIGN_BYTES);
        if self.arenas.last().is_none_or(|arena| arena.capacity() - arena.len() < needed) {
            let arena = reserve(needed.max(ARENA_BYTES)).or_else(|| reserve(needed)).ok_or_else(|| {
                let message = format!("no memory for a pinned weight tile of {} bytes", bytes.len());
                Error::new(ErrorKind::OutOfMemory, message)
            })?;
            // The first tiles get small pages: a small model would waste most of a huge one.
            advise(arena.as_ptr().wrapping_add(SMALL_BYTES), arena.capacity().saturating_sub(SMALL_BYTES));
            self.arenas.push(arena);
        }
        let index = self.arenas.len() - 1;
        let arena = &mut self.arenas[index];
        // Only what is used is touched, and the arena never moves: there is room.
        let pad =
            arena.as_ptr().wrapping_add(arena.len()).align_offset(TILE_ALIGN_BYTES).min(TILE_ALIGN_BYTES);
        let start = arena.len() + pad;
        arena.resize(start, 0);
        arena.extend_from_slice(bytes);
        self.tiles.push(Place { shape, arena: index, start, len: bytes.len() });
        Ok(WeightId(self.tiles.len() as u32 - 1))
    }
}

fn reserve(bytes: usize) -> Option<Vec<u8>> {
    let mut arena = Vec::new();
    arena.try_reserve_exact(bytes).ok().map(|()| arena)
}
