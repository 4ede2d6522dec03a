//! The ring: a fixed set of buffers through which extents pass in the order they were asked for.
//!
//! One extent is one read: neighbours in a file are not joined, which would tie the tiles of a run to one slot and to
//! one error. Disks that limit the number of requests read extents of 256 KiB at less than half the rate of 4 MiB, and
//! of 1 MiB at two thirds (a loop device over memory reads all about alike), so what chooses the extents should make
//! them 4 MiB where it can.

use std::collections::VecDeque;
use std::mem;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aerostat_checkpoint::Extent;

use crate::buffer::AlignedBuffer;
use crate::error::{Error, ErrorKind};
use crate::source::{Done, IoKind, Read, Source, Span, buffer_bytes};

/// Extents the order has room for before it grows; after the first sweep it grows no more.
const ORDER_RESERVED: usize = 1024;

/// Reads extents ahead into its slots and hands them out in order.
///
/// Every free slot is filled from the order at each call, so while the caller computes on a tile the other
/// slots are being read. A slot is free again when its [`Tile`] drops. What is to stay in memory is read into a
/// [`CacheSlot`] instead, so that it needs no copy and holds up nothing that passes through.
///
/// An error of a read comes out of [`Ring::next`] in the place of its tile and takes only that tile away:
/// the ring stays usable, and goes on with the next extent (or forgets them, after [`Ring::cancel`]).
pub struct Ring {
    source: Box<dyn Source>,
    slot_bytes: usize,
    slots: usize,
    buffers_bytes: usize,
    free: Arc<Free>,
    /// Asked for, not begun, each with the slots that it is read into one of.
    queued: VecDeque<(Extent, Arc<Free>)>,
    /// Begun, in order; the first of them has the tag `tag_first`, and so on.
    started: VecDeque<Started>,
    tag_first: u64,
    in_flight: usize,
    /// Since when reads have been in flight without a pause, while there are any.
    busy_since: Option<Instant>,
    /// The latest end of a read.
    finished_last: Option<Instant>,
    stats: Stats,
}

/// What passed through a ring since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Extents read.
    pub reads: u64,
    /// Their bytes: what was asked for.
    pub read_bytes: u64,
    /// Bytes asked of the device for them, with what alignment adds.
    pub device_bytes: u64,
    /// Time with at least one read in flight.
    pub read_time: Duration,
    /// Time [`Ring::next`] waited for a read.
    pub stall_time: Duration,
    /// Calls of [`Ring::next`] that had to wait.
    pub stalls: u64,
    /// Reads that failed.
    pub failures: u64,
    /// What the source's threads used of the processors.
    pub cpu_time: Duration,
}

impl Stats {
    /// Time with at least one read in flight, in seconds.
    pub fn read_seconds(&self) -> f64 {
        self.read_time.as_secs_f64()
    }

    /// Time [`Ring::next`] waited, in seconds.
    pub fn stall_seconds(&self) -> f64 {
        self.stall_time.as_secs_f64()
    }
}

impl Ring {
    /// A ring of `slots` buffers for extents of up to `slot_bytes` bytes. All memory is reserved here.
    ///
    /// # Errors
    /// [`ErrorKind::Resources`] if there are no slots or no memory for them.
    pub fn new(source: Box<dyn Source>, slots: usize, slot_bytes: usize) -> Result<Ring, Error> {
        if slots == 0 {
            return Err(Error::new(ErrorKind::Resources, "a ring needs one slot at least"));
        }
        let bytes = buffer_bytes(slot_bytes, source.alignment()).unwrap_or(usize::MAX);
        let buffers = AlignedBuffer::adjacent(slots, bytes)?;
        Ok(Ring {
            source,
            slot_bytes,
            slots,
            buffers_bytes: buffers.iter().map(|buffer| buffer.len()).sum(),
            free: Arc::new(Free::of(buffers)),
            queued: VecDeque::with_capacity(ORDER_RESERVED),
            started: VecDeque::with_capacity(slots),
            tag_first: 0,
            in_flight: 0,
            busy_since: None,
            finished_last: None,
            stats: Stats::default(),
        })
    }

    /// Appends extents to the order and starts what the free slots allow.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if one of them is larger than a slot; then none is appended.
    pub fn request(&mut self, extents: &[Extent]) -> Result<(), Error> {
        extents.iter().try_for_each(|extent| fits(extent, self.slot_bytes))?;
        self.queued.extend(extents.iter().map(|extent| (*extent, Arc::clone(&self.free))));
        self.advance();
        Ok(())
    }

