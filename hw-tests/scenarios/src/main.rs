//! `hw-test`: the same scenarios on a modelled radio, on virtual controllers with a real BlueZ, and on real adapters.
//!
//! The director ([`run`]) has a [`rig`], asks its machines' [`agent`]s for what a [`scenario`] wants, and writes a [`report`].
//! How to use it and how to add a scenario: `firmware-notes/hw-tests.md`.

#![allow(clippy::disallowed_methods, reason = "a program with a clock, not a core")]

mod agent;
mod report;
mod rig;
mod run;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::agent::supervisor;

/// Exit code: the rig did not start, or the arguments are wrong.
const BROKEN: u8 = 2;

/// Run the scenarios of gattway on a rig: a modelled radio, virtual controllers with a real BlueZ, or real adapters.
#[derive(Debug, Parser)]
#[command(
    name = "hw-test",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "\
Exit codes:
  0  everything that ran has passed
  1  a scenario failed
  2  the rig did not start, or nothing could run

Examples:
  scripts/hw-test --rig model
  scripts/hw-test --rig virtual --scenario sync --scenario cut-radio
  scripts/hw-test --rig virtual --full --repeat 5 --out /tmp/five
  scripts/hw-test --rig two-dongles.toml --full      # the format: firmware-notes/hw-tests.md
  scripts/hw-test --list"
)]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    run: RunArgs,
}

/// Options of a run.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// model, virtual (needs root and Debian 12), or a file that names adapters
    #[arg(long, default_value = "model", value_name = "model|virtual|FILE")]
    pub rig: String,

    /// Only this scenario, again for more; a name that ends with * is the beginning of names
    #[arg(long, value_name = "NAME")]
    pub scenario: Vec<String>,

    /// Not this scenario, again for more
    #[arg(long, value_name = "NAME")]
    pub skip: Vec<String>,

    /// Run everything so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,

    /// Long forms: 50 cycles, a reader stalled for 10 s, a minute of silence, a MiB each way
    #[arg(long)]
    pub full: bool,

    /// Where junit.xml, report.html, report.json and logs go
    #[arg(long, value_name = "DIR", default_value = "target/hw-test")]
    pub out: PathBuf,

    /// The report as JSON on standard output, instead of the table
    #[arg(long)]
    pub json: bool,

    /// List the scenarios and whether this rig can run them
    #[arg(long)]
    pub list: bool,

    /// Virtual rig: options of the radio (virtual-radio --help)
    #[arg(long, value_name = "OPTIONS", default_value = "--phy 2m")]
    pub radio: String,

    /// Virtual rig: connection interval in units of 1.25 ms
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub interval: u16,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Serve a director over standard input and output: what a rig file runs on other machines
    Agent,
    /// One node of an agent
    #[command(hide = true)]
    Node {
        #[arg(long)]
        index: u32,
        #[arg(long)]
        adapter: String,
        #[arg(long)]
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // As many as the commands of the product have.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("hw-test: {error}");
                return ExitCode::from(BROKEN);
            }
        };
    let result = runtime.block_on(async {
        match cli.task {
            Some(Task::Agent) => supervisor::run().await.map(|()| 0),
            Some(Task::Node { index, adapter, directory }) => {
                supervisor::run_node(index, adapter, directory).await.map(|()| 0)
            }
            None => run::run(&cli.run).await,
        }
    });
    // Standard input may have a reader that never ends.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("hw-test: {error}");
            ExitCode::from(BROKEN)
        }
    }
}

/// Root of the project: where this program was built.
fn root() -> PathBuf {
    let root = std::env::var_os("HW_TEST_ROOT").map(PathBuf::from);
    root.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")))
}
