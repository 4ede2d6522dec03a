//! Jinja2 as `transformers` sets it up, interpreted: the text is Python's to the byte, and every step, level of
//! nesting and byte of values and output is bounded.
//!
//! A template is parsed once ([`lexer`], [`parser`], [`parse_expression`] → [`ast`]) and walked for each rendering
//! ([`execute`], [`evaluate`]). Values are Python's ([`value`]); they can be made from the [`limits::Heap`] alone, which
//! counts them. Lists, tuples and dicts cannot be changed once they are made, since the sandbox of `transformers`
//! refuses it; namespaces can, and are kept in a list, so that what refers to itself is freed in the end.

mod arguments;
mod ast;
mod attributes;
mod call;
mod characters;
mod checks;
mod compare;
pub(crate) mod date;
mod escape;
mod evaluate;
mod execute;
mod filters;
mod filters_html;
mod filters_lists;
mod filters_text;
mod format;
mod json;
mod lexer;
pub(crate) mod limits;
mod loops;
mod methods;
mod methods_format;
mod methods_text;
mod names;
mod numbers;
mod operators;
mod parse_expression;
mod parser;
mod print;
mod scope;
mod sort;
mod symbols;
mod undefined;
mod value;

use serde_json::{Map, Value as Json};

use self::limits::{Fault, SOURCE_BYTES_MAX};

/// A parsed template. It is immutable, `Send` and `Sync`.
#[derive(Debug)]
pub(crate) struct Template {
    body: ast::Body,
    lists: parser::Lists,
    /// The number of the name `loop`, if the template has it.
    loop_name: Option<u32>,
    /// Those of `caller`, `varargs` and `kwargs`.
    special: [Option<u32>; 3],
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What Python's jinja2 refuses, and what is too long or nests too deeply.
    pub(crate) fn parse(source: &str) -> Result<Self, Box<Fault>> {
        if source.len() > SOURCE_BYTES_MAX {
            let kib = SOURCE_BYTES_MAX >> 10;
            return Err(Fault::new(format!("it has {} bytes, more than {kib} KiB", source.len())));
        }
        let (mut body, mut lists) = parser::parse(&lexer::normalized(source))?;
        symbols::resolve(&mut body, &mut lists);
        let id = |wanted: &str| lists.names.iter().position(|name| **name == *wanted).map(|at| at as u32);
        let (loop_name, special) = (id("loop"), ["caller", "varargs", "kwargs"].map(id));
        Ok(Template { body, lists, loop_name, special })
    }

    /// Renders it with these variables. `now` is what `strftime_now` tells, in seconds since 1970.
    ///
    /// # Errors
    /// What the template or Python refuses, and what takes too many steps or bytes.
    pub(crate) fn render(&self, variables: &Map<String, Json>, now: i64) -> Result<String, Box<Fault>> {
        execute::render(self, variables, now)
    }
}
