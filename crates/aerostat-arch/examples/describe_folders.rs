//! Describes one folder after the other, for scripts that compare many configurations.
//!
//! Each line of standard input is a path; each line of standard output a JSON object with a digest of the description (`spec`), or
//! with `error`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, Write};
use std::path::Path;

use aerostat_checkpoint::Checkpoint;

fn main() -> std::io::Result<()> {
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in input.lines() {
        let line = line?;
        let folder = Path::new(line.split('\t').next().unwrap_or_default());
        let answer = match Checkpoint::open(folder).map_err(|e| e.to_string()) {
            Ok(checkpoint) => digest(&checkpoint),
            Err(error) => serde_json::json!({"error": error}),
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

/// Of everything that changes what is computed.
fn digest(checkpoint: &Checkpoint) -> serde_json::Value {
    match aerostat_arch::describe(checkpoint) {
        Ok(mut spec) => {
            (spec.family, spec.context_max, spec.parameters) = ("", 0, 0);
            spec.notes.clear();
            spec.eos.clear();
            spec.bos = None;
            let mut hasher = DefaultHasher::new();
            format!("{spec:?}").hash(&mut hasher);
            serde_json::json!({"spec": hasher.finish()})
        }
        Err(error) => serde_json::json!({"error": error.to_string()}),
    }
}
