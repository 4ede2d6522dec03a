//! The first pass over the input: every line is read as it will be when its turn comes, and only its lengths are kept.

use std::collections::HashSet;
use std::path::Path;

use aerostat_openai::{LazyGrammars, Refusal, Setting, Task};
use sha2::{Digest, Sha256};

use crate::counts::Kinds;
use crate::database::{LineRow, State};
use crate::error::{Error, ErrorKind};
use crate::input::{LINE_BYTES_MAX, Lines};
use crate::line::{self, Item};
use crate::watch::Watcher;

/// Lines between two signs of life.
const LINES_PER_SIGN: u64 = 1000;

/// What validation says about a line.
pub(crate) enum Verdict {
    /// It can be served.
    Good(LineRow, Kinds),
    /// It cannot.
    Bad { number: u64, custom_id: Option<String>, refusal: Refusal },
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
        let verdict = match line.bytes.map(|bytes| line::read(setting, number, bytes)) {
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
                return Err(Error::new(ErrorKind::Interrupted, "interrupted while the input was read"));
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
        return bad(item.custom_id, Refusal::new("duplicate_custom_id", message).about("custom_id"));
    }
    let task = &item.request.task;
    if let Some(Err(refusal)) = task.shape().map(|shape| grammars.constraint(setting, shape)) {
        return bad(item.custom_id, refusal);
    }
    Verdict::Good(row(number, task), Kinds::of(task))
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
    let digest: [u8; 32] = Sha256::digest(custom_id.as_bytes()).into();
    std::array::from_fn(|i| digest[i])
}
