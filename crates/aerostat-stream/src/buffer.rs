//! Page-aligned memory of fixed capacity.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// Alignment of every buffer's start, and the unit of its capacity. No disk asks for more.
pub const PAGE_BYTES: usize = 4096;

/// Zeroed bytes that start on a page boundary. On unix they take memory only once touched.
///
/// Linux is asked for huge pages, since a direct read into them costs a fraction of the processor time. Buffers
/// made together lie side by side in one mapping and share them, so touching one may take memory for its
/// neighbours, but never more than all of them have.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    bytes: usize,
    /// The mapping this is a part of.
    _arena: Arc<Arena>,
}

/// Memory of the system's, given back when the last buffer in it drops.
struct Arena {
    start: NonNull<u8>,
    bytes: usize,
}

impl AlignedBuffer {
    /// A buffer of at least `bytes` bytes, rounded up to whole pages (one at least).
    ///
    /// # Errors
    /// [`ErrorKind::Resources`] if the system gives no memory.
    pub fn new(bytes: usize) -> Result<Self, Error> {
        let mut one = AlignedBuffer::adjacent(1, bytes)?;
        one.pop().ok_or_else(|| refused(bytes))
    }

    /// `count` such buffers, side by side.
    ///
    /// # Errors
    /// As [`AlignedBuffer::new`].
    pub fn adjacent(count: usize, bytes: usize) -> Result<Vec<Self>, Error> {
        // What there is no memory for is refused before a list of its sizes is made.
        match count.checked_mul(bytes.max(1)).is_some_and(|all| isize::try_from(all).is_ok()) {
            true => AlignedBuffer::side_by_side(&vec![bytes; count]),
            false => Err(refused(bytes)),
        }
    }

    /// A buffer for each of these sizes, side by side.
    ///
    /// # Errors
    /// As [`AlignedBuffer::new`].
    pub fn side_by_side(sizes: &[usize]) -> Result<Vec<Self>, Error> {
        // Where each begins, and the end of the last.
        let mut starts = vec![0_usize];
        for bytes in sizes {
            let whole = bytes.max(&1).checked_next_multiple_of(PAGE_BYTES);
            let end = whole.and_then(|whole| whole.checked_add(*starts.last()?));
            starts.push(end.filter(|end| isize::try_from(*end).is_ok()).ok_or_else(|| refused(*bytes))?);
        }
        let all = starts.last().copied().unwrap_or_default().max(PAGE_BYTES);
        let start = system::allocate(all).ok_or_else(|| refused(all))?;
        let arena = Arc::new(Arena { start, bytes: all });
        let part = |ends: &[usize]| {
            // SAFETY: `starts` ascend to the end of the last part, so this part lies within the arena of `all` bytes.
            let start = unsafe { arena.start.add(ends[0]) };
            AlignedBuffer { start, bytes: ends[1] - ends[0], _arena: Arc::clone(&arena) }
        };
        Ok(starts.windows(2).map(part).collect())
    }
}

