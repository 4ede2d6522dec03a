//! What a user wants by default: flags from a file and from the environment, below those that are typed.

use std::env;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, Id};
use toml::{Table, Value};

use crate::failure::Failure;
use crate::folders;
use crate::output::{OutputArgs, note};
use crate::small_file;

/// What the names of all variables begin with.
const PREFIX: &str = "AEROSTAT_";
/// The groups of flags that an environment variable may set, whatever the command.
const GROUPS: [&str; 2] = ["Engine", "Generation"];
/// Flags that are about one call only, or whose variable has another meaning.
const NEVER: [&str; 7] = ["help", "version", "yes", "restart", "json", "output", "input"];
/// `AEROSTAT_CACHE` is a folder for everything, and no flag.
const OTHER_MEANING: &str = "cache";
const FILE_BYTES_MAX: u64 = 1 << 20;
/// So much of a variable's name is told.
const NAME_CHARS_MAX: usize = 60;
/// What variables that are no flags' defaults have after the prefix; the build and the tests have some of their own.
const OTHERS: [&str; 8] = ["api_key", "cache", "command", "commit", "config", "mutations", "rows", "shards"];

/// The command with the user's defaults in the place of its own: those of the file, and over them those of the environment.
pub(crate) fn apply(command: Command) -> Result<Command, Failure> {
    let mut command = match file()? {
        Some((path, table)) => from_table(command, &path, &table)?,
        None => command,
    };
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    // Variables that other commands take are not read.
    let typed =
        env::args_os().skip(1).find_map(|arg| arg.into_string().ok().filter(|arg| !arg.starts_with('-')));
    let typed = typed.unwrap_or_default();
    if let Some(sub) = command.find_subcommand(&typed) {
        let found = from_environment(sub, &variable)?;
        command = command.mut_subcommand(typed, |sub| with_defaults(sub, found));
    }
    Ok(command)
}

/// The file of defaults, if there is one.
fn file() -> Result<Option<(PathBuf, Table)>, Failure> {
    let named = env::var_os("AEROSTAT_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    let is_named = named.is_some();
    let Some(path) = named.or_else(|| Some(folders::config()?.join("config.toml"))) else { return Ok(None) };
    let wrong = |e: &dyn std::fmt::Display| Failure::usage(format!("{}: {e}", path.display()));
    let text = match small_file::read(&path, FILE_BYTES_MAX) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_named => return Ok(None),
        text => text.map_err(|e| wrong(&e))?,
    };
    let table = text.parse::<Table>().map_err(|e| wrong(&e.to_string().trim_end()))?;
    Ok(Some((path, table)))
}

/// Keys beside sections are flags of every command that has them; a section's are those of the command of its name.
fn from_table(mut command: Command, path: &Path, table: &Table) -> Result<Command, Failure> {
    let place = |section: &str, key: &str| match section {
        "" => format!("{}: `{key}`", path.display()),
        _ => format!("{}: `{key}` in [{section}]", path.display()),
    };
    for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
        let text =
            text_of(value).ok_or_else(|| Failure::usage(format!("{} is no plain value", place("", key))))?;
        let mut known = false;
        let names: Vec<String> =
            command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for name in names {
            let (next, found) = set(command, Some(&name), key, &text, &place("", key))?;
            (command, known) = (next, known || found);
        }
        let (next, found) = set(command, None, key, &text, &place("", key))?;
        command = next;
        if !known && !found {
            return Err(Failure::usage(format!(
                "{}: no command has a flag of this name that can be set here",
                place("", key)
            )));
        }
    }
    for (section, values) in table {
        let Value::Table(values) = values else { continue };
        if !command.get_subcommands().any(|command| command.get_name() == section) {
            return Err(Failure::usage(format!("{}: [{section}] is no command", path.display())));
        }
        for (key, value) in values {
            let place = place(section, key);
            let text = text_of(value).ok_or_else(|| Failure::usage(format!("{place} is no plain value")))?;
            let (next, found) = set(command, Some(section), key, &text, &place)?;
            command = next;
            if !found {
                return Err(Failure::usage(format!(
                    "{place}: `aerostat {section}` has no flag of this name that can be set here"
                )));
            }
        }
    }
    Ok(command)
}

