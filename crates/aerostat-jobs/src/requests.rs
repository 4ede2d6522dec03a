//! What a job works through: where its requests come from, and how what becomes of them is written.

use std::sync::Arc;

use aerostat::{Need, Outcome, Request, Tokenizer};
use aerostat_openai::{Refusal, Shape, Token};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::compiler::Coming;
use crate::counts::Kinds;
use crate::database::{LineRow, Mark};
use crate::error::{Error, ErrorKind};
use crate::output::Appender;
use crate::watch::Watcher;

/// Entries between two signs of life of the first pass.
const ENTRIES_PER_SIGN: u64 = 1000;

/// An input, entry by entry: the lines of a batch file, or the rows of a table.
pub(crate) trait Requests: Send {
    /// What the texts of answers are made with.
    fn tokenizer(&self) -> Option<Arc<Tokenizer>>;

    /// Says when the job was begun, in seconds since 1970; before anything is read.
    fn begun(&mut self, created: u64);

    /// Goes to the beginning; `checks` says that it is for the first pass, which looks for what is wrong.
    fn rewind(&mut self, checks: bool) -> Result<(), Error>;

    /// Goes on to the next entry and gives its number; `None` at the end. Numbers rise.
    fn advance(&mut self) -> Result<Option<u64>, Error>;

    /// Reads the entry at hand.
    fn read(&mut self) -> Result<Box<dyn Item>, Unserved>;

    /// What the first pass over the input says of the entry at hand.
    fn check(&mut self) -> Verdict;

    /// Has the grammar compiled that an answer must follow.
    fn compile(&mut self, _shape: &Shape) -> Coming {
        Coming::never()
    }

    /// The line of the error file for an entry that failed.
    fn failure(&self, number: u64, unserved: &Unserved) -> String;

    /// What an engine must have room for, so that entries are done together.
    fn need(&self, rows: &mut dyn Iterator<Item = LineRow>, kinds: Kinds) -> Need;
}

/// An entry that was read and found good.
pub(crate) trait Item: Send {
    /// By what people know it: a `custom_id`, or a line.
    fn name(&self) -> Option<&str>;

    /// What the input's owner tells a row by.
    fn key(&self) -> Option<&Value> {
        None
    }

    /// Of what it asks: another one asks something else.
    fn mark(&self) -> Mark;

    /// How many sequences it is.
    fn parts(&self) -> usize;

    /// Whether each part is made of what came of the one before it.
    fn follows(&self) -> bool {
        false
    }

    /// The engine's request for a part; `before` has the tokens of the answer to the part before, where it follows that.
    fn part(&mut self, index: usize, before: &[Token]) -> Result<Request, Refusal>;

    /// What the answers to its parts must look like.
    fn shape(&self) -> Option<&Shape> {
        None
    }

    /// What became of a part, to be kept.
    fn settle(&self, outcome: Outcome) -> Result<Settled, Refusal>;

    /// Writes the result of an entry whose parts are all there.
    fn write(
        self: Box<Self>,
        number: u64,
        created: u64,
        part: &mut dyn FnMut(usize) -> Result<Done, Error>,
        out: &mut Appender,
    ) -> Result<(), Error>;
}

/// The mark of bytes.
pub(crate) fn mark(bytes: impl AsRef<[u8]>) -> Mark {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    std::array::from_fn(|i| digest[i])
}

/// What is kept of a part that has ended.
pub(crate) struct Settled {
    /// Its result, packed.
    pub(crate) bytes: Vec<u8>,
    /// An answer that ended before its greatest length.
    pub(crate) ended_early: bool,
}

/// A part that is done.
pub(crate) struct Done {
    /// The tokens of its answer.
    pub(crate) tokens: Vec<Token>,
    /// Its result, as [`Settled`] had it.
    pub(crate) bytes: Vec<u8>,
}

/// Why an entry cannot be served, and by what people know it, if that could be read.
#[derive(Debug)]
pub(crate) struct Unserved {
    pub(crate) name: Option<String>,
    /// As [`Item::key`] has it.
    pub(crate) key: Option<Box<Value>>,
    pub(crate) refusal: Refusal,
}

impl Unserved {
    pub(crate) fn new(name: Option<String>, refusal: Refusal) -> Self {
        Self { name, key: None, refusal }
    }

    /// What became of an entry that had been read; without it, of one that nothing is known of.
    pub(crate) fn of(item: Option<&dyn Item>, refusal: Refusal) -> Self {
        let name = item.and_then(|item| item.name()).map(str::to_owned);
        Self { name, key: item.and_then(|item| item.key()).cloned().map(Box::new), refusal }
    }
}

/// What the first pass says about an entry.
pub(crate) enum Verdict {
    /// It can be served.
    Good(LineRow, Kinds),
    /// It cannot.
    Bad(Unserved),
}

/// Goes through an input from its beginning and gives a verdict on each entry, in order.
pub(crate) fn check_all(
    requests: &mut dyn Requests,
    watcher: &dyn Watcher,
    mut each: impl FnMut(u64, Verdict, &mut dyn Requests) -> Result<(), Error>,
) -> Result<(), Error> {
    requests.rewind(true)?;
    let mut count = 0;
    while let Some(number) = requests.advance()? {
        let verdict = requests.check();
        each(number, verdict, requests)?;
        count += 1;
        if count % ENTRIES_PER_SIGN == 0 {
            watcher.validating(count);
            if watcher.stops() {
                return Err(Error::new(ErrorKind::Interrupted, "interrupted while the input was read"));
            }
        }
    }
    watcher.validating(count);
    Ok(())
}
