//! Arguments and output of the `gattway` command; one file a command.
//!
//! Results go to standard output, everything else (progress, logs, errors) to standard error. A reader that closes the
//! pipe early ends the command quietly.

mod address;
mod air;
mod args;
mod attempts;
mod bench;
#[cfg(feature = "bluetooth")]
mod ble;
mod control;
mod db;
mod demo;
mod display;
#[cfg(feature = "bluetooth")]
mod doctor;
mod documents;
mod error;
mod events;
mod feed;
mod flood;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod group;
mod holder;
mod id;
mod logging;
mod memory;
mod output;
mod pair;
mod pairing_listener;
mod peers;
mod place;
mod progress;
mod records;
mod runtime;
mod saving;
#[cfg(feature = "bluetooth")]
mod scan;
mod secret;
mod security;
mod serve;
mod sink;
mod store;
mod sync;
mod unsynced;
mod visible;
#[cfg(feature = "websocket")]
mod web;
mod words;

use args::Cli;
pub(crate) use error::{CliError, Exit};

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
