//! What an engine is made of beside the model: a device, a source of bytes, and what was measured of both.

use aerostat_backend::{Backend, reference::Reference};
use aerostat_cpu::{Cpu, CpuConfig};
use aerostat_plan::Machine;
use aerostat_stream::{Source, SourceOptions};

use crate::Error;
use crate::machine;
use crate::model_files::ModelFiles;
use crate::options::{Device, Options};

/// A device, a source and the machine's figures. [`Parts::of`] takes those of this machine; tests bring their own.
pub struct Parts {
    /// Where ops run; nothing is allocated on it yet.
    pub backend: Box<dyn Backend>,
    /// What reads the files of the model.
    pub source: Box<dyn Source>,
    /// What the plan is made with.
    pub machine: Machine,
}

impl Parts {
    /// Opens the device that options name and the model's files, and measures both for a moment.
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device), [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn of(files: &ModelFiles, options: &Options) -> Result<Self, Error> {
        let disk = files.checkpoint.catalog.files();
        let (io, read_bytes_per_second) = match options.read_bytes_per_second {
            Some(rate) => (options.io, rate),
            None => machine::probe_reads(disk, options.io)?,
        };
        let available_bytes = machine::available_bytes();
        let is_gpu = matches!(options.device, Device::Gpu(_));
        // A GPU's memory is no cache of this process.
        let most = if is_gpu { 2 << 20 } else { 64 << 20 };
        let probe_bytes = (options.memory_bytes.unwrap_or(available_bytes) / 8).clamp(2 << 20, most);
        let process = || (machine::resident_bytes(), machine::peak_resident_bytes());
        let before = process();
        let mut backend = device(options)?;
        // On a device that is to have too little memory nothing can be measured; the plan says how much would do.
        let fits = backend.device_memory().is_none_or(|memory| memory.budget_bytes > memory.fixed_bytes);
        let multiply = match fits {
            true => machine::multiply_rates(&mut *backend, &files.spec, probe_bytes)?,
            false => Vec::new(),
        };
        backend.reset();
        // What a GPU's driver takes is part of the process; threads of the CPU are counted by themselves.
        let (process_bytes, process_peak_bytes) = if is_gpu { process() } else { before };
        let machine = Machine {
            available_bytes,
            process_bytes,
            process_peak_bytes,
            threads: threads(options),
            alignment: 4096,
            read_bytes_per_second,
            multiply,
        };
        let source = aerostat_stream::open(disk, SourceOptions { io, ..SourceOptions::default() })?;
        Ok(Self { backend, source, machine })
    }
}

/// Worker threads, as options say.
fn threads(options: &Options) -> usize {
    options.threads.unwrap_or_else(machine::cores).max(1)
}

/// What computes, as options say.
pub(crate) fn device(options: &Options) -> Result<Box<dyn Backend>, Error> {
    match options.device {
        Device::Reference => Ok(Box::new(Reference::new())),
        Device::Gpu(number) => crate::gpu::open(number, options.vram_bytes),
        Device::Auto | Device::Cpu => {
            Ok(Box::new(Cpu::new(CpuConfig { threads: threads(options), isa: options.isa })?))
        }
    }
}
