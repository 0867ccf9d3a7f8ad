//! Which process has a database open, for whoever is told that it is in use.
//!
//! The kernel knows who holds the lock (`/proc/locks`), so nothing has to be written to the database for it. In another
//! container the process has no number here; then it stays unnamed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::cli::support::visible::visible;

/// Longest command line that is shown, characters.
const COMMAND_CHARS_MAX: usize = 160;

/// The process that has the database in `directory` open, as people read it.
pub(crate) fn holder(directory: &Path) -> Option<String> {
    let lock = fs::metadata(crate::database::lock_file(directory)).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let device = (rustix::fs::major(lock.dev()), rustix::fs::minor(lock.dev()));
    let pid = owner_of(&locks, device, lock.ino()).filter(|pid| *pid != std::process::id())?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Some(match command_line(&command) {
        Some(command) => format!("process {pid} ({command})"),
        None => format!("process {pid}"),
    })
}

/// The process with a lock on that file. Some file systems tell another device here than `stat` does; then the number of the file
/// has to do.
fn owner_of(locks: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let on_inode: Vec<(u32, bool)> = locks
        .lines()
        // `1: FLOCK ADVISORY WRITE 1234 08:02:5678 0 EOF`, with `->` before those that wait.
        .filter(|line| !line.contains("->"))
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, "FLOCK", _, _, pid, file, ..] = words[..] else { return None };
            let pid: u32 = pid.parse().ok()?;
            let mut file = file.split(':');
            let hex = |text: Option<&str>| u32::from_str_radix(text?, 16).ok();
            let on = (hex(file.next())?, hex(file.next())?);
            let number: u64 = file.next()?.parse().ok()?;
            (number == inode && pid != 0).then_some((pid, on == device))
        })
        .collect();
    let same = on_inode.iter().find(|(_, is_same)| *is_same).or_else(|| on_inode.first());
    same.map(|(pid, _)| *pid)
}

fn command_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
    let line: String = words.join(" ").chars().take(COMMAND_CHARS_MAX).collect();
    (!line.is_empty()).then(|| visible(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_lock_is_found() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 7 08:02:42 0 EOF
2: FLOCK  ADVISORY  WRITE 8 08:03:42 0 EOF
3: FLOCK  ADVISORY  WRITE 9 08:02:42 0 EOF
3: -> FLOCK  ADVISORY  WRITE 10 08:02:42 0 EOF
4: FLOCK  ADVISORY  WRITE 0 08:02:43 0 EOF
5: FLOCK
nonsense";
        assert_eq!(owner_of(locks, (8, 2), 42), Some(9));
        assert_eq!(owner_of(locks, (0, 99), 42), Some(8));
        assert_eq!(owner_of(locks, (8, 2), 43), None);
        assert_eq!(owner_of("", (8, 2), 42), None);
        assert_eq!(command_line(b"gattway\0--db\0a b\x1b\0"), Some("gattway --db a b\\u{1b}".into()));
        assert_eq!(command_line(b""), None);
    }
}
