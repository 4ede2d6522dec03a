//! A batch file as what a job works through: lines become requests, and responses become lines.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aerostat::{Need, Outcome, Request, Tokenizer};
use aerostat_openai::{ApiRequest, Finish, Part, PartResult, Refusal, Setting, Shape, Task, Token, one_line};

use crate::compiler::{Coming, Compiler};
use crate::counts::{Kinds, need};
use crate::database::{LineRow, Mark, State};
use crate::error::{Error, ErrorKind};
use crate::input::{LINE_BYTES_MAX, Lines, lines_within};
use crate::journal::{pack_result, unpack_result};
use crate::line;
use crate::names::Names;
use crate::options::Shard;
use crate::output::Appender;
use crate::requests::{Done, Item, Requests, Settled, Unserved, Verdict, mark};
use crate::table::LITTLE_MEMORY;

/// A batch file, or a shard of one.
pub(crate) struct BatchFile {
    path: PathBuf,
    lines: Option<Lines>,
    shard: Shard,
    setting: Arc<Setting>,
    grammars: Compiler,
    /// The custom_ids of all lines so far, of the first pass.
    ids: Names,
    /// Why they could not be remembered.
    trouble: Option<Error>,
    /// The first pass is on.
    checks: bool,
}

/// A line of the input that was read and found good.
struct BatchItem {
    setting: Arc<Setting>,
    custom_id: String,
    request: ApiRequest,
    mark: Mark,
}

impl BatchFile {
    pub(crate) fn new(path: &Path, setting: Setting, shard: Shard) -> Self {
        Self {
            path: path.to_owned(),
            lines: None,
            shard,
            setting: Arc::new(setting),
            grammars: Compiler::default(),
            ids: Names::default(),
            trouble: None,
            checks: false,
        }
    }

    /// The line at hand: its number and what it says.
    fn line(&self) -> Option<(u64, Option<&[u8]>)> {
        let line = self.lines.as_ref()?.at_hand()?;
        Some((line.number, line.bytes))
    }

    /// Of the line at hand, without what it ends in.
    fn mark(&self) -> Mark {
        mark(self.line().and_then(|(_, bytes)| bytes).unwrap_or_default().trim_ascii())
    }

    /// A line is there beside what is made of it.
    fn line_bytes_max(&self) -> usize {
        usize::try_from(self.setting.request_bytes_max() / 2)
            .map_or(LINE_BYTES_MAX, |m| m.min(LINE_BYTES_MAX))
    }

    fn read_line(&self) -> Result<(u64, line::Item), Unserved> {
        let none = || Unserved::new(None, Refusal::defect("there is no line to be read"));
        let (number, bytes) = self.line().ok_or_else(none)?;
        let Some(bytes) = bytes else {
            let most = self.line_bytes_max();
            let memory = if most < LINE_BYTES_MAX { LITTLE_MEMORY } else { "" };
            let message = format!("the line is longer than {most} bytes{memory}");
            return Err(Unserved::new(None, Refusal::new("line_too_long", message)));
        };
        let read = line::read(&self.setting, number, bytes);
        read.map(|item| (number, item)).map_err(|(name, refusal)| Unserved::new(name, refusal))
    }

    /// Remembers a name; whether it is new. What fails then stops the job before the next line.
    fn remember(&mut self, name: &str) -> bool {
        let new = self.ids.insert(name);
        new.unwrap_or_else(|error| {
            self.trouble = Some(error);
            true
        })
    }

    /// What is wrong with a line that reads well.
    fn judge(&mut self, item: &line::Item) -> Result<(), Refusal> {
        if !self.remember(&item.custom_id) {
            let message = format!("`custom_id` {:?} occurs before", item.custom_id);
            return Err(Refusal::new("duplicate_custom_id", message).about("custom_id"));
        }
        match item.request.task.shape() {
            Some(shape) => self.grammars.ask(&self.setting, shape).wait().map(drop),
            None => Ok(()),
        }
    }
}

impl Requests for BatchFile {
    fn tokenizer(&self) -> Option<Arc<Tokenizer>> {
        self.setting.tokenizer().cloned()
    }

    fn begun(&mut self, created: u64) {
        if let Some(setting) = Arc::get_mut(&mut self.setting) {
            setting.stop_clock(created);
        }
    }

