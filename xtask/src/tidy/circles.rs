//! Circles of imports: files of a crate that each lead to all others cannot be read, or changed, one by one.
//!
//! A file imports another if a `use`, or a path in its code, names an item that is defined there: what a module only passes
//! on (`pub use child::Item`) counts where it is defined. Declaring a module, or passing on what a child defines, is no
//! import. Tests are free.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;
use super::imports::{self, Import};
use super::ratchet::{Ratchet, Site};
use super::source::Source;

/// The list of crates that may have larger circles.
pub(super) const LIST: &str = "xtask/tidy-circles.txt";

/// Files of a circle that can still be read together.
const CIRCLE_FILES_MAX: usize = 4;

/// No circle of imports has more than [`CIRCLE_FILES_MAX`] files, but in the crates listed.
pub(super) fn sizes(sources: &[Source], list: &str) -> Vec<Finding> {
    let mut crates: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test_at(0)) {
        if let Some((folder, _)) = source.path.split_once("/src/") {
            crates.entry(folder).or_default().push(source);
        }
    }
    let mut large: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut sites = Vec::new();
    for (folder, sources) in crates {
        let files = Files::new(&sources);
        for circle in files.circles().into_iter().filter(|circle| circle.len() > CIRCLE_FILES_MAX) {
            large.entry(folder).or_default().push(files.describe(&circle));
            sites.push(Site {
                path: folder.to_owned(),
                line: 1,
                item: "circle".to_owned(),
                value: circle.len(),
            });
        }
    }
    let ratchet = Ratchet {
        list: LIST,
        free: 0,
        total: |values| values.iter().sum(),
        describe: |site| {
            let what = format!("{} files import each other in a circle", site.value);
            (what, format!("move what they share to a file below them ({CIRCLE_FILES_MAX} are allowed)"))
        },
    };
    let mut findings = ratchet.findings(list, sites);
    for finding in &mut findings {
        if let Some(circle) = large.get_mut(finding.path.as_str()).filter(|circles| !circles.is_empty()) {
            finding.what = format!("{}: {}", finding.what, circle.remove(0));
        }
    }
    findings
}

/// The files of a crate, and which imports which.
struct Files<'a> {
    paths: Vec<&'a str>,
    imports: Vec<BTreeSet<usize>>,
}

impl<'a> Files<'a> {
    fn new(sources: &[&'a Source]) -> Self {
        let modules: Vec<Module<'_>> = sources.iter().map(|source| Module::new(source)).collect();
        let by_path: BTreeMap<&[String], usize> =
            modules.iter().enumerate().rev().map(|(i, module)| (module.path.as_slice(), i)).collect();
        let crate_ = Crate { modules: &modules, by_path };
        let imports = (0..modules.len()).map(|file| crate_.imports_of(file)).collect();
        Self { paths: sources.iter().map(|source| source.path.as_str()).collect(), imports }
    }

    /// The sets of files that lead to each other, each with its files in order.
    fn circles(&self) -> Vec<Vec<usize>> {
        let reach: Vec<BTreeSet<usize>> = (0..self.paths.len()).map(|file| self.reachable(file)).collect();
        let circle = |file: usize| -> Vec<usize> {
            reach[file].iter().copied().filter(|other| reach[*other].contains(&file)).collect()
        };
        (0..self.paths.len())
            .map(|file| (file, circle(file)))
            .filter(|(file, circle)| circle.first() == Some(file))
            .map(|(_, circle)| circle)
            .collect()
    }

    /// The files that `file` imports, that those import, and so on.
    fn reachable(&self, file: usize) -> BTreeSet<usize> {
        let (mut found, mut open) = (BTreeSet::new(), vec![file]);
        while let Some(next) = open.pop() {
            open.extend(self.imports[next].iter().copied().filter(|other| found.insert(*other)));
        }
        found
    }

    /// Who imports whom within a circle.
    fn describe(&self, circle: &[usize]) -> String {
        let name = |file: usize| self.paths[file].split_once("/src/").map_or("", |(_, name)| name);
        let of = |file: &usize| {
            let within = self.imports[*file].iter().filter(|other| circle.contains(other));
            let within: Vec<&str> = within.map(|other| name(*other)).collect();
            format!("{} imports {}", name(*file), within.join(", "))
        };
        circle.iter().map(of).collect::<Vec<_>>().join("; ")
    }
}

/// A file as a module of its crate.
struct Module<'a> {
    source: &'a Source,
    path: Vec<String>,
    imports: Vec<Import>,
}

impl<'a> Module<'a> {
    fn new(source: &'a Source) -> Self {
        let inner = source.path.split_once("/src/").map_or("", |(_, inner)| inner).trim_end_matches(".rs");
        let mut path: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| last == "mod") || matches!(inner, "lib" | "main") {
            path.pop();
        }
        let mut imports = imports::of(source);
        imports.iter_mut().for_each(|import| import.make_absolute(&path));
        Self { source, path, imports }
    }
}

struct Crate<'a> {
    modules: &'a [Module<'a>],
    by_path: BTreeMap<&'a [String], usize>,
}

