//! How a command fails: an exit code for scripts, two sentences for people.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::cli::support::words::{self, Level};

/// Exit codes of the command, the same for every subcommand. Code 2 (wrong arguments) is clap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// Done.
    Success = 0,
    /// The command ran and the answer is bad: databases differ, damage found, a target missed.
    Failure = 1,
    /// The arguments do not fit together.
    Usage = 2,
    /// No such document or collection.
    NotFound = 3,
    /// Input that cannot be taken: malformed, over a limit, a conflict with the stored revision.
    Input = 4,
    /// The database cannot be opened, read or written.
    Database = 5,
    /// The peer cannot be reached, refused, or failed.
    Peer = 6,
    /// Synced, but not everything: what was left out is named.
    Incomplete = 7,
    /// Ended by Ctrl-C before it was done.
    Interrupted = 130,
}

impl Exit {
    /// The meaning of a code that another process of this command gave.
    pub(crate) fn of_code(code: u8) -> Exit {
        use Exit::{Database, Failure, Incomplete, Input, Interrupted, NotFound, Peer, Success, Usage};
        let all = [Success, Usage, NotFound, Input, Database, Peer, Incomplete, Interrupted];
        all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Failure)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ended without its result.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    message: String,
    help: Option<String>,
    broken_pipe: bool,
}

impl CliError {
    /// An error that says what happened, and to which document, peer or file.
    pub fn new(exit: Exit, message: impl Into<String>) -> CliError {
        CliError { exit, message: message.into(), help: None, broken_pipe: false }
    }

    /// Adds what to do now.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> CliError {
        self.help = Some(help.into());
        self
    }

    /// What to do now, if that was said.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The code the process ends with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The same error with words before and after it; its help stays.
    #[must_use]
    pub(crate) fn context(&self, before: &str, after: &str) -> CliError {
        CliError {
            exit: self.exit,
            message: format!("{before}{}{after}", self.message),
            help: self.help.clone(),
            broken_pipe: self.broken_pipe,
        }
    }

    /// Says it on standard error, unless nobody wanted the output any more.
    pub fn report(&self) -> ExitCode {
        if self.broken_pipe {
            return Exit::Success.into();
        }
        words::say(Level::Error, &format!("gattway: {}", self.message), self.help.as_deref());
        self.exit.into()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// Output that failed: a closed pipe is no error, anything else is.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        let broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        CliError { broken_pipe, ..CliError::new(Exit::Failure, format!("output: {error}")) }
    }
}
