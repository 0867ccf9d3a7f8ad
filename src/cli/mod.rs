//! Arguments and output of the `gattway` command: a file for each command in `commands`, what several of them need in
//! `support`.
//!
//! Results go to standard output, everything else (progress, logs, errors) to standard error. A reader that closes the
//! pipe early ends the command quietly.

mod args;
mod commands;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod support;

use args::Cli;
use support::error::Exit;
use support::{logging, runtime, words};

use clap::Parser;
use std::process::ExitCode;

/// Runs the command with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::refuse(&error),
    };
    logging::start(&cli.global);
    runtime::outlive_file_limit();
    let code = match args::run(&cli) {
        Ok(()) => Exit::Success.into(),
        Err(error) => error.report(),
    };
    words::end();
    code
}
