//! What a directory holds, and what of it is taken for a database.

use super::*;

fn directory(files: &[&str], logs: &[u32]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for file in files {
        let text = if *file == CURRENT_FILE { "log-000002" } else { "" };
        fs::write(directory.path().join(file), text).expect("written");
    }
    logs.iter().for_each(|n| fs::create_dir(log_path(directory.path(), *n)).expect("made"));
    directory
}

/// What cannot be read is no damage, and what is no text is.
#[test]
fn a_name_that_cannot_be_read_is_told_from_one_that_is_none() {
    let directory = directory(&[], &[1, 2]);
    let current = directory.path().join(CURRENT_FILE);
    fs::write(&current, [0xff; 4]).expect("written");
    assert!(matches!(logs(directory.path()), Err(DatabaseError::Damaged { .. })));
    assert_eq!(oldest_log(directory.path()).expect("there"), log_path(directory.path(), 1));
    fs::remove_file(&current).expect("removed");
    fs::create_dir(&current).expect("made");
    assert!(matches!(logs(directory.path()), Err(error) if !matches!(error, DatabaseError::Damaged { .. })));
    let nothing = tempfile::tempdir().expect("a temporary directory");
    assert!(matches!(oldest_log(nothing.path()), Err(DatabaseError::Damaged { .. })));
}

/// A log that is named, or has others beside it, was there: in its place none is made.
#[test]
fn a_log_that_is_gone_is_missed() {
    for (files, there, current) in [
        (&[][..], &[][..], Some(1)),
        (&[], &[1], Some(1)),
        (&[], &[1, 2], Some(1)),
        (&[CURRENT_FILE], &[1, 2], Some(2)),
        (&[CURRENT_FILE], &[2], Some(2)),
        (&[], &[2], None),
        (&[CURRENT_FILE], &[], None),
        (&[CURRENT_FILE], &[1], None),
    ] {
        let directory = directory(files, there);
        let found = logs(directory.path());
        match current {
            Some(n) => {
                let found = found.expect("all is well");
                assert_eq!(found.current, log_path(directory.path(), n), "{files:?} {there:?}");
                let others = there.iter().filter(|other| **other != n).count();
                assert_eq!(found.leftovers.len(), others, "{files:?} {there:?}");
            }
            None => assert!(matches!(found, Err(DatabaseError::Damaged { .. })), "{files:?} {there:?}"),
        }
    }
}

#[test]
fn what_a_compaction_left_goes() {
    let directory = directory(&[CURRENT_FILE], &[1, 2, 3]);
    logs(directory.path()).expect("the logs").clean_up(directory.path()).expect("removed");
    let left: Vec<bool> = (1..4).map(|n| log_path(directory.path(), n).exists()).collect();
    assert_eq!(left, [false, true, false]);
}

#[test]
fn a_database_is_known_by_any_of_its_files() {
    for (files, there, is_one) in [
        (&[][..], &[][..], false),
        (&["holiday.jpg"], &[], false),
        (&[LOCK_FILE], &[], true),
        (&[CURRENT_FILE], &[], true),
        (&[], &[1], true),
    ] {
        let directory = directory(files, there);
        assert_eq!(exists(directory.path()), is_one, "{files:?} {there:?}");
        // What is left of one is not taken for somebody else's files, nor these for one.
        let prepared = prepare(directory.path(), true);
        assert_eq!(prepared.is_err(), files == ["holiday.jpg"] || files == [LOCK_FILE], "{files:?}");
    }
}

/// The name is one of a log, whole, and with its checksum where there is one.
#[test]
fn what_names_no_log_is_none() {
    let crc = format!("{:08x}", crc32fast::hash(b"log-000002"));
    for (text, is_name) in [
        (format!("log-000002 {crc}\n"), true),
        ("log-000002\n".to_owned(), true),
        (format!("log-000003 {crc}"), false),
        ("log-000002 deadbeef".to_owned(), false),
        ("log-00002".to_owned(), false),
        ("log-0000021".to_owned(), false),
        ("log-00000x".to_owned(), false),
        ("gol-000002".to_owned(), false),
        (String::new(), false),
    ] {
        assert_eq!(log_name(&text).is_some(), is_name, "{text:?}");
    }
    let directory = directory(&[], &[2]);
    fs::write(directory.path().join(CURRENT_FILE), b"log-\xff").expect("written");
    assert!(matches!(logs(directory.path()), Err(DatabaseError::Damaged { .. })));
    set_current(directory.path(), &log_path(directory.path(), 2)).expect("written");
    assert_eq!(logs(directory.path()).expect("named").current, log_path(directory.path(), 2));
}

