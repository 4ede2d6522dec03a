//! The job's database: which lines there are, which are done, and the tokens of those under way.
//!
//! It is SQLite with a write-ahead log, for anybody to look into. Results are not in it: they are in the output, which
//! is made durable first. A commit that is lost with the power costs sweeps, never results.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use crate::disk::Disk;
use crate::error::{Error, ErrorKind};
use crate::options::sibling;

/// Says whose database it is: "AERO".
const APPLICATION_ID: i32 = 0x4145_524F;
/// Of the tables below.
const VERSION: i32 = 2;
/// The log is made durable at least this often.
const DURABLE_EVERY: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
    CREATE TABLE job (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE line (
        number INTEGER PRIMARY KEY,  -- in the input, from 0
        state INTEGER NOT NULL,      -- 0 to do, 1 done, 2 failed, 3 bad
        parts INTEGER NOT NULL,      -- sequences
        prompt INTEGER NOT NULL,     -- tokens to read, all sequences together
        answer INTEGER NOT NULL,     -- tokens to generate at most, for each sequence
        longest INTEGER NOT NULL,    -- tokens of its longest sequence at most
        generated INTEGER NOT NULL,  -- tokens generated, once it is done
        mark INTEGER NOT NULL        -- 24 bits of a digest of what it asked when it was checked
    );
    CREATE TABLE gained (            -- tokens of answers under way
        line INTEGER NOT NULL, part INTEGER NOT NULL, position INTEGER NOT NULL, tokens BLOB NOT NULL,
        PRIMARY KEY (line, part, position)
    ) WITHOUT ROWID;
    CREATE TABLE part (              -- finished sequences of unfinished lines
        line INTEGER NOT NULL, part INTEGER NOT NULL, result BLOB NOT NULL,
        PRIMARY KEY (line, part)
    ) WITHOUT ROWID;";

/// What is left to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    ToDo,
    Done,
    /// It failed when it was run.
    Failed,
    /// It cannot be run.
    Bad,
}

impl State {
    fn code(self) -> i64 {
        match self {
            Self::ToDo => 0,
            Self::Done => 1,
            Self::Failed => 2,
            Self::Bad => 3,
        }
    }

    fn of(code: i64) -> Option<Self> {
        [Self::ToDo, Self::Done, Self::Failed, Self::Bad].into_iter().find(|state| state.code() == code)
    }
}

/// What is known of a line without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineRow {
    pub(crate) number: u64,
    pub(crate) state: State,
    pub(crate) parts: u32,
    pub(crate) prompt: u32,
    pub(crate) answer: u32,
    pub(crate) longest: u32,
    pub(crate) generated: u32,
    /// Of what it asked when it was checked.
    pub(crate) mark: Mark,
}

/// Three bytes of a digest, which fit beside a line's state.
pub(crate) type Mark = [u8; 3];

/// The address by which SQLite reads a file that nobody writes.
fn settled(path: &Path) -> String {
    let mut address = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                address.push(char::from(*byte))
            }
            byte => address += &format!("%{byte:02x}"),
        }
    }
    address + "?immutable=1"
}

/// What one commit writes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Lines that are done or failed, with the tokens generated for them.
    pub(crate) settled: Vec<(u64, State, u32)>,
    /// Tokens gained: line, part, position, tokens.
    pub(crate) gained: Vec<(u64, u32, u32, Vec<u8>)>,
    /// Parts finished: line, part, result.
    pub(crate) parts: Vec<(u64, u32, Vec<u8>)>,
    /// Facts about the job.
    pub(crate) facts: Vec<(&'static str, String)>,
}

pub(crate) struct Database {
    path: PathBuf,
    connection: Connection,
    durable: Instant,
    full: bool,
}

