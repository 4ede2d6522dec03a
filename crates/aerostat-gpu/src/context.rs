//! An open device: what commands are given to, and what went wrong with it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError};

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

    /// The device is of no use any more, as its driver says in so many words.
    fn set_lost(&self, why: &str) {
        if why.to_ascii_lowercase().contains("memory") {
            return self.set(
                ErrorKind::OutOfMemory,
                format!("there is no more device memory ({why}); lower --vram"),
            );
        }
        let message = format!(
            "the device was lost ({why}): run the command again, jobs go on where they were; --device cpu needs no GPU"
        );
        self.set(ErrorKind::Device, message);
    }
}

thread_local! {
    /// Whether this thread is in [`Context::poll`].
    static POLLING: Cell<bool> = const { Cell::new(false) };
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
                lost.set_lost(&message);
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

    /// Looks what the device has done, or waits for it. wgpu panics where it finds that the device is lost; here that is noted
    /// as whatever else goes wrong, and nothing of the panic is printed.
    pub(crate) fn poll(&self, until: wgpu::PollType) {
        static QUIET: Once = Once::new();
        // The first call puts itself before whatever tells of panics, for panics inside such calls alone.
        QUIET.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if !POLLING.get() {
                    told(panic);
                }
            }));
        });
        POLLING.set(true);
        let polled = catch_unwind(AssertUnwindSafe(|| self.device.poll(until)));
        POLLING.set(false);
        match polled {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.fail(format!("waiting for it failed: {error}")),
            Err(_) => self.failure.set_lost("its driver gave no reason"),
        }
    }

    /// Notes that something went wrong.
    pub(crate) fn fail(&self, message: impl Into<String>) {
        self.failure.set(ErrorKind::Device, message.into());
    }
}