/// What is no directory is no database; what cannot be looked at may be one.
#[test]
fn what_is_no_directory_is_told() {
    let directory = directory(&["file"], &[]);
    let file = directory.path().join("file");
    for refused in [prepare(&file, true), lock(&file, true).map(drop), lock_to_read(&file).map(drop)] {
        assert!(matches!(refused, Err(DatabaseError::NotADatabase { .. })), "{refused:?}");
    }
    let unreachable = directory.path().join("x".repeat(300));
    for create in [false, true] {
        let refused = prepare(&unreachable, create);
        assert!(matches!(refused, Err(DatabaseError::Io { .. })), "{refused:?}");
    }
    let below = directory.path().join("a/b/db");
    assert!(matches!(prepare(&below, false), Err(DatabaseError::NotADatabase { .. })));
    prepare(&below, true).expect("made");
    assert!(below.is_dir());
    // As one that another process makes at this moment: it was not there, and cannot be made.
    let made_meanwhile = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path().join("none"), &made_meanwhile).expect("made");
    prepare(&made_meanwhile, true).expect("somebody was quicker");
}

/// Others of the machine lose what they may do; what belongs to another user stays as that one made it.
#[test]
fn others_are_kept_out_of_what_is_ours() {
    let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
    let open = || {
        let directory = directory(&[LOCK_FILE, CURRENT_FILE, "trust"], &[]);
        for (path, mode) in [("", 0o755), (LOCK_FILE, 0o644), (CURRENT_FILE, 0o644), ("trust", 0o644)] {
            let path = directory.path().join(path);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        }
        directory
    };
    let modes = |directory: &Path| ["", LOCK_FILE, CURRENT_FILE, "trust"].map(|f| mode(&directory.join(f)));
    let ours = open();
    keep_others_out(ours.path());
    assert_eq!(modes(ours.path()), [0o700, 0o600, 0o600, 0o644]);
    if rustix::process::geteuid().is_root() {
        let theirs = open();
        for file in ["", LOCK_FILE, CURRENT_FILE] {
            std::os::unix::fs::chown(theirs.path().join(file), Some(65_534), None).expect("given away");
        }
        keep_others_out(theirs.path());
        assert_eq!(modes(theirs.path()), [0o755, 0o644, 0o644, 0o644]);
    }
}

/// What lies beside the store and holds something goes with a copy of it.
#[test]
fn other_files_are_those_that_hold_something_of_others() {
    let directory = directory(&["empty", LOCK_FILE], &[1]);
    for file in ["trust", ".hidden", "trust.partial", "trust.lock", CURRENT_FILE] {
        fs::write(directory.path().join(file), "something").expect("written");
    }
    fs::create_dir(directory.path().join("folder")).expect("made");
    assert_eq!(other_files(directory.path()).expect("read"), [directory.path().join("trust")]);
    for name in ["", "a/b", "a\0", ".a", "a.partial", "a.lock", LOCK_FILE, CURRENT_FILE, "log-000001"] {
        assert!(!is_other_file(name), "{name:?}");
    }
    assert!(is_other_file("trust") && is_other_file("identity"));
}

/// A lock that is there and cannot be taken keeps a reader out: somebody may be writing.
#[test]
fn a_lock_that_cannot_be_opened_is_held_against_a_reader() {
    let directory = directory(&[], &[1]);
    assert!(lock_to_read(directory.path()).expect("there is no lock").is_none());
    let lock = directory.path().join(LOCK_FILE);
    std::os::unix::fs::symlink(&lock, &lock).expect("made");
    assert!(matches!(lock_to_read(directory.path()), Err(DatabaseError::Io { .. })));
}
