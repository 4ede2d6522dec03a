//! Attributes, items and slices, in the order and with the refusals of the sandbox.

use super::execute::Renderer;
use super::limits::{Fault, Outcome};
use super::loops::LoopState;
use super::names;
use super::undefined::Undefined;
use super::value::undefined_fault;
use super::value::{Items, Range, Value};

/// What an object has under a name.
pub(super) enum Found {
    Value(Value),
    Method(&'static str),
    /// The sandbox keeps it to itself.
    Unsafe,
    Missing,
}

impl Renderer<'_> {
    /// `object.name`: the attribute first, then the item.
    pub(super) fn attribute(&mut self, object: &Value, name: u32) -> Outcome<Value> {
        let text = self.name(name);
        match self.find_attribute(object, text)? {
            Found::Value(value) => Ok(value),
            Found::Method(method) => self.heap.method(object.clone(), method),
            Found::Unsafe => Ok(Value::Undefined(Undefined::Unsafe(object.type_name(), name))),
            Found::Missing => {
                if let Value::Dict(dict) = object {
                    self.heap.read(text.len().saturating_mul(dict.entries().len().min(8)))?;
                    let found = if dict.entries().len() <= 8 {
                        dict.named(text).cloned()
                    } else {
                        dict.get(&self.heap.text(text)?)?.cloned()
                    };
                    if let Some(value) = found {
                        return Ok(value);
                    }
                }
                Ok(Value::Undefined(Undefined::Attribute(object.type_name(), name)))
            }
        }
    }

