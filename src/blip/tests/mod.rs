//! Tests of whole connections.

mod limits;
mod order;
mod parts;
mod random;

use super::*;

fn connection() -> Connection {
    Connection::new(BlipConfig::default())
}

fn message(len: usize) -> OutgoingMessage {
    OutgoingMessage::request("test").with_body(vec![b'x'; len])
}

/// Incompressible bytes.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Carries frames both ways until nothing moves.
fn exchange(a: &mut Connection, b: &mut Connection) {
    loop {
        let (sent_by_a, sent_by_b) = (carry(a, b), carry(b, a));
        if sent_by_a + sent_by_b == 0 {
            return;
        }
    }
}

/// Carries all frames one way and counts them.
fn carry(from: &mut Connection, to: &mut Connection) -> usize {
    let mut frame = Vec::new();
    let mut count = 0;
    while from.poll_frame_into(&mut frame) {
        to.handle_frame(&frame).expect("a frame of ours");
        count += 1;
    }
    count
}

#[test]
fn request_reply_and_error() {
    let (mut a, mut b) = (connection(), connection());
    let big = vec![7u8; 300_000];
    let ask = OutgoingMessage::request("ask").with("x", "y").with_body(big.clone());
    let first = a.send_request(OutgoingMessage { compressed: true, ..ask.clone() }).expect("queued");
    let second = a.send_request(ask).expect("queued");
    exchange(&mut a, &mut b);
    // The compressed one is in fewer frames or not: both take turns, and the first to begin ends first.
    for (number, compressed) in [(first, true), (second, false)] {
        let Some(Event::Request(request)) = b.poll_event() else { panic!("no request") };
        assert_eq!((request.number, request.profile(), request.compressed), (number, "ask", compressed));
        assert_eq!(request.properties.get("x"), Some("y"));
        assert_eq!(request.body, big);
    }
    assert_eq!((a.awaiting_replies(), b.unanswered_requests()), (2, 2));
    b.reply(second, OutgoingMessage::default().with_body(&b"yes"[..])).expect("replied");
    b.reply_error(first, &ErrorReply::no_handler()).expect("replied");
    assert_eq!(b.unanswered_requests(), 0);
    exchange(&mut a, &mut b);
    let reply = IncomingReply { properties: Properties::new(), body: "yes".into(), compressed: false };
    assert_eq!(a.poll_event(), Some(Event::Reply { number: second, result: Ok(reply) }));
    assert_eq!(a.poll_event(), Some(Event::Reply { number: first, result: Err(ErrorReply::no_handler()) }));
    assert_eq!((a.awaiting_replies(), a.queued_bytes(), a.queued_messages()), (0, 0, 0));
    assert_eq!(a.stats().frames_sent, b.stats().frames_received);
    assert_eq!(a.stats().bytes_received, b.stats().bytes_sent);
}

/// What a peer says went wrong ends in logs, lists and events.
#[test]
fn of_a_long_error_the_start_is_kept() {
    let (mut a, mut b) = (connection(), connection());
    let number = a.send_request(message(3)).expect("queued");
    exchange(&mut a, &mut b);
    let long = "\u{fc}".repeat(1 << 20);
    let error = ErrorReply { domain: long[..100_000 / 2].to_owned(), code: 7, message: long.clone() };
    b.reply_error(number, &error).expect("replied");
    exchange(&mut a, &mut b);
    let Some(Event::Reply { result: Err(told), .. }) = a.poll_event() else { panic!("no error") };
    assert_eq!((told.code, told.message.len(), told.domain.len()), (7, 1024, 1024));
    assert!(long.starts_with(&told.message), "whole characters");
    assert_eq!(ErrorReply::new("HTTP", 7, "x".repeat(3000)).message.len(), 1024);
}

#[test]
fn a_request_without_reply_gets_none() {
    let (mut a, mut b) = (connection(), connection());
    let number = a.send_request(OutgoingMessage { no_reply: true, ..message(3) }).expect("queued");
    exchange(&mut a, &mut b);
    let Some(Event::Request(request)) = b.poll_event() else { panic!("no request") };
    assert!(request.no_reply);
    b.reply_error(number, &ErrorReply::http(500, "unheard")).expect("dropped");
    b.reply(number, OutgoingMessage::default()).expect("dropped");
    assert_eq!((b.poll_frame(), b.queued_messages(), a.awaiting_replies()), (None, 0, 0));
    assert_eq!(b.reply(MessageNumber(2), message(0)), Err(BlipError::NoSuchRequest { number: 2 }));
}

#[test]
fn unknown_types_are_ignored() {
    let (mut a, mut b) = (connection(), connection());
    a.send_request(message(3)).expect("queued");
    for bits in [3, 6, 7] {
        b.handle_frame(&[9, bits, 1, 2, 3]).expect("ignored");
    }
    exchange(&mut a, &mut b);
    assert!(matches!(b.poll_event(), Some(Event::Request(_))), "the checksum must not have moved");
}
