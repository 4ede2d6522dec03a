//! Memory for kernels: whole cache lines, in huge pages where the system has them.

use aerostat_backend::{Error, ErrorKind};

use crate::vector::LANES;

/// Pages that allocations are cut to, and those that spare address translation.
#[cfg(target_os = "linux")]
const PAGE_BYTES: usize = 4096;
#[cfg(target_os = "linux")]
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A cache line, so that memory is aligned: vectors that straddle two lines cost twice.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; LANES]);

/// Makes room for `len` values at least; those that were there are lost.
pub(crate) fn grow(lines: &mut Vec<Line>, len: usize) -> Result<(), Error> {
    let count = len.div_ceil(LANES);
    if count <= lines.len() {
        return Ok(());
    }
    // Never both at once.
    *lines = Vec::new();
    lines.try_reserve_exact(count).map_err(|_| {
        Error::new(ErrorKind::OutOfMemory, format!("no memory for {len} values of scratch in each thread"))
    })?;
    lines.resize(count, Line([0.0; LANES]));
    Ok(())
}

/// Asks for huge pages in an allocation that is not touched yet.
#[cfg(target_os = "linux")]
pub(crate) fn advise(start: *const u8, bytes: usize) {
    use rustix::mm::{Advice, madvise};
    let skip = start.align_offset(PAGE_BYTES);
    let whole = bytes.saturating_sub(skip) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if whole > 0 {
        let start = start.wrapping_add(skip).cast_mut().cast();
        // A refusal costs speed only.
        // SAFETY: huge pages change no contents; the range is within one allocation.
        let _ = unsafe { madvise(start, whole, Advice::LinuxHugepage) };
    }
}

/// Asks for nothing.
#[cfg(not(target_os = "linux"))]
pub(crate) fn advise(_start: *const u8, _bytes: usize) {}
