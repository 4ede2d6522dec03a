//! What is said about values that are not there.

use super::limits::{Fault, clip};

/// Why a value is undefined.
#[derive(Debug, Clone, Copy)]
pub(super) enum Undefined {
    /// No variable of this name.
    Name(u32),
    /// An object of this type has no attribute of this name.
    Attribute(&'static str, u32),
    /// An object of this type has no such element.
    Element(&'static str),
    /// The sandbox keeps this attribute of this type to itself.
    Unsafe(&'static str, u32),
    Hint(&'static str),
}

/// The fault of using an undefined value. Names are filled in by whoever knows the template's names: see [`fill`].
pub(super) fn fault_of(undefined: Option<Undefined>) -> Box<Fault> {
    Fault::new(match undefined {
        Some(Undefined::Name(name)) => format!("'{MARK}{name}{MARK}' is undefined"),
        Some(Undefined::Attribute(of, name)) => {
            format!("'{of} object' has no attribute '{MARK}{name}{MARK}'")
        }
        Some(Undefined::Element(of)) => format!("'{of} object' has no such element"),
        Some(Undefined::Unsafe(of, name)) => {
            format!("access to attribute '{MARK}{name}{MARK}' of '{of}' object is unsafe.")
        }
        Some(Undefined::Hint(hint)) => hint.to_owned(),
        None => "a value is undefined".to_owned(),
    })
}

/// Stands around the number of a name in a message.
const MARK: char = '\u{1}';

/// The message with names where their numbers stand.
pub(super) fn fill(message: &str, names: &[Box<str>]) -> String {
    if !message.contains(MARK) {
        return message.to_owned();
    }
    let part = |(at, part): (usize, &str)| {
        let name = if at % 2 == 1 { part.parse().ok().and_then(|at: usize| names.get(at)) } else { None };
        name.map_or_else(|| part.to_owned(), |name| clip(name))
    };
    message.split(MARK).enumerate().map(part).collect()
}
