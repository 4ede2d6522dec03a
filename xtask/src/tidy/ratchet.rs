//! Lists of justified exceptions that may only shrink.
//!
//! A list is a text file with one exception a line: path, item, limit and the reason, separated by blanks; `#`
//! begins a comment. What is over its limit fails, and so does a limit that is higher than what is there.

use std::collections::BTreeMap;

use super::finding::Finding;

/// One measured site: in `item` of the file at `path`, `value` units at `line`.
pub(super) struct Site {
    /// The path from the root.
    pub(super) path: String,
    /// The line, from 1.
    pub(super) line: usize,
    /// What is counted: a function's name, a macro.
    pub(super) item: String,
    /// How much of it.
    pub(super) value: usize,
}

/// A rule with exceptions.
pub(super) struct Ratchet {
    /// Where the list lies, from the root.
    pub(super) list: &'static str,
    /// What needs no exception: values up to this.
    pub(super) free: usize,
    /// How the values of one item in one file make one: their sum or their maximum.
    pub(super) total: fn(&[usize]) -> usize,
    /// What is wrong with a site, and what to do.
    pub(super) describe: fn(&Site) -> (String, String),
}

impl Ratchet {
    /// Compares the sites with the text of the list.
    pub(super) fn findings(&self, list: &str, sites: Vec<Site>) -> Vec<Finding> {
        let mut items: BTreeMap<(String, String), Vec<Site>> = BTreeMap::new();
        for site in sites.into_iter().filter(|site| site.value > self.free) {
            items.entry((site.path.clone(), site.item.clone())).or_default().push(site);
        }
        let mut findings = Vec::new();
        for (index, line) in list.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let outcome = match Exception::parse(line) {
                None => Err("not `path item limit reason`".to_owned()),
                Some(exception) => self.compare(&exception, &mut items),
            };
            if let Err(what) = outcome {
                findings.push(Finding::new(self.list, index + 1, what, "correct the entry, or remove it"));
            }
        }
        let unlisted = items.into_values().flatten().map(|site| {
            let (what, remedy) = (self.describe)(&site);
            Finding::new(&site.path, site.line, what, &format!("{remedy}, or justify it in {}", self.list))
        });
        findings.extend(unlisted);
        findings
    }

    /// Takes the sites that the exception covers out of `items`; fails if it allows more than there is.
    fn compare(
        &self,
        exception: &Exception,
        items: &mut BTreeMap<(String, String), Vec<Site>>,
    ) -> Result<(), String> {
        let Exception { path, item, limit } = exception;
        let key = (path.clone(), item.clone());
        let Some(sites) = items.get(&key) else {
            return Err(format!("{item} in {path} needs no exception any more"));
        };
        let total = (self.total)(&sites.iter().map(|site| site.value).collect::<Vec<_>>());
        if total <= *limit {
            items.remove(&key);
        }
        if total < *limit {
            return Err(format!("{item} in {path} is allowed {limit}, but there is only {total}"));
        }
        Ok(())
    }
}

struct Exception {
    path: String,
    item: String,
    limit: usize,
}

impl Exception {
    fn parse(line: &str) -> Option<Exception> {
        let mut parts = line.split_whitespace();
        let (path, item, limit) = (parts.next()?, parts.next()?, parts.next()?);
        let _reason = parts.next()?;
        Some(Exception { path: path.to_owned(), item: item.to_owned(), limit: limit.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(list: &str, values: &[usize]) -> Vec<String> {
        let ratchet = Ratchet {
            list: "list.txt",
            free: 70,
            total: |values| values.iter().copied().max().unwrap_or(0),
            describe: |site| (format!("{} is long", site.item), "split it".to_owned()),
        };
        let site = |&value| Site { path: "a.rs".to_owned(), line: 5, item: "f".to_owned(), value };
        let findings = ratchet.findings(list, values.iter().map(site).collect());
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn exceptions_cover_exactly_what_there_is() {
        assert!(lines("", &[70]).is_empty());
        assert!(lines("# why\n\na.rs f 80 one long table", &[80, 75]).is_empty());
        assert_eq!(lines("", &[71]), ["a.rs:5: f is long; split it, or justify it in list.txt"]);
        assert_eq!(lines("a.rs f 80 reason", &[81]).len(), 1);
        for (list, values, part) in [
            ("a.rs f 80 reason", &[75][..], "only 75"),
            ("a.rs f 80 reason", &[60], "no exception any more"),
            ("a.rs f 80", &[60], "not `path item limit reason`"),
        ] {
            let found = lines(list, values);
            assert!(found[0].starts_with("list.txt:1: ") && found[0].contains(part), "{found:?}");
        }
    }
}
