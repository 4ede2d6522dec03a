//! Opening files for reading: directly where the file system can, else through the page cache.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aerostat_checkpoint::{Extent, File, FileId};

use crate::buffer::AlignedBuffer;
use crate::error::{Error, ErrorKind};
use crate::gather::GATHER_DEPTH;
use crate::queues::Lanes;
use crate::reader::{Positional, Reader};
use crate::readers::Readers;
use crate::source::{IoKind, Source};
use crate::system;

/// Reads at once, on each device, where the options name no number. Reads of a few megabytes are split by the
/// kernel into many requests each, so 8 threads fill a disk's queue with them; reads of 1 MiB and less were faster
/// by half with 16.
pub const DEPTH_DEFAULT: usize = 16;

/// As [`DEPTH_DEFAULT`], for io_uring, where a read under way costs no thread: all slots of a usual ring.
pub const DEPTH_URING_DEFAULT: usize = 32;

/// Bytes of a file that buffered reads leave in the page cache before it is told to forget them.
const HELD_BYTES_MAX: u64 = 8 << 20;

/// How to read, as users choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum IoChoice {
    /// By io_uring where it works, else direct by a pool of threads, else buffered.
    ///
    /// With reads of 4 MiB both direct ways are about as fast, and io_uring takes less processor time (6 to 12
    /// milliseconds a GB against 10 to 14; with 256 KiB, about half as much). The pool can be the faster one, as it was
    /// by a fifth on a loop device over memory: who wants the faster one tries both.
    #[default]
    Auto,
    /// Direct by a pool of threads, or an error.
    Direct,
    /// Direct by Linux' io_uring, many reads under way from one thread, or an error.
    Uring,
    /// Through the page cache, dropping from it what was read.
    Buffered,
}

/// How to open a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceOptions {
    /// How to read.
    pub io: IoChoice,
    /// Reads at once, on each device; [`DEPTH_DEFAULT`] or [`DEPTH_URING_DEFAULT`] if `None`.
    pub depth: Option<NonZeroUsize>,
}

/// Opens the files, once; [`FileId`] n is the n-th of them.
///
/// # Errors
/// [`ErrorKind::Io`] if a file cannot be opened, [`ErrorKind::Changed`] if its length is not
/// [`File::bytes`], [`ErrorKind::Unsupported`] if direct reads or io_uring were asked for by name and do not work,
/// [`ErrorKind::Resources`] if no thread or memory could be had.
pub fn open(files: &[File], options: SourceOptions) -> Result<Box<dyn Source>, Error> {
    if options.io != IoChoice::Buffered {
        match open_direct(files, options.io, options.depth) {
            Err(error) if error.kind() == ErrorKind::Unsupported && options.io == IoChoice::Auto => {}
            opened => return opened,
        }
    }
    let handles =
        files.iter().map(|file| open_one(file, system::open_buffered)).collect::<Result<Vec<_>, _>>()?;
    let lanes = lanes(&handles);
    let handles = handles.into_iter().map(|handle| (handle, AtomicU64::new(0))).collect();
    let reader = Reader::new(Buffered(handles), files.to_vec(), 1);
    let depth = options.depth.map_or(DEPTH_DEFAULT, NonZeroUsize::get);
    Ok(Box::new(Readers::start(IoKind::Buffered, reader, lanes, depth)?))
}

