//! Pairings that come about, and the many that must not.

use proptest::prelude::*;

use super::*;

const A: PeerId = PeerId([1; 32]);
const B: PeerId = PeerId([2; 32]);

fn code(text: &str) -> PairingCode {
    PairingCode::parse(text).expect("a code")
}

fn device_info(name: &str) -> DeviceInfo {
    DeviceInfo { name: name.into(), advert_key: AdvertKey::from_bytes([name.len() as u8; 32]) }
}

type Ended = Result<Option<DeviceInfo>, PairingError>;

/// Does what the caller of a side does with what it says to these bytes.
fn step(side: &mut Pairing, bytes: &[u8]) -> Result<(), PairingError> {
    let mut next = side.handle_bytes(bytes)?;
    loop {
        next = match next {
            PairingStep::Enter(_) => side.entered()?,
            PairingStep::Guess => side.judge()?,
            _ => return Ok(()),
        };
    }
}

/// Whatever else a message claims to be, who gets it ends and says so: no step can be left out, nor taken for another.
#[test]
fn a_message_of_another_kind_ends_the_pairing() {
    let sent = |changed: usize, by: u8| {
        let mut sides = [
            Pairing::active(&code("482915"), [5; 32], A, B, device_info("sensor")),
            Pairing::passive(code("482915"), [5; 32], B, A, device_info("gateway")),
        ];
        for count in 0.. {
            let mut message = sides[count % 2].take_output();
            if message.is_empty() {
                return None;
            }
            assert_eq!(message.len(), usize::from(message[0]) + 1, "one at a time");
            let kind = message[1];
            if count == changed {
                message[1] = (kind - 1 + by) % 5 + 1;
                let refused = step(&mut sides[(count + 1) % 2], &message);
                assert_eq!(refused, Err(PairingError::Malformed), "{kind} as {}", message[1]);
                return Some(kind);
            }
            step(&mut sides[(count + 1) % 2], &message).expect("as it should be");
        }
        None
    };
    for by in 1..5 {
        let kinds: Vec<u8> = (0..).map_while(|changed| sent(changed, by)).collect();
        assert_eq!(kinds, [1, 2, 3, 3, 4, 5]);
    }
    // A HELLO or an ANSWER of another length is no key.
    let mut b = Pairing::passive(code("482915"), [5; 32], B, A, device_info("gateway"));
    assert_eq!(
        b.handle_bytes(&[&[SPAKE_BYTES as u8, 1], &[7; SPAKE_BYTES - 1][..]].concat()),
        Err(PairingError::Malformed)
    );
}

/// Runs both sides to their end, moving `piece` bytes at a time; gives what each has entered.
fn run(mut a: Pairing, mut b: Pairing, piece: usize) -> (Ended, Ended) {
    fn take(side: &mut Pairing, bytes: &[u8], entered: &mut Ended) {
        let mut bytes = bytes;
        loop {
            match side.handle_bytes(bytes) {
                Ok(PairingStep::Enter(device_info)) => {
                    *entered = Ok(Some(device_info));
                    side.entered().expect("entered");
                    bytes = &[];
                }
                Ok(PairingStep::Guess) => match side.judge() {
                    Ok(_) => bytes = &[],
                    Err(error) => {
                        *entered = Err(error);
                        return;
                    }
                },
                Ok(_) => return,
                Err(error) => {
                    if entered == &Ok(None) {
                        *entered = Err(error);
                    }
                    return;
                }
            }
        }
    }
    let (mut at_a, mut at_b) = (Ok(None), Ok(None));
    loop {
        let (to_b, to_a) = (a.take_output(), b.take_output());
        if to_a.is_empty() && to_b.is_empty() {
            return (at_a, at_b);
        }
        to_b.chunks(piece).for_each(|bytes| take(&mut b, bytes, &mut at_b));
        to_a.chunks(piece).for_each(|bytes| take(&mut a, bytes, &mut at_a));
    }
}

#[test]
fn the_same_code_pairs_and_each_has_the_others_card() {
    for piece in [1, 7, 1000] {
        let a = Pairing::active(&code("482915"), [5; 32], A, B, device_info("sensor"));
        let b = Pairing::passive(code("482 915"), [5; 32], B, A, device_info("gateway 1"));
        let (at_a, at_b) = run(a, b, piece);
        assert_eq!(at_a, Ok(Some(device_info("gateway 1"))));
        assert_eq!(at_b, Ok(Some(device_info("sensor"))));
    }
}

#[test]
fn another_code_session_or_key_enters_nobody() {
    let good = || (code("482915"), [5; 32], A, B);
    let (c, h, me, peer) = good();
    for (c2, h2, me2, peer2) in [
        (code("482916"), h, B, A),
        (code("482915"), [6; 32], B, A),
        (code("482915"), h, PeerId([3; 32]), A),
        (code("482915"), h, B, PeerId([3; 32])),
    ] {
        let a = Pairing::active(&c, h, me, peer, device_info("sensor"));
        let b = Pairing::passive(c2, h2, me2, peer2, device_info("gateway"));
        let (at_a, at_b) = run(a, b, 1000);
        assert_eq!((at_a, at_b), (Err(PairingError::WrongCode), Err(PairingError::WrongCode)));
    }
}

