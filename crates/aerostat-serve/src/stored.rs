//! Responses in the server's database.

use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

use crate::engine::locked;
use crate::store::{Fault, Store, json_column};

/// A response: what clients see of it, and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResponseRow {
    pub(crate) id: String,
    /// It has not ended.
    pub(crate) open: bool,
    pub(crate) created: u64,
    pub(crate) request: Value,
    pub(crate) object: Value,
    /// Of its answer, as far as they were saved.
    pub(crate) tokens: Vec<u32>,
}

impl Store {
    /// Adds a response.
    pub(crate) fn add_response(&self, row: &ResponseRow) -> Result<(), Fault> {
        let (request, object) = (row.request.to_string(), row.object.to_string());
        self.check_room((request.len() + object.len()) as u64)?;
        locked(&self.database).execute(
            "INSERT INTO response (id, open, created, request, object, tokens) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![row.id, row.open, row.created as i64, request, object, bytes(&row.tokens)],
        )?;
        Ok(())
    }

    /// A response.
    pub(crate) fn response(&self, id: &str) -> Result<ResponseRow, Fault> {
        let database = locked(&self.database);
        let found =
            database.query_row("SELECT * FROM response WHERE id = ?1", [id], response_row).optional()?;
        found.ok_or(Fault::Absent)
    }

    /// The responses that have not ended, oldest first.
    pub(crate) fn open_responses(&self) -> Result<Vec<ResponseRow>, Fault> {
        let database = locked(&self.database);
        let mut query = database.prepare("SELECT * FROM response WHERE open ORDER BY number")?;
        Ok(query.query_map([], response_row)?.collect::<Result<_, _>>()?)
    }

    /// Saves more tokens of a response that has not ended.
    pub(crate) fn add_tokens(&self, id: &str, tokens: &[u32]) -> Result<(), Fault> {
        locked(&self.database).execute(
            "UPDATE response SET tokens = CAST(tokens || ?2 AS BLOB) WHERE id = ?1 AND open",
            params![id, bytes(tokens)],
        )?;
        Ok(())
    }

    /// Ends a response, unless it is gone.
    pub(crate) fn end_response(&self, id: &str, object: &Value) -> Result<(), Fault> {
        locked(&self.database).execute(
            "UPDATE response SET open = 0, object = ?2, tokens = x'' WHERE id = ?1 AND open",
            params![id, object.to_string()],
        )?;
        Ok(())
    }

    /// Takes a response away.
    pub(crate) fn delete_response(&self, id: &str) -> Result<(), Fault> {
        match locked(&self.database).execute("DELETE FROM response WHERE id = ?1", [id])? {
            0 => Err(Fault::Absent),
            _ => Ok(()),
        }
    }
}

fn bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

fn response_row(row: &Row<'_>) -> rusqlite::Result<ResponseRow> {
    let tokens: Vec<u8> = row.get("tokens")?;
    Ok(ResponseRow {
        id: row.get("id")?,
        open: row.get("open")?,
        created: row.get::<_, i64>("created")? as u64,
        request: json_column(row, "request")?,
        object: json_column(row, "object")?,
        tokens: tokens.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_response_is_kept_with_its_tokens_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        let row = ResponseRow {
            id: "resp_1".to_owned(),
            open: true,
            created: 7,
            request: json!({"a": 1}),
            object: json!({"status": "queued"}),
            tokens: vec![1],
        };
        store.add_response(&row).unwrap();
        store.add_tokens("resp_1", &[0, u32::MAX]).unwrap();
        drop(store);
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        let want = ResponseRow { tokens: vec![1, 0, u32::MAX], ..row.clone() };
        assert_eq!(store.open_responses().unwrap(), [want]);
        store.end_response("resp_1", &json!({"status": "completed"})).unwrap();
        // What comes late changes nothing.
        store.end_response("resp_1", &json!({"status": "cancelled"})).unwrap();
        store.add_tokens("resp_1", &[5]).unwrap();
        let ended = store.response("resp_1").unwrap();
        assert_eq!((ended.object, ended.tokens), (json!({"status": "completed"}), Vec::new()));
        assert!(store.open_responses().unwrap().is_empty());
        store.delete_response("resp_1").unwrap();
        assert!(matches!(store.delete_response("resp_1"), Err(Fault::Absent)));
    }

    #[test]
    fn a_folder_of_the_first_version_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path(), 1 << 30).unwrap());
        let database = rusqlite::Connection::open(folder.path().join("serve.db")).unwrap();
        database.execute_batch("DROP TABLE response; PRAGMA user_version = 1;").unwrap();
        drop(database);
        let store = Store::open(folder.path(), 1 << 30).unwrap();
        assert!(store.open_responses().unwrap().is_empty());
    }
}
