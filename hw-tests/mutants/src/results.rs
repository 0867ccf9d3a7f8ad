//! What became of the changes of an area, in the files that cargo-mutants would write.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use crate::run::Verdict;
use crate::weave::Change;

/// The files that say that a change was tried.
const TRIED: [&str; 3] = ["caught.txt", "missed.txt", "timeout.txt"];

/// The results of an area.
pub struct Results {
    directory: PathBuf,
    writing: Mutex<()>,
}

impl Results {
    /// Those in this directory, which is made if it is not there.
    ///
    /// # Errors
    /// Of input and output.
    pub fn open(directory: PathBuf) -> io::Result<Results> {
        fs::create_dir_all(&directory)?;
        Ok(Results { directory, writing: Mutex::default() })
    }

    /// The changes that a file names. The end of a line that was not written whole counts for nothing.
    ///
    /// # Errors
    /// Of input and output.
    pub fn names(&self, file: &str) -> io::Result<HashSet<String>> {
        match fs::read_to_string(self.directory.join(file)) {
            Ok(text) => {
                Ok(text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')).map(Into::into).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
            Err(error) => Err(error),
        }
    }

    /// The changes that were tried.
    ///
    /// # Errors
    /// Of input and output.
    pub fn done(&self) -> io::Result<HashSet<String>> {
        let mut done = HashSet::new();
        for file in TRIED {
            done.extend(self.names(file)?);
        }
        Ok(done)
    }

    /// Replaces a file.
    ///
    /// # Errors
    /// Of input and output.
    pub fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.directory.join(file), text)
    }

    /// Adds what became of a change; the file that says that it was tried comes last.
    ///
    /// # Errors
    /// Of input and output.
    pub fn add(&self, change: &Change, verdict: &Verdict) -> io::Result<()> {
        let _alone = self.writing.lock().map_err(|_| io::Error::other("a thread panicked"))?;
        let name = &change.name;
        match verdict {
            Verdict::Caught(test) | Verdict::Hang(test) => {
                self.append("noticed.txt", format!("{name}\t{test}\n"))?
            }
            Verdict::Missed(0) => self.append("unreached.txt", format!("{name}\n"))?,
            Verdict::Missed(_) => {}
        }
        let [caught, missed, timeout] = TRIED;
        let file = match verdict {
            Verdict::Caught(_) => caught,
            Verdict::Missed(_) => missed,
            Verdict::Hang(_) => timeout,
        };
        self.append(file, format!("{name}\n"))
    }

    fn append(&self, file: &str, line: String) -> io::Result<()> {
        File::options().create(true).append(true).open(self.directory.join(file))?.write_all(line.as_bytes())
    }
}