impl Database {
    /// Opens the database, or makes one.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |e: rusqlite::Error| failure(path, &e);
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(failed)?;
        if tables > 0 {
            check(&connection, path)?;
        }
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        if tables == 0 {
            let make = format!(
                "BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; {SCHEMA} COMMIT;"
            );
            connection.execute_batch(&make).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), connection, durable: Instant::now(), full: true })
    }

    /// Opens the database of a job to look at it, whoever runs it, and leaves nothing beside it.
    pub(crate) fn look(path: &Path) -> Result<Self, Error> {
        let failed = |e: rusqlite::Error| failure(path, &e);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = match sibling(path, "-wal").exists() {
            true => Connection::open_with_flags(path, flags),
            // Nobody has it open: what is read needs no files that tell others of it.
            false => Connection::open_with_flags(settled(path), flags | OpenFlags::SQLITE_OPEN_URI),
        };
        let connection = connection.map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(failed)?;
        check(&connection, path)?;
        Ok(Self { path: path.to_owned(), connection, durable: Instant::now(), full: true })
    }

    /// A fact about the job.
    pub(crate) fn fact(&self, key: &str) -> Result<Option<String>, Error> {
        let mut query = self.prepare("SELECT value FROM job WHERE key = ?1")?;
        query.query_row([key], |row| row.get(0)).optional().map_err(|e| self.failed(&e))
    }

    /// A number among the facts.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, Error> {
        let Some(text) = self.fact(key)? else { return Ok(None) };
        let broken = || self.broken(&format!("{key} is {text:?}, not a number"));
        text.parse().map(Some).map_err(|_| broken())
    }

    /// A fact that a job which was begun has.
    pub(crate) fn must_fact(&self, key: &str) -> Result<String, Error> {
        self.fact(key)?.ok_or_else(|| self.broken(&format!("{key} is missing")))
    }

    /// A number that a job which was begun has.
    pub(crate) fn must_number(&self, key: &str) -> Result<u64, Error> {
        self.number(key)?.ok_or_else(|| self.broken(&format!("{key} is missing")))
    }

    fn broken(&self, what: &str) -> Error {
        let message = format!(
            "the job's database {}: {what}; the results in the output are untouched; --restart begins anew \
             and gives them up",
            self.path.display()
        );
        Error::new(ErrorKind::Database, message)
    }

    /// All lines in order.
    pub(crate) fn lines(&self, mut each: impl FnMut(LineRow)) -> Result<(), Error> {
        let mut query = self.prepare(
            "SELECT number, state, parts, prompt, answer, longest, generated, mark FROM line ORDER BY number",
        )?;
        let mut rows = query.query([]).map_err(|e| self.failed(&e))?;
        while let Some(row) = rows.next().map_err(|e| self.failed(&e))? {
            let code: i64 = row.get(1).map_err(|e| self.failed(&e))?;
            let state = State::of(code).ok_or_else(|| self.broken(&format!("a line has state {code}")))?;
            let read = || -> rusqlite::Result<LineRow> {
                Ok(LineRow {
                    number: row.get::<_, i64>(0)? as u64,
                    state,
                    parts: row.get(2)?,
                    prompt: row.get(3)?,
                    answer: row.get(4)?,
                    longest: row.get(5)?,
                    generated: row.get(6)?,
                    mark: unmarked(row.get(7)?),
                })
            };
            each(read().map_err(|e| self.failed(&e))?);
        }
        Ok(())
    }

    /// Lines in a state.
    pub(crate) fn count(&self, state: State) -> Result<u64, Error> {
        let mut query = self.prepare("SELECT count(*) FROM line WHERE state = ?1")?;
        let count: i64 = query.query_row([state.code()], |row| row.get(0)).map_err(|e| self.failed(&e))?;
        Ok(count as u64)
    }

    /// The lines of which something is saved.
    pub(crate) fn lines_under_way(&self) -> Result<Vec<u64>, Error> {
        let mut query = self.prepare("SELECT line FROM gained UNION SELECT line FROM part")?;
        let rows = query.query_map([], |row| row.get::<_, i64>(0)).map_err(|e| self.failed(&e))?;
        rows.map(|r| r.map(|n| n as u64)).collect::<Result<_, _>>().map_err(|e| self.failed(&e))
    }

    /// The parts of a line that are done.
    pub(crate) fn parts_done(&self, line: u64) -> Result<Vec<u32>, Error> {
        self.numbers("SELECT part FROM part WHERE line = ?1", line)
    }

    /// The parts of a line that have tokens.
    pub(crate) fn parts_begun(&self, line: u64) -> Result<Vec<u32>, Error> {
        self.numbers("SELECT DISTINCT part FROM gained WHERE line = ?1", line)
    }

    /// The tokens of a part, in order, as they were saved.
    pub(crate) fn gained(
        &self,
        line: u64,
        part: u32,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut query =
            self.prepare("SELECT tokens FROM gained WHERE line = ?1 AND part = ?2 ORDER BY position")?;
        let mut rows = query.query(params![line as i64, part]).map_err(|e| self.failed(&e))?;
        while let Some(row) = rows.next().map_err(|e| self.failed(&e))? {
            each(&row.get::<_, Vec<u8>>(0).map_err(|e| self.failed(&e))?)?;
        }
        Ok(())
    }

    /// The result of a part that is done.
    pub(crate) fn result(&self, line: u64, part: u32) -> Result<Option<Vec<u8>>, Error> {
        let mut query = self.prepare("SELECT result FROM part WHERE line = ?1 AND part = ?2")?;
        let found = query.query_row(params![line as i64, part], |row| row.get(0)).optional();
        found.map_err(|e| self.failed(&e))
    }

    fn numbers(&self, sql: &str, line: u64) -> Result<Vec<u32>, Error> {
        let mut query = self.prepare(sql)?;
        let rows = query.query_map([line as i64], |row| row.get(0)).map_err(|e| self.failed(&e))?;
        rows.collect::<Result<_, _>>().map_err(|e| self.failed(&e))
    }

    /// Begins to write all lines anew.
    pub(crate) fn begin(&mut self) -> Result<NewLines<'_>, Error> {
        let path = self.path.clone();
        self.durability(true)?;
        let transaction = self.connection.transaction().map_err(|e| failure(&path, &e))?;
        transaction
            .execute_batch("DELETE FROM line; DELETE FROM gained; DELETE FROM part;")
            .map_err(|e| failure(&path, &e))?;
        Ok(NewLines { path, transaction })
    }

    /// Writes facts, durably.
    pub(crate) fn set(&mut self, disk: &dyn Disk, facts: &[(&'static str, String)]) -> Result<(), Error> {
        self.durable -= DURABLE_EVERY;
        self.commit(disk, &Batch { facts: facts.to_vec(), ..Batch::default() })
    }

    /// Writes what happened since the last commit, all or nothing.
    pub(crate) fn commit(&mut self, disk: &dyn Disk, batch: &Batch) -> Result<(), Error> {
        disk.commits().map_err(|e| Error::file(ErrorKind::Disk, "save progress in", &self.path, &e))?;
        let now = Instant::now();
        let durable = now.duration_since(self.durable) >= DURABLE_EVERY;
        self.durability(durable)?;
        let path = &self.path;
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            write(&transaction, batch)?;
            transaction.commit()
        };
        write().map_err(|e| failure(path, &e))?;
        if durable {
            self.durable = now;
        }
        Ok(())
    }

    /// Makes failed lines those to do again.
    pub(crate) fn retry_failed(&mut self, disk: &dyn Disk) -> Result<(), Error> {
        disk.commits().map_err(|e| Error::file(ErrorKind::Disk, "save progress in", &self.path, &e))?;
        self.durability(true)?;
        let sql = "BEGIN; UPDATE line SET state = 0 WHERE state = 2; \
                   UPDATE job SET value = '0' WHERE key = 'retrying'; \
                   UPDATE job SET value = (SELECT value FROM job WHERE key = 'bad_bytes') \
                   WHERE key = 'errors_bytes'; COMMIT;";
        self.connection.execute_batch(sql).map_err(|e| self.failed(&e))
    }

    /// Whether commits wait for the disk.
    fn durability(&mut self, full: bool) -> Result<(), Error> {
        if self.full != full {
            let level = if full { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level).map_err(|e| self.failed(&e))?;
            self.full = full;
        }
        Ok(())
    }

    fn prepare(&self, sql: &str) -> Result<rusqlite::CachedStatement<'_>, Error> {
        self.connection.prepare_cached(sql).map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        failure(&self.path, error)
    }
}

