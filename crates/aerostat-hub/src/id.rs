//! Names of models on the Hub.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// The revision meant when none is named.
const REVISION_DEFAULT: &str = "main";

/// Longest accepted id, in bytes.
const ID_BYTES_MAX: usize = 1024;

/// A model on the Hub: `org/name[@revision][:FILE.gguf]`, or `:Q4_K_M`, the GGUF file of that quantisation.
///
/// Every part is safe to use in a path below the cache: no `..`, no empty part, no separator of another system.
///
/// ```
/// let id: aerostat_hub::ModelId = "org/name@refs/pr/1:model-Q4_K_M.gguf".parse()?;
/// assert_eq!((id.repository(), id.revision(), id.file()), ("org/name", "refs/pr/1", Some("model-Q4_K_M.gguf")));
/// # Ok::<(), aerostat_hub::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelId {
    repository: String,
    revision: String,
    file: Option<String>,
}

impl ModelId {
    /// `org/name`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// A branch, a tag, a commit or `refs/pr/N`; `main` when the id named none.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The GGUF file the id asks for: its path in the repository, or the name of its quantisation.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }
}

impl FromStr for ModelId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |what: &str| {
            let shown: String = text.chars().take(120).collect();
            let message = format!(
                "`{shown}` is not a model id: {what}. Write org/name[@revision][:FILE.gguf or :Q4_K_M]"
            );
            Error::new(ErrorKind::InvalidId, message)
        };
        if text.len() > ID_BYTES_MAX {
            return Err(invalid("it is too long"));
        }
        let (rest, file) = match text.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, REVISION_DEFAULT));
        if !repository.split_once('/').is_some_and(|(org, name)| is_name(org) && is_name(name)) {
            return Err(invalid("organisation and name are letters, digits, `-`, `_` and `.`"));
        }
        if !is_path(revision) || !revision.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+/".contains(&b))
        {
            return Err(invalid("the revision is not a branch, tag or commit"));
        }
        if !file.is_none_or(|file| is_quantisation(file) || is_path(file) && file.ends_with(".gguf")) {
            let message =
                "after the colon comes a file of the repository that ends in .gguf, or a quantisation";
            return Err(invalid(message));
        }
        Ok(Self {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision != REVISION_DEFAULT {
            write!(f, "@{}", self.revision)?;
        }
        self.file.iter().try_for_each(|file| write!(f, ":{file}"))
    }
}

/// Whether `name` is a relative path that stays below the folder it is joined to, on every system.
pub(crate) fn is_path(name: &str) -> bool {
    name.len() <= ID_BYTES_MAX
        && !name.contains(|c: char| c.is_control() || "\\:".contains(c))
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether `text` may name a quantisation, such as `Q4_K_M`, `UD-IQ2_XXS`, `bf16`.
fn is_quantisation(text: &str) -> bool {
    (2..=24).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        && text.bytes().any(|b| b.is_ascii_digit())
}

/// Whether `text` is a full commit hash.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether `text` is lower-case hexadecimal.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// One half of a repository's name by the Hub's own rule; `--` would be ambiguous in the cache's folder names.
fn is_name(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=96).contains(&part.len())
        && part.bytes().all(plain)
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("--")
        && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_parse_and_print() {
        for text in [
            "a/b",
            "Org-1/na.me_2@v1.0",
            "a/b@refs/pr/3",
            "a/b:sub/x.gguf",
            "a/b@dev:x.gguf",
            "a/b:Q4_K_M",
            "a/b:bf16",
        ] {
            let id = text.parse::<ModelId>().map(|id| id.to_string());
            assert_eq!(id.ok().as_deref(), Some(text));
        }
        assert_eq!("a/b@main".parse::<ModelId>().map(|id| id.to_string()).ok().as_deref(), Some("a/b"));
    }

    #[test]
    fn ids_that_could_leave_the_cache_are_refused() {
        let long = format!("a/{}", "b".repeat(2000));
        for text in [
            "",
            "a",
            "/",
            "a/",
            "/a",
            "../b",
            "a/..",
            "a/b/c",
            "a--x/b",
            ".a/b",
            "a/b@",
            "a/b@..",
            "a/b@x/../y",
            "a/b@/x",
            "a/b@x\\y",
            "a/b:",
            "a/b:x.bin",
            "a/b:latest",
            "a/b:q/4",
            "a/b:../x.gguf",
            "a/b:/x.gguf",
            "a/b:x\\y.gguf",
            "a b/c",
            "a/b@x y",
            &long,
        ] {
            let kind = text.parse::<ModelId>().map_err(|e| e.kind());
            assert_eq!(kind, Err(ErrorKind::InvalidId), "{text}");
        }
    }
}
