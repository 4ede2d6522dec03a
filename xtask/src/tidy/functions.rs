//! Lengths of functions and of files. Test code is held to the same limits.

use super::finding::Finding;
use super::ratchet::{Ratchet, Site};
use super::source::Source;

/// The list of functions that may be longer.
pub(super) const LIST: &str = "xtask/tidy-functions.txt";

/// From the line with `fn` to the line with the closing brace.
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;

/// No function is longer than [`FUNCTION_LINES_MAX`], but for those listed.
pub(super) fn lengths(sources: &[Source], list: &str) -> Vec<Finding> {
    let mut sites = Vec::new();
    for source in sources {
        for function in &source.functions {
            let line = source.line(function.bytes.start);
            let value = source.line(function.bytes.end - 1) - line + 1;
            sites.push(Site { path: source.path.clone(), line, item: function.name.clone(), value });
        }
    }
    let ratchet = Ratchet {
        list: LIST,
        free: FUNCTION_LINES_MAX,
        total: |values| values.iter().copied().max().unwrap_or(0),
        describe: |site| {
            let what = format!("{} has {} lines, {FUNCTION_LINES_MAX} are allowed", site.item, site.value);
            (what, "split it".to_owned())
        },
    };
    ratchet.findings(list, sites)
}

/// No file is longer than [`FILE_LINES_MAX`].
pub(super) fn file_lengths(sources: &[Source]) -> Vec<Finding> {
    let lines = sources.iter().map(|source| (source, source.text.lines().count()));
    lines
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(source, lines)| {
            let what = format!("{lines} lines, {FILE_LINES_MAX} are allowed");
            Finding::new(&source.path, lines, what, "split the file")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function_of(lines: usize) -> Source {
        let text = format!("/// Doc.\nfn long(\n){{\n{}}}\n", "    // \"{\" is no brace\n".repeat(lines - 3));
        Source::new("a.rs", &text)
    }

    #[test]
    fn a_function_counts_from_its_signature_to_its_brace() {
        assert!(lengths(&[function_of(70)], "").is_empty());
        let findings = lengths(&[function_of(71)], "");
        assert!(findings[0].to_string().starts_with("a.rs:2: long has 71 lines"), "{findings:?}");
        assert!(lengths(&[function_of(71)], "a.rs long 71 one table").is_empty());
        assert_eq!(lengths(&[function_of(70)], "a.rs long 71 one table").len(), 1);
    }

    #[test]
    fn files_have_a_limit() {
        assert!(file_lengths(&[Source::new("a.rs", &"x\n".repeat(800))]).is_empty());
        assert_eq!(file_lengths(&[Source::new("a.rs", &"x\n".repeat(801))]).len(), 1);
    }
}
