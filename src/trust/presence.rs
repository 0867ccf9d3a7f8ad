//! Which security files a database has had: the absence of one that was there is damage, not a default.
//!
//! A lost trust list would otherwise read as "nobody is denied", a lost group as "in none", a lost identity as "never
//! made". The file `present` names those that were written; each is entered after it is on stable storage, and taken out before it is
//! removed on purpose, so a crash in between leaves nothing that looks like a loss. Whether `present` itself was there is told by
//! the version of the group's file.

use std::path::Path;

use super::files::{self, FileLock, PrivateFile, PrivateFileError};
use crate::secure::epoch::SIGNED_EPOCH_BYTES_MAX;

/// The file of the key pair.
pub const IDENTITY_FILE: &str = "identity";
/// Longest name of a group in bytes.
pub const GROUP_NAME_MAX: usize = 64;
/// The file of the group.
pub(crate) const GROUP_FILE: PrivateFile = PrivateFile {
    name: "group",
    magic: *b"GWgr",
    version: 3,
    content_max: GROUP_NAME_MAX + 256 + SIGNED_EPOCH_BYTES_MAX,
};
/// The file of the trust list.
pub(crate) const LIST_FILE: PrivateFile =
    PrivateFile { name: "trust", magic: *b"GWtl", version: 1, content_max: 2 << 20 };

const FILE: PrivateFile =
    PrivateFile { name: PRESENT_FILE, magic: *b"GWpr", version: 1, content_max: PRESENT_BYTES };
/// Its name; a restored database makes its own.
pub const PRESENT_FILE: &str = "present";
const LOCK_FILE: &str = "present.lock";
const PRESENT_BYTES: usize = 1;
/// From this version of it on, the group's file is written only where there is a `present`.
pub(super) const GROUP_VERSION: u8 = 2;

/// A file that decides who is who, or who may what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityFile {
    /// The key pair.
    Identity,
    /// The group's secret.
    Group,
    /// The trust list.
    Trust,
}

impl SecurityFile {
    const ALL: [SecurityFile; 3] = [SecurityFile::Identity, SecurityFile::Group, SecurityFile::Trust];

