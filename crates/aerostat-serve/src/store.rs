//! What outlives the process: files, and batches with their results, in one folder.
//!
//! ```text
//! DATA/  serve.lock · serve.db (SQLite, WAL) · tmp/ (emptied at start)
//!        files/ab/file-ab… · jobs/batch-…/out.jsonl (and what a job keeps beside it)
//! ```
//!
//! A file is whole on the disk before its row is there: it is written to `tmp`, made durable, moved, and then told of. What
//! a stop in between leaves behind goes at the next start. A batch has its row before its job begins.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use crate::engine::locked;
use crate::error::{Error, ErrorKind};
use crate::ids;

/// Says whose database it is: "AERS".
const APPLICATION_ID: i32 = 0x4145_5253;
/// Of the tables below.
const VERSION: i32 = 2;
/// Bytes of all that is kept.
const USED: &str = "SELECT (SELECT coalesce(sum(bytes), 0) FROM file)
    + (SELECT coalesce(sum(length(request) + length(object)), 0) FROM response)";
/// Room on the disk that is left to others.
const FREE_BYTES_MIN: u64 = 1 << 30;

const SCHEMA: &str = "
    CREATE TABLE file (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, filename TEXT NOT NULL,
        purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created INTEGER NOT NULL, expires INTEGER
    );
    CREATE TABLE batch (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
        open INTEGER NOT NULL,   -- it has not ended
        input TEXT NOT NULL,     -- the file it reads
        object TEXT NOT NULL,    -- as clients see it
        job TEXT NOT NULL        -- what its job is run with
    );";

/// What the second version added.
const SCHEMA_2: &str = "
    CREATE TABLE response (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
        open INTEGER NOT NULL,   -- it has not ended
        created INTEGER NOT NULL,
        request TEXT NOT NULL,   -- what it is made of
        object TEXT NOT NULL,    -- as clients see it
        tokens BLOB NOT NULL     -- of its answer so far, as little-endian numbers of 32 bits
    );
    PRAGMA user_version = 2;";

/// The folder and its database; this process's alone.
pub(crate) struct Store {
    folder: PathBuf,
    pub(crate) database: Mutex<Connection>,
    bytes_max: u64,
    _lock: File,
}

/// A file that was uploaded or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRow {
    pub(crate) id: String,
    pub(crate) filename: String,
    pub(crate) purpose: String,
    pub(crate) bytes: u64,
    pub(crate) created: u64,
    pub(crate) expires: Option<u64>,
}

/// A batch: what clients see of it, and what its job is run with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BatchRow {
    pub(crate) id: String,
    pub(crate) open: bool,
    pub(crate) input: String,
    pub(crate) object: Value,
    pub(crate) job: Value,
}

/// A page of a list: those after an id, in order of making or against it.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) after: Option<String>,
    pub(crate) limit: usize,
    pub(crate) ascending: bool,
    /// Of files: those with this purpose only.
    pub(crate) purpose: Option<String>,
}

/// Why the store could not do it.
#[derive(Debug)]
pub(crate) enum Fault {
    /// There is none of this id.
    Absent,
    /// A batch that has not ended reads it.
    InUse,
    /// Files take as much room as they may, or the disk is full.
    Full(String),
    /// The disk or the database failed.
    Failed(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full("the disk is full".to_owned()),
            _ => Self::Failed(format!("the server's database: {e}")),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full("the disk is full".to_owned())
            }
            _ => Self::Failed(format!("the server's folder: {e}")),
        }
    }
}

/// A file under way: it goes with its owner, however that ends, unless it was kept under another name.
pub(crate) struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // The next start takes away what is left.
        let _ = fs::remove_file(&self.0);
    }
}