/// Somebody between the two has a session with each, and passes on what they send.
#[test]
fn somebody_in_between_who_passes_everything_on_pairs_nobody() {
    let evil = PeerId([9; 32]);
    let a = Pairing::active(&code("482915"), [5; 32], A, evil, device_info("sensor"));
    let b = Pairing::passive(code("482915"), [6; 32], B, evil, device_info("gateway"));
    let (at_a, at_b) = run(a, b, 1000);
    assert!(at_a.is_err() && at_b.is_err());
}

/// The caller is asked to count before anything is known of the guess, and only then is it judged.
#[test]
fn a_guess_is_counted_before_it_is_judged_and_a_look_is_not() {
    for guess in ["000000", "482915"] {
        let mut b = Pairing::passive(code("482915"), [5; 32], B, A, device_info("gateway"));
        let mut a = Pairing::active(&code(guess), [5; 32], A, B, device_info("evil"));
        assert_eq!(b.handle_bytes(&a.take_output()), Ok(PairingStep::Continue), "a look");
        a.handle_bytes(&b.take_output()).expect("answer");
        assert_eq!(b.judge(), Err(PairingError::Malformed), "there was no guess");
        assert_eq!(b.handle_bytes(&a.take_output()), Ok(PairingStep::Guess));
        assert_eq!(b.handle_bytes(&[]), Ok(PairingStep::Continue), "it waits");
        assert!(b.take_output().is_empty(), "something was said of a guess that is not counted");
        if guess == "482915" {
            assert_eq!(b.judge(), Ok(PairingStep::Continue));
        } else {
            assert_eq!(b.judge(), Err(PairingError::WrongCode));
            assert_eq!(a.handle_bytes(&b.take_output()), Err(PairingError::WrongCode));
        }
        assert!(b.judge().is_err(), "a guess is judged once");
    }
}

/// Reflects each side's messages to itself and repeats them out of turn.
#[test]
fn reflected_and_misplaced_messages_enter_nobody() {
    let mut a = Pairing::active(&code("482915"), [5; 32], A, B, device_info("sensor"));
    let hello = a.take_output();
    assert!(a.handle_bytes(&hello).is_err());
    for bytes in [&[1u8, Kind::Done as u8][..], &[1, Kind::DeviceInfo as u8], &[0], &[1, 77]] {
        let mut a = Pairing::active(&code("482915"), [5; 32], A, B, device_info("sensor"));
        assert!(a.handle_bytes(bytes).is_err());
        let mut b = Pairing::passive(code("482915"), [5; 32], B, A, device_info("gateway"));
        assert!(b.handle_bytes(bytes).is_err());
        assert!(b.handle_bytes(&hello).is_err(), "it is over");
    }
}

/// A passive side that does not have the code: it has seen the proof of the active one, and answers with what it likes.
#[test]
fn the_active_side_enters_nobody_who_does_not_prove_the_code() {
    type Lie = fn(&[u8]) -> Vec<u8>;
    let lies: [Lie; 4] = [
        |_| vec![0; PROOF_BYTES],
        |_| vec![255; PROOF_BYTES],
        <[u8]>::to_vec,
        |proof| proof.iter().rev().copied().collect(),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let mut a = Pairing::active(&code("482915"), [5; 32], A, B, device_info("sensor"));
        let mut liar = Pairing::passive(code("000000"), [5; 32], B, A, device_info("evil"));
        liar.handle_bytes(&a.take_output()).expect("HELLO");
        a.handle_bytes(&liar.take_output()).expect("ANSWER");
        let confirm = a.take_output();
        assert_eq!(confirm[1], Kind::Confirm as u8);
        let mut answer = lie(&confirm[2..]);
        answer.extend_from_slice(&postcard::to_stdvec(&device_info("evil")).expect("device information"));
        liar.send(Kind::Confirm, &answer);
        assert_eq!(a.handle_bytes(&liar.take_output()), Err(PairingError::WrongCode), "lie {n}");
        assert!(a.entered().is_err(), "lie {n}");
        let last = a.take_output();
        assert_eq!(last[1], Kind::Refuse as u8, "lie {n}: the device information must not leave");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_nor_enter_anybody(pieces: Vec<Vec<u8>>, active: bool) {
        let mut side = if active {
            Pairing::active(&code("482915"), [5; 32], A, B, device_info("sensor"))
        } else {
            Pairing::passive(code("482915"), [5; 32], B, A, device_info("gateway"))
        };
        for piece in pieces {
            match side.handle_bytes(&piece) {
                Ok(PairingStep::Guess) => prop_assert_eq!(side.judge(), Err(PairingError::WrongCode)),
                Ok(step) => prop_assert_eq!(step, PairingStep::Continue),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn codes_read_back(entropy: [u8; 16]) {
        let code = PairingCode::from_entropy(entropy);
        let read = PairingCode::parse(&code.text()).map(|read| read.text());
        prop_assert_eq!(read, Ok(code.text()));
    }
}

#[test]
fn codes_are_six_digits_and_are_not_printed() {
    assert_eq!(&**code("482915").text(), "482 915");
    for bad in ["", "12345", "1234567", "12345a", "١٢٣٤٥٦"] {
        assert!(PairingCode::parse(bad).is_err(), "{bad}");
    }
    assert!(!format!("{:?}", code("482915")).contains('4'));
}
