//! Who comes in, who is refused and how, and what hostile bytes do to a handshake.

use proptest::prelude::*;

use super::super::handshake::HEAD_BYTES;
use super::*;

fn refused(reason: RefuseReason, proven: bool) -> Option<SecureError> {
    Some(SecureError::Refused { reason, proven })
}

#[test]
fn members_of_a_group_meet_in_two_round_trips_over_a_link_and_three_elsewhere() {
    let over_link = |n| SecureConfig { fresh: Some([5; 32]), ..config(n, Fixed::group(9)) };
    let mut pair = Pair::new(&over_link(1), &over_link(2));
    // OFFER, ACCEPT, PROVE, verdict.
    assert_eq!(pair.join(), 4);
    assert!(pair.at_active.established.is_some() && pair.at_passive.established.is_some());
    let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, Fixed::group(9)));
    // A question and its answer before.
    assert_eq!(pair.join(), 6);
    let (a, b) = (pair.at_active.established.expect("active"), pair.at_passive.established.expect("passive"));
    assert_eq!((a.peer, b.peer), (identity(2).id(), identity(1).id()));
    assert_eq!((a.via, b.via), (Authentication::Group, Authentication::Group));
    assert_eq!(a.hash, b.hash);
    assert_eq!(pair.active.resume_key(), pair.passive.resume_key());
    assert_eq!((pair.at_active.confirmed, pair.at_passive.confirmed), (1, 1));
}

#[test]
fn paired_devices_meet_and_each_finds_the_other_among_many() {
    let a = config(1, Fixed::paired([3, 4, 5, 2]));
    let b = config(2, Fixed::paired((10..40).chain([1])));
    let pair = Pair::established(&a, &b);
    assert_eq!(pair.at_passive.established.expect("passive").via, Authentication::Paired);
    assert_eq!(pair.at_active.established.expect("active").peer, identity(2).id());
}

#[test]
fn the_strongest_offer_that_both_know_is_taken() {
    let both = Fixed { strangers: true, ..Fixed::group(9) };
    let pair = Pair::established(&config(1, both), &config(2, Fixed { strangers: true, ..Fixed::group(9) }));
    assert_eq!(pair.at_active.established.expect("active").via, Authentication::Group);
    let pair = Pair::established(
        &config(1, Fixed { strangers: true, ..Fixed::group(9) }),
        &config(2, Fixed::open()),
    );
    assert_eq!(pair.at_active.established.expect("active").via, Authentication::Open);
}

/// The passive side answers with a refusal alone: no key, no identity, nothing that depends on what it has.
#[test]
fn strangers_learn_nothing() {
    for (stranger, host) in [
        (Fixed::group(8), Fixed::group(9)),
        (Fixed::open(), Fixed::group(9)),
        (Fixed::paired([2]), Fixed::paired([3])),
        (Fixed::paired([2]), Fixed::group(9)),
        (Fixed::group(9), Fixed::alone()),
    ] {
        let mut pair = Pair::new(&config(1, stranger), &config(2, host));
        let mut answer = Vec::new();
        pair.run(&mut |to_passive, bytes| {
            if !to_passive {
                answer.extend_from_slice(&bytes);
            }
            bytes.to_vec()
        });
        assert_eq!(answer.split_off(HEAD_BYTES + 32), [0x47, 4, 3, 0, 2, 2, 2]);
        assert_eq!(pair.at_passive.error, Some(SecureError::Stranger));
        assert_eq!(pair.at_active.error, refused(RefuseReason::Stranger, false));
        assert!(pair.at_active.established.is_none() && pair.at_passive.established.is_none());
    }
}

#[test]
fn a_denied_member_is_told_under_encryption_and_before_anything_else() {
    let denies = Fixed { denied: vec![identity(1).id()], ..Fixed::group(9) };
    let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, denies));
    pair.join();
    assert_eq!(pair.at_active.error, refused(RefuseReason::Denied, true));
    assert!(!pair.at_active.error.expect("error").is_recoverable());
    assert!(pair.at_passive.established.is_none());
    // The other way round, the active side keeps its identity for itself.
    let denies = Fixed { denied: vec![identity(2).id()], ..Fixed::group(9) };
    let mut pair = Pair::new(&config(1, denies), &config(2, Fixed::group(9)));
    pair.join();
    assert!(matches!(pair.at_active.error, Some(SecureError::NotAdmitted { .. })));
    assert_eq!(pair.at_passive.error, refused(RefuseReason::Denied, false));
}