fn refused(bytes: usize) -> Error {
    Error::new(ErrorKind::Resources, format!("no memory for buffers of {bytes} bytes"))
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `bytes` readable, initialised (zeroed) bytes of an arena that lives as long
        // as `self`, which are no other buffer's; `adjacent` keeps them within isize, and a shared borrow of
        // `self` rules out writers.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the exclusive borrow of `self` makes this the only reference.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `start` and `bytes` are those of one `allocate`, given back once, here, after the last buffer.
        unsafe { system::free(self.start, self.bytes) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

// SAFETY: the buffer owns its part of the memory alone, and memory is not bound to a thread.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for AlignedBuffer {}
// SAFETY: an arena gives no access to its memory; it only frees it, on whatever thread.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

#[cfg(unix)]
mod system {
    use std::ptr::{self, NonNull};

    use rustix::mm;

    /// Size and alignment of the pages that are asked for. What is smaller than one gets small pages.
    #[cfg(target_os = "linux")]
    const HUGE_BYTES: usize = 2 << 20;

    /// Memory that starts on a huge page, if it is large, on Linux.
    #[cfg(target_os = "linux")]
    pub(super) fn allocate(bytes: usize) -> Option<NonNull<u8>> {
        if bytes < HUGE_BYTES {
            return map(bytes);
        }
        let mapped = bytes.checked_add(HUGE_BYTES)?;
        let start = map(mapped)?;
        let head = start.align_offset(HUGE_BYTES).min(HUGE_BYTES);
        // SAFETY: `head` and what follows it stay within the mapping of `bytes` and a huge page more.
        let (aligned, tail) = unsafe { (start.add(head), start.add(head + bytes)) };
        if head > 0 {
            // SAFETY: the part of the mapping just made that lies before the memory handed out.
            unsafe { free(start, head) };
        }
        if head < HUGE_BYTES {
            // SAFETY: the part that lies after it.
            unsafe { free(tail, HUGE_BYTES - head) };
        }
        // SAFETY: the range is mapped, and this advice changes no contents. It is only a wish, so a refusal is
        // no error.
        let _ = unsafe { mm::madvise(aligned.as_ptr().cast(), bytes, mm::Advice::LinuxHugepage) };
        Some(aligned)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn allocate(bytes: usize) -> Option<NonNull<u8>> {
        map(bytes)
    }

    fn map(bytes: usize) -> Option<NonNull<u8>> {
        let access = mm::ProtFlags::READ | mm::ProtFlags::WRITE;
        // SAFETY: a new private anonymous mapping at a place of the kernel's choice overlaps nothing.
        let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), bytes, access, mm::MapFlags::PRIVATE) };
        NonNull::new(start.ok()?.cast())
    }

    /// # Safety
    /// `start` must come from `allocate(bytes)`, or be whole pages of such a range, and must not be used
    /// afterwards.
    pub(super) unsafe fn free(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller promises whole pages of ours that nothing refers to. Unmapping them fails only for
        // arguments that are no pages.
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
        // SAFETY: `AlignedBuffer::adjacent` never asks for zero bytes.
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
    fn adjacent_buffers_share_no_byte_and_outlive_each_other() {
        for (count, bytes) in [(0, 1), (1, 5000), (7, 4096), (3, (2 << 20) + 1), (2, 1 << 20)] {
            let mut buffers = AlignedBuffer::adjacent(count, bytes).unwrap();
            assert_eq!(buffers.len(), count);
            for (index, buffer) in buffers.iter_mut().enumerate() {
                assert!(buffer.len() >= bytes && buffer.iter().all(|&byte| byte == 0));
                buffer.fill(1 + index as u8);
            }
            while let Some(last) = buffers.pop() {
                assert!(last.iter().all(|&byte| usize::from(byte) == buffers.len() + 1));
            }
        }
    }

    #[test]
    fn buffers_of_many_sizes_lie_side_by_side() {
        let sizes = [1, 8192, 5000, 0, 3 << 20];
        let mut buffers = AlignedBuffer::side_by_side(&sizes).unwrap();
        assert_eq!(buffers.iter().map(|b| b.len()).collect::<Vec<_>>(), [4096, 8192, 8192, 4096, 3 << 20]);
        (1..).zip(&mut buffers).for_each(|(i, buffer)| buffer.fill(i));
        assert!((1..).zip(&buffers).all(|(i, buffer)| buffer.iter().all(|byte| *byte == i)));
        assert!(AlignedBuffer::side_by_side(&[]).unwrap().is_empty());
        assert!(AlignedBuffer::side_by_side(&[1, usize::MAX - 4096]).is_err());
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for bytes in [usize::MAX, isize::MAX as usize, 1 << 61] {
            assert_eq!(AlignedBuffer::new(bytes).unwrap_err().kind(), ErrorKind::Resources);
            assert_eq!(AlignedBuffer::adjacent(9, bytes / 8).unwrap_err().kind(), ErrorKind::Resources);
        }
    }
}
