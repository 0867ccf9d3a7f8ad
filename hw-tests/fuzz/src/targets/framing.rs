//! RFC 6455 frames from a hostile peer, in pieces of any size, for both roles and both kinds of transports.

use gattway::endpoint::ProtocolType;
use gattway::lab::endpoint::framing::{Framing, FramingError, FramingEvent, FramingRole};

use super::super::choices::Choices;
use super::super::memory;

/// Memory beside the input itself, twice over (the frame under way and the events), in bytes.
const OVERHEAD: usize = 32 * 1024;

/// Memory for each event of a piece, in bytes: it stands in the framing's queue and in the list here, and both grow by doubling.
const EVENT: usize = 240;

fn feed(framing: &mut Framing, pieces: &[&[u8]]) -> (Vec<FramingEvent>, Result<(), FramingError>) {
    let mut events = Vec::new();
    for piece in pieces {
        let result = framing.handle_bytes(piece);
        events.extend(std::iter::from_fn(|| framing.poll_event()));
        if result.is_err() {
            assert_eq!(framing.handle_bytes(b"more"), result, "a failed stream stays failed");
            return (events, result);
        }
    }
    (events, Ok(()))
}

/// Pieces of lengths that a seed decides.
fn cut(mut stream: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut random = fastrand::Rng::with_seed(seed.into());
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        let longest = if seed & 1 == 0 { 3 } else { 300 };
        let (piece, rest) = stream.split_at(random.usize(1..=longest).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

fn payload(event: &FramingEvent) -> usize {
    match event {
        FramingEvent::Frame(bytes) | FramingEvent::Ping(bytes) | FramingEvent::Pong(bytes) => bytes.len(),
        // What is not UTF-8 becomes three bytes for one.
        FramingEvent::Close { reason, .. } => reason.len() / 3,
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let mode = choices.byte();
    let (role, peer) = match mode & 1 {
        0 => (FramingRole::Active, FramingRole::Passive),
        _ => (FramingRole::Passive, FramingRole::Active),
    };
    let protocol = if mode & 2 == 0 { ProtocolType::ByteStream } else { ProtocolType::MessageStream };
    let seed = choices.byte();
    let stream = choices.rest();

    let ((events, result), held) = memory::peak(|| feed(&mut Framing::new(role, protocol), &[stream]));
    assert!(
        held <= 3 * stream.len() + EVENT * events.len() + OVERHEAD,
        "{held} bytes held for {}",
        stream.len()
    );
    assert!(events.iter().map(payload).sum::<usize>() <= stream.len());
    let after_close = events.iter().position(|event| matches!(event, FramingEvent::Close { .. }));
    assert!(after_close.is_none_or(|at| at + 1 == events.len()), "nothing follows a CLOSE");

    if protocol == ProtocolType::ByteStream {
        let pieces = cut(stream, seed);
        assert_eq!(feed(&mut Framing::new(role, protocol), &pieces), (events.clone(), result));
    }
    // What arrived, sent again by a peer of ours, arrives the same.
    let sender = Framing::new(peer, protocol);
    let mut receiver = Framing::new(role, protocol);
    let mask = [seed, !seed, mode, 7];
    for event in events {
        let again = match &event {
            FramingEvent::Frame(frame) => Some(sender.encode_frame(frame, mask)),
            FramingEvent::Ping(payload) => sender.encode_ping(payload, mask),
            FramingEvent::Pong(payload) => sender.encode_pong(payload, mask),
            // 1005 stands for none and is not sent; a repaired reason may be longer than fits.
            FramingEvent::Close { .. } => None,
        };
        if let Some(again) = again {
            assert_eq!(feed(&mut receiver, &[&again]), (vec![event], Ok(())));
        }
    }
}
