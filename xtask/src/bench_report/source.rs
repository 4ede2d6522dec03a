//! Measured files: JSON with typed access that names file and field when something is not as it should be.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::text::{bytes, code};

/// One measured file.
pub(super) struct Source {
    /// Its name without `.json`.
    pub(super) name: String,
    value: Value,
}

impl Source {
    /// Reads the text of the file `name`.json.
    ///
    /// # Errors
    /// It is not a JSON object.
    pub(super) fn parse(name: &str, text: &str) -> Result<Source> {
        let value: Value =
            serde_json::from_str(text).with_context(|| format!("{name}.json: not valid JSON"))?;
        if !value.is_object() {
            bail!("{name}.json: not an object; its first character must be {{");
        }
        Ok(Source { name: name.to_owned(), value })
    }

    /// The whole file.
    pub(super) fn root(&self) -> Node<'_> {
        Node { file: &self.name, path: String::new(), value: &self.value }
    }

    /// A sentence with the command that measured and the machine that ran it.
    ///
    /// # Errors
    /// The command or the machine's `cpu` is missing, or a field of the machine has the wrong type.
    pub(super) fn provenance(&self) -> Result<String> {
        let root = self.root();
        let machine = root.need("machine")?;
        let cpu = if machine.get("cpu").is_none() { machine.text_if_any("processor")? } else { None };
        let mut parts = vec![cpu.map_or_else(|| machine.text("cpu"), Ok)?];
        if let Some(threads) = machine.number_if_any("threads")? {
            parts.push(format!("{threads} threads"));
        }
        if let Some(memory) = machine.number_if_any("memory_bytes")? {
            parts.push(bytes(memory));
        }
        parts.extend(machine.text_if_any("system")?);
        let file = format!("[{name}.json](benchmarks/{name}.json)", name = self.name);
        Ok(format!("{file}: {} on {}.", code(&root.text("command")?), parts.join(", ")))
    }
}

/// A value inside a measured file. A field that is `null` counts as absent.
pub(super) struct Node<'a> {
    file: &'a str,
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// The field, if it is there.
    pub(super) fn get(&self, field: &str) -> Option<Node<'a>> {
        let value = self.value.get(field).filter(|value| !value.is_null())?;
        let path =
            if self.path.is_empty() { field.to_owned() } else { [self.path.as_str(), field].join(".") };
        Some(Node { file: self.file, path, value })
    }

    /// The field.
    ///
    /// # Errors
    /// It is absent.
    pub(super) fn need(&self, field: &str) -> Result<Node<'a>> {
        self.get(field).with_context(|| {
            let dot = if self.path.is_empty() { "" } else { "." };
            format!("{}.json: {}{dot}{field}: missing", self.file, self.path)
        })
    }

    /// A field that is a number, not negative.
    ///
    /// # Errors
    /// It is absent or something else.
    pub(super) fn number(&self, field: &str) -> Result<f64> {
        self.need(field)?.as_number()
    }

    /// A field that is a number above zero.
    ///
    /// # Errors
    /// It is absent or something else.
    pub(super) fn positive(&self, field: &str) -> Result<f64> {
        let node = self.need(field)?;
        let number = node.as_number()?;
        if number > 0.0 { Ok(number) } else { Err(node.wrong("above zero")) }
    }

    /// A number that may be absent.
    ///
    /// # Errors
    /// It is there and no number, or negative.
    pub(super) fn number_if_any(&self, field: &str) -> Result<Option<f64>> {
        self.get(field).map(|node| node.as_number()).transpose()
    }

    /// The first number that is there under one of several names.
    ///
    /// # Errors
    /// It is there and no number, or negative.
    pub(super) fn number_of_any(&self, fields: &[&str]) -> Result<Option<f64>> {
        fields.iter().find_map(|field| self.number_if_any(field).transpose()).transpose()
    }

    /// A field that is text.
    ///
    /// # Errors
    /// It is absent or something else.
    pub(super) fn text(&self, field: &str) -> Result<String> {
        self.need(field)?.as_text()
    }

    /// A text that may be absent.
    ///
    /// # Errors
    /// It is there and no text.
    pub(super) fn text_if_any(&self, field: &str) -> Result<Option<String>> {
        self.get(field).map(|node| node.as_text()).transpose()
    }

    /// A spread, `[low, high]`, that may be absent.
    ///
    /// # Errors
    /// It is there and not two numbers in order.
    pub(super) fn spread(&self, field: &str) -> Result<Option<(f64, f64)>> {
        let Some(node) = self.get(field) else { return Ok(None) };
        let numbers = node.value.as_array().map(|list| list.iter().map(measured).collect::<Vec<_>>());
        match numbers.as_deref() {
            Some([Some(low), Some(high)]) if low <= high => Ok(Some((*low, *high))),
            _ => Err(node.wrong("[low, high]")),
        }
    }

    /// A field that is a list.
    ///
    /// # Errors
    /// It is absent or something else.
    pub(super) fn list(&self, field: &str) -> Result<Vec<Node<'a>>> {
        let node = self.need(field)?;
        let Some(list) = node.value.as_array() else { return Err(node.wrong("a list")) };
        let item = |(index, value)| Node { file: self.file, path: format!("{}[{index}]", node.path), value };
        Ok(list.iter().enumerate().map(item).collect())
    }

    /// An error about this value.
    pub(super) fn wrong(&self, wanted: &str) -> anyhow::Error {
        let found = self.value.to_string();
        let found: String = found.chars().take(40).collect();
        anyhow::anyhow!("{}.json: {}: {found} found, {wanted} wanted", self.file, self.path)
    }

    pub(super) fn as_number(&self) -> Result<f64> {
        measured(self.value).ok_or_else(|| self.wrong("zero or a number from 1e-12 to 1e18"))
    }

    fn as_text(&self) -> Result<String> {
        self.value.as_str().map(str::to_owned).ok_or_else(|| self.wrong("text"))
    }
}

