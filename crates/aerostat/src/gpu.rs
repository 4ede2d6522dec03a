//! GPUs, where this build has support for them.

use aerostat_backend::Backend;
use serde::Serialize;

use crate::Error;
#[cfg(not(feature = "gpu"))]
use crate::ErrorKind;

/// An adapter of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adapter {
    /// Its number, as [`Device::Gpu`](crate::Device::Gpu) takes it.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// What it is: "discrete", "integrated", "virtual", "software" or "other".
    pub kind: &'static str,
    /// What talks to it, such as "Vulkan".
    pub interface: String,
    /// Its driver, with the version.
    pub driver: String,
    /// The largest buffer that a kernel can use, in bytes.
    pub buffer_bytes_max: u64,
    /// Why it cannot be used; `None`: it can.
    pub lacks: Option<String>,
}

/// The adapters of this machine, cards first; `None`: this build has no support for GPUs.
pub fn adapters() -> Option<Vec<Adapter>> {
    #[cfg(feature = "gpu")]
    {
        use aerostat_gpu::AdapterKind;
        let adapter = |report: aerostat_gpu::AdapterReport| Adapter {
            number: report.number,
            name: report.name,
            kind: match report.kind {
                AdapterKind::Discrete => "discrete",
                AdapterKind::Integrated => "integrated",
                AdapterKind::Virtual => "virtual",
                AdapterKind::Software => "software",
                AdapterKind::Other => "other",
            },
            interface: report.interface,
            driver: report.driver,
            buffer_bytes_max: report.buffer_bytes_max,
            lacks: report.lacks,
        };
        Some(aerostat_gpu::adapters().into_iter().map(adapter).collect())
    }
    #[cfg(not(feature = "gpu"))]
    None
}

/// Opens an adapter, by its number or the first; `vram_bytes` bounds what it allocates.
#[cfg(feature = "gpu")]
pub(crate) fn open(number: Option<usize>, vram_bytes: Option<u64>) -> Result<Box<dyn Backend>, Error> {
    use aerostat_gpu::{Choice, Gpu, GpuConfig, UploadPath};
    let adapter = number.map_or(Choice::Any, Choice::Number);
    let config = GpuConfig { adapter, memory_bytes: vram_bytes, path: UploadPath::Auto };
    Ok(Box::new(Gpu::new(config)?))
}

/// Says that this build has no support for GPUs.
#[cfg(not(feature = "gpu"))]
pub(crate) fn open(_: Option<usize>, _: Option<u64>) -> Result<Box<dyn Backend>, Error> {
    let message =
        "--device gpu is not built into this version (its feature is `gpu`); use --device cpu or auto";
    Err(Error::new(ErrorKind::Device, message))
}

/// What tells the bits of an adapter's results apart from those of others: its name and its driver.
pub(crate) fn name(number: Option<usize>) -> String {
    static FOUND: std::sync::OnceLock<Vec<Adapter>> = std::sync::OnceLock::new();
    let found = FOUND.get_or_init(|| adapters().into_iter().flatten().collect());
    let is_wanted =
        |adapter: &&Adapter| number.map_or(adapter.lacks.is_none(), |number| adapter.number == number);
    match (found.iter().find(is_wanted), number) {
        (Some(Adapter { name, interface, driver, .. }), _) => format!("{name} ({interface}, {driver})"),
        (None, Some(number)) => format!("GPU {number}, which is not there"),
        (None, None) => "no GPU".to_owned(),
    }
}
