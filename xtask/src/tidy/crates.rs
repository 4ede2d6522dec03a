//! Which crate may lean on which, and which may contain unsafe code.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::finding::Finding;
use super::source::Source;

/// The crates that may contain `unsafe`: kernels and direct I/O.
pub(super) const UNSAFE_CRATES: &[&str] = &["aerostat-cpu", "aerostat-stream"];

/// The crates of this workspace that each may use outside its tests, from the lowest to the highest.
const ALLOWED: &[(&str, &[&str])] = &[
    ("aerostat-input", &[]),
    ("aerostat-checkpoint", &["aerostat-input"]),
    ("aerostat-types", &["aerostat-checkpoint"]),
    ("aerostat-arch", &["aerostat-checkpoint", "aerostat-types"]),
    ("aerostat-plan", &["aerostat-arch", "aerostat-checkpoint", "aerostat-types"]),
    ("aerostat-stream", &["aerostat-checkpoint"]),
    ("aerostat-backend", &["aerostat-checkpoint", "aerostat-types"]),
    ("aerostat-cpu", &["aerostat-backend", "aerostat-checkpoint"]),
    ("aerostat-gpu", &["aerostat-backend", "aerostat-checkpoint"]),
    ("aerostat-model", &["aerostat-arch", "aerostat-backend", "aerostat-checkpoint", "aerostat-plan"]),
    ("aerostat-pack", &["aerostat-arch", "aerostat-backend", "aerostat-checkpoint", "aerostat-stream"]),
    ("aerostat-text", &["aerostat-input"]),
    ("aerostat-hub", &["aerostat-checkpoint"]),
    ("aerostat", LIBRARIES),
    ("aerostat-openai", &["aerostat"]),
    ("aerostat-jobs", &["aerostat", "aerostat-openai"]),
    ("aerostat-serve", &["aerostat", "aerostat-jobs", "aerostat-openai"]),
    ("aerostat-cli", &["aerostat", "aerostat-jobs", "aerostat-openai", "aerostat-pack", "aerostat-serve"]),
    ("aerostat-python", &["aerostat", "aerostat-jobs", "aerostat-openai", "aerostat-pack"]),
    ("aerostat-testkit", &["aerostat-checkpoint"]),
    ("xtask", &["aerostat-checkpoint", "aerostat-testkit"]),
];

const LIBRARIES: &[&str] = &[
    "aerostat-arch",
    "aerostat-backend",
    "aerostat-checkpoint",
    "aerostat-cpu",
    "aerostat-gpu",
    "aerostat-hub",
    "aerostat-model",
    "aerostat-plan",
    "aerostat-stream",
    "aerostat-text",
];

/// A crate of the workspace and the crates of the workspace it uses outside its tests.
pub(super) struct Package {
    /// Its name, which is also its folder's.
    pub(super) name: String,
    uses: Vec<String>,
}

#[cfg(test)]
impl Package {
    /// A crate that uses none of ours.
    pub(super) fn named(name: &str) -> Package {
        Package { name: name.to_owned(), uses: Vec::new() }
    }
}

/// The crates of the workspace, as cargo sees them.
///
/// # Errors
/// cargo fails or prints something else than expected.
pub(super) fn packages(root: &Path) -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("cargo does not start")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    parse(&metadata).context("cargo metadata has an unknown form")
}

/// Every use of one crate by another is one of the allowed.
pub(super) fn directions(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            let what = format!("{} has no place in the order of crates", package.name);
            findings.push(Finding::new(
                &manifest(&package.name),
                1,
                what,
                "add it to ALLOWED in xtask/src/tidy/crates.rs",
            ));
            continue;
        };
        for used in package.uses.iter().filter(|used| !allowed.contains(&used.as_str())) {
            let what = format!("{} must not depend on {used}", package.name);
            findings.push(Finding::new(
                &manifest(&package.name),
                1,
                what,
                "move the code to where both may see it",
            ));
        }
    }
    findings
}

/// Every root file of a crate without unsafe code says so.
pub(super) fn forbids_unsafe(sources: &[Source]) -> Vec<Finding> {
    let roots = sources
        .iter()
        .filter(|source| is_root(&source.path) && !UNSAFE_CRATES.contains(&source.crate_name()));
    roots
        .filter(|source| !source.code.contains("#![forbid(unsafe_code)]"))
        .map(|source| {
            Finding::new(&source.path, 1, "unsafe code is not forbidden", "add `#![forbid(unsafe_code)]`")
        })
        .collect()
}

fn is_root(path: &str) -> bool {
    let Some((_, inner)) = path.split_once("src/") else { return false };
    matches!(inner, "lib.rs" | "main.rs") || inner.starts_with("bin/")
}

fn manifest(name: &str) -> String {
    if name.starts_with("aerostat") {
        format!("crates/{name}/Cargo.toml")
    } else {
        format!("{name}/Cargo.toml")
    }
}

fn parse(metadata: &Value) -> Option<Vec<Package>> {
    let packages = metadata.get("packages")?.as_array()?;
    let names = packages.iter().map(|package| package.get("name")?.as_str()).collect::<Option<Vec<_>>>()?;
    packages.iter().zip(&names).map(|(package, name)| parse_package(package, name, &names)).collect()
}

fn parse_package(package: &Value, name: &str, ours: &[&str]) -> Option<Package> {
    let mut uses = Vec::new();
    for dependency in package.get("dependencies")?.as_array()? {
        let used = dependency.get("name")?.as_str()?;
        let is_dev = dependency.get("kind").and_then(Value::as_str) == Some("dev");
        if ours.contains(&used) && !is_dev {
            uses.push(used.to_owned());
        }
    }
    Some(Package { name: name.to_owned(), uses })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(name: &str, used: &str, kind: Value) -> usize {
        let metadata = json!({"packages": [
            {"name": name, "dependencies": [{"name": used, "kind": kind}, {"name": "serde", "kind": null}]},
            {"name": used, "dependencies": []},
        ]});
        directions(&parse(&metadata).expect("well formed")).len()
    }

    #[test]
    fn crates_lean_downwards_only() {
        assert_eq!(count("aerostat-plan", "aerostat-arch", Value::Null), 0);
        assert_eq!(count("aerostat-arch", "aerostat-plan", Value::Null), 1);
        assert_eq!(count("aerostat-arch", "aerostat-plan", json!("dev")), 0);
        assert_eq!(count("aerostat-arch", "aerostat-plan", json!("build")), 1);
        assert_eq!(count("aerostat-cli", "aerostat-hub", Value::Null), 1);
        assert_eq!(count("aerostat-novel", "aerostat", Value::Null), 1);
    }

    #[test]
    fn the_order_names_each_crate_after_those_it_uses() {
        for (index, (name, allowed)) in ALLOWED.iter().enumerate() {
            let known = |used: &&str| ALLOWED[..index].iter().any(|(earlier, _)| earlier == used);
            assert!(allowed.iter().all(known), "{name}");
        }
    }

    #[test]
    fn safe_crates_say_so_in_their_root() {
        let check = |path, text| forbids_unsafe(&[Source::new(path, text)]).len();
        assert_eq!(check("crates/aerostat-plan/src/lib.rs", "//! x\n#![forbid(unsafe_code)]"), 0);
        assert_eq!(check("crates/aerostat-plan/src/lib.rs", "// #![forbid(unsafe_code)]"), 1);
        assert_eq!(check("crates/aerostat-plan/src/fit.rs", ""), 0);
        assert_eq!(check("crates/aerostat-cpu/src/lib.rs", ""), 0);
        assert_eq!(check("xtask/src/main.rs", ""), 1);
    }
}
