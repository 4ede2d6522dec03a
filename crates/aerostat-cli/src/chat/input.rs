//! What is typed or piped into a conversation: lines become messages.

use std::borrow::Cow;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, GraphemeClusterMode,
    Helper, KeyCode, KeyEvent, Modifiers, RepeatCount,
};

use super::commands;
use crate::failure::Failure;
use crate::output::{OutputArgs, note, stderr, tell};
use crate::{folders, terminal};

/// The longest message that is read.
const MESSAGE_BYTES_MAX: u64 = 16 << 20;
/// Messages of earlier conversations that the arrow keys bring back.
const HISTORY_MAX: usize = 1000;
const PROMPT: &str = "> ";
/// What stands between pictures that are shown as one.
const JOINER: char = '\u{200d}';
/// What a message of several lines begins and ends with.
const QUOTES: &str = "\"\"\"";

/// What came.
pub(super) enum Typed {
    /// A message or a command, whole.
    Text(String),
    /// Ctrl-C, before there was one.
    Interrupt,
    /// Nothing more will come.
    End,
}

/// Where messages come from.
pub(super) enum Input {
    /// A terminal.
    Editor(Box<LineEditor>),
    /// Anything else, or a terminal whose answers go somewhere else.
    Lines {
        /// Somebody types them.
        prompts: bool,
    },
}

/// The line editor, and the file of what was typed before.
pub(super) struct LineEditor {
    editor: Editor<Typing, FileHistory>,
    continued: Places,
    history: Option<PathBuf>,
}

impl Input {
    /// A line editor where a person sits at both ends, else stdin as it is.
    pub(super) fn new(output: &OutputArgs) -> Result<Self, Failure> {
        if !terminal::attended() {
            return Ok(Self::Lines { prompts: io::stdin().is_terminal() });
        }
        LineEditor::new(output).map(|editor| Self::Editor(Box::new(editor)))
    }

    /// Whether a person types, who can try again.
    pub(super) fn attended(&self) -> bool {
        !matches!(self, Self::Lines { prompts: false })
    }

    /// Waits for the next message.
    pub(super) fn next(&mut self) -> Result<Typed, Failure> {
        match self {
            Self::Editor(editor) => editor.next(),
            Self::Lines { prompts } => read_message(*prompts),
        }
    }
}

impl LineEditor {
    fn new(output: &OutputArgs) -> Result<Self, Failure> {
        let config = Config::builder().max_history_size(HISTORY_MAX).map_err(failed)?;
        let config = config.history_ignore_space(true).auto_add_history(false).build();
        let joins = config.grapheme_cluster_mode() != GraphemeClusterMode::WcWidth;
        let mut editor: Editor<Typing, FileHistory> = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Typing { joins }));
        let enter = KeyEvent(KeyCode::Enter, Modifiers::NONE);
        let continued = Places::default();
        editor.bind_sequence(enter, EventHandler::Conditional(Box::new(Continues(continued.clone()))));
        let history = folders::state().map(|folder| folder.join("chat_history"));
        if let Some(file) = &history
            && file.exists()
            && let Err(error) = editor.load_history(file)
        {
            note(output, &format!("cannot read {}: {error}", file.display()));
        }
        Ok(Self { editor, continued, history })
    }

    fn next(&mut self) -> Result<Typed, Failure> {
        self.continued.take();
        let read = self.editor.readline(PROMPT);
        // While the answer is written, several lines that are pasted stay one message.
        terminal::mark_paste();
        match read {
            Ok(mut text) => {
                for at in self.continued.take() {
                    if text.get(at..).is_some_and(|rest| rest.starts_with("\\\n")) {
                        text.remove(at);
                    }
                }
                self.remember(&text);
                Ok(Typed::Text(unquoted(&text)))
            }
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => Ok(Typed::Interrupt),
            // A terminal that went away.
            Err(ReadlineError::Io(e)) if e.raw_os_error() == Some(5) => Ok(Typed::End),
            Err(e) => Err(failed(e)),
        }
    }

    /// Adds a message to the history. Where that cannot be written, the arrow keys know it until the end of this conversation.
    fn remember(&mut self, text: &str) {
        let added = !text.trim().is_empty() && self.editor.add_history_entry(text).unwrap_or(false);
        if let (Some(file), true) = (&self.history, added) {
            let _ = file.parent().map(fs::create_dir_all);
            let _ = self.editor.append_history(file);
        }
    }
}

fn failed(error: ReadlineError) -> Failure {
    Failure::failed(format!("cannot read from the terminal: {error}"))
}

/// How the editor behaves: which messages go on, and what the Tab key completes.
struct Typing {
    /// The editor counts pictures that are joined to one, such as a family, as one; else it counts each.
    joins: bool,
}

impl Helper for Typing {}
impl Hinter for Typing {
    type Hint = String;
}

