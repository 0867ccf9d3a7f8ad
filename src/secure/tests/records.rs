//! The stream under encryption: whole, in order, or an error; new keys; no nonce twice.

use proptest::prelude::*;

use super::super::record::{Kind, Records};
use super::liar::Liar;
use super::*;

/// How a hostile path treats one record.
#[derive(Clone, Debug)]
enum Attack {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Drop,
    Repeat,
    Swap,
    Reflect,
    Insert(Vec<u8>),
}

fn attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, bit)| Attack::Flip(at, bit)),
        any::<prop::sample::Index>().prop_map(Attack::Cut),
        Just(Attack::Drop),
        Just(Attack::Repeat),
        Just(Attack::Swap),
        Just(Attack::Reflect),
        prop::collection::vec(any::<u8>(), 1..80).prop_map(Attack::Insert),
    ]
}

fn group_pair() -> Pair {
    Pair::established(&config(1, Fixed::group(9)), &config(2, Fixed::group(9)))
}

fn quick_rekey() -> Pair {
    let limits = RekeyLimits { bytes: 2_000, records: 5 };
    let with = |n| SecureConfig { rekey: limits, ..config(n, Fixed::group(9)) };
    Pair::established(&with(1), &with(2))
}

proptest! {
    /// What goes in comes out, however it is cut on its way, in both directions, across many keys.
    #[test]
    fn the_stream_is_kept(
        messages in prop::collection::vec((any::<bool>(), 0usize..9_000), 1..40),
        sizes in prop::collection::vec(1usize..3_000, 1..40),
    ) {
        let mut pair = quick_rekey();
        let mut sizes = sizes.into_iter().cycle();
        let (mut to_passive, mut to_active) = (Vec::new(), Vec::new());
        for (n, (from_active, length)) in messages.into_iter().enumerate() {
            let data: Vec<u8> = (0..length).map(|i| (i * 31 + n) as u8).collect();
            if from_active {
                pair.active.seal(&data).expect("seal");
                to_passive.extend_from_slice(&data);
            } else {
                pair.passive.seal(&data).expect("seal");
                to_active.extend_from_slice(&data);
            }
            pair.at_active.drain(&mut pair.active);
            pair.at_passive.drain(&mut pair.passive);
            // Some of it waits, so that both begin new keys at the same time now and then.
            if n % 3 == 2 {
                pair.run(&mut |_, bytes| bytes.to_vec());
            }
        }
        let mut held = (Vec::new(), Vec::new());
        loop {
            held.0.extend_from_slice(&pair.active.take_output());
            held.1.extend_from_slice(&pair.passive.take_output());
            if held.0.is_empty() && held.1.is_empty() {
                break;
            }
            let length = sizes.next().expect("endless");
            let piece: Vec<u8> = held.0.drain(..length.min(held.0.len())).collect();
            pair.at_passive.take(&mut pair.passive, &piece);
            let piece: Vec<u8> = held.1.drain(..length.min(held.1.len())).collect();
            pair.at_active.take(&mut pair.active, &piece);
        }
        prop_assert_eq!((&pair.at_active.error, &pair.at_passive.error), (&None, &None));
        prop_assert!(pair.at_passive.data == to_passive && pair.at_active.data == to_active);
        // Every record was sealed under a number of its own, and the other side has counted the same.
        let (a, b) = (pair.active.stats().expect("open"), pair.passive.stats().expect("open"));
        prop_assert_eq!((a.0, a.1), (b.1, b.0));
        prop_assert_eq!(a.0.rekeys, a.1.rekeys);
        prop_assert_eq!(pair.active.resume_key(), pair.passive.resume_key());
        let keys = a.0.rekeys as usize + 1;
        prop_assert_eq!((pair.at_active.resume_keys, pair.at_passive.resume_keys), (keys, keys));
        prop_assert_eq!((pair.at_active.confirmed, pair.at_passive.confirmed), (keys, keys));
    }

    /// Whatever is done to one record, what comes out is a beginning of what went in, then an error or nothing.
    #[test]
    fn an_attack_on_a_record_is_noticed(count in 2usize..8, at in any::<prop::sample::Index>(), attack in attack()) {
        let mut pair = group_pair();
        let mut records = Vec::new();
        let mut sent = Vec::new();
        for n in 0..count {
            let data = vec![n as u8; 20 + n];
            pair.active.seal(&data).expect("seal");
            records.push(pair.active.take_output().to_vec());
            sent.extend_from_slice(&data);
        }
        pair.passive.seal(b"something of the other direction").expect("seal");
        let reflected = pair.passive.take_output().to_vec();
        let (at, mut whole) = (at.index(count - 1), 0);
        match attack {
            Attack::Flip(byte, bit) => {
                let byte = byte.index(records[at].len());
                records[at][byte] ^= 1 << bit;
            }
            Attack::Cut(byte) => {
                let byte = byte.index(records[at].len());
                records[at].remove(byte);
            }
            Attack::Drop => drop(records.remove(at)),
            Attack::Repeat => {
                records.insert(at, records[at].clone());
                whole = 1;
            }
            Attack::Swap => records.swap(at, at + 1),
            Attack::Reflect => {
                let _ = pair.active.take_output();
                records[at] = reflected;
            }
            Attack::Insert(bytes) => records.insert(at, bytes),
        }
        for record in &records {
            pair.at_passive.take(&mut pair.passive, record);
        }
        let received = &pair.at_passive.data;
        prop_assert!(sent.starts_with(received));
        let good: usize = (0..at + whole).map(|n| 20 + n).sum();
        prop_assert_eq!(received.len(), good, "more than the records before came through");
        // A length that grew makes the receiver wait for more; then only the end of the bytes tells.
        let error = pair.at_passive.error.or(pair.passive.handle_end().err());
        prop_assert!(error.is_some_and(|error| error.is_recoverable()));
    }
}