#[test]
fn a_copy_of_the_database_is_no_peer() {
    let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(1, Fixed::group(9)));
    pair.join();
    assert_eq!(pair.at_active.error, Some(SecureError::SameIdentity));
}

#[test]
fn nothing_to_offer_is_said_before_a_byte_is_sent() {
    let config = config(1, Fixed::alone());
    let keyring = Keyring::new(&config.identity, &*config.policy);
    let error = SecureSession::active(config, &keyring, [0; 32], Instant::ZERO).expect_err("nothing");
    assert_eq!(error, SecureError::NothingToOffer);
}

#[test]
fn both_sides_in_one_role_notice() {
    let (mut a, mut b) = (active(&config(1, Fixed::group(9))), active(&config(2, Fixed::group(9))));
    assert_eq!(a.handle_bytes(&b.take_output()), Err(SecureError::Unexpected { kind: 1 }));
    // Its own offer, sent back.
    let mut c = active(&config(1, Fixed::group(9)));
    let offer = c.take_output();
    assert_eq!(c.handle_bytes(&offer), Err(SecureError::Unexpected { kind: 1 }));
}

#[test]
fn plain_and_foreign_peers_are_recognised() {
    let (mut a, mut b) = (active(&config(1, Fixed::group(9))), passive(&config(2, Fixed::group(9))));
    assert_eq!(a.handle_bytes(&[0x88, 2, 3, 232]), Err(SecureError::Plain));
    assert_eq!(b.handle_bytes(&[0x82, 0xfe]), Err(SecureError::Plain));
    let mut c = passive(&config(2, Fixed::group(9)));
    assert_eq!(c.handle_bytes(b"\x16\x03\x01"), Err(SecureError::NotOurs { first: 0x16 }));
}

#[test]
fn another_version_is_refused_with_the_versions() {
    let mut b = passive(&config(2, Fixed::group(9)));
    let mut offer = active(&config(1, Fixed::group(9))).take_output().to_vec();
    (offer[HEAD_BYTES], offer[HEAD_BYTES + 1]) = (3, 7);
    assert_eq!(b.handle_bytes(&offer), Err(SecureError::Version { min: 3, max: 7, ours: 2 }));
    let mut a = active(&config(1, Fixed::group(9)));
    assert_eq!(a.handle_bytes(&b.take_output()), Err(SecureError::Version { min: 2, max: 2, ours: 2 }));
}

/// A peer of version 1, from its own page: each of the two tells its owner which one is to be updated.
#[test]
fn a_peer_of_version_1_is_refused_with_a_word_that_helps() {
    let offer = [&[0x47, 1, 0x34, 0, 1, 1, 1, 1][..], &[0x7e; 48]].concat();
    let mut b = passive(&config(2, Fixed::group(9)));
    let error = b.handle_bytes(&offer).expect_err("too old");
    assert!(error.to_string().ends_with("update gattway on the other device"), "{error}");
    assert_eq!(b.take_output()[..], [0x47, 4, 3, 0, 1, 2, 2]);
    // It reads the versions first, finds its own not among them, and answers with it.
    let mut a = active(&config(1, Fixed::group(9)));
    assert_eq!(a.take_output()[HEAD_BYTES..HEAD_BYTES + 2], [2, 2]);
    let error = a.handle_bytes(&[0x47, 4, 3, 0, 1, 1, 1]).expect_err("too old");
    assert!(error.to_string().ends_with("update gattway on the other device"), "{error}");
    let newer = SecureError::Version { min: 3, max: 4, ours: 2 };
    assert!(newer.to_string().ends_with("update gattway on this device"), "{newer}");
}

/// Somebody in between spoils an offer, so that the two fall back to a weaker one: the active side notices, whichever it was.
#[test]
fn a_downgrade_is_noticed() {
    let both = || Fixed { strangers: true, ..Fixed::group(9) };
    let offers_at = HEAD_BYTES + 3 + 32;
    let mut downgraded = 0;
    for at in (0..8 * 24).map(|n| offers_at + n) {
        let mut pair = Pair::new(&config(1, both()), &config(2, both()));
        pair.run(&mut |to_passive, bytes| {
            let mut bytes = bytes.to_vec();
            if to_passive && bytes[1] == 1 && bytes.len() > at {
                bytes[at] ^= 1;
            }
            bytes
        });
        let error = pair.at_active.error.expect("noticed");
        let of_tag = SecureError::Refused { reason: RefuseReason::Violation, proven: false };
        assert!(error == SecureError::Downgrade || error == of_tag, "byte {at}: {error}");
        downgraded += usize::from(error == SecureError::Downgrade);
        assert!(pair.at_active.established.is_none() && pair.at_passive.established.is_none());
    }
    // All but the tag of the group's own offer.
    assert_eq!(downgraded, 8 * 24 - 16);
}

