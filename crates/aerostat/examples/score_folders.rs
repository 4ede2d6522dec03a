//! Scores token ids with one model after the other, for scripts that compare many tiny models.
//!
//! Each line of standard input is `FOLDER<tab>1,2,3`; each line of standard output a JSON object, with `logprobs` and
//! `logits_last` as `aerostat score --json` has them, or with `error`; and with `notes` on the checkpoint.

use std::io::{BufRead, Write};
use std::path::Path;

use aerostat::{Engine, Error, ErrorKind, KvType, ModelFiles, Options, Silent};

fn main() -> std::io::Result<()> {
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in input.lines() {
        let line = line?;
        let (folder, ids) = line.split_once('\t').unwrap_or((&line, ""));
        let ids: Vec<u32> = ids.split(',').filter_map(|id| id.parse().ok()).collect();
        let answer =
            score(Path::new(folder), &ids).unwrap_or_else(|e| serde_json::json!({"error": e.to_string()}));
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn score(folder: &Path, ids: &[u32]) -> Result<serde_json::Value, Error> {
    let files = ModelFiles::open(folder)?;
    let options =
        Options { threads: Some(1), kv: KvType::F32, memory_bytes: Some(256 << 20), ..Options::default() };
    let texts = [ids.to_vec()];
    let need = aerostat::score::need(&texts, true);
    let mut engine = Engine::open(&files, &options, &need, &mut Silent)?;
    let mut scores = engine.score(&texts, true, &mut Silent)?;
    let score = scores.pop().ok_or_else(|| Error::new(ErrorKind::Usage, "nothing was scored"))??;
    Ok(
        serde_json::json!({"logprobs": score.logprobs, "logits_last": score.logits_last, "notes": files.spec().notes}),
    )
}
