//! Calls: of methods, functions, macros, and loops that call themselves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::arguments::{Given, as_count, as_integer};
use super::ast::{Arguments, Expression, ExpressionKind as Kind};
use super::attributes::Found;
use super::date::strftime;
use super::execute::{Renderer, check_attribute};
use super::limits::{Fault, Outcome};
use super::loops::{LoopState, Pull};
use super::print::to_text;
use super::scope::Scope;
use super::undefined::Undefined;
use super::value::undefined_fault;
use super::value::{Cycler, Dict, Function, Joiner, Namespace, Range, Value};

/// What the sandbox lets a range have.
const RANGE_MAX: usize = 100_000;

impl<'t> Renderer<'t> {
    pub(super) fn call_expression(
        &mut self,
        callee: &'t Expression,
        arguments: &'t Arguments,
        scope: &Rc<Scope>,
    ) -> Outcome<Value> {
        // A method that is called at once needs no value of its own.
        if let Kind::Attribute(object, name) = &callee.kind {
            let object = match object.kind {
                Kind::Name(name) => scope.get(name)?.unwrap_or_else(|| self.undefined(name)),
                _ => self.evaluate(object, scope)?,
            };
            if let Found::Method(method) = self.find_attribute(&object, self.name(*name))? {
                let given = self.given(arguments, scope)?;
                return self.method(&object, method, given);
            }
            let callee = self.attribute(&object, *name)?;
            let given = self.given(arguments, scope)?;
            return self.call(&callee, given);
        }
        let callee = match callee.kind {
            Kind::Name(name) => scope.get(name)?.unwrap_or_else(|| self.undefined(name)),
            _ => self.evaluate(callee, scope)?,
        };
        let given = self.given(arguments, scope)?;
        self.call(&callee, given)
    }

    pub(super) fn call(&mut self, callee: &Value, given: Given) -> Outcome<Value> {
        match callee {
            Value::Undefined(_) => Err(undefined_fault(callee, callee)),
            Value::Macro(value) => {
                let (at, scope) = (value.at, value.scope.clone());
                self.deeper(|renderer| renderer.call_macro(at, &scope, given))
            }
            Value::Method(method) => {
                let method = method.clone();
                self.method(&method.object, method.name, given)
            }
            Value::Function(function) => self.call_function(*function, given),
            Value::Loop(state) => {
                let state = state.clone();
                self.deeper(|renderer| renderer.call_loop(&state, given))
            }
            Value::Block(at) => {
                let [] = given.places("block", 0)?;
                let at = *at;
                self.deeper(|renderer| renderer.call_block(at))
            }
            Value::Joiner(joiner) => {
                let [] = given.places("joiner", 0)?;
                if joiner.used.replace(true) { Ok(joiner.separator.clone()) } else { self.heap.text("") }
            }
            other => Fault::err(format!("'{}' object is not callable", other.type_name())),
        }
    }

    /// `loop(items)` inside a recursive loop.
    fn call_loop(&mut self, state: &LoopState, given: Given) -> Outcome<Value> {
        let [items] = given.bind("loop", ["iterable"], 1)?;
        let Some((at, scope)) = &state.recursive else {
            return Fault::err("The loop must have the 'recursive' marker to be called recursively.");
        };
        let Some(parts) = self.recursive.get(*at).copied() else { return Fault::err("the loop is gone") };
        let items = items.unwrap_or(Value::None);
        let depth0 = state.depth0 + 1;
        let run = |renderer: &mut Self| renderer.run_loop(parts, &items, scope, Some(*at), depth0);
        self.captured(run).map(|(_, text)| text)
    }

    fn call_macro(&mut self, at: usize, outer: &Rc<Scope>, given: Given) -> Outcome<Value> {
        let Some(definition) = self.template.lists.macros.get(at) else {
            return Fault::err("the macro is gone");
        };
        let name = if definition.is_call_block { "caller" } else { self.name(definition.name) };
        let Given { mut positional, mut named, .. } = given;
        let scope = self.inner(outer)?;
        let more = positional.split_off(positional.len().min(definition.parameters.len()));
        let mut provided = vec![false; definition.parameters.len()];
        for (index, value) in positional.into_iter().enumerate() {
            if let (Some(parameter), Some(provided)) =
                (definition.parameters.get(index), provided.get_mut(index))
            {
                scope.set(*parameter, value)?;
                *provided = true;
            }
        }
        for (parameter, provided) in definition.parameters.iter().zip(&mut provided) {
            self.heap.step(named.len() + 1)?;
            let at = named.iter().position(|(name, _)| **name == *self.name(*parameter));
            if let (Some(at), false) = (at, *provided) {
                scope.set(*parameter, named.remove(at).1)?;
                *provided = true;
            }
        }
        self.special_parameters(at, &scope, name, named, more)?;
        let first_default = definition.parameters.len() - definition.defaults.len();
        for (index, parameter) in definition.parameters.iter().enumerate() {
            if provided.get(index) == Some(&true) {
                continue;
            }
            let value = match index.checked_sub(first_default).and_then(|at| definition.defaults.get(at)) {
                Some(default) => self.evaluate(default, &scope)?,
                None => self.undefined(*parameter),
            };
            scope.set(*parameter, value)?;
        }
        self.captured(|renderer| renderer.execute(&definition.body, &scope)).map(|(_, text)| text)
    }

