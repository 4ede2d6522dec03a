//! What outlives the process: files, and batches with their results, in one folder.
//!
//! ```text
//! DATA/  serve.lock · serve.db (SQLite, WAL) · tmp/ (uploads under way)
//!        files/ab/file-ab… · jobs/batch-…/out.jsonl (and what a job keeps beside it)
//! ```
//!
//! A file is whole on the disk before its row is there: it is written to `tmp`, made durable, moved, and then told of. What
//! a stop in between leaves behind goes at the next start (`folder.rs`). A batch has its row before its job begins.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use crate::engine::locked;
use crate::error::{Error, ErrorKind};
use crate::folder::{self, at, free_bytes, sync_folder};
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
    /// A file has not the bytes that it was stored with.
    Damaged(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "there is nothing of this id, or it has expired",
            Self::InUse => "a batch that has not ended reads this file",
            Self::Full(why) | Self::Failed(why) | Self::Damaged(why) => why,
        })
    }
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
            _ => Self::Failed(e.to_string()),
        }
    }
}

/// A file under way: it goes with its owner, however that ends, unless it was kept under another name.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The next start takes away what is left.
        let _ = fs::remove_file(&self.0);
    }
}

impl Store {
    /// Opens the folder, makes it if it is not there, and takes away what an earlier process left unfinished.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Result<Self, Error> {
        let failed = |what: &str, e: &dyn fmt::Display| {
            Error::new(ErrorKind::Data, format!("cannot {what} {}: {e}", folder.display()))
        };
        let lock = folder::claim(folder)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message =
                    format!("another server uses {}; name another folder by --data", folder.display());
                return Err(Error::new(ErrorKind::Data, message));
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock", &e)),
        }
        let database = Mutex::new(open_database(folder)?);
        let store = Self { folder: folder.to_owned(), database, bytes_max, _lock: lock };
        store.reconcile().map_err(|e| failed("put in order", &e))?;
        Ok(store)
    }

    /// Rows without a file go, and files without a row.
    fn reconcile(&self) -> Result<(), Fault> {
        let database = locked(&self.database);
        let ids = |sql: &str| -> Result<HashSet<String>, rusqlite::Error> {
            database.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        let known = ids("SELECT id FROM file")?;
        for id in known.iter().filter(|id| !self.file_path(id).exists()) {
            eprintln!("note: the file {id} is not at {} any more", self.file_path(id).display());
            database.execute("DELETE FROM file WHERE id = ?1", [id])?;
        }
        let open = ids("SELECT id FROM batch WHERE open")?;
        Ok(folder::clean(&self.folder, |id| known.contains(id), |id| open.contains(id))?)
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
        let mut options = File::options();
        let file = folder::private(options.write(true).create_new(true)).open(&path.0);
        let file = file.map_err(|e| at(&path.0, &e))?;
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
        file.sync_all().map_err(|e| at(&written.0, &e))?;
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
            folder::make_private(folder)?;
            sync_folder(&files)?;
        }
        put(path).map_err(|e| at(path, &e))?;
        folder::close(path, 0o600);
        sync_folder(folder)
    }

    /// A file.
    pub(crate) fn file(&self, id: &str) -> Result<FileRow, Fault> {
        let database = locked(&self.database);
        let found = database.query_row("SELECT * FROM file WHERE id = ?1", [id], file_row).optional()?;
        found.filter(|row| row.expires.is_none_or(|at| at > ids::now())).ok_or(Fault::Absent)
    }

    /// Where the bytes of a file are, if all of them are there.
    pub(crate) fn whole_file(&self, id: &str) -> Result<PathBuf, Fault> {
        let database = locked(&self.database);
        let bytes: Option<i64> =
            database.query_row("SELECT bytes FROM file WHERE id = ?1", [id], |row| row.get(0)).optional()?;
        let bytes = bytes.ok_or(Fault::Absent)? as u64;
        let path = self.file_path(id);
        // Who takes a file away has the database meanwhile.
        let found = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(at(&path, &e).into()),
        };
        if found == bytes && (found > 0 || path.exists()) {
            return Ok(path);
        }
        eprintln!("error: {} has {found} bytes of {bytes}", path.display());
        Err(Fault::Damaged(format!(
            "{id} was stored with {bytes} bytes, and {found} of them are on the server's disk: its content is not given"
        )))
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

/// Opens the database, or makes it where nothing is stored yet; one of another program is left as it is.
fn open_database(folder: &Path) -> Result<Connection, Error> {
    let path = folder.join(folder::DATABASE);
    let error = |what: &str| Error::new(ErrorKind::Data, format!("{}: {what}", path.display()));
    let failed = |e: rusqlite::Error| error(&format!("the database cannot be opened: {e}"));
    // It and what SQLite puts beside it are for nobody else.
    folder::private_file(&path).map_err(|e| Error::new(ErrorKind::Data, format!("cannot open {e}")))?;
    let connection = Connection::open(&path).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).map_err(failed)?;
    let pragma =
        |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(failed);
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let missing = match (tables, version) {
        (0, _) => {
            folder::check_unused(folder)?;
            format!("BEGIN; PRAGMA application_id = {APPLICATION_ID}; {SCHEMA} {SCHEMA_2} COMMIT;")
        }
        _ if application != APPLICATION_ID => {
            return Err(error("this is a database of another program; name another folder by --data"));
        }
        (_, 1) => format!("BEGIN; {SCHEMA_2} COMMIT;"),
        (_, VERSION) => String::new(),
        _ => {
            return Err(error(
                "it was made by a newer aerostat; start that one, or name another folder by --data",
            ));
        }
    };
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.execute_batch(&missing).map_err(failed)?;
    Ok(connection)
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
        let half = folder.path().join("tmp").join(ids::hex());
        fs::write(&half, "half").unwrap();
        fs::create_dir_all(folder.path().join(format!("jobs/batch-{}", ids::hex()))).unwrap();
        fs::remove_file(store.file_path(&lost.id)).unwrap();
        assert!(Store::open(folder.path(), 1).is_err_and(|e| e.to_string().contains("another server")));
        drop(store);
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        assert_eq!(store.file(&kept.id).unwrap(), kept);
        assert!(matches!(store.file(&lost.id), Err(Fault::Absent)));
        assert!(!stray.exists() && !half.exists());
        assert_eq!(fs::read_dir(folder.path().join("jobs")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_has_lost_bytes_is_not_given() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        let (row, empty) = (file(&store, "all of it"), file(&store, ""));
        let path = store.file_path(&row.id);
        assert_eq!(store.whole_file(&row.id).unwrap(), path);
        store.whole_file(&empty.id).unwrap();
        fs::write(&path, "all").unwrap();
        assert!(matches!(store.whole_file(&row.id), Err(Fault::Damaged(why)) if why.contains("9 bytes")));
        fs::remove_file(&path).unwrap();
        assert!(matches!(store.whole_file(&row.id), Err(Fault::Damaged(_))));
        assert!(matches!(store.whole_file("file-none"), Err(Fault::Absent)));
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
