//! The server's folder: whose it is, who may look into it, and what a stop left behind in it.
//!
//! Users name folders that hold other things, and systems leave files of their own everywhere. So a folder is taken only
//! if it is empty or holds our database, and what is taken away later has a name that only a server gives.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::ids::{is_hex, is_id};

/// The database, in the folder.
pub(crate) const DATABASE: &str = "serve.db";
const LOCK: &str = "serve.lock";
/// What is in the folder beside them.
const PARTS: [&str; 3] = ["files", "jobs", "tmp"];
/// What systems put into folders that are otherwise empty.
const LEFT_BY_SYSTEMS: [&str; 2] = ["lost+found", ".DS_Store"];

/// Takes the folder if it is ours or empty, makes it if it is not there, and gives the file by which it is locked.
pub(crate) fn claim(folder: &Path) -> Result<File, Error> {
    let failed = |e: io::Error| Error::new(ErrorKind::Data, format!("cannot use the folder for --data: {e}"));
    let database = fs::metadata(folder.join(DATABASE)).map_or(0, |metadata| metadata.len());
    if database == 0 {
        check_unused(folder)?;
    }
    make_private(folder).map_err(failed)?;
    private_file(&folder.join(LOCK)).map_err(failed)
}

/// Refuses a folder in which something is, though no database says that it is ours: what is in it would be taken for what a
/// stop left behind.
pub(crate) fn check_unused(folder: &Path) -> Result<(), Error> {
    let shown = folder.display();
    let error = |message: String| Err(Error::new(ErrorKind::Data, message));
    let entries = match list(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return error(format!("cannot use the folder for --data: {e}")),
        Ok(entries) => entries,
    };
    if holds_stored(folder) {
        return error(format!(
            "{shown} holds files and batches of a server, but its database {DATABASE} is missing or empty. Nothing was \
             changed: put the database back, or name another folder by --data; to begin anew in this one, move `files` and \
             `jobs` away"
        ));
    }
    let foreign = entries.iter().find(|entry| !is_nothing(entry));
    match foreign.map(DirEntry::file_name) {
        Some(name) => error(format!(
            "{shown} is not empty and is no folder of a server: {name:?} is in it. Nothing was changed: name an empty or a new \
             folder by --data"
        )),
        None => Ok(()),
    }
}

/// Whether an entry is what a start that ended at once leaves, or a system.
fn is_nothing(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    if PARTS.contains(&&*name) {
        return list(&entry.path()).is_ok_and(|inside| inside.iter().all(is_left_by_system));
    }
    name == LOCK || name.starts_with(DATABASE) || is_left_by_system(entry)
}

fn is_left_by_system(entry: &DirEntry) -> bool {
    LEFT_BY_SYSTEMS.iter().any(|name| entry.file_name() == *name)
}

/// Whether files or batches of a server are in the folder.
fn holds_stored(folder: &Path) -> bool {
    let stored = stored_files(folder).is_ok_and(|files| !files.is_empty());
    stored || jobs(folder).is_ok_and(|jobs| !jobs.is_empty())
}

/// The files that are kept, by their names: those that are where a file of this name is.
fn stored_files(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for part in list(&folder.join("files"))? {
        let start = part.file_name();
        if !is_folder(&part) || !is_hex(&start.to_string_lossy(), 2) {
            continue;
        }
        for entry in list(&part.path())? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_id(&name, "file") && name.get(5..7).is_some_and(|own| start == *own) && is_file(&entry) {
                found.push((name, entry.path()));
            }
        }
    }
    Ok(found)
}

/// The folders of jobs, by their batches.
fn jobs(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = list(&folder.join("jobs"))?.into_iter();
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry));
    Ok(named.filter(|(name, e)| is_id(name, "batch") && is_folder(e)).map(|(n, e)| (n, e.path())).collect())
}

fn is_folder(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

fn is_file(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_file())
}

