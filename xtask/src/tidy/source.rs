//! The repository as the rules see it: its files, and its Rust files with their structure.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::scan::{self, Function};

/// All files under version control, or about to be.
pub(super) struct Repository {
    /// Paths from the root with their bytes, in order of path.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// The Rust files among them.
    pub(super) sources: Vec<Source>,
}

/// One Rust file.
pub(super) struct Source {
    /// The path from the root, with `/`.
    pub(super) path: String,
    /// The text as it is.
    pub(super) text: String,
    /// The text with comments and contents of literals blanked; offsets are those of `text`.
    pub(super) code: String,
    /// All functions that have a body.
    pub(super) functions: Vec<Function>,
    tests: Vec<Range<usize>>,
    is_test: bool,
}

impl Repository {
    /// Reads every file that git tracks or does not ignore.
    ///
    /// # Errors
    /// git fails, or a file cannot be read.
    pub(super) fn load(root: &Path) -> Result<Repository> {
        let mut files = Vec::new();
        for path in paths(root)? {
            let full = root.join(&path);
            if full.is_file() {
                let bytes = std::fs::read(&full).with_context(|| format!("{path}: cannot be read"))?;
                files.push((path, bytes));
            }
        }
        let rust = files.iter().filter(|(path, _)| path.ends_with(".rs"));
        let mut sources: Vec<_> =
            rust.map(|(path, bytes)| Source::new(path, &String::from_utf8_lossy(bytes))).collect();
        mark_test_modules(&mut sources);
        Ok(Repository { files, sources })
    }
}

impl Source {
    /// A file of the given path and text.
    pub(super) fn new(path: &str, text: &str) -> Source {
        let code = scan::blank(text);
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            functions: scan::functions(&code),
            tests: scan::test_items(&code),
            is_test: is_test_path(path),
            code,
        }
    }

    /// The folder name of the crate: `aerostat-plan`, `xtask`, `fuzz`.
    pub(super) fn crate_name(&self) -> &str {
        let path = self.path.strip_prefix("crates/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or(path)
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
    }

    /// Whether only tests compile what stands at `offset`.
    pub(super) fn is_test_at(&self, offset: usize) -> bool {
        self.is_test || self.tests.iter().any(|range| range.contains(&offset))
    }

    /// The places of `word` in code that ships.
    pub(super) fn shipped(&self, word: &str) -> Vec<usize> {
        let found = scan::find_word(&self.code, word).into_iter();
        found.filter(|&offset| !self.is_test_at(offset)).collect()
    }

    /// Modules of other files that this one declares for tests only: `#[cfg(test)] mod name;`, as paths without
    /// the extension.
    fn test_modules(&self) -> Vec<String> {
        let declared = self.tests.iter().filter_map(|range| {
            let item = self.code.get(range.clone())?.strip_suffix(';')?;
            item.rsplit_once("mod ").map(|(_, name)| name.trim().to_owned())
        });
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let inner = match file {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            other => format!("{folder}/{}", other.trim_end_matches(".rs")),
        };
        declared.map(|name| format!("{inner}/{name}")).collect()
    }
}

fn mark_test_modules(sources: &mut [Source]) {
    let modules: BTreeSet<_> = sources.iter().flat_map(Source::test_modules).collect();
    for source in sources {
        let stem = source.path.trim_end_matches(".rs");
        let is_of = |module: &String| stem == module || stem.starts_with(&format!("{module}/"));
        source.is_test |= modules.iter().any(is_of);
    }
}

fn is_test_path(path: &str) -> bool {
    let in_test_folder = path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples"));
    let never_shipped = ["bench/", "fuzz/", "crates/aerostat-testkit/"];
    in_test_folder || never_shipped.iter().any(|folder| path.starts_with(folder))
}

fn paths(root: &Path) -> Result<Vec<String>> {
    // In a container the folder may belong to another user, which git would refuse.
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .args(["--cached", "--others", "--exclude-standard", "--deduplicate"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("git does not start; the tidy rules need it to list the files")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let list = String::from_utf8(output.stdout).context("a path is not UTF-8; rename the file")?;
    Ok(list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_knows_its_crate_and_its_test_code() {
        let source = Source::new(
            "crates/aerostat-plan/src/fit.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests {\n  x()\n}\n",
        );
        assert_eq!(source.crate_name(), "aerostat-plan");
        assert_eq!(source.line(10), 2);
        assert!(!source.is_test_at(0));
        assert!(source.is_test_at(source.text.find("x()").expect("there")));
        assert!(Source::new("crates/a/tests/it.rs", "x").is_test_at(0));
    }

    #[test]
    fn a_module_declared_for_tests_is_test_code() {
        let mut sources = [
            Source::new("crates/a/src/gemm.rs", "#[cfg(test)]\nmod oracle;"),
            Source::new("crates/a/src/gemm/oracle.rs", "x"),
            Source::new("crates/a/src/gemm/oracle/deep.rs", "x"),
            Source::new("crates/a/src/oracle.rs", "x"),
        ];
        mark_test_modules(&mut sources);
        assert_eq!(sources.map(|source| source.is_test), [false, true, true, false]);
    }
}
