//! How another process asks the one that has a database open: HTTP on a Unix socket in the database's directory, its owner's
//! alone.
//!
//! Beside what every program is answered (`crate::gateway::http`), our own commands are: what one prints or changes by
//! `POST /_command` ([`command`]), what an import saves by `POST /_save` ([`save`]), a backup by `GET /_backup`. The socket's place
//! belongs to whoever holds the database's lock, so one that is left from a killed process is replaced.

pub(crate) mod changes;
pub(crate) mod command;
pub(crate) mod gateway;
mod holder;
pub(crate) mod save;

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use hyper::Method;

use self::holder::{Holder, PIECE_BYTES, Print};
use crate::cli::support::client::{Client, Failed};
use crate::database::Database;
use crate::gateway::http::api::{Api, Limits};
use crate::gateway::http::body::Sink;
use crate::gateway::http::databases::Databases;
use crate::gateway::http::error::ApiError;
use crate::gateway::http::guard::Guard;
use crate::gateway::http::serve::{Listener, Server};
use crate::gateway::http::socket::{self, SOCKET, SocketName};

/// How long a piece of a backup may take to be made: a large document, or a writer that is slow to let the backup in.
const BACKUP_TIME_MAX: Duration = Duration::from_secs(120);

/// What answers for one database, until it is dropped or stopped.
pub(crate) struct Control {
    list: EndingList,
    server: Server,
    _name: SocketName,
}

/// What follows changes of its databases ends when it is dropped.
struct EndingList(Databases);

impl Drop for EndingList {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Control {
    /// Opens the socket in the database's directory. That it cannot be is told, and no reason not to run: a file system may have
    /// no sockets. `name` is that of the database, `print` how a command prints what it reads, or changes.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn start(db: &Database, name: &str, limits: &Limits, print: Print) -> Option<Control> {
        match Control::try_start(db, name, limits, print) {
            Ok(control) => Some(control),
            Err(error) => {
                tracing::warn!(%error, "no socket in the database's directory: other programs have to wait until this one ends");
                None
            }
        }
    }

    fn try_start(db: &Database, name: &str, limits: &Limits, print: Print) -> io::Result<Control> {
        // Its place belongs to whoever holds the database's lock, so one that is there is of a process that was killed.
        let (listener, socket_name) = socket::listen(db.path(), SOCKET)?;
        let databases = Databases::of(name, db);
        let api = Api::new(databases.clone(), None, limits.clone());
        let holder = Holder::new(db, print);
        let server = Server::start(Listener::Unix(listener), api, routes(holder), Guard::open());
        Ok(Control { list: EndingList(databases), server, _name: socket_name })
    }

    /// Ends in order: what is being answered has a moment, what follows changes ends.
    pub(crate) async fn stop(self) {
        drop(self.list);
        self.server.stop().await;
    }
}

/// What our own commands are answered beside what all are.
fn routes(holder: Holder) -> Router<Api> {
    let (commands, saves, backups) = (holder.clone(), holder.clone(), holder);
    Router::new()
        .route(
            "/_command",
            post(move |State(api): State<Api>, body: Body| command::answer(commands, api, body)),
        )
        .route("/_save", post(move |State(api): State<Api>, body: Body| save::answer(saves.db, api, body)))
        .route("/_backup", get(move || async move { backup(backups) }))
}

fn backup(holder: Holder) -> Result<Response, ApiError> {
    holder.piped(|holder, sink| {
        let mut out = BufWriter::with_capacity(PIECE_BYTES, Pieces(sink));
        holder.db.backup(&mut out, |_, _| ()).map_err(|error| io::Error::other(error.to_string()))?;
        out.flush()
    })
}

/// Writes into an answer.
struct Pieces<'s>(&'s Sink);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Asks the process that has the database open for a backup; gives the stream of its bytes.
pub(crate) fn request_backup(client: &Client) -> Result<impl Read + use<>, Failed> {
    let answer = client.ask(Method::GET, "/_backup", Vec::new(), Some(BACKUP_TIME_MAX))?;
    Ok(BufReader::with_capacity(PIECE_BYTES, answer))
}
