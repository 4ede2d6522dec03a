//! What cannot be missing is a defect and says so; it is not replaced by a default in silence.

use super::finding::Finding;
use super::ratchet::{Ratchet, Site};
use super::source::Source;

/// The list of files where a default is right, with the reason.
pub(super) const LIST: &str = "xtask/tidy-defaults.txt";

const WORD: &str = ".unwrap_or_default()";

/// The crates whose wrong values would be wrong results.
const CRATES: &[&str] = &[
    "crates/aerostat/",
    "crates/aerostat-arch/",
    "crates/aerostat-backend/",
    "crates/aerostat-cpu/",
    "crates/aerostat-model/",
    "crates/aerostat-plan/",
];

/// No silent default in shipped code of these crates, but for those listed.
pub(super) fn sites(sources: &[Source], list: &str) -> Vec<Finding> {
    let computes = |source: &&Source| CRATES.iter().any(|folder| source.path.starts_with(folder));
    let sites = sources.iter().filter(computes).flat_map(|source| {
        source.shipped(WORD).into_iter().map(|offset| Site {
            path: source.path.clone(),
            line: source.line(offset),
            item: WORD.to_owned(),
            value: 1,
        })
    });
    let ratchet = Ratchet {
        list: LIST,
        free: 0,
        total: |values| values.iter().sum(),
        describe: |site| {
            let remedy = "say with `defect!` or an error that it is missing, or why the default is right";
            (format!("`{}` in code that computes", site.item), remedy.to_owned())
        },
    };
    ratchet.findings(list, sites.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str, list: &str) -> usize {
        sites(&[Source::new(path, text)], list).len()
    }

    #[test]
    fn defaults_of_what_computes_have_a_reason() {
        let (path, text) = ("crates/aerostat-model/src/a.rs", "a.unwrap_or_default()");
        assert_eq!(count(path, text, ""), 1);
        assert_eq!(count(path, text, "crates/aerostat-model/src/a.rs .unwrap_or_default() 1 reason"), 0);
        assert_eq!(count("crates/aerostat-cli/src/a.rs", text, ""), 0, "the command is told what it shows");
        assert_eq!(count(path, "#[test]\nfn a() { b.unwrap_or_default() }", ""), 0);
    }
}
