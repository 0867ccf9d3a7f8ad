//! What a device takes of an authority's word, and what its file keeps of it.

use super::super::files::PrivateFile;
use super::*;

const ME: PeerId = PeerId([1; 32]);
const OTHER: PeerId = PeerId([2; 32]);
const DENIED: PeerId = PeerId([3; 32]);

fn roster() -> Roster {
    Roster { members: vec![ME, OTHER], denied: vec![DENIED] }
}

fn key(n: u8) -> AuthorityKey {
    AuthorityKey::from_bytes([n; 32])
}

/// A group where it was made.
fn founded() -> Group {
    Group::found(Some("plant 7"), key(5), [6; 16], ME, 100).expect("group")
}

/// The same on a device that knows the code alone.
fn joined(group: &Group) -> Group {
    let code = group.secret().code();
    Group::new(Some("plant"), GroupSecret::parse(&code).expect("code")).expect("group")
}

fn next(group: &Group, salt: u8) -> Group {
    group.rotated([salt; 16], &roster(), 200).expect("the authority")
}

fn word(group: &Group) -> SignedEpoch {
    let signed = group.signed().expect("signed");
    SignedEpoch::parse(signed.as_bytes()).expect("it holds")
}

#[test]
fn a_group_is_kept_and_left() {
    let dir = tempfile::tempdir().expect("temporary directory");
    assert_eq!(Group::load(dir.path()).expect("none"), None);
    let plain = Group::new(Some("plant 7"), GroupSecret::from_bytes([7; 16])).expect("group");
    for group in
        [plain.clone(), founded(), next(&founded(), 9), plain.with_key(key(8)), plain.naming(key(8).id())]
    {
        group.store(dir.path()).expect("store");
        assert_eq!(Group::load(dir.path()).expect("load"), Some(group));
    }
    assert!(Group::leave(dir.path()).expect("leave"));
    assert_eq!(Group::load(dir.path()).expect("none"), None);
    for bad in ["", "a\nb", &"x".repeat(65)] {
        assert!(Group::new(Some(bad), GroupSecret::from_bytes([0; 16])).is_err());
    }
}

#[test]
fn files_of_earlier_releases_are_of_a_group_without_epochs() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let group = Group::new(Some("old"), GroupSecret::from_bytes([7; 16])).expect("group");
    group.store(dir.path()).expect("store");
    for version in [1, 2] {
        let content = [&[3][..], b"old", &[7; 16]].concat();
        PrivateFile { version, ..FILE }.write(dir.path(), &content).expect("write");
        let read = Group::load(dir.path()).expect("load").expect("some");
        assert_eq!((&read, read.epoch(), read.authority()), (&group, None, None));
    }
}

#[test]
fn a_device_that_knows_the_code_alone_follows_the_authority_of_its_group() {
    let first = founded();
    let member = joined(&first);
    assert_eq!((member.epoch(), first.epoch()), (None, Some(0)));
    let second = next(&first, 9);
    let taken = member.taking(word(&second), 300).expect("its own authority");
    assert_eq!((taken.key(), taken.epoch(), taken.name()), (second.key(), Some(1), "plant"));
    assert!(taken.key() != first.key() && !taken.is_authority());
    assert_eq!(taken.former_psks(), vec![(0, first.key().psk())]);
    // Who comes by the code of a later epoch goes on from there, and may miss some.
    let late = joined(&second);
    let fifth = next(&next(&next(&second, 10), 11), 12);
    let taken = late.taking(word(&fifth), 300).expect("it was before");
    assert_eq!((taken.epoch(), taken.former_psks().len()), (Some(4), 4));
    // It may learn the number of the epoch that it is in.
    let told = late.taking(word(&second), 300).expect("the same secret");
    assert_eq!((told.epoch(), told.key()), (Some(1), second.key()));
}

#[test]
fn the_moment_of_an_epoch_is_kept_where_it_was_made_and_where_it_was_taken() {
    let first = founded();
    let second = next(&first, 9);
    let taken = joined(&first).taking(word(&second), 300).expect("its own authority");
    assert_eq!((first.taken_s(), second.taken_s(), taken.taken_s()), (0, 200, 300));
    assert_eq!(taken.fingerprint(), second.secret().key().fingerprint_text());
    assert_ne!(taken.fingerprint(), first.fingerprint());
    // Who has made the group is named in it, not only by its last word.
    let silent = Group { signed: None, ..first };
    assert_eq!((silent.authority(), silent.is_authority()), (Some(key(5).id()), true));
}

