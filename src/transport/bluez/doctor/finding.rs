//! What was found, and what to do.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but could be better.
    Advice,
    /// Known to give trouble.
    Warning,
    /// Bluetooth cannot work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing needs to be done.
    pub advice: String,
}

impl Finding {
    pub(super) fn new(check: &str, level: Level, found: impl Into<String>, advice: &str) -> Finding {
        Finding { check: check.to_owned(), level, found: found.into(), advice: advice.to_owned() }
    }
}
