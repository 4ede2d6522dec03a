//! Files that misbehave as they are told to, for tests of what reads them: short reads, interruptions,
//! errors, latency that reorders completions, a file that shrinks.
//!
//! ```
//! use aerostat_checkpoint::{Extent, FileId};
//! use aerostat_stream::simulated::{Contents, Fault, FaultKind, Script, open};
//! use aerostat_stream::{ErrorKind, Ring};
//!
//! # fn main() -> Result<(), aerostat_stream::Error> {
//! let faults = vec![Fault { call: 1, kind: FaultKind::Failed }];
//! let source = open(vec![Contents::Memory(vec![7; 8192])], Script { faults, ..Script::default() })?;
//! let mut ring = Ring::new(source, 1, 4096)?;
//! let at = |offset| Extent { file: FileId(0), offset, bytes: 4096 };
//! ring.request(&[at(0), at(4096)])?;
//! assert_eq!(*ring.next()?, [7; 4096]);
//! assert_eq!(ring.next().err().map(|error| error.kind()), Some(ErrorKind::Io));
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aerostat_checkpoint::{Extent, File, FileId};

use crate::error::{Error, ErrorKind};
use crate::gather::Gather;
use crate::overlap::{Call, Event, Kernel};
use crate::queues::{Lanes, cancelled};
use crate::reader::{Positional, Reader};
use crate::readers::Readers;
use crate::source::{Done, Gathered, IoKind, Read, Source};
use crate::system;

/// The bytes of a simulated file.
#[derive(Debug, Clone)]
pub enum Contents {
    /// These.
    Memory(Vec<u8>),
    /// Those of a real file.
    Disk(PathBuf),
}

/// What goes wrong and when. The default is a disk of alignment 512 that does all at once and right.
#[derive(Debug, Clone)]
pub struct Script {
    /// Decides all that is random; the same seed does the same.
    pub seed: u64,
    /// Alignment of the disk, a power of two up to a page; a read call that breaks it is refused.
    pub alignment: usize,
    /// Reads under way at once, one at least; on each device, behind a pool.
    pub depth: usize,
    /// The device each file lies on, for pools; further files lie on the first.
    pub devices: Vec<u64>,
    /// A read of [`open`] takes up to so many ticks of a clock that moves by one with every poll, and with
    /// a wait to the end of the read that ends first.
    pub latency_ticks_max: u64,
    /// A read call really sleeps up to so long.
    pub sleep_max: Duration,
    /// Of a hundred read calls, so many are interrupted.
    pub interrupted_percent: u64,
    /// Of a hundred read calls, so many give only part of the bytes, mostly a whole unit of alignment at least.
    pub short_percent: u64,
    /// What goes wrong at a known call.
    pub faults: Vec<Fault>,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The read call it happens at: the n-th of all files together, from 0.
    pub call: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The call gives no more than so many bytes.
    Short(usize),
    /// The call is interrupted (EINTR).
    Interrupted,
    /// The call is refused for the moment (EAGAIN).
    Refused,
    /// The call fails (EIO).
    Failed,
    /// From this call on, the file has only so many bytes.
    Shrunk(FileId, u64),
}

impl Default for Script {
    fn default() -> Self {
        Script {
            seed: 0,
            alignment: 512,
            depth: 4,
            devices: Vec::new(),
            latency_ticks_max: 0,
            sleep_max: Duration::ZERO,
            interrupted_percent: 0,
            short_percent: 0,
            faults: Vec::new(),
        }
    }
}

/// A source without threads that does the same for the same script and calls, the order of completions
/// included.
///
/// # Errors
/// [`ErrorKind::Io`] if a file on disk cannot be opened; [`ErrorKind::Resources`] without memory.
pub fn open(contents: Vec<Contents>, script: Script) -> Result<Box<dyn Source>, Error> {
    let (seed, depth, latency_ticks_max) = (script.seed, script.depth.max(1), script.latency_ticks_max);
    let reader = reader(contents, script)?;
    let gather = Gather::new(reader.alignment())?;
    Ok(Box::new(Simulated {
        reader,
        gather,
        seed,
        depth,
        latency_ticks_max,
        clock: 0,
        begun: 0,
        queue: VecDeque::new(),
        under_way: VecDeque::new(),
        cancelled: VecDeque::new(),
    }))
}

