//! The answers about peers: who comes in, with what, and what changes them.

use super::*;
use crate::secure::advert::Urgency;
use crate::secure::epoch::{AuthorityKey, EpochError, Roster};
use crate::secure::group::GroupSecret;
use crate::secure::{Access, Grant, PeerPolicy, Psk, Refusal};

const A: PeerId = PeerId([1; 32]);
const B: PeerId = PeerId([2; 32]);
const C: PeerId = PeerId([3; 32]);

fn change(dir: &Path, change: impl FnOnce(&mut TrustList)) {
    TrustList::update(dir, |list| {
        change(list);
        Ok(())
    })
    .expect("update");
}

#[test]
fn denied_wins_over_everything_and_strangers_stay_out() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let trust = Trust::open(dir.path()).expect("open");
    for via in [Authentication::Group, Authentication::Paired, Authentication::Open] {
        assert_eq!(trust.admit(&A, via), Err(Refusal::Stranger), "{via:?}");
    }
    let group = Group::new(None, GroupSecret::from_bytes([8; 16])).expect("group");
    group.store(dir.path()).expect("store");
    let mut watch = trust.watch();
    trust.look();
    assert!(watch.has_changed().expect("open"));
    watch.mark_unchanged();
    assert_eq!(trust.admit(&A, Authentication::Group), Ok(Grant::full(None)));
    trust.look();
    trust.look();
    assert!(!watch.has_changed().expect("open"), "to be noted as seen changes no answer");
    let entry = trust.list().get(&A).cloned().expect("it was entered");
    assert!(entry.origin == Origin::Group && entry.first_seen_s > 0 && entry.last_seen_s > 0);
    assert_eq!(trust.admit(&A, Authentication::Paired), Err(Refusal::Stranger), "only as a member");
    assert!(trust.paired().is_empty());

    change(dir.path(), |list| list.get_mut(&A).expect("entry").denied = true);
    trust.look();
    assert!(watch.has_changed().expect("open"));
    assert_eq!(trust.admit(&A, Authentication::Group), Err(Refusal::Denied));
    assert_eq!(trust.admit(&B, Authentication::Group), Ok(Grant::full(None)));
    Group::leave(dir.path()).expect("leave");
    trust.look();
    assert_eq!(trust.admit(&B, Authentication::Group), Err(Refusal::Stranger));
}

#[test]
fn roles_and_names_stand_in_the_grant() {
    let dir = tempfile::tempdir().expect("temporary directory");
    change(dir.path(), |list| {
        let permissions = Permissions {
            others: Access::None,
            collections: [("plant.readings".to_owned(), Access::Read)].into(),
        };
        list.enter(A, Origin::Paired).expect("room").permissions = Some(permissions);
        list.rename(&A, "gateway").expect("rename");
        list.enter(B, Origin::Manual).expect("room").last_seen_s = 5;
        list.default = Permissions::all(Access::Write);
    });
    let trust = Trust::open(dir.path()).expect("open");
    let grant = trust.admit(&A, Authentication::Paired).expect("paired");
    assert_eq!(grant.name.as_deref(), Some("gateway"));
    assert_eq!(grant.permissions.of("plant.readings"), Access::Read);
    assert_eq!(grant.permissions.of("_default"), Access::None);
    let grant = trust.admit(&B, Authentication::Paired).expect("listed");
    assert_eq!(grant.permissions, Permissions::all(Access::Write));
    assert_eq!(trust.paired(), [B, A], "seen last comes first");
    trust.prefer("gateway");
    assert_eq!(trust.paired(), [A, B], "but who is named before all");
}

