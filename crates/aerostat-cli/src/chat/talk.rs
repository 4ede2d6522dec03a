//! A conversation as it is kept: its messages, what of them fits the context, and files of them.

use std::fs;
use std::io::Write;
use std::path::Path;

use aerostat::Message;
use aerostat_openai::{Piece, Split};
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::small_file;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The roles of messages.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// A conversation.
#[derive(Clone, Debug, Default)]
pub(super) struct Talk {
    /// What the model is shown; the first may be the system's.
    pub(super) messages: Vec<Message>,
    /// Turns before those, for which its context has no room.
    dropped: Vec<Message>,
}

impl Talk {
    pub(super) fn new(messages: Vec<Message>) -> Self {
        Self { messages, dropped: Vec::new() }
    }

    /// All of it, with what was dropped in its place.
    pub(super) fn whole(&self) -> Vec<Message> {
        let (system, turns) = self.messages.split_at(self.turns());
        [system, &self.dropped, turns].concat()
    }

    /// Where the turns begin.
    fn turns(&self) -> usize {
        self.messages.iter().take_while(|message| message.role == "system").count()
    }

    /// Forgets the turns.
    pub(super) fn reset(&mut self) {
        self.messages.truncate(self.turns());
        self.dropped.clear();
    }

    /// Another system message, or none.
    pub(super) fn set_system(&mut self, text: &str) {
        self.messages.drain(..self.turns());
        if !text.is_empty() {
            self.messages.insert(0, Message::new("system", text));
        }
    }

    /// The same without its oldest turn, up to the next message of the user; `None` if that is the last.
    pub(super) fn without_oldest(&self) -> Option<Self> {
        let begin = self.turns();
        let later = self.messages.iter().enumerate().skip(begin + 1);
        let (next, _) = later.into_iter().find(|(_, message)| message.role == "user")?;
        let mut less = self.clone();
        less.dropped.extend(less.messages.drain(begin..next));
        Some(less)
    }

    /// Adds an answer. What the model thought stands beside it, and templates show it where they want it.
    pub(super) fn answered(&mut self, text: &str, split: Option<Split>) {
        let mut message = Message::new("assistant", text);
        if let Some(split) = split.filter(|split| split.may_hold_thoughts(text)) {
            let (mut thoughts, mut content) = (String::new(), String::new());
            let mut splitter = split.splitter();
            for piece in splitter.push(text).into_iter().chain(splitter.finish()) {
                match piece {
                    Piece::Thoughts(text) => thoughts += &text,
                    Piece::Content(text) => content += &text,
                    Piece::Call(..) | Piece::Arguments(..) => {}
                }
            }
            message.content = content.into();
            message.extra.insert("reasoning_content".to_owned(), thoughts.into());
        }
        self.messages.push(message);
    }

    /// Writes the conversation to a file, over one of its kind but over nothing else.
    pub(super) fn save(&self, file: &str) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Saved<'a> {
            messages: &'a [Message],
        }
        let path = Path::new(file);
        if path.exists() && Self::load(file).is_err() {
            return Err(Failure::usage(format!(
                "{file} is there and is no conversation: it is not written over"
            )));
        }
        let text = serde_json::to_string_pretty(&Saved { messages: &self.whole() })?;
        // Whole or not at all.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = folder.join(format!(".{name}.{}.part", std::process::id()));
        let written = fs::File::create(&part)
            .and_then(|mut to| writeln!(to, "{text}").and_then(|()| to.sync_all()))
            .and_then(|()| fs::rename(&part, path));
        written.map_err(|e| {
            let _ = fs::remove_file(&part);
            Failure::failed(format!("cannot write {file}: {e}"))
        })
    }

    /// Reads the conversation of a file: a list of messages, or an object with `messages`.
    pub(super) fn load(file: &str) -> Result<Self, Failure> {
        let wrong = |e: std::io::Error| Failure::failed(format!("cannot read {file}: {e}"));
        let text = small_file::read(Path::new(file), FILE_BYTES_MAX).map_err(wrong)?;
        let none = |e: serde_json::Error| Failure::failed(format!("{file} is no conversation: {e}"));
        let list = match serde_json::from_str(&text).map_err(none)? {
            Value::Object(mut members) => members.remove("messages").unwrap_or_default(),
            list => list,
        };
        let messages: Vec<Message> = serde_json::from_value(list).map_err(none)?;
        match messages.iter().find(|message| !ROLES.contains(&message.role.as_str())) {
            Some(message) => {
                let role: String = message.role.chars().take(40).collect();
                let known = ROLES.join(", ");
                Err(Failure::failed(format!("{file} is no conversation: {role:?} is no role ({known})")))
            }
            None => Ok(Self::new(messages)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(roles: &[&str]) -> Talk {
        Talk::new(roles.iter().map(|role| Message::new(*role, *role)).collect())
    }

    fn roles(talk: &Talk) -> Vec<&str> {
        talk.messages.iter().map(|message| message.role.as_str()).collect()
    }

    #[test]
    fn the_oldest_turns_go_first_and_the_last_message_stays() {
        let all = talk(&["system", "user", "assistant", "user", "assistant", "user"]);
        let less = all.without_oldest().unwrap();
        assert_eq!(roles(&less), ["system", "user", "assistant", "user"]);
        let least = less.without_oldest().unwrap();
        assert_eq!(roles(&least), ["system", "user"]);
        assert!(least.without_oldest().is_none() && talk(&[]).without_oldest().is_none());
        // They are what is saved all the same.
        let whole: Vec<String> = least.whole().into_iter().map(|message| message.role).collect();
        assert_eq!(whole, roles(&all));
    }

    #[test]
    fn the_system_message_is_replaced_and_outlives_the_turns() {
        let mut talk = talk(&["user", "assistant"]);
        talk.set_system("one");
        talk.set_system("two");
        assert_eq!(roles(&talk), ["system", "user", "assistant"]);
        talk.reset();
        assert_eq!((talk.messages.len(), talk.messages[0].content.as_str()), (1, Some("two")));
        talk.set_system("");
        assert!(talk.messages.is_empty());
    }

    #[test]
    fn thoughts_stand_beside_what_is_said() {
        let mut talk = Talk::default();
        talk.answered("<think>\nhm\n</think>\n\nyes", Some(Split::of_prompt("")));
        talk.answered("hm</think>yes", Some(Split::of_prompt("<think>\n")));
        talk.answered("\n yes", Some(Split::of_prompt("")));
        talk.answered("<think>\nhm\n</think>\n\nyes", None);
        let told: Vec<_> =
            talk.messages.iter().map(|m| (m.content.as_str().unwrap(), m.extra.len())).collect();
        assert_eq!(told, [("yes", 1), ("yes", 1), ("\n yes", 0), ("<think>\nhm\n</think>\n\nyes", 0)]);
    }
}