fn open_direct(files: &[File], io: IoChoice, depth: Option<NonZeroUsize>) -> Result<Box<dyn Source>, Error> {
    let mut handles = Vec::with_capacity(files.len());
    let mut alignment = 1;
    for file in files {
        let handle = open_one(file, system::open_direct)?;
        alignment = alignment.max(system::direct_alignment(&handle).ok_or_else(|| unsupported(file))?);
        handles.push(handle);
    }
    let lanes = lanes(&handles);
    let reader = Reader::new(Direct(handles), files.to_vec(), alignment);
    if let Some((index, file)) = files.iter().enumerate().find(|(_, file)| file.bytes > 0) {
        let extent = Extent { file: FileId(index as u32), offset: 0, bytes: 1 };
        reader.read(extent, &mut AlignedBuffer::new(alignment)?).map_err(|error| {
            if error.cause().is_some_and(knows_no_direct_reads) { unsupported(file) } else { error }
        })?;
    }
    let rings = match io {
        IoChoice::Direct => None,
        IoChoice::Uring => Some(rings(&reader, &lanes, depth)?),
        _ => rings(&reader, &lanes, depth).ok(),
    };
    if let Some((depth, kernels)) = rings {
        return Ok(Box::new(Readers::start_overlapped(IoKind::Uring, reader, lanes, depth, kernels)?));
    }
    let depth = depth.map_or(DEPTH_DEFAULT, NonZeroUsize::get);
    Ok(Box::new(Readers::start(IoKind::Direct, reader, lanes, depth)?))
}

/// An io_uring for each device, and the reads each is to have under way.
fn rings(
    reader: &Reader<Direct>,
    lanes: &Lanes,
    depth: Option<NonZeroUsize>,
) -> Result<(usize, Vec<system::Uring>), Error> {
    let depth = depth.map_or(DEPTH_URING_DEFAULT, NonZeroUsize::get).min(system::DEPTH_MAX);
    let ring = |_| system::Uring::new(&reader.files().0, depth + GATHER_DEPTH);
    let rings = (0..lanes.count()).map(ring).collect::<io::Result<_>>().map_err(|cause| {
        let message =
            "io_uring does not work on this system, or is forbidden here; use --io direct (or auto)";
        Error::caused(ErrorKind::Unsupported, message, cause)
    })?;
    Ok((depth, rings))
}

/// One for each device. Where the system names none, all files lie on one.
fn lanes(handles: &[fs::File]) -> Lanes {
    Lanes::new(handles.iter().map(|handle| system::device(handle).unwrap_or_default()))
}

fn open_one(file: &File, open: fn(&Path) -> io::Result<fs::File>) -> Result<fs::File, Error> {
    let name = file.path.display();
    let cannot = |cause| {
        if knows_no_direct_reads(&cause) {
            return unsupported(file);
        }
        Error::caused(ErrorKind::Io, format!("{name}: cannot be opened"), cause)
    };
    let handle = open(&file.path).map_err(cannot)?;
    let bytes = handle.metadata().map_err(cannot)?.len();
    if bytes != file.bytes {
        let message = format!(
            "{name}: the file has {bytes} bytes, but had {} when its header was read; open the model again",
            file.bytes
        );
        return Err(Error::new(ErrorKind::Changed, message));
    }
    Ok(handle)
}

/// Whether this is what a system answers to a direct open or read that it cannot do.
fn knows_no_direct_reads(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

fn unsupported(file: &File) -> Error {
    let message = format!(
        "{}: direct reads do not work on this file system; use --io buffered (or auto)",
        file.path.display()
    );
    Error::new(ErrorKind::Unsupported, message)
}

struct Direct(Vec<fs::File>);

impl Positional for Direct {
    fn read_at(&self, file: FileId, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        system::read_at(handle(&self.0, file)?, offset, out)
    }
}

/// Files, and the bytes read of each that the page cache may still hold.
struct Buffered(Vec<(fs::File, AtomicU64)>);

impl Positional for Buffered {
    fn read_at(&self, file: FileId, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let (handle, held) = handle(&self.0, file)?;
        let read = system::read_at(handle, offset, out)?;
        // Not after every read: forgetting interrupts all processors.
        let now = held.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
        if now >= HELD_BYTES_MAX {
            held.fetch_sub(now, Ordering::Relaxed);
            system::forget(handle);
        }
        Ok(read)
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.0
            .iter()
            .filter(|(_, held)| held.load(Ordering::Relaxed) > 0)
            .for_each(|(f, _)| system::forget(f));
    }
}

fn handle<T>(handles: &[T], file: FileId) -> io::Result<&T> {
    handles.get(file.0 as usize).ok_or_else(|| io::ErrorKind::NotFound.into())
}
