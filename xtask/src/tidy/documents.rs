//! The map names what there is, and no file names the machine it was made on.

use std::collections::{BTreeMap, BTreeSet};

use super::crates::Package;
use super::finding::Finding;
use super::scan::is_name;

const MAP: &str = "ARCHITECTURE.md";

/// Folders of build machines; put together so that this file does not contain them.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// The map mentions every crate, and every crate that it mentions exists.
pub(super) fn map_names_crates(files: &[(String, Vec<u8>)], packages: &[Package]) -> Vec<Finding> {
    let Some((_, map)) = files.iter().find(|(path, _)| path == MAP) else {
        return vec![Finding::new(MAP, 1, "the map of the code is missing", "write it")];
    };
    let map = String::from_utf8_lossy(map);
    let mentioned = mentioned_crates(&map);
    let existing: BTreeSet<_> = packages.iter().map(|package| package.name.as_str()).collect();
    let missing = existing.iter().filter(|name| !mentioned.contains_key(**name)).map(|name| {
        Finding::new(MAP, 1, format!("{name} is not mentioned"), "say what it is and what it must never do")
    });
    let unknown = mentioned.iter().filter(|(name, _)| !existing.contains(**name)).map(|(name, line)| {
        Finding::new(MAP, *line, format!("there is no crate {name}"), "remove it from the map")
    });
    missing.chain(unknown).collect()
}

/// No file names a folder of the machine that it was made on.
pub(super) fn machine_paths(files: &[(String, Vec<u8>)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, bytes) in files {
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if let Some(found) = MACHINE_PATHS.iter().find(|needle| has_path(line, needle)) {
                let what = format!("names {found}, a folder of one machine");
                findings.push(Finding::new(path, index + 1, what, "use a relative path"));
            }
        }
    }
    findings
}

/// Names of our crates in a text, each with the first line it stands on.
fn mentioned_crates(text: &str) -> BTreeMap<&str, usize> {
    let mut mentioned = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        for word in line.split(|c: char| !is_name(c) && c != '-') {
            let word = word.trim_matches('-');
            if word == "xtask" || word == "aerostat" || word.starts_with("aerostat-") {
                mentioned.entry(word).or_insert(index + 1);
            }
        }
    }
    mentioned
}

/// Whether the line has the needle at the beginning of a path.
fn has_path(line: &[u8], needle: &str) -> bool {
    let mut places =
        line.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle.as_bytes());
    places.any(|(at, _)| match at.checked_sub(1).and_then(|before| line.get(before)) {
        Some(&before) => !before.is_ascii_alphanumeric() && !matches!(before, b'_' | b'-' | b'.' | b'}'),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: String) -> Vec<(String, Vec<u8>)> {
        vec![(path.to_owned(), text.into_bytes())]
    }

    #[test]
    fn the_map_and_the_crates_agree() {
        let packages = ["aerostat", "aerostat-plan", "xtask"].map(Package::named);
        let count = |text: &str| map_names_crates(&file(MAP, text.to_owned()), &packages).len();
        assert_eq!(count("`aerostat`, [plan](crates/aerostat-plan/src/lib.rs), xtask."), 0);
        assert_eq!(count("`aerostat-plan`, xtask"), 1);
        assert_eq!(count("`aerostat`, `aerostat-plan`, xtask, `aerostat-gpu`"), 1);
        assert_eq!(map_names_crates(&[], &packages).len(), 1);
    }

    #[test]
    fn machine_paths_are_found() {
        for needle in MACHINE_PATHS {
            assert_eq!(machine_paths(&file("a", format!("x\ncd {needle}main"))).len(), 1);
            assert_eq!(machine_paths(&file("a", format!("{needle}main"))).len(), 1);
            assert_eq!(machine_paths(&file("a", format!("src{needle}main"))).len(), 0);
        }
    }
}
