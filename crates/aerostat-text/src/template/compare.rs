//! Equality, order, membership and hashes, as Python has them.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::limits::{Fault, Heap, Outcome};
use super::value::undefined_fault;
use super::value::{Dict, Items, Range, Value, View};

/// Hashes of not-a-number so far.
static NOT_NUMBERS: AtomicU64 = AtomicU64::new(0);

/// A number, for comparing those of different types.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Number::Int(i128::from(*value))),
            Value::Int(value) => Some(Number::Int(*value)),
            Value::Float(value) => Some(Number::Float(*value)),
            _ => None,
        }
    }

    pub(super) fn to_float(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(one), Number::Int(two)) => Some(one.cmp(&two)),
            (Number::Float(one), Number::Float(two)) => one.partial_cmp(&two),
            (Number::Int(one), Number::Float(two)) => int_against_float(one, two),
            (Number::Float(one), Number::Int(two)) => int_against_float(two, one).map(Ordering::reverse),
        }
    }
}

/// Exact, where converting to floats would round.
fn int_against_float(int: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    let bound = 2f64.powi(127);
    if float >= bound {
        return Some(Ordering::Less);
    }
    if float < -bound {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    let fraction = 0.0_f64.partial_cmp(&(float - whole));
    Some(int.cmp(&(whole as i128)).then(fraction.unwrap_or(Ordering::Equal)))
}

/// Whether both are one object, as far as that can be told here: equal numbers are.
pub(super) fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::None, Value::None) => true,
        (Value::Bool(one), Value::Bool(two)) => one == two,
        (Value::Int(one), Value::Int(two)) => one == two,
        (Value::Float(one), Value::Float(two)) => one.to_bits() == two.to_bits(),
        (Value::Text(one), Value::Text(two)) => one.same_place(two) || (one.is_empty() && two.is_empty()),
        (Value::List(one), Value::List(two)) => Rc::ptr_eq(one, two),
        (Value::Tuple(one), Value::Tuple(two)) => Rc::ptr_eq(one, two) || (one.is_empty() && two.is_empty()),
        (Value::Dict(one), Value::Dict(two)) => Rc::ptr_eq(one, two),
        (Value::Iterator(one), Value::Iterator(two)) => Rc::ptr_eq(one, two),
        (Value::Namespace(one), Value::Namespace(two)) => Rc::ptr_eq(one, two),
        (Value::Macro(one), Value::Macro(two)) => Rc::ptr_eq(one, two),
        (Value::Loop(one), Value::Loop(two)) => Rc::ptr_eq(one, two),
        (Value::Cycler(one), Value::Cycler(two)) => Rc::ptr_eq(one, two),
        (Value::Joiner(one), Value::Joiner(two)) => Rc::ptr_eq(one, two),
        (Value::Function(one), Value::Function(two)) => one == two,
        (Value::Template, Value::Template) => true,
        (Value::Bytes(one), Value::Bytes(two)) => {
            Rc::ptr_eq(one, two) || (one.bytes.is_empty() && two.bytes.is_empty())
        }
        _ => false,
    }
}

/// `one == two`.
pub(super) fn equal(one: &Value, two: &Value, heap: &Heap) -> Outcome<bool> {
    heap.step(1)?;
    if let (Some(one), Some(two)) = (Number::of(one), Number::of(two)) {
        return Ok(one.compare(two) == Some(Ordering::Equal));
    }
    match (one, two) {
        (Value::Undefined(_), Value::Undefined(_)) => Ok(true),
        (Value::Text(one), Value::Text(two)) => {
            if one.len() == two.len() {
                heap.read(one.len())?;
            }
            Ok(**one == **two)
        }
        (Value::Bytes(one), Value::Bytes(two)) => {
            heap.read(one.bytes.len())?;
            Ok(one.bytes == two.bytes)
        }
        (Value::List(one), Value::List(two)) | (Value::Tuple(one), Value::Tuple(two)) => {
            equal_items(one, two, heap)
        }
        (Value::Dict(one), Value::Dict(two)) => equal_dicts(one, two, heap),
        (Value::Range(one), Value::Range(two)) => Ok(equal_ranges(one, two)),
        (Value::View(kind, one), Value::View(other, two))
            if *kind != View::Values && *other != View::Values =>
        {
            let (one, two) = (view_items(*kind, one, heap)?, view_items(*other, two, heap)?);
            equal_sets(&one, &two, heap)
        }
        (Value::Method(one), Value::Method(two)) => {
            Ok(one.name == two.name && equal(&one.object, &two.object, heap)?)
        }
        _ => Ok(same(one, two)),
    }
}

