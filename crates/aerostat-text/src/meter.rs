//! What a tokenizer may take for a text: time, and bytes of what it makes of it.
//!
//! Files of tokenizers hold patterns that backtrack for hours, and steps that double a text again and again. Everything
//! that runs what such a file says asks a [`Meter`] on its way.

use std::cell::Cell;
use std::time::Duration;

use crate::error::Error;

/// What a text of no bytes may take.
const TIME_BASE: Duration = Duration::from_secs(2);

/// What each byte of a text may take beyond that. Tokenizers that are meant well need a tenth of it.
const TIME_PER_BYTE: Duration = Duration::from_micros(4);

/// How many times longer than the text it came from a normalised text may be. Unicode's own forms grow elevenfold at most.
const GROWTH_MAX: usize = 16;

/// What a text of any length may grow to.
const GROWTH_FREE_BYTES: usize = 64 << 10;

/// How many ticks pass between two looks at the clock.
const TICKS: u32 = 64;

/// Counts what one text has taken so far.
pub(crate) struct Meter {
    start: Duration,
    time_max: Duration,
    text_bytes: usize,
    bytes_left: Cell<usize>,
    ticks: Cell<u32>,
}

impl Meter {
    /// A meter for a text of `bytes` bytes, running from now.
    pub(crate) fn new(bytes: usize) -> Self {
        let per_byte = TIME_PER_BYTE.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
        Meter {
            start: thread_time(),
            time_max: TIME_BASE + per_byte,
            text_bytes: bytes,
            bytes_left: Cell::new(Self::bytes_max(bytes)),
            ticks: Cell::new(0),
        }
    }

    fn bytes_max(text: usize) -> usize {
        text.saturating_mul(GROWTH_MAX).saturating_add(GROWTH_FREE_BYTES)
    }

    /// To be called in every loop over what a file decides; `part` says which part of it.
    pub(crate) fn tick(&self, part: &str) -> Result<(), Error> {
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks.is_multiple_of(TICKS) { self.check(part) } else { Ok(()) }
    }

    /// An error if the time is over.
    pub(crate) fn check(&self, part: &str) -> Result<(), Error> {
        if thread_time().saturating_sub(self.start) <= self.time_max {
            return Ok(());
        }
        Err(Error::encode(format!(
            "the tokenizer was stopped: it takes more than {:.1} s for a text of {} bytes; its time was over in {part}",
            self.time_max.as_secs_f64(),
            self.text_bytes,
        )))
    }

    /// An error if a step of the tokenizer would make more than `bytes` may be made of this text.
    pub(crate) fn fits(&self, bytes: usize) -> Result<(), Error> {
        if bytes <= Self::bytes_max(self.text_bytes) { Ok(()) } else { Err(self.too_long()) }
    }

    /// Takes bytes off what may be made of this text.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Error> {
        let left = self.bytes_left.get().checked_sub(bytes).ok_or_else(|| self.too_long())?;
        self.bytes_left.set(left);
        Ok(())
    }

    fn too_long(&self) -> Error {
        Error::encode(format!(
            "the tokenizer makes more than {} bytes of a text of {}, which is more than any language needs",
            Self::bytes_max(self.text_bytes),
            self.text_bytes
        ))
    }
}

/// The processor time of this thread, so that a busy machine is no reason to give up; elsewhere the time of day.
fn thread_time() -> Duration {
    #[cfg(unix)]
    return Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime))
        .unwrap_or_default();
    #[cfg(not(unix))]
    return std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
}
