//! A group as one line, and the time of its epochs.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::trust::group::Group;

/// A group in a line, without its secret.
pub(crate) fn summary(group: &Group) -> String {
    let epoch = group.epoch().map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
    format!("group {:?}{epoch}, fingerprint {}", group.name(), group.fingerprint())
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
