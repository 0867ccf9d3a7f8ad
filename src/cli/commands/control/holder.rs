//! What our own commands are answered from, each by a thread of its own.

use std::io;
use std::sync::Arc;

use axum::response::Response;
use hyper::StatusCode;
use tokio::sync::Semaphore;

use crate::cli::support::error::CliError;
use crate::cli::support::output::Output;
use crate::database::Database;
use crate::gateway::http::body::{Sink, pipe};
use crate::gateway::http::error::ApiError;
use crate::task;

/// Commands and backups that are answered at one time, each by a thread; the next is sent away.
const COMMANDS_MAX: usize = 16;

/// Bytes of a piece of an answer.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Does what a command line, without the name of the program, says; the text is what it has read on its standard input.
pub(crate) type Print = fn(&Database, Vec<String>, Option<Vec<u8>>, &mut Output) -> Result<(), CliError>;

/// What our own commands are answered from.
#[derive(Clone)]
pub(super) struct Holder {
    pub(super) db: Database,
    pub(super) print: Print,
    turns: Arc<Semaphore>,
}

impl Holder {
    pub(super) fn new(db: &Database, print: Print) -> Holder {
        Holder { db: db.clone(), print, turns: Arc::new(Semaphore::new(COMMANDS_MAX)) }
    }

    /// Answers with what `write` makes on a thread of its own, as fast as it is taken.
    pub(super) fn piped(
        self,
        write: impl FnOnce(&Holder, &Sink) -> io::Result<()> + Send + 'static,
    ) -> Result<Response, ApiError> {
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else {
            return Err(ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "too many commands at one time",
            )
            .advice("try again in a second"));
        };
        let (sink, body) = pipe();
        task::spawn(async move {
            let of_thread = sink.clone();
            let written = task::blocking(move || write(&self, &of_thread)).await;
            drop(turn);
            match written {
                Some(Ok(())) => {}
                Some(Err(error)) => sink.fail(error.to_string()).await,
                None => sink.fail("it was given up".into()).await,
            }
        });
        Ok(Response::new(body))
    }
}