/// A number such as is measured: what lies outside comes from a mistake, and its ratios would overflow.
fn measured(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| *number == 0.0 || (1e-12..=1e18).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_and_field() {
        let source = Source::parse(
            "disk",
            r#"{"points": [{"a": 1, "e": 1e300}, {"a": "x", "s": [2, 1], "z": 0}], "n": null}"#,
        )
        .expect("valid");
        let root = source.root();
        let points = root.list("points").expect("a list");
        let errors = [
            (points[1].number("a").map(|_| ()), "disk.json: points[1].a: \"x\" found, zero or a number"),
            (points[0].number("e").map(|_| ()), "disk.json: points[0].e: 1e+300 found"),
            (points[0].number("b").map(|_| ()), "disk.json: points[0].b: missing"),
            (points[1].spread("s").map(|_| ()), "disk.json: points[1].s: [2,1] found, [low, high] wanted"),
            (points[1].positive("z").map(|_| ()), "disk.json: points[1].z: 0 found, above zero wanted"),
            (root.text("n").map(|_| ()), "disk.json: n: missing"),
            (source.provenance().map(|_| ()), "disk.json: machine: missing"),
            (Source::parse("a", "[1]").map(|_| ()), "a.json: not an object"),
            (Source::parse("a", "{").map(|_| ()), "a.json: not valid JSON"),
        ];
        for (outcome, message) in errors {
            let error = outcome.expect_err(message).to_string();
            assert!(error.starts_with(message), "{error}");
        }
        assert_eq!(root.number_if_any("n").expect("absent"), None);
    }

    #[test]
    fn the_machine_may_say_little() {
        let text = r#"{"command": "a | b", "machine": {"cpu": "Zen", "threads": 2}}"#;
        let source = Source::parse("disk", text).expect("valid");
        assert_eq!(
            source.provenance().expect("complete"),
            "[disk.json](benchmarks/disk.json): `a | b` on Zen, 2 threads."
        );
    }
}
