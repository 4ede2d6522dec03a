//! `docs/flags.md`, made from the command line itself, so that no flag is missing there.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::args::Cli;

const HEAD: &str = "# Flags

Every flag of every command, made from the command line itself by a test, which says how to renew this page.
`aerostat COMMAND --help` prints the same. A command's own flags come first; *Generation*, *Engine* and *Tables* are groups
that several commands share and are described once, at the end. Sizes are written as `4GiB`, `512MB` or `65536`: with `B`
alone, powers of 1000 (`GB`); with `iB` or nothing behind the letter, powers of 1024 (`GiB`, `G`).
";

#[test]
fn the_page_of_flags_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let want = page();
    let found = std::fs::read_to_string(root.join("docs/flags.md")).unwrap_or_default();
    let made = root.join("target/tmp/flags.md");
    std::fs::create_dir_all(made.parent().unwrap()).unwrap();
    std::fs::write(&made, &want).unwrap();
    assert!(found == want, "docs/flags.md is out of date; renew it: cp target/tmp/flags.md docs/flags.md");
}

fn page() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut text = HEAD.to_owned();
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for command in cli.get_subcommands().filter(|c| c.get_name() != "help") {
        section(&mut text, &mut groups, "aerostat", command);
    }
    let _ = writeln!(text, "\n## All commands take\n\n{TABLE}");
    for arg in shown(&cli).filter(|arg| arg.is_global_set()) {
        text.push_str(&row(arg));
    }
    for (name, rows) in groups {
        let _ = write!(text, "\n## Group: {name}\n\n{TABLE}\n{}", rows.concat());
    }
    text
}

const TABLE: &str = "| | meaning |\n|---|---|";

/// One command: what it is, how it is called, its flags; flags of groups are collected.
fn section(text: &mut String, groups: &mut Vec<(String, Vec<String>)>, above: &str, command: &Command) {
    let name = format!("{above} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, "\n## {name}\n\n{about}");
    let (mut own, mut named) = (String::new(), Vec::new());
    for arg in shown(command).filter(|arg| !arg.is_global_set()) {
        let Some(heading) = arg.get_help_heading() else {
            own.push_str(&row(arg));
            continue;
        };
        let place = groups.iter().position(|(name, _)| name == heading).unwrap_or_else(|| {
            groups.push((heading.to_owned(), Vec::new()));
            groups.len() - 1
        });
        if !named.contains(&heading) {
            named.push(heading);
        }
        let rows = &mut groups[place].1;
        if !rows.contains(&row(arg)) {
            rows.push(row(arg));
        }
    }
    if !own.is_empty() {
        let _ = write!(text, "\n{TABLE}\n{own}");
    }
    if !named.is_empty() {
        let links: Vec<String> =
            named.iter().map(|name| format!("[{name}](#group-{})", name.to_lowercase())).collect();
        let _ = writeln!(text, "\nGroups: {}.", links.join(", "));
    }
    for deeper in command.get_subcommands().filter(|c| c.get_name() != "help") {
        section(text, groups, &name, deeper);
    }
}

/// What `--help` shows, but for `--help` and `--version` themselves.
fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    let told = |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    command.get_arguments().filter(told)
}

fn row(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string);
    let value = names.collect::<Vec<_>>().join(" ");
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let mut call = match (arg.get_short(), arg.get_long()) {
        (None, None) => value.clone(),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
    };
    if takes && !arg.is_positional() {
        let optional = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
        call += &if optional { format!("[={value}]") } else { format!(" {value}") };
    }
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut help = help.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned();
    let choices = arg.get_possible_values();
    let choices: Vec<&str> =
        choices.iter().filter(|choice| takes && !choice.is_hide_set()).map(|c| c.get_name()).collect();
    if !choices.is_empty() {
        let _ = write!(help, ": {}", choices.join(", "));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|d| d.to_string_lossy().into_owned()).collect();
    if takes && !defaults.is_empty() {
        let _ = write!(help, ". Default: `{}`", defaults.join(","));
    }
    if arg.is_required_set() && !arg.is_positional() {
        help += ". Required";
    }
    format!("| `{call}` | {} |\n", help.replace('|', "\\|"))
}
