use super::*;
use crate::secure::advert::AdvertKey;

fn id(n: u32) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PeerId(bytes)
}

#[test]
fn a_list_is_kept_with_everything_in_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    assert_eq!(TrustList::load(dir.path()).expect("none"), TrustList::default());
    let made = TrustList::update(dir.path(), |list| {
        let peer = list.enter(id(1), Origin::Paired)?;
        peer.permissions = Some(Permissions {
            others: Access::Read,
            collections: [("plant.readings".to_owned(), Access::ReadWrite)].into(),
        });
        peer.advert_key = Some(AdvertKey::from_bytes([3; 32]));
        list.enter(id(2), Origin::Group)?.denied = true;
        list.rename(&id(1), "gateway")?;
        list.default = Permissions::all(Access::Write);
        Ok(list.clone())
    })
    .expect("update");
    assert_eq!(TrustList::load(dir.path()).expect("load"), made);
    let stamp = TrustList::stamp(dir.path());
    TrustList::update(dir.path(), |_| Ok(())).expect("update");
    assert_eq!(TrustList::stamp(dir.path()), stamp, "nothing changed, nothing written");
    let failed = TrustList::update(dir.path(), |list| {
        list.forget(&id(1));
        list.rename(&id(9), "x")
    });
    assert!(matches!(failed, Err(TrustError::Unknown { .. })));
    assert_eq!(TrustList::load(dir.path()).expect("load"), made, "a change that fails changes nothing");
}

#[test]
fn a_list_that_begins_anew_gives_what_its_owner_said() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for access in [Access::Read, Access::Write, Access::None, Access::ReadWrite] {
        TrustList::reset(dir.path(), access).expect("reset");
        assert_eq!(TrustList::load(dir.path()).expect("load").default, Permissions::all(access));
    }
}

#[test]
fn an_epoch_is_news_once_and_of_peers_of_the_list_alone() {
    let mut list = TrustList::default();
    list.enter(id(7), Origin::Group).expect("room");
    let noted = [(7, 1), (7, 1), (7, 2), (8, 1)].map(|(n, epoch)| list.note_epoch(&id(n), epoch));
    assert_eq!(noted, [true, false, true, false]);
    assert_eq!((list.epoch(&id(7)), list.epoch(&id(8))), (Some(2), None));
}

#[test]
fn many_processes_lose_no_change() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::thread::scope(|scope| {
        for n in 0..4 {
            let path = dir.path();
            scope.spawn(move || {
                for m in 0..10 {
                    let enter =
                        |list: &mut TrustList| list.enter(id(n * 100 + m), Origin::Manual).map(|_| ());
                    TrustList::update(path, enter).expect("update");
                }
            });
        }
    });
    assert_eq!(TrustList::load(dir.path()).expect("load").peers().count(), 40);
}

#[test]
fn a_full_list_forgets_only_members_of_the_group_without_settings() {
    let mut list = TrustList::default();
    for n in 0..PEERS_MAX as u32 {
        let peer = list.enter(id(n), Origin::Group).expect("room");
        peer.last_seen_s = 1000 - u64::from(n % 7);
        peer.denied = n != 500 && n != 600;
    }
    list.get_mut(&id(600)).expect("peer").last_seen_s = 1;
    list.enter(id(5000), Origin::Paired).expect("room for one");
    assert!(list.get(&id(600)).is_none() && list.get(&id(500)).is_some());
    list.enter(id(5001), Origin::Group).expect("room for one more");
    list.rename(&id(5001), "mine").expect("rename");
    assert!(matches!(list.enter(id(5002), Origin::Group), Err(TrustError::Full)));
    assert!(list.enter(id(5), Origin::Group).is_ok(), "it is there already");
}

#[test]
fn peers_are_found_as_people_mean_them() {
    let mut list = TrustList::default();
    for n in [0x1111_1111, 0x1111_1222, 0x9000_0000] {
        list.enter(id(n), Origin::Manual).expect("room");
    }
    list.rename(&id(0x1111_1111), "gateway").expect("rename");
    assert_eq!(list.find("gateway").expect("by name"), id(0x1111_1111));
    assert_eq!(list.find(&id(0x9000_0000).short()).expect("by its short form"), id(0x9000_0000));
    assert_eq!(list.find(&id(0x9000_0000).to_text().to_uppercase()).expect("by ID"), id(0x9000_0000));
    assert!(matches!(list.find("ceir"), Err(TrustError::Ambiguous { count: 2, .. })), "{}", id(0x1111_1111));
    assert!(matches!(list.find("cei"), Err(TrustError::Unknown { .. })));
    assert!(matches!(list.rename(&id(0x1111_1222), "gateway"), Err(TrustError::NameTaken { .. })));
    list.suggest_name(&id(0x1111_1222), "gateway");
    assert_eq!(list.get(&id(0x1111_1222)).and_then(|p| p.name.as_deref()), Some("gateway-2"));
    for n in [0x1111_1222, 0x9000_0000] {
        list.note_told_name(&id(n), "pump");
    }
    assert!(matches!(list.find("pump"), Err(TrustError::Ambiguous { count: 2, .. })));
    list.note_told_name(&id(0x9000_0000), "gateway");
    assert_eq!(list.find("pump").ok(), Some(id(0x1111_1222)));
    assert_ne!(list.find("gateway").ok(), Some(id(0x9000_0000)), "a name given here comes first");
    list.note_told_name(&id(0x9000_0000), &id(0x1111_1222).short());
    assert_eq!(list.find(&id(0x1111_1222).short()).ok(), Some(id(0x1111_1222)), "and so does an ID");
    list.suggest_name(&id(0x9000_0000), "bad\nname");
    assert_eq!(list.get(&id(0x9000_0000)).and_then(|p| p.name.as_deref()), None);
    list.suggest_name(&id(0x9000_0000), "valve");
    assert_eq!(list.get(&id(0x9000_0000)).and_then(|p| p.name.as_deref()), Some("valve"));
}

#[test]
fn a_file_of_an_earlier_release_is_read() {
    let mut list = TrustList::default();
    list.enter(id(7), Origin::Group).expect("room");
    let content = list.content();
    // What is behind the peers since then: no names.
    assert_eq!(content.last(), Some(&0));
    assert_eq!(TrustList::from_content(&content[..content.len() - 1]), Ok(list.clone()));
    list.note_told_name(&id(7), "pump");
    list.note_told_name(&id(8), "in no list");
    assert_eq!(TrustList::from_content(&list.content()), Ok(list.clone()));
    assert_eq!((list.told_name(&id(7)), list.told_name(&id(8))), (Some("pump"), None));
    list.forget(&id(7));
    assert_eq!(list.told_name(&id(7)), None);
}
