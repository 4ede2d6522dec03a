//! The body of a response, written part by part: a whole one may be far larger than what it is made of.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write};
use std::mem::take;

use serde_json::{Map, Value, json};

use crate::lines::write_one_line;
use crate::part::Part;
use crate::part::Stamp;
use crate::refusal::Refusal;
use crate::request::{ApiRequest, Task};
use crate::setting::Setting;

/// Why a response could not be written.
#[derive(Debug)]
pub enum WriteError<E> {
    /// A part could not be given.
    Part(E),
    /// It cannot be put into words: a defect.
    Refused(Refusal),
    /// Writing failed.
    Io(io::Error),
}

impl<E: fmt::Display> fmt::Display for WriteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(e) => e.fmt(f),
            Self::Refused(e) => e.fmt(f),
            Self::Io(e) => e.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for WriteError<E> {}

impl<E> From<Refusal> for WriteError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E> From<io::Error> for WriteError<E> {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Setting {
    /// Writes the bytes of [`respond`](Self::respond)'s body as JSON, holding one part at a time: `part` is asked for each
    /// of them in order.
    ///
    /// # Errors
    /// Those of `part` and of writing; a defect.
    pub fn write_response<E>(
        &self,
        request: ApiRequest,
        part: impl FnMut(usize) -> Result<Part, E>,
        stamp: &Stamp,
        out: &mut impl Write,
    ) -> Result<(), WriteError<E>> {
        self.write_response_with(request, part, (stamp, |_| {}), out)
    }

    /// The same; `complete` may change members of the body that say nothing of parts, or add some.
    ///
    /// # Errors
    /// As [`write_response`](Self::write_response).
    pub fn write_response_with<E>(
        &self,
        mut request: ApiRequest,
        mut part: impl FnMut(usize) -> Result<Part, E>,
        (stamp, complete): (&Stamp, impl FnOnce(&mut Map<String, Value>)),
        out: &mut impl Write,
    ) -> Result<(), WriteError<E>> {
        let inputs = Inputs::taken_from(&mut request.task);
        let tokens = Cell::new(0);
        // Each part is answered as if it were a request of its own.
        let mut one = |index: usize| -> Result<Map<String, Value>, WriteError<E>> {
            inputs.give_one(&mut request.task, index)?;
            let part = part(index).map_err(WriteError::Part)?;
            tokens.set(tokens.get() + part.tokens.len());
            match self.respond(&request, &[part], stamp)? {
                Value::Object(body) => Ok(body),
                _ => Err(Refusal::defect("a response is no object").into()),
            }
        };
        let mut body = one(0)?;
        complete(&mut body);
        let list = if body.contains_key("choices") { "choices" } else { "data" };
        let mut first = Some(entry(&mut body, list, 0)?);
        let mut before = "{";
        let mut usage = None;
        for (name, value) in body {
            out.write_all(before.as_bytes())?;
            before = ",";
            write_one_line(out, &name)?;
            out.write_all(b":")?;
            match name.as_str() {
                name if name == list => {
                    out.write_all(b"[")?;
                    for index in 0..inputs.parts() {
                        let value = match first.take() {
                            Some(first) => first,
                            None => {
                                out.write_all(b",")?;
                                entry(&mut one(index)?, list, index)?
                            }
                        };
                        write_one_line(out, &value)?;
                    }
                    out.write_all(b"]")?;
                    usage = Some(inputs.tokens());
                }
                // It stands behind the list, so that all parts are counted.
                "usage" => {
                    let prompt = usage.ok_or_else(|| Refusal::defect("usage is told before the parts"))?;
                    write_one_line(out, &whole_usage(value, prompt, tokens.get()))?;
                }
                _ => write_one_line(out, &value)?,
            }
        }
        Ok(out.write_all(b"}")?)
    }
}

/// The one entry of a response's list, with the place that it has among all.
fn entry(body: &mut Map<String, Value>, list: &str, index: usize) -> Result<Value, Refusal> {
    let entry = body.get_mut(list).and_then(Value::as_array_mut).and_then(Vec::pop);
    let mut entry = entry.ok_or_else(|| Refusal::defect("a response has no entry"))?;
    if let Some(place) = entry.get_mut("index") {
        *place = index.into();
    }
    Ok(entry)
}

/// The usage of a whole request, in the words of that of one part.
fn whole_usage(mut usage: Value, prompt: usize, answers: usize) -> Value {
    let counts =
        [("prompt_tokens", prompt), ("completion_tokens", answers), ("total_tokens", prompt + answers)];
    for (name, count) in counts {
        if let Some(place) = usage.get_mut(name) {
            *place = json!(count);
        }
    }
    usage
}

/// What the parts of a request begin with, taken out of it.
enum Inputs {
    /// Prompts, how many answers each has, and the texts of prompts if they are echoed.
    Prompts(Vec<Vec<u32>>, usize, Option<Vec<String>>),
    Texts(Vec<Vec<u32>>),
    Sequences(Vec<(Vec<u32>, usize)>),
}

impl Inputs {
    fn taken_from(task: &mut Task) -> Self {
        match task {
            Task::Chat(g) | Task::Completions(g) => {
                Self::Prompts(take(&mut g.prompts), std::mem::replace(&mut g.n, 1), g.echo.take())
            }
            Task::Embeddings(e) => Self::Texts(take(&mut e.inputs)),
            Task::Score(s) => Self::Sequences(take(&mut s.sequences)),
        }
    }

    /// Makes the request that of one part.
    fn give_one(&self, task: &mut Task, index: usize) -> Result<(), Refusal> {
        let none = || Refusal::defect(format!("a request has no part {index}"));
        match (self, task) {
            (Self::Prompts(prompts, n, echo), Task::Chat(g) | Task::Completions(g)) => {
                let number = index.checked_div(*n).ok_or_else(none)?;
                g.prompts = vec![prompts.get(number).ok_or_else(none)?.clone()];
                g.echo = echo.as_ref().map(|texts| texts.get(number).cloned().into_iter().collect());
            }
            (Self::Texts(texts), Task::Embeddings(e)) => {
                e.inputs = vec![texts.get(index).ok_or_else(none)?.clone()];
            }
            (Self::Sequences(sequences), Task::Score(s)) => {
                s.sequences = vec![sequences.get(index).ok_or_else(none)?.clone()];
            }
            _ => return Err(none()),
        }
        Ok(())
    }

    fn parts(&self) -> usize {
        match self {
            Self::Prompts(prompts, n, _) => prompts.len() * n,
            Self::Texts(texts) => texts.len(),
            Self::Sequences(sequences) => sequences.len(),
        }
    }

    /// Tokens of all of them.
    fn tokens(&self) -> usize {
        match self {
            Self::Prompts(list, ..) | Self::Texts(list) => list.iter().map(Vec::len).sum(),
            Self::Sequences(list) => list.iter().map(|(ids, _)| ids.len()).sum(),
        }
    }
}
