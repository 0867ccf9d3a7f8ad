//! The stream under encryption: whole, in order, or an error; new keys; no nonce twice.

use proptest::prelude::*;

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
