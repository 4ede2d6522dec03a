//! Lines under way: what their parts have so far, in memory or in the job's database.

use aerostat::Constraint;
use aerostat_openai::{Refusal, Token};

use crate::database::Database;
use crate::error::{Error, ErrorKind};
use crate::journal::unpack_tokens;
use crate::requests::{Done, Item};

/// A line under way.
pub(crate) struct Active {
    pub(crate) item: Box<dyn Item>,
    pub(crate) parts: Vec<Sequence>,
    /// What its answers must follow, until the last of its parts is asked for.
    pub(crate) grammar: Option<Box<dyn Constraint>>,
    /// Parts that are not done.
    pub(crate) left: usize,
}

/// A part of a line under way.
#[derive(Default)]
pub(crate) struct Sequence {
    /// Its tokens, unless it is in the database.
    pub(crate) tokens: Vec<Token>,
    /// How many it has, wherever they are.
    pub(crate) generated: usize,
    pub(crate) done: bool,
    /// How it ended, packed; `None` if it is done and in the database: a line of many parts may have more results than
    /// memory has room for.
    pub(crate) result: Option<Vec<u8>>,
}

impl Active {
    /// A line, with what an earlier run saved of it if it did.
    pub(crate) fn new(number: u64, item: Box<dyn Item>, saved: Option<&Database>) -> Result<Self, Error> {
        let mut parts: Vec<Sequence> = (0..item.parts()).map(|_| Sequence::default()).collect();
        if let Some(database) = saved {
            restore(number, &mut parts, database)?;
        }
        let left = parts.iter().filter(|part| !part.done).count();
        Ok(Self { item, parts, grammar: None, left })
    }

    /// Lets go of what a part has: it is in the database.
    pub(crate) fn forget(&mut self, part: u32) {
        if let Some(part) = self.parts.get_mut(part as usize) {
            (part.tokens, part.result) = (Vec::new(), None);
        }
    }

    /// Tokens that were generated for it.
    pub(crate) fn generated(&self) -> usize {
        self.parts.iter().map(|part| part.generated).sum()
    }
}

/// Reads what was saved of a line.
fn restore(number: u64, parts: &mut [Sequence], database: &Database) -> Result<(), Error> {
    for part in database.parts_done(number)? {
        parts.get_mut(part as usize).ok_or_else(|| broken(number))?.done = true;
    }
    for part in database.parts_begun(number)? {
        let tokens = tokens(number, part, database)?;
        let sequence = parts.get_mut(part as usize).ok_or_else(|| broken(number))?;
        sequence.generated = tokens.len();
        if !sequence.done {
            sequence.tokens = tokens;
        }
    }
    Ok(())
}

/// A part that is done, taken out of memory or read from the database.
pub(crate) fn finished(
    number: u64,
    index: usize,
    parts: &mut [Sequence],
    database: &Database,
) -> Result<Done, Error> {
    let lacks = || Refusal::defect(format!("line {} is complete and lacks a part", number + 1));
    let sequence = parts.get_mut(index).filter(|part| part.done).ok_or_else(lacks)?;
    if let Some(bytes) = sequence.result.take() {
        return Ok(Done { tokens: std::mem::take(&mut sequence.tokens), bytes });
    }
    let part = index as u32;
    let bytes = database.result(number, part)?.ok_or_else(lacks)?;
    Ok(Done { tokens: tokens(number, part, database)?, bytes })
}

/// The tokens of a part, in memory or in the database.
pub(crate) fn tokens_of(
    number: u64,
    index: usize,
    parts: &[Sequence],
    database: &Database,
) -> Result<Vec<Token>, Error> {
    match parts.get(index) {
        Some(part) if part.tokens.len() == part.generated => Ok(part.tokens.clone()),
        _ => tokens(number, index as u32, database),
    }
}

fn tokens(number: u64, part: u32, database: &Database) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    database.gained(number, part, |bytes| {
        tokens.extend(unpack_tokens(bytes).ok_or_else(|| broken(number))?);
        Ok(())
    })?;
    Ok(tokens)
}

fn broken(number: u64) -> Error {
    let message = format!("what was saved of line {} cannot be read; --restart begins anew", number + 1);
    Error::new(ErrorKind::Database, message)
}
