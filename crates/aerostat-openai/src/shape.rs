//! What an answer must look like, by whichever of its names a request says it.

use serde_json::{Value, json};

use crate::fields::{Fields, brief};
use crate::refusal::Refusal;

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// JSON that this schema describes.
    Schema(Value),
    /// A JSON object.
    JsonObject,
    /// A match of a regular expression, from beginning to end.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text that a Lark grammar derives.
    Lark(String),
    /// Calls of functions, or text in which there may be some: a Lark grammar that is made of them.
    Calls(String),
}

/// The shape that a body asks for.
pub(crate) fn shape(body: &mut Fields<'_>) -> Result<Option<Shape>, Refusal> {
    let mut shapes = Vec::new();
    shapes.extend(response_format(body)?);
    if body.peek("structured_outputs").is_some_and(|value| !value.is_object()) {
        return Err(Refusal::value("structured_outputs", "`structured_outputs` must be a JSON object"));
    }
    if let Some(mut fields) = body.object("structured_outputs")? {
        shapes.extend(guided(&mut fields, "")?);
        fields.only("structural_tag", &[])?;
        // It forbids what a schema allows.
        fields.only("disable_additional_properties", &[json!(false)])?;
        fields.boolean("disable_fallback")?;
        fields.boolean("disable_any_whitespace")?;
        white_space(&mut fields, "whitespace_pattern")?;
        fields.finish()?;
    }
    shapes.extend(guided(body, "guided_")?);
    body.text("guided_decoding_backend")?;
    white_space(body, "guided_whitespace_pattern")?;
    if shapes.len() > 1 {
        return Err(Refusal::value("response_format", "more than one grammar for one answer"));
    }
    Ok(shapes.pop())
}

/// Takes a pattern of the white space between the tokens of JSON. It is written without any, which nearly all allow.
fn white_space(fields: &mut Fields<'_>, name: &str) -> Result<(), Refusal> {
    let path = fields.path(name);
    match fields.text(name)? {
        Some(pattern) if !pattern.is_empty() && !pattern.ends_with(['*', '?']) => {
            let message =
                format!("`{path}`: JSON is written without white space, so its pattern must end in * or ?");
            Err(Refusal::value(&path, message))
        }
        _ => Ok(()),
    }
}

fn response_format(body: &mut Fields<'_>) -> Result<Option<Shape>, Refusal> {
    let Some(format) = body.peek("response_format") else { return Ok(None) };
    let kind = match format.get("type").and_then(Value::as_str) {
        Some(kind @ ("text" | "json_object" | "json_schema")) => kind.to_owned(),
        _ => {
            let message = format!(
                "`response_format` is {}; its type must be text, json_object or json_schema",
                brief(format)
            );
            return Err(Refusal::value("response_format", message));
        }
    };
    let Some(mut format) = body.object("response_format")? else { return Ok(None) };
    format.ignore(&["type"]);
    let shape = match kind.as_str() {
        "json_schema" => Some(Shape::Schema(json_schema(&mut format)?)),
        // With a schema beside it, as some servers have it, it means the schema.
        "json_object" => Some(match format.take("schema") {
            None => Shape::JsonObject,
            Some(schema) => Shape::Schema(is_schema(schema, &format.path("schema"))?),
        }),
        _ => None,
    };
    format.finish()?;
    Ok(shape)
}

/// The schema inside `json_schema`, whose other members name it and have no effect: it is followed exactly in any case.
fn json_schema(format: &mut Fields<'_>) -> Result<Value, Refusal> {
    let missing = || {
        let message = "`response_format`: `json_schema` needs a `schema` inside";
        Refusal::value("response_format", message)
    };
    let mut inner = format.object("json_schema")?.ok_or_else(missing)?;
    let schema = inner.take("schema").ok_or_else(missing)?;
    let schema = is_schema(schema, &inner.path("schema"))?;
    inner.text("name")?;
    inner.text("description")?;
    inner.boolean("strict")?;
    inner.finish()?;
    Ok(schema)
}

fn is_schema(value: Value, path: &str) -> Result<Value, Refusal> {
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(value),
        other => {
            let message =
                format!("`{path}` is {}; it must be a JSON schema, which is an object", brief(&other));
            Err(Refusal::value(path, message))
        }
    }
}

/// The members `json`, `json_object`, `regex`, `choice` and `grammar`, with a prefix before each.
fn guided(fields: &mut Fields<'_>, prefix: &str) -> Result<Vec<Shape>, Refusal> {
    let mut shapes = Vec::new();
    let name = format!("{prefix}json");
    match fields.take(&name) {
        None => {}
        // A schema may come as text, too.
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(schema) => shapes.push(Shape::Schema(schema)),
            Err(e) => {
                let path = fields.path(&name);
                return Err(Refusal::value(&path, format!("`{path}` is not JSON: {e}")));
            }
        },
        Some(schema) => shapes.push(Shape::Schema(schema)),
    }
    if fields.boolean(&format!("{prefix}json_object"))? == Some(true) {
        shapes.push(Shape::JsonObject);
    }
    shapes.extend(fields.text(&format!("{prefix}regex"))?.map(Shape::Regex));
    shapes.extend(fields.text(&format!("{prefix}grammar"))?.map(Shape::Lark));
    let name = format!("{prefix}choice");
    if let Some(choices) = fields.texts(&name)? {
        if choices.is_empty() || choices.iter().any(String::is_empty) {
            let path = fields.path(&name);
            return Err(Refusal::value(&path, format!("`{path}` must hold texts that are not empty")));
        }
        shapes.push(Shape::Choice(choices));
    }
    Ok(shapes)
}