/// The same files behind the pool of threads that reads real ones; `depth` is the number of threads.
///
/// # Errors
/// As [`open`].
pub fn open_pooled(contents: Vec<Contents>, script: Script) -> Result<Box<dyn Source>, Error> {
    let depth = script.depth;
    let lanes = Lanes::new(script.devices.iter().copied());
    Ok(Box::new(Readers::start(IoKind::Simulated, reader(contents, script)?, lanes, depth)?))
}

/// The same files behind the one thread that keeps many reads under way: `depth` calls at a time, which end in
/// any order. Each call does what the script says when it ends.
///
/// # Errors
/// As [`open`].
pub fn open_overlapped(contents: Vec<Contents>, script: Script) -> Result<Box<dyn Source>, Error> {
    let (seed, depth) = (script.seed, script.depth);
    let lanes = Lanes::new(script.devices.iter().copied());
    let reader = reader(contents, script)?;
    let kernel = |_| Unordered { files: Arc::clone(reader.files()), seed, calls: Vec::new(), ended: 0 };
    let kernels = (0..lanes.count()).map(kernel).collect();
    Ok(Box::new(Readers::start_overlapped(IoKind::Simulated, reader, lanes, depth, kernels)?))
}

fn reader(contents: Vec<Contents>, script: Script) -> Result<Reader<Arc<Files>>, Error> {
    let mut table = Vec::new();
    let mut handles = Vec::new();
    for (index, contents) in contents.into_iter().enumerate() {
        let (handle, path, bytes) = match contents {
            Contents::Memory(bytes) => {
                let length = bytes.len() as u64;
                (Handle::Memory(bytes), PathBuf::from(format!("simulated-{index}")), length)
            }
            Contents::Disk(path) => {
                let opened = fs::File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
                let (length, file) = opened.map_err(|cause| {
                    Error::caused(ErrorKind::Io, format!("{}: cannot be opened", path.display()), cause)
                })?;
                (Handle::Disk(file), path, length)
            }
        };
        table.push(File { path, bytes });
        handles.push((handle, AtomicU64::new(bytes)));
    }
    let alignment = script.alignment.max(1);
    let files = Files { handles, script, calls: AtomicU64::new(0) };
    Ok(Reader::new(Arc::new(files), table, alignment))
}

struct Simulated {
    reader: Reader<Arc<Files>>,
    gather: Gather,
    seed: u64,
    depth: usize,
    latency_ticks_max: u64,
    clock: u64,
    /// Reads begun so far.
    begun: u64,
    queue: VecDeque<Read>,
    /// With the tick each ends at; `depth` of them at most.
    under_way: VecDeque<(u64, Read)>,
    cancelled: VecDeque<Done>,
}

impl Simulated {
    fn begin(&mut self) {
        while self.under_way.len() < self.depth {
            let Some(read) = self.queue.pop_front() else { return };
            let latency = random(self.seed, !self.begun) % (self.latency_ticks_max.saturating_add(1)).max(1);
            self.begun += 1;
            self.under_way.push_back((self.clock.saturating_add(latency), read));
        }
    }

    /// Ends the read that is due first, if that is so by `clock_max`.
    fn end_first(&mut self, clock_max: u64) -> Option<Done> {
        if let Some(done) = self.cancelled.pop_front() {
            return Some(done);
        }
        let first = self.under_way.iter().enumerate().min_by_key(|(_, (due, _))| *due);
        let (index, due) =
            first.map(|(index, (due, _))| (index, *due)).filter(|(_, due)| *due <= clock_max)?;
        let (_, Read { tag, extent, mut buffer }) = self.under_way.remove(index)?;
        self.clock = self.clock.max(due);
        let result = self.reader.read(extent, &mut buffer);
        self.begin();
        Some(Done { tag, buffer, result, finished: Instant::now() })
    }
}

impl Source for Simulated {
    fn kind(&self) -> IoKind {
        IoKind::Simulated
    }

    fn alignment(&self) -> usize {
        self.reader.alignment()
    }

    fn depth_max(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, read: Read) {
        self.queue.push_back(read);
        self.begin();
    }

    fn wait(&mut self) -> Option<Done> {
        self.end_first(u64::MAX)
    }

