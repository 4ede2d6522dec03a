//! Which names occurred, however many there are.

use std::collections::HashSet;

use rusqlite::Connection;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind};

/// So many are remembered in memory, which takes some 2 MiB; more in a file that the system deletes.
const FEW: usize = 1 << 16;
/// Bytes of that file that are kept in memory, in KiB.
const CACHE_KIB: i64 = 1024;

/// Names that occurred, as sixteen bytes of their digests.
#[derive(Debug, Default)]
pub struct Names {
    few: HashSet<[u8; 16]>,
    many: Option<Connection>,
}

impl Names {
    /// Remembers a name; whether it is new.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`]: there is no room for a temporary file.
    pub fn insert(&mut self, name: &str) -> Result<bool, Error> {
        let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        let key: [u8; 16] = std::array::from_fn(|i| digest[i]);
        self.insert_key(key).map_err(|e| {
            let message = format!("the names of so many lines could not be written to a temporary file: {e}");
            Error::new(ErrorKind::Disk, message)
        })
    }

    fn insert_key(&mut self, key: [u8; 16]) -> rusqlite::Result<bool> {
        if self.many.is_none() {
            if self.few.len() < FEW {
                return Ok(self.few.insert(key));
            }
            let many = temporary()?;
            for key in std::mem::take(&mut self.few) {
                insert(&many, key)?;
            }
            self.many = Some(many);
        }
        self.many.as_ref().map_or(Ok(true), |many| insert(many, key))
    }
}

/// A database that is on disk as far as it outgrows its cache, and gone when it is closed.
fn temporary() -> rusqlite::Result<Connection> {
    let database = Connection::open("")?;
    database.execute_batch(&format!(
        "PRAGMA cache_size = -{CACHE_KIB}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
    ))?;
    Ok(database)
}

fn insert(database: &Connection, key: [u8; 16]) -> rusqlite::Result<bool> {
    let mut statement = database.prepare_cached("INSERT OR IGNORE INTO names VALUES (?1)")?;
    Ok(statement.execute([&key[..]])? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They once took 40 bytes of memory each, which nobody had counted.
    #[test]
    fn a_name_that_occurred_is_known_among_few_and_among_many() {
        let mut names = Names::default();
        for round in 0..2 {
            for i in 0..FEW + 1000 {
                assert_eq!(names.insert(&i.to_string()).unwrap(), round == 0, "{i}");
            }
        }
        assert!(names.many.is_some() && names.few.capacity() == 0);
    }
}
