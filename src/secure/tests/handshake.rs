//! Who comes in, who is refused and how, and what hostile bytes do to a handshake.

use proptest::prelude::*;

use super::super::handshake::HEAD_BYTES;
use super::*;

fn refused(reason: RefuseReason, proven: bool) -> Option<SecureError> {
    Some(SecureError::Refused { reason, proven })
}

#[test]
fn members_of_a_group_meet_in_two_round_trips() {
    let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, Fixed::group(9)));
    // OFFER, ACCEPT, PROVE, verdict.
    assert_eq!(pair.join(), 4);
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
        assert_eq!(answer, [0x47, 4, 3, 0, 2, 1, 1]);
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
    (offer[HEAD_BYTES], offer[HEAD_BYTES + 1]) = (2, 7);
    assert_eq!(b.handle_bytes(&offer), Err(SecureError::Version { min: 2, max: 7, ours: 1 }));
    let mut a = active(&config(1, Fixed::group(9)));
    assert_eq!(a.handle_bytes(&b.take_output()), Err(SecureError::Version { min: 1, max: 1, ours: 1 }));
}

/// Somebody in between spoils the stronger offer, so that the two fall back to a weaker one: the active side notices,
/// whatever was done to the offer.
#[test]
fn a_downgrade_is_noticed() {
    let both = || Fixed { strangers: true, ..Fixed::group(9) };
    let spoil: [fn(&mut Vec<u8>); 2] = [
        |offer| offer[HEAD_BYTES + 3 + 1] ^= 1,
        |offer| {
            // Leaves the open offer alone.
            offer.drain(HEAD_BYTES + 3..HEAD_BYTES + 3 + 49);
            offer[HEAD_BYTES + 2] = 1;
            let length = (offer.len() - HEAD_BYTES) as u16;
            offer[2..4].copy_from_slice(&length.to_le_bytes());
        },
    ];
    for spoil in spoil {
        let mut pair = Pair::new(&config(1, both()), &config(2, both()));
        pair.run(&mut |to_passive, bytes| {
            let mut bytes = bytes.to_vec();
            if to_passive && bytes[1] == 1 {
                spoil(&mut bytes);
            }
            bytes
        });
        let error = pair.at_active.error.expect("noticed");
        assert!(matches!(error, SecureError::Downgrade | SecureError::Handshake), "{error}");
        assert!(pair.at_active.established.is_none() && pair.at_passive.established.is_none());
    }
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

#[test]
fn pairing_meets_pairing_only() {
    let (a, b) = (config(1, Fixed::open()), config(2, Fixed::open()));
    let side = |config: &SecureConfig, keyring: &Keyring| {
        SecureSession::active(config.clone(), keyring, [1; 32], Instant::ZERO).expect("offer")
    };
    let mut serving = passive(&b);
    assert_eq!(
        serving.handle_bytes(&side(&a, &Keyring::pairing()).take_output()),
        Err(SecureError::Stranger),
        "a replication was begun by pairing"
    );
    let mut pairing = SecureSession::passive(b, Keyring::pairing(), [2; 32], Instant::ZERO);
    assert_eq!(pairing.handle_bytes(&active(&a).take_output()), Err(SecureError::Stranger));
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
    let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, Fixed::group(9)));
    let mut flights = Vec::new();
    pair.run(&mut |_, bytes| {
        flights.push(bytes.to_vec());
        bytes.to_vec()
    });
    assert_eq!(flights, [of("OFFER"), of("ACCEPT"), of("PROVE"), of("admitted")]);
    pair.active.seal(b"hello").expect("seal");
    assert_eq!(pair.active.take_output(), of("hello"));
    assert_eq!(pair.at_active.established.expect("established").hash, *of("hash"));
    assert_eq!(pair.active.resume_key().expect("open"), *of("resume"));
}

proptest! {
    /// However the bytes are cut, the same comes out.
    #[test]
    fn any_split_gives_the_same_session(sizes in prop::collection::vec(1usize..40, 1..60)) {
        let mut pair = Pair::new(&config(1, Fixed::group(9)), &config(2, Fixed::group(9)));
        let mut sizes = sizes.into_iter().cycle();
        for _ in 0..4 {
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
    fn a_changed_bit_ends_the_handshake(flight in 0usize..4, position in any::<prop::sample::Index>(), bit in 0u8..8) {
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
