use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::durable::synced;

const FILE: PrivateFile = PrivateFile { name: "secret", magic: *b"GWts", version: 2, content_max: 64 };

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directory")
}

#[test]
fn a_file_is_the_owners_alone_and_reads_back() {
    let dir = directory();
    assert!(FILE.read(dir.path()).expect("none").is_none());
    FILE.write(dir.path(), b"one").expect("write");
    let first = FILE.stamp(dir.path());
    FILE.write(dir.path(), b"two").expect("write");
    assert_ne!(FILE.stamp(dir.path()), first);
    let mode = fs::metadata(FILE.path(dir.path())).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (version, content) = FILE.read(dir.path()).expect("read").expect("some");
    assert_eq!((version, content.as_slice()), (2, b"two".as_slice()));
    assert!(FILE.remove(dir.path()).expect("remove") && !FILE.remove(dir.path()).expect("gone"));
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0, "nothing is left beside it");
}

/// A power cut after any of these must find the old file or the new one.
#[test]
fn what_was_written_or_removed_is_on_the_medium() {
    use super::super::group::Group;
    use super::super::list::{Origin, TrustList};
    use crate::secure::group::GroupSecret;
    use crate::secure::{Identity, PeerId};

    let dir = directory();
    let syncs = |name: &str, act: &dyn Fn()| {
        synced::take();
        act();
        let order: Vec<String> =
            synced::take().into_iter().filter(|n| n == "/" || n.starts_with(name)).collect();
        order.join(" ")
    };
    let group = Group::new(None, GroupSecret::from_bytes([8; 16])).expect("group");
    let stored = syncs("group", &|| group.store(dir.path()).expect("store"));
    assert!(stored.contains("group.partial /"), "{stored}");
    let enter = |list: &mut TrustList| list.enter(PeerId([1; 32]), Origin::Manual).map(|_| ());
    let entered = syncs("trust", &|| TrustList::update(dir.path(), enter).expect("update"));
    assert!(entered.contains("trust.partial /"), "{entered}");
    // All of it: other files that are written with it have the directory synced too, but later.
    let made = syncs("", &|| drop(Identity::load_or_create(dir.path(), [7; 32]).expect("make")));
    let after = made.split(' ').skip_while(|name| !name.starts_with("identity.")).nth(1);
    assert_eq!(after, Some("/"), "{made}");
    let noted = syncs("present", &|| {
        drop(super::super::presence::take_out(dir.path(), super::super::presence::SecurityFile::Identity))
    });
    assert_eq!(noted, "present.partial /");
    let left = syncs("group", &|| assert!(Group::leave(dir.path()).expect("leave")));
    assert!(left.ends_with("group /"), "{left}");
}

#[test]
fn a_file_that_others_can_read_or_a_link_is_refused() {
    let dir = directory();
    FILE.write(dir.path(), b"one").expect("write");
    for mode in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(FILE.path(dir.path()), fs::Permissions::from_mode(mode)).expect("chmod");
        assert!(matches!(FILE.read(dir.path()), Err(PrivateFileError::NotPrivate { .. })), "{mode:o}");
    }
    let other = dir.path().join("other");
    fs::rename(FILE.path(dir.path()), &other).expect("rename");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("chmod");
    let content = fs::read(&other).expect("read");
    symlink(&other, FILE.path(dir.path())).expect("link");
    assert!(matches!(FILE.read(dir.path()), Err(PrivateFileError::Io { .. })));
    assert!(FILE.remove(dir.path()).is_err());
    assert!(lock(dir.path(), FILE.name).is_err());
    assert_eq!(fs::read(&other).expect("read"), content, "it was overwritten by the link's name");
}

#[test]
fn a_file_of_another_user_is_refused() {
    for (owner, user, holds) in [(7, 7, true), (7, 8, false), (0, 8, false), (7, 0, true)] {
        assert_eq!(is_private(0o100_600 & 0o7777, owner, user), holds, "{owner} {user}");
    }
    assert!(!is_private(0o604, 0, 0), "not even for the superuser");
}

/// A group's file says that there is `present`: a power cut between the two must not leave that alone.
#[test]
fn present_is_written_before_a_group_that_counts_on_it() {
    let dir = directory();
    let secret = crate::secure::group::GroupSecret::from_bytes([8; 16]);
    synced::take();
    super::super::group::Group::new(None, secret).expect("group").store(dir.path()).expect("store");
    let order = synced::take();
    let at = |name: &str| order.iter().position(|synced| synced == name).expect("synced");
    assert!(at("present.partial") < at("group.partial"), "{order:?}");
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let dir = directory();
    FILE.write(dir.path(), b"content that matters").expect("write");
    let whole = fs::read(FILE.path(dir.path())).expect("read");
    let is_refused = |bytes: &[u8]| {
        write_private(&FILE.path(dir.path()), bytes).expect("write");
        matches!(
            FILE.read(dir.path()),
            Err(PrivateFileError::Damaged { .. } | PrivateFileError::Newer { .. })
        )
    };
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(is_refused(&bytes), "bit {bit}");
    }
    for len in 0..whole.len() {
        assert!(is_refused(&whole[..len]), "cut to {len}");
    }
    assert!(is_refused(&[0; 200]));
    assert!(!is_refused(&whole));
}

#[test]
fn a_lock_keeps_others_out_until_it_is_dropped() {
    let dir = directory();
    let held = lock(dir.path(), "lock").expect("lock");
    let path = dir.path().to_owned();
    let other = std::thread::spawn(move || lock(&path, "lock").map(|_| ()));
    std::thread::sleep(LOCK_RETRY * 3);
    assert!(!other.is_finished());
    let in_use = lock_within(dir.path(), "lock", LOCK_RETRY * 2).expect_err("nobody waits for ever");
    assert!(matches!(in_use, PrivateFileError::InUse { .. }), "{in_use}");
    drop(held);
    other.join().expect("thread").expect("lock");
}

/// For each file another way out; none of them may be that of another.
#[test]
fn a_loss_names_the_way_out_of_it() {
    for (name, command) in [
        ("identity", "`gattway db renew --identity`"),
        ("group", "`group join`"),
        ("trust", "`gattway peers reset`"),
    ] {
        let path = PathBuf::from("/db").join(name);
        for error in [
            PrivateFileError::Missing { path: path.clone() },
            PrivateFileError::Damaged { path: path.clone(), detail: "too short" },
        ] {
            let advice = error.advice();
            assert!(advice.contains(command) && advice.contains("backup"), "{name}: {advice}");
        }
        let open = PrivateFileError::NotPrivate { path, mode: 0o640, owner: 7 }.advice();
        assert!(open.contains(&format!("chmod 600 /db/{name}")), "{open}");
    }
}