    fn poll(&mut self) -> Option<Done> {
        self.clock = self.clock.saturating_add(1);
        self.end_first(self.clock)
    }

    fn cancel(&mut self) {
        self.cancelled.extend(self.queue.drain(..).map(cancelled));
    }

    fn read_many_now(&mut self, extents: &[Extent], out: &mut [u8]) -> Result<Gathered, Error> {
        self.gather.run(&self.reader, None, extents, out)
    }
}

/// Ends its calls in any order.
struct Unordered {
    files: Arc<Files>,
    seed: u64,
    calls: Vec<Call>,
    /// Calls that are over.
    ended: u64,
}

impl Kernel for Unordered {
    fn start(&mut self, call: Call) {
        self.calls.push(call);
    }

    fn finish(&mut self) -> Event {
        let index = random(self.seed ^ 5, self.ended).checked_rem(self.calls.len() as u64);
        let Some(index) = index else { return Event::Idle };
        self.ended += 1;
        let mut call = self.calls.swap_remove(index as usize);
        let (file, offset, out) = call.rest();
        let answer = self.files.read_at(file, offset, out);
        Event::Over(call, answer)
    }
}

struct Files {
    /// With the lengths as they are by now.
    handles: Vec<(Handle, AtomicU64)>,
    script: Script,
    calls: AtomicU64,
}

enum Handle {
    Memory(Vec<u8>),
    Disk(fs::File),
}

impl Files {
    /// Does what the script says for this call; returns the most bytes it may give.
    fn misbehave(&self, call: u64, room: usize) -> io::Result<usize> {
        let mut bytes_max = room;
        let happens = |salt, percent| random(self.script.seed ^ salt, call) % 100 < percent;
        if happens(1, self.script.interrupted_percent) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if happens(2, self.script.short_percent) {
            bytes_max = 1 + random(self.script.seed ^ 3, call) as usize % room.max(1);
            // Disks hardly ever stop within a unit of alignment but at the end of a file, and a reader who is answered so some
            // times in a row takes it for that end.
            let within_a_unit =
                bytes_max < self.script.alignment && !random(self.script.seed ^ 6, call).is_multiple_of(16);
            bytes_max = if within_a_unit { self.script.alignment } else { bytes_max };
        }
        for fault in self.script.faults.iter().filter(|fault| fault.call == call) {
            match fault.kind {
                FaultKind::Short(bytes) => bytes_max = bytes_max.min(bytes),
                FaultKind::Interrupted => return Err(io::ErrorKind::Interrupted.into()),
                FaultKind::Refused => return Err(io::ErrorKind::WouldBlock.into()),
                FaultKind::Failed => return Err(io::Error::other("simulated input/output error")),
                FaultKind::Shrunk(file, bytes) => {
                    if let Some((_, length)) = self.handles.get(file.0 as usize) {
                        length.fetch_min(bytes, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(bytes_max)
    }
}

impl Positional for Arc<Files> {
    fn read_at(&self, file: FileId, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let unit = self.script.alignment.max(1);
        if !offset.is_multiple_of(unit as u64)
            || !out.len().is_multiple_of(unit)
            || !(out.as_ptr() as usize).is_multiple_of(unit)
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(self.script.sleep_max.as_nanos()).unwrap_or(u64::MAX);
        if nanoseconds > 0 {
            thread::sleep(Duration::from_nanos(random(self.script.seed ^ 4, call) % nanoseconds));
        }
        let bytes_max = self.misbehave(call, out.len())?;
        let (handle, length) = self.handles.get(file.0 as usize).ok_or(io::ErrorKind::NotFound)?;
        let left =
            usize::try_from(length.load(Ordering::Relaxed).saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = out.len().min(left).min(bytes_max);
        let out = out.get_mut(..bytes).unwrap_or_default();
        match handle {
            Handle::Memory(contents) => {
                let mut rest = contents.get(offset as usize..).unwrap_or_default();
                io::Read::read(&mut rest, out)
            }
            Handle::Disk(file) => system::read_at(file, offset, out),
        }
    }
}

/// A number that depends on both, well mixed (the finaliser of splitmix64; Steele, Lea and Flood 2014).
fn random(seed: u64, number: u64) -> u64 {
    let mut mixed = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
