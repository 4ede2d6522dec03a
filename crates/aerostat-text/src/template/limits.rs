//! What a template may use: steps, bytes and nesting, counted where they are made. Whatever an operator, filter or
//! method does, it takes its steps and bytes from the [`Heap`], so that no template can get round the bounds.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// The longest template, in bytes; the longest of the Hub have about 50 KB.
pub(super) const SOURCE_BYTES_MAX: usize = 512 << 10;

/// Nodes of a parsed template.
pub(super) const NODES_MAX: usize = 100_000;

/// Parameters of a macro, and named arguments of a call.
pub(super) const ARGUMENTS_MAX: usize = 1000;

/// How deep expressions nest, in one expression; CPython's own parser ends at 200 as well.
pub(super) const EXPRESSION_DEPTH_MAX: u16 = 200;

/// How deep statements nest; CPython's own parser ends at 100 levels of indentation.
pub(super) const STATEMENT_DEPTH_MAX: usize = 90;

/// Steps of a rendering: a node that is evaluated, an item that is looked at, sixteen bytes that are copied or read.
pub(super) const STEPS_MAX: u64 = 10_000_000;

/// Bytes of all live values and of the output.
pub(super) const BYTES_MAX: usize = 32 << 20;

/// How deep evaluation nests, macros and recursive loops included.
pub(super) const CALL_DEPTH_MAX: u32 = 640;

/// How deep lists and dicts nest.
pub(super) const VALUE_DEPTH_MAX: u32 = 200;

/// The longest message of an error, in bytes.
const MESSAGE_BYTES_MAX: usize = 400;

/// Why a template was refused, or failed.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    /// The line of the template, from 1; 0 where it is not known.
    pub(crate) line: u32,
    /// A bound was reached: nothing in the template may catch it.
    pub(super) limit: bool,
}

/// What an operation gives, or why it failed.
pub(super) type Outcome<T> = Result<T, Box<Fault>>;

impl Fault {
    pub(super) fn new(message: impl AsRef<str>) -> Box<Self> {
        Box::new(Fault { message: clip(message.as_ref()), line: 0, limit: false })
    }

    pub(super) fn at(message: impl AsRef<str>, line: u32) -> Box<Self> {
        Box::new(Fault { message: clip(message.as_ref()), line, limit: false })
    }

    pub(super) fn limit(message: impl AsRef<str>) -> Box<Self> {
        Box::new(Fault { message: clip(message.as_ref()), line: 0, limit: true })
    }

    pub(super) fn err<T>(message: impl AsRef<str>) -> Outcome<T> {
        Err(Fault::new(message))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => out.write_str(&self.message),
            line => write!(out, "{} (line {line})", self.message),
        }
    }
}

/// A message that is not too long to be shown.
pub(crate) fn clip(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// Steps and bytes that a rendering has left.
#[derive(Debug)]
struct Meter {
    steps: Cell<u64>,
    bytes: Cell<usize>,
}

/// What all values of a rendering are made from.
#[derive(Debug, Clone)]
pub(super) struct Heap(Rc<Meter>);

impl Heap {
    pub(super) fn new() -> Self {
        Heap(Rc::new(Meter { steps: Cell::new(STEPS_MAX), bytes: Cell::new(BYTES_MAX) }))
    }

    /// Takes steps.
    pub(super) fn step(&self, steps: usize) -> Outcome<()> {
        match self.0.steps.get().checked_sub(steps as u64) {
            Some(left) => {
                self.0.steps.set(left);
                Ok(())
            }
            None => Err(Fault::limit(format!("it did not end within {STEPS_MAX} steps"))),
        }
    }

    /// Takes the steps of reading or copying so many bytes.
    pub(super) fn read(&self, bytes: usize) -> Outcome<()> {
        self.step(bytes / 16 + 1)
    }

    /// Takes bytes until the charge is dropped.
    pub(super) fn charge(&self, bytes: usize) -> Outcome<Charge> {
        let mut charge = Charge { bytes: 0, heap: self.clone() };
        charge.add(bytes)?;
        Ok(charge)
    }

    /// Whether so many bytes could be had, for what is refused before it is begun.
    pub(super) fn room(&self, bytes: usize) -> Outcome<()> {
        if bytes > self.0.bytes.get() {
            return Err(Self::full());
        }
        Ok(())
    }

    fn full() -> Box<Fault> {
        Fault::limit(format!("its values and output take more than {} MiB", BYTES_MAX >> 20))
    }
}

/// Bytes that are taken, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    bytes: usize,
    heap: Heap,
}

impl Charge {
    /// Takes more.
    pub(super) fn heap(&self) -> Heap {
        self.heap.clone()
    }

    pub(super) fn add(&mut self, bytes: usize) -> Outcome<()> {
        let left = self.heap.0.bytes.get().checked_sub(bytes).ok_or_else(Heap::full)?;
        self.heap.0.bytes.set(left);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.heap.0.bytes.set(self.heap.0.bytes.get() + self.bytes);
    }
}

/// A text that is being built: every byte is taken from the heap before it is written.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) text: String,
    charge: Charge,
}

impl Buffer {
    pub(super) fn new(heap: &Heap) -> Outcome<Self> {
        Ok(Buffer { text: String::new(), charge: heap.charge(0)? })
    }

    pub(super) fn push(&mut self, text: &str) -> Outcome<()> {
        self.charge.add(text.len())?;
        self.charge.heap.read(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn push_char(&mut self, char: char) -> Outcome<()> {
        self.push(char.encode_utf8(&mut [0; 4]))
    }

    /// The same text again and again.
    pub(super) fn repeat(&mut self, text: &str, times: usize) -> Outcome<()> {
        let bytes = text.len().checked_mul(times).ok_or_else(Heap::full)?;
        self.charge.add(bytes)?;
        self.charge.heap.read(bytes)?;
        if bytes > 0 {
            // Doubled where it lies: a copy beside it would take the bytes twice.
            let start = self.text.len();
            self.text.reserve(bytes);
            self.text.push_str(text);
            while let missing @ 1.. = start + bytes - self.text.len() {
                let there = self.text.len() - start;
                self.text.extend_from_within(start..start + there.min(missing));
            }
        }
        Ok(())
    }

    pub(super) fn heap(&self) -> Heap {
        self.charge.heap.clone()
    }

    /// The text, whose bytes are given back: whoever goes on with it takes them anew.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}
