//! `cargo xtask tidy`: the rules on the source that no other tool checks.
//!
//! Each rule is a small function from files to findings; the modules hold one concern each. Exceptions that have a
//! reason are in lists beside this crate's `Cargo.toml`, and a list may only shrink.

mod access;
mod circles;
mod crates;
mod defaults;
mod documents;
mod finding;
mod functions;
mod imports;
mod panics;
mod ratchet;
mod safety;
mod scan;
mod source;

use std::path::Path;

use anyhow::{Context, Result, bail};

use finding::Finding;
use source::Repository;

/// Runs all rules and prints what they found.
///
/// # Errors
/// The repository cannot be read, or at least one rule is broken.
pub(crate) fn run(root: &Path) -> Result<()> {
    let findings = findings(root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} tidy findings", findings.len());
    }
    Ok(())
}

fn findings(root: &Path) -> Result<Vec<Finding>> {
    let Repository { files, sources } = Repository::load(root)?;
    let packages = crates::packages(root)?;
    let list = |path: &str| {
        std::fs::read_to_string(root.join(path)).with_context(|| format!("{path}: cannot be read"))
    };
    Ok([
        crates::directions(&packages),
        crates::forbids_unsafe(&sources),
        functions::lengths(&sources, &list(functions::LIST)?),
        functions::file_lengths(&sources),
        safety::comments(&sources),
        safety::places(&sources),
        access::bans(&sources, &list(access::LIST)?),
        panics::sites(&sources, &list(panics::LIST)?),
        circles::sizes(&sources, &list(circles::LIST)?),
        defaults::sites(&sources, &list(defaults::LIST)?),
        documents::map_names_crates(&files, &packages),
        documents::machine_paths(&files),
    ]
    .into_iter()
    .flatten()
    .collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        let findings = super::findings(&crate::repository_root()).expect("the repository can be read");
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{} findings\n{}", lines.len(), lines.join("\n"));
    }
}
