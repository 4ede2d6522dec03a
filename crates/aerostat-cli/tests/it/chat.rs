//! Chat on a terminal.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{command, fixture};
use crate::terminal::Terminal;

/// Answers that nobody waits for.
const ENDLESS: [&str; 6] =
    ["--ignore-eos", "--max-new-tokens", "200000", "--context", "250000", "--no-cache"];

fn chat(home: &Path, columns: u16, args: &[&str]) -> Terminal {
    let model = fixture("chat");
    let mut command = command(&[&["chat", model.to_str().unwrap(), "--temperature", "0"], args].concat());
    command.env("XDG_STATE_HOME", home).env("AEROSTAT_CACHE", home.join("cache"));
    let mut terminal = Terminal::start(&command, columns);
    terminal.wait_for("Ctrl-D ends");
    terminal.wait_for_prompt();
    terminal
}

fn short(home: &Path, columns: u16) -> Terminal {
    chat(home, columns, &["--max-new-tokens", "4"])
}

/// What stands in a file that `/save` wrote, role by role.
fn saved(terminal: &mut Terminal, file: &Path) -> Vec<(String, String)> {
    terminal.keys(&format!("/save {}\r", file.display()));
    terminal.wait_for("messages to");
    terminal.wait_for_prompt();
    let text = fs::read_to_string(file).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let member = |message: &Value, name: &str| message[name].as_str().unwrap().to_owned();
    let messages = value["messages"].as_array().unwrap();
    messages.iter().map(|message| (member(message, "role"), member(message, "content"))).collect()
}

#[test]
fn ctrl_c_stops_an_answer_and_twice_at_the_prompt_the_chat() {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = chat(home.path(), 80, &ENDLESS);
    for _ in 0..2 {
        terminal.keys("hello\r");
        terminal.wait_for("decode");
        terminal.keys("\x03");
        terminal.wait_for("note: stopped");
        terminal.wait_for_prompt();
    }
    let messages = saved(&mut terminal, &home.path().join("talk.json"));
    let roles: Vec<&str> = messages.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    terminal.keys("\x03");
    terminal.wait_for("Ctrl-C again ends the chat");
    terminal.wait_for_prompt();
    terminal.keys("\x03");
    assert_eq!(terminal.end().code(), Some(130));
}

#[test]
fn what_is_typed_while_an_answer_comes_waits_for_the_prompt() {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = chat(home.path(), 80, &ENDLESS);
    terminal.keys("hello\r");
    // The editor had left the marks of pastes, so that terminals sent a paste as lines, each of which became a message.
    terminal.wait_for("\x1b[?2004l");
    let begun = terminal.wait_for("decode");
    assert!(begun.contains("\x1b[?2004h"), "{begun:?}");
    // A whole paste of two lines, and a line that is sent.
    terminal.keys("zqx\x1b[200~ one\ntwo\x1b[201~\rzqy");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!terminal.shown().contains("zqx"), "{}", terminal.shown());
    terminal.keys("\x03");
    let before = terminal.wait_for("note: stopped");
    assert!(!before.contains("zqx"), "{before}");
    terminal.wait_for("decode");
    terminal.keys("\x03");
    terminal.wait_for("note: stopped");
    terminal.wait_for("zqy");
    terminal.keys("\x15");
    let messages = saved(&mut terminal, &home.path().join("talk.json"));
    assert_eq!(messages[2], ("user".to_owned(), "zqx one\ntwo".to_owned()));
    terminal.keys("\x04");
    terminal.wait_for("\x1b[?2004l");
    terminal.wait_for("\x1b[?2004l");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn messages_of_several_lines_in_any_script_at_any_width() {
    for columns in [60, 140] {
        let home = tempfile::tempdir().unwrap();
        let mut terminal = short(home.path(), columns);
        let wide = "你好，世界 👩‍👩‍👧 ".repeat(6);
        for keys in [
            "\"\"\"\rfirst\r  second\r\r\"\"\"\r".to_owned(),
            "one\\\rtwo\\\rthree\r".to_owned(),
            "\x1b[200~fn main() {\n    x \\\n    y\n}\x1b[201~\r".to_owned(),
            // Typed, edited at the far end, and sent.
            format!("{wide}x\x7fé\r"),
        ] {
            terminal.keys(&keys);
            terminal.wait_for("--max-new-tokens");
            terminal.wait_for_prompt();
        }
        let messages = saved(&mut terminal, &home.path().join("talk.json"));
        let typed: Vec<&str> =
            messages.iter().filter(|(role, _)| role == "user").map(|(_, text)| text.as_str()).collect();
        let wide = format!("{wide}é");
        assert_eq!(typed, ["first\n  second", "one\ntwo\nthree", "fn main() {\n    x \\\n    y\n}", &wide]);
        terminal.keys("/exit\r");
        assert_eq!(terminal.end().code(), Some(0));
    }
}

