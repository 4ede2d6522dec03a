//! Buffers of f32 on the device, and how they are written and read.

use std::sync::Arc;

use aerostat_backend::{BufferId, Error, ErrorKind, Mat, rules};
use wgpu::BufferUsages;

use crate::budget::{Budget, Buffer};
use crate::context::Context;
use crate::stream::{Mapped, Stream, Ticket};

/// Small buffers share allocations of this size.
const CHUNK_BYTES: u64 = 4 << 20;
/// Elements to which buffers are aligned.
const ALIGN: usize = 64;
/// Memory through which the host writes, in pieces.
const STAGING_BYTES: u64 = 1 << 20;
const STAGING_PIECES: usize = 4;
/// Memory through which the host reads at most.
const READ_BYTES_MAX: u64 = 4 << 20;
/// What this takes at most, whatever is computed, beside the buffers themselves.
pub(crate) const FIXED_BYTES: u64 = CHUNK_BYTES + STAGING_BYTES * STAGING_PIECES as u64 + READ_BYTES_MAX;
const F32: u64 = 4;

/// All buffers of f32.
#[derive(Default)]
pub(crate) struct Arena {
    chunks: Vec<(Buffer, usize)>,
    places: Vec<Place>,
}

/// Where a matrix lies: a buffer of the device, and where in it element (0, 0) is.
pub(crate) struct At {
    pub(crate) buffer: Buffer,
    pub(crate) offset: usize,
}

#[derive(Clone, Copy)]
struct Place {
    chunk: usize,
    offset: usize,
    len: usize,
}

impl Arena {
    /// A zeroed buffer.
    pub(crate) fn allocate(&mut self, budget: &Budget, len: usize) -> Result<BufferId, Error> {
        let taken = len.max(1).checked_next_multiple_of(ALIGN);
        let taken = taken.ok_or_else(|| Error::shape(format!("a buffer of {len} elements")))?;
        let fits = |(buffer, used): &(Buffer, usize)| ((buffer.bytes / F32) as usize - used) >= taken;
        let chunk = match self.chunks.iter().rposition(fits) {
            Some(chunk) => chunk,
            None => {
                let bytes = (taken as u64 * F32).max(CHUNK_BYTES.min(budget.left()));
                let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
                self.chunks.push((budget.buffer("a buffer", bytes, usage, false)?, 0));
                self.chunks.len() - 1
            }
        };
        let offset = self.chunks[chunk].1;
        self.chunks[chunk].1 += taken;
        self.places.push(Place { chunk, offset, len });
        Ok(BufferId(self.places.len() as u32 - 1))
    }

    /// Where a matrix lies, once it was checked.
    pub(crate) fn at(&self, mat: &Mat) -> Result<At, Error> {
        let Some(place) = self.places.get(mat.buffer.0 as usize) else {
            let count = self.places.len();
            return Err(Error::shape(format!("there is no buffer {}; {count} are allocated", mat.buffer.0)));
        };
        rules::mat(mat, place.len)?;
        let is_empty = mat.rows == 0 || mat.cols == 0;
        let offset = place.offset + if is_empty { 0 } else { mat.offset };
        Ok(At { buffer: self.chunks[place.chunk].0.clone(), offset })
    }

    /// What it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunks.iter().map(|(buffer, _)| buffer.bytes).sum()
    }
}

/// A buffer that host and device use in turns: mapped for the host to write, then the device's until it is done with it.
pub(crate) struct Shared {
    pub(crate) buffer: Buffer,
    /// Whether the host may write to it.
    mapped: Arc<Mapped>,
    /// Once this batch is finished.
    given_back: Option<Ticket>,
}

impl Shared {
    pub(crate) fn new(budget: &Budget, what: &str, bytes: u64, usage: BufferUsages) -> Result<Self, Error> {
        let buffer = budget.buffer(what, bytes, usage | BufferUsages::MAP_WRITE, true)?;
        let mapped = Arc::new(Mapped::default());
        mapped.tell(true);
        Ok(Self { buffer, mapped, given_back: None })
    }

    /// Whether the host may write without waiting.
    pub(crate) fn is_free(&self) -> bool {
        self.mapped.is_mapped()
    }

    /// The batch after which it is free; `None`: it is free, or was not given back.
    pub(crate) fn free_after(&self) -> Option<Ticket> {
        self.given_back.filter(|_| !self.is_free())
    }

    /// The host gets it back once the device has done what it was told so far.
    pub(crate) fn give_back(&mut self, stream: &mut Stream) {
        if self.given_back.is_none() && !self.is_free() {
            self.given_back = Some(stream.ticket());
            stream.map(&self.buffer, wgpu::MapMode::Write, &self.mapped);
        }
    }

    /// Waits until the host may write.
    pub(crate) fn wait(&mut self, stream: &mut Stream) -> Result<(), Error> {
        match self.free_after() {
            Some(ticket) => stream.wait_mapped(ticket, &self.mapped),
            None => Ok(()),
        }
    }