/// A text, a number or a truth value as one would type it.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(n) => Some(n.to_string()),
        Value::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// Gives a flag of a subcommand, or of the command itself, another default; says whether there is such a flag.
fn set(
    command: Command,
    subcommand: Option<&str>,
    key: &str,
    text: &str,
    place: &str,
) -> Result<(Command, bool), Failure> {
    let flag = {
        let of = subcommand.map_or(Some(&command), |name| command.find_subcommand(name));
        of.and_then(|of| of.get_arguments().find(|arg| may_be_set(arg, key)).cloned())
    };
    let Some(flag) = flag else { return Ok((command, false)) };
    check(&flag, text, place)?;
    let id = flag.get_id().clone();
    let command = match subcommand {
        Some(name) => command.mut_subcommand(name, |sub| sub.mut_arg(id, |arg| default(arg, text))),
        None => command.mut_arg(id, |arg| default(arg, text)),
    };
    Ok((command, true))
}

fn may_be_set(arg: &Arg, key: &str) -> bool {
    arg.get_long() == Some(key) && !NEVER.contains(&key) && !arg.is_required_set() && !arg.is_positional()
}

/// The flag with another default. Those few live as long as the process, as clap wants it.
fn default(arg: Arg, text: &str) -> Arg {
    arg.default_value(&*text.to_owned().leak())
}

/// Refuses what the flag itself would refuse, and says where it stands.
fn check(flag: &Arg, text: &str, place: &str) -> Result<(), Failure> {
    let long = flag.get_long().unwrap_or_default();
    let alone = Arg::new("flag")
        .long(&*long.to_owned().leak())
        .value_parser(flag.get_value_parser().clone())
        .action(ArgAction::Set);
    let found = Command::new("aerostat")
        .arg(alone)
        .try_get_matches_from(["aerostat".to_owned(), format!("--{long}={text}")]);
    let reason = |e: clap::Error| {
        let text = e.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.rsplit_once("': ")
            .or(line.split_once(": "))
            .map_or(line.to_owned(), |(_, reason)| reason.to_owned())
    };
    found.map(drop).map_err(|e| Failure::usage(format!("{place} = {text:?}: {}", reason(e))))
}

/// Defaults of flags, by their ids.
type Found = Vec<(Id, String)>;

fn with_defaults(command: Command, found: Found) -> Command {
    found.into_iter().fold(command, |command, (id, text)| command.mut_arg(id, |arg| default(arg, &text)))
}

/// Says of variables with our prefix that they do nothing, as those do that are spelt wrongly.
pub(crate) fn tell_unknown(command: &Command, output: &OutputArgs) {
    let given = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in unknown_variables(command, given) {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        note(output, &format!("{name} is set, and no flag takes its default from it"));
    }
}

/// Variables with our prefix that no command takes, of those given.
fn unknown_variables(command: &Command, given: impl Iterator<Item = String>) -> Vec<String> {
    let known = |name: &str| {
        let is = |flag: &Arg| variable_of(flag).is_some_and(|variable| variable == name);
        let own = name.strip_prefix(PREFIX).is_some_and(|rest| OTHERS.contains(&&*rest.to_ascii_lowercase()));
        own || command.get_subcommands().any(|sub| sub.get_arguments().any(is))
    };
    given.filter(|name| name.starts_with(PREFIX) && !known(name)).collect()
}

/// The variable that gives a flag's default, if there is one.
fn variable_of(flag: &Arg) -> Option<String> {
    let (long, group) = (flag.get_long()?, flag.get_help_heading()?);
    let has = GROUPS.contains(&group) && long != OTHER_MEANING && may_be_set(flag, long);
    has.then(|| format!("{PREFIX}{}", long.to_ascii_uppercase().replace('-', "_")))
}

