//! `cargo xtask bench-report`: docs/benchmarks.md and its plots, from the measured files in docs/benchmarks.
//!
//! The same files give the same bytes. Nothing here measures; the commands that do are named in the report. What no
//! file was kept of, and what readers need to know first, is written by hand in `docs/benchmarks/notes.md`, which becomes the
//! beginning of the report.
//!
//! A measured file is an object with `command`, `machine` (`cpu`, `threads`, `memory_bytes`, `system`) and a list,
//! `points` or, for peers, `results`. The fields of an entry are read in one place each: `disk` and `one_kernels` in
//! `hardware.rs`, `Sweep::read` and `page_cache` in `sweeps.rs`, tasks in `speculate.rs`, `Outcome::read` in `peers.rs`. Sizes are in bytes, rates
//! per second, a spread is `[low, high]`.

mod chart;
mod hardware;
mod peers;
mod source;
mod speculate;
mod sweeps;
mod text;
mod ticks;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use source::Source;
use text::Page;

/// What to read, and where to write.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The folder of measured files; docs/benchmarks unless given.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Where benchmarks.md goes, and benchmarks/*.svg; docs unless given.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Write nothing; fail where what is there differs from what would be written.
    #[arg(long)]
    check: bool,
}

/// Writes the report, or compares it with what is there.
///
/// # Errors
/// A measured file is malformed or unknown, a file cannot be read or written, or the comparison finds differences.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let input = options.input.clone().unwrap_or_else(|| root.join("docs/benchmarks"));
    let output = options.output.clone().unwrap_or_else(|| root.join("docs"));
    let written = render(&notes(&input)?, &sources(&input)?)?;
    let stale = differences(&output, &written)?;
    if !options.check {
        return write(&output, &written, &stale);
    }
    if !stale.is_empty() {
        bail!("not what the measurements give: {}; run cargo xtask bench-report", stale.join(", "));
    }
    Ok(())
}

const PAGE: &str = "benchmarks.md";
const PLOTS: &str = "benchmarks";
const NOTES: &str = "notes.md";

/// Names of measured files, without `.json`; a star stands for anything.
const KNOWN: &[&str] = &[
    "disk",
    "kernels-*",
    "sweep*",
    "speculate-*",
    "page-cache",
    "peers-streamed",
    "peers-fast",
    "peers-resident",
];

