//! Linux: direct reads through io_uring.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, types};

use crate::overlap::{Call, Kernel};

/// Reads under way at most; the kernel's own limit is higher.
pub(crate) const DEPTH_MAX: usize = 1024;

/// Bytes of one read call: below the kernel's limit, and whole pages.
const CALL_BYTES_MAX: usize = 1 << 30;

/// Pause after the kernel was out of something other than completions.
const PAUSE: Duration = Duration::from_millis(1);

/// An io_uring and the reads it is doing.
///
/// Invariant: a call stands in `calls`, under the index its entry names, from before its entry can be submitted
/// until its completion is seen. So the kernel writes only to buffers that live.
pub(crate) struct Uring {
    ring: IoUring,
    calls: Vec<Option<Call>>,
    under_way: usize,
}

impl Uring {
    /// A ring over these files, which it keeps open by itself; for `depth` reads at once, [`DEPTH_MAX`] at most.
    ///
    /// # Errors
    /// Those of the system: there may be no io_uring, or it may be forbidden, as containers do.
    pub(crate) fn new(files: &[File], depth: usize) -> io::Result<Self> {
        let entries = depth.clamp(1, DEPTH_MAX) as u32;
        let mut ring = IoUring::new(entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !files.is_empty() {
            let descriptors: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
            ring.submitter().register_files(&descriptors)?;
        }
        // One empty operation, since a filter may allow the setup of rings but not their use.
        let nothing = opcode::Nop::new().build();
        // SAFETY: the entry refers to no memory.
        unsafe { ring.submission().push(&nothing) }.map_err(io::Error::other)?;
        ring.submit_and_wait(1)?;
        ring.completion().next();
        Ok(Uring { ring, calls: Vec::with_capacity(entries as usize), under_way: 0 })
    }

    /// Submits what was started and waits for as many completions.
    fn enter(&self, completions: usize) {
        match self.ring.submit_and_wait(completions) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Short of memory, say. The reads under way cannot be left, so there is nothing but to try again.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

impl Kernel for Uring {
    fn start(&mut self, mut call: Call) {
        let (offset, range) = call.progress.rest();
        let out = call.buffer.get_mut(range).unwrap_or_default();
        let (start, bytes) = (out.as_mut_ptr(), out.len().min(CALL_BYTES_MAX));
        let index = self.calls.iter().position(Option::is_none).unwrap_or(self.calls.len());
        let entry = opcode::Read::new(types::Fixed(call.progress.file().0), start, bytes as u32)
            .offset(offset)
            .build()
            .user_data(index as u64);
        match self.calls.get_mut(index) {
            Some(place) => *place = Some(call),
            None => self.calls.push(Some(call)),
        }
        self.under_way += 1;
        // SAFETY: `start` points to `bytes` writable bytes of the call's buffer, which by this type's invariant
        // lives, and is lent to nobody else, until the completion of this entry is seen. Its memory does not
        // move when the call does.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.enter(0);
        }
    }

    fn finish(&mut self) -> Option<(Call, io::Result<usize>)> {
        while self.under_way > 0 {
            let Some(completion) = self.ring.completion().next() else {
                self.enter(1);
                continue;
            };
            let index = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            if let Some(call) = self.calls.get_mut(index).and_then(Option::take) {
                self.under_way -= 1;
                let answer = completion.result();
                let refused = |_| io::Error::from_raw_os_error(answer.saturating_neg());
                return Some((call, usize::try_from(answer).map_err(refused)));
            }
        }
        None
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.finish().is_some() {}
    }
}