#[test]
fn overhead_is_as_documented() {
    let mut pair = group_pair();
    pair.active.seal(&[7; 10]).expect("seal");
    assert_eq!(pair.active.take_output().len(), 10 + RECORD_OVERHEAD_BYTES);
    pair.active.seal(&vec![7; 10 * RECORD_DATA_MAX]).expect("seal");
    assert_eq!(pair.active.take_output().len(), 10 * RECORD_BYTES_MAX);
}

#[test]
fn an_end_without_a_word_is_an_error_and_nothing_follows_a_word() {
    let mut pair = group_pair();
    assert_eq!(pair.passive.handle_end(), Err(SecureError::Truncated));
    let mut pair = group_pair();
    pair.active.seal(b"last").expect("seal");
    pair.active.end();
    assert!(pair.active.seal(b"more").is_err());
    pair.join();
    assert!(pair.at_passive.ended && pair.at_passive.data == b"last");
    assert_eq!(pair.passive.handle_end(), Ok(()));
}

#[test]
fn a_refusal_of_an_open_session_is_proven() {
    let mut pair = group_pair();
    pair.passive.refuse(RefuseReason::PermissionChanged);
    pair.join();
    let error = pair.at_active.error.expect("refused");
    assert_eq!(error, SecureError::Refused { reason: RefuseReason::PermissionChanged, proven: true });
    assert!(error.is_recoverable());
    assert!(pair.active.seal(b"more").is_err() && pair.passive.seal(b"more").is_err());
}

#[test]
fn the_same_words_never_look_the_same() {
    let mut seen = std::collections::HashSet::new();
    let limits = RekeyLimits { bytes: u64::MAX, records: 3 };
    let with = |n| SecureConfig { rekey: limits, ..config(n, Fixed::group(9)) };
    let mut pair = Pair::established(&with(1), &with(2));
    for _ in 0..50 {
        pair.active.seal(b"the same words").expect("seal");
        pair.passive.seal(b"the same words").expect("seal");
        pair.run(&mut |_, bytes| {
            let mut rest = &bytes[..];
            while let Some((length, after)) = rest.split_first_chunk() {
                let (record, after) = after.split_at(usize::from(u16::from_le_bytes(*length)));
                assert!(seen.insert(record.to_vec()), "two records look the same");
                rest = after;
            }
            bytes.to_vec()
        });
    }
    assert!(pair.active.stats().expect("open").0.rekeys > 10);
}

/// After *new key* the same words under the same number are other bytes: the key has changed, not only its name.
#[test]
fn a_new_key_is_another_key() {
    let sealed = |limits| {
        let with = |n| SecureConfig { rekey: limits, ..config(n, Fixed::group(9)) };
        let mut pair = Pair::established(&with(1), &with(2));
        let mut records = Vec::new();
        for _ in 0..3 {
            pair.active.seal(b"the same words").expect("seal");
            let mut bytes = &pair.active.take_output()[..];
            while let Some((length, rest)) = bytes.split_first_chunk() {
                let (record, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)));
                records.push(record.to_vec());
                bytes = rest;
            }
        }
        (records, pair.active.stats().expect("open").0.rekeys)
    };
    let (one_key, none) = sealed(RekeyLimits { bytes: u64::MAX, records: u64::MAX });
    // Number 1 says the new key, number 2 is the first under it.
    let (two_keys, once) = sealed(RekeyLimits { bytes: u64::MAX, records: 1 });
    assert_eq!((none, once), (0, 1));
    assert_eq!((one_key.len(), two_keys.len()), (3, 4));
    assert_eq!(one_key[0], two_keys[0], "the same key, number and words");
    assert_ne!(one_key[2], two_keys[2], "the key has not changed");
}

