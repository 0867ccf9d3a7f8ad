//! A directory of this process alone, removed at the end.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cli::support::error::{CliError, Exit};

/// A new directory among the system's temporary ones (`TMPDIR`). Removed with all its content when dropped.
pub(crate) struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    /// Makes one; `name` tells people what it is for.
    pub(crate) fn new(name: &str) -> Result<TemporaryDirectory, CliError> {
        let name = format!("gattway-{name}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // Not `create_dir_all`: it must be ours alone.
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            CliError::new(Exit::Database, format!("{} cannot be made: {error}", path.display()))
        })?;
        Ok(TemporaryDirectory { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed is in the directory for such things.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
