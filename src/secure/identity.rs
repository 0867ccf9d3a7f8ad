//! The key pair of a database, and the file that keeps it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fmt, process};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::crypto::{KEY_BYTES, diffie_hellman, mac, public_key};
use super::files::{self, PrivateFileError};
use super::presence::{self, SecurityFile};
use super::{PeerId, Psk};

/// The file in a database's directory.
pub const IDENTITY_FILE: &str = "identity";

/// What the file begins with: says what it is, and the version of its layout.
const MAGIC: &[u8; 8] = b"gattwid1";
/// Magic, private key, and a CRC-32 of both in little endian.
const FILE_BYTES: usize = MAGIC.len() + KEY_BYTES + 4;
/// Only the owner reads it.
const FILE_MODE: u32 = 0o600;
/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// The key pair by which a database is known: its static Noise key. Wiped when dropped, never shown.
#[derive(ZeroizeOnDrop)]
pub struct Identity {
    private: [u8; KEY_BYTES],
    #[zeroize(skip)]
    id: PeerId,
}

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
    /// The identity with this private key.
    pub fn from_private(private: [u8; KEY_BYTES]) -> Identity {
        Identity { private, id: PeerId(public_key(&private)) }
    }

    /// The public half.
    pub fn id(&self) -> PeerId {
        self.id
    }

    pub(super) fn private(&self) -> &[u8; KEY_BYTES] {
        &self.private
    }

    /// The key that only this side and that peer can compute: what two paired peers prove before either shows who it is.
    ///
    /// `None` for a key that is no usable public key.
    pub fn pair_psk(&self, peer: &PeerId) -> Option<Psk> {
        let mut shared = diffie_hellman(&self.private, peer.as_bytes())?;
        let (low, high) = if self.id < *peer { (&self.id, peer) } else { (peer, &self.id) };
        let psk = Psk(mac(&shared, &[b"gattway pair", low.as_bytes(), high.as_bytes()]));
        shared.zeroize();
        Some(psk)
    }

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
        let failed = |source| IdentityError::Io { path: path.clone(), source };
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                presence::check_absent(dir, SecurityFile::Identity)?;
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        check_access(&path, &file.metadata().map_err(failed)?)?;
        let mut bytes = Zeroizing::new([0u8; FILE_BYTES + 1]);
        let length = read_up_to(file, &mut bytes[..]).map_err(failed)?;
        parse(&bytes[..length]).map(Some).ok_or(IdentityError::Damaged { path })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

fn check_access(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(IdentityError::Damaged { path });
    }
    let mode = metadata.mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(IdentityError::Mode { path, mode });
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user && user != 0 {
        return Err(IdentityError::Owner { path, owner, user });
    }
    Ok(())
}

fn read_up_to(mut file: File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
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

/// Writes a new file beside, then gives it its name unless somebody was faster.
fn create(dir: &Path, path: &Path, private: &[u8; KEY_BYTES]) -> io::Result<()> {
    if !dir.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(private);
    let crc = crc32fast::hash(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    let draft = dir.join(format!("{IDENTITY_FILE}.{}", process::id()));
    let _ = fs::remove_file(&draft);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&draft)?;
        file.write_all(&content)?;
        files::sync_file(&file)?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(_) => fs::rename(&draft, path), // a file system without links
            Ok(()) => Ok(()),
        }
    })();
    let _ = fs::remove_file(&draft);
    written?;
    files::sync_parent(path)
}

#[cfg(test)]
mod tests {
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
        assert_eq!(mode & 0o777, FILE_MODE);
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

    #[test]
    fn a_pair_agrees_and_nobody_else() {
        let [a, b, c] = [1, 2, 3].map(|n| Identity::from_private([n; KEY_BYTES]));
        assert_eq!(a.pair_psk(&b.id()), b.pair_psk(&a.id()));
        assert_ne!(a.pair_psk(&b.id()), a.pair_psk(&c.id()));
        assert_eq!(a.pair_psk(&PeerId([0; KEY_BYTES])), None);
        assert!(!format!("{a:?} {:?}", a.pair_psk(&b.id())).contains("01"));
    }
}