    /// What an object's type has under a name, items aside.
    pub(super) fn find_attribute(&mut self, object: &Value, name: &str) -> Outcome<Found> {
        self.heap.read(name.len())?;
        let among = |list: &'static [&'static str]| {
            list.iter().find(|method| **method == name).map_or(Found::Missing, |method| Found::Method(method))
        };
        Ok(match object {
            // Python's own attributes are there, and are kept from the template.
            Value::Undefined(_) if names::UNDEFINED_OWN.contains(&name) => Found::Unsafe,
            Value::Undefined(_) => return Err(undefined_fault(object, object)),
            Value::Text(text) => match among(names::TEXT_METHODS) {
                Found::Missing if text.safe => among(names::MARKUP_METHODS),
                found => found,
            },
            Value::Bytes(_) => among(names::BYTES_METHODS),
            Value::Template => {
                self.heap.read(name.len().saturating_mul(self.template.lists.blocks.len()))?;
                let found =
                    self.template.lists.blocks.iter().position(|(block, _)| self.name(*block) == name);
                found.map_or(Found::Missing, |at| Found::Value(Value::Block(at)))
            }
            Value::List(_) if names::LIST_CHANGES.contains(&name) => Found::Unsafe,
            Value::List(_) => among(names::LIST_METHODS),
            Value::Dict(_) if names::DICT_CHANGES.contains(&name) => Found::Unsafe,
            Value::Dict(_) => among(names::DICT_METHODS),
            Value::Tuple(items) if items.is_group && matches!(name, "grouper" | "list") => {
                let at = usize::from(name == "list");
                items.get(at).cloned().map_or(Found::Missing, Found::Value)
            }
            Value::Tuple(_) => among(names::TUPLE_METHODS),
            Value::Int(_) | Value::Bool(_) => match name {
                "real" | "numerator" => Found::Value(Value::Int(object.as_index().unwrap_or(0))),
                "imag" => Found::Value(Value::Int(0)),
                "denominator" => Found::Value(Value::Int(1)),
                _ => among(names::INT_METHODS),
            },
            Value::Float(value) => match name {
                "real" => Found::Value(Value::Float(*value)),
                "imag" => Found::Value(Value::Float(0.0)),
                _ => among(names::FLOAT_METHODS),
            },
            Value::Range(range) => match name {
                "start" => Found::Value(Value::Int(range.start.into())),
                "stop" => Found::Value(Value::Int(range.stop.into())),
                "step" => Found::Value(Value::Int(range.step.into())),
                _ => among(names::TUPLE_METHODS),
            },
            Value::View(..) => among(names::VIEW_METHODS),
            Value::Namespace(namespace) => {
                let attributes = namespace.attributes.borrow();
                self.heap.step(attributes.entries().len())?;
                self.heap.read(name.len().saturating_mul(attributes.entries().len().min(8)))?;
                attributes.named(name).cloned().map_or(Found::Missing, Found::Value)
            }
            Value::Loop(state) => {
                let state = state.clone();
                match self.loop_attribute(&state, name)? {
                    Some(value) => Found::Value(value),
                    None => among(names::LOOP_METHODS),
                }
            }
            Value::Macro(value) => self.macro_attribute(value.at, name)?,
            Value::Cycler(_) | Value::Joiner(_) => helper_attribute(object, name),
            _ => Found::Missing,
        })
    }

    fn macro_attribute(&self, at: usize, name: &str) -> Outcome<Found> {
        let Some(definition) = self.template.lists.macros.get(at) else { return Ok(Found::Missing) };
        let names = || definition.parameters.iter().map(|id| self.heap.text(self.name(*id)));
        Ok(Found::Value(match name {
            "name" if definition.is_call_block => Value::None,
            "name" => self.heap.text(self.name(definition.name))?,
            "arguments" => self.heap.tuple(names().collect::<Outcome<Vec<_>>>()?)?,
            "catch_kwargs" => Value::Bool(definition.takes_kwargs),
            "catch_varargs" => Value::Bool(definition.takes_varargs),
            "caller" => Value::Bool(definition.takes_caller),
            _ => return Ok(Found::Missing),
        }))
    }

    fn loop_attribute(&mut self, state: &LoopState, name: &str) -> Outcome<Option<Value>> {
        let begun = state.begun.get() as i128;
        Ok(Some(match name {
            "index" => Value::Int(begun),
            "index0" => Value::Int(begun - 1),
            "first" => Value::Bool(begun == 1),
            "depth" => Value::Int(state.depth0 as i128 + 1),
            "depth0" => Value::Int(state.depth0 as i128),
            "length" => Value::Int(self.loop_length(state)?),
            "revindex" => Value::Int(self.loop_length(state)? - begun + 1),
            "revindex0" => Value::Int(self.loop_length(state)? - begun),
            "last" => Value::Bool(self.peek(state)?.is_none()),
            "nextitem" => {
                let none = Value::Undefined(Undefined::Hint("there is no next item"));
                self.peek(state)?.unwrap_or(none)
            }
            "previtem" => {
                let none = Value::Undefined(Undefined::Hint("there is no previous item"));
                state.previous.borrow().clone().unwrap_or(none)
            }
            _ => return Ok(None),
        }))
    }

    /// The item after the current one.
    fn peek(&mut self, state: &LoopState) -> Outcome<Option<Value>> {
        if let Some(item) = state.ahead.borrow().front() {
            return Ok(Some(item.clone()));
        }
        let item = self.pull_item(state)?;
        state.ahead.borrow_mut().extend(item.clone());
        Ok(item)
    }

    /// How many items a loop has: where that is not known they are all fetched.
    pub(super) fn loop_length(&mut self, state: &LoopState) -> Outcome<i128> {
        if let Some(length) = state.length.get() {
            return Ok(length as i128);
        }
        while let Some(item) = self.pull_item(state)? {
            self.heap.room((state.ahead.borrow().len() + 1) * 64)?;
            state.ahead.borrow_mut().push_back(item);
        }
        let length = state.ahead.borrow().len() + state.begun.get();
        state.length.set(Some(length));
        Ok(length as i128)
    }

    /// `object[key]`: the item first, then, for a text, the attribute.
    pub(super) fn item(&mut self, object: &Value, key: &Value) -> Outcome<Value> {
        if let Some(value) = self.plain_item(object, key)? {
            return Ok(value);
        }
        let missing = Value::Undefined(Undefined::Element(object.type_name()));
        let Value::Text(name) = key else { return Ok(missing) };
        Ok(match self.find_attribute(object, name)? {
            Found::Value(value) => value,
            Found::Method(method) => self.heap.method(object.clone(), method)?,
            Found::Unsafe | Found::Missing => missing,
        })
    }

    fn plain_item(&self, object: &Value, key: &Value) -> Outcome<Option<Value>> {
        let place = |count: usize| {
            let at = key.as_index()?;
            let at = if at < 0 { at + count as i128 } else { at };
            usize::try_from(at).ok().filter(|at| *at < count)
        };
        Ok(match object {
            Value::Undefined(_) => return Err(undefined_fault(object, object)),
            Value::Dict(dict) => match dict.get(key) {
                Ok(found) => found.cloned(),
                Err(fault) if fault.limit => return Err(fault),
                Err(_) => None,
            },
            Value::List(items) | Value::Tuple(items) => {
                place(items.len()).and_then(|at| items.get(at).cloned())
            }
            Value::Bytes(bytes) => place(bytes.bytes.len())
                .and_then(|at| bytes.bytes.get(at))
                .map(|byte| Value::Int((*byte).into())),
            Value::Range(range) => place(range.len()).and_then(|at| range.get(at)),
            Value::Text(text) => match place(text.chars_count()) {
                None => None,
                Some(at) if text.is_ascii() => {
                    let char = text.get(at..=at).unwrap_or_default();
                    Some(Value::Text(self.heap.new_text(char.into(), text.safe)?))
                }
                Some(at) => {
                    self.heap.read(at)?;
                    let char: String = text.chars().nth(at).into_iter().collect();
                    Some(Value::Text(self.heap.new_text(char.into(), text.safe)?))
                }
            },
            _ => None,
        })
    }

    /// `object[start:stop:step]`.
    pub(super) fn slice(&self, object: &Value, bounds: &[Value; 3]) -> Outcome<Value> {
        let count = match object {
            Value::Undefined(_) => return Err(undefined_fault(object, object)),
            Value::Text(text) => text.chars_count(),
            Value::List(items) | Value::Tuple(items) => items.len(),
            Value::Range(range) => range.len(),
            Value::Bytes(bytes) => bytes.bytes.len(),
            Value::Dict(_) => return Fault::err("unhashable type: 'slice'"),
            other => return Fault::err(format!("'{}' object is not subscriptable", other.type_name())),
        };
        let places = Places::new(bounds, count)?;
        match object {
            Value::Text(text) => {
                self.heap.read(text.len())?;
                let cut: String = if places.step == 1 {
                    let byte = |at: usize| match text.is_ascii() {
                        true => at,
                        false => text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte),
                    };
                    let (from, to) =
                        (byte(places.start as usize), byte(places.start as usize + places.count));
                    text.get(from..to).unwrap_or_default().to_owned()
                } else {
                    self.heap.room(text.chars_count().saturating_mul(4))?;
                    let chars: Vec<char> = text.chars().collect();
                    places.iter().filter_map(|at| chars.get(at)).collect()
                };
                Ok(Value::Text(self.heap.new_text(cut.into(), text.safe)?))
            }
            Value::List(items) => self.picked(items, &places)?.list(),
            Value::Tuple(items) => self.picked(items, &places)?.tuple(),
            Value::Bytes(bytes) => {
                self.heap.step(places.count)?;
                self.heap.bytes(places.iter().filter_map(|at| bytes.bytes.get(at).copied()).collect())
            }
            Value::Range(range) => Ok(Value::Range(Range {
                start: range.start.saturating_add((places.start as i64).saturating_mul(range.step)),
                stop: range.start.saturating_add((places.stop as i64).saturating_mul(range.step)),
                step: range.step.saturating_mul(places.step as i64),
            })),
            _ => Fault::err("not subscriptable"),
        }
    }

    fn picked(&self, items: &Items, places: &Places) -> Outcome<super::value::ItemsBuilder> {
        self.heap.collected(places.iter().filter_map(|at| items.get(at).cloned()))
    }
}

