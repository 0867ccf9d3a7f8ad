//! Somebody has overheard a first message and repeats it, once or for ever, to whoever answers: nobody's answer tells what it
//! is to him, in its bytes, their number, or the work behind it.

use proptest::prelude::*;

use super::super::crypto::work;
use super::super::handshake::HEAD_BYTES;
use super::super::offer::{KEYS_TRIED, OFFER_BYTES};
use super::*;

/// What the active side of an honest handshake sent before anybody had proven anything.
fn overheard(a: &SecureConfig, b: &SecureConfig) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    let mut pair = Pair::new(a, b);
    pair.run(&mut |to_passive, bytes| {
        if to_passive && bytes[1] == 1 {
            sent.push(bytes.to_vec());
        }
        bytes.to_vec()
    });
    assert!(pair.at_passive.established.is_some(), "the handshake that was overheard was a good one");
    sent
}

/// What a passive side says to these messages, one after the other, and what it computed for each.
fn answers(config: &SecureConfig, entropy: u8, messages: &[Vec<u8>]) -> Vec<(Vec<u8>, [usize; 2])> {
    let keyring = Keyring::new(&config.identity, &*config.policy);
    let mut session = SecureSession::passive(config.clone(), keyring, [entropy; 32], Instant::ZERO);
    let say = |message: &Vec<u8>| {
        let before = work();
        let _ = session.handle_bytes(message);
        let after = work();
        assert!(!session.knows_a_key(), "a repetition counts as a key");
        (session.take_output().to_vec(), [after[0] - before[0], after[1] - before[1]])
    };
    messages.iter().map(say).collect()
}

fn fixed(group: Option<u8>, paired: &[u8], strangers: bool) -> Fixed {
    let ids = paired.iter().map(|n| identity(*n).id()).collect();
    Fixed { group: group.map(|key| [key; 32]), paired: ids, strangers, ..Fixed::alone() }
}

#[test]
fn a_repeated_offer_is_the_same_to_member_partner_and_stranger() {
    for over_link in [false, true] {
        let at = |n: u8, fresh: u8, policy| SecureConfig {
            fresh: over_link.then_some([fresh; 32]),
            ..config(n, policy)
        };
        let heard =
            overheard(&at(1, 1, fixed(Some(9), &[3, 4], true)), &at(2, 1, fixed(Some(9), &[], false)));
        assert_eq!(heard.len(), if over_link { 1 } else { 2 });
        let somebody: Vec<(&str, Fixed)> = vec![
            ("the member that it was meant for", fixed(Some(9), &[], false)),
            ("another member", fixed(Some(9), &[5, 6], false)),
            ("a paired device", fixed(None, &[1], false)),
            ("one with many", fixed(Some(8), &(40..72).collect::<Vec<_>>(), false)),
            ("another group", fixed(Some(8), &[], false)),
            ("one that knows it as a former secret", Fixed { former: vec![[9; 32]], ..Fixed::group(8) }),
            ("one of four other former secrets", Fixed { former: vec![[7; 32]; 4], ..Fixed::group(8) }),
            ("nobody's", fixed(None, &[], false)),
            ("one that lets strangers in", fixed(None, &[], true)),
        ];
        let mut seen = None;
        for (n, (who, policy)) in somebody.into_iter().enumerate() {
            let said = answers(&at(if n == 0 { 2 } else { 3 }, 7, policy), 50 + n as u8, &heard);
            let (last, work) = said.last().expect("an answer");
            assert_eq!(last[..], [0x47, 4, 3, 0, 2, 2, 2], "{who}");
            // A MAC for each key that there could be, no Noise, no X25519.
            assert_eq!(*work, [KEYS_TRIED, 0], "{who}");
            let shape: Vec<(usize, [usize; 2])> =
                said.iter().map(|(bytes, work)| (bytes.len(), *work)).collect();
            assert_eq!(*seen.get_or_insert_with(|| shape.clone()), shape, "{who}");
        }
    }
}

