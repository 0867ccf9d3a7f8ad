//! The file that keeps the key pair of a database.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use super::files::{self, OTHERS, PrivateFileError};
pub use super::presence::IDENTITY_FILE;
use super::presence::{self, SecurityFile};
use crate::durable::{OWNER_ONLY, create_atomic};
use crate::secure::{Identity, KEY_BYTES};

/// What the file begins with: says what it is, and the version of its layout.
const MAGIC: &[u8; 8] = b"gattwid1";
/// Magic, private key, and a CRC-32 of both in little endian.
const FILE_BYTES: usize = MAGIC.len() + KEY_BYTES + 4;

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error("{} may be read or changed by others (mode {mode:03o}): chmod 600 it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, not to the user {user} who runs this", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this.
        user: u32,
    },
    /// It is gone although it was there, or that cannot be told.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// It is not what was written.
    #[error("{} is damaged or not an identity; restore it, or make a new one (`gattway db renew --identity`) and pair this database anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    /// Reads the identity of the database in `dir`; makes one of `entropy` if there is none yet.
    ///
    /// The file appears whole or not at all, also when two processes make it at once: both then use the one that came
    /// first. It is on stable storage when this returns.
    ///
    /// # Errors
    /// The file cannot be read or written, is damaged, or is open to others. Nothing was changed.
    pub fn load_or_create(dir: &Path, entropy: [u8; KEY_BYTES]) -> Result<Identity, IdentityError> {
        let entropy = Zeroizing::new(entropy);
        match Identity::load(dir)? {
            Some(identity) => Ok(identity),
            None => {
                let path = dir.join(IDENTITY_FILE);
                create(dir, &path, &entropy)
                    .map_err(|source| IdentityError::Io { path: path.clone(), source })?;
                presence::enter(dir, SecurityFile::Identity)?;
                Identity::load(dir)?.ok_or(IdentityError::Damaged { path })
            }
        }
    }

    /// Reads the identity of the database in `dir`; `None` if it has none yet.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is open to others.
    pub fn load(dir: &Path) -> Result<Option<Identity>, IdentityError> {
        let path = dir.join(IDENTITY_FILE);
        let Some(bytes) = files::read_private(&path, FILE_BYTES).map_err(unusable)? else {
            presence::check_absent(dir, SecurityFile::Identity)?;
            return Ok(None);
        };
        parse(&bytes).map(Some).ok_or(IdentityError::Damaged { path })
    }
}

/// Why a file that cannot be read is of no use as an identity.
fn unusable(error: PrivateFileError) -> IdentityError {
    match error {
        PrivateFileError::Io { path, source, .. } => IdentityError::Io { path, source },
        PrivateFileError::NotPrivate { path, mode, .. } if mode & OTHERS != 0 => {
            IdentityError::Mode { path, mode: mode & 0o777 }
        }
        PrivateFileError::NotPrivate { path, owner, .. } => {
            IdentityError::Owner { path, owner, user: rustix::process::geteuid().as_raw() }
        }
        PrivateFileError::Damaged { path, .. } => IdentityError::Damaged { path },
        other => IdentityError::File(other),
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Identity> {
    let content = bytes.get(..FILE_BYTES - 4)?;
    let crc = u32::from_le_bytes(bytes.get(FILE_BYTES - 4..)?.try_into().ok()?);
    let private = content.strip_prefix(MAGIC)?;
    if crc32fast::hash(content) != crc {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(private);
    let identity = Identity::from_private(key);
    key.zeroize();
    Some(identity)
}

fn create(dir: &Path, path: &Path, private: &[u8; KEY_BYTES]) -> io::Result<()> {
    if !dir.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(private);
    let crc = crc32fast::hash(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    create_atomic(path, OWNER_ONLY, &content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(Identity::load(dir.path()).expect("load").is_none());
        let made = Identity::load_or_create(dir.path(), [7; KEY_BYTES]).expect("make");
        let again = Identity::load_or_create(dir.path(), [8; KEY_BYTES]).expect("read");
        assert_eq!(made.id(), again.id());
        let names: Vec<_> =
            fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
        let mut names = names;
        names.sort_unstable();
        assert_eq!(names, [IDENTITY_FILE, presence::PRESENT_FILE, "present.lock"]);
        let mode = fs::metadata(dir.path().join(IDENTITY_FILE)).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
    }

    #[test]
    fn its_directory_is_made_for_the_owner_alone() {
        let dir = tempfile::tempdir().expect("dir");
        let inner = dir.path().join("not/yet");
        Identity::load_or_create(&inner, [7; KEY_BYTES]).expect("make");
        for made in ["not", "not/yet"] {
            let mode = fs::metadata(dir.path().join(made)).expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
    }

    /// One says `chmod`, the other `chown`.
    #[test]
    fn who_else_can_read_it_is_told_from_whose_it_is() {
        let of = |mode| unusable(PrivateFileError::NotPrivate { path: "identity".into(), mode, owner: 7 });
        assert!(matches!(of(0o640), IdentityError::Mode { mode: 0o640, .. }));
        assert!(matches!(of(0o600), IdentityError::Owner { owner: 7, .. }));
    }

    #[test]
    fn open_or_damaged_files_are_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join(IDENTITY_FILE);
        Identity::load_or_create(dir.path(), [7; KEY_BYTES]).expect("make");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Mode { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        let whole = fs::read(&path).expect("read");
        for byte in 0..whole.len() {
            let mut bad = whole.clone();
            bad[byte] ^= 1;
            fs::write(&path, &bad).expect("write");
            assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Damaged { .. })), "byte {byte}");
            fs::write(&path, &whole[..byte]).expect("write");
            assert!(
                matches!(Identity::load(dir.path()), Err(IdentityError::Damaged { .. })),
                "length {byte}"
            );
        }
        let target = dir.path().join("elsewhere");
        fs::write(&target, &whole).expect("write");
        fs::remove_file(&path).expect("remove");
        std::os::unix::fs::symlink(&target, &path).expect("link");
        assert!(Identity::load(dir.path()).is_err(), "a link was followed");
    }
}
