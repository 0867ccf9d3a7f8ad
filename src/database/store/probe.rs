//! What tests look for in the files of a database.

use std::path::Path;

use super::engine::Engine;
use super::sled::files::Survey;
use super::{keys, layout};

/// Number at which the log in a directory ends.
pub(crate) fn log_end(directory: &Path) -> u64 {
    Survey::read(directory).expect("readable").end()
}

pub(crate) fn has_redo_list(path: &Path) -> bool {
    let logs = layout::logs(path).expect("the logs");
    let engine = Engine::open_to_read(&logs.current).expect("readable").expect("a log");
    engine.get(keys::REDO_COMPLETE).expect("readable").is_some()
}