    /// Appends one extent to the order, to be read into a slot outside the ring. Its tile holds that slot; reading begins
    /// when what held it before has dropped.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if the extent is larger than the slot.
    pub fn request_into(&mut self, extent: Extent, slot: &CacheSlot) -> Result<(), Error> {
        fits(&extent, slot.bytes)?;
        self.queued.push_back((extent, Arc::clone(&slot.buffer)));
        self.advance();
        Ok(())
    }

    /// Slots outside the ring for extents of up to these sizes in bytes, side by side in memory that is reserved here
    /// and taken as they are filled.
    ///
    /// # Errors
    /// [`ErrorKind::Resources`] if there is no memory for them.
    pub fn cache_slots(&self, bytes: &[usize]) -> Result<Vec<CacheSlot>, Error> {
        let alignment = self.source.alignment();
        let whole = |bytes: &usize| buffer_bytes(*bytes, alignment).unwrap_or(usize::MAX);
        let buffers = AlignedBuffer::side_by_side(&bytes.iter().map(whole).collect::<Vec<_>>())?;
        let slot = |(buffer, bytes): (AlignedBuffer, &usize)| CacheSlot {
            bytes: *bytes,
            buffer: Arc::new(Free::of(vec![buffer])),
        };
        Ok(buffers.into_iter().zip(bytes).map(slot).collect())
    }

    /// The next extent of the order, whole. Waits for it if it must.
    ///
    /// # Errors
    /// What its read ended with ([`ErrorKind::Io`], [`ErrorKind::Shrunk`], [`ErrorKind::Bounds`]);
    /// [`ErrorKind::Empty`] if nothing is pending; [`ErrorKind::Full`] if all slots are held by tiles, so
    /// that waiting would never end. The last two change nothing.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Tile, Error> {
        self.advance();
        if self.started.is_empty() {
            return Err(self.nothing_started());
        }
        self.wait_for_first();
        let Some(Started { extent, free, state }) = self.started.pop_front() else {
            return Err(self.nothing_started());
        };
        self.tag_first += 1;
        match state {
            State::Landed(buffer, range) => Ok(Tile { extent, range, buffer: Some(buffer), free }),
            State::Failed(error) => {
                self.advance();
                Err(error)
            }
            State::InFlight => Err(Error::new(ErrorKind::Io, "a source lost a read")),
        }
    }

    /// Takes in the reads that are over and starts what the free slots allow; never waits. Every other call
    /// does so too: this one is for callers that dropped tiles and will compute for long before they ask for
    /// the next.
    pub fn advance(&mut self) {
        self.drain();
        while let Some((extent, free)) = self.queued.pop_front() {
            let Some(buffer) = free.take() else { return self.queued.push_front((extent, free)) };
            let tag = self.tag_first + self.started.len() as u64;
            self.started.push_back(Started { extent, free, state: State::InFlight });
            self.in_flight += 1;
            self.busy_since.get_or_insert_with(Instant::now);
            self.source.submit(Read { tag, extent, buffer });
        }
    }

    /// Extents asked for that [`Ring::next`] has not returned yet.
    pub fn pending(&self) -> usize {
        self.queued.len() + self.started.len()
    }

    /// Forgets all that is pending. Waits only for the reads the source has begun; then every slot is free
    /// but those that tiles hold.
    pub fn cancel(&mut self) {
        self.queued.clear();
        self.source.cancel();
        while self.in_flight > 0 {
            let Some(done) = self.source.wait() else { break };
            self.land(done);
        }
        self.in_flight = 0;
        self.tag_first += self.started.len() as u64;
        for started in self.started.drain(..) {
            if let State::Landed(buffer, _) = started.state {
                started.free.put(buffer);
            }
        }
    }

    /// Reads a small extent at once, past the order and without a slot. `out` must be as long as the extent.
    ///
    /// # Errors
    /// As [`Source::read_many_now`].
    pub fn read_now(&mut self, extent: Extent, out: &mut [u8]) -> Result<(), Error> {
        self.read_many_now(&[extent], out)
    }

    /// Reads many small extents at once, side by side, past the order and without slots: rows of a table, say.
    /// `out` takes their bytes one behind the other, and must be as long as all of them. What is asked for twice
    /// is read once, and counted once in [`Stats`].
    ///
    /// # Errors
    /// As [`Source::read_many_now`].
    pub fn read_many_now(&mut self, extents: &[Extent], out: &mut [u8]) -> Result<(), Error> {
        let begun = Instant::now();
        let result = self.source.read_many_now(extents, out);
        self.drain();
        if self.in_flight == 0 {
            let begun = self.finished_last.map_or(begun, |finished| finished.max(begun));
            self.stats.read_time += begun.elapsed();
        }
        let gathered = result.inspect_err(|_| self.stats.failures += 1)?;
        self.stats.reads += gathered.reads;
        self.stats.read_bytes += gathered.bytes;
        self.stats.device_bytes += gathered.device_bytes;
        Ok(())
    }

    /// What passed through so far.
    pub fn stats(&self) -> Stats {
        let running = self.busy_since.map_or(Duration::ZERO, |since| since.elapsed());
        let read_time = self.stats.read_time + running;
        Stats { read_time, cpu_time: self.source.cpu_time(), ..self.stats }
    }

    /// How the source reads.
    pub fn kind(&self) -> IoKind {
        self.source.kind()
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The largest extent a slot takes, in bytes.
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Memory of all slots together, in bytes.
    pub fn bytes(&self) -> usize {
        self.buffers_bytes
    }

    fn drain(&mut self) {
        while self.in_flight > 0 {
            let Some(done) = self.source.poll() else { return };
            self.land(done);
        }
    }

    fn wait_for_first(&mut self) {
        let is_waiting =
            |ring: &Ring| matches!(ring.started.front(), Some(Started { state: State::InFlight, .. }));
        if !is_waiting(self) {
            return;
        }
        let begun = Instant::now();
        while is_waiting(self) {
            let Some(done) = self.source.wait() else { break };
            self.land(done);
            self.advance();
        }
        self.stats.stalls += 1;
        self.stats.stall_time += begun.elapsed();
    }

    /// Puts a read that is over into its place in the order.
    fn land(&mut self, done: Done) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.finished_last = self.finished_last.max(Some(done.finished));
        if self.in_flight == 0
            && let (Some(since), Some(finished)) = (self.busy_since.take(), self.finished_last)
        {
            self.stats.read_time += finished.saturating_duration_since(since);
        }
        let index = usize::try_from(done.tag.wrapping_sub(self.tag_first)).unwrap_or(usize::MAX);
        let Some(started) = self.started.get_mut(index) else {
            self.free.put(done.buffer);
            return;
        };
        let extent = started.extent;
        match done.result {
            Ok(range) => {
                started.state = State::Landed(done.buffer, range);
                self.count_read(extent);
            }
            Err(error) => {
                self.stats.failures += u64::from(error.kind() != ErrorKind::Cancelled);
                started.state = State::Failed(error);
                started.free.put(done.buffer);
            }
        }
    }

    fn count_read(&mut self, extent: Extent) {
        self.stats.reads += 1;
        self.stats.read_bytes += extent.bytes;
        let spanned =
            Span::around(extent, self.source.alignment()).map_or(extent.bytes, |span| span.bytes as u64);
        self.stats.device_bytes += spanned;
    }

    fn nothing_started(&self) -> Error {
        if self.queued.is_empty() {
            return Error::new(ErrorKind::Empty, "a tile was asked for, but no extent is pending");
        }
        let message = format!(
            "all {} slots of the ring are held by tiles, or the one beside it that is to be read into; drop one first",
            self.slots
        );
        Error::new(ErrorKind::Full, message)
    }
}

