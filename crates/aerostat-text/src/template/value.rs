//! The values of a template: Python's, as far as a template can meet them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::rc::Rc;

use super::compare::{equal_keys, hash_key};
use super::limits::{Buffer, Charge, Fault, Heap, Outcome, VALUE_DEPTH_MAX};
use super::loops::LoopState;
use super::scope::Scope;
use super::undefined::{Undefined, fault_of};

/// The size of a value in a list, in bytes, as far as bounds are concerned.
const VALUE_BYTES: usize = 32;

/// The most entries of a dict without an index.
const SMALL: usize = 8;

/// What a value on the heap takes beside its content.
const HEADER_BYTES: usize = 96;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Undefined(Undefined),
    None,
    Bool(bool),
    /// Integers of up to 128 bits; what does not fit is an error.
    Int(i128),
    Float(f64),
    Text(Text),
    Bytes(Rc<Bytes>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    Range(Range),
    View(View, Rc<Dict>),
    /// A generator or an iterator, which gives every item once.
    Iterator(Rc<Iterator>),
    Namespace(Rc<Namespace>),
    Macro(Rc<Macro>),
    Loop(Rc<LoopState>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
    Method(Rc<Method>),
    Function(Function),
    /// `self`, which has the template's blocks.
    Template,
    /// A block, by its number.
    Block(usize),
}

/// What `str.encode` gives.
#[derive(Debug)]
pub(super) struct Bytes {
    pub(super) bytes: Box<[u8]>,
    _charge: Charge,
}

/// A part of a dict, as its methods give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

/// A text, which may be marked safe (Markup): then it escapes what is added to it.
#[derive(Debug, Clone)]
pub(super) struct Text {
    held: Rc<HeldText>,
    pub(super) safe: bool,
}

#[derive(Debug)]
struct HeldText {
    text: Box<str>,
    chars: usize,
    _charge: Charge,
}

impl Text {
    /// The number of characters.
    pub(super) fn chars_count(&self) -> usize {
        self.held.chars
    }

    pub(super) fn is_ascii(&self) -> bool {
        self.held.chars == self.held.text.len()
    }

    pub(super) fn same_place(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.held, &other.held)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.held.text
    }
}

/// The items of a list or a tuple.
#[derive(Debug)]
pub(super) struct Items {
    values: Vec<Value>,
    depth: u32,
    /// A pair of groupby, whose items have names.
    pub(super) is_group: bool,
    _charge: Charge,
}

impl Deref for Items {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.values
    }
}

/// A list that is being built.
#[derive(Debug)]
pub(super) struct ItemsBuilder {
    values: Vec<Value>,
    depth: u32,
    charge: Charge,
}

impl ItemsBuilder {
    pub(super) fn push(&mut self, value: Value) -> Outcome<()> {
        self.charge.add(VALUE_BYTES)?;
        self.charge_step()?;
        self.depth = self.depth.max(depth(&value));
        self.values.push(value);
        Ok(())
    }

    fn charge_step(&self) -> Outcome<()> {
        self.charge.heap().step(1)
    }

    pub(super) fn values(&mut self) -> &mut Vec<Value> {
        &mut self.values
    }

    fn finish(mut self, is_group: bool) -> Outcome<Rc<Items>> {
        let depth = deeper(self.depth)?;
        // A list of one item has room for four, which is more than is counted for it.
        self.values.shrink_to_fit();
        Ok(Rc::new(Items { values: self.values, depth, is_group, _charge: self.charge }))
    }

    pub(super) fn list(self) -> Outcome<Value> {
        Ok(Value::List(self.finish(false)?))
    }

    pub(super) fn tuple(self) -> Outcome<Value> {
        Ok(Value::Tuple(self.finish(false)?))
    }

    pub(super) fn group(self) -> Outcome<Value> {
        Ok(Value::Tuple(self.finish(true)?))
    }

    /// A generator or iterator of these items, which fails at the end if there is a fault.
    pub(super) fn iterator(self, kind: &'static str, fault: Option<Box<Fault>>) -> Outcome<Value> {
        let items = self.finish(false)?;
        Ok(Value::Iterator(Rc::new(Iterator { items, at: Cell::new(0), fault: RefCell::new(fault), kind })))
    }
}

pub(super) fn deeper(depth: u32) -> Outcome<u32> {
    if depth >= VALUE_DEPTH_MAX {
        return Err(Fault::limit(format!("a value is nested more than {VALUE_DEPTH_MAX} levels deep")));
    }
    Ok(depth + 1)
}

/// How deep a value nests.
pub(super) fn depth(value: &Value) -> u32 {
    match value {
        Value::List(items) | Value::Tuple(items) => items.depth,
        Value::Dict(dict) | Value::View(_, dict) => dict.depth,
        Value::Iterator(iterator) => iterator.items.depth,
        Value::Cycler(cycler) => cycler.items.depth,
        Value::Method(method) => depth(&method.object),
        Value::Joiner(joiner) => 1 + depth(&joiner.separator),
        Value::Loop(state) => state.depth,
        _ => 0,
    }
}