/// The attributes of cyclers and joiners.
fn helper_attribute(object: &Value, name: &str) -> Found {
    match object {
        Value::Cycler(cycler) => match name {
            "current" => Found::Value(cycler.items.get(cycler.at.get()).cloned().unwrap_or(Value::None)),
            "items" => Found::Value(Value::Tuple(cycler.items.clone())),
            "pos" => Found::Value(Value::Int(cycler.at.get() as i128)),
            _ => names::CYCLER_METHODS
                .iter()
                .find(|method| **method == name)
                .map_or(Found::Missing, |method| Found::Method(method)),
        },
        Value::Joiner(joiner) => match name {
            "sep" => Found::Value(joiner.separator.clone()),
            "used" => Found::Value(Value::Bool(joiner.used.get())),
            _ => Found::Missing,
        },
        _ => Found::Missing,
    }
}

/// The places that a slice picks.
struct Places {
    start: i128,
    stop: i128,
    step: i128,
    count: usize,
}

impl Places {
    fn new(bounds: &[Value; 3], length: usize) -> Outcome<Self> {
        let bound = |value: &Value| match value {
            Value::None => Ok(None),
            value => value.as_index().map(Some).ok_or_else(|| {
                Fault::new("slice indices must be integers or None or have an __index__ method")
            }),
        };
        let step = bound(&bounds[2])?.unwrap_or(1);
        if step == 0 {
            return Fault::err("slice step cannot be zero");
        }
        let length = length as i128;
        let (least, most) = if step < 0 { (-1, length - 1) } else { (0, length) };
        let place = |at: i128| if at < 0 { at.saturating_add(length).max(least) } else { at.min(most) };
        let (first, last) = if step < 0 { (most, least) } else { (least, most) };
        let start = bound(&bounds[0])?.map_or(first, place);
        let stop = bound(&bounds[1])?.map_or(last, place);
        let gap = if step < 0 { start - stop } else { stop - start };
        let count = if gap <= 0 { 0 } else { (gap - 1) / step.saturating_abs() + 1 };
        Ok(Places { start, stop, step, count: usize::try_from(count).unwrap_or(0) })
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.count as i128).filter_map(|at| usize::try_from(self.start + at * self.step).ok())
    }
}
