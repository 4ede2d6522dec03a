//! The arguments of calls, filters and tests.

use super::limits::{Fault, Heap, Outcome};
use super::value::Value;

/// Arguments that are given.
#[derive(Debug, Default, Clone)]
pub(super) struct Given {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Box<str>, Value)>,
    /// What the names take.
    pub(super) names_bytes: usize,
}

impl Given {
    /// Adds a named argument, whose name is a copy that takes room as long as it is there.
    pub(super) fn name(&mut self, name: &str, value: Value, heap: &Heap) -> Outcome<()> {
        heap.read(name.len())?;
        self.names_bytes = self.names_bytes.saturating_add(name.len() + size_of::<(Box<str>, Value)>());
        heap.room(self.names_bytes.saturating_mul(2))?;
        self.named.push((name.into(), value));
        Ok(())
    }

    /// Puts arguments to parameters; the first `required` of them must be there.
    ///
    /// # Errors
    /// Python's: too many, too few, unknown or doubled.
    pub(super) fn bind<const N: usize>(
        self,
        function: &str,
        parameters: [&str; N],
        required: usize,
    ) -> Outcome<[Option<Value>; N]> {
        let count = self.positional.len();
        if count > N {
            return Fault::err(format!("{function}() takes at most {N} arguments ({count} given)"));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let at = parameters.iter().position(|parameter| *parameter == &*name);
            let place = at.and_then(|at| bound.get_mut(at));
            let Some(place) = place else {
                return Fault::err(format!("{function}() got an unexpected keyword argument '{name}'"));
            };
            if place.replace(value).is_some() {
                return Fault::err(format!("{function}() got multiple values for argument '{name}'"));
            }
        }
        let missing = bound.iter().zip(parameters).take(required).find(|(value, _)| value.is_none());
        if let Some((_, parameter)) = missing {
            return Fault::err(format!("{function}() missing required argument: '{parameter}'"));
        }
        Ok(bound)
    }

    /// Parameters that Python takes by place only.
    pub(super) fn places<const N: usize>(
        self,
        function: &str,
        required: usize,
    ) -> Outcome<[Option<Value>; N]> {
        if !self.named.is_empty() {
            return Fault::err(format!("{function}() takes no keyword arguments"));
        }
        if self.positional.len() < required {
            return Fault::err(format!("{function}() takes at least {required} arguments"));
        }
        self.bind(function, [""; N], 0)
    }
}

/// An argument that is true or false, or absent.
pub(super) fn flag(value: &Option<Value>, default: bool) -> bool {
    value.as_ref().map_or(default, Value::is_true)
}

/// An argument that is an integer, or absent.
pub(super) fn integer(value: &Option<Value>, default: i128) -> Outcome<i128> {
    match value {
        None => Ok(default),
        Some(value) => as_integer(value),
    }
}

/// A value that must be an integer.
pub(super) fn as_integer(value: &Value) -> Outcome<i128> {
    value.as_index().ok_or_else(|| match value {
        Value::Undefined(_) => super::value::undefined_fault(value, value),
        _ => Fault::new(format!("'{}' object cannot be interpreted as an integer", value.type_name())),
    })
}

/// A number of characters or items, as far as it matters.
pub(super) fn as_count(value: i128) -> usize {
    usize::try_from(value.max(0)).unwrap_or(usize::MAX)
}