/// The key of resumes is another one after each new key, whichever side began it.
#[test]
fn the_key_of_resumes_rolls_on_with_each_new_key() {
    let mut pair = quick_rekey();
    let rekeys = |session: &SecureSession| session.stats().expect("open").0.rekeys;
    let mut keys = std::collections::BTreeMap::new();
    for n in 0..12 {
        keys.insert(rekeys(&pair.active), pair.active.resume_key().expect("open"));
        let side = if n % 3 == 0 { &mut pair.active } else { &mut pair.passive };
        side.seal(&[7; 3_000]).expect("seal");
        pair.join();
        assert_eq!(rekeys(&pair.active), rekeys(&pair.passive));
        assert_eq!(pair.active.resume_key(), pair.passive.resume_key());
    }
    assert!(keys.len() > 4, "{} epochs only", keys.len());
    let different: std::collections::HashSet<_> = keys.values().collect();
    assert_eq!(different.len(), keys.len(), "a new key, and the key of resumes stayed");
}

/// A peer that has the session's keys and says a wrong number with a new key is a liar.
#[test]
fn a_new_key_of_any_other_number_is_refused() {
    for (epoch, holds) in [(1, true), (0, false), (2, false), (u32::MAX, false)] {
        let mut liar = Liar::admitted();
        liar.records.put(Kind::NewKey, &u32::to_le_bytes(epoch), &mut liar.out).expect("seal");
        let bytes = liar.out.split();
        let result = liar.peer.handle_bytes(&bytes);
        assert_eq!(result.is_ok(), holds, "epoch {epoch}: {result:?}");
        assert!(holds || result == Err(SecureError::Malformed), "epoch {epoch}: {result:?}");
    }
    // Nor does it begin a second one before this side has followed the first.
    let mut liar = Liar::admitted();
    liar.records.put(Kind::NewKey, &1u32.to_le_bytes(), &mut liar.out).expect("seal");
    let bytes = liar.out.split();
    liar.peer.handle_bytes(&bytes).expect("the first");
    assert_eq!(liar.peer.handle_bytes(&bytes), Err(SecureError::Record), "sealed under the key before");
}

/// Nothing a passive side says counts before it has said that this side may come in.
#[test]
fn nothing_is_taken_before_admitted() {
    type Say = fn(&mut Records, &mut BytesMut) -> Result<(), SecureError>;
    let says: [(&str, Say); 3] = [
        ("data", |records, out| records.seal(b"documents", out).map(drop)),
        ("a new key", |records, out| records.put(Kind::NewKey, &1u32.to_le_bytes(), out)),
        ("the end", |records, out| records.seal_end(out)),
    ];
    for (what, say) in says {
        let mut liar = Liar::new();
        say(&mut liar.records, &mut liar.out).expect("seal");
        let bytes = liar.out.split();
        assert_eq!(liar.peer.handle_bytes(&bytes), Err(SecureError::Malformed), "{what}");
        let events: Vec<SecureEvent> = std::iter::from_fn(|| liar.peer.poll_event()).collect();
        let came = events.iter().any(|event| matches!(event, SecureEvent::Data(_) | SecureEvent::Ended));
        assert!(!came, "{what}: {events:?}");
    }
}

#[test]
fn a_record_that_says_nothing_or_too_much_is_refused() {
    let cases: [(Kind, &[u8]); 9] = [
        (Kind::Admitted, &[]), // once more
        (Kind::Admitted, &[0]),
        (Kind::Data, &[]),
        (Kind::Group, &[]),
        (Kind::NewKey, &[1, 0, 0]),
        (Kind::NewKey, &[1, 0, 0, 0, 0]),
        (Kind::End, &[0]),
        (Kind::Refused, &[]),
        (Kind::Refused, &[2, 2]),
    ];
    for (kind, content) in cases {
        let what = format!("{} {content:?}", kind as u8);
        let mut liar = Liar::admitted();
        liar.records.put(kind, content, &mut liar.out).expect("seal");
        let bytes = liar.out.split();
        assert_eq!(liar.peer.handle_bytes(&bytes), Err(SecureError::Malformed), "{what}");
    }
}

/// A passive side that cannot read PROVE refuses in the clear, which proves nothing; it cannot be longer than a handshake's message.
#[test]
fn a_refusal_of_prove_is_taken_however_it_is_cut() {
    let refusal = [0x47, 4, 3, 0, 2, 2, 2];
    let expected = Err(SecureError::Refused { reason: RefuseReason::Stranger, proven: false });
    for cut in 0..refusal.len() {
        let mut liar = Liar::new();
        assert_eq!(liar.peer.handle_bytes(&refusal[..cut]), Ok(()), "{cut}");
        assert_eq!(liar.peer.handle_bytes(&refusal[cut..]), expected, "{cut}");
    }
    assert_eq!(Liar::new().peer.handle_bytes(&[0x47, 4, 255, 255]), Err(SecureError::Record));
}