    /// Writes bytes, all at its start, and makes it the device's.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let failed =
            |error| Error::new(ErrorKind::Device, format!("writing to device memory failed: {error}"));
        // Where a part begins must be a multiple of eight.
        let whole = bytes.len() / 8 * 8;
        let (words, rest) = bytes.split_at(whole);
        if whole > 0 {
            let mut view = self.buffer.raw.get_mapped_range_mut(..whole as u64).map_err(failed)?;
            view.copy_from_slice(words);
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            let (at, len) = (whole as u64, rest.len().next_multiple_of(4));
            let mut view = self.buffer.raw.get_mapped_range_mut(at..at + len as u64).map_err(failed)?;
            view.copy_from_slice(&word[..len]);
        }
        self.buffer.raw.unmap();
        self.mapped.forget();
        self.given_back = None;
        Ok(())
    }
}

/// How the host writes to and reads from buffers that it cannot map.
#[derive(Default)]
pub(crate) struct Transfer {
    staging: Vec<Shared>,
    next: usize,
    readback: Option<Buffer>,
    /// What was read last.
    read: Vec<f32>,
}

impl Transfer {
    /// Writes bytes to a buffer; the last word is filled up with zeros.
    pub(crate) fn write(
        &mut self,
        budget: &Budget,
        stream: &mut Stream,
        bytes: &[u8],
        to: (&Buffer, u64),
    ) -> Result<(), Error> {
        let mut at = to.1;
        for part in bytes.chunks(STAGING_BYTES as usize) {
            if self.staging.len() < STAGING_PIECES {
                let piece = Shared::new(budget, "staging memory", STAGING_BYTES, BufferUsages::COPY_SRC)?;
                self.staging.push(piece);
                self.next = self.staging.len() - 1;
            } else {
                self.next = (self.next + 1) % self.staging.len();
            }
            let piece = &mut self.staging[self.next];
            piece.wait(stream)?;
            piece.write(part)?;
            stream.counters.turns += 1;
            let len = part.len().next_multiple_of(4) as u64;
            stream.copy((&piece.buffer, 0), (to.0, at), len);
            piece.give_back(stream);
            at += len;
        }
        Ok(())
    }

    /// Reads ranges of buffers, all of whole words, one after the other.
    pub(crate) fn read(
        &mut self,
        context: &Context,
        budget: &Budget,
        stream: &mut Stream,
        ranges: &[(&Buffer, u64, u64)],
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), Error> {
        let total: u64 = ranges.iter().map(|range| range.2).sum();
        let room = self.room(budget, total)?;
        let (mut pending, mut used) = (Vec::new(), 0);
        for (number, &(buffer, mut from, mut left)) in ranges.iter().enumerate() {
            while left > 0 {
                if used == room.bytes {
                    fetch(context, stream, &room, &mut pending, &mut used, take)?;
                }
                let len = left.min(room.bytes - used);
                stream.copy((buffer, from), (&room, used), len);
                pending.push((number, used, len));
                (from, left, used) = (from + len, left - len, used + len);
            }
        }
        stream.counters.read_backs += 1;
        fetch(context, stream, &room, &mut pending, &mut used, take)
    }

    /// Reads values.
    pub(crate) fn read_values(
        &mut self,
        context: &Context,
        budget: &Budget,
        stream: &mut Stream,
        from: (&Buffer, usize, usize),
    ) -> Result<&[f32], Error> {
        let mut read = std::mem::take(&mut self.read);
        read.clear();
        let range = (from.0, from.1 as u64 * F32, from.2 as u64 * F32);
        self.read(context, budget, stream, &[range], &mut |_, bytes| {
            read.extend(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)));
        })?;
        self.read = read;
        Ok(&self.read)
    }

    fn room(&mut self, budget: &Budget, bytes: u64) -> Result<Buffer, Error> {
        let wanted = bytes.clamp(4096, READ_BYTES_MAX).next_multiple_of(4096);
        if self.readback.as_ref().is_none_or(|room| room.bytes < wanted) {
            self.readback = None;
            let usage = BufferUsages::COPY_DST | BufferUsages::MAP_READ;
            self.readback = Some(budget.buffer("memory to read through", wanted, usage, false)?);
        }
        self.readback.clone().ok_or_else(|| aerostat_backend::defect!("there is no memory to read through"))
    }

    pub(crate) fn bytes(&self) -> u64 {
        let staging: u64 = self.staging.iter().map(|piece| piece.buffer.bytes).sum();
        staging + self.readback.as_ref().map_or(0, |room| room.bytes)
    }
}

/// Waits for what was copied to `room`, and gives it.
fn fetch(
    context: &Context,
    stream: &mut Stream,
    room: &Buffer,
    pending: &mut Vec<(usize, u64, u64)>,
    used: &mut u64,
    take: &mut dyn FnMut(usize, &[u8]),
) -> Result<(), Error> {
    if pending.is_empty() {
        return Ok(());
    }
    let (ticket, mapped) = (stream.ticket(), Arc::new(Mapped::default()));
    stream.map(room, wgpu::MapMode::Read, &mapped);
    stream.wait_mapped(ticket, &mapped)?;
    let view = room.raw.get_mapped_range(..*used);
    let view = view.map_err(|error| {
        context.fail(format!("results cannot be read: {error}"));
        Error::new(ErrorKind::Device, format!("results cannot be read: {error}"))
    })?;
    for (number, at, len) in pending.drain(..) {
        take(number, &view[at as usize..(at + len) as usize]);
    }
    drop(view);
    room.raw.unmap();
    *used = 0;
    Ok(())
}
