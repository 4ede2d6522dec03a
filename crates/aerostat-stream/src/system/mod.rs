//! What differs between systems: one file each, with the same functions.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // buffers lent to the kernel, see the SAFETY comments there
mod uring;

#[cfg(target_os = "linux")]
pub(crate) use linux::{allow_files, direct_alignment, forget, open_buffered, open_direct};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{DEPTH_MAX, Uring, allow_files, direct_alignment, forget, open_buffered, open_direct};
#[cfg(target_os = "linux")]
pub(crate) use uring::{DEPTH_MAX, Uring};

use std::fs::File;
use std::io;
use std::time::Duration;

/// What tells devices apart.
pub(crate) fn device(file: &File) -> io::Result<u64> {
    #[cfg(unix)]
    return Ok(std::os::unix::fs::MetadataExt::dev(&file.metadata()?));
    #[cfg(not(unix))]
    return file.metadata().map(|_| 0);
}

/// What this thread has used of the processors, user and system; nothing where that is not known.
pub(crate) fn thread_cpu_time() -> Duration {
    #[cfg(unix)]
    return Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime))
        .unwrap_or_default();
    #[cfg(not(unix))]
    return Duration::ZERO;
}

/// One read call at an offset; the file's own position does not matter.
pub(crate) fn read_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, out, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, out, offset);
}
