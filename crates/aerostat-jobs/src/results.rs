//! The results of a table, in its order, once all are there.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::database::Database;
use crate::disk::{Disk, System};
use crate::error::{Error, ErrorKind};
use crate::input;
use crate::job::{ASSEMBLED, ASSEMBLED_BYTES};
use crate::line;
use crate::options::JobPaths;
use crate::output::Appender;

/// What stands for a row that has no result.
const NONE: u64 = u64::MAX;

/// The results of a table whose job has come to its end. While it lives, no other process works on the table.
pub struct TableResults {
    paths: JobPaths,
    reader: BufReader<File>,
    /// Where the line of each row begins.
    offsets: Vec<u64>,
    at: u64,
    line: Vec<u8>,
    /// Keeps others out.
    _lock: Appender,
}

/// A row's line.
#[derive(Deserialize)]
struct Line {
    id: String,
    parts: Vec<String>,
}

impl TableResults {
    /// Finds the results of a job; the table must be what it was.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], [`ErrorKind::Changed`], [`ErrorKind::Disk`], [`ErrorKind::Database`].
    pub fn open(paths: &JobPaths) -> Result<Self, Error> {
        let path = paths.rows();
        let lock = Appender::open(&System, &path)?;
        let database = Database::look(&paths.database())?;
        if input::digest(&paths.input)? != database.must_fact("input_digest")? {
            let message = format!(
                "the input {} was changed while the job ran; put it back and give the same command again, or --restart",
                paths.input.display()
            );
            return Err(Error::new(ErrorKind::Changed, message));
        }
        let failed = |e: io::Error| Error::file(ErrorKind::Disk, "read", &path, &e);
        let mut reader = BufReader::with_capacity(1 << 16, File::open(&path).map_err(failed)?);
        let (mut offsets, mut at, mut line) = (Vec::new(), 0, Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)? as u64;
            if read == 0 {
                break;
            }
            let number = row_number(&line).ok_or_else(|| broken(&path))? as usize;
            if offsets.len() <= number {
                offsets.resize(number + 1, NONE);
            }
            offsets[number] = at;
            at += read;
        }
        Ok(Self { paths: paths.clone(), reader, offsets, at, line: Vec::new(), _lock: lock })
    }

    /// What was kept of a row's requests; `None` if the row failed.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`]; [`ErrorKind::Database`] if it is not what was written.
    pub fn row(&mut self, number: u64) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let offset = self.offsets.get(number as usize).copied().unwrap_or(NONE);
        if offset == NONE {
            return Ok(None);
        }
        let path = self.paths.rows();
        let failed = |e: io::Error| Error::file(ErrorKind::Disk, "read", &path, &e);
        let moved = offset.wrapping_sub(self.at).cast_signed();
        if moved != 0 {
            self.reader.seek_relative(moved).map_err(failed)?;
        }
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line).map_err(failed)?;
        self.at = offset + read as u64;
        let line: Line = serde_json::from_slice(&self.line).map_err(|_| broken(&path))?;
        if line::number(&line.id) != Some(number) {
            return Err(broken(&path));
        }
        let parts = line.parts.iter().map(|part| BASE64_STANDARD.decode(part).map_err(|_| broken(&path)));
        parts.collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Goes back to the beginning of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`].
    pub fn rewind(&mut self) -> Result<(), Error> {
        let path = self.paths.rows();
        let sought = self.reader.seek(SeekFrom::Start(0));
        sought.map_err(|e| Error::file(ErrorKind::Disk, "read", &path, &e))?;
        self.at = 0;
        Ok(())
    }

    /// Says that the results are where they belong now, durably. What was kept of them goes, unless rows failed that may be
    /// tried again.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`], [`ErrorKind::Database`].
    pub fn finish(self, failed: u64) -> Result<(), Error> {
        let mut database = Database::open(&self.paths.database())?;
        let mut facts = vec![(ASSEMBLED, "1".to_owned())];
        // What goes to stdout is nowhere.
        facts.extend(self.paths.output.metadata().ok().map(|m| (ASSEMBLED_BYTES, m.len().to_string())));
        database.set(&System as &dyn Disk, &facts)?;
        if failed == 0 {
            remove(&self.paths.rows())?;
            remove(&self.paths.errors)?;
        }
        Ok(())
    }
}

/// Takes away what an open job that has nothing to do made anew: the files of a table that is complete.
pub(crate) fn tidy(paths: &JobPaths) -> Result<(), Error> {
    for path in [paths.rows(), paths.errors.clone()] {
        if path.metadata().is_ok_and(|m| m.len() == 0) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::file(ErrorKind::Disk, "remove", path, &e))
        }
        _ => Ok(()),
    }
}

/// The row that a line is of, without reading all of it.
fn row_number(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"id\":\"")?;
    let end = rest.iter().position(|b| *b == b'"')?;
    line::number(std::str::from_utf8(rest.get(..end)?).ok()?)
}

fn broken(path: &Path) -> Error {
    let message = format!("{} is not what was written there; --restart begins anew", path.display());
    Error::new(ErrorKind::Database, message)
}
