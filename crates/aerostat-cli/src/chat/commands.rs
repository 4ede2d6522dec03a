//! What begins with a slash.

/// The commands, with what they take and do.
const COMMANDS: [(&str, &str, &str); 8] = [
    ("/reset", "", "forgets the conversation; the system message stays"),
    ("/system", "[TEXT]", "sets the system message; without TEXT there is none any more"),
    (
        "/think",
        "[on|off|auto]",
        "lets the model think first, or not, where its chat template has a switch; auto is its own way",
    ),
    (
        "/set",
        "[NAME VALUE]",
        "sets temperature, top-p, top-k, min-p, repetition-penalty, seed or max-new-tokens; alone, shows them",
    ),
    ("/save", "FILE", "writes the conversation to a file, as JSON"),
    ("/load", "FILE", "goes on with the conversation of such a file"),
    ("/help", "", "shows this"),
    ("/exit", "", "ends; so do Ctrl-D and Ctrl-C, twice"),
];

/// What somebody wants who does not talk to the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Exit,
    Help,
    Reset,
    /// Without a text: no system message.
    System(&'a str),
    Think(Option<bool>),
    Show,
    Set(&'a str, &'a str),
    Save(&'a str),
    Load(&'a str),
}

/// A command; `None` if the text is a message. What begins with a space is one.
pub(super) fn parse(text: &str) -> Option<Result<Command<'_>, String>> {
    let text = text.strip_prefix('/')?;
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let takes = |what: &str| Err(format!("/{name} takes {what}"));
    let alone = |command| if rest.is_empty() { Ok(command) } else { takes("nothing") };
    Some(match name {
        "exit" | "quit" | "bye" => alone(Command::Exit),
        "help" | "?" => alone(Command::Help),
        "reset" | "clear" => alone(Command::Reset),
        "system" => Ok(Command::System(rest)),
        "think" => match rest {
            "" | "on" => Ok(Command::Think(Some(true))),
            "off" => Ok(Command::Think(Some(false))),
            "auto" => Ok(Command::Think(None)),
            _ => takes("on, off or auto"),
        },
        "set" if rest.is_empty() => Ok(Command::Show),
        "set" => match rest.split_once(char::is_whitespace) {
            Some((setting, value)) => Ok(Command::Set(setting.trim_start_matches('-'), value.trim())),
            None => takes("a name and a value, such as /set temperature 0.7"),
        },
        "save" | "load" if rest.is_empty() => takes("a file"),
        "save" => Ok(Command::Save(rest)),
        "load" => Ok(Command::Load(rest)),
        _ => Err(format!(
            "there is no command /{name}; /help shows those there are. (A message may begin with a space.)"
        )),
    })
}

/// What `/help` shows.
pub(super) fn help() -> String {
    let call = |(name, takes, _): &(&str, &str, &str)| format!("{name} {takes}");
    let width = COMMANDS.iter().map(|command| call(command).len()).max().unwrap_or(0);
    let mut text = String::new();
    for command in &COMMANDS {
        text += &format!("{:width$}  {}\n", call(command), command.2);
    }
    text + "A message goes on over several lines between \"\"\" and \"\"\", or after a \\ at the end of a line.\n\
            Ctrl-C stops an answer."
}

/// Commands that begin like this.
pub(super) fn beginning(typed: &str) -> impl Iterator<Item = &'static str> {
    let fits = move |name: &&str| typed.starts_with('/') && name.starts_with(typed);
    COMMANDS.iter().map(|(name, ..)| *name).filter(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_messages() {
        for (text, command) in [
            ("/exit", Command::Exit),
            ("/bye", Command::Exit),
            ("/system You are brief. ", Command::System("You are brief.")),
            ("/system", Command::System("")),
            ("/think", Command::Think(Some(true))),
            ("/think off", Command::Think(Some(false))),
            ("/set", Command::Show),
            ("/set temperature  0.5", Command::Set("temperature", "0.5")),
            ("/set --top-k 3", Command::Set("top-k", "3")),
            ("/save my talk.json", Command::Save("my talk.json")),
        ] {
            assert_eq!(parse(text), Some(Ok(command)), "{text}");
        }
        for text in
            ["/foo", "/usr/bin is what?", "/save", "/think maybe", "/set temperature", "/", "/exit now"]
        {
            assert!(parse(text).is_some_and(|command| command.is_err()), "{text}");
        }
        for text in ["hello", " /foo", "", "a/b"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