/// All lines, written in one transaction.
pub(crate) struct NewLines<'a> {
    path: PathBuf,
    transaction: Transaction<'a>,
}

impl NewLines<'_> {
    pub(crate) fn add(&self, row: &LineRow) -> Result<(), Error> {
        let add = || -> rusqlite::Result<usize> {
            let mut insert = self
                .transaction
                .prepare_cached("INSERT INTO line VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
            insert.execute(params![
                row.number as i64,
                row.state.code(),
                row.parts,
                row.prompt,
                row.answer,
                row.longest,
                row.generated,
                marked(row.mark)
            ])
        };
        add().map(|_| ()).map_err(|e| failure(&self.path, &e))
    }

    /// Writes facts with the lines and makes all of it durable.
    pub(crate) fn commit(self, disk: &dyn Disk, facts: &[(&'static str, String)]) -> Result<(), Error> {
        disk.commits().map_err(|e| Error::file(ErrorKind::Disk, "save progress in", &self.path, &e))?;
        let batch = Batch { facts: facts.to_vec(), ..Batch::default() };
        let written = write(&self.transaction, &batch).and_then(|()| self.transaction.commit());
        written.map_err(|e| failure(&self.path, &e))
    }
}

fn write(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    let mut settle =
        transaction.prepare_cached("UPDATE line SET state = ?2, generated = ?3 WHERE number = ?1")?;
    let mut forget_gained = transaction.prepare_cached("DELETE FROM gained WHERE line = ?1")?;
    let mut forget_parts = transaction.prepare_cached("DELETE FROM part WHERE line = ?1")?;
    for (line, state, generated) in &batch.settled {
        settle.execute(params![*line as i64, state.code(), generated])?;
        forget_gained.execute([*line as i64])?;
        forget_parts.execute([*line as i64])?;
    }
    let mut gain = transaction.prepare_cached("INSERT OR REPLACE INTO gained VALUES (?1, ?2, ?3, ?4)")?;
    for (line, part, position, tokens) in &batch.gained {
        gain.execute(params![*line as i64, part, position, tokens])?;
    }
    let mut finish = transaction.prepare_cached("INSERT OR REPLACE INTO part VALUES (?1, ?2, ?3)")?;
    for (line, part, result) in &batch.parts {
        finish.execute(params![*line as i64, part, result])?;
    }
    let mut fact = transaction.prepare_cached("INSERT OR REPLACE INTO job VALUES (?1, ?2)")?;
    for (key, value) in &batch.facts {
        fact.execute(params![key, value])?;
    }
    Ok(())
}

/// A mark as a number, and back.
fn marked([high, middle, low]: Mark) -> u32 {
    u32::from_be_bytes([0, high, middle, low])
}

fn unmarked(number: u32) -> Mark {
    let [_, high, middle, low] = number.to_be_bytes();
    [high, middle, low]
}

/// Refuses what is not the database of a job of this version.
fn check(connection: &Connection, path: &Path) -> Result<(), Error> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let id = pragma("application_id").map_err(|e| failure(path, &e))?;
    let version = pragma("user_version").map_err(|e| failure(path, &e))?;
    if id != APPLICATION_ID {
        let message = format!("{} is no job of aerostat; move it away", path.display());
        return Err(Error::new(ErrorKind::Database, message));
    }
    if version != VERSION {
        let message = format!(
            "{} was written by another version of aerostat (tables {version}, known {VERSION}); \
             finish the job with that one, or begin anew with --restart",
            path.display()
        );
        return Err(Error::new(ErrorKind::Database, message));
    }
    Ok(())
}

fn failure(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let code = error.sqlite_error_code();
    let (kind, hint) = match code {
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::Disk, "; free some space and give the same command again: it goes on")
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            (ErrorKind::Disk, "")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            (ErrorKind::Database, "; --restart begins anew")
        }
        _ => (ErrorKind::Database, ""),
    };
    Error::new(kind, format!("the job's database {}: {error}{hint}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::System;

    #[test]
    fn a_commit_settles_lines_and_forgets_what_was_saved_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.job");
        let mut database = Database::open(&path).unwrap();
        let row = |number| LineRow {
            number,
            state: State::ToDo,
            parts: 2,
            prompt: 7,
            answer: 5,
            longest: 9,
            generated: 0,
            mark: [1, 2, 0xff],
        };
        let new = database.begin().unwrap();
        (0..3).for_each(|number| new.add(&row(number)).unwrap());
        new.commit(&System, &[("state", "running".to_owned())]).unwrap();
        let under_way = Batch {
            gained: vec![(0, 0, 0, vec![1]), (0, 1, 0, vec![2]), (0, 1, 1, vec![3]), (2, 0, 0, vec![4])],
            parts: vec![(0, 0, vec![9])],
            ..Batch::default()
        };
        database.commit(&System, &under_way).unwrap();
        assert_eq!(database.lines_under_way().unwrap(), [0, 2]);
        assert_eq!(database.parts_begun(0).unwrap(), [0, 1]);
        assert_eq!(database.parts_done(0).unwrap(), [0]);
        assert_eq!(database.result(0, 0).unwrap(), Some(vec![9]));
        assert_eq!(database.result(0, 1).unwrap(), None);
        let mut gained: Vec<u8> = Vec::new();
        let take = |bytes: &[u8]| {
            gained.extend(bytes);
            Ok(())
        };
        database.gained(0, 1, take).unwrap();
        assert_eq!(gained, [2, 3]);
        let settled = Batch {
            settled: vec![(0, State::Done, 4)],
            facts: vec![("output_bytes", "12".into())],
            ..Batch::default()
        };
        database.commit(&System, &settled).unwrap();
        drop(database);

        let database = Database::look(&path).unwrap();
        assert_eq!(database.lines_under_way().unwrap(), [2]);
        assert_eq!(database.number("output_bytes").unwrap(), Some(12));
        assert_eq!(database.fact("state").unwrap().as_deref(), Some("running"));
        let mut found = Vec::new();
        database.lines(|row| found.push(row)).unwrap();
        assert_eq!(found[0], LineRow { state: State::Done, generated: 4, ..row(0) });
        assert_eq!(found[1..], [row(1), row(2)]);
    }

    /// Such a number once counted as 0, and results were cut off behind it.
    #[test]
    fn what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = Database::open(&folder.path().join("a.job")).unwrap();
        database.set(&System, &[("output_bytes", "1x".to_owned())]).unwrap();
        assert_eq!(database.number("output_bytes").unwrap_err().kind(), ErrorKind::Database);
        assert_eq!(database.number("errors_bytes").unwrap(), None);
        assert_eq!(database.must_number("errors_bytes").unwrap_err().kind(), ErrorKind::Database);
        database.connection.execute("INSERT INTO line VALUES (0, 9, 1, 1, 1, 1, 0, 0)", []).unwrap();
        assert_eq!(database.lines(|_| ()).unwrap_err().kind(), ErrorKind::Database);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.job");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert_eq!(Database::open(&path).err().map(|e| e.kind()), Some(ErrorKind::Database));
        std::fs::write(&path, [7; 5000]).unwrap();
        assert_eq!(Database::open(&path).err().map(|e| e.kind()), Some(ErrorKind::Database));
    }
}
