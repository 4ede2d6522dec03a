//! Shipped code returns errors; it does not panic.

use super::finding::Finding;
use super::ratchet::{Ratchet, Site};
use super::source::Source;

/// The list of files with panics that have a reason.
pub(super) const LIST: &str = "xtask/tidy-panics.txt";

const WORDS: &[&str] =
    &[".unwrap()", ".expect(", "panic!", "unreachable!", "todo!", "unimplemented!", "dbg!"];

/// No panic outside tests, but for those listed.
pub(super) fn sites(sources: &[Source], list: &str) -> Vec<Finding> {
    let mut sites = Vec::new();
    for source in sources {
        for &word in WORDS {
            let found =
                source.shipped(word).into_iter().filter(|&offset| !is_own_method(&source.code[..offset]));
            sites.extend(found.map(|offset| Site {
                path: source.path.clone(),
                line: source.line(offset),
                item: word.to_owned(),
                value: 1,
            }));
        }
    }
    let ratchet = Ratchet {
        list: LIST,
        free: 0,
        total: |values| values.iter().sum(),
        describe: |site| (format!("`{}` in shipped code", site.item), "return an error".to_owned()),
    };
    ratchet.findings(list, sites)
}

/// Parsers have methods named `expect` of their own, called on `self`.
fn is_own_method(before: &str) -> bool {
    before.ends_with("self")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str, list: &str) -> usize {
        sites(&[Source::new("a/src/a.rs", text)], list).len()
    }

    #[test]
    fn shipped_code_does_not_panic() {
        for bad in
            ["a.unwrap()", "a\n.expect(\"b\")", "panic!(\"a\")", "unreachable!()", "dbg!(a)", "todo!()"]
        {
            assert_eq!(count(bad, ""), 1, "{bad}");
        }
        for good in [
            "a.unwrap_or(b)",
            "// panic!",
            "std::panic::catch_unwind(f)",
            "self.expect(b'{')?",
            "#[test]\nfn a() { b.unwrap() }",
        ] {
            assert_eq!(count(good, ""), 0, "{good}");
        }
    }

    #[test]
    fn exceptions_are_counted() {
        assert_eq!(count("a.unwrap(); a.unwrap()", "a/src/a.rs .unwrap() 2 reason"), 0);
        assert_eq!(count("a.unwrap()", "a/src/a.rs .unwrap() 2 reason"), 1);
        assert_eq!(count("a.unwrap(); a.unwrap(); a.unwrap()", "a/src/a.rs .unwrap() 2 reason"), 3);
    }
}
