//! A small judge of JSON schemas, itself judged by the public suite's cases.

use serde_json::{Map, Value};

/// Whether a value is what a schema describes. Knows the words that the suite's schemas here use.
pub(crate) fn valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let Value::Object(words) = schema else { return schema == &Value::Bool(true) };
    words.iter().all(|(word, rule)| holds(word, rule, words, value, root))
}

fn holds(word: &str, rule: &Value, words: &Map<String, Value>, value: &Value, root: &Value) -> bool {
    let count = || rule.as_f64().unwrap();
    let all =
        |rules: &Value, check: &mut dyn FnMut(&Value) -> bool| rules.as_array().unwrap().iter().all(check);
    match word {
        "$ref" => valid(value, resolve(rule.as_str().unwrap(), root), root),
        "type" => match rule {
            Value::Array(types) => types.iter().any(|t| is(value, t.as_str().unwrap())),
            one => is(value, one.as_str().unwrap()),
        },
        "enum" => rule.as_array().unwrap().iter().any(|one| equal(one, value)),
        "const" => equal(rule, value),
        "allOf" => all(rule, &mut |s| valid(value, s, root)),
        "anyOf" => rule.as_array().unwrap().iter().any(|s| valid(value, s, root)),
        "minimum" => value.as_f64().is_none_or(|n| n >= count()),
        "maximum" => value.as_f64().is_none_or(|n| n <= count()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|n| n > count()),
        "exclusiveMaximum" => value.as_f64().is_none_or(|n| n < count()),
        "multipleOf" => value.as_f64().is_none_or(|n| {
            let times = n / count();
            (times - times.round()).abs() < 1e-9
        }),
        "minLength" => value.as_str().is_none_or(|s| s.chars().count() as f64 >= count()),
        "maxLength" => value.as_str().is_none_or(|s| s.chars().count() as f64 <= count()),
        "minItems" => value.as_array().is_none_or(|list| list.len() as f64 >= count()),
        "maxItems" => value.as_array().is_none_or(|list| list.len() as f64 <= count()),
        "required" => {
            value.as_object().is_none_or(|map| all(rule, &mut |k| map.contains_key(k.as_str().unwrap())))
        }
        "properties" => value.as_object().is_none_or(|map| {
            rule.as_object().unwrap().iter().all(|(k, s)| map.get(k).is_none_or(|v| valid(v, s, root)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            let named = |k: &str| words.get("properties").is_some_and(|p| p.get(k).is_some());
            map.iter().filter(|(k, _)| !named(k)).all(|(_, v)| valid(v, rule, root))
        }),
        "prefixItems" => value
            .as_array()
            .is_none_or(|list| list.iter().zip(rule.as_array().unwrap()).all(|(v, s)| valid(v, s, root))),
        "items" => value.as_array().is_none_or(|list| {
            let before = words.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
            list.iter().skip(before).all(|v| valid(v, rule, root))
        }),
        // They say something to people, or are looked at elsewhere.
        "$defs" | "$comment" | "title" | "description" | "default" | "format" => true,
        _ => panic!("{word}"),
    }
}

fn resolve<'a>(reference: &str, root: &'a Value) -> &'a Value {
    let path = reference.strip_prefix('#').unwrap().replace("%25", "%").replace("%22", "\"");
    root.pointer(&path).unwrap_or_else(|| panic!("{reference}"))
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => panic!("{name}"),
    }
}

/// Equal as JSON Schema means it: 1.0 is 1.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}
