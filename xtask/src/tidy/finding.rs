//! What a rule finds.

use std::fmt;

/// One broken rule at one place.
#[derive(Debug)]
pub(super) struct Finding {
    /// The path from the root.
    pub(super) path: String,
    /// The line, from 1.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) what: String,
    /// What to do.
    pub(super) remedy: String,
}

impl Finding {
    /// A finding.
    pub(super) fn new(path: &str, line: usize, what: impl Into<String>, remedy: &str) -> Finding {
        Finding { path: path.to_owned(), line, what: what.into(), remedy: remedy.to_owned() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}; {}", self.path, self.line, self.what, self.remedy)
    }
}
