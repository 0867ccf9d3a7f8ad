//! WebSocket from settings and the files that they name: how a server is met, and how clients are.

use std::fmt;
use std::path::PathBuf;

use super::secret::{Secret, SecretError, Stamp, stamp};

#[cfg(feature = "websocket")]
pub(crate) use files::{Certificate, check_fit, client_of, place_of};

/// Longest file of certificates and keys, in bytes.
#[cfg(feature = "websocket")]
const FILE_BYTES_MAX: usize = 1 << 20;

/// The identity that is made where one is wanted and none is there, beside the documents.
#[cfg(feature = "websocket")]
const IDENTITY_FILE: &str = "tls.pem";

/// How a server is met.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct WebClient {
    /// The user, with where the password is.
    pub(crate) user: Option<(String, Secret)>,
    /// A session of the server, instead of a user.
    pub(crate) session: Option<Secret>,
    /// Further headers of the request.
    pub(crate) headers: Vec<(String, String)>,
    /// Files of further issuers to believe.
    pub(crate) roots: Vec<PathBuf>,
    /// The file of the one certificate to believe.
    pub(crate) pin_cert: Option<PathBuf>,
    /// The file of the own certificate and its key.
    pub(crate) client_cert: Option<PathBuf>,
}

impl WebClient {
    /// The stamps of all files that are named.
    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        let secrets = self.user.iter().map(|(_, password)| password).chain(&self.session);
        let files = self.roots.iter().chain(&self.pin_cert).chain(&self.client_cert);
        secrets.map(Secret::stamp).chain(files.map(|file| stamp(file))).collect()
    }

    /// Whether nothing is set.
    pub(crate) fn is_empty(&self) -> bool {
        *self == WebClient::default()
    }
}

impl fmt::Debug for WebClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A header may hold a secret.
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("WebClient")
            .field("user", &self.user)
            .field("session", &self.session)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

/// How clients are met.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WebServer {
    /// Who may sync: lines of NAME:PASSWORD.
    pub(crate) users: Option<Secret>,
    /// The file of the certificate with its chain.
    pub(crate) tls_cert: Option<PathBuf>,
    /// The file of its key, if that is another.
    pub(crate) tls_key: Option<PathBuf>,
    /// Whether a key and a certificate are made at the first use.
    pub(crate) tls_self_signed: bool,
    /// Who may sync: clients with a certificate of an issuer in this file.
    pub(crate) client_roots: Option<PathBuf>,
}

impl WebServer {
    /// The stamps of all files that are named.
    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        let files = self.tls_cert.iter().chain(&self.tls_key).chain(&self.client_roots);
        self.users.iter().map(Secret::stamp).chain(files.map(|file| stamp(file))).collect()
    }

    /// Whether nothing is set.
    pub(crate) fn is_empty(&self) -> bool {
        *self == WebServer::default()
    }

    /// Whether clients prove who they are before a byte of replication.
    pub(crate) fn proves_peers(&self) -> bool {
        self.users.is_some() || self.client_roots.is_some()
    }
}

/// Why a file that is named cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WebError {
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file cannot be read.
    #[error("{} cannot be read: {reason}", path.display())]
    Read { path: PathBuf, reason: String },
    /// What is in it cannot be used.
    #[error("{about}: {reason}")]
    Unusable { about: String, reason: String },
    /// The settings do not fit the URL.
    #[error("{what}")]
    Unfit { what: String, right: Unfit },
}

/// What would make settings fit a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// TLS wants a certificate.
    NeedsCertificate,
    /// Without TLS there is nothing to prove.
    NeedsTls,
}

impl WebError {
    /// What to do, if that is known.
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            WebError::Secret(error) => Some(error.advice()),
            _ => None,
        }
    }
}

#[cfg(feature = "websocket")]
mod files {
    use std::io::Read as _;
    use std::path::Path;

    use zeroize::Zeroizing;

    use super::{
        FILE_BYTES_MAX, IDENTITY_FILE, PathBuf, Secret, SecretError, Unfit, WebClient, WebError, WebServer,
    };
    use crate::node::{Users, WebSocket, WebSocketPlace};
    use crate::transport::websocket::{
        Admission, Credentials, ServerTrust, TlsError, TlsIdentity, WebSocketClient, WebSocketClientConfig,
        WebSocketListenerConfig, WebSocketUrl,
    };
    use crate::trust::files::{PrivateFileError, read_private, write_private};

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
        if let Some(file) = &settings.pin_cert {
            config.trust = ServerTrust::Pinned(read(file)?);
        } else {
            let extra_roots = settings.roots.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
            config.trust = ServerTrust::System { extra_roots };
        }
        if let Some(file) = &settings.client_cert {
            config.identity = Some(identity(file, file)?);
        }
        WebSocketClient::new(url.clone(), &config).map_err(|error| {
            let given =
                settings.pin_cert.iter().chain(&settings.roots).map(|file| file.display().to_string());
            let given: Vec<String> = given.collect();
            let about = if given.is_empty() { url.to_string() } else { given.join(", ") };
            unusable(about, &error)
        })
    }

    /// The place where the database in `directory` is served, and the certificate if one of our own is shown.
    ///
    /// # Errors
    /// A file cannot be read or used, or the settings do not fit the URL.
    pub(crate) fn place_of(
        settings: &WebServer,
        url: &WebSocketUrl,
        directory: &Path,
    ) -> Result<(WebSocketPlace, Option<Certificate>), WebError> {
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
            config.admission = read_users(users)?.admission();
        }
        if let Some(file) = &settings.client_roots {
            config.admission = Admission::Certificates(read(file)?);
        }
        let host = if url.host().contains(':') { format!("[{}]", url.host()) } else { url.host().to_owned() };
        Ok((WebSocket::bind(format!("{host}:{}", url.port()), config), own))
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

    fn read_users(users: &Secret) -> Result<Users, WebError> {
        let wrong = |reason: String| WebError::Unusable { about: users.to_string(), reason };
        let bytes = users.read()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is no text".into()))?;
        Users::parse(text).map_err(|(line, what)| match line {
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
}
