//! The files that say who is trusted (trust list, group, identity) from any bytes: what is read is written back the same,
//! whatever the list then is asked holds its limits, and no few bytes cost much memory.

use gattway::lab::fuzzing::secure::{group, identity, packed, trust_list, unpacked};
use gattway::lab::secure::PeerId;
use gattway::lab::trust::list::{Origin, PEER_NAME_MAX, PEERS_MAX, TrustError, TrustList};

use super::super::choices::Choices;
use super::super::memory;

/// Memory that reading a file of a few KiB may cost, in bytes: the tables that its content claims to have are not believed.
const MEMORY_MAX: usize = 4 << 20;

/// A list does what it is asked, whatever its file has said.
fn ask(list: &mut TrustList, choices: &mut Choices<'_>) {
    let ids: Vec<PeerId> = list.peers().map(|(id, _)| *id).collect();
    assert!(ids.len() <= PEERS_MAX);
    while !choices.is_empty() {
        let id = match choices.byte() {
            0 => PeerId([choices.byte(); 32]),
            n => ids.get(usize::from(n) % ids.len().max(1)).copied().unwrap_or(PeerId([n; 32])),
        };
        let text = choices.text().into_owned();
        match choices.below(5) {
            0 => list.suggest_name(&id, &text),
            1 => {
                if list.rename(&id, &text).is_ok() {
                    assert!((1..=PEER_NAME_MAX).contains(&text.len()));
                    assert_eq!(list.find(&text).ok(), Some(id), "it is found by the name it was given");
                }
            }
            2 => {
                if let Ok(found) = list.find(&text) {
                    assert!(list.get(&found).is_some());
                }
            }
            3 => match list.enter(id, Origin::Group) {
                Ok(_) => assert!(list.get(&id).is_some()),
                Err(error) => assert!(matches!(error, TrustError::Full) && list.peers().count() == PEERS_MAX),
            },
            _ => {
                let known = list.get(&id).is_some();
                let _ = list.permissions(&id);
                assert_eq!(list.forget(&id), known);
                assert_eq!(list.permissions(&id), &list.default, "nothing is left of it");
            }
        }
        assert!(list.peers().count() <= PEERS_MAX);
    }
}

fn read_list(content: &[u8]) -> Option<TrustList> {
    let (read, cost) = memory::peak(|| trust_list(content));
    assert!(cost <= MEMORY_MAX + 64 * content.len(), "{cost} bytes for a list of {}", content.len());
    let (list, written) = read?;
    let (again, rewritten) = trust_list(&written).expect("what was written is read");
    assert!(again == list && rewritten == written);
    Some(list)
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(5) {
        0 => {
            let content = choices.blob();
            if let Some(mut list) = read_list(content) {
                ask(&mut list, &mut choices);
            }
        }
        1 => {
            if let Some(group) = group(choices.rest()) {
                assert!(!group.name().is_empty() && group.secret().code().len() == 39);
            }
        }
        2 => {
            let bytes = choices.rest();
            if let Some(identity) = identity(bytes) {
                assert_eq!(identity.id().to_text().parse::<PeerId>().ok(), Some(identity.id()));
            }
        }
        // Whole files: as they are, and with a sum that fits.
        kind => {
            let is_group = choices.bool();
            let content = choices.rest();
            if kind == 3 {
                if let Some(inner) = unpacked(is_group, content) {
                    assert_eq!(packed(is_group, &inner).len(), content.len());
                }
                return;
            }
            let file = packed(is_group, content);
            assert_eq!(unpacked(is_group, &file).as_deref(), Some(content));
            assert!(unpacked(!is_group, &file).is_none(), "a file of another kind");
            for at in [0, 4, file.len() / 2, file.len() - 1] {
                let mut changed = file.clone();
                changed[at] ^= 0x10;
                assert!(unpacked(is_group, &changed).is_none(), "byte {at} was changed");
            }
        }
    }
}