/// Takes away what a stop left behind: files and jobs that the database does not know, and files under way. Everything
/// whose name is of another form stays, and so does what cannot be taken away, of which a note tells.
pub(crate) fn clean(
    folder: &Path,
    is_kept: impl Fn(&str) -> bool,
    is_open: impl Fn(&str) -> bool,
) -> io::Result<()> {
    for name in PARTS {
        make_private(&folder.join(name))?;
    }
    let mut gone = Gone::default();
    for (name, path) in stored_files(folder)? {
        match is_kept(&name) {
            true => close(&path, 0o600),
            false => gone.count("a file that is not in the database", &path, fs::remove_file(&path)),
        }
    }
    for (name, path) in jobs(folder)? {
        match is_open(&name) {
            true => close(&path, 0o700),
            false => gone.count("what a batch left that is over", &path, fs::remove_dir_all(&path)),
        }
    }
    for entry in list(&folder.join("tmp"))? {
        if is_hex(&entry.file_name().to_string_lossy(), 32) && is_file(&entry) {
            let path = entry.path();
            gone.count("half an upload", &path, fs::remove_file(&path));
        }
    }
    gone.tell(folder);
    Ok(())
}

/// What was taken away.
#[derive(Default)]
struct Gone(usize);

impl Gone {
    fn count(&mut self, what: &str, path: &Path, removed: io::Result<()>) {
        match removed {
            Ok(()) => self.0 += 1,
            Err(e) => eprintln!("note: {} is {what}, and cannot be taken away: {e}", path.display()),
        }
    }

    fn tell(&self, folder: &Path) {
        if self.0 > 0 {
            eprintln!(
                "note: removed {} files from {} that a stop had left unfinished",
                self.0,
                folder.display()
            );
        }
    }
}

/// What is in a folder.
fn list(folder: &Path) -> io::Result<Vec<DirEntry>> {
    fs::read_dir(folder).and_then(Iterator::collect).map_err(|e| at(folder, &e))
}

/// The same error, with the path that it is about.
pub(crate) fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A folder that nobody else may look into, whoever made it.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).map_err(|e| at(parent, &e))?;
        }
        make_folder(folder).map_err(|e| at(folder, &e))?;
    }
    close(folder, 0o700);
    Ok(())
}

#[cfg(unix)]
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)
}

/// A file that nobody else may read; it is made if it is not there.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    let file = private(&mut options).open(path).map_err(|e| at(path, &e))?;
    close(path, 0o600);
    Ok(file)
}

/// Files that are made so can be read by nobody else.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Keeps others out of what may have been made by somebody else. Where that cannot be done, a note says so.
pub(crate) fn close(path: &Path, mode: u32) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
        if open && let Err(e) = fs::set_permissions(path, fs::Permissions::from_mode(mode)) {
            eprintln!("note: other users may see what is in {}: {e}", path.display());
        }
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
}

/// Makes names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| at(folder, &e))?;
    }
    Ok(())
}

