//! The first pass over the input: every line is read as it will be when its turn comes, and only its lengths are kept.

use std::collections::HashSet;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::database::{LineRow, State};
use crate::fields::Refusal;
use crate::grammar::Grammars;
use crate::input::{LINE_BYTES_MAX, Lines};
use crate::request::{Item, Setting, Task};
use crate::{Error, Watcher};

/// Lines between two signs of life.
const LINES_PER_SIGN: u64 = 1000;

/// What validation says about a line.
pub(crate) enum Verdict {
    /// It can be served.
    Good(LineRow),
    /// It cannot.
    Bad { number: u64, custom_id: Option<String>, refusal: Refusal },
}

/// The grammars of a job, built when the first line asks for one.
#[derive(Default)]
pub(crate) struct LazyGrammars(Option<Grammars>);

impl LazyGrammars {
    pub(crate) fn get(&mut self, setting: &Setting) -> Result<&mut Grammars, String> {
        if self.0.is_none() {
            let tokenizer = setting.tokenizer.clone().ok_or("the model has no tokenizer")?;
            self.0 = Some(Grammars::new(tokenizer, &setting.end_tokens, setting.vocab)?);
        }
        self.0.as_mut().ok_or_else(|| "no grammars".to_owned())
    }
}

/// Reads all lines and gives a verdict on each, in order.
pub(crate) fn validate(
    input: &Path,
    setting: &Setting,
    grammars: &mut LazyGrammars,
    watcher: &dyn Watcher,
    mut each: impl FnMut(Verdict) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut lines = Lines::open(input)?;
    let mut ids = HashSet::new();
    let mut count = 0;
    while let Some(line) = lines.next()? {
        let number = line.number;
        let verdict = match line.bytes.map(|bytes| setting.read(number, bytes)) {
            Some(Ok(item)) => judge(number, item, &mut ids, setting, grammars),
            Some(Err((custom_id, refusal))) => {
                if let Some(id) = &custom_id {
                    ids.insert(key(id));
                }
                Verdict::Bad { number, custom_id, refusal }
            }
            None => {
                let message = format!("the line is longer than {LINE_BYTES_MAX} bytes");
                Verdict::Bad { number, custom_id: None, refusal: Refusal::new("line_too_long", message) }
            }
        };
        each(verdict)?;
        count += 1;
        if count % LINES_PER_SIGN == 0 {
            watcher.validating(count);
            if watcher.stops() {
                return Err(Error::new(
                    crate::ErrorKind::Interrupted,
                    "interrupted while the input was read",
                ));
            }
        }
    }
    watcher.validating(count);
    Ok(())
}

/// What is wrong with a line that reads well.
fn judge(
    number: u64,
    item: Item,
    ids: &mut HashSet<[u8; 16]>,
    setting: &Setting,
    grammars: &mut LazyGrammars,
) -> Verdict {
    let bad = |custom_id, refusal| Verdict::Bad { number, custom_id: Some(custom_id), refusal };
    if !ids.insert(key(&item.custom_id)) {
        let message = format!("`custom_id` {:?} occurs before", item.custom_id);
        let refusal = Refusal::new("duplicate_custom_id", message);
        return bad(item.custom_id, Refusal { param: Some("custom_id".to_owned()), ..refusal });
    }
    if let Task::Chat(generation) | Task::Completions(generation) = &item.task
        && let Some(shape) = &generation.shape
        && let Err(e) = grammars.get(setting).and_then(|g| g.constraint(shape))
    {
        let refusal = Refusal::value("response_format", format!("the grammar cannot be used: {e}"));
        return bad(item.custom_id, refusal);
    }
    Verdict::Good(row(number, &item.task))
}

/// The lengths of a request.
fn row(number: u64, task: &Task) -> LineRow {
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
    }
}

/// Sixteen bytes of a custom_id's digest: what is remembered of it.
fn key(custom_id: &str) -> [u8; 16] {
    let digest = Sha256::digest(custom_id.as_bytes());
    digest.first_chunk::<16>().copied().unwrap_or_default()
}