/// What `AEROSTAT_MEMORY` and its like say of the flags of a command.
fn from_environment(command: &Command, variable: &dyn Fn(&str) -> Option<String>) -> Result<Found, Failure> {
    let mut found = Vec::new();
    for flag in command.get_arguments() {
        let Some(name) = variable_of(flag) else { continue };
        if let Some(text) = variable(&name) {
            check(flag, &text, &name)?;
            found.push((flag.get_id().clone(), text));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::parser::ValueSource;

    use super::*;
    use crate::args::Cli;

    fn with(text: &str) -> Result<Command, Failure> {
        from_table(Cli::command(), Path::new("/c.toml"), &text.parse::<Table>().unwrap())
    }

    fn value(command: Command, args: &[&str], id: &str) -> Option<String> {
        let matches = command.try_get_matches_from([&["aerostat"], args].concat()).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        let raw = matches.get_raw(id)?.next()?.to_str()?.to_owned();
        (matches.value_source(id) != Some(ValueSource::CommandLine))
            .then(|| raw.clone())
            .or(Some(format!("typed {raw}")))
    }

    #[test]
    fn what_is_typed_goes_over_the_environment_over_sections_over_the_rest() {
        let file = "memory = \"4GiB\"\n[run]\nmemory = \"2GiB\"\ntemperature = 0.5\nno-learn = true\n";
        let memory = |args: &[&str]| value(with(file).unwrap(), args, "memory");
        assert_eq!(memory(&["chat", "m"]).as_deref(), Some("4GiB"));
        assert_eq!(memory(&["run", "m"]).as_deref(), Some("2GiB"));
        assert_eq!(memory(&["run", "m", "--memory", "1GiB"]).as_deref(), Some("typed 1GiB"));
        assert_eq!(value(with(file).unwrap(), &["run", "m"], "no_learn").as_deref(), Some("true"));
        let environment = |name: &str| (name == "AEROSTAT_MEMORY").then(|| "3GiB".to_owned());
        let command = with(file).unwrap().mut_subcommand("run", |run| {
            let found = from_environment(&run, &environment).unwrap();
            with_defaults(run, found)
        });
        assert_eq!(value(command.clone(), &["run", "m"], "memory").as_deref(), Some("3GiB"));
        assert_eq!(
            value(command, &["run", "m", "--memory", "1GiB"], "memory").as_deref(),
            Some("typed 1GiB")
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (file, says) in [
            ("memry = \"4GiB\"", "/c.toml: `memry`: no command has a flag of this name"),
            ("memory = \"4 quarts\"", "/c.toml: `memory` = \"4 quarts\": `4 quarts` is not a size"),
            ("[runn]\nmemory = \"4GiB\"", "/c.toml: [runn] is no command"),
            ("[run]\nlabels = \"a,b\"", "/c.toml: `labels` in [run]: `aerostat run` has no flag"),
            ("[run]\ntemperature = \"hot\"", "/c.toml: `temperature` in [run] = \"hot\": expected a number"),
            ("json = true", "`json`: no command has a flag of this name that can be set here"),
            ("memory = [1]", "`memory` is no plain value"),
            ("io = \"fast\"", "expected auto, direct, uring or buffered"),
            ("no-learn = \"maybe\"", "`no-learn` = \"maybe\""),
        ] {
            let message = with(file).map(drop).unwrap_err().message();
            assert!(message.contains(says), "{file}: {message}");
        }
        let prefixed = |name: &str| format!("{PREFIX}{}", name.to_ascii_uppercase());
        let given = ["memory", "memroy", "config", "labels"].map(prefixed).into_iter();
        let unknown = unknown_variables(&Cli::command(), given.chain(["editor".to_owned()]));
        assert_eq!(unknown, ["memroy", "labels"].map(prefixed));
        let environment = |name: &str| (name == "AEROSTAT_TEMPERATURE").then(|| "hot".to_owned());
        let run = Cli::command().find_subcommand("run").unwrap().clone();
        let failure = from_environment(&run, &environment).unwrap_err();
        assert_eq!(failure.message(), "AEROSTAT_TEMPERATURE = \"hot\": expected a number of at least 0");
    }
}
