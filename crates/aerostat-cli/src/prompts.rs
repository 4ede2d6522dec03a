//! Prompts of the command line, in the order given, and of stdin.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Read};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

pub(crate) use aerostat_jobs::Prompt;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::failure::Failure;
use crate::output::{self, OutputArgs};

/// The prompt that stands for what comes through stdin.
const STDIN: &str = "-";
/// How long something that may come through stdin beside a prompt is waited for.
const STDIN_WAIT: Duration = Duration::from_secs(1);
/// And where it would only be told that it is not read.
const LOOK: Duration = Duration::from_millis(50);
/// The longest prompt that is read from stdin, in bytes,
const STDIN_BYTES_MAX: u64 = 64 << 20;
/// or this part of the memory, of which a chat template takes the text several times; at least so many bytes.
const MEMORY_PER_BYTE: u64 = 32;
const STDIN_BYTES_MIN: u64 = 256 << 10;

/// PROMPT, `--prompt` and `--token-ids`, sorted as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompts(Vec<Prompt>);

impl Prompts {
    /// Whether there is nothing: none on the command line, and nobody writes one into stdin.
    pub(crate) fn are_missing(&self) -> bool {
        self.0.is_empty() && io::stdin().is_terminal()
    }

    /// The prompts, in which `-` stands for the whole of stdin; without any, stdin is one.
    pub(crate) fn or_stdin(mut self, memory_bytes: Option<u64>) -> Result<Vec<Prompt>, Failure> {
        if self.are_missing() {
            let message = "no prompt: give PROMPT, --prompt or --token-ids, or pipe one into stdin";
            return Err(Failure::usage(message));
        }
        if self.0.is_empty() {
            self.0.push(Prompt::Text(STDIN.to_owned()));
        }
        let mut from_stdin = self.0.iter_mut().filter(|prompt| is_stdin(prompt));
        if let Some(prompt) = from_stdin.next() {
            if from_stdin.next().is_some() {
                return Err(Failure::usage("`-` stands for stdin, which can be read once only"));
            }
            let text = stdin_text(memory_bytes)?;
            if text.is_empty() {
                return Err(Failure::usage("the prompt on stdin is empty"));
            }
            *prompt = Prompt::Text(text);
        }
        Ok(self.0)
    }

    /// As [`or_stdin`](Self::or_stdin); and what is piped in beside one prompt follows it: `run MODEL "Summarise:" < file`.
    pub(crate) fn with_stdin(
        mut self,
        memory_bytes: Option<u64>,
        output: &OutputArgs,
    ) -> Result<Vec<Prompt>, Failure> {
        let one = matches!(self.0.as_slice(), [prompt @ Prompt::Text(_)] if !is_stdin(prompt));
        if one && !io::stdin().is_terminal() {
            let piped = soon(move || stdin_text(memory_bytes), STDIN_WAIT).transpose()?;
            if piped.is_none() {
                let waited = STDIN_WAIT.as_secs();
                output::note(
                    output,
                    &format!(
                        "nothing came through stdin within {waited} s: going on without; `-` waits for it"
                    ),
                );
            }
            if let ([Prompt::Text(text)], Some(more)) = (self.0.as_mut_slice(), piped)
                && !more.trim().is_empty()
            {
                text.push_str("\n\n");
                text.push_str(&more);
            }
        }
        let unread = self.0.len() > 1 && !self.0.iter().any(is_stdin) && !io::stdin().is_terminal();
        if unread
            && soon(|| io::stdin().lock().fill_buf().is_ok_and(|bytes| !bytes.is_empty()), LOOK) == Some(true)
        {
            output::note(
                output,
                "what comes through stdin is not read beside several prompts; `-` stands for it",
            );
        }
        self.or_stdin(memory_bytes)
    }
}

fn is_stdin(prompt: &Prompt) -> bool {
    matches!(prompt, Prompt::Text(text) if text == STDIN)
}