impl Crate<'_> {
    /// The files whose items a file names.
    fn imports_of(&self, file: usize) -> BTreeSet<usize> {
        let module = &self.modules[file];
        let is_import =
            |import: &&Import| import.is_own && !(import.is_public && import.path.starts_with(&module.path));
        let found =
            module.imports.iter().filter(is_import).filter_map(|import| self.definer(&import.path, 0));
        found.filter(|other| *other != file).collect()
    }

    /// The file that defines what an absolute path names. `None`: it is of another crate.
    fn definer(&self, path: &[String], depth: usize) -> Option<usize> {
        const DEPTH_MAX: usize = 8;
        let len = (0..=path.len()).rev().find(|len| self.by_path.contains_key(&path[..*len]))?;
        let file = self.by_path[&path[..len]];
        let Some((item, rest)) = path[len..].split_first() else { return Some(file) };
        let module = &self.modules[file];
        if depth == DEPTH_MAX || imports::defines(module.source, item) {
            return Some(file);
        }
        let mut named = module.imports.iter().filter(|import| import.name.as_ref() == Some(item));
        if let Some(import) = named.next() {
            let full = [&import.path, rest].concat();
            return if import.is_own { self.definer(&full, depth + 1) } else { None };
        }
        let all = module.imports.iter().filter(|i| i.is_own && i.name.as_deref() == Some("*"));
        let mut found = all.filter_map(|import| {
            let full = [&import.path, std::slice::from_ref(item), rest].concat();
            self.definer(&full, depth + 1).filter(|found| imports::defines(self.modules[*found].source, item))
        });
        // What no file seems to define, such as a macro's item, counts where it is looked for.
        Some(found.next().unwrap_or(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new(&format!("crates/a/src/{path}"), text)).collect()
    }

    /// What each file imports, in order of files.
    fn imports(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let sources = sources(files);
        let files = Files::new(&sources.iter().collect::<Vec<_>>());
        let name = |file: &usize| files.paths[*file].trim_start_matches("crates/a/src/").to_owned();
        files.imports.iter().map(|of| of.iter().map(name).collect()).collect()
    }

    #[test]
    fn a_file_imports_where_an_item_is_defined() {
        let spec = (
            "spec.rs",
            "mod norm;\npub use norm::{Norm, of as made};\npub use other_crate::D;\npub struct Spec;",
        );
        let norm = ("spec/norm.rs", "pub struct Norm;\npub fn of() {}");
        for (text, expected) in [
            ("use crate::spec::Norm;", &["spec/norm.rs"][..]),
            ("use crate::spec::Spec;", &["spec.rs"]),
            ("use crate::{spec::{Norm as N, Spec}};", &["spec.rs", "spec/norm.rs"]),
            ("use crate::spec::made;", &["spec/norm.rs"]),
            ("fn f(n: crate::spec::Norm) {}", &["spec/norm.rs"]),
            ("fn f() { super::spec::norm::of() }", &["spec/norm.rs"]),
            ("use super::spec::*;", &["spec.rs"]),
            ("use crate::spec::D;", &[]),
            ("use std::fmt; use other_crate::Norm;", &[]),
            ("// use crate::spec::Spec;", &[]),
            ("#[cfg(test)]\nmod tests { use crate::spec::Spec; }", &[]),
            ("pub(crate) fn f() -> impl Iterator + use<> { g() } // ;", &[]),
        ] {
            let found = imports(&[("lib.rs", "mod spec;\nmod user;"), spec, norm, ("user.rs", text)]);
            assert_eq!(found[3], expected, "{text}");
            assert_eq!(found[1], [""; 0], "passing on what a child defines is no import");
        }
    }

    #[test]
    fn a_parent_that_uses_its_child_imports_it() {
        let child = ("a/b.rs", "pub fn run() { super::help() }");
        for (text, expected) in [
            ("mod b;\npub(crate) use b::run;\nfn help() {}", &[""; 0][..]),
            ("mod b;\nuse b::run;\nfn help() {}", &["a/b.rs"]),
            ("mod b;\nfn help() { b::run() }", &["a/b.rs"]),
        ] {
            let found = imports(&[("lib.rs", "mod a;"), ("a/mod.rs", text), child]);
            assert_eq!(found[1], expected, "{text}");
            assert_eq!(found[2], ["a/mod.rs"]);
        }
    }

    /// A circle of files, each of which imports the next.
    fn circle(files: usize, list: &str) -> Vec<String> {
        let text = |i: usize| format!("use crate::m{}::next;\npub fn next() {{}}", (i + 1) % files);
        let mut all: Vec<Source> =
            (0..files).map(|i| Source::new(&format!("crates/a/src/m{i}.rs"), &text(i))).collect();
        all.push(Source::new("crates/a/src/beside.rs", "use crate::m0::next;"));
        all.push(Source::new("crates/a/tests/it.rs", "use crate::m0::next;"));
        sizes(&all, list).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn circles_have_a_limit() {
        assert!(circle(4, "").is_empty());
        let found = circle(5, "");
        assert_eq!(found.len(), 1, "{found:?}");
        let says =
            "crates/a:1: 5 files import each other in a circle: m0.rs imports m1.rs; m1.rs imports m2.rs;";
        assert!(found[0].starts_with(says), "{found:?}");
        assert!(circle(5, "crates/a circle 5 it is being cut").is_empty());
        assert!(circle(5, "crates/a circle 6 it is being cut")[0].contains("only 5"));
        assert!(circle(4, "crates/a circle 5 it is being cut")[0].contains("no exception any more"));
    }
}
