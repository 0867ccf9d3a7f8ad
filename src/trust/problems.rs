//! What is wrong with the security files of a database, for its owner.

use std::path::Path;

use super::files::PrivateFileError;
use super::group::{Group, GroupError};
use super::guesses::{self, GUESSES_FILE};
use super::identity::IdentityError;
use super::list::{TrustError, TrustList};
use super::presence::SecurityFile;
use crate::secure::Identity;

/// Something that is wrong with a security file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name.
    pub file: String,
    /// What is wrong, with the file's path.
    pub found: String,
    /// What its owner can do.
    pub advice: String,
    /// Whether it is lost or does not hold together; otherwise it may be good, but not as it stands (its mode, its owner).
    pub is_damage: bool,
}

impl Problem {
    fn new(file: &str, error: &PrivateFileError) -> Problem {
        let is_damage = matches!(error, PrivateFileError::Missing { .. } | PrivateFileError::Damaged { .. });
        Problem { file: file.into(), found: error.to_string(), advice: error.advice(), is_damage }
    }
}

/// What is wrong with the security files of a database.
pub fn problems(directory: &Path) -> Vec<Problem> {
    let mut found = Vec::new();
    match Identity::load(directory) {
        Err(IdentityError::File(error)) => found.push(Problem::new(SecurityFile::Identity.name(), &error)),
        Err(error) => found.push(Problem {
            file: SecurityFile::Identity.name().into(),
            found: error.to_string(),
            advice:
                "put it back from a backup, or `gattway db renew --identity` and pair this database again"
                    .into(),
            is_damage: matches!(error, IdentityError::Damaged { .. }),
        }),
        Ok(_) => {}
    }
    if let Err(GroupError::File(error)) = Group::load(directory) {
        found.push(Problem::new(SecurityFile::Group.name(), &error));
    }
    if let Err(TrustError::File(error)) = TrustList::load(directory) {
        found.push(Problem::new(SecurityFile::Trust.name(), &error));
    }
    if let Err(error) = guesses::check(directory) {
        found.push(Problem::new(GUESSES_FILE, &error));
    }
    found
}
