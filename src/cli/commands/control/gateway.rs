//! What a gateway that runs is asked over its socket: its status, and to sync now, pause or go on.
//!
//! The loop that looks after everything answers: as long as it does, it works.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use hyper::Method;
use rustix::fs::{FlockOperation, flock};

use crate::cli::support::client::{Client, Failed};
use crate::cli::support::error::{CliError, Exit};
use crate::gateway::http::api::Api;
use crate::gateway::http::guard::Guard;
use crate::gateway::http::serve::{Listener, Server};
use crate::gateway::http::server::SyncsTold;
pub(crate) use crate::gateway::http::server::{OrderWord, SyncRequest};
use crate::gateway::http::socket::{self, SocketName};
use crate::gateway::status::GatewayStatus;

/// How long a client waits for its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest answer, in bytes: a thousand neighbours of some databases.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The socket of a gateway that runs, until it is dropped or stopped.
pub(crate) struct GatewaySocket {
    server: Server,
    _name: SocketName,
    /// Whoever has locked this file has the socket.
    _lock: File,
}

impl GatewaySocket {
    /// Opens the socket; its directory is made if there is none.
    ///
    /// # Errors
    /// Another gateway has it, or it cannot be made.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn open(socket: &Path, api: Api) -> Result<GatewaySocket, CliError> {
        let (directory, name) = parts(socket)?;
        let failed = |error: io::Error| {
            CliError::new(Exit::Failure, format!("the socket {} cannot be made: {error}", socket.display()))
                .help("set gateway.socket to a place where this user may write; under systemd, RuntimeDirectory=gattway")
        };
        if !directory.exists() {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        let path = directory.join(format!("{name}.lock"));
        let lock = File::options().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        lock.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        let is_ours = match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => false,
            Err(error) => return Err(failed(error.into())),
        };
        // An earlier release has no lock.
        if !is_ours || socket::connect(directory, name).is_ok() {
            let message = format!("another gateway runs, and answers at {}", socket.display());
            return Err(CliError::new(Exit::Failure, message)
                .help("end it, or give this one a socket of its own (gateway.socket)"));
        }
        let (listener, name) = socket::listen(directory, name).map_err(failed)?;
        let server = Server::start(Listener::Unix(listener), api, Router::new(), Guard::open());
        Ok(GatewaySocket { server, _name: name, _lock: lock })
    }

    /// Ends in order.
    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

/// The state of the gateway that answers at `socket`.
pub(crate) fn status(socket: &Path) -> Result<GatewayStatus, CliError> {
    let text = ask(socket, Method::GET, "/_status", Vec::new())?;
    serde_json::from_slice(&text).map_err(misunderstood)
}

/// Tells syncs of the gateway that answers at `socket` something; gives how many.
pub(crate) fn order(socket: &Path, request: &SyncRequest) -> Result<usize, CliError> {
    let text = serde_json::to_vec(request).map_err(misunderstood)?;
    let told: SyncsTold =
        serde_json::from_slice(&ask(socket, Method::POST, "/_sync", text)?).map_err(misunderstood)?;
    Ok(told.syncs)
}

fn misunderstood(_: serde_json::Error) -> CliError {
    CliError::new(Exit::Peer, "the gateway answered something else")
        .help("it may be of another version: restart it")
}

fn ask(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>, CliError> {
    let (directory, name) = parts(socket)?;
    let asked = || -> Result<Vec<u8>, Failed> {
        let client = Client::connect(directory, name).map_err(Failed::Io)?;
        let mut answer = client.ask(method, path, body, Some(ANSWER_TIME_MAX))?;
        answer.all(ANSWER_BYTES_MAX).map_err(Failed::Io)
    };
    let error = match asked() {
        Ok(text) => return Ok(text),
        Err(Failed::Io(error)) => error,
        Err(Failed::Refused(status, body)) if status.is_server_error() => io::Error::other(body.reason),
        Err(failed) => return Err(failed.told()),
    };
    let told = CliError::new(Exit::Peer, format!("no gateway answers at {}: {error}", socket.display()));
    Err(match error.kind() {
        io::ErrorKind::PermissionDenied => told.help("ask as the user that runs it, or as root"),
        _ => told
            .help("is `gattway run` running? --socket names another socket, --config another configuration"),
    })
}

fn parts(socket: &Path) -> Result<(&Path, &str), CliError> {
    let name = socket.file_name().and_then(|name| name.to_str());
    let directory = socket.parent().map(|parent| match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    });
    directory
        .zip(name)
        .ok_or_else(|| CliError::new(Exit::Usage, format!("{} is no name of a socket", socket.display())))
}
