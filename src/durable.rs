//! Files that are written whole or not at all, and are on stable storage when the call returns.
//!
//! A new file is written beside, synced, and given its name, and the directory is synced last: a power cut at any time leaves
//! the old file or the new one. After an error the old file is in place, unless only the last sync of the directory failed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Mode of a file that only its owner reads and writes.
pub(crate) const OWNER_ONLY: u32 = 0o600;

/// Replaces the file at `path`, or makes it.
pub(crate) fn write_atomic(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let draft = beside(path, "partial");
    with_draft(&draft, || {
        write_new(&draft, mode, bytes)?;
        fs::rename(&draft, path)
    })?;
    sync_parent(path)
}

/// Makes the file at `path` unless there is one, also where two processes do so at once: the file of the first stays.
pub(crate) fn create_atomic(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let draft = beside(path, &std::process::id().to_string());
    with_draft(&draft, || {
        write_new(&draft, mode, bytes)?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(&draft),
            Err(_) => fs::rename(&draft, path), // a file system without links
            Ok(()) => fs::remove_file(&draft),
        }
    })?;
    sync_parent(path)
}

/// Writes a file that is not there yet; its name is not synced.
pub(crate) fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).custom_flags(no_follow()).open(path)?;
    file.write_all(bytes)?;
    sync_file(&file)
}

/// Syncs a file that was written.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(test)]
    synced::note(file);
    Ok(())
}

/// Syncs the entries of a directory.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    sync_file(&File::open(directory)?)
}

/// Syncs the name of a file.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    sync_directory(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// For opening: a symbolic link could lead to another's file.
pub(crate) fn no_follow() -> i32 {
    (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits() as i32
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    PathBuf::from(name)
}

/// Does what makes a draft and takes it away; no draft is left behind, also if that fails.
fn with_draft(draft: &Path, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // What a process that was killed has left; its mode may be any.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write().inspect_err(|_| drop(fs::remove_file(draft)))
}

/// What this thread has synced, for tests.
#[cfg(test)]
pub(crate) mod synced {
    use std::cell::RefCell;
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;

    thread_local! {
        static NAMES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes the name that it has at this moment; a directory's is `/`.
    pub(super) fn note(file: &File) {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
        let name = if path.is_dir() {
            Some("/".into())
        } else {
            path.file_name().map(|n| n.to_string_lossy().into_owned())
        };
        NAMES.with_borrow_mut(|names| names.extend(name));
    }

    /// The names since it was asked last.
    pub(crate) fn take() -> Vec<String> {
        NAMES.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("list");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_is_synced_before_it_has_its_name_and_the_name_after() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("file");
        for text in ["one", "another"] {
            synced::take();
            write_atomic(&path, OWNER_ONLY, text.as_bytes()).expect("write");
            assert_eq!(synced::take(), ["file.partial", "/"]);
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
        }
        let other = dir.path().join("other");
        for text in ["first", "second"] {
            create_atomic(&other, OWNER_ONLY, text.as_bytes()).expect("write");
            let draft = format!("other.{}", std::process::id());
            assert_eq!(synced::take(), [&draft, "/"]);
        }
        assert_eq!(fs::read_to_string(&other).expect("read"), "first", "who came first stays");
        assert_eq!(names(dir.path()), ["file", "other"]);
    }

    #[test]
    fn the_directory_that_is_synced_is_the_files_own() {
        let dir = tempfile::tempdir().expect("dir");
        sync_parent(&dir.path().join("file")).expect("there is one");
        sync_parent(Path::new("file")).expect("the current one");
        sync_parent(&dir.path().join("none/file")).expect_err("there is none");
    }

    #[test]
    fn what_fails_leaves_the_old_file_and_no_draft() {
        let dir = tempfile::tempdir().expect("dir");
        // A directory cannot be replaced by a file.
        let path = dir.path().join("file");
        fs::create_dir(&path).expect("directory");
        write_atomic(&path, OWNER_ONLY, b"text").expect_err("it is a directory");
        assert_eq!(names(dir.path()), ["file"]);
        assert!(path.is_dir());
        // What a killed process has left is no obstacle, nor is its mode taken over.
        use std::os::unix::fs::PermissionsExt;
        let left = dir.path().join("other.partial");
        fs::write(&left, b"half").expect("write");
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).expect("chmod");
        write_atomic(&dir.path().join("other"), OWNER_ONLY, b"whole").expect("write");
        let mode = fs::metadata(dir.path().join("other")).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
        assert_eq!(names(dir.path()), ["file", "other"]);
    }
}
