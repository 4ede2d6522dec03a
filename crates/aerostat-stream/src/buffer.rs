//! Page-aligned memory of fixed capacity: the only unsafe code of this crate.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use crate::error::{Error, ErrorKind};

/// Alignment of every buffer's start, and the unit of its capacity. No disk asks for more.
pub const PAGE_BYTES: usize = 4096;

/// Zeroed bytes that start on a page boundary. On unix they take memory only once touched.
///
/// Linux is asked for huge pages, into which direct reads cost about a fifth of the processor time (measured
/// on a virtual disk). Buffers made one after the other lie side by side and share them, so touching one may
/// take memory for its neighbours, but never more than all of them have.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    bytes: usize,
}

impl AlignedBuffer {
    /// A buffer of at least `bytes` bytes, rounded up to whole pages (one at least).
    ///
    /// # Errors
    /// [`ErrorKind::Resources`] if the system gives no memory.
    pub fn new(bytes: usize) -> Result<Self, Error> {
        let refused = || Error::new(ErrorKind::Resources, format!("no memory for a buffer of {bytes} bytes"));
        let bytes = bytes.max(1).checked_next_multiple_of(PAGE_BYTES).ok_or_else(refused)?;
        if isize::try_from(bytes).is_err() {
            return Err(refused());
        }
        let start = system::allocate(bytes).ok_or_else(refused)?;
        Ok(AlignedBuffer { start, bytes })
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `bytes` readable, initialised (zeroed) bytes that live as long as `self`;
        // `new` keeps `bytes` within isize, and a shared borrow of `self` rules out writers.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the exclusive borrow of `self` makes this the only reference.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: `start` and `bytes` are those of one `allocate`, given back once, here.
        unsafe { system::free(self.start, self.bytes) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

// SAFETY: the buffer owns its memory alone, and memory is not bound to a thread.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for AlignedBuffer {}

#[cfg(unix)]
mod system {
    use std::ptr::{self, NonNull};

    use rustix::mm;

    pub(super) fn allocate(bytes: usize) -> Option<NonNull<u8>> {
        let access = mm::ProtFlags::READ | mm::ProtFlags::WRITE;
        // SAFETY: a new private anonymous mapping at a place of the kernel's choice overlaps nothing.
        let start =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), bytes, access, mm::MapFlags::PRIVATE) }.ok()?;
        #[cfg(target_os = "linux")]
        // SAFETY: the range is the mapping just made, and this advice changes no contents. It is only a wish,
        // so a refusal is no error.
        let _ = unsafe { mm::madvise(start, bytes, mm::Advice::LinuxHugepage) };
        NonNull::new(start.cast())
    }

    /// # Safety
    /// `start` must come from `allocate(bytes)` and must not be used afterwards.
    pub(super) unsafe fn free(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller promises a whole mapping of `allocate` that nothing refers to. Unmapping it
        // fails only for arguments that are no mapping.
        let _ = unsafe { mm::munmap(start.as_ptr().cast(), bytes) };
    }
}

#[cfg(not(unix))]
mod system {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    use super::PAGE_BYTES;

    pub(super) fn allocate(bytes: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).ok()?;
        // SAFETY: `AlignedBuffer::new` never asks for zero bytes.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    /// `start` must come from `allocate(bytes)` and must not be used afterwards.
    pub(super) unsafe fn free(start: NonNull<u8>, bytes: usize) {
        if let Ok(layout) = Layout::from_size_align(bytes, PAGE_BYTES) {
            // SAFETY: the same size and alignment made the layout of `allocate`.
            unsafe { dealloc(start.as_ptr(), layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_whole_pages() {
        for (asked, got) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (3 << 20, 3 << 20)] {
            let mut buffer = AlignedBuffer::new(asked).unwrap();
            assert_eq!(buffer.len(), got);
            assert_eq!(buffer.as_ptr() as usize % PAGE_BYTES, 0);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(7);
            assert!(buffer.iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
            assert_eq!(AlignedBuffer::new(bytes).unwrap_err().kind(), ErrorKind::Resources);
        }
    }
}
