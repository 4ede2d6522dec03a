//! Iterating, and the variable `loop`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::compare::view_item;
use super::limits::{Charge, Fault, Heap, Outcome};
use super::scope::Scope;
use super::value::{Bytes, Dict, Items, Iterator, Range, Text, Value, View};

/// Items that are given one after the other.
#[derive(Debug)]
pub(super) enum Pull {
    Nothing,
    Items(Rc<Items>, usize),
    /// The characters of a text from a byte on.
    Characters(Text, usize),
    Bytes(Rc<Bytes>, usize),
    Entries(View, Rc<Dict>, usize),
    Range(Range, usize),
    Iterator(Rc<Iterator>),
    Loop,
}

impl Pull {
    /// `iter(value)`.
    ///
    /// # Errors
    /// The value cannot be iterated.
    pub(super) fn new(value: &Value) -> Outcome<Self> {
        Ok(match value {
            Value::Undefined(_) => Pull::Nothing,
            Value::List(items) | Value::Tuple(items) => Pull::Items(items.clone(), 0),
            Value::Text(text) => Pull::Characters(text.clone(), 0),
            Value::Bytes(bytes) => Pull::Bytes(bytes.clone(), 0),
            Value::Dict(dict) => Pull::Entries(View::Keys, dict.clone(), 0),
            Value::View(kind, dict) => Pull::Entries(*kind, dict.clone(), 0),
            Value::Range(range) => Pull::Range(*range, 0),
            Value::Iterator(iterator) => Pull::Iterator(iterator.clone()),
            Value::Loop(_) => Pull::Loop,
            other => return Fault::err(format!("'{}' object is not iterable", other.type_name())),
        })
    }

    pub(super) fn next(&mut self, heap: &Heap) -> Outcome<Option<Value>> {
        heap.step(1)?;
        Ok(match self {
            Pull::Nothing => None,
            Pull::Items(items, at) => {
                *at += 1;
                items.get(*at - 1).cloned()
            }
            Pull::Characters(text, at) => {
                let Some(char) = text.get(*at..).and_then(|rest| rest.chars().next()) else {
                    return Ok(None);
                };
                *at += char.len_utf8();
                Some(Value::Text(heap.new_text(char.to_string().into(), false)?))
            }
            Pull::Bytes(bytes, at) => {
                *at += 1;
                bytes.bytes.get(*at - 1).map(|byte| Value::Int((*byte).into()))
            }
            Pull::Entries(kind, dict, at) => {
                *at += 1;
                dict.entries().get(*at - 1).map(|entry| view_item(*kind, entry, heap)).transpose()?
            }
            Pull::Range(range, at) => {
                *at += 1;
                range.get(*at - 1)
            }
            Pull::Iterator(iterator) => iterator.next()?,
            Pull::Loop => return Fault::err("a loop cannot be iterated inside itself"),
        })
    }

    /// How many items there are, where that can be known without using them up.
    fn len(&self) -> Option<usize> {
        match self {
            Pull::Nothing => Some(0),
            Pull::Items(items, _) => Some(items.len()),
            Pull::Characters(text, _) => Some(text.chars_count()),
            Pull::Bytes(bytes, _) => Some(bytes.bytes.len()),
            Pull::Entries(_, dict, _) => Some(dict.entries().len()),
            Pull::Range(range, _) => Some(range.len()),
            Pull::Iterator(_) | Pull::Loop => None,
        }
    }
}

/// All items of a value, in a list that is being built.
pub(super) fn collect(value: &Value, heap: &Heap) -> Outcome<super::value::ItemsBuilder> {
    let mut pull = Pull::new(value)?;
    let mut items = heap.items()?;
    while let Some(item) = pull.next(heap)? {
        items.push(item)?;
    }
    Ok(items)
}

/// A loop that is going on.
#[derive(Debug)]
pub(super) struct LoopState {
    /// What is left to come.
    pub(super) source: RefCell<Pull>,
    /// The condition that items must meet, by its number, and the scope it is judged in.
    pub(super) condition: Option<(usize, Rc<Scope>)>,
    /// Items that were looked at before their turn.
    pub(super) ahead: RefCell<VecDeque<Value>>,
    pub(super) length: Cell<Option<usize>>,
    /// How many items have begun.
    pub(super) begun: Cell<usize>,
    pub(super) current: RefCell<Option<Value>>,
    pub(super) previous: RefCell<Option<Value>>,
    pub(super) changed: RefCell<Option<Value>>,
    /// The loop's number and scope, where it may call itself.
    pub(super) recursive: Option<(usize, Rc<Scope>)>,
    pub(super) depth0: usize,
    /// How deep its items nest.
    pub(super) depth: u32,
    pub(super) is_registered: Cell<bool>,
    pub(super) _charge: Charge,
}

impl LoopState {
    pub(super) fn new(
        value: &Value,
        condition: Option<(usize, Rc<Scope>)>,
        recursive: Option<(usize, Rc<Scope>)>,
        depth0: usize,
        heap: &Heap,
    ) -> Outcome<Rc<Self>> {
        let source = Pull::new(value)?;
        let length = if condition.is_none() { source.len() } else { None };
        Ok(Rc::new(LoopState {
            source: RefCell::new(source),
            condition,
            ahead: RefCell::default(),
            length: Cell::new(length),
            begun: Cell::new(0),
            current: RefCell::default(),
            previous: RefCell::default(),
            changed: RefCell::default(),
            recursive,
            depth0,
            depth: super::value::deeper(super::value::depth(value))?,
            is_registered: Cell::new(false),
            _charge: heap.charge(512)?,
        }))
    }

    /// The next item becomes the current one.
    pub(super) fn begin(&self, item: Value) {
        self.begun.set(self.begun.get() + 1);
        let last = self.current.replace(Some(item));
        self.previous.replace(last);
    }

    pub(super) fn is_true(&self) -> bool {
        self.length.get().is_none_or(|length| length > 0)
    }

    pub(super) fn describe(&self) -> String {
        let length = self.length.get().map_or_else(|| "?".to_owned(), |length| length.to_string());
        format!("<LoopContext {}/{length}>", self.begun.get())
    }

    /// Lets go of everything, whatever holds the loop.
    pub(super) fn clear(&self) {
        let source = self.source.replace(Pull::Nothing);
        let held = (self.ahead.take(), self.current.take(), self.previous.take(), self.changed.take());
        drop((source, held));
    }
}
