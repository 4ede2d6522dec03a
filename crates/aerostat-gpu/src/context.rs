//! An open device: what commands are given to, and what went wrong with it.

use std::sync::{Arc, Mutex, PoisonError};

use aerostat_backend::{Error, ErrorKind};

use crate::pipelines::Pipelines;

/// A device of an adapter.
pub(crate) struct Context {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    /// The adapter's name, with its driver.
    pub(crate) name: String,
    /// Weights go to memory of the device that the host writes to, as it does where both share their memory.
    pub(crate) mapped: bool,
    /// Its memory is the host's.
    pub(crate) shares_host: bool,
    /// What it has of it.
    pub(crate) memory_bytes: u64,
    /// Kernels that were compiled.
    pub(crate) pipelines: Mutex<Pipelines>,
    failure: Arc<Failure>,
}

/// The first thing that went wrong. Most errors of a device are told later than they happen.
#[derive(Default)]
struct Failure(Mutex<Option<(ErrorKind, String)>>);

impl Failure {
    fn set(&self, kind: ErrorKind, message: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((kind, message));
    }
}

impl Context {
    pub(crate) fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        name: String,
        (mapped, shares_host, memory_bytes): (bool, bool, u64),
    ) -> Result<Arc<Self>, Error> {
        let failure = Arc::new(Failure::default());
        let told = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |error| match error {
            wgpu::Error::OutOfMemory { .. } => {
                told.set(ErrorKind::OutOfMemory, "there is no more device memory; lower --vram".to_owned());
            }
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                told.set(ErrorKind::Device, description);
            }
        }));
        let lost = Arc::clone(&failure);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.set(ErrorKind::Device, format!("the device was lost: {message}"));
            }
        });
        let limits = device.limits();
        Ok(Arc::new(Self {
            device,
            queue,
            limits,
            name,
            mapped,
            shares_host,
            memory_bytes,
            pipelines: Mutex::default(),
            failure,
        }))
    }

    /// Whether all went well so far.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &*self.failure.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((kind, message)) => Err(Error::new(*kind, format!("{}: {message}", self.name))),
        }
    }

    /// Notes that something went wrong.
    pub(crate) fn fail(&self, message: impl Into<String>) {
        self.failure.set(ErrorKind::Device, message.into());
    }
}