    pub(super) fn name(self) -> &'static str {
        match self {
            SecurityFile::Identity => IDENTITY_FILE,
            SecurityFile::Group => GROUP_FILE.name,
            SecurityFile::Trust => LIST_FILE.name,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The files that were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Presence(u8);

impl Presence {
    /// What `present` says; `None` if there is none, and none is known to have been.
    fn load(directory: &Path) -> Result<Option<Presence>, PrivateFileError> {
        if let Some((_, content)) = FILE.read(directory)? {
            let damaged = PrivateFileError::Damaged { path: FILE.path(directory), detail: "too short" };
            return content.first().map(|bits| Some(Presence(*bits))).ok_or(damaged);
        }
        match GROUP_FILE.read(directory)? {
            Some((version, _)) if version >= GROUP_VERSION => {
                Err(PrivateFileError::Missing { path: FILE.path(directory) })
            }
            _ => Ok(None),
        }
    }

    /// What stands in the directory now.
    fn found(directory: &Path) -> Presence {
        let is_there = |file: &SecurityFile| directory.join(file.name()).symlink_metadata().is_ok();
        Presence(SecurityFile::ALL.into_iter().filter(is_there).fold(0, |bits, file| bits | file.bit()))
    }

    /// Writes what `change` makes of it. A `present` that is lost or damaged begins with what is there: this is done only once
    /// the file in question is as its owner wants it.
    fn update(directory: &Path, change: impl FnOnce(u8) -> u8) -> Result<Presence, PrivateFileError> {
        let _lock: FileLock = files::lock(directory, LOCK_FILE)?;
        let stored = match Presence::load(directory) {
            Ok(stored) => stored,
            Err(PrivateFileError::Missing { .. } | PrivateFileError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let before = stored.unwrap_or_else(|| Presence::found(directory));
        let after = Presence(change(before.0));
        if stored != Some(after) {
            FILE.write(directory, &[after.0])?;
        }
        Ok(before)
    }
}

/// Refuses a file that is not there and has been.
///
/// # Errors
/// [`PrivateFileError::Missing`], or `present` cannot be read.
pub(super) fn check_absent(directory: &Path, file: SecurityFile) -> Result<(), PrivateFileError> {
    let stored = Presence::load(directory)?.unwrap_or_default();
    if stored.0 & file.bit() == 0 {
        return Ok(());
    }
    Err(PrivateFileError::Missing { path: directory.join(file.name()) })
}

/// Remembers that a file is there. It is on stable storage already.
pub(super) fn enter(directory: &Path, file: SecurityFile) -> Result<(), PrivateFileError> {
    Presence::update(directory, |bits| bits | file.bit()).map(|_| ())
}

/// Makes `present` of what is there where there is none: before a file says that there is, and in a directory whose files
/// were put there on purpose (a restored backup).
///
/// # Errors
/// [`PrivateFileError`].
pub fn begin(directory: &Path) -> Result<(), PrivateFileError> {
    Presence::update(directory, |bits| bits).map(|_| ())
}

/// Forgets a file that its owner is about to remove; whether it was there.
///
/// # Errors
/// [`PrivateFileError`].
pub fn take_out(directory: &Path, file: SecurityFile) -> Result<bool, PrivateFileError> {
    let before = Presence::update(directory, |bits| bits & !file.bit())?;
    Ok(before.0 & file.bit() != 0)
}

/// Remembers all files that are there: databases of earlier releases, and restored ones, have no `present`. Where nothing
/// can be written, nothing is: the files are then as good as their medium.
pub(super) fn adopt(directory: &Path) {
    let found = Presence::found(directory);
    // Where `present` itself is lost, only its owner may say that all is well.
    let Ok(stored) = Presence::load(directory) else { return };
    if stored.unwrap_or_default().0 & found.0 == found.0 {
        return;
    }
    if let Err(error) = Presence::update(directory, |bits| bits | found.0) {
        tracing::warn!(%error, "which security files there are cannot be noted");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::group::{Group, GroupError};
    use super::super::guesses::GUESSES_FILE;
    use super::super::identity::IdentityError;
    use super::super::list::{Origin, TrustError, TrustList};
    use super::super::problems::problems;
    use super::*;
    use crate::secure::group::GroupSecret;
    use crate::secure::{Access, Identity, PeerId};

    /// A database's directory with all of the files.
    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        Identity::load_or_create(dir.path(), [7; 32]).expect("identity");
        Group::new(None, GroupSecret::from_bytes([8; 16])).expect("group").store(dir.path()).expect("store");
        enter_peer(dir.path()).expect("enter");
        dir
    }

    #[test]
    fn spent_codes_that_cannot_be_read_are_a_problem() {
        let dir = directory();
        assert_eq!(problems(dir.path()), []);
        files::write_private(&dir.path().join(GUESSES_FILE), b"no file of ours").expect("written");
        let found = problems(dir.path());
        assert!(matches!(&found[..], [p] if p.file == GUESSES_FILE && p.is_damage), "{found:?}");
    }

    fn enter_peer(dir: &Path) -> Result<(), TrustError> {
        TrustList::update(dir, |list| list.enter(PeerId([1; 32]), Origin::Manual).map(|_| ()))
    }

    fn is_missing(error: &PrivateFileError, name: &str) -> bool {
        matches!(error, PrivateFileError::Missing { path } if path.ends_with(name))
    }

    /// What the loaders say, by name of the file that they miss.
    fn missed(dir: &Path) -> Vec<String> {
        let mut names = Vec::new();
        let mut note = |error: &PrivateFileError| match error {
            PrivateFileError::Missing { path } => {
                names.push(path.file_name().expect("name").to_string_lossy().into_owned());
            }
            other => panic!("{other}"),
        };
        if let Err(IdentityError::File(error)) = Identity::load(dir) {
            note(&error);
        }
        if let Err(GroupError::File(error)) = Group::load(dir) {
            note(&error);
        }
        if let Err(TrustError::File(error)) = TrustList::load(dir) {
            note(&error);
        }
        names
    }

    #[test]
    fn a_file_that_was_there_and_is_gone_is_missed() {
        for lost in SecurityFile::ALL {
            let dir = directory();
            assert!(missed(dir.path()).is_empty());
            let away = dir.path().join("away");
            fs::rename(dir.path().join(lost.name()), &away).expect("rename");
            assert_eq!(missed(dir.path()), [lost.name()]);
            assert!(
                Identity::load_or_create(dir.path(), [9; 32]).is_err() == (lost == SecurityFile::Identity)
            );
            assert_eq!(enter_peer(dir.path()).is_err(), lost == SecurityFile::Trust, "{lost:?}");
            assert_eq!(problems(dir.path()).len(), 1, "{lost:?}");
            fs::rename(&away, dir.path().join(lost.name())).expect("rename");
            assert!(missed(dir.path()).is_empty(), "put back, all is well");
        }
    }

    #[test]
    fn two_losses_do_not_hide_each_other() {
        let dir = directory();
        fs::remove_file(dir.path().join(PRESENT_FILE)).expect("remove");
        assert!(missed(dir.path()).is_empty(), "what it would tell is there");
        fs::remove_file(dir.path().join("trust")).expect("remove");
        assert_eq!(missed(dir.path()), [PRESENT_FILE]);
        adopt(dir.path());
        assert_eq!(missed(dir.path()), [PRESENT_FILE], "a look does not make it good");
    }

    #[test]
    fn what_is_removed_on_purpose_is_not_missed_and_there_is_a_way_out() {
        let dir = directory();
        assert!(Group::leave(dir.path()).expect("leave"));
        assert!(Group::load(dir.path()).expect("none").is_none());
        assert!(!Group::leave(dir.path()).expect("none"));

        for name in ["group", "trust", "identity", PRESENT_FILE] {
            let dir = directory();
            fs::remove_file(dir.path().join(name)).expect("remove");
            if name == PRESENT_FILE {
                files::write_private(&dir.path().join(PRESENT_FILE), b"").expect("write");
                fs::remove_file(dir.path().join("trust")).expect("remove");
            }
            if name == "group" {
                assert!(Group::leave(dir.path()).expect("leave"), "a lost group can be left");
            }
            TrustList::reset(dir.path(), Access::None).expect("reset");
            take_out(dir.path(), SecurityFile::Identity).expect("take out");
            Identity::load_or_create(dir.path(), [9; 32]).expect("a new identity");
            assert_eq!(problems(dir.path()), [], "{name}");
        }
    }

    #[test]
    fn files_of_an_earlier_release_are_adopted() {
        let dir = directory();
        fs::remove_file(dir.path().join(PRESENT_FILE)).expect("remove");
        Group::leave(dir.path()).expect("leave");
        fs::remove_file(dir.path().join(PRESENT_FILE)).expect("remove");
        assert!(missed(dir.path()).is_empty());
        adopt(dir.path());
        fs::remove_file(dir.path().join("trust")).expect("remove");
        assert_eq!(missed(dir.path()), ["trust"]);
        assert!(is_missing(&check_absent(dir.path(), SecurityFile::Trust).expect_err("missed"), "trust"));
    }
}
