//! Options that every command knows, and values that several of them take.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::cli::support::error::{CliError, Exit};
pub(crate) use crate::gateway::config::parse_size;

/// Options that every command knows.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The database's directory; commands that save something make it if it does not exist
    #[arg(long, global = true, env = "GATTWAY_DB", value_name = "DIR")]
    pub(crate) db: Option<PathBuf>,

    /// Log more to standard error: -v what happens, -vv details, -vvv everything. RUST_LOG wins over it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// How log lines are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl GlobalArgs {
    /// Where the database is.
    pub(crate) fn db_path(&self) -> Result<&PathBuf, CliError> {
        self.db.as_ref().ok_or_else(|| {
            CliError::new(Exit::Usage, "no database was named").help("give --db DIR, or set GATTWAY_DB")
        })
    }
}
