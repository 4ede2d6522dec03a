//! A cell of a table of results.

use serde::ser::{Serialize, Serializer};
use serde_json::Value;

/// What stands in a cell. Numbers stay what they are until they are written: as values of JSON they take ten times the memory.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Value(Value),
    /// Numbers, in rows of so many if that is given; what is not finite is null.
    Floats(Vec<f32>, Option<usize>),
    /// Ids of tokens, in rows of so many if that is given.
    Ids(Vec<u32>, Option<usize>),
}

impl Cell {
    /// As a cell of CSV.
    pub(crate) fn text(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Value(Value::String(text)) => Ok(text.clone()),
            Self::Value(Value::Null) => Ok(String::new()),
            other => serde_json::to_string(other),
        }
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(to),
            Self::Floats(values, None) => Numbers(values).serialize(to),
            Self::Floats(values, Some(width)) => to.collect_seq(values.chunks(*width.max(&1)).map(Numbers)),
            Self::Ids(ids, None) => ids.serialize(to),
            Self::Ids(ids, Some(width)) => to.collect_seq(ids.chunks(*width.max(&1))),
        }
    }
}

/// A number in JSON with the fewest digits that give the same f32 again.
pub(crate) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Numbers in JSON, as [`number`] has them.
pub(crate) struct Numbers<'a>(pub(crate) &'a [f32]);

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().copied().map(number))
    }
}

/// A sum of f32 numbers in JSON, rounded to the digits that mean something.
pub(crate) fn rounded(value: f64) -> Value {
    number(value as f32)
}

/// Cells with the names of their columns, as an object of JSON.
pub(crate) struct Named<'a>(pub(crate) &'a [(&'a str, Cell)]);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, cell)| (name, cell)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_written_as_their_values_are() {
        let cells = [
            ("a", Cell::Floats(vec![0.1, f32::NAN, 2.0], None)),
            ("b", Cell::Floats(vec![1.0, 2.0, 3.0, f32::NEG_INFINITY], Some(2))),
            ("c", Cell::Ids(vec![7, 8], Some(1))),
            ("d", Cell::Ids(Vec::new(), None)),
            ("e", json!({"x": "y"}).into()),
        ];
        let text = serde_json::to_string(&Named(&cells)).unwrap();
        assert_eq!(
            text,
            r#"{"a":[0.1,null,2.0],"b":[[1.0,2.0],[3.0,null]],"c":[[7],[8]],"d":[],"e":{"x":"y"}}"#
        );
        assert_eq!(cells[2].1.text().unwrap(), "[[7],[8]]");
        assert_eq!(Cell::from(json!("it is")).text().unwrap(), "it is");
    }
}
