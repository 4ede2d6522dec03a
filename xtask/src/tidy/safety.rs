//! Where unsafe code may stand, and that it says why it is sound.

use std::ops::Range;

use super::crates::UNSAFE_CRATES;
use super::finding::Finding;
use super::scan::{self, find_word};
use super::source::Source;

/// Lines of code that may stand between the comment and the word `unsafe`: the head of the same statement.
const CODE_LINES_BETWEEN_MAX: usize = 3;

/// `unsafe` stands only in the crates that may contain it.
pub(super) fn places(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !UNSAFE_CRATES.contains(&source.crate_name())) {
        for offset in find_word(&source.code, "unsafe") {
            let what = format!("unsafe code in {}", source.crate_name());
            findings.push(Finding::new(
                &source.path,
                source.line(offset),
                what,
                "find a safe way, or move it",
            ));
        }
    }
    findings
}

/// Every unsafe block, impl, function or attribute has a comment with `SAFETY:`, or `# Safety` in its
/// documentation, above it. For functions it may stand above their trait or impl instead, and what implements a
/// trait keeps that trait's promise. Types such as `unsafe fn(u8)` need none.
pub(super) fn comments(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let owners = owners(&source.code);
        for offset in find_word(&source.code, "unsafe") {
            let line = source.line(offset);
            let is_explained = is_type(&source.code[offset..])
                || explains(source, line)
                || is_function(&source.code[offset..])
                    && owners.iter().any(|owner| owner.bytes.contains(&offset) && owner.explains(source));
            if !is_explained {
                let what = "unsafe without its reason";
                findings.push(Finding::new(
                    &source.path,
                    line,
                    what,
                    "say above it what it leans on: `// SAFETY: …`",
                ));
            }
        }
    }
    findings
}

/// A trait or an impl: the whole of it, and whether it is the impl of a trait.
struct Owner {
    bytes: Range<usize>,
    is_of_trait: bool,
}

impl Owner {
    /// Whether it speaks for the unsafe functions in it.
    fn explains(&self, source: &Source) -> bool {
        self.is_of_trait || explains(source, source.line(self.bytes.start))
    }
}

fn owners(code: &str) -> Vec<Owner> {
    let words = ["impl", "trait"].iter().flat_map(|word| find_word(code, word));
    // Elsewhere the word is part of a type.
    let items = words.filter(|&at| {
        matches!(
            code[..at].trim_end().chars().next_back(),
            None | Some(']' | ')' | '{' | '}' | ';' | 'a'..='z')
        )
    });
    let owner = |begin: usize| {
        let bytes = begin..scan::item_end(code, begin)?;
        let head = code.get(bytes.clone())?.split('{').next()?;
        Some(Owner { is_of_trait: head.starts_with("impl") && !find_word(head, "for").is_empty(), bytes })
    };
    items.filter_map(owner).collect()
}

/// Whether `unsafe` begins a function.
fn is_function(code: &str) -> bool {
    let mut words = code.split_whitespace().skip(1);
    words.find(|word| *word != "extern" && !word.starts_with('"') && !word.ends_with('"')) == Some("fn")
}

/// Whether `unsafe` begins the type of a function pointer.
fn is_type(code: &str) -> bool {
    let Some((before, after)) = code.split_once("fn") else { return false };
    let head = before.strip_prefix("unsafe").unwrap_or(before);
    let is_head =
        head.split_whitespace().all(|word| word == "extern" || word.starts_with('"') || word.ends_with('"'));
    is_head && after.trim_start().starts_with('(')
}

/// Looks upwards from a line for the reason, through comments, attributes and the head of the statement.
fn explains(source: &Source, line: usize) -> bool {
    let text: Vec<_> = source.text.lines().take(line).collect();
    let mut code_lines = 0;
    for (index, line_text) in text.iter().rev().enumerate() {
        if line_text.contains("SAFETY:") || line_text.contains("# Safety") {
            return true;
        }
        let trimmed = line_text.trim_start();
        let is_quiet = trimmed.starts_with("//") || trimmed.starts_with("#[");
        if index > 0 && !is_quiet {
            code_lines += 1;
        }
        if code_lines > CODE_LINES_BETWEEN_MAX {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        comments(&[Source::new("crates/aerostat-cpu/src/a.rs", text)]).len()
    }

    #[test]
    fn every_unsafe_site_says_why() {
        for good in [
            "// SAFETY: checked above.\nunsafe { f() }",
            "// SAFETY: checked above,\n// twice.\nlet x =\n    unsafe { f() };",
            "/// # Safety\n/// AVX2.\n#[target_feature(enable = \"avx2\")]\n#[inline]\npub unsafe fn f() {}",
            "// SAFETY: no state.\nunsafe impl Send for A {}",
            "/// # Safety\n/// AVX2.\ntrait A {\n    unsafe fn f();\n    /// More.\n    const A: u8;\n    unsafe fn g();\n}",
            "impl A for B {\n    unsafe fn f() {}\n}",
            "type F = unsafe extern \"C\" fn(u8);",
            "// unsafe in a comment",
        ] {
            assert_eq!(count(good), 0, "{good}");
        }
        for bad in [
            "unsafe { f() }",
            "// SAFETY: of another.\nunsafe { f() }\na();\nb();\nc();\nd();\nunsafe { g() }",
            "pub unsafe fn f() {}",
            "unsafe impl Send for A {}",
            "trait A {\n    unsafe fn f();\n}",
            "impl B {\n    unsafe fn f() {}\n}",
            "impl A for B {\n    fn f() {\n        unsafe { g() }\n    }\n}",
        ] {
            assert_eq!(count(bad), 1, "{bad}");
        }
    }

    #[test]
    fn unsafe_stays_in_its_crates() {
        let place = |path| places(&[Source::new(path, "unsafe { f() }")]).len();
        assert_eq!(place("crates/aerostat-stream/src/a.rs"), 0);
        assert_eq!(place("crates/aerostat-plan/tests/it.rs"), 1);
    }
}