/// A group of a release that kept no `present` is read without one; in another's directory its absence is damage.
#[test]
fn a_group_without_the_note_of_what_is_there_is_of_an_earlier_release_or_damaged() {
    let content = [&[3][..], b"old", &[7; 16]].concat();
    for (version, is_good) in [(1, true), (presence::GROUP_VERSION, false), (FILE.version, false)] {
        let dir = tempfile::tempdir().expect("temporary directory");
        PrivateFile { version, ..FILE }.write(dir.path(), &content).expect("write");
        let trusted = super::super::list::TrustList::load(dir.path());
        assert_eq!(trusted.is_ok(), is_good, "version {version}: {:?}", trusted.err());
    }
}

#[test]
fn only_the_groups_own_authority_changes_its_secret() {
    let first = founded();
    let taken = joined(&first).taking(word(&next(&first, 9)), 1).expect("taken");
    assert_eq!(taken.rotated([1; 16], &roster(), 1), Err(EpochError::NoKey));
    // A member knows the secret, and makes himself an authority over it.
    let usurper = joined(&first).with_key(key(66));
    let forged = word(&next(&usurper, 9));
    let found = key(66).id();
    assert_eq!(joined(&first).taking(forged.clone(), 1), Err(EpochError::Unproven { found }));
    assert_eq!(taken.taking(forged.clone(), 1), Err(EpochError::Authority { found }));
    assert_eq!(first.taking(forged, 1), Err(EpochError::Authority { found }));
    // Another group's.
    let other = Group::found(None, key(66), [6; 16], ME, 1).expect("group");
    assert_eq!(joined(&first).taking(word(&next(&other, 9)), 1), Err(EpochError::Unproven { found }));
}

#[test]
fn nobody_goes_back_and_two_of_one_number_come_to_one() {
    let first = founded();
    let [second, other] = [next(&first, 9), next(&first, 10)];
    let third = next(&second, 11);
    let at_third = joined(&first).taking(word(&third), 1).expect("taken");
    let old = EpochError::NotNewer { held: 2, offered: 1 };
    assert_eq!(at_third.taking(word(&second), 1), Err(old.clone()));
    assert_eq!(at_third.taking(word(&third), 1), Err(EpochError::NotNewer { held: 2, offered: 2 }));
    assert_eq!(at_third.taking(word(&first), 1), Err(EpochError::NotNewer { held: 2, offered: 0 }));
    // Joined by the code of the third: the second is not after it.
    assert!(matches!(joined(&third).taking(word(&second), 1), Err(EpochError::Unproven { .. })));
    assert!(matches!(
        joined(&third).naming(first.authority().expect("known")).taking(word(&second), 1),
        Err(EpochError::Unproven { .. })
    ));
    let ends: Vec<_> = [[&second, &other], [&other, &second]]
        .into_iter()
        .map(|[early, late]| {
            let at_early = joined(&first).taking(word(early), 1).expect("taken");
            at_early.taking(word(late), 1).unwrap_or(at_early).key()
        })
        .collect();
    assert_eq!(ends[0], ends[1], "the order in which the two come decides nothing");
    // The device that has the key follows too, if it was set back to a copy.
    assert_eq!(first.taking(word(&third), 1).map(|group| group.is_authority()), Ok(true));
}

#[test]
fn a_group_of_an_earlier_release_follows_an_authority_that_was_named_by_hand() {
    let old = Group::new(Some("old"), GroupSecret::from_bytes([7; 16])).expect("group");
    let authority = old.with_key(key(5));
    assert_eq!((authority.epoch(), authority.is_authority(), old.is_authority()), (Some(0), true, false));
    let second = next(&authority, 9);
    let found = key(5).id();
    assert_eq!(old.taking(word(&second), 1), Err(EpochError::Unproven { found }));
    let taken = old.naming(found).taking(word(&second), 1).expect("named");
    assert_eq!((taken.key(), taken.epoch()), (second.key(), Some(1)));
    assert_eq!(taken.former_psks(), vec![(0, old.key().psk())]);
    // Its authority is lost, another is named.
    let other = second.with_key(key(77));
    let after = next(&other, 1);
    assert!(taken.taking(word(&after), 1).is_err());
    let moved = taken.naming(key(77).id()).taking(word(&after), 1).expect("named");
    assert_eq!(moved.key(), after.key());
}

#[test]
fn nothing_prints_a_secret() {
    let group = Group::new(None, GroupSecret::from_bytes([0xab; 16])).expect("group");
    let printed = format!("{group:?} {:?} {:?}", group.key(), group.secret());
    assert!(!printed.contains("171") && !printed.to_lowercase().contains("abab"), "{printed}");
}
