//! Real power cuts of the real store. `scripts/power-cuts` builds and starts it; how it works: firmware-notes/store.md.
//!
//! `run` is the host's part ([`host`], [`machine`]): it starts a guest with disk images of its own, listens to what the guest
//! acknowledges, and kills the guest at a random moment, again and again. `guest` is the guest's part ([`guest`]): it
//! opens the databases, compares them with what was acknowledged ([`model`]), then writes and syncs until it is gone.

mod guest;
mod host;
mod machine;
mod model;
mod task;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "power-cuts", disable_help_subcommand = true)]
enum Cli {
    /// Cut the power of a guest again and again; ends with 0 if what happened is what the mode promises
    Run(host::RunArgs),
    /// The guest's part: DIR holds task.json, DISKS the two mounted images
    #[command(hide = true)]
    Guest { dir: PathBuf, disks: PathBuf },
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Run(args) => host::run(&args),
        Cli::Guest { dir, disks } => guest::run(&dir, &disks),
    }
}
