//! `gattway completions` and `gattway manual`: what a shell and `man` want of the command, made from its definition.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::Output;

/// Print completions of the command for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway completions bash > /etc/bash_completion.d/gattway
  gattway completions fish > ~/.config/fish/completions/gattway.fish
The Debian package has them already.")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write the manual: a page for `man` for each command.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway manual /usr/local/share/man/man1 && man gattway-sync
The Debian package has it already.")]
pub(crate) struct ManualArgs {
    /// Directory of the pages; made if it is not there
    directory: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "gattway", &mut text);
    let mut out = Output::new();
    out.line(String::from_utf8_lossy(&text).trim_end())?;
    out.flush()
}

pub(crate) fn manual(args: &ManualArgs, command: Command) -> Result<(), CliError> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory)).map_err(
        |error| {
            CliError::new(Exit::Input, format!("{} cannot be written: {error}", directory.display()))
                .help("name a directory that this user may write to")
        },
    )?;
    let mut out = Output::new();
    out.line(format!("wrote a page for each command to {0}: `man -l {0}/gattway.1`", directory.display()))?;
    out.flush()
}
