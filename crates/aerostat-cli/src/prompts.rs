//! Prompts of the command line, in the order given, and of stdin.

use std::io::{self, IsTerminal, Read};

pub(crate) use aerostat_jobs::Prompt;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::failure::Failure;

/// The longest prompt that is read from stdin, in bytes.
const STDIN_BYTES_MAX: u64 = 64 << 20;

/// PROMPT, `--prompt` and `--token-ids`, sorted as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompts(Vec<Prompt>);

impl Prompts {
    /// The prompts; without any, the whole of stdin is one.
    pub(crate) fn or_stdin(self) -> Result<Vec<Prompt>, Failure> {
        if !self.0.is_empty() {
            return Ok(self.0);
        }
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let message = "no prompt: give PROMPT, --prompt or --token-ids, or pipe one into stdin";
            return Err(Failure::usage(message));
        }
        let mut text = String::new();
        let read = stdin.lock().take(STDIN_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|e| Failure::failed(format!("cannot read the prompt from stdin: {e}")))?;
        if text.len() as u64 > STDIN_BYTES_MAX {
            return Err(Failure::failed(format!(
                "the prompt on stdin is longer than {STDIN_BYTES_MAX} bytes"
            )));
        }
        // The line end that `echo` and editors add is not part of it.
        let end = text.strip_suffix('\n').map_or(text.len(), |t| t.strip_suffix('\r').unwrap_or(t).len());
        text.truncate(end);
        if text.is_empty() {
            return Err(Failure::usage("the prompt on stdin is empty"));
        }
        Ok(vec![Prompt::Text(text)])
    }
}

impl Args for Prompts {
    fn augment_args(command: Command) -> Command {
        let positional =
            Arg::new("prompt_text").value_name("PROMPT").help("The prompt; without any, stdin is read");
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
