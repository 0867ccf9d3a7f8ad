//! What a session says of itself at each stage, and that it stays over.

use super::super::crypto;
use super::super::epoch::EpochError;
use super::*;

/// Over a link: the responder's fresh value is known.
fn sides(policy: fn() -> Fixed) -> (SecureSession, SecureSession) {
    let of = |n| SecureConfig { fresh: Some([5; 32]), ..config(n, policy()) };
    (active(&of(1)), passive(&of(2)))
}

/// Whether the passive side counts the peer as known after OFFER, and at last.
fn known(policy: fn() -> Fixed) -> [bool; 3] {
    let (mut a, mut b) = sides(policy);
    let first = b.knows_a_key();
    b.handle_bytes(&a.take_output()).expect("OFFER");
    let second = b.knows_a_key();
    a.handle_bytes(&b.take_output()).expect("ACCEPT");
    b.handle_bytes(&a.take_output()).expect("PROVE");
    [first, second, b.knows_a_key()]
}

#[test]
fn only_who_has_shown_a_key_is_known_before_the_end() {
    assert_eq!(known(|| Fixed::group(9)), [false, true, true]);
    assert_eq!(known(Fixed::open), [false, false, true]);
}

#[test]
fn output_is_there_until_it_is_taken() {
    let (mut a, b) = sides(|| Fixed::group(9));
    assert!(a.has_output() && !b.has_output());
    assert!(!a.take_output().is_empty());
    assert!(!a.has_output());
}

#[test]
fn what_is_over_says_and_takes_nothing_more() {
    let made: [fn() -> SecureSession; 3] = [
        // In the handshake, either side, and behind it.
        || sides(|| Fixed::group(9)).0,
        || sides(|| Fixed::group(9)).1,
        || Pair::established(&config(1, Fixed::group(9)), &config(2, Fixed::group(9))).passive,
    ];
    for make in made {
        let mut session = make();
        session.take_output();
        assert!(!session.is_over());
        session.refuse(RefuseReason::Denied);
        assert!(session.is_over() && session.poll_at().is_none());
        assert!(!session.take_output().is_empty(), "the peer is told why");
        session.refuse(RefuseReason::Denied);
        assert!(session.take_output().is_empty(), "once");
        // Bytes that would be an error, or an answer, before.
        let offer = sides(|| Fixed::group(9)).0.take_output();
        for bytes in [&b"GET / HTTP/1.1"[..], &offer, &[0; 70_000]] {
            assert_eq!(session.handle_bytes(bytes), Ok(()));
        }
        assert!(session.poll_event().is_none() && !session.has_output());
        assert_eq!(session.handle_end(), Ok(()));
    }
    let mut cut = sides(|| Fixed::group(9)).0;
    assert_eq!(cut.handle_end(), Err(SecureError::Truncated));
    assert!(cut.is_over());
}

#[test]
fn the_tag_of_a_resume_depends_on_key_and_transcript() {
    let tag = SecureSession::resume_tag(&[7; 32], b"transcript");
    assert_eq!(tag, crypto::resume_tag(&[7; 32], b"transcript"));
    for (key, transcript) in [([8; 32], &b"transcript"[..]), ([7; 32], b"another")] {
        assert_ne!(SecureSession::resume_tag(&key, transcript), tag);
    }
}

#[test]
fn directions_of_access_are_apart() {
    let may = [Access::None, Access::Read, Access::Write, Access::ReadWrite]
        .map(|access| (access.may_read(), access.may_write()));
    assert_eq!(may, [(false, false), (true, false), (false, true), (true, true)]);
    assert!(Permissions::all(Access::None).is_none() && !Permissions::all(Access::Read).is_none());
}

/// Who answers no more than it must has no name and takes nobody's word about the group.
#[test]
fn what_a_policy_does_not_say_is_the_narrow_answer() {
    let policy = GroupOnly(Psk([9; 32]));
    let peer = identity(1).id();
    assert_eq!(policy.own_name(), None);
    assert_eq!(policy.take_epoch(&peer, &[]), Err(EpochError::NoGroup));
    assert!(policy.epoch(&peer).is_none() && !policy.admits_strangers());
    assert!(policy.former_psks().is_empty());
    assert_eq!(policy.admit(&peer, Authentication::Open), Err(Refusal::Stranger));
}
