//! What is said where a node cannot listen.

use crate::cli::support::error::{CliError, Exit};
#[cfg(feature = "bluetooth")]
use crate::gateway::address::PlaceAddress;
use crate::node::ListenError;

/// It cannot listen there, or not any more.
pub(crate) fn listen_failed(error: &ListenError) -> CliError {
    let told = CliError::new(Exit::Peer, error.to_string());
    #[cfg(feature = "bluetooth")]
    if error.address().parse().is_ok_and(|address: PlaceAddress| address.is_ble()) {
        return told.help(crate::cli::support::ble::DOCTOR);
    }
    if error.is_of_opening() {
        return told.help("choose another address, or end the process that uses it");
    }
    told
}
