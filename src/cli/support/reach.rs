//! How commands come to a database that another process may have open: that one is asked then.

use std::path::Path;
use std::thread;
use std::time::Instant;

use crate::cli::support::client::Client;
use crate::cli::support::error::CliError;
use crate::cli::support::output::note;
use crate::cli::support::store::{
    IN_USE_RETRY, IN_USE_WAIT, check_existing, in_use, new_text, open_failed, to_read,
};
use crate::database::{Database, DatabaseConfig, DatabaseError};
use crate::gateway::http::socket::SOCKET;

/// How a command comes to a database.
pub(crate) enum Reached {
    /// It has it open itself.
    Own(Database),
    /// Another process has, and answers.
    Held(Client),
}

/// Opens the database, or makes it, for input that `check` takes: what cannot be taken makes no database, and a long input is
/// not read for one that cannot be opened. A process that has it open for longer is connected to.
pub(crate) fn or_make_for<T>(
    path: &Path,
    check: impl FnOnce() -> Result<T, CliError>,
) -> Result<(Reached, T), CliError> {
    let open = || Database::open(path, DatabaseConfig::default());
    let existing = Database::exists(path).then(|| reach(path, open)).transpose()?;
    let checked = check()?;
    let reached = match existing {
        Some(reached) => reached,
        None => or_make(path)?,
    };
    Ok((reached, checked))
}

/// Opens the database, or makes it and says so; or connects to the process that has it open.
pub(crate) fn or_make(path: &Path) -> Result<Reached, CliError> {
    let reached = reach(path, || Database::open(path, DatabaseConfig::default()))?;
    match &reached {
        Reached::Own(db) if db.is_new() => note(&new_text(path)),
        _ => {}
    }
    Ok(reached)
}

/// Opens the database for a command that changes what is there, and makes none; or connects to the process that has it open.
pub(crate) fn existing(path: &Path) -> Result<Reached, CliError> {
    let config = DatabaseConfig { create: false, ..DatabaseConfig::default() };
    check_existing(path)?;
    reach(path, || Database::open(path, config.clone()))
}

/// Opens the database for a command that only reads, as it is where it cannot be written to; or connects to the process that has it open.
pub(crate) fn for_reading(path: &Path) -> Result<Reached, CliError> {
    check_existing(path)?;
    reach(path, || Database::open(path, to_read(path)))
}

/// As [`for_reading`], without waiting; `None`: another process has it, and does not answer now.
pub(crate) fn for_reading_now(path: &Path) -> Result<Option<Reached>, CliError> {
    check_existing(path)?;
    match Database::open(path, to_read(path)) {
        Err(DatabaseError::InUse { path }) => Ok(Client::connect(&path, SOCKET).ok().map(Reached::Held)),
        opened => opened.map(|db| Some(Reached::Own(db))).map_err(|error| open_failed(path, error)),
    }
}

/// Opens the database. If another process has it, that is connected to, or, if it does not answer, its end is waited for: a short
/// command ends soon, and one that serves begins to answer.
fn reach(path: &Path, open: impl Fn() -> Result<Database, DatabaseError>) -> Result<Reached, CliError> {
    let until = Instant::now() + IN_USE_WAIT;
    loop {
        match open() {
            Err(DatabaseError::InUse { path }) => {
                match Client::connect(&path, SOCKET) {
                    Ok(client) => return Ok(Reached::Held(client)),
                    Err(error) => tracing::debug!(%error, "the socket of whoever has the database open"),
                }
                if Instant::now() >= until {
                    return Err(in_use(&path));
                }
                thread::sleep(IN_USE_RETRY);
            }
            opened => return opened.map(Reached::Own).map_err(|error| open_failed(path, error)),
        }
    }
}
