//! What every reader of others' text needs: JSON as Python writes it, and messages that repeat little of what they are about.

#![forbid(unsafe_code)]

mod python;
mod shown;

pub use python::json_of_python;
pub use shown::{MESSAGE_CHARS_MAX, NAME_CHARS_MAX, name_shown, shortened};
