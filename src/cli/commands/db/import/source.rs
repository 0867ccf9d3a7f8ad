//! Where records come from, to be read more than once: files, and standard input as far as it is kept.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::records::{Counted, open_text};

/// Bytes of standard input that are kept in memory to be checked as a whole before anything is written.
pub(super) const CHECKED_STDIN_BYTES: u64 = 32 << 20;

/// One input.
pub(super) enum Source {
    File(PathBuf, File),
    /// All of standard input.
    Memory(Bytes),
    /// The start of standard input; the rest is still to come.
    Stream(Bytes),
}

impl Source {
    /// Opens a file, or reads standard input as far as it is kept.
    pub(super) fn open(path: &Path) -> Result<Source, CliError> {
        if path != Path::new("-") {
            let file = File::open(path).map_err(|error| unreadable(path, &error))?;
            if file.metadata().is_ok_and(|data| data.is_file()) {
                return Ok(Source::File(path.to_owned(), file));
            }
            return Err(CliError::new(Exit::Input, format!("{} is not a regular file", path.display()))
                .help("give its content on standard input, as file `-`"));
        }
        let mut start = Vec::new();
        let limit = CHECKED_STDIN_BYTES + 1;
        io::stdin().lock().take(limit).read_to_end(&mut start).map_err(|error| unreadable(path, &error))?;
        let is_cut = start.len() as u64 == limit;
        let start = Bytes::from(start);
        Ok(if is_cut { Source::Stream(start) } else { Source::Memory(start) })
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> String {
        match self {
            Source::File(path, _) => path.display().to_string(),
            Source::Memory(_) | Source::Stream(_) => "standard input".to_owned(),
        }
    }

    /// Whether it can be read only once.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Source::Stream(_))
    }

    /// Bytes that can be read before anything is written.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Source::File(_, file) => file.metadata().map_or(0, |data| data.len()),
            Source::Memory(bytes) | Source::Stream(bytes) => bytes.len() as u64,
        }
    }

    /// Its text from the beginning; of a stream with what is still to come, so once.
    pub(super) fn text(&self) -> Result<Box<dyn BufRead + Send>, CliError> {
        match self {
            Source::Stream(start) => open_text(BufReader::new(Cursor::new(start.clone()).chain(io::stdin()))),
            _ => self.known_text(&Arc::default()),
        }
    }

    /// Its text from the beginning, as far as that can be read again; `read` counts its bytes.
    pub(super) fn known_text(&self, read: &Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>, CliError> {
        match self {
            Source::File(path, file) => {
                let mut again = file.try_clone().map_err(|error| unreadable(path, &error))?;
                again.rewind().map_err(|error| unreadable(path, &error))?;
                open_text(BufReader::with_capacity(64 * 1024, Counted::new(again, Arc::clone(read))))
            }
            Source::Memory(bytes) | Source::Stream(bytes) => {
                let again = Counted::new(Cursor::new(bytes.clone()), Arc::clone(read));
                open_text(BufReader::with_capacity(64 * 1024, again))
            }
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Input, format!("{} cannot be read: {error}", path.display()))
}
