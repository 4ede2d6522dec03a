//! Methods of everything but text.

use super::arguments::{Given, integer};
use super::compare::{equal_inside, view_item};
use super::execute::Renderer;
use super::limits::{Fault, Outcome};
use super::loops::{LoopState, Pull};
use super::value::{Dict, Items, Value, View};

impl Renderer<'_> {
    /// Calls a method that the object's type has.
    pub(super) fn method(&mut self, object: &Value, name: &'static str, given: Given) -> Outcome<Value> {
        match object {
            Value::Text(text) => self.text_method(text, name, given),
            Value::Bytes(bytes) => {
                if name == "hex" {
                    let [] = given.places(name, 0)?;
                    self.heap.room(bytes.bytes.len().saturating_mul(2))?;
                    return self
                        .heap
                        .text(bytes.bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
                }
                let [encoding, _] = given.bind(name, ["encoding", "errors"], 0)?;
                let encoding = super::methods_text::Encoding::of(encoding.as_ref())?;
                self.heap.text(encoding.decode(&bytes.bytes)?)
            }
            Value::List(items) | Value::Tuple(items) => self.items_method(items, name, given),
            Value::Dict(dict) => self.dict_method(dict, name, given),
            Value::Range(range) => {
                self.heap.step(range.len())?;
                let items = self.heap.collected((0..range.len()).filter_map(|at| range.get(at)))?;
                match items.tuple()? {
                    Value::Tuple(items) => self.items_method(&items, name, given),
                    _ => Fault::err("a range has no such method"),
                }
            }
            Value::Int(_) | Value::Bool(_) => self.int_method(object.as_index().unwrap_or(0), name, given),
            Value::Float(value) => self.float_method(*value, name, given),
            Value::Loop(state) => {
                let state = state.clone();
                self.loop_method(&state, name, given)
            }
            Value::Cycler(cycler) => {
                let [] = given.places(name, 0)?;
                if name == "reset" {
                    cycler.at.set(0);
                    return Ok(Value::None);
                }
                let at = cycler.at.get();
                cycler.at.set((at + 1) % cycler.items.len().max(1));
                Ok(cycler.items.get(at).cloned().unwrap_or(Value::None))
            }
            Value::View(kind, dict) => {
                let [other] = given.places(name, 1)?;
                let other = other.unwrap_or(Value::None);
                for entry in dict.entries() {
                    let item = view_item(*kind, entry, &self.heap)?;
                    if self.is_in(&item, &other)? {
                        return Ok(Value::Bool(false));
                    }
                }
                Ok(Value::Bool(true))
            }
            other => Fault::err(format!("'{}' object has no method '{name}'", other.type_name())),
        }
    }

    fn items_method(&mut self, items: &Items, name: &str, given: Given) -> Outcome<Value> {
        match name {
            "copy" => {
                let [] = given.places(name, 0)?;
                self.heap.list(items.iter().cloned())
            }
            "count" => {
                let [wanted] = given.places(name, 1)?;
                let wanted = wanted.unwrap_or(Value::None);
                let mut count = 0;
                for item in items.iter() {
                    count += i128::from(equal_inside(item, &wanted, &self.heap)?);
                }
                Ok(Value::Int(count))
            }
            _ => {
                let [wanted, start, stop] = given.places(name, 1)?;
                let wanted = wanted.unwrap_or(Value::None);
                let length = items.len() as i128;
                let place = |at: i128| if at < 0 { (at + length).max(0) } else { at };
                let start = place(integer(&start, 0)?);
                let stop = place(integer(&stop, length)?);
                for (at, item) in items.iter().enumerate() {
                    let is_within = (start..stop).contains(&(at as i128));
                    if is_within && equal_inside(item, &wanted, &self.heap)? {
                        return Ok(Value::Int(at as i128));
                    }
                }
                Fault::err("the value is not in the list")
            }
        }
    }

    fn dict_method(&mut self, dict: &std::rc::Rc<Dict>, name: &str, given: Given) -> Outcome<Value> {
        match name {
            "get" => {
                let [key, default] = given.places(name, 1)?;
                let found = dict.get(&key.unwrap_or(Value::None))?.cloned();
                Ok(found.or(default).unwrap_or(Value::None))
            }
            "fromkeys" => {
                let [keys, value] = given.places(name, 1)?;
                let mut pull = Pull::new(&keys.unwrap_or(Value::None))?;
                let value = value.unwrap_or(Value::None);
                let mut dict = Dict::new(&self.heap)?;
                while let Some(key) = pull.next(&self.heap)? {
                    dict.insert(key, value.clone())?;
                }
                Ok(Value::Dict(dict.into()))
            }
            _ => {
                let [] = given.places(name, 0)?;
                let kind = match name {
                    "keys" => View::Keys,
                    "values" => View::Values,
                    "items" => View::Items,
                    _ => {
                        let mut copy = Dict::new(&self.heap)?;
                        for (key, value) in dict.entries() {
                            copy.insert(key.clone(), value.clone())?;
                        }
                        return Ok(Value::Dict(copy.into()));
                    }
                };
                Ok(Value::View(kind, dict.clone()))
            }
        }
    }

    fn int_method(&mut self, value: i128, name: &str, given: Given) -> Outcome<Value> {
        let size = value.unsigned_abs();
        match name {
            "bit_length" => {
                let [] = given.places(name, 0)?;
                Ok(Value::Int(i128::from(128 - size.leading_zeros())))
            }
            "bit_count" => {
                let [] = given.places(name, 0)?;
                Ok(Value::Int(i128::from(size.count_ones())))
            }
            "conjugate" => {
                let [] = given.places(name, 0)?;
                Ok(Value::Int(value))
            }
            "as_integer_ratio" => {
                let [] = given.places(name, 0)?;
                self.heap.tuple([Value::Int(value), Value::Int(1)])
            }
            _ => Fault::err(format!("bytes are not known here: {name}")),
        }
    }

    fn float_method(&mut self, value: f64, name: &str, given: Given) -> Outcome<Value> {
        let [] = given.places(name, 0)?;
        match name {
            "is_integer" => Ok(Value::Bool(value.is_finite() && value.fract() == 0.0)),
            "conjugate" => Ok(Value::Float(value)),
            "as_integer_ratio" if value.is_finite() => {
                let (mut above, mut below) = (value, 1i128);
                while above.fract() != 0.0 && below < 1 << 120 {
                    above *= 2.0;
                    below *= 2;
                }
                if above.fract() != 0.0 || above.abs() > 1e38 {
                    return Fault::err("an integer of more than 128 bits");
                }
                self.heap.tuple([Value::Int(above as i128), Value::Int(below)])
            }
            _ => Fault::err(format!("float.{name} is not known here")),
        }
    }

    fn loop_method(&mut self, state: &std::rc::Rc<LoopState>, name: &str, given: Given) -> Outcome<Value> {
        if !given.named.is_empty() {
            return Fault::err(format!("{name}() got an unexpected keyword argument"));
        }
        if name == "cycle" {
            if given.positional.is_empty() {
                return Fault::err("no items for cycling given");
            }
            let at = state.begun.get().saturating_sub(1) % given.positional.len();
            return Ok(given.positional.into_iter().nth(at).unwrap_or(Value::None));
        }
        let now = self.heap.tuple(given.positional)?;
        let last = state.changed.replace(Some(now.clone()));
        // What is kept may hold the loop itself.
        if !state.is_registered.replace(true) {
            self.loops.push(state.clone());
        }
        let is_same = match last {
            Some(last) => super::compare::equal(&last, &now, &self.heap)?,
            None => false,
        };
        Ok(Value::Bool(!is_same))
    }
}