#[test]
fn commands_change_the_conversation() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("talk.json");
    let mut terminal = short(home.path(), 100);
    let say = |terminal: &mut Terminal, keys: &str, shows: &str| {
        terminal.keys(keys);
        terminal.wait_for(shows);
        terminal.wait_for_prompt();
    };
    say(&mut terminal, "/foo\r", "error: there is no command /foo");
    say(&mut terminal, "/help\r", "/think [on|off|auto]");
    say(&mut terminal, "/system You are brief.\r", "");
    say(&mut terminal, "hello\r", "--max-new-tokens");
    say(&mut terminal, " /usr/bin\r", "--max-new-tokens");
    let messages = saved(&mut terminal, &file);
    let roles: Vec<&str> = messages.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!((&*messages[0].1, &*messages[3].1), ("You are brief.", "/usr/bin"));
    say(&mut terminal, "/reset\r", "");
    assert_eq!(saved(&mut terminal, &home.path().join("other.json")).len(), 1);
    say(&mut terminal, &format!("/load {}\r", file.display()), "note: 5 messages from");
    say(&mut terminal, "/set temperature 0.5\r", "");
    say(&mut terminal, "/set temperature hot\r", "error: /set temperature: expected a number");
    say(&mut terminal, "/set\r", "temperature 0.5");
    say(&mut terminal, "/set max-new-tokens 2\r", "");
    say(&mut terminal, "go on\r", "stopped at 2 tokens");
    say(&mut terminal, "/think off\r", "no switch for thoughts");
    // No file of somebody else's is written over, and none that is not there is read.
    let precious = home.path().join("thesis.txt");
    fs::write(&precious, "years of work").unwrap();
    say(&mut terminal, &format!("/save {}\r", precious.display()), "is not written over");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "years of work");
    say(&mut terminal, "/load /nonexistent\r", "cannot read /nonexistent");
    terminal.keys("\x04");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn the_arrow_keys_bring_back_what_was_typed_in_earlier_chats() {
    let home = tempfile::tempdir().unwrap();
    let mut first = short(home.path(), 80);
    first.keys("from before\r");
    first.wait_for("--max-new-tokens");
    first.wait_for_prompt();
    first.keys("\x04");
    first.end();
    let history = home.path().join("aerostat/chat_history");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o077, 0, "others can read it");
    }
    let mut second = short(home.path(), 80);
    second.keys("\x1b[A\r");
    second.wait_for("--max-new-tokens");
    second.wait_for_prompt();
    let messages = saved(&mut second, &home.path().join("talk.json"));
    assert_eq!(messages[0].1, "from before");
    second.signal("-TERM");
    assert_eq!(second.end().code(), Some(130));
}

/// Before, an answer was cut without a word, and every message after it refused.
#[test]
fn a_full_context_drops_the_oldest_turns_with_a_note() {
    let home = tempfile::tempdir().unwrap();
    let args = ["--context", "64", "--max-new-tokens", "8", "--ignore-eos", "--system", "Be brief."];
    let mut terminal = chat(home.path(), 80, &args);
    let mut dropped = 0;
    for _ in 0..6 {
        terminal.keys("tell me more\r");
        dropped += usize::from(terminal.wait_for("--max-new-tokens").contains("messages are dropped"));
        terminal.wait_for_prompt();
    }
    assert!((1..6).contains(&dropped), "{dropped}");
    let messages = saved(&mut terminal, &home.path().join("talk.json"));
    assert_eq!(messages[0].0, "system");
    assert_eq!(messages.last().unwrap().0, "assistant");
    terminal.keys(&format!("{}\r", "word ".repeat(80)));
    terminal.wait_for("in a context of 64; raise --context");
    terminal.wait_for_prompt();
    let after = saved(&mut terminal, &home.path().join("talk.json"));
    assert_eq!(after, messages, "a message that cannot be answered leaves the conversation as it was");
    terminal.keys("\x04");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn sigterm_ends_a_chat_in_the_middle_of_an_answer() {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = chat(home.path(), 80, &ENDLESS);
    terminal.keys("hello\r");
    terminal.wait_for("decode");
    terminal.signal("-TERM");
    assert_eq!(terminal.end().code(), Some(130));
}

/// A terminal that knows no codes once got those of the line editor and of the status line.
#[test]
fn a_terminal_without_codes_is_sent_none() {
    let (home, model) = (tempfile::tempdir().unwrap(), fixture("chat"));
    let mut command =
        command(&["chat", model.to_str().unwrap(), "--temperature", "0", "--max-new-tokens", "4"]);
    command.env("XDG_STATE_HOME", home.path()).env("AEROSTAT_CACHE", home.path().join("cache"));
    command.env("TERM", "dumb");
    let mut terminal = Terminal::start(&command, 80);
    let begun = terminal.wait_for("Ctrl-D ends");
    terminal.keys("hello\r");
    let answered = terminal.wait_for("stopped at 4 tokens");
    terminal.keys("\x04");
    let ended = terminal.shown();
    assert!(![&begun, &answered, &ended].iter().any(|shown| shown.contains('\x1b')), "{answered:?}");
    assert!(terminal.end().success());
}