#[test]
fn silence_has_a_limit() {
    let config = config(2, Fixed::group(9));
    let mut b = passive(&config);
    let at = b.poll_at().expect("a deadline");
    assert_eq!(at, Instant::ZERO + HANDSHAKE_TIMEOUT);
    assert_eq!(b.handle_timeout(Instant::ZERO), Ok(()));
    assert_eq!(b.handle_timeout(at), Err(SecureError::Timeout { limit: HANDSHAKE_TIMEOUT }));
    // Established: none.
    let pair = Pair::established(&config, &super::config(3, Fixed::group(9)));
    assert_eq!((pair.active.poll_at(), pair.passive.poll_at()), (None, None));
}

/// The question is in the clear: who changes its versions is noticed by the versions of the offer, which a hash covers.
#[test]
fn versions_that_were_changed_in_the_question_are_noticed() {
    for at in [HEAD_BYTES, HEAD_BYTES + 1] {
        let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, Fixed::group(9)));
        pair.run(&mut |to_passive, bytes| {
            let mut bytes = bytes.to_vec();
            if to_passive && bytes.len() == HEAD_BYTES + 3 {
                bytes[at] = if at == HEAD_BYTES { 1 } else { 6 };
            }
            bytes
        });
        assert_eq!(pair.at_passive.error, Some(SecureError::Downgrade));
        assert_eq!(pair.at_active.error, refused(RefuseReason::Violation, false));
    }
}

#[test]
fn pairing_meets_pairing_only() {
    let (a, b) = (config(1, Fixed::open()), config(2, Fixed::open()));
    let meet = |a_pairs: bool, b_pairs: bool| {
        let mut pair = Pair::new(&a, &b);
        if a_pairs {
            pair.active =
                SecureSession::active(a.clone(), &Keyring::pairing(), [1; 32], Instant::ZERO).expect("offer");
        }
        if b_pairs {
            pair.passive = SecureSession::passive(b.clone(), Keyring::pairing(), [2; 32], Instant::ZERO);
        }
        pair.join();
        (pair.at_passive.established.is_some(), pair.at_passive.error)
    };
    assert_eq!(meet(false, false), (true, None));
    assert_eq!(meet(true, true), (true, None));
    assert_eq!(meet(true, false), (false, Some(SecureError::Stranger)), "a replication was begun by pairing");
    assert_eq!(meet(false, true), (false, Some(SecureError::Stranger)));
}

/// The worked example of `firmware-notes/secure.md`, whose bytes were computed by another implementation from that page.
#[test]
fn the_bytes_are_those_of_the_notes() {
    let notes = include_str!("../../../firmware-notes/secure.md");
    let of = |label: &str| {
        let line = notes.lines().find(|line| line.starts_with(label)).expect("a line of the example");
        let hex: Vec<u8> = line[label.len()..].bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |c: u8| char::from(c).to_digit(16).expect("hex") as u8;
        hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect::<Vec<u8>>()
    };
    let limits = RekeyLimits { bytes: u64::MAX, records: 1 };
    let with = |n| SecureConfig { rekey: limits, ..config(n, Fixed::group(9)) };
    let mut pair = Pair::new(&with(1), &with(2));
    let mut flights = Vec::new();
    pair.run(&mut |_, bytes| {
        flights.push(bytes.to_vec());
        bytes.to_vec()
    });
    let labels = ["question", "CHALLENGE", "OFFER", "ACCEPT", "PROVE", "admitted"];
    assert_eq!(flights, labels.map(of));
    pair.active.seal(b"hello").expect("seal");
    assert_eq!(pair.active.take_output(), of("hello"));
    assert_eq!(pair.at_active.established.expect("established").hash, *of("hash"));
    assert_eq!(pair.active.resume_key().expect("open"), *of("resume"));
    pair.active.seal(b"again").expect("seal");
    assert_eq!(pair.active.take_output(), [of("new key"), of("again")].concat());
    assert_eq!(pair.active.resume_key().expect("open"), *of("next"));
}

