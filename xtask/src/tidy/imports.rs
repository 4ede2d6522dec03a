//! The paths within its crate that a file names, in `use` declarations and in code.

use std::ops::Range;

use super::scan::{find_word, is_name};
use super::source::Source;

/// A path that a file names.
#[derive(Debug, PartialEq)]
pub(super) struct Import {
    /// Its segments; once it is absolute, from the root of the crate.
    pub(super) path: Vec<String>,
    /// What a `use` calls the last of them, `*` for all that is in it; `None`: a path in code.
    pub(super) name: Option<String>,
    /// It is passed on to others.
    pub(super) is_public: bool,
    /// It is of this crate.
    pub(super) is_own: bool,
}

impl Import {
    /// Makes `crate::`, `self::`, `super::` and the names of children, in the module of this path, paths from the root.
    pub(super) fn make_absolute(&mut self, module: &[String]) {
        let mut base = module.to_vec();
        let mut rest = self.path.iter().peekable();
        match rest.peek().map(|first| first.as_str()) {
            Some("crate") => {
                base.clear();
                rest.next();
            }
            Some("self") => {
                rest.next();
            }
            _ => {}
        }
        while rest.next_if(|segment| *segment == "super").is_some() {
            base.pop();
        }
        base.extend(rest.cloned());
        self.path = base;
    }
}

/// All paths that shipped code of a file names: those of its `use` declarations, and of its code those within its crate. A path
/// is within the crate if it begins with `crate`, `self`, `super` or a child that the file declares.
pub(super) fn of(source: &Source) -> Vec<Import> {
    let code = source.code.as_str();
    let children = children(source);
    let is_own = |first: &str| {
        matches!(first, "crate" | "self" | "super") || children.iter().any(|child| child == first)
    };
    let (mut imports, mut declared) = (Vec::new(), Vec::new());
    for (range, is_public) in declarations(source) {
        expand(&code[range.clone()], &[], is_public, &mut imports);
        declared.push(range);
    }
    for import in &mut imports {
        import.is_own = import.path.first().is_some_and(|first| is_own(first));
    }
    let firsts = children.iter().map(String::as_str).chain(["crate", "super"]);
    for at in firsts.flat_map(|first| source.shipped(first)) {
        let is_inner = code[..at].trim_end().ends_with("::") || code[..at].ends_with('.');
        if is_inner || declared.iter().any(|range: &Range<usize>| range.contains(&at)) {
            continue;
        }
        let path = segments(&code[at..]);
        if path.len() > 1 {
            imports.push(Import { path, name: None, is_public: false, is_own: true });
        }
    }
    imports
}

/// Whether the file itself defines an item of this name.
pub(super) fn defines(source: &Source, item: &str) -> bool {
    const KINDS: &[&str] =
        &["fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod", "macro_rules!"];
    find_word(&source.code, item).into_iter().any(|at| {
        let before = source.code[..at].trim_end();
        KINDS.iter().any(|kind| {
            before.strip_suffix(kind).is_some_and(|rest| !rest.ends_with(is_name))
                && (*kind != "mod" || !source.code[at + item.len()..].trim_start().starts_with(';'))
        })
    })
}

/// Names of the modules that a file declares and other files hold.
fn children(source: &Source) -> Vec<String> {
    let declared = source.shipped("mod").into_iter().filter_map(|at| {
        let rest = source.code[at + "mod".len()..].trim_start();
        let end = rest.find(|c: char| !is_name(c))?;
        rest[end..].trim_start().starts_with(';').then(|| rest[..end].to_owned())
    });
    declared.filter(|name| !name.is_empty()).collect()
}

/// The trees of `use` declarations in shipped code, and whether they are passed on.
fn declarations(source: &Source) -> Vec<(Range<usize>, bool)> {
    let code = source.code.as_str();
    let found = source.shipped("use").into_iter().filter_map(|at| {
        let begin = at + "use".len();
        let end = begin + code[begin..].find(';')?;
        // Not the `use<'a>` of a return type.
        let is_declaration = !code[begin..].trim_start().starts_with('<');
        let before = code[..at].trim_end();
        let is_public = before.ends_with("pub") || before.ends_with(')');
        is_declaration.then_some((begin..end, is_public))
    });
    found.collect()
}

/// The paths of a tree such as `a::{self, b::C as D, e::*}`.
fn expand(tree: &str, prefix: &[String], is_public: bool, imports: &mut Vec<Import>) {
    let tree = tree.trim();
    if let Some((stem, group)) = tree.split_once('{') {
        let stem: Vec<String> = prefix.iter().cloned().chain(names(stem)).collect();
        let group = group.trim_end().strip_suffix('}').unwrap_or(group);
        for part in at_commas(group) {
            expand(part, &stem, is_public, imports);
        }
        return;
    }
    let (path, renamed) = match tree.split_once(" as ") {
        Some((path, name)) => (path, Some(name.trim().to_owned())),
        None => (tree, None),
    };
    let mut path: Vec<String> = prefix.iter().cloned().chain(names(path)).collect();
    let mut name = renamed;
    match path.last().map(String::as_str) {
        Some("*") => {
            path.pop();
            name = Some("*".to_owned());
        }
        Some("self") if path.len() > 1 => {
            path.pop();
        }
        _ => {}
    }
    let Some(last) = path.last() else { return };
    let name = name.or_else(|| Some(last.clone()));
    imports.push(Import { path, name, is_public, is_own: false });
}

/// The segments of a path in a `use` tree.
fn names(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The parts between the commas that are in no inner braces.
fn at_commas(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[begin..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// The segments of the path that code begins with.
fn segments(code: &str) -> Vec<String> {
    let (mut path, mut rest) = (Vec::new(), code);
    loop {
        let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
        if end == 0 {
            return path;
        }
        path.push(rest[..end].to_owned());
        match rest[end..].trim_start().strip_prefix("::") {
            Some(after) => rest = after.trim_start(),
            None => return path,
        }
    }
}
