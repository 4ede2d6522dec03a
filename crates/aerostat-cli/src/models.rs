//! `aerostat models` and `aerostat rm`: what is on this machine, and less of it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal};
use std::path::Path;
use std::time::SystemTime;

use aerostat::{Found, Store, size};
use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, OutputArgs, note, stderr};
use crate::{folders, model};

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Models as `aerostat models` names them; org/name alone stands for all of its revisions and files.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// What `models --json` prints.
#[derive(Serialize)]
struct Report<'a> {
    models: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    /// What a user gives as MODEL.
    model: &'a str,
    store: &'static str,
    #[serde(serialize_with = "output::path")]
    path: &'a Path,
    bytes: u64,
    /// Seconds since 1970; null where the system does not tell.
    used: Option<u64>,
    complete: bool,
}

/// What `rm --json` prints.
#[derive(Serialize)]
struct Removed {
    removed: Vec<String>,
    freed_bytes: u64,
}

pub(crate) fn models(_: &ModelsArgs, output: &OutputArgs) -> Result<(), Failure> {
    let found = folders::stores()?.list();
    if output.json {
        let models = found.iter().map(listed).collect();
        return output::json(&Report { models });
    }
    if found.is_empty() {
        note(output, "there are no models on this machine yet; `aerostat pull org/name` brings one");
    }
    Ok(output::text(&table(&found, SystemTime::now()))?)
}

fn listed(found: &Found) -> Listed<'_> {
    let used = found.used.and_then(|used| used.duration_since(SystemTime::UNIX_EPOCH).ok());
    Listed {
        model: &found.name,
        store: found.store.name(),
        path: &found.path,
        bytes: found.bytes,
        used: used.map(|used| used.as_secs()),
        complete: found.complete,
    }
}

fn table(found: &[Found], now: SystemTime) -> String {
    let mut text = String::new();
    let mut stores: BTreeMap<Store, Vec<&Found>> = BTreeMap::new();
    for model in found {
        stores.entry(model.store).or_default().push(model);
    }
    let width = found.iter().map(|found| found.name.chars().count()).max().unwrap_or(0);
    for (store, models) in stores {
        text += &format!("{}\n", store.name());
        for found in models {
            let used = found.used.map_or_else(String::new, |used| format!("  used {}", ago(now, used)));
            let part = if found.complete { "" } else { "  incomplete" };
            text += &format!("  {:width$}  {:>10}{used}{part}\n", found.name, size(found.bytes));
        }
    }
    text
}

/// How long ago, roughly.
fn ago(now: SystemTime, then: SystemTime) -> String {
    let seconds = now.duration_since(then).map_or(0, |since| since.as_secs());
    let some = |n: u64, unit: &str| format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" });
    match seconds {
        0..3600 => "within the hour".to_owned(),
        3600..86_400 => some(seconds / 3600, "hour"),
        86_400..5_184_000 => some(seconds / 86_400, "day"),
        _ => some(seconds / 2_592_000, "month"),
    }
}

pub(crate) fn rm(args: &RmArgs, output: &OutputArgs) -> Result<(), Failure> {
    let stores = folders::stores()?;
    let all = stores.list();
    let mut wanted: Vec<&Found> = Vec::new();
    for name in &args.models {
        let found = named(&all, &model::named(name))?;
        wanted.extend(
            found
                .into_iter()
                .filter(|found| !wanted.iter().any(|other| other.name == found.name))
                .collect::<Vec<_>>(),
        );
    }
    if let Some(other) = wanted.iter().find(|found| !matches!(found.store, Store::Hub | Store::Own)) {
        // It says whose it is.
        return Err(stores
            .remove(other)
            .map_err(aerostat::Error::from)
            .err()
            .map_or_else(|| Failure::failed("kept"), Failure::from));
    }
    if !args.yes {
        ask(&wanted)?;
    }
    let mut removed = Removed { removed: Vec::new(), freed_bytes: 0 };
    for found in wanted {
        removed.freed_bytes += stores.remove(found).map_err(aerostat::Error::from)?;
        removed.removed.push(found.name.clone());
    }
    match output.json {
        true => output::json(&removed),
        false => {
            note(output, &format!("{} freed", size(removed.freed_bytes)));
            Ok(())
        }
    }
}

/// The models that a name stands for.
fn named<'a>(all: &'a [Found], name: &str) -> Result<Vec<&'a Found>, Failure> {
    let is = |found: &&Found| found.name == name;
    let below = |found: &&Found| {
        let rest = found.name.strip_prefix(name);
        found.store == Store::Hub
            && !name.contains(['@', ':'])
            && rest.is_some_and(|rest| rest.starts_with(['@', ':']))
    };
    let found: Vec<&Found> = all.iter().filter(|found| is(found) || below(found)).collect();
    match found.is_empty() {
        true if Path::new(name).exists() => Err(Failure::usage(format!(
            "{name:?} is a path: `aerostat rm` removes what `aerostat models` lists by name, and no folders of yours"
        ))),
        true => {
            Err(Failure::usage(format!("{name:?} is not on this machine; `aerostat models` shows what is")))
        }
        false => Ok(found),
    }
}

fn ask(wanted: &[&Found]) -> Result<(), Failure> {
    let list: Vec<String> =
        wanted.iter().map(|found| format!("  {}  {}", found.name, size(found.bytes))).collect();
    let list = list.join("\n");
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("this would remove\n{list}\n--yes does it without asking")));
    }
    stderr(format_args!("This removes\n{list}\nType yes to go on: "));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "yes" | "y") {
        true => Ok(()),
        false => Err(Failure::failed("nothing was removed")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_told_roughly() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let of = |seconds: u64| ago(now, now - Duration::from_secs(seconds));
        assert_eq!(
            [5, 3600, 90_000, 8_000_000].map(of),
            ["within the hour", "1 hour ago", "1 day ago", "3 months ago"]
        );
    }
}