    fn rewind(&mut self, checks: bool) -> Result<(), Error> {
        self.ids = Names::default();
        let lines = Lines::open(&self.path, self.line_bytes_max())?;
        self.lines = Some(lines.up_to(lines_within(self.setting.request_bytes_max())));
        self.checks = checks;
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<u64>, Error> {
        if let Some(error) = self.trouble.take() {
            return Err(error);
        }
        let Some(lines) = &mut self.lines else {
            return Err(Error::defect("a batch file is read before its beginning"));
        };
        loop {
            let Some(line) = lines.next()? else { return Ok(None) };
            if self.shard.holds(line.number) {
                return Ok(Some(line.number));
            }
            // What lines of other shards are called is remembered, too: a name that occurs twice is an error in any of them.
            if self.checks
                && let Some(id) = line.bytes.and_then(line::custom_id)
            {
                self.ids.insert(&id)?;
            }
        }
    }

    fn read(&mut self) -> Result<Box<dyn Item>, Unserved> {
        let setting = Arc::clone(&self.setting);
        let (_, line::Item { custom_id, request }) = self.read_line()?;
        Ok(Box::new(BatchItem { setting, custom_id, request, mark: self.mark() }))
    }

    fn check(&mut self) -> Verdict {
        match self.read_line() {
            Ok((number, item)) => match self.judge(&item) {
                Ok(()) => {
                    Verdict::Good(row(number, &item.request.task, self.mark()), Kinds::of(&item.request.task))
                }
                Err(refusal) => Verdict::Bad(Unserved::new(Some(item.custom_id), refusal)),
            },
            Err(unserved) => {
                if let Some(name) = &unserved.name {
                    self.remember(name);
                }
                Verdict::Bad(unserved)
            }
        }
    }

    fn compile(&mut self, shape: &Shape) -> Coming {
        self.grammars.ask(&self.setting, shape)
    }

    fn failure(&self, number: u64, unserved: &Unserved) -> String {
        one_line(&line::failure(number, unserved.name.as_deref(), &unserved.refusal))
    }

    fn need(&self, rows: &mut dyn Iterator<Item = LineRow>, kinds: Kinds) -> Need {
        need(rows, kinds)
    }
}

impl Item for BatchItem {
    fn name(&self) -> Option<&str> {
        Some(&self.custom_id)
    }

    fn mark(&self) -> Mark {
        self.mark
    }

    fn parts(&self) -> usize {
        self.request.task.parts()
    }

    fn part(&mut self, index: usize, _before: &[Token]) -> Result<Request, Refusal> {
        self.request.task.part(index)
    }

    fn shape(&self) -> Option<&Shape> {
        self.request.task.shape()
    }

    fn settle(&self, outcome: Outcome) -> Result<Settled, Refusal> {
        let result = PartResult::of(outcome)?;
        let ended_early = matches!(result, PartResult::Text { finish: Finish::Stop, .. });
        Ok(Settled { bytes: pack_result(&result), ended_early })
    }

    fn write(
        self: Box<Self>,
        number: u64,
        created: u64,
        part: &mut dyn FnMut(usize) -> Result<Done, Error>,
        out: &mut Appender,
    ) -> Result<(), Error> {
        let Self { setting, custom_id, request, .. } = *self;
        let part = |index: usize| {
            let Done { tokens, bytes } = part(index)?;
            let broken = || {
                let message =
                    format!("what was saved of line {} cannot be read; --restart begins anew", number + 1);
                Error::new(ErrorKind::Database, message)
            };
            Ok(Part { tokens, result: unpack_result(&bytes).ok_or_else(broken)? })
        };
        line::write_success(&setting, created, number, line::Item { custom_id, request }, part, out)
    }
}

/// The lengths of a request.
fn row(number: u64, task: &Task, mark: Mark) -> LineRow {
    let sum = |lengths: &mut dyn Iterator<Item = usize>| lengths.sum::<usize>();
    let (parts, prompt, answer, longest) = match task {
        Task::Chat(g) | Task::Completions(g) => {
            let longest = g.prompts.iter().map(Vec::len).max().unwrap_or(0) + g.max_new_tokens;
            let prompt = sum(&mut g.prompts.iter().map(Vec::len)) * g.n;
            (g.prompts.len() * g.n, prompt, g.max_new_tokens, longest)
        }
        Task::Embeddings(e) => {
            let longest = e.inputs.iter().map(Vec::len).max().unwrap_or(0);
            (e.inputs.len(), sum(&mut e.inputs.iter().map(Vec::len)), 0, longest)
        }
        Task::Score(s) => {
            let longest = s.sequences.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0);
            (s.sequences.len(), sum(&mut s.sequences.iter().map(|(ids, _)| ids.len())), 0, longest)
        }
    };
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    LineRow {
        number,
        state: State::ToDo,
        parts: small(parts),
        prompt: small(prompt),
        answer: small(answer),
        longest: small(longest),
        generated: 0,
        mark,
    }
}
