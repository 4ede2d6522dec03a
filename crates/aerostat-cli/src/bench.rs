//! `aerostat bench`: the disk, and sweeps beside the disk.

use aerostat::bench::{self, DiskPoint, SweepPoint, SweepSettings};
use aerostat::size;
use serde::Serialize;

use crate::args::{BenchArgs, BenchCommand, BenchDiskArgs, BenchSweepArgs, OutputArgs};
use crate::failure::Failure;
use crate::watch::Watch;
use crate::{interrupt, model, output};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a, T> {
    model: &'a str,
    points: &'a [T],
}

pub(crate) fn execute(args: &BenchArgs, output: &OutputArgs) -> Result<(), Failure> {
    match &args.command {
        BenchCommand::Disk(args) => disk(args, output),
        BenchCommand::Sweep(args) => sweep(args, output),
    }
}

fn disk(args: &BenchDiskArgs, output: &OutputArgs) -> Result<(), Failure> {
    let files = model::open(&args.model, output)?;
    let depths: Vec<usize> = args.depths.iter().map(|d| usize::from(*d)).collect();
    let points = bench::disk(&files, args.io, &args.sizes, &depths, args.rounds.into(), args.seconds)?;
    if output.json {
        return output::json(&Report { model: &args.model, points: &points });
    }
    let row = |p: &DiskPoint| {
        format!(
            "{:<9} {:>10} {:>6} {:>8.3} {:>8.3} {:>8.3}\n",
            p.io,
            size(p.read_bytes),
            p.depth,
            p.bytes_per_second / 1e9,
            p.spread.0 / 1e9,
            p.spread.1 / 1e9
        )
    };
    let head =
        format!("{:<9} {:>10} {:>6} {:>8} {:>8} {:>8}\n", "io", "read", "depth", "GB/s", "least", "most");
    Ok(output::text(&(head + &points.iter().map(row).collect::<String>()))?)
}

fn sweep(args: &BenchSweepArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, output)?;
    let settings =
        SweepSettings { rounds: args.rounds.into(), sweeps: args.sweeps.into(), raw_time: args.raw_seconds };
    let _graceful = interrupt::graceful();
    let mut points = Vec::new();
    if !output.json {
        output::text(&head())?;
    }
    for &pinned in &args.pinned {
        for &rows in &args.rows {
            let mut watch = Watch::new(output, false);
            let point = bench::sweep(
                &files,
                &options,
                rows as usize,
                f64::from(pinned) / 100.0,
                settings,
                &mut watch,
            )?;
            watch.finish()?;
            if !output.json {
                output::text(&row(&point))?;
            }
            points.push(point);
        }
    }
    if output.json {
        output::json(&Report { model: &args.model, points: &points })?;
    }
    Ok(())
}

fn head() -> String {
    format!(
        "{:>5} {:>7} {:>9} {:>9} {:>9} {:>10} {:>8} {:>8} {:>15} {:>9}\n",
        "rows",
        "pinned",
        "sweep s",
        "predicted",
        "stall s",
        "tokens/s",
        "GB/s",
        "of raw",
        "least to most",
        "peak"
    )
}

fn row(p: &SweepPoint) -> String {
    format!(
        "{:>5} {:>6.1}% {:>9.4} {:>9.4} {:>9.4} {:>10.2} {:>8.3} {:>8.3} {:>6.3} to {:<5.3} {:>9}\n",
        p.rows,
        p.pinned_fraction * 100.0,
        p.sweep_seconds,
        p.predicted_seconds,
        p.stall_seconds,
        p.tokens_per_second,
        p.read_bytes_per_second / 1e9,
        p.fraction_of_raw,
        p.fraction_spread.0,
        p.fraction_spread.1,
        size(p.memory_peak_bytes)
    )
}
