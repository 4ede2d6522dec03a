//! `aerostat inspect`: what a checkpoint holds, and whether it can run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use aerostat::{Inspection, ModelFiles, size};
use aerostat_pack::Codec;
use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::options::MODEL_HELP;
use crate::output;
use crate::output::OutputArgs;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// Show what a sweep computes, op by op, with shapes; blocks that are alike once.
    #[arg(long)]
    program: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    #[serde(serialize_with = "output::path")]
    path: &'a Path,
    /// Whether the model is on this machine.
    downloaded: bool,
    family: Option<&'static str>,
    /// Why the model cannot run; `None` if it can.
    unsupported: Option<String>,
    parameters: u64,
    weight_bytes: u64,
    formats: BTreeMap<&'static str, Format>,
    /// Quantised matrices by the name of their code; bytes include those of their scales.
    codes: BTreeMap<String, Format>,
    tensors: Vec<Tensor<'a>>,
    /// The codec, if this is a folder that `aerostat pack` made.
    codec: Option<&'a str>,
    /// The size that each codec of `aerostat pack` would give, by the name of the codec.
    pack: BTreeMap<&'static str, Pack>,
    tokenizer: bool,
    chat_template: bool,
}

#[derive(Serialize)]
struct Pack {
    bytes: u64,
    ratio: f64,
}

#[derive(Default, Serialize)]
struct Format {
    tensors: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    dtype: &'static str,
    shape: &'a [u64],
    bytes: u64,
    #[serde(serialize_with = "output::path")]
    file: &'a Path,
}

pub(crate) fn execute(args: &InspectArgs, output: &OutputArgs) -> Result<(), Failure> {
    let headers = model::headers(&args.model, output)?;
    let inspection = ModelFiles::inspect(headers.path())?;
    if args.program {
        let spec = inspection.spec.map_err(Failure::from)?;
        let program = aerostat::program(&spec)?;
        let program = program.show(&spec).to_string();
        return match output.json {
            true => output::json(&serde_json::json!({ "model": &*args.model, "program": program })),
            false => Ok(output::text(&program)?),
        };
    }
    let report = report(&args.model, &inspection, headers.is_here());
    if output.json {
        return output::json(&report);
    }
    Ok(output::text(&table(&report, &inspection, output.verbose))?)
}

/// Of a model that is not `here`, files are named as in their repository.
fn report<'a>(model: &'a str, inspection: &'a Inspection, here: bool) -> Report<'a> {
    let folder = if inspection.path.is_dir() { Some(&*inspection.path) } else { inspection.path.parent() };
    let shown = |file: &'a Path| file.strip_prefix(folder.filter(|_| !here)?).ok();
    let tensors: Vec<Tensor<'_>> = inspection
        .tensors
        .iter()
        .map(|(name, dtype, shape, bytes, file)| Tensor {
            name,
            dtype,
            shape,
            bytes: *bytes,
            file: shown(file).unwrap_or(file),
        })
        .collect();
    let elements = |t: &Tensor<'_>| t.shape.iter().fold(1u64, |n, d| n.saturating_mul(*d));
    let mut formats: BTreeMap<&'static str, Format> = BTreeMap::new();
    for tensor in &tensors {
        let format = formats.entry(tensor.dtype).or_default();
        format.tensors += 1;
        format.bytes += tensor.bytes;
    }
    let mut codes: BTreeMap<String, Format> = BTreeMap::new();
    for matrix in inspection.spec.iter().flat_map(|spec| spec.matrices()) {
        let Some(scales) = &matrix.scales else { continue };
        let format = codes.entry(scales.code.to_string()).or_default();
        format.tensors += 1;
        format.bytes += matrix.bytes() + scales.kept.as_ref().map_or(0, |kept| kept.extent.bytes);
    }
    Report {
        model,
        path: if here { &inspection.path } else { Path::new(model) },
        downloaded: here,
        family: inspection.spec.as_ref().ok().map(|s| s.family),
        unsupported: inspection.spec.as_ref().err().map(ToString::to_string),
        parameters: inspection
            .spec
            .as_ref()
            .map_or_else(|_| tensors.iter().map(elements).sum(), |s| s.parameters),
        weight_bytes: tensors.iter().map(|t| t.bytes).sum(),
        formats,
        codes,
        tensors,
        codec: inspection.codec.as_deref(),
        pack: pack(inspection),
        tokenizer: inspection.tokenizer,
        chat_template: inspection.chat_template,
    }
}

