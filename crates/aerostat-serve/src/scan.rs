//! Whether a file is a batch at all: what is wrong with a single request is for its line of the error file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use aerostat_jobs::Names;
use aerostat_openai::json;
use serde_json::{Value, json};

/// Faults that are told.
const FAULTS_MAX: usize = 100;
/// Lines beyond this are left to the job, which refuses them.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Lines of a batch at most whatever the memory, as OpenAI bounds them; and what another takes in memory as long as it runs.
const LINES_USUAL: u64 = 50_000;
const ROW_BYTES: u64 = 40;
/// The part of the memory budget that is for those of one batch.
const ROWS_PART: u64 = 64;
/// Lines between two looks at whether to go on.
const LINES_PER_LOOK: u64 = 1000;

/// Lines that a batch may have where the memory is bounded.
pub(crate) fn lines_max(memory_bytes: Option<u64>) -> u64 {
    memory_bytes.map_or(u64::MAX, |bytes| LINES_USUAL.max(bytes / ROWS_PART / ROW_BYTES))
}

/// What is wrong with a file as a batch for an endpoint; `None` if it was asked to stop.
pub(crate) fn scan(
    path: &Path,
    endpoint: &str,
    lines_max: u64,
    stops: &dyn Fn() -> bool,
) -> io::Result<Option<Vec<Value>>> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
    let (mut faults, mut ids, mut line) = (Vec::new(), Names::default(), Vec::new());
    let (mut number, mut requests) = (0_u64, 0_u64);
    loop {
        line.clear();
        if (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        if requests == lines_max && !line.iter().all(u8::is_ascii_whitespace) {
            let message = format!(
                "the file has more than {lines_max} requests, more than a batch may have in this memory"
            );
            faults.push(
                json!({"code": "too_many_requests", "message": message, "param": null, "line": number}),
            );
            break;
        }
        if !line.ends_with(b"\n") && line.len() as u64 == LINE_BYTES_MAX {
            requests += 1;
            reader.skip_until(b'\n')?;
            continue;
        }
        let text = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        requests += 1;
        let found = fault(text, endpoint, &mut ids).map_err(io::Error::other)?;
        if let Some((code, message, param)) = found {
            faults.push(json!({"code": code, "message": message, "param": param, "line": number}));
            if faults.len() == FAULTS_MAX {
                break;
            }
        }
        if number.is_multiple_of(LINES_PER_LOOK) && stops() {
            return Ok(None);
        }
    }
    if requests == 0 {
        let message = "the file holds no request";
        faults.push(json!({"code": "empty_file", "message": message, "param": null, "line": null}));
    }
    Ok(Some(faults))
}

/// A code, a message and a member.
type Fault = (&'static str, String, Option<&'static str>);

fn fault(line: &[u8], endpoint: &str, ids: &mut Names) -> Result<Option<Fault>, aerostat_jobs::Error> {
    let value = match json::from_slice(line) {
        Ok(value) => value,
        Err(e) => return Ok(Some(("invalid_json_line", json::told("the line", &e), None))),
    };
    if !value.is_object() {
        return Ok(Some(("invalid_json_line", "the line is no JSON object".to_owned(), None)));
    }
    if value["url"].as_str().is_some_and(|url| url != endpoint) {
        return Ok(Some(("mismatched_url", format!("the line is not for {endpoint}"), Some("url"))));
    }
    let is_new = value["custom_id"].as_str().map_or(Ok(true), |id| ids.insert(id))?;
    let again =
        || ("duplicate_custom_id", "the line's custom_id was there before".to_owned(), Some("custom_id"));
    Ok((!is_new).then(again))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<(String, u64)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        std::fs::write(&path, text).unwrap();
        let faults = scan(&path, "/v1/embeddings", 1000, &|| false).unwrap().unwrap();
        let one =
            |fault: &Value| (fault["code"].as_str().unwrap().to_owned(), fault["line"].as_u64().unwrap_or(0));
        faults.iter().map(one).collect()
    }

    #[test]
    fn what_is_no_batch_is_told_by_line() {
        let line = |id: &str, url: &str| json!({"custom_id": id, "url": url, "body": {}}).to_string();
        let good = line("a", "/v1/embeddings");
        assert_eq!(codes(&format!("\u{feff}{good}\n\n{}", line("b", "/v1/embeddings"))), []);
        assert_eq!(codes(""), [("empty_file".to_owned(), 0)]);
        assert_eq!(codes(" \n\n"), [("empty_file".to_owned(), 0)]);
        let bad = format!("{good}\nnot\n[]\n{}\n{good}\n{}", line("c", "/v1/score"), r#"{"novel":1}"#);
        let want = [
            ("invalid_json_line", 2),
            ("invalid_json_line", 3),
            ("mismatched_url", 4),
            ("duplicate_custom_id", 5),
        ];
        assert_eq!(codes(&bad), want.map(|(code, line)| (code.to_owned(), line)));
        assert_eq!(codes(&"x\n".repeat(500)).len(), FAULTS_MAX);
        let line =
            |i: usize| json!({"custom_id": i.to_string(), "url": "/v1/embeddings", "body": {}}).to_string();
        let many = |count: usize| (0..count).map(line).collect::<Vec<_>>().join("\n");
        assert_eq!(codes(&format!("{}\n\n", many(1000))), []);
        assert_eq!(codes(&many(1001)), [("too_many_requests".to_owned(), 1001)]);
    }
}
