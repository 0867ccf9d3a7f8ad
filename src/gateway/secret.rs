//! Secrets of a configuration: in files that nobody else may read, or in credentials that systemd hands over.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::trust::files::{PrivateFileError, read_private};

/// Where systemd puts the credentials of a service.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Longest secret, in bytes: a list of users may be long.
const SECRET_BYTES_MAX: usize = 1 << 20;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    /// A file that is closed to others.
    File(PathBuf),
    /// A credential of this name: the service manager sees to it that nobody else gets at it.
    Credential(String),
}

/// Why a secret cannot be used. What it holds is never told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SecretError {
    /// The file is not private, or cannot be read.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing { path: PathBuf },
    /// It cannot be read.
    #[error("the credential {name} cannot be read: {reason}")]
    Credential { name: String, reason: String },
    /// It is empty, or no text.
    #[error("{about} {what}")]
    Content { about: String, what: &'static str },
}

impl SecretError {
    /// What to do.
    pub(crate) fn advice(&self) -> String {
        match self {
            SecretError::File(error) => error.advice(),
            SecretError::Missing { .. } => "make it, with mode 0600, for the user that runs this".into(),
            SecretError::Credential { name, .. } => {
                format!("`LoadCredential={name}:/path` in the unit hands it over (systemd.exec(5))")
            }
            SecretError::Content { .. } => "its first line is the secret, in UTF-8".into(),
        }
    }
}

/// How a file looked from outside when the configuration was read: another one since then was changed.
pub(crate) type Stamp = Option<(u64, SystemTime)>;

/// The stamp of a file; `None` if there is none.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

impl Secret {
    /// The stamp of the file that holds it.
    pub(crate) fn stamp(&self) -> Stamp {
        match self {
            Secret::File(path) => stamp(path),
            Secret::Credential(name) => stamp(&PathBuf::from(std::env::var_os(DIRECTORY)?).join(name)),
        }
    }

    /// All that it holds.
    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        match self {
            Secret::File(path) => match read_private(path, SECRET_BYTES_MAX)? {
                Some(bytes) => Ok(bytes),
                None => Err(SecretError::Missing { path: path.clone() }),
            },
            Secret::Credential(name) => {
                let failed = |reason: String| SecretError::Credential { name: name.clone(), reason };
                let directory = std::env::var_os(DIRECTORY).ok_or_else(|| {
                    failed(format!("${DIRECTORY} is not set: systemd has not handed over any"))
                })?;
                let file = std::fs::File::open(PathBuf::from(directory).join(name));
                let file = file.map_err(|error| failed(error.to_string()))?;
                let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
                let read = file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
                read.map_err(|error| failed(error.to_string()))?;
                if bytes.len() > SECRET_BYTES_MAX {
                    return Err(failed("it is longer than 1 MiB".into()));
                }
                Ok(bytes)
            }
        }
    }

    /// Its first line, without what surrounds it.
    pub(crate) fn line(&self) -> Result<Zeroizing<String>, SecretError> {
        let bytes = self.read()?;
        let wrong = |what| SecretError::Content { about: self.to_string(), what };
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match std::str::from_utf8(line).map(str::trim) {
            Ok("") => Err(wrong("is empty")),
            Ok(line) => Ok(Zeroizing::new(line.to_owned())),
            Err(_) => Err(wrong("is not text")),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(path) => path.display().fmt(f),
            Secret::Credential(name) => write!(f, "the credential {name}"),
        }
    }
}