impl Highlighter for Typing {
    fn highlight<'l>(&self, line: &'l str, _place: usize) -> Cow<'l, str> {
        if self.joins { Cow::Borrowed(line) } else { unjoined(line) }
    }

    /// Characters that are joined cannot be added to those that are shown: the whole line is drawn anew.
    fn highlight_char(&self, line: &str, _place: usize, _kind: CmdKind) -> bool {
        !self.joins && line.contains(JOINER)
    }
}

impl Completer for Typing {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        place: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..place).unwrap_or_default();
        Ok((0, commands::beginning(typed).map(str::to_owned).collect()))
    }
}

impl Validator for Typing {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_open(context.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

/// A line without what joins pictures. Terminals disagree how wide joined ones are, and where the editor takes another width
/// than the terminal, what follows is drawn over them or behind a gap.
fn unjoined(line: &str) -> Cow<'_, str> {
    if !line.contains(JOINER) {
        return Cow::Borrowed(line);
    }
    let nexts = line.chars().skip(1).map(Some).chain([None]);
    // Letters are joined in other ways, which do not change their width.
    let kept =
        line.chars().zip(nexts).filter(|(c, next)| *c != JOINER || next.is_none_or(char::is_alphabetic));
    Cow::Owned(kept.map(|(c, _)| c).collect())
}

/// Places of backslashes that Enter was pressed after, which are no part of the message. Those that were pasted are.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<Vec<usize>>>);

impl Places {
    fn list(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last first, each once; none are left.
    fn take(&self) -> Vec<usize> {
        let mut places = std::mem::take(&mut *self.list());
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        places
    }
}

/// Enter after a backslash: the message goes on, on a line of its own.
struct Continues(Places);

impl ConditionalEventHandler for Continues {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        let ends = context.pos() == context.line().len() && context.line().ends_with('\\');
        ends.then(|| {
            self.0.list().push(context.pos() - 1);
            Cmd::Newline
        })
    }
}

/// Whether a message begins with quotes that nothing closes yet.
fn is_open(text: &str) -> bool {
    let Some(inside) = text.trim_start().strip_prefix(QUOTES) else { return false };
    !inside.trim_end().ends_with(QUOTES)
}

/// A message of several lines without the quotes around it.
fn unquoted(text: &str) -> String {
    let inside = text.trim().strip_prefix(QUOTES).and_then(|text| text.strip_suffix(QUOTES));
    inside.map_or_else(|| text.to_owned(), |text| text.trim_matches('\n').to_owned())
}

/// The next message of stdin.
fn read_message(prompts: bool) -> Result<Typed, Failure> {
    let mut text = String::new();
    loop {
        if prompts {
            stderr(format_args!("{PROMPT}"));
        }
        let before = text.len();
        let read = io::stdin().lock().take(MESSAGE_BYTES_MAX + 1).read_line(&mut text);
        let read = read.map_err(|e| Failure::failed(format!("cannot read from stdin: {e}")))?;
        if text.len() as u64 > MESSAGE_BYTES_MAX {
            let message = format!("a message on stdin is longer than {MESSAGE_BYTES_MAX} bytes");
            return Err(Failure::failed(message));
        }
        if read == 0 {
            if prompts {
                tell!("");
            }
            return Ok(if before == 0 { Typed::End } else { Typed::Text(unquoted(&text)) });
        }
        let line = text.trim_end_matches(['\n', '\r']);
        if line.ends_with('\\') && !is_open(line) {
            text.truncate(line.len() - 1);
            text.push('\n');
        } else if !is_open(line) {
            return Ok(Typed::Text(unquoted(line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In tmux a family was once torn: the editor had counted six columns for it, and the terminal had used two.
    #[test]
    fn pictures_are_shown_one_by_one_where_terminals_disagree() {
        assert_eq!(unjoined("a 👩‍👩‍👧 b 🏳️‍🌈"), "a 👩👩👧 b 🏳️🌈");
        for same in ["plain", "👍🏽 ❤️", "क्‍ष", "👩\u{200d}"] {
            assert_eq!(unjoined(same), same);
        }
    }

    #[test]
    fn quotes_hold_lines_together() {
        for (text, open, inside) in [
            ("hello", false, "hello"),
            (" hello ", false, " hello "),
            ("\"\"\"", true, "\"\"\""),
            ("\"\"\"a\nb", true, "\"\"\"a\nb"),
            ("\"\"\"a\nb\"\"\"", false, "a\nb"),
            ("\"\"\"\n  a\n\n b\n\"\"\"  ", false, "  a\n\n b"),
            ("\"\"\"\"\"\"", false, ""),
            ("say \"\"\"", false, "say \"\"\""),
        ] {
            assert_eq!((is_open(text), &*unquoted(text)), (open, inside), "{text}");
        }
    }
}