#[test]
fn what_cannot_be_read_lets_nobody_in() {
    let dir = tempfile::tempdir().expect("temporary directory");
    change(dir.path(), |list| {
        list.enter(A, Origin::Paired).expect("room");
    });
    let trust = Trust::open(dir.path()).expect("open");
    assert!(trust.admit(&A, Authentication::Paired).is_ok());
    let path = dir.path().join("trust");
    let mut bytes = std::fs::read(&path).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).expect("write");
    let watch = trust.watch();
    trust.look();
    assert!(watch.has_changed().expect("open"));
    assert_eq!(trust.admit(&A, Authentication::Paired), Err(Refusal::NotNow));
    let why = PeerPolicy::failure(&trust).expect("it is told");
    assert!(why.contains("trust") && why.contains("damaged"), "{why}");
    assert!(matches!(Trust::open(dir.path()), Err(TrustOpenError::List(TrustError::File(_)))));
}

#[test]
fn adverts_of_the_group_and_of_paired_devices_are_resolved() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let group = Group::new(None, GroupSecret::from_bytes([9; 16])).expect("group");
    group.store(dir.path()).expect("store");
    let other = Identity::from_private([7; 32]);
    change(dir.path(), |list| {
        list.enter(A, Origin::Group).expect("room");
        list.enter(other.id(), Origin::Paired).expect("room").advert_key = Some(other.advert_key());
    });
    let trust = Trust::open(dir.path()).expect("open");
    assert!(!trust.knows_without_key(), "a member's is the group's");
    let resolver = trust.advert_resolver();
    let member = group.key().advert_key();
    assert_eq!(resolver.resolve(&member.seal(&A, 5, Urgency::None, 1)).and_then(|r| r.peer), Some(A));
    let met_never = resolver.resolve(&member.seal(&B, 6, Urgency::None, 1)).expect("a member");
    assert_eq!((met_never.peer, met_never.opened.change), (None, 6));
    let alone = other.advert_key().seal(&other.id(), 7, Urgency::None, 2);
    assert_eq!(resolver.resolve(&alone).and_then(|r| r.peer), Some(other.id()));
    assert_eq!(resolver.resolve(&AdvertKey::from_bytes([1; 32]).seal(&A, 5, Urgency::None, 1)), None);
}

#[test]
fn who_may_do_nothing_does_not_come_in_and_is_noted() {
    let dir = tempfile::tempdir().expect("temporary directory");
    Group::new(None, GroupSecret::from_bytes([8; 16])).expect("group").store(dir.path()).expect("store");
    change(dir.path(), |list| list.default = Permissions::all(Access::None));
    let trust = Trust::open(dir.path()).expect("open");
    assert_eq!(trust.admit(&A, Authentication::Group), Err(Refusal::NoRole));
    trust.look();
    assert!(trust.list().get(&A).is_some(), "its owner finds it, to give it a role");
    change(dir.path(), |list| {
        let role = [("plant.readings".to_owned(), Access::Read)].into();
        list.get_mut(&A).expect("entry").permissions =
            Some(Permissions { others: Access::None, collections: role });
    });
    trust.look();
    assert!(trust.admit(&A, Authentication::Group).is_ok(), "one collection is something");
}

#[test]
fn a_lost_list_or_group_lets_nobody_in_until_it_is_back() {
    for lost in ["trust", "group"] {
        let dir = tempfile::tempdir().expect("temporary directory");
        Group::new(None, GroupSecret::from_bytes([8; 16])).expect("group").store(dir.path()).expect("store");
        change(dir.path(), |list| list.enter(B, Origin::Manual).expect("room").denied = true);
        change(dir.path(), |list| assert!(list.enter(A, Origin::Manual).is_ok()));
        let trust = Trust::open(dir.path()).expect("open");
        let mut watch = trust.watch();
        assert!(trust.admit(&A, Authentication::Group).is_ok());
        let (file, away) = (dir.path().join(lost), dir.path().join("away"));
        std::fs::rename(&file, &away).expect("rename");
        trust.look();
        assert!(watch.has_changed().expect("open"), "{lost}: open connections are told");
        watch.mark_unchanged();
        assert!(trust.failure().is_some_and(|why| why.contains(lost)), "{lost}");
        for (peer, via) in
            [(A, Authentication::Group), (B, Authentication::Group), (A, Authentication::Paired)]
        {
            // Not what would end a peer's continuous sync for good, nor what tells who is denied.
            assert_eq!(trust.admit(&peer, via), Err(Refusal::NotNow), "{lost}: {via:?}");
        }
        assert!(trust.group_psk().is_none() && trust.paired().is_empty());
        assert!(Trust::open(dir.path()).is_err(), "{lost}: nor after a restart");
        std::fs::rename(&away, &file).expect("rename");
        trust.look();
        assert!(trust.failure().is_none() && trust.admit(&A, Authentication::Group).is_ok());
        assert_eq!(trust.admit(&B, Authentication::Group), Err(Refusal::Denied));
    }
}