    /// `caller`, `varargs` and `kwargs`, for macros that use them.
    fn special_parameters(
        &mut self,
        at: usize,
        scope: &Rc<Scope>,
        name: &str,
        mut named: Vec<(Box<str>, Value)>,
        more: Vec<Value>,
    ) -> Outcome<()> {
        let Some(definition) = self.template.lists.macros.get(at) else { return Ok(()) };
        let [caller_id, varargs_id, kwargs_id] = self.template.special;
        if definition.takes_caller
            && let Some(id) = caller_id.filter(|id| !definition.parameters.contains(id))
        {
            let found = named.iter().position(|(name, _)| &**name == "caller");
            let caller = found.map(|at| named.remove(at).1);
            let none = Value::Undefined(Undefined::Hint("No caller defined"));
            scope.set(id, caller.unwrap_or(none))?;
        }
        if definition.takes_kwargs {
            let mut dict = Dict::new(&self.heap)?;
            for (name, value) in named {
                dict.insert(self.heap.text(name)?, value)?;
            }
            if let Some(id) = kwargs_id {
                scope.set(id, Value::Dict(dict.into()))?;
            }
        } else if let Some((unknown, _)) = named.first() {
            return Fault::err(format!("macro '{name}' takes no keyword argument '{unknown}'"));
        }
        if definition.takes_varargs {
            if let Some(id) = varargs_id {
                scope.set(id, self.heap.tuple(more)?)?;
            }
        } else if !more.is_empty() {
            let most = definition.parameters.len();
            return Fault::err(format!("macro '{name}' takes not more than {most} argument(s)"));
        }
        Ok(())
    }

    fn call_function(&mut self, function: Function, given: Given) -> Outcome<Value> {
        match function {
            Function::Range => range(given),
            Function::Dict => Ok(Value::Dict(self.dict(given)?.into())),
            Function::Lipsum => Fault::err("lipsum is random text: a prompt must be the same every time"),
            Function::Cycler => {
                if given.positional.is_empty() || !given.named.is_empty() {
                    return Fault::err("at least one item has to be provided");
                }
                let Value::Tuple(items) = self.heap.tuple(given.positional)? else {
                    return Fault::err("cycler takes items");
                };
                let _ = super::value::deeper(super::value::depth(&Value::Tuple(items.clone())))?;
                Ok(Value::Cycler(Rc::new(Cycler { items, at: Cell::new(0) })))
            }
            Function::Joiner => {
                let [separator] = given.bind("joiner", ["sep"], 0)?;
                let separator = separator.map_or_else(|| self.heap.text(", "), Ok)?;
                super::value::deeper(super::value::depth(&separator))?;
                let charge = self.heap.charge(128)?;
                Ok(Value::Joiner(Rc::new(Joiner { separator, used: Cell::new(false), _charge: charge })))
            }
            Function::Namespace => {
                let attributes = self.dict(given)?;
                for (name, _) in attributes.entries() {
                    if let Value::Text(name) = name {
                        check_attribute(name)?;
                    }
                }
                let namespace = Rc::new(Namespace { attributes: RefCell::new(attributes) });
                self.namespaces.push(namespace.clone());
                Ok(Value::Namespace(namespace))
            }
            Function::RaiseException => {
                let [message] = given.bind("raise_exception", ["message"], 1)?;
                let message = message.unwrap_or(Value::None);
                Fault::err(&*to_text(&message, self.names(), &self.heap)?)
            }
            Function::StrftimeNow => {
                let [format] = given.bind("strftime_now", ["format"], 1)?;
                match format {
                    Some(Value::Text(format)) => {
                        // No directive gives more than thirty characters for its two.
                        self.heap.room(format.len().saturating_mul(16))?;
                        self.heap.read(format.len().saturating_mul(16))?;
                        self.heap.text(strftime(&format, self.now))
                    }
                    other => {
                        let name = other.map_or("NoneType", |other| other.type_name());
                        Fault::err(format!("strftime() argument 1 must be str, not {name}"))
                    }
                }
            }
        }
    }

    /// `dict(mapping_or_pairs, **named)`.
    fn dict(&mut self, given: Given) -> Outcome<Dict> {
        let mut dict = Dict::new(&self.heap)?;
        if given.positional.len() > 1 {
            return Fault::err("dict expected at most 1 argument");
        }
        match given.positional.first() {
            Some(Value::Dict(other)) => {
                for (key, value) in other.entries() {
                    dict.insert(key.clone(), value.clone())?;
                }
            }
            Some(value) if value.is_undefined() => return Err(undefined_fault(value, value)),
            Some(pairs) => {
                let mut pull = Pull::new(pairs)?;
                while let Some(pair) = pull.next(&self.heap)? {
                    let mut both = super::loops::collect(&pair, &self.heap)?;
                    match <[Value; 2]>::try_from(std::mem::take(both.values())) {
                        Ok([key, value]) => dict.insert(key, value)?,
                        Err(_) => return Fault::err("dictionary update sequence element is not of length 2"),
                    }
                }
            }
            None => {}
        }
        for (name, value) in given.named {
            dict.insert(self.heap.text(name)?, value)?;
        }
        Ok(dict)
    }
}

fn range(given: Given) -> Outcome<Value> {
    let count = given.positional.len();
    let [first, second, step]: [Option<Value>; 3] = given.places("range", 1)?;
    let number = |value: &Option<Value>, default: i128| value.as_ref().map_or(Ok(default), as_integer);
    let (start, stop) = match count {
        1 => (0, number(&first, 0)?),
        _ => (number(&first, 0)?, number(&second, 0)?),
    };
    let step = number(&step, 1)?;
    if step == 0 {
        return Fault::err("range() arg 3 must not be zero");
    }
    let narrow = |value: i128| i64::try_from(value).map_err(|_| Fault::new("Range too big."));
    let range = Range { start: narrow(start)?, stop: narrow(stop)?, step: narrow(step)? };
    if range.len() > as_count(RANGE_MAX as i128) {
        return Fault::err(format!(
            "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({RANGE_MAX})."
        ));
    }
    Ok(Value::Range(range))
}
