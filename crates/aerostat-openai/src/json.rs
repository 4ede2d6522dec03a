//! JSON in which no member stands twice: of two, one would be ignored in silence.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads JSON whose objects have each member once.
///
/// # Errors
/// It is no JSON, or a member stands twice in an object; the latter is of [`serde_json::error::Category::Data`].
pub fn from_slice(text: &[u8]) -> Result<Value, serde_json::Error> {
    let mut from = serde_json::Deserializer::from_slice(text);
    let value = Values::new(usize::MAX).deserialize(&mut from)?;
    from.end().map(|()| value)
}

/// What [`from_slice`] found wrong with something, such as `the body`, and where.
pub fn told(what: &str, error: &serde_json::Error) -> String {
    let is = if error.is_data() { ":" } else { " is not JSON:" };
    format!("{what}{is} {}", placed(error))
}

/// An error of a text with its place, which in the first line is a column alone.
pub fn placed(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((why, column)) => format!("{why} at column {column}"),
        None => text,
    }
}

/// What an object that has a member twice is refused with.
pub fn doubled<E: serde::de::Error>(name: &str) -> E {
    const CHARS_MAX: usize = 40;
    let name: String = name.chars().take(CHARS_MAX).collect();
    E::custom(format!("{name:?} stands twice in an object"))
}

/// Reads a value that holds no more than so many, itself and those within lists and objects, and no member twice.
pub struct Values {
    left: Cell<usize>,
    most: usize,
}

impl Values {
    /// So many at most.
    pub fn new(most: usize) -> Self {
        Self { left: Cell::new(most), most }
    }

    fn take<E: serde::de::Error>(&self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        let many = || E::custom(format!("a cell that is wanted holds more than {} values", self.most));
        left.map(|left| self.left.set(left)).ok_or_else(many)
    }
}

impl<'de> DeserializeSeed<'de> for &Values {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.take()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Values {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if values.contains_key(&name) {
                return Err(doubled(&name));
            }
            let value = map.next_value_seed(self)?;
            values.insert(name, value);
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_as_it_is_read_elsewhere() {
        for text in [
            "null",
            " [true, false, 0, -1, 18446744073709551615, 1.5e3, -0.0, 1e-400] ",
            r#"{"b": {"a": ["x", "\u00e9\ud83d\ude00", {}], "c": []}, "a": "", "": 1}"#,
        ] {
            let (read, known) = (from_slice(text.as_bytes()), serde_json::from_str::<Value>(text));
            assert_eq!(read.unwrap().to_string(), known.unwrap().to_string(), "{text}");
        }
        let deep = [vec![b'['; 5000], vec![b']'; 5000]].concat();
        for bad in [b"", b"[1", b"{} x", b"1e999", b"\"\xff\"", &deep[..]] as [&[u8]; 6] {
            assert!(!from_slice(bad).unwrap_err().is_data(), "{bad:?}");
        }
    }

    /// The last of two temperatures was taken.
    #[test]
    fn a_member_that_stands_twice_is_told() {
        for (text, told) in [
            (r#"{"n": 1, "n": 1}"#, "\"n\" stands twice in an object at column 12"),
            (r#"[{"a": {"\u0061": 1, "a": null}}]"#, "\"a\" stands twice in an object at column 24"),
        ] {
            let error = from_slice(text.as_bytes()).unwrap_err();
            assert_eq!(super::told("the line", &error), format!("the line: {told}"));
        }
        let error = from_slice(b"{\n]").unwrap_err();
        assert_eq!(told("it", &error), "it is not JSON: key must be a string at line 2 column 1");
        let mut many = serde_json::Deserializer::from_str("[1, {\"a\": 2}]");
        assert!((&Values::new(3)).deserialize(&mut many).is_err());
    }
}
