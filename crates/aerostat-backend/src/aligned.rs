//! Aligned allocations of host memory.

use crate::{Error, ErrorKind};

/// Alignment of buffers and of the KV cache: one cache line, one AVX-512 vector.
const BUFFER_ALIGN_BYTES: usize = 64;

/// The most that alignment adds to the scratch of a host device.
pub(crate) const SLACK_BYTES: u64 = BUFFER_ALIGN_BYTES as u64;

/// Told of memory that was allocated and not yet touched: its start and its bytes.
pub(crate) type Advise<'a> = &'a dyn Fn(*const u8, usize);

/// A zeroed allocation whose first element is aligned.
pub(crate) struct Aligned<T> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `what` names the use in the error.
    pub(crate) fn zeroed(len: usize, what: &str, advise: Advise<'_>) -> Result<Self, Error> {
        let slack = BUFFER_ALIGN_BYTES / size_of::<T>();
        let refused = || {
            let message = format!("no memory for {what} of {len} elements of {} bytes", size_of::<T>());
            Error::new(ErrorKind::OutOfMemory, message)
        };
        let padded = len.checked_add(slack).ok_or_else(refused)?;
        let mut data: Vec<T> = Vec::new();
        data.try_reserve_exact(padded).map_err(|_| refused())?;
        advise(data.as_ptr().cast(), padded * size_of::<T>());
        data.resize(padded, T::default());
        let start = data.as_ptr().align_offset(BUFFER_ALIGN_BYTES).min(slack);
        Ok(Self { data, start, len })
    }

    /// What it takes, alignment included.
    pub(crate) fn bytes(&self) -> u64 {
        (self.data.capacity() * size_of::<T>()) as u64
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &self.data[self.start..][..self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data[self.start..][..self.len]
    }
}
