//! WebSocket from settings and the files that they name.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::secret::{Secret, SecretError};
use super::web::{Unfit, WebClient, WebError, WebServer};
use crate::node::{Listen, WebSocket};
#[cfg(feature = "mqtt")]
use crate::transport::websocket::client_config;
use crate::transport::websocket::{
    Admission, Credentials, ServerTrust, TlsError, TlsIdentity, WebSocketClient, WebSocketClientConfig,
    WebSocketListenerConfig, WebSocketUrl,
};
use crate::trust::files::{PrivateFileError, read_private, write_private};

/// Longest file of certificates and keys, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The identity that is made where one is wanted and none is there, beside the documents.
const IDENTITY_FILE: &str = "tls.pem";

/// A certificate that was made here, as PEM: clients that are to believe it need it.
pub(crate) struct Certificate(pub(crate) String);

impl WebClient {
    /// Reads what proves who this side is.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, WebError> {
        Ok(match (&self.user, &self.session) {
            (Some((user, password)), _) => {
                Some(Credentials::Basic { user: user.clone(), password: password.line()? })
            }
            (None, Some(session)) => Some(Credentials::Session { cookie: None, id: session.line()? }),
            (None, None) => None,
        })
    }
}

/// The way to a server.
///
/// # Errors
/// A file cannot be read or used.
pub(crate) fn client_of(
    settings: &WebClient,
    url: &WebSocketUrl,
    credentials: Option<Credentials>,
) -> Result<WebSocketClient, WebError> {
    let mut config = WebSocketClientConfig::default();
    config.headers.clone_from(&settings.headers);
    config.credentials = credentials;
    (config.trust, config.identity) = (trust(settings)?, own_identity(settings)?);
    WebSocketClient::new(url.clone(), &config)
        .map_err(|error| unusable(about(settings, &url.to_string()), &error))
}

/// The TLS of a client of `server`, which is no server of HTTP.
///
/// # Errors
/// A file cannot be read or used.
#[cfg(feature = "mqtt")]
pub(crate) fn client_tls(
    settings: &WebClient,
    server: &str,
) -> Result<std::sync::Arc<rustls::ClientConfig>, WebError> {
    let config = client_config(&trust(settings)?, own_identity(settings)?.as_ref());
    config.map(std::sync::Arc::new).map_err(|error| unusable(about(settings, server), &error))
}

/// Whom a client believes.
fn trust(settings: &WebClient) -> Result<ServerTrust, WebError> {
    if let Some(file) = &settings.pin_cert {
        return Ok(ServerTrust::Pinned(read(file)?));
    }
    let extra_roots = settings.roots.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
    Ok(ServerTrust::System { extra_roots })
}

fn own_identity(settings: &WebClient) -> Result<Option<TlsIdentity>, WebError> {
    settings.client_cert.as_ref().map(|file| identity(file, file)).transpose()
}

/// The files that say whom to believe, or the server if none does.
fn about(settings: &WebClient, server: &str) -> String {
    let given = settings.pin_cert.iter().chain(&settings.roots).map(|file| file.display().to_string());
    let given: Vec<String> = given.collect();
    if given.is_empty() { server.to_owned() } else { given.join(", ") }
}

/// The place where the database in `directory` is served, and the certificate if one of our own is shown.
///
/// # Errors
/// A file cannot be read or used, or the settings do not fit the URL.
pub(crate) fn place_of(
    settings: &WebServer,
    url: &WebSocketUrl,
    directory: &Path,
) -> Result<(impl Listen + use<>, Option<Certificate>), WebError> {
    check_fit(settings, url)?;
    let mut config = WebSocketListenerConfig::new(url.database());
    let mut own = None;
    if let Some(chain) = &settings.tls_cert {
        config.identity = Some(identity(chain, settings.tls_key.as_ref().unwrap_or(chain))?);
    } else if settings.tls_self_signed {
        let identity = self_signed(&directory.join(IDENTITY_FILE))?;
        own = Some(Certificate(identity.certificate_pem().trim_end().to_owned()));
        config.identity = Some(identity);
    }
    if let Some(users) = &settings.users {
        config.admission = read_users(users)?;
    }
    if let Some(file) = &settings.client_roots {
        config.admission = Admission::Certificates(read(file)?);
    }
    let host = if url.host().contains(':') { format!("[{}]", url.host()) } else { url.host().to_owned() };
    Ok((WebSocket::bind(format!("{host}:{}", url.port()), config), own))
}

