//! What is said where an identity, a group or a trust list cannot be read or kept.

use crate::cli::support::error::{CliError, Exit};
use crate::secure::epoch::EpochError;
use crate::trust::files::PrivateFileError;
use crate::trust::group::GroupError;
use crate::trust::list::TrustError;

/// A failure with the trust list.
pub(crate) fn list_failed(error: TrustError) -> CliError {
    let text = error.to_string();
    match &error {
        TrustError::File(file) => file_failed(file),
        TrustError::Unknown { .. } => CliError::new(Exit::NotFound, text)
            .help("`gattway peers ls` lists them; `peers add ID` enters one"),
        TrustError::Denied { text: who } => {
            CliError::new(Exit::Input, text).help(format!("`gattway peers allow {who:?}` lets it in again"))
        }
        TrustError::Ambiguous { .. } => {
            CliError::new(Exit::Input, text).help("give more of its ID, or its name")
        }
        TrustError::Full => CliError::new(Exit::Input, text).help("`gattway peers forget` makes room"),
        _ => CliError::new(Exit::Input, text),
    }
}

/// There is no group.
pub(crate) fn no_group() -> CliError {
    CliError::new(Exit::NotFound, "this database is in no group")
        .help("`gattway group create` makes one, `gattway group join` joins another device's")
}

/// A failure with the file of a group.
pub(crate) fn group_failed(error: GroupError) -> CliError {
    match &error {
        GroupError::File(file) => file_failed(file),
        GroupError::Name => CliError::new(Exit::Input, error.to_string()),
        GroupError::Epoch(epoch) => epoch_failed(epoch),
    }
}

/// A failure with the epoch of a group.
fn epoch_failed(error: &EpochError) -> CliError {
    match error {
        EpochError::NoGroup => no_group(),
        EpochError::NoKey => CliError::new(Exit::Input, error.to_string()).help(
            "`gattway group rotate` works on the device that the group was made on; `gattway group authority --help`",
        ),
        EpochError::Store { .. } => CliError::new(Exit::Database, error.to_string()),
        _ => CliError::new(Exit::Input, error.to_string()),
    }
}

/// A failure with a private file.
pub(crate) fn file_failed(error: &PrivateFileError) -> CliError {
    CliError::new(Exit::Database, error.to_string()).help(error.advice())
}
