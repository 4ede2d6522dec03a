//! What differs between systems: one file each, with the same functions.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // buffers lent to the kernel, see the SAFETY comments there
mod uring;

#[cfg(target_os = "linux")]
pub(crate) use linux::{direct_alignment, forget, open_buffered, open_direct};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{DEPTH_MAX, Uring, direct_alignment, forget, open_buffered, open_direct};
#[cfg(target_os = "linux")]
pub(crate) use uring::{DEPTH_MAX, Uring};

use std::fs::File;
use std::io;

/// One read call at an offset; the file's own position does not matter.
pub(crate) fn read_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, out, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, out, offset);
}