/// What accepts TLS as the settings say, and the certificate if one of our own is shown; `None`: nothing is encrypted. An
/// identity of our own is in `directory`.
///
/// # Errors
/// A file cannot be read or used.
pub(crate) fn acceptor(
    settings: &WebServer,
    directory: &Path,
) -> Result<Option<(TlsAcceptor, Option<Certificate>)>, WebError> {
    let (identity, own) = match &settings.tls_cert {
        Some(chain) => (identity(chain, settings.tls_key.as_ref().unwrap_or(chain))?, None),
        None if settings.tls_self_signed => {
            let identity = self_signed(&directory.join(IDENTITY_FILE))?;
            let own = Certificate(identity.certificate_pem().trim_end().to_owned());
            (identity, Some(own))
        }
        None => return Ok(None),
    };
    let config = identity.server(&Admission::Everybody);
    let config = config.map_err(|error| unusable("TLS".into(), &error))?;
    Ok(Some((TlsAcceptor::from(config), own)))
}

/// Whether the settings fit the URL, as far as it can be known without their files.
pub(crate) fn check_fit(settings: &WebServer, url: &WebSocketUrl) -> Result<(), WebError> {
    let has_certificate = settings.tls_cert.is_some() || settings.tls_self_signed;
    let unfit = |what: String, right| Err(WebError::Unfit { what, right });
    match (url.is_tls(), has_certificate) {
        (true, false) => unfit(format!("{url} needs a certificate"), Unfit::NeedsCertificate),
        (false, true) => unfit(format!("{url} uses no certificate"), Unfit::NeedsTls),
        (false, false) if settings.client_roots.is_some() => {
            unfit(format!("{url} cannot ask for certificates of clients"), Unfit::NeedsTls)
        }
        _ => Ok(()),
    }
}

/// The identity in a file, made if there is none.
fn self_signed(file: &Path) -> Result<TlsIdentity, WebError> {
    let about = || file.display().to_string();
    let private = |error: PrivateFileError| WebError::Secret(SecretError::File(error));
    let pem = match read_private(file, FILE_BYTES_MAX).map_err(private)? {
        Some(pem) => pem,
        None => {
            let host = crate::node::access::machine_name();
            let names = [host, "localhost".to_owned()].into_iter().filter(|name| !name.is_empty());
            let made = TlsIdentity::generate_pem(names).map_err(|error| unusable(about(), &error))?;
            let made = Zeroizing::new(made.into_bytes());
            write_private(file, &made).map_err(private)?;
            made
        }
    };
    TlsIdentity::from_pem(&pem, &pem).map_err(|error| unusable(about(), &error))
}

fn identity(chain: &Path, key: &Path) -> Result<TlsIdentity, WebError> {
    let (pem, key_pem) = (read(chain)?, Zeroizing::new(read(key)?));
    TlsIdentity::from_pem(&pem, &key_pem).map_err(|error| {
        let file = if matches!(error, TlsError::NoKey) { key } else { chain };
        unusable(file.display().to_string(), &error)
    })
}

fn read_users(users: &Secret) -> Result<Admission, WebError> {
    let wrong = |reason: String| WebError::Unusable { about: users.to_string(), reason };
    let bytes = users.read()?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is no text".into()))?;
    Admission::users(text).map_err(|(line, what)| match line {
        0 => wrong(what.into()),
        line => wrong(format!("line {line}: {what}")),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, WebError> {
    let failed = |reason: String| WebError::Read { path: PathBuf::from(file), reason };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| failed(error.to_string()))?;
    let limit = FILE_BYTES_MAX as u64 + 1;
    opened.take(limit).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(failed("it is longer than 1 MiB".into()));
    }
    Ok(bytes)
}

fn unusable(about: String, error: &TlsError) -> WebError {
    WebError::Unusable { about, reason: error.to_string() }
}
