//! `aerostat completions` and `aerostat man`: what shells and manuals know of the command line.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::output::{self, OutputArgs, note};

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder for the pages, such as ~/.local/share/man/man1.
    folder: PathBuf,
}

/// Prints a script of completions.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "aerostat", &mut script);
    Ok(output::text(&String::from_utf8_lossy(&script))?)
}

/// Writes a page for the command and one for each of its subcommands.
pub(crate) fn man(args: &ManArgs, mut command: Command, output: &OutputArgs) -> Result<(), Failure> {
    let folder = &args.folder;
    let wrong = |e: std::io::Error| Failure::failed(format!("cannot write to {}: {e}", folder.display()));
    fs::create_dir_all(folder).map_err(wrong)?;
    command.build();
    let mut pages = vec![command];
    let mut count = 0;
    while let Some(mut command) = pages.pop() {
        let deeper = command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned();
        pages.extend(deeper);
        let name = command.get_display_name().unwrap_or("aerostat").to_owned();
        // Its own name would stand for another program's.
        command = command.name(&*name.clone().leak());
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(wrong)?;
        fs::write(folder.join(format!("{name}.1")), page).map_err(wrong)?;
        count += 1;
    }
    note(output, &format!("{count} pages in {}", folder.display()));
    Ok(())
}