/// The measured files of a folder, by name; none where there is no folder.
fn sources(folder: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in files(folder, "json")? {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !KNOWN.iter().any(|known| known.strip_suffix('*').map_or(*known == name, |k| name.starts_with(k)))
        {
            bail!("{}: no measurement has this name; known are {}", path.display(), KNOWN.join(", "));
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        sources.push(Source::parse(&name, &text)?);
    }
    Ok(sources)
}

/// What is written by hand; empty where there is no such file.
fn notes(folder: &Path) -> Result<String> {
    let path = folder.join(NOTES);
    if !path.exists() {
        return Ok(String::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(text.trim_end().to_owned())
}

/// The files of a folder with an extension, in order.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let context = || format!("{}: cannot be listed", folder.display());
    let entries = fs::read_dir(folder).with_context(context)?.collect::<Result<Vec<_>, _>>();
    let paths = entries.with_context(context)?.into_iter().map(|entry| entry.path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    Ok(paths)
}

/// All files of the report, by path under the output.
fn render(notes: &str, sources: &[Source]) -> Result<BTreeMap<String, String>> {
    let mut page = Page::default();
    page.paragraph("# Benchmarks");
    page.paragraph(
        "Written by `cargo xtask bench-report` from the measured files and the notes in [benchmarks](benchmarks): do not edit. \
         Every section names the command and the machine that measured it. Figures are medians; where a spread was \
         measured it stands in brackets, and as bars in the plots. A dash means not measured.",
    );
    if !notes.is_empty() {
        page.paragraph(notes);
    }
    hardware::disk(&mut page, sources)?;
    hardware::kernels(&mut page, sources)?;
    sweeps::sweeps(&mut page, sources)?;
    speculate::speculate(&mut page, sources)?;
    peers::peers(&mut page, sources)?;
    let plots = page.plots.into_iter().map(|(name, svg)| (format!("{PLOTS}/{name}.svg"), svg));
    Ok(plots.chain([(PAGE.to_owned(), page.text)]).collect())
}

/// Paths whose content differs from the report, and plots that are not part of it.
fn differences(output: &Path, written: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let is_stale = |(path, text): &(&String, &String)| {
        fs::read(output.join(path)).ok().as_deref() != Some(text.as_bytes())
    };
    let mut stale: Vec<_> = written.iter().filter(is_stale).map(|(path, _)| path.clone()).collect();
    for path in files(&output.join(PLOTS), "svg")? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let path = format!("{PLOTS}/{name}");
        if !written.contains_key(&path) {
            stale.push(path);
        }
    }
    Ok(stale)
}

/// Writes what differs, and removes plots that are not part of the report.
fn write(output: &Path, written: &BTreeMap<String, String>, stale: &[String]) -> Result<()> {
    let folder = output.join(PLOTS);
    fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    for path in stale {
        let place = output.join(path);
        let (outcome, what) = match written.get(path) {
            Some(text) => (fs::write(&place, text), "written"),
            None => (fs::remove_file(&place), "removed"),
        };
        outcome.with_context(|| format!("{}: cannot be {what}", place.display()))?;
        eprintln!("{what}: {}", place.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = r#"{"command": "aerostat bench disk M", "machine": {"cpu": "Zen"}, "model": "m",
        "points": [{"read_bytes": 4096, "depth": 1, "bytes_per_second": 1e9}]}"#;

    fn options(folder: &Path, check: bool) -> Options {
        Options { input: Some(folder.join("in")), output: Some(folder.join("out")), check }
    }

    #[test]
    fn the_committed_report_is_what_the_measurements_give() {
        let options = Options { input: None, output: None, check: true };
        run(&crate::repository_root(), &options).expect("cargo xtask bench-report was run");
    }

    #[test]
    fn the_same_measurements_give_the_same_bytes_and_changes_are_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, path) = (folder.path(), folder.path());
        fs::create_dir(path.join("in")).expect("a folder");
        fs::write(path.join("in/disk.json"), DISK).expect("a file");
        assert!(run(root, &options(path, true)).is_err(), "nothing is written yet");
        run(root, &options(path, false)).expect("writes");
        run(root, &options(path, true)).expect("nothing changed");
        fs::write(path.join("in/notes.md"), "## By hand\n\nSo it was.\n").expect("a file");
        assert!(run(root, &options(path, true)).is_err(), "notes are part of the report");
        run(root, &options(path, false)).expect("writes");
        let report = fs::read_to_string(path.join("out/benchmarks.md")).expect("a report");
        assert!(report.contains("\n\n## By hand\n\nSo it was.\n\n## Disk\n"), "{report}");
        fs::write(path.join("out/benchmarks/old.svg"), "").expect("a file");
        let error = run(root, &options(path, true)).expect_err("a plot too many").to_string();
        assert!(error.contains("benchmarks/old.svg"), "{error}");
        fs::remove_file(path.join("in/disk.json")).expect("removed");
        run(root, &options(path, false)).expect("writes");
        run(root, &options(path, true)).expect("nothing changed");
        assert!(!path.join("out/benchmarks/disk.svg").exists());
    }

    #[test]
    fn an_unknown_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("in")).expect("a folder");
        fs::write(folder.path().join("in/dusk.json"), DISK).expect("a file");
        let error = run(folder.path(), &options(folder.path(), false)).expect_err("unknown").to_string();
        assert!(error.contains("dusk.json: no measurement has this name; known are disk, "), "{error}");
    }
}
