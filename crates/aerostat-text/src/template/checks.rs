//! Tests: `value is name`.

use super::arguments::Given;
use super::ast::{Comparison, Operator};
use super::compare::{Number, same};
use super::execute::Renderer;
use super::limits::{Fault, Outcome};
use super::methods_text::classified;
use super::names::{FILTERS, TESTS};
use super::operators::binary;
use super::print::to_text;
use super::value::{Value, check_key};

impl Renderer<'_> {
    /// Whether `value is name(…)`.
    pub(super) fn test(&mut self, name: &str, value: &Value, given: Given) -> Outcome<bool> {
        self.heap.step(1)?;
        let comparison = match name {
            "==" | "eq" | "equalto" => Some(Comparison::Equal),
            "!=" | "ne" => Some(Comparison::NotEqual),
            ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
            ">=" | "ge" => Some(Comparison::GreaterOrEqual),
            "<" | "lt" | "lessthan" => Some(Comparison::Less),
            "<=" | "le" => Some(Comparison::LessOrEqual),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let [other] = given.places(name, 1)?;
            return self.compare(comparison, value, &other.unwrap_or(Value::None));
        }
        match name {
            "divisibleby" => {
                let [number] = given.bind(name, ["num"], 1)?;
                self.rest_is(value, &number.unwrap_or(Value::None), 0)
            }
            "sameas" => {
                let [other] = given.bind(name, ["other"], 1)?;
                Ok(same(value, &other.unwrap_or(Value::None)))
            }
            "in" => {
                let [other] = given.bind(name, ["seq"], 1)?;
                self.is_in(value, &other.unwrap_or(Value::None))
            }
            _ => {
                if !TESTS.contains(&name) {
                    return Fault::err(format!("No test named '{name}' found."));
                }
                let [] = given.bind(name, [], 0)?;
                self.plain_test(name, value)
            }
        }
    }

    fn plain_test(&mut self, name: &str, value: &Value) -> Outcome<bool> {
        Ok(match name {
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => Number::of(value).is_some(),
            "string" => matches!(value, Value::Text(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "escaped" => matches!(value, Value::Text(text) if text.safe),
            "iterable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Text(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Range(_)
                    | Value::View(..)
                    | Value::Iterator(_)
                    | Value::Bytes(_)
                    | Value::Loop(_)
            ),
            "sequence" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Text(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Bytes(_)
                    | Value::Range(_)
            ),
            "callable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Macro(_)
                    | Value::Method(_)
                    | Value::Function(_)
                    | Value::Loop(_)
                    | Value::Joiner(_)
                    | Value::Block(_)
            ),
            "odd" => self.rest_is(value, &Value::Int(2), 1)?,
            "even" => self.rest_is(value, &Value::Int(2), 0)?,
            "lower" | "upper" => {
                let text = to_text(value, self.names(), &self.heap)?;
                self.heap.look_up(&text)?;
                classified(&text, if name == "lower" { "islower" } else { "isupper" })
            }
            _ => {
                check_key(value, &self.heap)?;
                let list = if name == "filter" { FILTERS } else { TESTS };
                matches!(value, Value::Text(text) if list.contains(&&**text))
            }
        })
    }

    /// Whether `value % number` is this.
    fn rest_is(&mut self, value: &Value, number: &Value, rest: i128) -> Outcome<bool> {
        let found = binary(Operator::Modulo, value, number, self.names(), &self.heap)?;
        super::compare::equal(&found, &Value::Int(rest), &self.heap)
    }
}