/// Peers without number come by, each with a name: what is kept of them until the next look has an end.
#[test]
fn what_is_remembered_of_peers_is_bounded() {
    let dir = tempfile::tempdir().expect("temporary directory");
    Group::new(None, GroupSecret::from_bytes([8; 16])).expect("group").store(dir.path()).expect("store");
    let trust = Trust::open(dir.path()).expect("open");
    let peers = (0..SEEN_MAX as u32 + 3).map(|n| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PeerId(bytes)
    });
    for peer in peers {
        trust.admit(&peer, Authentication::Group).expect("a member");
        trust.told_name(&peer, "pump");
        trust.came(&peer, Authentication::Group);
    }
    let state = trust.lock();
    assert_eq!([state.seen.len(), state.told.len(), state.present.len()], [SEEN_MAX; 3]);
}

/// Every note is a write to a medium that wears out.
#[test]
fn who_was_noted_a_short_time_ago_is_not_noted_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    Group::new(None, GroupSecret::from_bytes([8; 16])).expect("group").store(dir.path()).expect("store");
    let now = now_s();
    // A clock that was put back counts as well.
    for (last, noted) in [
        (now + SEEN_INTERVAL_S - 9, false),
        (now - SEEN_INTERVAL_S - 9, true),
        (now + SEEN_INTERVAL_S + 9999, true),
        (0, true),
    ] {
        change(dir.path(), |list| list.enter(A, Origin::Group).expect("room").last_seen_s = last);
        let trust = Trust::open(dir.path()).expect("open");
        trust.admit(&A, Authentication::Group).expect("a member");
        trust.told_name(&A, "pump");
        assert_eq!(trust.lock().seen.contains_key(&A), noted, "{last} at {now}");
        let is_news = trust.list().told_name(&A) != Some("pump");
        assert_eq!(trust.lock().told.len(), usize::from(is_news));
        trust.look();
    }
    assert!(
        Trust::open(dir.path())
            .expect("open")
            .list()
            .get(&A)
            .is_some_and(|peer| peer.last_seen_s.abs_diff(now) < 1000)
    );
}

/// Else the list would be read each second for as long as it stays.
#[test]
fn a_peer_that_comes_into_no_list_is_not_to_be_noted() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let trust = Trust::open(dir.path()).expect("open");
    for via in [Authentication::Open, Authentication::Paired] {
        trust.came(&A, via);
        assert!(!trust.is_due(), "{via:?}");
        trust.left(&A, via);
        assert!(!trust.is_due(), "{via:?}");
    }
    trust.came(&A, Authentication::Group);
    assert!(trust.is_due());
    trust.look();
    assert!(trust.list().get(&A).is_some() && !trust.is_due());
}

#[test]
fn a_peer_is_present_until_the_last_of_its_sessions_ends() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let trust = Trust::open(dir.path()).expect("open");
    let of = |peer| trust.lock().present.get(&peer).map(|(_, sessions)| *sessions);
    trust.left(&A, Authentication::Group);
    for (came, sessions) in [(true, Some(1)), (true, Some(2)), (false, Some(1)), (false, None), (false, None)]
    {
        if came {
            trust.came(&A, Authentication::Group)
        } else {
            trust.left(&A, Authentication::Group)
        }
        assert_eq!((of(A), of(B)), (sessions, None));
    }
    trust.left(&B, Authentication::Open);
    let seen: Vec<PeerId> = trust.lock().seen.keys().copied().collect();
    assert_eq!(seen, [A], "a stranger that was let in is in no list");
}

