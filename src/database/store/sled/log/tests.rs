//! What stands between the store and sled: room for the log, settings that a crash left, panics and errors.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::room::RESERVE_STEP_BYTES;
use super::*;

/// Blocks are asked for up to what is needed and a step beyond, or to what is needed where that is too much; what cannot be had is
/// refused, and a file system that gives none in advance is not asked again.
#[test]
fn a_log_has_its_blocks_before_it_grows() {
    const LEN: u64 = 1_000;
    const STEP: u64 = RESERVE_STEP_BYTES;
    // How much there is, what is answered beyond it; what becomes of the first reservation of 500 bytes.
    for (room, beyond, reserved_then, refused) in [
        (u64::MAX, Errno::NOSPC, LEN + 500 + STEP, None),
        (LEN + 500 + STEP, Errno::NOSPC, LEN + 500 + STEP, None),
        (LEN + 500 + STEP - 1, Errno::NOSPC, LEN + 500, None),
        (LEN + 500, Errno::NOSPC, LEN + 500, None),
        (LEN + 499, Errno::NOSPC, 0, Some(io::ErrorKind::StorageFull)),
        (LEN + 499, Errno::DQUOT, 0, Some(io::ErrorKind::QuotaExceeded)),
        (LEN + 499, Errno::FBIG, 0, Some(io::ErrorKind::FileTooLarge)),
        (LEN + 499, Errno::OPNOTSUPP, u64::MAX, None),
        (LEN + 499, Errno::NOSYS, u64::MAX, None),
        (LEN + 499, Errno::INVAL, u64::MAX, None),
    ] {
        let reserved = AtomicU64::new(0);
        let asked = AtomicBool::new(false);
        let reserve = |len: u64, bytes: u64, limit: Option<u64>| {
            asked.store(false, Ordering::Relaxed);
            reserve_blocks(&reserved, len, bytes, limit, |from, to| {
                asked.store(true, Ordering::Relaxed);
                assert!(from < to && from >= len, "{from} to {to}");
                if to <= room { Ok(()) } else { Err(beyond) }
            })
        };
        let found = reserve(LEN, 500, None).map_err(|error| error.kind());
        assert_eq!(found.err(), refused, "{room} {beyond:?}");
        assert_eq!(reserved.load(Ordering::Relaxed), reserved_then, "{room} {beyond:?}");
        if refused.is_none() {
            // What is there is not asked for again, as long as it is enough.
            reserve(LEN, 500, None).expect("there");
            assert!(!asked.load(Ordering::Relaxed));
            reserve(LEN + 400, 100, Some(LEN + 500)).expect("there");
            assert!(!asked.load(Ordering::Relaxed));
            let more = reserved_then.saturating_sub(LEN) + 1;
            assert_eq!(
                reserve(LEN, more, None).is_ok(),
                room >= LEN.saturating_add(more) || reserved_then == u64::MAX
            );
            assert_eq!(asked.load(Ordering::Relaxed), reserved_then != u64::MAX);
        }
        // The limit of the process counts whatever was reserved.
        let beyond_limit = reserve(LEN, 500, Some(LEN + 499)).map_err(|error| error.kind());
        assert_eq!(beyond_limit, Err(io::ErrorKind::FileTooLarge));
    }
}

/// The file itself: its length says nothing of the blocks.
#[test]
fn reserved_blocks_do_not_show_in_the_length() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(directory.path(), 1 << 20).expect("open");
    log.reserve(3 << 20).expect("room");
    let file = std::fs::metadata(directory.path().join(LOG_FILE)).expect("there");
    assert!(file.len() < 3 << 20);
    let Log::Sled { reserved, .. } = &log else { panic!("it is on files") };
    let reserved = reserved.load(Ordering::Relaxed);
    assert!(reserved >= 3 << 20);
    // Of file systems that give none in advance this says nothing.
    assert!(reserved == u64::MAX || file.blocks() * 512 >= 3 << 20, "{} blocks", file.blocks());
}

#[test]
fn settings_without_a_log_or_of_zeros_go() {
    type Content = Option<&'static [u8]>;
    let cases: [(Content, Content, bool); 8] = [
        (None, None, false),
        (None, Some(b"log"), false),
        (Some(b""), None, false),
        (Some(b"settings"), None, false),
        (Some(b"settings"), Some(b""), false),
        (Some(b"settings"), Some(b"log"), true),
        (Some(&[0; 8]), Some(b"log"), false),
        (Some(&[0, 0, 1, 0]), Some(b"log"), true),
    ];
    for (settings, log, stays) in cases {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(SETTINGS_FILE);
        if let Some(settings) = settings {
            std::fs::write(&path, settings).expect("write");
        }
        if let Some(log) = log {
            std::fs::write(directory.path().join(LOG_FILE), log).expect("write");
        }
        remove_unfinished_settings(directory.path()).expect("done");
        assert_eq!(path.exists(), stays, "{settings:?} {log:?}");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(directory.path().join(SETTINGS_FILE)).expect("a directory");
    assert!(remove_unfinished_settings(directory.path()).is_err(), "what cannot be read is no missing file");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [settings, log] = [SETTINGS_FILE, LOG_FILE].map(|name| directory.path().join(name));
    std::fs::write(&settings, b"settings").expect("write");
    std::os::unix::fs::symlink(&log, &log).expect("made");
    assert!(remove_unfinished_settings(directory.path()).is_err() && settings.exists(), "nor an empty log");
}

#[test]
fn a_panic_is_an_error_with_its_words() {
    assert!(!contains_panics());
    assert_eq!(contain(contains_panics), Ok(true));
    assert_eq!(contain(|| -> u8 { panic!("page {}", 7) }), Err("page 7".to_owned()));
    assert_eq!(contain(|| -> u8 { panic!("a page") }), Err("a page".to_owned()));
    assert_eq!(contain(|| -> u8 { std::panic::panic_any(7) }), Err("the store panicked".to_owned()));
    assert_eq!(contain(|| contain(|| 7).is_ok() && contains_panics()), Ok(true), "one in another");
    assert!(!contains_panics());
}

#[test]
fn errors_of_sled_are_told_in_the_terms_of_the_database() {
    let told = |error| translate("read", error, Path::new("db"));
    let io = |kind: io::ErrorKind, text: &'static str| sled::Error::Io(io::Error::new(kind, text));
    let taken = told(io(io::ErrorKind::Other, "could not acquire lock on \"db\""));
    assert!(matches!(&taken, DatabaseError::InUse { path } if path == Path::new("db")), "{taken:?}");
    let full = told(io(io::ErrorKind::StorageFull, "no space"));
    assert!(matches!(full, DatabaseError::Full { .. }), "{full:?}");
    let failed = told(io(io::ErrorKind::Other, "the device"));
    assert!(matches!(failed, DatabaseError::Io { action: "read", .. }), "{failed:?}");
    let damaged = told(unreadable(io::Error::new(io::ErrorKind::InvalidData, "page 7")));
    assert!(matches!(damaged, DatabaseError::Damaged { .. }), "{damaged:?}");
    let failed = told(unreadable(io::Error::other("the device")));
    assert!(matches!(failed, DatabaseError::Io { .. }), "{failed:?}");
}