/// A buffer outside the ring for an extent that stays in memory, made by [`Ring::cache_slots`].
pub struct CacheSlot {
    bytes: usize,
    buffer: Arc<Free>,
}

/// The bytes of one extent. The slot they lie in is free again when this drops, on whatever thread.
pub struct Tile {
    extent: Extent,
    range: Range<usize>,
    /// Gone only while it drops.
    buffer: Option<AlignedBuffer>,
    free: Arc<Free>,
}

impl Tile {
    /// Where the bytes come from.
    pub fn extent(&self) -> Extent {
        self.extent
    }
}

impl Deref for Tile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|buffer| buffer.get(self.range.clone())).unwrap_or_default()
    }
}

impl Drop for Tile {
    fn drop(&mut self) {
        if let Some(buffer) = mem::take(&mut self.buffer) {
            self.free.put(buffer);
        }
    }
}

struct Started {
    extent: Extent,
    /// Where its buffer goes when its tile drops.
    free: Arc<Free>,
    state: State,
}

enum State {
    InFlight,
    Landed(AlignedBuffer, Range<usize>),
    Failed(Error),
}

/// Slots that are free. It has room for all of them from the start.
struct Free(Mutex<Vec<AlignedBuffer>>);

/// Refuses an extent that is larger than a slot.
fn fits(extent: &Extent, slot_bytes: usize) -> Result<(), Error> {
    if extent.bytes <= slot_bytes as u64 {
        return Ok(());
    }
    let message = format!(
        "an extent of {} bytes (file {}, offset {}) is larger than a slot of {slot_bytes} bytes",
        extent.bytes, extent.file.0, extent.offset
    );
    Err(Error::new(ErrorKind::TooLarge, message))
}

impl Free {
    fn of(buffers: Vec<AlignedBuffer>) -> Self {
        Self(Mutex::new(buffers))
    }

    fn take(&self) -> Option<AlignedBuffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, buffer: AlignedBuffer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