#[test]
fn who_was_entered_by_hand_has_given_no_key_of_its_adverts() {
    let dir = tempfile::tempdir().expect("temporary directory");
    change(dir.path(), |list| drop(list.enter(A, Origin::Manual)));
    assert!(Trust::open(dir.path()).expect("open").knows_without_key());
}

/// A group in its first epoch and in its second, made by `A` for itself, `B` and one more.
fn two_epochs() -> [Group; 2] {
    let first = Group::found(None, AuthorityKey::from_bytes([5; 32]), [6; 16], A, 100).expect("group");
    let roster = Roster { members: vec![A, B, C], denied: Vec::new() };
    let second = first.rotated([7; 16], &roster, 200).expect("the authority");
    [first, second]
}

/// Its former secret leads to the new one until all members are seen to have that; each is told of once and noted for good.
#[test]
fn a_group_is_handed_over_until_all_have_shown_its_key() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let [first, second] = two_epochs();
    second.store(dir.path()).expect("store");
    change(dir.path(), |list| [B, C].iter().for_each(|id| drop(list.enter(*id, Origin::Group))));
    let trust = Trust::open(dir.path()).expect("open");
    assert_eq!(trust.group(), Some(second.clone()));
    assert!(trust.is_handing_over());
    assert_eq!(trust.former_psks(), [first.key().psk()]);
    let behind = |peer: PeerId| {
        let heard =
            trust.advert_resolver().resolve(&first.key().advert_key().seal(&peer, 5, Urgency::None, 1));
        heard.map(|heard| (heard.peer, heard.is_behind))
    };
    assert_eq!((behind(B), behind(C)), (Some((Some(B), true)), Some((Some(C), true))));
    trust.has_key(&B, &Psk([1; 32]));
    trust.look();
    assert_eq!(trust.list().epoch(&B), None, "a key that is no key of the group says nothing");
    trust.has_key(&B, &first.key().psk());
    assert_eq!((trust.take_news().len(), trust.lock().epoch_of(&B)), (0, Some(0)));
    for _ in 0..2 {
        trust.has_key(&B, &second.key().psk());
    }
    assert_eq!(trust.take_news(), [GroupNews::PeerHas { peer: B, epoch: 1 }], "once");
    assert_eq!((behind(B), behind(C)), (None, Some((Some(C), true))));
    assert!(trust.is_handing_over(), "one is left");
    trust.look();
    assert!(trust.lock().epochs.is_empty());
    assert_eq!((trust.list().epoch(&B), trust.list().epoch(&C)), (Some(1), None));
    assert_eq!(TrustList::load(dir.path()).expect("load").epoch(&B), Some(1));
    trust.has_key(&C, &second.key().psk());
    assert!(!trust.is_handing_over() && trust.former_psks().is_empty());
    assert_eq!(behind(C), None);
}

#[test]
fn the_authoritys_word_is_taken_once_and_what_is_held_is_no_error() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let [first, second] = two_epochs();
    let word = |group: &Group| group.signed().expect("signed").as_bytes().to_vec();
    first.store(dir.path()).expect("store");
    let trust = Trust::open(dir.path()).expect("open");
    assert_eq!(trust.version(), 0);
    trust.has_key(&C, &first.key().psk());
    assert_eq!(trust.take_news(), [], "the first epoch is nothing that was given");
    assert_eq!(trust.take_epoch(&B, &word(&second)), Ok(()));
    assert_eq!(trust.group().and_then(|group| group.epoch()), Some(1), "it was not held before");
    assert_eq!(trust.take_epoch(&B, &word(&second)), Ok(()), "it is held");
    let older = EpochError::NotNewer { held: 1, offered: 0 };
    assert_eq!(trust.take_epoch(&B, &word(&first)), Err(older));
    let before = trust.version();
    for n in 1u8..4 {
        change(dir.path(), |list| {
            list.enter(PeerId([n + 10; 32]), Origin::Manual).expect("room").denied = true
        });
        trust.look();
        trust.look();
        assert_eq!(trust.version(), before + u64::from(n), "once for each change of the files");
    }
}

