//! The adapters of this machine, and opening one.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll, Waker};

use aerostat_backend::{Error, ErrorKind};

use crate::budget::BLOCK_BYTES;
use crate::context::Context;

/// What is taken of device memory where nobody says how much: drivers do not tell it everywhere.
const MEMORY_BYTES: u64 = 2 << 30;

/// What an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// It shares the memory of the processor.
    Integrated,
    /// A part of a card that a machine was lent.
    Virtual,
    /// A program that does the work of one on the processor.
    Software,
    /// Nobody says.
    Other,
}

/// An adapter of this machine.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// Its number, as `--device gpu:N` takes it.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: AdapterKind,
    /// What talks to it, with its version.
    pub driver: String,
    /// Vulkan, Metal or DirectX 12.
    pub interface: String,
    /// The largest buffer that a kernel can use, in bytes.
    pub buffer_bytes_max: u64,
    /// Why it cannot be used; `None`: it can.
    pub lacks: Option<String>,
}

/// Which adapter is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first card, else whatever else there is but programs.
    Hardware,
    /// The first card, else whatever there is, programs too.
    #[default]
    Any,
    /// This one.
    Number(usize),
}

/// How weights get to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UploadPath {
    /// As suits the adapter.
    #[default]
    Auto,
    /// Through staging memory, by a copy of the device.
    Staged,
    /// Written to where kernels read them.
    Mapped,
}

/// The adapters of this machine: cards first, programs last. Empty where there are none, or no loader for their drivers.
pub fn adapters() -> Vec<AdapterReport> {
    sorted().iter().enumerate().map(|(number, adapter)| report(number, adapter)).collect()
}

/// Opens an adapter, or gives what is open of it: devices of one adapter share what was compiled for it.
pub(crate) fn open(choice: Choice, path: UploadPath) -> Result<Arc<Context>, Error> {
    type Opened = Vec<((Choice, UploadPath), Weak<Context>)>;
    static OPENED: Mutex<Opened> = Mutex::new(Vec::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    // One that has failed is of no use to others.
    opened.retain(|(_, context)| context.upgrade().is_some_and(|context| context.check().is_ok()));
    if let Some(context) = opened.iter().find(|(of, _)| *of == (choice, path)).and_then(|(_, c)| c.upgrade())
    {
        return Ok(context);
    }
    let context = open_anew(choice, path)?;
    opened.push(((choice, path), Arc::downgrade(&context)));
    Ok(context)
}

fn open_anew(choice: Choice, path: UploadPath) -> Result<Arc<Context>, Error> {
    let adapters = sorted();
    let reports: Vec<AdapterReport> =
        adapters.iter().enumerate().map(|(number, adapter)| report(number, adapter)).collect();
    let wanted = |report: &&AdapterReport| match choice {
        Choice::Number(number) => report.number == number,
        Choice::Any => report.lacks.is_none(),
        Choice::Hardware => report.lacks.is_none() && report.kind != AdapterKind::Software,
    };
    let refuse = |message: String| Err(Error::new(ErrorKind::Unsupported, message));
    let Some(report) = reports.iter().find(wanted) else {
        let found = match reports.len() {
            0 => "no GPU was found on this machine (or no driver for it)".to_owned(),
            _ => format!("no GPU of this machine can be used: {}", reasons(&reports)),
        };
        return refuse(format!("{found}; `aerostat devices` lists them, `--device cpu` needs none"));
    };
    if let Some(lacks) = &report.lacks {
        return refuse(format!("{} cannot be used: {lacks}; --device cpu needs none", report.name));
    }
    let name = format!("{} ({}, {})", report.name, report.interface, report.driver);
    let adapter = &adapters[report.number];
    let shares_host = matches!(report.kind, AdapterKind::Integrated | AdapterKind::Software);
    let mapped = match path {
        UploadPath::Auto => shares_host,
        UploadPath::Staged => false,
        UploadPath::Mapped => true,
    } && adapter.features().contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS);
    let extra = if mapped { wgpu::Features::MAPPABLE_PRIMARY_BUFFERS } else { wgpu::Features::empty() };
    let limits = adapter.limits();
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        label: None,
        required_features: wgpu::Features::IMMEDIATES | extra,
        required_limits: needed_limits(&limits),
        experimental_features: wgpu::ExperimentalFeatures::disabled(),
        memory_hints: wgpu::MemoryHints::Manual {
            suballocated_device_memory_block_size: BLOCK_BYTES..BLOCK_BYTES,
        },
        trace: wgpu::Trace::Off,
    });
    let failed =
        |why: String| Err(Error::new(ErrorKind::Device, format!("{name} {why}; --device cpu needs none")));
    match now(request) {
        Some(Ok((device, queue))) => Context::new(device, queue, name, (mapped, shares_host, MEMORY_BYTES)),
        Some(Err(error)) => failed(format!("cannot be opened ({})", error.to_string().trim_end_matches('.'))),
        None => failed("does not answer".to_owned()),
    }
}

/// What a future gives that needs nobody to wait for it.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut context = TaskContext::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn sorted() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = now(instance.enumerate_adapters(wgpu::Backends::PRIMARY)).unwrap_or_default();
    adapters.sort_by_key(|adapter| match kind(&adapter.get_info()) {
        AdapterKind::Discrete => 0,
        AdapterKind::Integrated => 1,
        AdapterKind::Virtual => 2,
        AdapterKind::Other => 3,
        AdapterKind::Software => 4,
    });
    adapters
}

fn kind(info: &wgpu::AdapterInfo) -> AdapterKind {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    }
}

fn report(number: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ");
    AdapterReport {
        number,
        name: info.name.clone(),
        kind: kind(&info),
        driver: driver.trim().to_owned(),
        interface: format!("{:?}", info.backend),
        buffer_bytes_max: limits.max_buffer_size.min(limits.max_storage_buffer_binding_size),
        lacks: lacks(adapter.features(), &limits),
    }
}

/// The limits that kernels are written for; all else as the adapter has it.
fn needed_limits(adapter: &wgpu::Limits) -> wgpu::Limits {
    wgpu::Limits {
        max_buffer_size: adapter.max_buffer_size,
        max_storage_buffer_binding_size: adapter.max_storage_buffer_binding_size,
        max_immediate_size: 128,
        ..wgpu::Limits::default()
    }
}

/// What of that an adapter does not have.
fn lacks(features: wgpu::Features, limits: &wgpu::Limits) -> Option<String> {
    if !features.contains(wgpu::Features::IMMEDIATES) {
        return Some("its driver takes no parameters with a command (push constants)".to_owned());
    }
    let needed = needed_limits(limits);
    let mut missing = None;
    needed.check_limits_with_fail_fn(limits, true, |name, wanted, has| {
        missing = Some(format!("its limit {name} is {has}, and {wanted} is needed"));
    });
    missing
}

/// Of each adapter why it is not used.
fn reasons(reports: &[AdapterReport]) -> String {
    let reason = |report: &AdapterReport| {
        let lacks = report.lacks.as_deref().unwrap_or("it is not what was asked for");
        format!("gpu:{} {} ({lacks})", report.number, report.name)
    };
    reports.iter().map(reason).collect::<Vec<_>>().join(", ")
}