/// The same question, the same number of bytes, whatever this side has to offer and however much of it.
#[test]
fn an_offer_does_not_tell_how_many_keys_there_are() {
    for policy in [
        fixed(Some(9), &[], false),
        fixed(Some(9), &(3..40).collect::<Vec<_>>(), true),
        fixed(None, &[3], false),
        fixed(None, &[], true),
        Fixed { former: vec![[7; 32]; 4], ..fixed(Some(9), &(3..40).collect::<Vec<_>>(), true) },
    ] {
        let a = config(1, policy);
        let mut session = active(&a);
        assert_eq!(session.take_output()[..], [0x47, 1, 3, 0, 2, 2, 0]);
        let challenge = [&[0x47, 5, 32, 0][..], &[6; 32]].concat();
        let before = work()[1];
        session.handle_bytes(&challenge).expect("a challenge");
        let offer = session.take_output();
        assert_eq!(offer.len(), HEAD_BYTES + OFFER_BYTES);
        assert_eq!(offer[HEAD_BYTES..HEAD_BYTES + 3], [2, 2, 8]);
        assert_eq!(work()[1] - before, 1, "one ephemeral key for all offers, however many are needed");
    }
}

/// Of eight offers the one that is good is at any place.
#[test]
fn where_an_offer_stands_tells_nothing() {
    let mut places = std::collections::HashSet::new();
    for entropy in 0..100 {
        let (a, b) = (config(1, Fixed::group(9)), config(2, Fixed::group(9)));
        let mut pair = Pair::new(&a, &b);
        let keyring = Keyring::new(&a.identity, &*a.policy);
        pair.active = SecureSession::active(a, &keyring, [entropy; 32], Instant::ZERO).expect("offer");
        pair.run(&mut |to_passive, bytes| {
            if !to_passive && bytes[1] == 2 {
                places.insert(bytes[HEAD_BYTES + 1]);
            }
            bytes.to_vec()
        });
    }
    assert_eq!(places.len(), 8);
}

#[test]
fn an_offer_without_the_question_or_a_second_question_is_refused_alike() {
    let (a, b) = (config(1, Fixed::group(9)), config(2, Fixed::group(9)));
    let heard = overheard(&a, &b);
    for config in [b, config(3, Fixed::alone())] {
        let refused = [0x47, 4, 3, 0, 7, 2, 2];
        assert_eq!(answers(&config, 1, &heard[1..]).pop().expect("an answer").0[..], refused);
        let twice = [heard[0].clone(), heard[0].clone()];
        assert_eq!(answers(&config, 1, &twice).pop().expect("an answer").0[..], refused);
    }
}

proptest! {
    /// Whoever the two were, whoever is asked, and whatever part of it is repeated.
    #[test]
    fn a_repetition_tells_nobody_from_anybody(
        group in prop::option::of(0u8..3),
        paired in prop::collection::vec(60u8..100, 0..34),
        strangers: bool,
        // Not that of the passive side that was overheard.
        entropy in 0u8..100,
        cut in 0usize..300,
    ) {
        let (a, b) = (config(1, fixed(Some(1), &[60, 61], false)), config(2, fixed(Some(1), &[], false)));
        let mut heard = overheard(&a, &b);
        let cut = cut.min(heard[1].len());
        heard[1].truncate(cut);
        let asked = answers(&config(60, fixed(group, &paired, strangers)), entropy, &heard);
        let nobody = answers(&config(200, Fixed::alone()), !entropy, &heard);
        for ((asked, work), (nobody, same_work)) in asked.into_iter().zip(nobody) {
            prop_assert_eq!(asked.len(), nobody.len());
            prop_assert_eq!(work, same_work);
            // What is fresh is random, all else the same.
            let fresh = asked.get(1) == Some(&5);
            prop_assert!(fresh || asked == nobody);
        }
    }
}
