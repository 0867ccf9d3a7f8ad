//! Codes that were tried in vain. A code that comes from a file outlives the command that waits for it: without this memory
//! whoever starts that command again and again would give away one guess each time.

use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;

use super::files::{self, PrivateFile, PrivateFileError};
use crate::secure::Identity;
use crate::secure::pairing::PairingCode;

/// Bytes that stand for a code. Not the code, nor a hash of it alone, which six digits could be found by.
const TAG_BYTES: usize = 16;
/// Codes that are remembered; for one more the oldest is forgotten.
const CODES_MAX: usize = 256;
const FILE: PrivateFile =
    PrivateFile { name: "guesses", magic: *b"GWgs", version: 1, content_max: CODES_MAX * TAG_BYTES };
const LOCK_FILE: &str = "guesses.lock";

/// What is remembered of one code in a database's directory.
#[derive(Debug)]
pub struct Guesses {
    directory: PathBuf,
    tag: [u8; TAG_BYTES],
}

impl Guesses {
    /// Of `code`, at the device of this identity.
    pub fn of(directory: &Path, identity: &Identity, code: &PairingCode) -> Guesses {
        Guesses { directory: directory.to_owned(), tag: code.tag(identity) }
    }

    /// Whether the code was tried before, and nobody had it right since.
    ///
    /// # Errors
    /// [`PrivateFileError`].
    pub fn is_spent(&self) -> Result<bool, PrivateFileError> {
        Ok(self.load()?.iter().any(|tag| tag.ct_eq(&self.tag).into()))
    }

    /// The code is being tried: it is spent, on stable storage when this returns, before anybody knows whether it was right.
    ///
    /// # Errors
    /// [`PrivateFileError`]; the guess must not be judged then.
    pub fn spend(&self) -> Result<(), PrivateFileError> {
        self.change(|tags| tags.push(self.tag))
    }

    /// It was right: the code is as good as before.
    ///
    /// # Errors
    /// [`PrivateFileError`]; the code is spent then.
    pub fn give_back(&self) -> Result<(), PrivateFileError> {
        self.change(|_| {})
    }

    /// Takes the code out of those that are spent, and then does something to them.
    fn change(&self, change: impl FnOnce(&mut Vec<[u8; TAG_BYTES]>)) -> Result<(), PrivateFileError> {
        let _lock = files::lock(&self.directory, LOCK_FILE)?;
        let mut tags = self.load()?;
        tags.retain(|tag| *tag != self.tag);
        change(&mut tags);
        let surplus = tags.len().saturating_sub(CODES_MAX);
        tags.drain(..surplus);
        FILE.write(&self.directory, &tags.concat())
    }

    fn load(&self) -> Result<Vec<[u8; TAG_BYTES]>, PrivateFileError> {
        load(&self.directory)
    }
}

/// Name of the file.
pub(super) const GUESSES_FILE: &str = FILE.name;

/// Whether what is remembered in a database's directory can be read.
///
/// # Errors
/// [`PrivateFileError`].
pub(super) fn check(directory: &Path) -> Result<(), PrivateFileError> {
    load(directory).map(|_| ())
}

/// Oldest first.
fn load(directory: &Path) -> Result<Vec<[u8; TAG_BYTES]>, PrivateFileError> {
    let Some((_, content)) = FILE.read(directory)? else { return Ok(Vec::new()) };
    match content.as_chunks() {
        (tags, []) => Ok(tags.to_vec()),
        _ => Err(PrivateFileError::Damaged { path: FILE.path(directory), detail: "a code is not whole" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(directory: &Path, identity: u8, code: &str) -> Guesses {
        let identity = Identity::from_private([identity; 32]);
        Guesses::of(directory, &identity, &PairingCode::parse(code).expect("a code"))
    }

    #[test]
    fn a_code_that_was_tried_stays_spent_until_somebody_had_it_right() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, other) = (of(dir.path(), 1, "482915"), of(dir.path(), 1, "482916"));
        assert!(!one.is_spent().expect("read"));
        one.spend().expect("write");
        one.spend().expect("write");
        // As another process sees it.
        assert!(of(dir.path(), 1, "482 915").is_spent().expect("read"));
        assert!(!other.is_spent().expect("read") && !of(dir.path(), 2, "482915").is_spent().expect("read"));
        one.give_back().expect("write");
        assert!(!one.is_spent().expect("read"));
    }

    #[test]
    fn codes_are_bounded_and_are_not_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let all: Vec<Guesses> =
            (0..CODES_MAX + 3).map(|n| of(dir.path(), 1, &format!("{:06}", 482_000 + n))).collect();
        for code in &all {
            code.spend().expect("write");
        }
        let spent = all.iter().map(|code| code.is_spent().expect("read")).collect::<Vec<_>>();
        assert_eq!(spent.iter().filter(|spent| !**spent).count(), 3);
        assert!(!spent[0] && spent[3], "the oldest are forgotten");
        let bytes = std::fs::read(FILE.path(dir.path())).expect("read");
        assert!(!bytes.windows(4).any(|part| part == b"4820"));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let code = of(dir.path(), 1, "482915");
        FILE.write(dir.path(), &[1; TAG_BYTES + 1]).expect("write");
        assert!(code.is_spent().is_err() && code.spend().is_err());
    }
}