/// A dict, in the order of insertion.
#[derive(Debug)]
pub(super) struct Dict {
    entries: Vec<(Value, Value)>,
    index: HashMap<Key, u32>,
    depth: u32,
    charge: Charge,
}

/// A value as the key of an index.
#[derive(Debug)]
struct Key(Value);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_key(&self.0, state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        equal_keys(&self.0, &other.0)
    }
}

impl Eq for Key {}

impl Dict {
    pub(super) fn new(heap: &Heap) -> Outcome<Self> {
        Ok(Dict { entries: Vec::new(), index: HashMap::new(), depth: 1, charge: heap.charge(HEADER_BYTES)? })
    }

    /// All entries, which leaves it empty.
    pub(super) fn take(&mut self) -> Vec<(Value, Value)> {
        self.index.clear();
        std::mem::take(&mut self.entries)
    }

    pub(super) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    /// The value of a key that can be one.
    pub(super) fn get(&self, key: &Value) -> Outcome<Option<&Value>> {
        check_key(key, &self.charge.heap())?;
        Ok(self.place(key).and_then(|at| self.entries.get(at)).map(|(_, value)| value))
    }

    /// Where the entry of a key is. Most dicts are small: their keys are compared faster than hashed.
    fn place(&self, key: &Value) -> Option<usize> {
        if self.entries.len() <= SMALL {
            return self.entries.iter().position(|(other, _)| equal_keys(other, key));
        }
        self.index.get(&Key(key.clone())).map(|at| *at as usize)
    }

    /// The value of a name.
    pub(super) fn named(&self, name: &str) -> Option<&Value> {
        let is_name = |(key, _): &&(Value, Value)| matches!(key, Value::Text(key) if **key == *name);
        self.entries.iter().find(is_name).map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, key: Value, value: Value) -> Outcome<()> {
        check_key(&key, &self.charge.heap())?;
        let nested = deeper(depth(&key).max(depth(&value)))?;
        self.depth = self.depth.max(nested);
        if let Some(at) = self.place(&key) {
            if let Some(entry) = self.entries.get_mut(at) {
                entry.1 = value;
            }
            return Ok(());
        }
        let values = match self.entries.len() {
            0 => 12,
            1..=SMALL => 4,
            // With its place in the index, and what both have to spare.
            _ => 8,
        };
        self.charge.add(values * VALUE_BYTES)?;
        self.charge.heap().step(4)?;
        self.entries.push((key, value));
        if self.entries.len() > SMALL {
            let known = self.index.len();
            for (at, (key, _)) in self.entries.iter().enumerate().skip(known) {
                self.index.insert(Key(key.clone()), at as u32);
            }
        }
        Ok(())
    }
}

/// Fails for what Python cannot hash.
pub(super) fn check_key(key: &Value, heap: &Heap) -> Outcome<()> {
    match key {
        Value::List(_) | Value::Dict(_) | Value::View(View::Keys | View::Items, _) => {
            Fault::err(format!("unhashable type: '{}'", key.type_name()))
        }
        Value::Tuple(items) => {
            heap.step(items.len())?;
            items.iter().try_for_each(|item| check_key(item, heap))
        }
        Value::Text(text) => heap.read(text.len()),
        Value::Bytes(bytes) => heap.read(bytes.bytes.len()),
        _ => heap.step(1),
    }
}

/// `range(start, stop, step)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) stop: i64,
    pub(super) step: i64,
}

impl Range {
    pub(super) fn len(&self) -> usize {
        let (start, stop, step) = (i128::from(self.start), i128::from(self.stop), i128::from(self.step));
        let gap = if step > 0 { stop - start } else { start - stop };
        let count = if gap <= 0 { 0 } else { (gap - 1) / step.abs().max(1) + 1 };
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    pub(super) fn get(&self, at: usize) -> Option<Value> {
        (at < self.len()).then(|| Value::Int(i128::from(self.start) + at as i128 * i128::from(self.step)))
    }
}

/// A generator: Python would compute its items when they are asked for; here they are there already, with the fault
/// that asking for the one after them gives.
#[derive(Debug)]
pub(super) struct Iterator {
    items: Rc<Items>,
    at: Cell<usize>,
    fault: RefCell<Option<Box<Fault>>>,
    /// What Python calls it.
    pub(super) kind: &'static str,
}

impl Iterator {
    pub(super) fn next(&self) -> Outcome<Option<Value>> {
        match self.items.get(self.at.get()) {
            Some(value) => {
                self.at.set(self.at.get() + 1);
                Ok(Some(value.clone()))
            }
            None => self.fault.borrow_mut().take().map_or(Ok(None), Err),
        }
    }
}

/// `namespace(…)`, whose attributes can be set.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) attributes: RefCell<Dict>,
}