/// The whole of stdin, without the line end that `echo` and editors add, within so much memory.
fn stdin_text(memory_bytes: Option<u64>) -> Result<String, Failure> {
    let within = |memory: u64| (memory / MEMORY_PER_BYTE).clamp(STDIN_BYTES_MIN, STDIN_BYTES_MAX);
    let most = memory_bytes.map_or(STDIN_BYTES_MAX, within);
    let mut bytes = Vec::new();
    let failed = |e: &dyn Display| Failure::failed(format!("cannot read the prompt from stdin: {e}"));
    io::stdin().lock().take(most + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    if bytes.len() as u64 > most {
        let memory = if most < STDIN_BYTES_MAX { ", the most with so little memory (--memory)" } else { "" };
        return Err(Failure::failed(format!("the prompt on stdin is longer than {most} bytes{memory}")));
    }
    let mut text = String::from_utf8(bytes).map_err(|e| failed(&e.utf8_error()))?;
    let end = text.strip_suffix('\n').map_or(text.len(), |t| t.strip_suffix('\r').unwrap_or(t).len());
    text.truncate(end);
    Ok(text)
}

/// What a call gives, once the first byte of stdin is there or its end; `None` if neither comes soon: a pipe that whoever
/// started the command holds open and writes nothing to.
fn soon<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static, wait: Duration) -> Option<T> {
    let (to, from) = mpsc::channel();
    let (begun_to, begun) = mpsc::channel();
    thread::spawn(move || {
        // Whatever it finds, the reading tells.
        let _ = io::stdin().lock().fill_buf();
        let _ = begun_to.send(());
        let _ = to.send(call());
    });
    begun.recv_timeout(wait).ok()?;
    from.recv().ok()
}

impl Args for Prompts {
    fn augment_args(command: Command) -> Command {
        let positional =
            Arg::new("prompt_text").value_name("PROMPT").help("The prompt; `-`, or none: stdin is read");
        let prompt = Arg::new("prompt")
            .long("prompt")
            .value_name("S")
            .action(ArgAction::Append)
            .allow_hyphen_values(true)
            .help("A further prompt; may be given several times");
        let token_ids = Arg::new("token_ids")
            .long("token-ids")
            .value_name("LIST")
            .action(ArgAction::Append)
            .value_parser(token_ids)
            .help("A prompt as token ids, such as 5,6,7; needs no tokenizer; may be given several times");
        command.arg(positional).arg(prompt).arg(token_ids)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Prompts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut found = Vec::new();
        for id in ["prompt_text", "prompt"] {
            let texts = matches.get_many::<String>(id).into_iter().flatten().cloned();
            found.extend(matches.indices_of(id).into_iter().flatten().zip(texts.map(Prompt::Text)));
        }
        let lists = matches.get_many::<Vec<u32>>("token_ids").into_iter().flatten().cloned();
        let indices = matches.indices_of("token_ids").into_iter().flatten();
        found.extend(indices.zip(lists.map(Prompt::TokenIds)));
        found.sort_by_key(|(index, _)| *index);
        Ok(Self(found.into_iter().map(|(_, prompt)| prompt).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn token_ids(text: &str) -> Result<Vec<u32>, String> {
    let id = |part: &str| {
        let part = part.trim();
        part.parse::<u32>().map_err(|_| format!("`{part}` is not a token id; write a list as 5,6,7"))
    };
    text.split(',').map(id).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        model: String,
        #[command(flatten)]
        prompts: Prompts,
    }

    #[test]
    fn prompts_keep_the_order_they_were_typed_in() {
        let args =
            ["aerostat", "--token-ids", "5, 6", "m", "--prompt=-a", "b", "--token-ids=7", "--prompt", "c"];
        let line = Line::parse_from(args);
        let text = |s: &str| Prompt::Text(s.to_owned());
        let want =
            vec![Prompt::TokenIds(vec![5, 6]), text("-a"), text("b"), Prompt::TokenIds(vec![7]), text("c")];
        assert_eq!((line.model.as_str(), line.prompts), ("m", Prompts(want)));
    }
}
