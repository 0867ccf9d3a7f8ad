//! The options of `serve` and `sync` for WebSocket, and the files that they name.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::Events;
use crate::cli::support::secret;
use crate::database::Database;
use crate::node::{Users, WebSocket, WebSocketPlace};
use crate::transport::websocket::{
    Admission, Credentials, ServerTrust, TlsError, TlsIdentity, WebSocketClient, WebSocketClientConfig,
    WebSocketListenerConfig, WebSocketUrl,
};
use crate::trust::files::{PrivateFileError, read_private, write_private};

/// Of the options in `--help`. Each has it by itself: a heading of a whole group would go on over what follows.
const HEADING: &str = "WebSocket (ws:// and wss://)";

/// Longest file of certificates, keys or users, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The identity that `--tls-self-signed` makes, beside the documents.
const IDENTITY_FILE: &str = "tls.pem";

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
        let mut config = WebSocketClientConfig::default();
        config.headers.clone_from(&self.headers);
        config.credentials = match (&self.user, &self.session_file) {
            (Some(user), _) => {
                let password = secret::read("the password", self.password_file.as_deref())?;
                Some(Credentials::Basic { user: user.clone(), password })
            }
            (None, Some(file)) => {
                Some(Credentials::Session { cookie: None, id: secret::read("the session", Some(file))? })
            }
            (None, None) => None,
        };
        if let Some(file) = &self.pin_cert {
            config.trust = ServerTrust::Pinned(read(file)?);
        } else {
            let extra_roots = self.roots.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
            config.trust = ServerTrust::System { extra_roots };
        }
        if let Some(file) = &self.client_cert {
            config.identity = Some(identity(file, file)?);
        }
        WebSocketClient::new(url.clone(), &config).map_err(|error| {
            let given = self.pin_cert.iter().chain(&self.roots).map(|file| file.display().to_string());
            let given: Vec<String> = given.collect();
            let about = if given.is_empty() { url.to_string() } else { given.join(", ") };
            unusable(&about, &error)
        })
    }
}

impl WebListenArgs {
    /// Whether peers prove who they are before a byte of replication.
    pub(crate) fn proves_peers(&self) -> bool {
        self.users.is_some() || self.client_roots.is_some()
    }

    /// # Errors
    /// A file cannot be read or used, or the options do not fit the URL.
    pub(crate) fn place(
        &self,
        url: &WebSocketUrl,
        db: &Database,
        events: &Events,
    ) -> Result<WebSocketPlace, CliError> {
        let mut config = WebSocketListenerConfig::new(url.database());
        config.identity = self.identity(db, events)?;
        if url.is_tls() != config.identity.is_some() {
            let message = match url.is_tls() {
                true => format!("{url} needs a certificate"),
                false => format!("{url} uses no certificate"),
            };
            return Err(CliError::new(Exit::Usage, message).help(match url.is_tls() {
                true => "give --tls-cert FILE, or --tls-self-signed",
                false => "write wss://, or leave out the options of TLS",
            }));
        }
        if let Some(file) = &self.users {
            config.admission = users(file)?.admission();
        }
        if let Some(file) = &self.client_roots {
            if !url.is_tls() {
                let message = format!("{url} cannot ask for certificates of clients");
                return Err(CliError::new(Exit::Usage, message).help("write wss://"));
            }
            config.admission = Admission::Certificates(read(file)?);
        }
        let host = if url.host().contains(':') { format!("[{}]", url.host()) } else { url.host().to_owned() };
        Ok(WebSocket::bind(format!("{host}:{}", url.port()), config))
    }

    fn identity(&self, db: &Database, events: &Events) -> Result<Option<TlsIdentity>, CliError> {
        match &self.tls_cert {
            Some(chain) => identity(chain, self.tls_key.as_ref().unwrap_or(chain)).map(Some),
            None if self.tls_self_signed => {
                let identity = self_signed(&db.path().join(IDENTITY_FILE))?;
                events.say("clients believe this gateway by --pin-cert and a file with this certificate:");
                events.say(identity.certificate_pem().trim_end());
                Ok(Some(identity))
            }
            None => Ok(None),
        }
    }
}

/// The identity in a file, made if there is none.
fn self_signed(file: &Path) -> Result<TlsIdentity, CliError> {
    let pem = match read_private(file, FILE_BYTES_MAX).map_err(private)? {
        Some(pem) => pem,
        None => {
            let host = crate::node::access::machine_name();
            let names = [host, "localhost".to_owned()].into_iter().filter(|name| !name.is_empty());
            let made = TlsIdentity::generate_pem(names)
                .map_err(|error| unusable(&file.display().to_string(), &error))?;
            let made = Zeroizing::new(made.into_bytes());
            write_private(file, &made).map_err(private)?;
            made
        }
    };
    TlsIdentity::from_pem(&pem, &pem).map_err(|error| unusable(&file.display().to_string(), &error))
}

fn identity(chain: &Path, key: &Path) -> Result<TlsIdentity, CliError> {
    let (pem, key_pem) = (read(chain)?, Zeroizing::new(read(key)?));
    TlsIdentity::from_pem(&pem, &key_pem).map_err(|error| {
        let file = if matches!(error, TlsError::NoKey) { key } else { chain };
        unusable(&file.display().to_string(), &error)
    })
}

fn users(file: &Path) -> Result<Users, CliError> {
    let wrong = |what: String| CliError::new(Exit::Input, format!("{}: {what}", file.display()));
    let bytes = read_private(file, FILE_BYTES_MAX).map_err(private)?;
    let bytes = bytes.ok_or_else(|| wrong("there is no such file".into()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is no text".into()))?;
    Users::parse(text).map_err(|(line, what)| match line {
        0 => wrong(what.into()),
        line => wrong(format!("line {line}: {what}")),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let failed =
        |what: String| CliError::new(Exit::Input, format!("{} cannot be read: {what}", file.display()));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| failed(error.to_string()))?;
    let limit = FILE_BYTES_MAX as u64 + 1;
    opened.take(limit).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(failed("it is longer than 1 MiB".into()));
    }
    Ok(bytes)
}

fn private(error: PrivateFileError) -> CliError {
    let advice = error.advice();
    CliError::new(Exit::Input, error.to_string()).help(advice)
}

fn unusable(about: &str, error: &TlsError) -> CliError {
    CliError::new(Exit::Input, format!("{about}: {error}"))
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("NAME: VALUE is expected")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
