//! `aerostat devices`: what can compute on this machine.

use std::fmt::Write;

use aerostat::gpu::{Adapter, adapters};
use aerostat::machine::{Description, describe};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, OutputArgs};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    machine: Description,
    /// Whether this build has support for GPUs.
    gpu_support: bool,
    adapters: Vec<Adapter>,
}

pub(crate) fn execute(output: &OutputArgs) -> Result<(), Failure> {
    let found = adapters();
    let report =
        Report { machine: describe(), gpu_support: found.is_some(), adapters: found.unwrap_or_default() };
    if output.json {
        return output::json(&report);
    }
    Ok(output::text(&table(&report))?)
}

fn table(report: &Report) -> String {
    let Report { machine, gpu_support, adapters } = report;
    let memory = aerostat::size(machine.memory_bytes);
    let mut text = format!("cpu    {}, {} threads, {memory}\n", machine.cpu, machine.threads);
    for adapter in adapters {
        let Adapter { number, name, kind, interface, driver, buffer_bytes_max, lacks } = adapter;
        let _ = writeln!(text, "gpu:{number}  {name}, {kind}, {interface}, {driver}");
        let _ = match lacks {
            None => writeln!(text, "       buffers of up to {}", aerostat::size(*buffer_bytes_max)),
            Some(lacks) => writeln!(text, "       cannot be used: {lacks}"),
        };
    }
    match (*gpu_support, adapters.is_empty()) {
        (false, _) => text += "gpu    not built into this version (its feature is `gpu`)\n",
        (true, true) => text += "gpu    none was found, or no loader of its driver (libvulkan)\n",
        (true, false) => {}
    }
    text
}
