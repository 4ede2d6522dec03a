//! The cells of a row of JSON: no more of it is held than is asked for.

use std::fmt;

use aerostat_openai::json;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::table::{CHARS_MAX, Cells, Columns, Prompt, RowCells};

/// Values that a cell may hold, lists and objects included: each takes many times its text.
pub(crate) const VALUES_MAX: usize = 20_000;

/// The cells of a line.
pub(crate) fn json_cells(text: &[u8], columns: &Columns) -> Cells {
    let wrong = |e: serde_json::Error| {
        let why: String = json::placed(&e).chars().take(CHARS_MAX).collect();
        format!("not a JSON object: {why}")
    };
    let mut from = serde_json::Deserializer::from_slice(text);
    let read = RowReader(columns).deserialize(&mut from).and_then(|row| from.end().map(|()| row));
    let (found, mut cells) = read.map_err(wrong)?;
    let none = |name: &str| format!("there is no column `{name}`");
    let prompt = match &columns.prompt {
        None => None,
        Some(name) => {
            let wrong = || format!("column `{name}` is neither a text nor a list of token ids");
            Some(found.ok_or_else(|| none(name))?.ok_or_else(wrong)?)
        }
    };
    let others = columns.others.iter().enumerate().map(|(i, name)| match &prompt {
        Some(Prompt::Text(text)) if columns.prompt.as_ref() == Some(name) => Ok(text.as_str().into()),
        Some(Prompt::TokenIds(ids)) if columns.prompt.as_ref() == Some(name) => Ok(ids.as_slice().into()),
        _ => cells.get_mut(i).and_then(Option::take).ok_or_else(|| none(name)),
    });
    let others = others.collect::<Result<_, String>>()?;
    Ok(RowCells { prompt, others })
}

/// Reads an object, and of it no more than is asked for: what a list of numbers takes as JSON is many times what it takes
/// as numbers.
struct RowReader<'a>(&'a Columns);

/// The prompt, if its column is there and holds one, and the other cells that are there.
type Found = (Option<Option<Prompt>>, Vec<Option<Value>>);

impl<'de> DeserializeSeed<'de> for RowReader<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowReader<'_> {
    type Value = Found;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Columns { prompt: column, others } = self.0;
        let (mut prompt, mut cells) = (None, vec![None; others.len()]);
        while let Some(name) = map.next_key::<String>()? {
            let mut told = cells.iter().zip(others).filter(|(_, other)| **other == name);
            if prompt.is_some() && Some(&name) == column.as_ref() || told.any(|(cell, _)| cell.is_some()) {
                return Err(json::doubled(&name));
            }
            if Some(&name) == column.as_ref() {
                prompt = Some(map.next_value::<Cell>()?.0);
            } else if others.contains(&name) {
                let value = map.next_value_seed(&json::Values::new(VALUES_MAX))?;
                for (cell, _) in cells.iter_mut().zip(others).filter(|(_, other)| **other == name) {
                    *cell = Some(value.clone());
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok((prompt, cells))
    }
}

/// A prompt; `None` if it is something else.
struct Cell(Option<Prompt>);

/// A token's id; `None` if it is something else.
struct Id(Option<u32>);

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Anything).map(|found| {
            Self(match found {
                Kind::Text(text) => Some(Prompt::Text(text)),
                Kind::Ids(ids) => Some(Prompt::TokenIds(ids)),
                Kind::Id(_) | Kind::Other => None,
            })
        })
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Anything)
            .map(|found| Self(if let Kind::Id(id) = found { Some(id) } else { None }))
    }
}

/// What a value is, as far as it may be a prompt or a part of one.
enum Kind {
    Text(String),
    Ids(Vec<u32>),
    Id(u32),
    Other,
}

/// Takes any value.
struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Kind;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Kind, E> {
        Ok(u32::try_from(number).map_or(Kind::Other, Kind::Id))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let mut ids = Some(Vec::new());
        while let Some(Id(id)) = list.next_element()? {
            ids = ids.zip(id).map(|(mut ids, id)| {
                ids.push(id);
                ids
            });
        }
        Ok(ids.map_or(Kind::Other, Kind::Ids))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Kind::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(others: &[&str]) -> Columns {
        Columns { prompt: Some("text".to_owned()), others: others.iter().map(ToString::to_string).collect() }
    }

    fn cells(prompt: Prompt, others: &[Value]) -> Cells {
        Ok(RowCells { prompt: Some(prompt), others: others.to_vec() })
    }

    #[test]
    fn a_row_holds_a_text_or_ids_and_nothing_else() {
        let of = |text: &str, key: Option<&str>| json_cells(text.as_bytes(), &columns(key.as_slice()));
        let ids = || Prompt::TokenIds(vec![1, 2]);
        let wrong = Err("column `text` is neither a text nor a list of token ids".to_owned());
        assert_eq!(
            of(r#"{"a":{"b":[1]},"text":[1,2],"id":{"c":[]}}"#, Some("id")),
            cells(ids(), &[serde_json::json!({"c": []})])
        );
        assert_eq!(of(r#"{"text":[1,2]}"#, Some("text")), cells(ids(), &[serde_json::json!([1, 2])]));
        // Of two, one would be ignored.
        for (row, key) in [(r#"{"text":5,"text":"a"}"#, None), (r#"{"text":"a","b":1,"b":null}"#, Some("b"))]
        {
            assert!(of(row, key).unwrap_err().contains("stands twice in an object at column"), "{row}");
        }
        let unwanted = of(r#"{"text":"a","b":1,"b":2}"#, None);
        assert_eq!(unwanted, cells(Prompt::Text("a".to_owned()), &[]));
        for cell in [
            "5",
            "null",
            "true",
            "1.5",
            "-1",
            "{}",
            "[1,-1]",
            "[1,[2]]",
            "[1,{}]",
            "[\"1\"]",
            "[4294967296]",
            "[1.0]",
        ] {
            assert_eq!(of(&format!("{{\"text\":{cell}}}"), None), wrong, "{cell}");
        }
        for row in [
            "",
            "[]",
            "5",
            "\"text\"",
            "{\"text\":",
            "{\"text\":[1}",
            "{\"text\":\"a\"} x",
            "{\"text\":[1,]}",
        ] {
            assert!(of(row, None).unwrap_err().starts_with("not a JSON object"), "{row}");
        }
    }
}
