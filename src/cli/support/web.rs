//! The options of `serve` and `sync` for WebSocket, and the files that they name.

use std::path::PathBuf;

use clap::Args;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::Events;
use crate::cli::support::secret;
use crate::database::Database;
use crate::gateway::secret::Secret;
use crate::gateway::web::{Unfit, WebClient, WebError, WebServer};
use crate::gateway::web_files::{Certificate, client_of, place_of};
use crate::node::Listen;
use crate::transport::websocket::{Credentials, WebSocketClient, WebSocketUrl};

/// Of the options in `--help`. Each has it by itself: a heading of a whole group would go on over what follows.
const HEADING: &str = "WebSocket (ws:// and wss://)";

/// How a server is met.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WebClientArgs {
    /// The user that the server knows this device by
    #[arg(help_heading = HEADING, long, value_name = "NAME")]
    user: Option<String>,

    /// The user's password is the first line of this file; - is standard input [default: asked for]
    #[arg(help_heading = HEADING, long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,

    /// A session of the server (cookie SyncGatewaySession) is the first line of this file
    #[arg(help_heading = HEADING, long, value_name = "FILE", conflicts_with = "user")]
    session_file: Option<PathBuf>,

    /// A further header of the request, as `X-Plant: 7`; again for more
    #[arg(help_heading = HEADING, long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,

    /// Believe servers with a certificate of this issuer too (PEM); again for more
    #[arg(help_heading = HEADING, long = "root-cert", value_name = "FILE")]
    roots: Vec<PathBuf>,

    /// Believe the server with exactly this certificate (PEM), and no other
    #[arg(help_heading = HEADING, long, value_name = "FILE", conflicts_with = "roots")]
    pin_cert: Option<PathBuf>,

    /// The certificate of this device, with its key (PEM), for servers that ask for one
    #[arg(help_heading = HEADING, long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
}

/// How clients are met.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WebListenArgs {
    /// Who may sync: lines of NAME:PASSWORD, in a file that nobody else may read
    #[arg(help_heading = HEADING, long, value_name = "FILE")]
    users: Option<PathBuf>,

    /// The certificate of wss://, with its chain and its key (PEM)
    #[arg(help_heading = HEADING, long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// The key is in this file instead
    #[arg(help_heading = HEADING, long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Make a key and a certificate for wss:// at the first use; clients pin it (--pin-cert), it is printed
    #[arg(help_heading = HEADING, long, conflicts_with = "tls_cert")]
    tls_self_signed: bool,

    /// Who may sync: clients with a certificate of this issuer (PEM)
    #[arg(help_heading = HEADING, long, value_name = "FILE", conflicts_with = "users")]
    client_roots: Option<PathBuf>,
}

impl WebClientArgs {
    /// # Errors
    /// A file cannot be read or used.
    pub(crate) fn client(&self, url: &WebSocketUrl) -> Result<WebSocketClient, CliError> {
        let credentials = match (&self.user, &self.session_file) {
            (Some(user), _) => {
                let password = secret::read("the password", self.password_file.as_deref())?;
                Some(Credentials::Basic { user: user.clone(), password })
            }
            (None, Some(file)) => {
                Some(Credentials::Session { cookie: None, id: secret::read("the session", Some(file))? })
            }
            (None, None) => None,
        };
        let settings = WebClient {
            headers: self.headers.clone(),
            roots: self.roots.clone(),
            pin_cert: self.pin_cert.clone(),
            client_cert: self.client_cert.clone(),
            ..WebClient::default()
        };
        client_of(&settings, url, credentials).map_err(failed)
    }
}

impl WebListenArgs {
    /// Whether peers prove who they are before a byte of replication.
    pub(crate) fn proves_peers(&self) -> bool {
        self.settings().proves_peers()
    }

    fn settings(&self) -> WebServer {
        WebServer {
            users: self.users.clone().map(Secret::File),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            tls_self_signed: self.tls_self_signed,
            client_roots: self.client_roots.clone(),
        }
    }

    /// # Errors
    /// A file cannot be read or used, or the options do not fit the URL.
    pub(crate) fn place(
        &self,
        url: &WebSocketUrl,
        db: &Database,
        events: &Events,
    ) -> Result<impl Listen + use<>, CliError> {
        let (place, own) = place_of(&self.settings(), url, db.path()).map_err(failed)?;
        if let Some(Certificate(pem)) = own {
            events.say("clients believe this gateway by --pin-cert and a file with this certificate:");
            events.say(&pem);
        }
        Ok(place)
    }
}

/// What a command says of a file that it was given.
fn failed(error: WebError) -> CliError {
    if let WebError::Unfit { what, right } = error {
        return CliError::new(Exit::Usage, what).help(match right {
            Unfit::NeedsCertificate => "give --tls-cert FILE, or --tls-self-signed",
            Unfit::NeedsTls => "write wss://, or leave out the options of TLS",
        });
    }
    let told = CliError::new(Exit::Input, error.to_string());
    match error.advice() {
        Some(advice) => told.help(advice),
        None => told,
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("NAME: VALUE is expected")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