/// Whether both have the same numbers.
fn equal_ranges(one: &Range, two: &Range) -> bool {
    let (count, other) = (one.len(), two.len());
    let same_step = count <= 1 || one.step == two.step;
    count == other && (count == 0 || (one.start == two.start && same_step))
}

/// As inside lists: what is the same object is equal, though it be not-a-number.
pub(super) fn equal_inside(one: &Value, two: &Value, heap: &Heap) -> Outcome<bool> {
    Ok(same(one, two) || equal(one, two, heap)?)
}

fn equal_items(one: &Items, two: &Items, heap: &Heap) -> Outcome<bool> {
    if one.len() != two.len() {
        return Ok(false);
    }
    for (one, two) in one.iter().zip(two.iter()) {
        if !equal_inside(one, two, heap)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_dicts(one: &Dict, two: &Dict, heap: &Heap) -> Outcome<bool> {
    if one.entries().len() != two.entries().len() {
        return Ok(false);
    }
    for (key, value) in one.entries() {
        match two.get(key)? {
            Some(other) if equal_inside(value, other, heap)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn equal_sets(one: &[Value], two: &[Value], heap: &Heap) -> Outcome<bool> {
    Ok(one.len() == two.len() && is_subset(one, two, heap)?)
}

fn is_subset(one: &[Value], two: &[Value], heap: &Heap) -> Outcome<bool> {
    for item in one {
        if !contains_item(two, item, heap)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn view_items(kind: View, dict: &Dict, heap: &Heap) -> Outcome<Vec<Value>> {
    heap.step(dict.entries().len())?;
    dict.entries().iter().map(|entry| view_item(kind, entry, heap)).collect()
}

/// What a view gives for an entry.
pub(super) fn view_item(kind: View, (key, value): &(Value, Value), heap: &Heap) -> Outcome<Value> {
    match kind {
        View::Keys => Ok(key.clone()),
        View::Values => Ok(value.clone()),
        View::Items => heap.tuple([key.clone(), value.clone()]),
    }
}

fn contains_item(items: &[Value], item: &Value, heap: &Heap) -> Outcome<bool> {
    for other in items {
        if equal_inside(other, item, heap)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Compares for order; `None` where neither is less, as with not-a-number.
///
/// # Errors
/// The types have no order; `operator` is named in the message.
pub(super) fn order(one: &Value, two: &Value, operator: &str, heap: &Heap) -> Outcome<Option<Ordering>> {
    heap.step(1)?;
    if let (Some(one), Some(two)) = (Number::of(one), Number::of(two)) {
        return Ok(one.compare(two));
    }
    match (one, two) {
        (Value::Undefined(_), _) | (_, Value::Undefined(_)) => Err(undefined_fault(one, two)),
        (Value::Text(one), Value::Text(two)) => {
            heap.read(one.len().min(two.len()))?;
            Ok(Some((**one).cmp(&**two)))
        }
        (Value::Bytes(one), Value::Bytes(two)) => {
            heap.read(one.bytes.len().min(two.bytes.len()))?;
            Ok(Some(one.bytes.cmp(&two.bytes)))
        }
        (Value::List(one), Value::List(two)) | (Value::Tuple(one), Value::Tuple(two)) => {
            for (one, two) in one.iter().zip(two.iter()) {
                if !equal_inside(one, two, heap)? {
                    return order(one, two, operator, heap);
                }
            }
            Ok(Some(one.len().cmp(&two.len())))
        }
        (Value::View(kind, one), Value::View(other, two))
            if *kind != View::Values && *other != View::Values =>
        {
            let (one, two) = (view_items(*kind, one, heap)?, view_items(*other, two, heap)?);
            let (within, around) = (is_subset(&one, &two, heap)?, is_subset(&two, &one, heap)?);
            Ok(match (within, around) {
                (true, true) => Some(Ordering::Equal),
                (true, false) => Some(Ordering::Less),
                (false, true) => Some(Ordering::Greater),
                (false, false) => None,
            })
        }
        _ => Fault::err(format!(
            "'{operator}' not supported between instances of '{}' and '{}'",
            one.type_name(),
            two.type_name()
        )),
    }
}

/// `item in container`, for what can be asked without being used up.
pub(super) fn contains(container: &Value, item: &Value, heap: &Heap) -> Outcome<bool> {
    match container {
        Value::Text(text) => match item {
            Value::Text(part) => {
                heap.read(text.len())?;
                Ok(text.contains(&**part))
            }
            Value::Undefined(_) => Fault::err("'in <string>' requires string as left operand, not Undefined"),
            other => Fault::err(format!(
                "'in <string>' requires string as left operand, not {}",
                other.type_name()
            )),
        },
        Value::Bytes(bytes) => {
            heap.read(bytes.bytes.len())?;
            match (item, item.as_index()) {
                (Value::Bytes(part), _) => {
                    let size = part.bytes.len().max(1);
                    heap.step(bytes.bytes.len().saturating_mul(size) / 16)?;
                    Ok(part.bytes.is_empty()
                        || bytes.bytes.windows(size).any(|window| *window == *part.bytes))
                }
                (_, Some(byte)) if (0..256).contains(&byte) => {
                    Ok(bytes.bytes.iter().any(|other| i128::from(*other) == byte))
                }
                _ => Fault::err("a bytes-like object is required"),
            }
        }
        Value::List(items) | Value::Tuple(items) => contains_item(items, item, heap),
        Value::Dict(dict) | Value::View(View::Keys, dict) => Ok(dict.get(item)?.is_some()),
        Value::View(kind, dict) => {
            for entry in dict.entries() {
                if equal_inside(&view_item(*kind, entry, heap)?, item, heap)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Range(range) => {
            heap.step(range.len() / 8 + 1)?;
            let Some(number) = Number::of(item) else { return Ok(false) };
            let is_equal = |value: Value| {
                Number::of(&value).is_some_and(|other| other.compare(number) == Some(Ordering::Equal))
            };
            Ok((0..range.len()).filter_map(|at| range.get(at)).any(is_equal))
        }
        Value::Undefined(_) => Ok(false),
        other => Fault::err(format!("argument of type '{}' is not iterable", other.type_name())),
    }
}

/// Hashes what [`check_key`] allows; equal keys have equal hashes.
pub(super) fn hash_key<H: Hasher>(key: &Value, state: &mut H) {
    match key {
        Value::Text(text) => text.hash(state),
        Value::Tuple(items) => items.iter().for_each(|item| hash_key(item, state)),
        // Equal to nothing, not even itself: one place for all would be searched from end to end.
        Value::Float(value) if value.is_nan() => NOT_NUMBERS.fetch_add(1, Relaxed).hash(state),
        Value::Float(value) if value.fract() != 0.0 || value.abs() > 1e30 => value.to_bits().hash(state),
        Value::Float(value) => (*value as i128).hash(state),
        Value::Int(value) => value.hash(state),
        Value::Bool(value) => i128::from(*value).hash(state),
        Value::Bytes(bytes) => bytes.bytes.hash(state),
        Value::Range(range) => range.len().hash(state),
        Value::Method(method) => (method.name, place(&method.object)).hash(state),
        other => place(other).hash(state),
    }
}

/// Where that is which is equal to itself alone; 0 for what is equal to others of its kind.
fn place(value: &Value) -> usize {
    match value {
        Value::Text(text) if !text.is_empty() => text.as_ptr().addr(),
        Value::List(value) => Rc::as_ptr(value).addr(),
        Value::Tuple(value) if !value.is_empty() => Rc::as_ptr(value).addr(),
        Value::Dict(value) | Value::View(_, value) => Rc::as_ptr(value).addr(),
        Value::Iterator(value) => Rc::as_ptr(value).addr(),
        Value::Namespace(value) => Rc::as_ptr(value).addr(),
        Value::Macro(value) => Rc::as_ptr(value).addr(),
        Value::Loop(value) => Rc::as_ptr(value).addr(),
        Value::Cycler(value) => Rc::as_ptr(value).addr(),
        Value::Joiner(value) => Rc::as_ptr(value).addr(),
        _ => 0,
    }
}

/// Whether two keys are the same key.
pub(super) fn equal_keys(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Text(one), Value::Text(two)) => **one == **two,
        (Value::Undefined(_), Value::Undefined(_)) => true,
        (Value::Tuple(one), Value::Tuple(two)) => {
            one.len() == two.len() && one.iter().zip(two.iter()).all(|(one, two)| equal_keys(one, two))
        }
        (Value::Bytes(one), Value::Bytes(two)) => one.bytes == two.bytes,
        (Value::Range(one), Value::Range(two)) => equal_ranges(one, two),
        (Value::Method(one), Value::Method(two)) => one.name == two.name && same(&one.object, &two.object),
        _ => match (Number::of(one), Number::of(two)) {
            (Some(one), Some(two)) => one.compare(two) == Some(Ordering::Equal),
            _ => same(one, two),
        },
    }
}