#[test]
fn names_are_noted_although_nobody_came() {
    let dir = tempfile::tempdir().expect("temporary directory");
    change(dir.path(), |list| drop(list.enter(A, Origin::Manual)));
    let trust = Trust::open(dir.path()).expect("open");
    assert_eq!(trust.own_name(), None);
    trust.call_self("gateway");
    assert_eq!(trust.own_name().as_deref(), Some("gateway"));
    trust.call_self("two\nlines");
    assert_eq!(trust.own_name(), None, "what is no name is not said");
    trust.told_name(&A, "pump");
    trust.look();
    assert_eq!(TrustList::load(dir.path()).expect("load").told_name(&A), Some("pump"));
    let entry = trust.list().get(&A).cloned().expect("there");
    assert_eq!((entry.first_seen_s, entry.last_seen_s), (0, 0), "it was not seen");
    // Who was taken off meanwhile does not come back by being seen without the group's proof.
    trust.admit(&A, Authentication::Paired).expect("entered by hand");
    change(dir.path(), |list| assert!(list.forget(&A)));
    trust.look();
    assert!(trust.list().get(&A).is_none());
}

#[test]
fn a_list_that_its_file_cannot_hold_is_not_written() {
    let dir = tempfile::tempdir().expect("temporary directory");
    change(dir.path(), |list| drop(list.enter(A, Origin::Manual)));
    let written = TrustList::update(dir.path(), |list| {
        let roles = (0..40_000).map(|n| (format!("{n:060}"), Access::Read)).collect();
        list.enter(B, Origin::Manual)?.permissions =
            Some(Permissions { others: Access::None, collections: roles });
        Ok(())
    });
    assert!(matches!(written, Err(TrustError::Full)), "{:?}", written.err());
    let kept = TrustList::load(dir.path()).expect("the old one stays");
    assert!(kept.get(&A).is_some() && kept.get(&B).is_none());
}

/// Who follows sees each change that another process makes, and does not end at the first.
#[tokio::test(start_paused = true)]
async fn who_follows_sees_each_change() {
    let dir = tempfile::tempdir().expect("temporary directory");
    change(dir.path(), |list| list.enter(A, Origin::Paired).map(|_| ()).expect("room"));
    let trust = Arc::new(Trust::open(dir.path()).expect("open"));
    let mut watch = trust.watch();
    let mut following = std::pin::pin!(Arc::clone(&trust).follow());
    for denied in [true, false, true] {
        change(dir.path(), |list| list.get_mut(&A).expect("entry").denied = denied);
        tokio::select! {
            () = &mut following => panic!("it ends"),
            changed = watch.changed() => changed.expect("open"),
        }
        assert_eq!(trust.admit(&A, Authentication::Paired).is_err(), denied);
    }
}

/// A look costs reading and often writing: it is due when there is something to note or to see, and at no other time.
#[test]
fn a_look_is_due_where_there_is_something_to_see_or_to_note() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let group = Group::new(None, GroupSecret::from_bytes([8; 16])).expect("group");
    let key = AuthorityKey::from_bytes([5; 32]);
    group.with_key(key).store(dir.path()).expect("store");
    change(dir.path(), |list| list.enter(A, Origin::Paired).map(|_| ()).expect("room"));
    let trust = Trust::open(dir.path()).expect("open");
    let acts: [&dyn Fn(); 4] = [
        &|| drop(trust.admit(&A, Authentication::Paired)),
        &|| trust.told_name(&A, "well"),
        &|| trust.has_key(&A, &group.key().psk()),
        &|| change(dir.path(), |list| list.rename(&A, "pump").expect("a name")),
    ];
    for (n, act) in acts.into_iter().enumerate() {
        assert!(!trust.is_due(), "{n}");
        act();
        assert!(trust.is_due(), "{n}");
        trust.look();
        // What it wrote itself is looked at once more.
        trust.look();
    }
    assert!(!trust.is_due());
}