/// A macro, or the body of a call block.
#[derive(Debug)]
pub(super) struct Macro {
    /// Its place in the template's list of macros.
    pub(super) at: usize,
    /// The scope that it was defined in.
    pub(super) scope: Rc<Scope>,
    pub(super) _charge: Charge,
}

/// `cycler(…)`.
#[derive(Debug)]
pub(super) struct Cycler {
    pub(super) items: Rc<Items>,
    pub(super) at: Cell<usize>,
}

/// `joiner(…)`.
#[derive(Debug)]
pub(super) struct Joiner {
    pub(super) separator: Value,
    pub(super) used: Cell<bool>,
    pub(super) _charge: Charge,
}

/// A method that waits for its call.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) object: Value,
    pub(super) name: &'static str,
    pub(super) _charge: Charge,
}

/// Functions that templates find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    Lipsum,
    Cycler,
    Joiner,
    Namespace,
    RaiseException,
    StrftimeNow,
}

impl Value {
    /// What Python calls its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(text) if text.safe => "Markup",
            Value::Text(_) => "str",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Tuple(items) if items.is_group => "_GroupTuple",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Range(_) => "range",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::View(View::Items, _) => "dict_items",
            Value::Iterator(iterator) => iterator.kind,
            Value::Namespace(_) => "Namespace",
            Value::Macro(_) => "Macro",
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
            Value::Method(_) => "builtin_function_or_method",
            Value::Function(Function::Range | Function::RaiseException | Function::StrftimeNow) => "function",
            Value::Function(_) => "type",
            Value::Template => "TemplateReference",
            Value::Block(_) => "BlockReference",
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Bytes(bytes) => !bytes.bytes.is_empty(),
            Value::List(items) | Value::Tuple(items) => !items.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => !dict.entries.is_empty(),
            Value::Range(range) => range.len() > 0,
            Value::Loop(state) => state.is_true(),
            _ => true,
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    pub(super) fn as_text(&self) -> Option<&Text> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, as Python takes one where it needs an index: `True` is 1.
    pub(super) fn as_index(&self) -> Option<i128> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }
}

impl Heap {
    /// Takes the steps of looking every character up, which are tables for those that are not ASCII.
    pub(super) fn look_up(&self, text: &Text) -> Outcome<()> {
        self.read(if text.is_ascii() { text.len() } else { text.len().saturating_mul(8) })
    }

    pub(super) fn text(&self, text: impl Into<Box<str>>) -> Outcome<Value> {
        Ok(Value::Text(self.new_text(text.into(), false)?))
    }

    pub(super) fn new_text(&self, text: Box<str>, safe: bool) -> Outcome<Text> {
        self.read(text.len())?;
        let charge = self.charge(text.len() + HEADER_BYTES)?;
        let chars = text.chars().count();
        Ok(Text { held: Rc::new(HeldText { text, chars, _charge: charge }), safe })
    }

    pub(super) fn bytes(&self, bytes: Vec<u8>) -> Outcome<Value> {
        self.read(bytes.len())?;
        let charge = self.charge(bytes.len() + HEADER_BYTES)?;
        Ok(Value::Bytes(Rc::new(Bytes { bytes: bytes.into(), _charge: charge })))
    }

    /// The text that was built.
    pub(super) fn built(&self, buffer: Buffer) -> Outcome<Value> {
        self.text(buffer.into_text())
    }

    pub(super) fn items(&self) -> Outcome<ItemsBuilder> {
        Ok(ItemsBuilder { values: Vec::new(), depth: 0, charge: self.charge(HEADER_BYTES)? })
    }

    pub(super) fn list(&self, values: impl IntoIterator<Item = Value>) -> Outcome<Value> {
        self.collected(values)?.list()
    }

    pub(super) fn tuple(&self, values: impl IntoIterator<Item = Value>) -> Outcome<Value> {
        self.collected(values)?.tuple()
    }

    pub(super) fn collected(&self, values: impl IntoIterator<Item = Value>) -> Outcome<ItemsBuilder> {
        let mut items = self.items()?;
        values.into_iter().try_for_each(|value| items.push(value))?;
        Ok(items)
    }

    pub(super) fn method(&self, object: Value, name: &'static str) -> Outcome<Value> {
        Ok(Value::Method(Rc::new(Method { object, name, _charge: self.charge(2 * HEADER_BYTES)? })))
    }
}

/// A text marked safe or not.
pub(super) fn marked(value: Value, safe: bool) -> Value {
    match value {
        Value::Text(text) => Value::Text(Text { safe, ..text }),
        other => other,
    }
}

/// The fault of using two values of which one is undefined.
pub(super) fn undefined_fault(one: &Value, two: &Value) -> Box<Fault> {
    fault_of([one, two].into_iter().find_map(|value| match value {
        Value::Undefined(undefined) => Some(*undefined),
        _ => None,
    }))
}