impl Store {
    /// Opens the folder, makes it if it is not there, and takes away what an earlier process left unfinished.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Result<Self, Error> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Data, format!("cannot {what} {}: {e}", folder.display()))
        };
        let make = || -> io::Result<File> {
            make_private(folder)?;
            for name in ["files", "jobs"] {
                fs::create_dir_all(folder.join(name))?;
            }
            File::options().create(true).truncate(false).write(true).open(folder.join("serve.lock"))
        };
        let lock = make().map_err(|e| failed("use the folder", &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message =
                    format!("another server uses {}; name another folder by --data", folder.display());
                return Err(Error::new(ErrorKind::Data, message));
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock", &e)),
        }
        let tmp = folder.join("tmp");
        let clean = fs::remove_dir_all(&tmp).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        });
        clean.and_then(|()| fs::create_dir(&tmp)).map_err(|e| failed("clean", &e))?;
        let database =
            open_database(&folder.join("serve.db")).map_err(|e| failed("open the database in", &e))?;
        let store =
            Self { folder: folder.to_owned(), database: Mutex::new(database), bytes_max, _lock: lock };
        store.reconcile().map_err(|e| failed("put in order", &format!("{e:?}")))?;
        Ok(store)
    }

    /// Rows without a file go, and files without a row.
    fn reconcile(&self) -> Result<(), Fault> {
        let database = locked(&self.database);
        let mut query = database.prepare("SELECT id FROM file")?;
        let known: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for id in known.iter().filter(|id| !self.file_path(id).exists()) {
            database.execute("DELETE FROM file WHERE id = ?1", [id])?;
        }
        for folder in fs::read_dir(self.folder.join("files"))? {
            for entry in fs::read_dir(folder?.path())? {
                let entry = entry?;
                if !known.iter().any(|id| entry.file_name() == id.as_str()) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        let mut query = database.prepare("SELECT id FROM batch WHERE open")?;
        let open: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for entry in fs::read_dir(self.folder.join("jobs"))? {
            let entry = entry?;
            if !open.iter().any(|id| entry.file_name() == id.as_str()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Where a file's bytes are; `id` is one of ours.
    pub(crate) fn file_path(&self, id: &str) -> PathBuf {
        let start = id.get(5..7).unwrap_or("00");
        self.folder.join("files").join(start).join(id)
    }

    /// Where a batch's job has its files; `id` is one of ours.
    pub(crate) fn job_folder(&self, id: &str) -> PathBuf {
        self.folder.join("jobs").join(id)
    }

    /// A new file that has no name yet.
    pub(crate) fn temporary(&self) -> Result<(Temporary, File), Fault> {
        let path = Temporary(self.folder.join("tmp").join(ids::hex()));
        let file = File::create_new(&path.0)?;
        Ok((path, file))
    }

    /// Refuses more bytes than there is room for.
    pub(crate) fn check_room(&self, more: u64) -> Result<(), Fault> {
        let used: i64 = locked(&self.database).query_row(USED, [], |r| r.get(0))?;
        if (used as u64).saturating_add(more) > self.bytes_max {
            let message = format!(
                "files may take {} bytes together; delete some, or give --data-quota",
                self.bytes_max
            );
            return Err(Fault::Full(message));
        }
        match free_bytes(&self.folder) {
            Some(free) if free < FREE_BYTES_MIN.saturating_add(more) => {
                Err(Fault::Full("the disk has less than 1 GiB left".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Gives a file that is whole its place and its row.
    pub(crate) fn keep(&self, written: &Temporary, file: &File, row: &FileRow) -> Result<(), Fault> {
        file.sync_all()?;
        let path = self.file_path(&row.id);
        self.place(&path, |path| fs::rename(&written.0, path))?;
        insert_file(&locked(&self.database), row)?;
        Ok(())
    }

    /// Puts something at a path of a folder that may not be there yet, durably.
    fn place(&self, path: &Path, put: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let files = self.folder.join("files");
        let folder = path.parent().unwrap_or(&files);
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync_folder(&files)?;
        }
        put(path)?;
        sync_folder(folder)
    }

    /// A file.
    pub(crate) fn file(&self, id: &str) -> Result<FileRow, Fault> {
        let database = locked(&self.database);
        let found = database.query_row("SELECT * FROM file WHERE id = ?1", [id], file_row).optional()?;
        found.filter(|row| row.expires.is_none_or(|at| at > ids::now())).ok_or(Fault::Absent)
    }

    /// A page of files, and whether there are more.
    pub(crate) fn files(&self, page: &Page) -> Result<(Vec<FileRow>, bool), Fault> {
        let database = locked(&self.database);
        let after = after(&database, "file", page)?;
        let sql = format!(
            "SELECT * FROM file WHERE {} AND (?2 IS NULL OR purpose = ?2) AND (expires IS NULL OR expires > ?3)
             ORDER BY number {} LIMIT ?4",
            after_sql(page),
            order_sql(page)
        );
        let mut query = database.prepare(&sql)?;
        let found = query
            .query_map(params![after, page.purpose, ids::now() as i64, page.limit as i64 + 1], file_row)?;
        let mut rows = found.collect::<Result<Vec<_>, _>>()?;
        let more = rows.len() > page.limit;
        rows.truncate(page.limit);
        Ok((rows, more))
    }

    /// Takes a file away, unless a batch needs it still.
    pub(crate) fn delete_file(&self, id: &str) -> Result<(), Fault> {
        let database = locked(&self.database);
        let users: i64 =
            database
                .query_row("SELECT count(*) FROM batch WHERE input = ?1 AND open", [id], |row| row.get(0))?;
        if users > 0 {
            return Err(Fault::InUse);
        }
        if database.execute("DELETE FROM file WHERE id = ?1", [id])? == 0 {
            return Err(Fault::Absent);
        }
        // Without its row nobody sees it, and the next start takes it away.
        let _ = fs::remove_file(self.file_path(id));
        Ok(())
    }

    /// Takes away files that were to be kept until now, or that were made longer ago than files are kept.
    pub(crate) fn expire(&self, keep_days: Option<u32>) -> Result<(), Fault> {
        let now = ids::now();
        let oldest = keep_days.map_or(0, |days| now.saturating_sub(u64::from(days) * 86_400));
        let old: Vec<String> = {
            let database = locked(&self.database);
            let mut query = database.prepare("SELECT id FROM file WHERE expires <= ?1 OR created < ?2")?;
            query.query_map([now as i64, oldest as i64], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        locked(&self.database)
            .execute("DELETE FROM response WHERE created < ?1 AND NOT open", [oldest as i64])?;
        for id in old {
            match self.delete_file(&id) {
                Ok(()) | Err(Fault::Absent | Fault::InUse) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Adds a batch, if its file is there.
    pub(crate) fn add_batch(&self, batch: &BatchRow) -> Result<(), Fault> {
        let database = locked(&self.database);
        let files: i64 =
            database
                .query_row("SELECT count(*) FROM file WHERE id = ?1", [&batch.input], |row| row.get(0))?;
        if files == 0 {
            return Err(Fault::Absent);
        }
        database.execute(
            "INSERT INTO batch (id, open, input, object, job) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![batch.id, batch.open, batch.input, batch.object.to_string(), batch.job.to_string()],
        )?;
        Ok(())
    }

    /// A batch.
    pub(crate) fn batch(&self, id: &str) -> Result<BatchRow, Fault> {
        let database = locked(&self.database);
        let found = database.query_row("SELECT * FROM batch WHERE id = ?1", [id], batch_row).optional()?;
        found.ok_or(Fault::Absent)
    }

    /// A page of batches, and whether there are more.
    pub(crate) fn batches(&self, page: &Page) -> Result<(Vec<BatchRow>, bool), Fault> {
        let database = locked(&self.database);
        let after = after(&database, "batch", page)?;
        let sql = format!(
            "SELECT * FROM batch WHERE {} ORDER BY number {} LIMIT ?2",
            after_sql(page),
            order_sql(page)
        );
        let mut query = database.prepare(&sql)?;
        let found = query.query_map(params![after, page.limit as i64 + 1], batch_row)?;
        let mut rows = found.collect::<Result<Vec<_>, _>>()?;
        let more = rows.len() > page.limit;
        rows.truncate(page.limit);
        Ok((rows, more))
    }

    /// The batches that have not ended, oldest first.
    pub(crate) fn open_batches(&self) -> Result<Vec<BatchRow>, Fault> {
        let database = locked(&self.database);
        let mut query = database.prepare("SELECT * FROM batch WHERE open ORDER BY number")?;
        Ok(query.query_map([], batch_row)?.collect::<Result<_, _>>()?)
    }

    /// Changes what clients see of a batch, all or nothing, and gives it as it is then.
    pub(crate) fn change_batch(
        &self,
        id: &str,
        change: impl FnOnce(&mut BatchRow),
    ) -> Result<BatchRow, Fault> {
        let mut database = locked(&self.database);
        let transaction = database.transaction()?;
        let found = transaction.query_row("SELECT * FROM batch WHERE id = ?1", [id], batch_row).optional()?;
        let mut batch = found.ok_or(Fault::Absent)?;
        change(&mut batch);
        update_batch(&transaction, &batch)?;
        transaction.commit()?;
        Ok(batch)
    }

    /// Ends a batch: its results become files, and it is told with them, all or nothing. Repeated after a stop at any
    /// moment it does the same.
    pub(crate) fn finish_batch(&self, batch: &BatchRow, results: &[(PathBuf, FileRow)]) -> Result<(), Fault> {
        for (from, row) in results {
            let to = self.file_path(&row.id);
            self.place(&to, |to| match fs::hard_link(from, to) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            })?;
        }
        let mut database = locked(&self.database);
        let transaction = database.transaction()?;
        for (_, row) in results {
            insert_file(&transaction, row)?;
        }
        update_batch(&transaction, batch)?;
        transaction.commit()?;
        drop(database);
        // What is left of it goes at the next start.
        let _ = fs::remove_dir_all(self.job_folder(&batch.id));
        Ok(())
    }
}

impl FileRow {
    /// As clients see it.
    pub(crate) fn object(&self) -> Value {
        json!({
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "expires_at": self.expires,
        })
    }
}

fn insert_file(database: &Connection, row: &FileRow) -> rusqlite::Result<usize> {
    database.execute(
        "INSERT OR REPLACE INTO file (id, filename, purpose, bytes, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            row.id,
            row.filename,
            row.purpose,
            row.bytes as i64,
            row.created as i64,
            row.expires.map(|at| at as i64)
        ],
    )
}

fn update_batch(database: &Connection, batch: &BatchRow) -> rusqlite::Result<usize> {
    database.execute(
        "UPDATE batch SET open = ?2, object = ?3, job = ?4 WHERE id = ?1",
        params![batch.id, batch.open, batch.object.to_string(), batch.job.to_string()],
    )
}

fn file_row(row: &Row<'_>) -> rusqlite::Result<FileRow> {
    Ok(FileRow {
        id: row.get("id")?,
        filename: row.get("filename")?,
        purpose: row.get("purpose")?,
        bytes: row.get::<_, i64>("bytes")? as u64,
        created: row.get::<_, i64>("created")? as u64,
        expires: row.get::<_, Option<i64>>("expires")?.map(|at| at as u64),
    })
}

fn batch_row(row: &Row<'_>) -> rusqlite::Result<BatchRow> {
    Ok(BatchRow {
        id: row.get("id")?,
        open: row.get("open")?,
        input: row.get("input")?,
        object: json_column(row, "object")?,
        job: json_column(row, "job")?,
    })
}

/// A column of JSON.
pub(crate) fn json_column(row: &Row<'_>, name: &str) -> rusqlite::Result<Value> {
    let text: String = row.get(name)?;
    let wrong = |e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e));
    serde_json::from_str(&text).map_err(wrong)
}

/// The place of the id that a page comes after.
fn after(database: &Connection, table: &str, page: &Page) -> Result<Option<i64>, Fault> {
    let Some(id) = &page.after else { return Ok(None) };
    let sql = format!("SELECT number FROM {table} WHERE id = ?1");
    database.query_row(&sql, [id], |row| row.get(0)).optional()?.map(Some).ok_or(Fault::Absent)
}

fn after_sql(page: &Page) -> &'static str {
    if page.ascending { "(?1 IS NULL OR number > ?1)" } else { "(?1 IS NULL OR number < ?1)" }
}

fn order_sql(page: &Page) -> &'static str {
    if page.ascending { "ASC" } else { "DESC" }
}

fn open_database(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    if tables == 0 {
        connection.execute_batch(&format!(
            "BEGIN; PRAGMA application_id = {APPLICATION_ID}; {SCHEMA} {SCHEMA_2} COMMIT;"
        ))?;
    } else if (pragma("application_id")?, pragma("user_version")?) == (APPLICATION_ID, 1) {
        connection.execute_batch(&format!("BEGIN; {SCHEMA_2} COMMIT;"))?;
    } else if (pragma("application_id")?, pragma("user_version")?) != (APPLICATION_ID, VERSION) {
        return Err(rusqlite::Error::InvalidQuery);
    }
    Ok(connection)
}

/// A folder that nobody else may look into.
fn make_private(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Makes names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// What the disk has left for us; `None` where the system does not tell.
fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::statvfs(folder).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    #[cfg(not(unix))]
    return None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(store: &Store, text: &str) -> FileRow {
        let (path, file) = store.temporary().unwrap();
        fs::write(&path.0, text).unwrap();
        let row = FileRow {
            id: format!("file-{}", ids::hex()),
            filename: "a.jsonl".to_owned(),
            purpose: "batch".to_owned(),
            bytes: text.len() as u64,
            created: ids::now(),
            expires: None,
        };
        store.keep(&path, &file, &row).unwrap();
        row
    }

    fn page(after: Option<&str>, limit: usize, ascending: bool) -> Page {
        Page { after: after.map(str::to_owned), limit, ascending, purpose: None }
    }

    #[test]
    fn what_a_stop_leaves_unfinished_goes_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        let (kept, lost) = (file(&store, "kept"), file(&store, "lost"));
        let stray = store.file_path(&format!("file-{}", ids::hex()));
        fs::create_dir_all(stray.parent().unwrap()).unwrap();
        fs::write(&stray, "stray").unwrap();
        fs::write(folder.path().join("tmp/half"), "half").unwrap();
        fs::create_dir_all(folder.path().join("jobs/batch-of-nobody")).unwrap();
        fs::remove_file(store.file_path(&lost.id)).unwrap();
        assert!(Store::open(folder.path(), 1).is_err_and(|e| e.to_string().contains("another server")));
        drop(store);
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        assert_eq!(store.file(&kept.id).unwrap(), kept);
        assert!(matches!(store.file(&lost.id), Err(Fault::Absent)));
        assert!(!stray.exists() && !folder.path().join("tmp/half").exists());
        assert_eq!(fs::read_dir(folder.path().join("jobs")).unwrap().count(), 0);
    }

    #[test]
    fn lists_come_in_pages() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        let rows: Vec<FileRow> = (0..5).map(|i| file(&store, &i.to_string())).collect();
        let ids = |page: &Page| {
            let (rows, more) = store.files(page).unwrap();
            (rows.into_iter().map(|row| row.id).collect::<Vec<_>>(), more)
        };
        let of = |places: &[usize]| places.iter().map(|i| rows[*i].id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&page(None, 2, false)), (of(&[4, 3]), true));
        assert_eq!(ids(&page(Some(&rows[3].id), 3, false)), (of(&[2, 1, 0]), false));
        assert_eq!(ids(&page(Some(&rows[3].id), 9, true)), (of(&[4]), false));
        assert!(matches!(store.files(&page(Some("file-none"), 9, true)), Err(Fault::Absent)));
        let other = Page { purpose: Some("other".to_owned()), ..page(None, 9, true) };
        assert_eq!(ids(&other), (Vec::new(), false));
    }

    #[test]
    fn files_have_a_bound_and_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 10).unwrap();
        let row = file(&store, "12345678");
        store.check_room(2).unwrap();
        assert!(matches!(store.check_room(3), Err(Fault::Full(_))));
        store.expire(None).unwrap();
        assert!(store.file(&row.id).is_ok());
        let old = FileRow { created: 0, ..row.clone() };
        insert_file(&locked(&store.database), &old).unwrap();
        store.expire(Some(1)).unwrap();
        assert!(matches!(store.file(&row.id), Err(Fault::Absent)));
        assert!(!store.file_path(&row.id).exists());
    }

    #[test]
    fn a_batch_ends_once_however_often_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        let input = file(&store, "in");
        let id = format!("batch-{}", ids::hex());
        let batch = BatchRow {
            id: id.clone(),
            open: true,
            input: input.id.clone(),
            object: json!({"status": "validating"}),
            job: json!({}),
        };
        store.add_batch(&batch).unwrap();
        assert!(matches!(store.delete_file(&input.id), Err(Fault::InUse)));
        let job = store.job_folder(&id);
        fs::create_dir_all(&job).unwrap();
        fs::write(job.join("out.jsonl"), "result").unwrap();
        let out = FileRow { id: format!("file-{}", ids::hex()), bytes: 6, ..input.clone() };
        let done = BatchRow { open: false, object: json!({"status": "completed"}), ..batch };
        // A stop came after the link and before the row.
        store.place(&store.file_path(&out.id), |to| fs::hard_link(job.join("out.jsonl"), to)).unwrap();
        let results = [(job.join("out.jsonl"), out.clone())];
        store.finish_batch(&done, &results).unwrap();
        assert_eq!(store.batch(&id).unwrap(), done);
        assert_eq!(fs::read(store.file_path(&out.id)).unwrap(), b"result");
        assert!(!job.exists());
        assert!(store.open_batches().unwrap().is_empty());
        store.delete_file(&input.id).unwrap();
        let absent = BatchRow { id: "batch-2".to_owned(), input: "file-none".to_owned(), ..done };
        assert!(matches!(store.add_batch(&absent), Err(Fault::Absent)));
    }
}
