//! JSON with the numbers that Python's writer adds to the format.

use serde::de::DeserializeOwned;

/// Reads JSON in which `NaN`, `Infinity` and `-Infinity` may stand for numbers, as Python writes them; they are read as `null`.
///
/// ```
/// let value: serde_json::Value = aerostat_input::json_of_python(br#"{"a": -Infinity, "b": "NaN"}"#)?;
/// assert_eq!(value, serde_json::json!({"a": null, "b": "NaN"}));
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Errors
/// What serde says of the JSON as it is.
pub fn json_of_python<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(json)
        .or_else(|error| serde_json::from_slice(&without_python_numbers(json)).map_err(|_| error))
}

/// The JSON with such numbers, outside of strings, replaced by `null`.
fn without_python_numbers(json: &[u8]) -> Vec<u8> {
    let words: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut rest, mut in_string) = (json, false);
    let mut replaced = Vec::with_capacity(json.len());
    while let Some(&first) = rest.first() {
        let word = words.iter().find(|word| !in_string && rest.starts_with(word));
        let step = match first {
            _ if word.is_some() => word.map_or(1, |word| word.len()),
            b'\\' if in_string => 2,
            _ => 1,
        };
        in_string ^= first == b'"';
        let (taken, left) = rest.split_at_checked(step).unwrap_or((rest, &[]));
        replaced.extend_from_slice(if word.is_some() { b"null" } else { taken });
        rest = left;
    }
    replaced
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn numbers_of_python_are_null_outside_of_strings_alone() {
        let read = |text: &str| json_of_python::<Value>(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read(r#"[NaN, Infinity, -Infinity, 1]"#), Ok(json!([null, null, null, 1])));
        assert_eq!(read(r#"{"NaN\"NaN": "\\", "b": NaN}"#), Ok(json!({"NaN\"NaN": "\\", "b": null})));
        // The error is that of what is written, at its place.
        assert_eq!(read("[1, NaN,, 2]").unwrap_err(), "expected value at line 1 column 5");
        assert!(read(r#""NaN\"#).is_err());
    }
}
