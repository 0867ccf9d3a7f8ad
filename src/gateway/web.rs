//! The settings of WebSocket: how a server is met, and how clients are.

use std::fmt;
use std::path::PathBuf;

use super::secret::{Secret, SecretError, Stamp, stamp};

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