/// An estimate of what each codec would make of a folder that is not packed; empty for anything else.
fn pack(inspection: &Inspection) -> BTreeMap<&'static str, Pack> {
    // Only folders are packed.
    let (Ok(spec), None, true) = (&inspection.spec, &inspection.codec, inspection.path.is_dir()) else {
        return BTreeMap::new();
    };
    let before: u64 = inspection.tensors.iter().map(|(_, _, _, bytes, _)| bytes).sum();
    let of = |codec: Codec| {
        let bytes = aerostat_pack::estimate(&inspection.catalog, spec, codec).bytes;
        (codec.name(), Pack { bytes, ratio: bytes as f64 / before.max(1) as f64 })
    };
    Codec::ALL.map(of).into_iter().filter(|(_, pack)| pack.bytes < before).collect()
}

fn table(report: &Report<'_>, inspection: &Inspection, verbose: bool) -> String {
    let mut text = format!("{}\n", report.model);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<16}{value}");
    };
    let yes = |there: bool| if there { "yes" } else { "no" }.to_owned();
    match report.downloaded {
        true => line("path", report.path.display().to_string()),
        false => line("path", "not on this machine; `aerostat pull` downloads it".to_owned()),
    }
    match &inspection.spec {
        Ok(spec) => {
            line("family", spec.family.to_owned());
            let (blocks, hidden) = (spec.blocks.len(), spec.hidden);
            line("shape", format!("{blocks} blocks, {hidden} wide, {} tokens known", spec.vocab));
            line("context", format!("{} tokens", spec.context_max));
            if let Some((tensors, bytes)) = spec.other_towers {
                line(
                    "text only",
                    format!("{} in {tensors} tensors of other towers are not read", size(bytes)),
                );
            }
        }
        Err(e) => line("unsupported", e.to_string()),
    }
    line("parameters", report.parameters.to_string());
    line("weights", format!("{} in {} tensors", size(report.weight_bytes), report.tensors.len()));
    for (name, format) in &report.formats {
        line(&format!("  {name}"), format!("{} in {} tensors", size(format.bytes), format.tensors));
    }
    for (name, format) in &report.codes {
        let bytes = size(format.bytes);
        line(&format!("  {name}"), format!("{bytes} in {} matrices, scales included", format.tensors));
    }
    if let Some(codec) = report.codec {
        line("packed", codec.to_owned());
    }
    for (codec, pack) in Codec::ALL.iter().filter_map(|codec| report.pack.get_key_value(codec.name())) {
        line(&format!("pack {codec}"), format!("about {} ({:.0} %)", size(pack.bytes), 100.0 * pack.ratio));
    }
    let mut files: BTreeMap<&Path, u64> = BTreeMap::new();
    for tensor in &report.tensors {
        *files.entry(tensor.file).or_default() += tensor.bytes;
    }
    for (path, bytes) in files {
        let name = path.file_name().map_or_else(|| path.to_owned(), PathBuf::from);
        line("file", format!("{} ({} of weights)", name.display(), size(bytes)));
    }
    line("tokenizer", yes(report.tokenizer));
    line("chat template", yes(report.chat_template));
    if verbose {
        for t in &report.tensors {
            line("tensor", format!("{:<48} {:<6} {:?} {}", t.name, t.dtype, t.shape, size(t.bytes)));
        }
    }
    text
}
