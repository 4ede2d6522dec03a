//! Files that are written are none of those that are read, and no two of them are one, by whatever name they go.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};

/// Links that lead to a file that is not there yet are followed so far.
const LINKS_MAX: usize = 16;

/// A file, and what it is to a command, in words: "the input", "the results".
#[derive(Clone, Debug)]
pub struct Named {
    what: String,
    path: PathBuf,
}

impl Named {
    /// A file at `path` that is `what`.
    pub fn new(what: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { what: what.into(), path: path.into() }
    }

    /// The same file, as something else.
    #[must_use]
    pub fn called(self, what: &str) -> Self {
        Self { what: what.to_owned(), ..self }
    }
}

/// Refuses what would write over a file that is read, or write two things to one file. Files are told apart by what they
/// are (device and inode) and not by their names: links and hard links are the files that they lead to.
///
/// # Errors
/// [`ErrorKind::Usage`] with both names.
pub fn keep_apart(read: &[Named], written: &[Named]) -> Result<(), Error> {
    let known = |files: &[Named]| files.iter().map(|file| Identity::of(&file.path)).collect::<Vec<_>>();
    let (read_as, written_as) = (known(read), known(written));
    for (i, (file, identity)) in written.iter().zip(&written_as).enumerate() {
        let others = read.iter().zip(&read_as).chain(written.iter().zip(&written_as).take(i));
        if let Some((other, _)) = others.into_iter().find(|(_, other)| *other == identity) {
            let (Named { what, path }, Named { what: of, path: there }) = (file, other);
            let named =
                if path == there { String::new() } else { format!(", by its other name {}", path.display()) };
            let message = format!(
                "{what} would be written over {of}, {}{named}: they are the same file; name another one",
                there.display()
            );
            return Err(Error::new(ErrorKind::Usage, message));
        }
    }
    Ok(())
}

/// The files of a model, as something that is read: a folder with all that is in it, or a file and, of GGUF, its
/// neighbours, which may be parts of it.
pub fn model_files(model: &Path) -> Vec<Named> {
    let named = |path: PathBuf| Named::new("a file of the model", path);
    let beside = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    if model.is_dir() {
        let folder = Named::new("the folder of the model", model);
        return std::iter::once(folder).chain(beside(model).into_iter().map(named)).collect();
    }
    let folder = model.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parts = beside(folder).into_iter().filter(|path| path.extension() == Some("gguf".as_ref()));
    std::iter::once(model.to_owned()).chain(parts).map(named).collect()
}

/// What a file is, whatever it is called.
#[derive(PartialEq, Eq)]
enum Identity {
    /// Device and inode.
    File(u64, u64),
    /// Of a file that is not there yet, or on systems that do not tell: its folder, and its name there.
    Path(PathBuf),
}

impl Identity {
    fn of(path: &Path) -> Self {
        if let Some(identity) = fs::metadata(path).ok().and_then(|metadata| Self::tell(&metadata)) {
            return identity;
        }
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let Ok(target) = fs::read_link(&path) else { break };
            path = path.parent().unwrap_or(Path::new("")).join(target);
        }
        if let Ok(whole) = path.canonicalize() {
            return Self::Path(whole);
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match (folder.canonicalize(), path.file_name()) {
            (Ok(folder), Some(name)) => Self::Path(folder.join(name)),
            _ => Self::Path(path),
        }
    }

    #[cfg(unix)]
    fn tell(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self::File(metadata.dev(), metadata.ino()))
    }

    #[cfg(not(unix))]
    fn tell(_metadata: &Metadata) -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clash(read: &[&Path], written: &[&Path]) -> bool {
        let named = |paths: &[&Path]| paths.iter().map(|p| Named::new("a file", *p)).collect::<Vec<_>>();
        keep_apart(&named(read), &named(written)).is_err_and(|e| e.kind() == ErrorKind::Usage)
    }

    #[test]
    fn a_file_is_known_by_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "precious").unwrap();
        fs::write(at("b"), "precious").unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        #[cfg(unix)]
        for (to, from) in [("a", "soft"), ("absent", "dangling"), ("dangling", "twice"), ("loop", "loop")] {
            std::os::unix::fs::symlink(to, at(from)).unwrap();
        }
        let around = at(".").join("..").join(folder.path().file_name().unwrap()).join("a");
        assert!(clash(&[&at("a")], &[&at("a")]));
        assert!(clash(&[&at("a")], &[&at("hard")]));
        assert!(clash(&[&at("b"), &at("a")], &[&at("c"), &around]));
        assert!(clash(&[], &[&at("c"), &at("b"), &at("c")]), "not there yet");
        assert!(!clash(&[&at("a")], &[&at("b"), &at("c"), &at("d")]));
        assert!(!clash(&[&at("a"), &at("a")], &[]), "what is only read may be the same");
        if cfg!(unix) {
            assert!(clash(&[&at("a")], &[&at("soft")]));
            assert!(clash(&[], &[&at("absent"), &at("twice")]));
            assert!(!clash(&[&at("loop")], &[&at("a")]));
        }
    }

    #[test]
    fn a_models_own_files_are_those_of_its_folder_or_of_all_its_parts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["m-1.gguf", "m-2.gguf", "notes.jsonl"] {
            fs::write(at(name), "").unwrap();
        }
        let refuses = |model: &Path, out: &Path| {
            keep_apart(&model_files(model), &[Named::new("the results", out)]).is_err()
        };
        assert!(refuses(&at("m-1.gguf"), &at("m-2.gguf")));
        assert!(!refuses(&at("m-1.gguf"), &at("notes.jsonl")));
        assert!(refuses(folder.path(), &at("notes.jsonl")));
        assert!(refuses(folder.path(), folder.path()));
        assert!(!refuses(folder.path(), &at("new.jsonl")));
    }
}
