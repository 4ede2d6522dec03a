//! Device memory under a budget: every buffer is made here, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aerostat_backend::{Error, ErrorKind};

use crate::adapters::now;
use crate::context::Context;

/// What allocators of drivers round up: a block of each kind of memory that is not full.
pub(crate) const ROUNDED_BYTES: u64 = 3 * BLOCK_BYTES;
/// Blocks of device memory that small buffers share: larger ones would be reserved without use.
pub(crate) const BLOCK_BYTES: u64 = 4 << 20;

/// Makes buffers as long as the budget allows.
pub(crate) struct Budget {
    context: Arc<Context>,
    bytes_max: Option<u64>,
    used: Arc<AtomicU64>,
    /// The most that was used at a time.
    peak: AtomicU64,
    next: AtomicU32,
}

/// A buffer on the device; its memory is given back with its last clone, once the device has done with it.
#[derive(Clone)]
pub(crate) struct Buffer {
    /// Different for each that was ever made.
    pub(crate) id: u32,
    pub(crate) raw: wgpu::Buffer,
    pub(crate) bytes: u64,
    _counted: Arc<Counted>,
}

struct Counted {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Budget {
    pub(crate) fn new(context: Arc<Context>, bytes_max: Option<u64>) -> Self {
        Self { context, bytes_max, used: Arc::default(), peak: AtomicU64::new(0), next: AtomicU32::new(0) }
    }

    /// Bytes of all buffers.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most that all buffers took at a time.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The most that may be taken, if that is bounded.
    pub(crate) fn bytes_max(&self) -> Option<u64> {
        self.bytes_max
    }

    /// Bytes that may still be taken.
    pub(crate) fn left(&self) -> u64 {
        self.bytes_max.map_or(u64::MAX, |most| most.saturating_sub(self.used() + ROUNDED_BYTES))
    }

    /// The largest buffer that a kernel can use.
    pub(crate) fn buffer_bytes_max(&self) -> u64 {
        let limits = &self.context.limits;
        limits.max_buffer_size.min(limits.max_storage_buffer_binding_size)
    }

    /// A zeroed buffer, of whole words. `what` names its use in errors.
    pub(crate) fn buffer(
        &self,
        what: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped_at_creation: bool,
    ) -> Result<Buffer, Error> {
        let bytes = bytes.max(4).next_multiple_of(4);
        if bytes > self.buffer_bytes_max() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{what} of {} MiB is larger than a buffer of {} can be ({} MiB); lower --rows-max or --context",
                    bytes >> 20,
                    self.context.name,
                    self.buffer_bytes_max() >> 20
                ),
            ));
        }
        if bytes > self.left() {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "{what} takes {bytes} bytes of device memory, but of {} only {} are left; raise --vram",
                    self.bytes_max.unwrap_or(0),
                    self.left()
                ),
            ));
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size: bytes, usage, mapped_at_creation };
        let device = &self.context.device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = device.create_buffer(&descriptor);
        if let Some(Some(_)) = now(scope.pop()) {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "{} has no more device memory for {what} of {bytes} bytes, beside {} that are taken; lower --vram, or end \
                     what else uses it",
                    self.context.name,
                    self.used()
                ),
            ));
        }
        self.context.check()?;
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(used, Ordering::Relaxed);
        let counted = Counted { used: Arc::clone(&self.used), bytes };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Buffer { id, raw, bytes, _counted: Arc::new(counted) })
    }
}