/// What the disk has left for us; `None` where the system does not tell.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::statvfs(folder).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    #[cfg(not(unix))]
    return None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;
    use crate::store::Store;

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    fn opened(folder: &Path) -> Result<Store, String> {
        Store::open(folder, 1 << 30).map_err(|e| e.to_string())
    }

    /// Somebody named the folder of a thesis, and lost it.
    #[test]
    fn a_folder_of_other_things_is_refused_and_left_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["tmp/mine.txt", "files/ab/thesis.txt", "jobs/x/y", "thesis.txt", "tmp/sub/x"] {
            let folder = parent.path().join(ids::hex());
            write(&folder.join(name));
            let error = opened(&folder).err().unwrap();
            assert!(error.contains(&folder.display().to_string()) && error.contains("--data"), "{error}");
            assert!(folder.join(name).exists());
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{name}");
        }
        let file = parent.path().join("file");
        write(&file);
        let error = opened(&file).err().unwrap();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }

    #[test]
    fn a_folder_that_holds_what_systems_leave_is_as_good_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        write(&folder.path().join("jobs/.DS_Store"));
        opened(folder.path()).unwrap();
    }

    #[test]
    fn what_a_server_has_not_named_stays_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        drop(opened(folder.path()).unwrap());
        let (hex, other) = (ids::hex(), format!("file-{}", ids::hex()));
        let mine = [
            "tmp/mine.txt".to_owned(),
            format!("tmp/{hex}/x"),
            "files/.DS_Store".to_owned(),
            "files/ab/thesis.txt".to_owned(),
            format!("files/zz/{other}"),
            format!("files/{}", &other),
            "jobs/.DS_Store".to_owned(),
            "jobs/x/y".to_owned(),
            format!("jobs/batch-{}", ids::hex()),
            "lost+found".to_owned(),
        ];
        mine.iter().for_each(|name| write(&folder.path().join(name)));
        let left = [
            format!("tmp/{}", ids::hex()),
            format!("files/{}/{other}", &other[5..7]),
            format!("jobs/batch-{}/x", ids::hex()),
        ];
        left.iter().for_each(|name| write(&folder.path().join(name)));
        drop(opened(folder.path()).unwrap());
        assert!(mine.iter().all(|name| folder.path().join(name).exists()));
        assert!(!left.iter().any(|name| folder.path().join(name).exists()));
    }

    /// Without its rows every file was taken for what a stop had left.
    #[test]
    fn files_whose_database_is_gone_or_empty_stay() {
        let folder = tempfile::tempdir().unwrap();
        drop(opened(folder.path()).unwrap());
        let name = format!("file-{}", ids::hex());
        let stored = folder.path().join("files").join(&name[5..7]).join(&name);
        write(&stored);
        let database = folder.path().join(DATABASE);
        let good = fs::read(&database).unwrap();
        let empty: [&dyn Fn(); 3] = [
            &|| fs::remove_file(&database).unwrap(),
            &|| fs::write(&database, "").unwrap(),
            // One that has no tables.
            &|| {
                let made = rusqlite::Connection::open(&database).unwrap();
                made.execute_batch("CREATE TABLE a (b); DROP TABLE a;").unwrap();
            },
        ];
        for (index, spoil) in empty.iter().enumerate() {
            spoil();
            let error = opened(folder.path()).err().unwrap();
            assert!(error.contains("database") && error.contains("Nothing was changed"), "{index}: {error}");
            assert!(stored.exists(), "{index}");
        }
        fs::write(&database, good).unwrap();
        opened(folder.path()).unwrap();
    }

    #[test]
    fn a_database_of_somebody_else_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let foreign = rusqlite::Connection::open(&path).unwrap();
        foreign.execute_batch("CREATE TABLE notes (text); PRAGMA application_id = 7;").unwrap();
        drop(foreign);
        let before = fs::read(&path).unwrap();
        let error = opened(folder.path()).err().unwrap();
        assert!(error.contains("another program"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, "no database at all, but a text that is long enough to be looked at").unwrap();
        let error = opened(folder.path()).err().unwrap();
        assert!(error.contains(&path.display().to_string()) && !error.contains("Error"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_folder_whoever_made_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let store = opened(folder.path()).unwrap();
        let (upload, _file) = store.temporary().unwrap();
        assert_eq!(mode(folder.path()), 0o700);
        for name in ["files", "jobs", "tmp"] {
            assert_eq!(mode(&folder.path().join(name)), 0o700, "{name}");
        }
        let mut files: Vec<PathBuf> = list(folder.path()).unwrap().iter().map(DirEntry::path).collect();
        files.retain(|path| path.is_file());
        assert!(files.iter().any(|path| path.ends_with("serve.db-wal")), "{files:?}");
        files.push(upload.path().to_owned());
        assert!(files.iter().all(|path| mode(path) == 0o600), "{files:?}");
        drop(store);
        // What an earlier server left open to others is closed.
        let database = folder.path().join(DATABASE);
        fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).unwrap();
        let _store = opened(folder.path()).unwrap();
        assert_eq!(mode(&database), 0o600);
    }
}
