//! Linux: `O_DIRECT`, `statx` for its alignment, `posix_fadvise` to keep the page cache clean.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{self, Advice, AtFlags, Mode, OFlags, StatxFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::buffer::PAGE_BYTES;

/// Works wherever direct reads do, if the system does not tell its alignment.
const ALIGNMENT_DEFAULT: usize = 4096;

/// `TMPFS_MAGIC` of linux/magic.h. Newer kernels accept direct opens there, and copy all the same.
const TMPFS_TYPE: u64 = 0x0102_1994;

pub(crate) fn open_direct(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECT;
    Ok(fs::open(path, flags, Mode::empty())?.into())
}

/// The alignment of direct reads of this file; `None` if its file system has none.
pub(crate) fn direct_alignment(file: &File) -> Option<usize> {
    if fs::fstatfs(file).is_ok_and(|stat| stat.f_type as u64 == TMPFS_TYPE) {
        return None;
    }
    let told = fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    match told {
        Ok(stat) if stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            let (offset, memory) = (stat.stx_dio_offset_align as usize, stat.stx_dio_mem_align as usize);
            let usable = offset.is_power_of_two() && memory.is_power_of_two() && memory <= PAGE_BYTES;
            usable.then_some(offset.max(memory))
        }
        _ => Some(ALIGNMENT_DEFAULT),
    }
}

/// Lets the process open `files` more files than it may by default, as far as the system does.
pub(crate) fn allow_files(files: usize) {
    /// Files that the rest of the process has open, about.
    const OTHERS: u64 = 128;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files as u64 + OTHERS) {
        // Only a wish: where it is not enough, opening says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Opens for buffered reads that bring in no more than they ask for.
pub(crate) fn open_buffered(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Only a wish: not every file system takes it.
    let _ = fs::fadvise(&file, 0, None, Advice::Random);
    Ok(file)
}

/// Lets the page cache forget a file, as far as nobody writes to it.
pub(crate) fn forget(file: &File) {
    // Only a wish, as above.
    let _ = fs::fadvise(file, 0, None, Advice::DontNeed);
}