proptest! {
    /// However the bytes are cut, the same comes out.
    #[test]
    fn any_split_gives_the_same_session(sizes in prop::collection::vec(1usize..40, 1..60)) {
        let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, Fixed::group(9)));
        let mut sizes = sizes.into_iter().cycle();
        for _ in 0..6 {
            for to_passive in [true, false] {
                let (from, to, outcome) = if to_passive {
                    (&mut pair.active, &mut pair.passive, &mut pair.at_passive)
                } else {
                    (&mut pair.passive, &mut pair.active, &mut pair.at_active)
                };
                let bytes = from.take_output();
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(sizes.next().expect("endless").min(rest.len()));
                    outcome.take(to, piece);
                    rest = after;
                }
            }
        }
        prop_assert_eq!((pair.at_active.error, pair.at_passive.error), (None, None));
        prop_assert!(pair.at_passive.established.is_some());
    }

    /// One changed bit anywhere in the handshake: no session on the side that saw it, a typed error, no panic.
    #[test]
    fn a_changed_bit_ends_the_handshake(flight in 0usize..6, position in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, Fixed::group(9)));
        let mut count = 0;
        pair.run(&mut |_, bytes| {
            let mut bytes = bytes.to_vec();
            if count == flight {
                let at = position.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            count += 1;
            bytes
        });
        let errors = pair.at_active.error.is_some() || pair.at_passive.error.is_some();
        // A length that grew makes a side wait: its time limit ends it.
        let waits = pair.active.poll_at().is_some() || pair.passive.poll_at().is_some();
        prop_assert!(errors || waits);
    }

    /// Bytes that nobody sealed, to each side at each stage.
    #[test]
    fn hostile_bytes_are_typed_errors(
        stage in 0usize..4,
        kind in 0u8..6,
        body in prop::collection::vec(any::<u8>(), 0..600),
        framed in any::<bool>(),
    ) {
        let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, Fixed::paired(3..30)));
        let mut bytes = Vec::new();
        if framed {
            bytes.extend_from_slice(&[0x47, kind]);
            bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
        }
        bytes.extend_from_slice(&body);
        if stage % 2 == 1 {
            let offer = pair.active.take_output();
            pair.at_passive.take(&mut pair.passive, &offer);
        }
        let (session, outcome) = if stage < 2 {
            (&mut pair.active, &mut pair.at_active)
        } else {
            (&mut pair.passive, &mut pair.at_passive)
        };
        for chunk in bytes.chunks(97) {
            outcome.take(session, chunk);
            prop_assert!(outcome.established.is_none());
            prop_assert!(session.buffered() <= 4096, "{} bytes are kept of a stranger", session.buffered());
        }
    }
}

/// The newest secret comes first, then what it is handed over by; the key of a pair does not hide that a member is behind.
#[test]
fn a_former_key_of_the_group_is_known_as_such_on_both_sides() {
    let ahead = |paired: &[u8]| {
        let paired = paired.iter().map(|n| identity(*n).id()).collect();
        Fixed { former: vec![[9; 32]], paired, ..Fixed::group(8) }
    };
    let behind = |paired: &[u8]| Fixed { paired: ahead(paired).paired, ..Fixed::group(9) };
    for (at_active, at_passive, vias) in [
        (ahead(&[]), behind(&[]), [Authentication::FormerGroup, Authentication::Group]),
        (behind(&[2]), ahead(&[1]), [Authentication::Group, Authentication::FormerGroup]),
        (ahead(&[2]), behind(&[1]), [Authentication::FormerGroup, Authentication::Group]),
        (ahead(&[2]), ahead(&[1]), [Authentication::Group; 2]),
        // Many pairs leave room for it.
        (
            ahead(&(2..30).collect::<Vec<_>>()),
            behind(&[1]),
            [Authentication::FormerGroup, Authentication::Group],
        ),
    ] {
        let mut pair = Pair::new(&config(1, at_active), &config(2, at_passive));
        pair.run(&mut |_, bytes| bytes.to_vec());
        let seen = [&pair.at_active, &pair.at_passive].map(|at| at.established.as_ref().expect("met").via);
        assert_eq!(seen, vias);
    }
}

/// ACCEPT is as long to who shows a former key, and does not say what this side calls itself.
#[test]
fn the_length_of_an_answer_does_not_tell_which_key_it_was() {
    let mut lengths = Vec::new();
    for policy in [Fixed::group(9), Fixed { former: vec![[9; 32]], ..Fixed::group(8) }] {
        let policy = Fixed { name: Some("gateway in the pump house".into()), ..policy };
        let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, policy));
        pair.run(&mut |to_passive, bytes| {
            if !to_passive && bytes[1] == 2 {
                lengths.push(bytes.len());
            }
            bytes.to_vec()
        });
    }
    assert_eq!(lengths[0], lengths[1]);
}
