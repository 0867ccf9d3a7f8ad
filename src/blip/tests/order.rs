//! Which frame is next, and how much may be on its way.

use super::super::config::{ACK_THRESHOLD, FRAME_SIZE_MAX, FRAME_SIZE_MAX_WHILE_URGENT, UNACKNOWLEDGED_MAX};
use super::super::frame::{Frame, FrameType};
use super::*;

fn urgent(len: usize) -> OutgoingMessage {
    OutgoingMessage { urgent: true, ..message(len) }
}

/// Message number and length of the next `count` frames, which a peer takes.
fn next(from: &mut Connection, count: usize) -> Vec<(u64, usize)> {
    let mut frames = Vec::new();
    for _ in 0..count {
        let Some(frame) = from.poll_frame() else { break };
        frames.push((Frame::parse(&frame).expect("ours").header.number, frame.len()));
    }
    frames
}

fn numbers(frames: &[(u64, usize)]) -> Vec<u64> {
    frames.iter().map(|(number, _)| *number).collect()
}

#[test]
fn ordinary_messages_take_turns() {
    let mut a = connection();
    for _ in 0..3 {
        a.send_request(message(40_000)).expect("queued");
    }
    let frames = next(&mut a, 100);
    assert_eq!(numbers(&frames), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
    assert!(frames[..6].iter().all(|(_, len)| *len == FRAME_SIZE_MAX), "{frames:?}");
    // A newcomer takes its turn behind those that wait.
    a.send_request(message(40_000)).expect("queued");
    a.send_request(message(40_000)).expect("queued");
    assert_eq!(numbers(&next(&mut a, 3)), [4, 5, 4]);
    a.send_request(message(10)).expect("queued");
    assert_eq!(numbers(&next(&mut a, 100)), [5, 4, 6, 5]);
}

#[test]
fn urgent_messages_go_ahead_and_leave_one_between() {
    let mut a = connection();
    a.send_request(message(100_000)).expect("queued");
    assert_eq!(numbers(&next(&mut a, 1)), [1]);
    a.send_request(urgent(40_000)).expect("queued");
    a.send_request(urgent(40_000)).expect("queued");
    let frames = next(&mut a, 11);
    assert_eq!(numbers(&frames), [2, 1, 3, 1, 2, 1, 3, 1, 2, 1, 3]);
    for (number, len) in frames {
        if number == 1 {
            assert_eq!(len, FRAME_SIZE_MAX_WHILE_URGENT, "an ordinary frame while urgent ones wait");
        }
    }
    assert!(next(&mut a, 1)[0].1 > FRAME_SIZE_MAX_WHILE_URGENT, "no urgent one waits any more");
}

/// Whoever asks urgently is answered so, and an answer may be urgent by itself.
#[test]
fn an_urgent_request_gets_an_urgent_reply() {
    for (asked, answered) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut a, mut b) = (connection(), connection());
        let number = a.send_request(OutgoingMessage { urgent: asked, ..message(1) }).expect("queued");
        carry(&mut a, &mut b);
        b.reply(number, OutgoingMessage { urgent: answered, ..message(1) }).expect("replied");
        let frame = b.poll_frame().expect("the reply");
        let flags = Frame::parse(&frame).expect("ours").header.flags;
        assert_eq!(flags.urgent(), asked || answered, "{asked} {answered}");
    }
}

/// A request is sent with its last frame, whatever else is sent meanwhile.
#[test]
fn a_request_is_sent_when_its_last_frame_is() {
    let mut a = connection();
    let long = a.send_request(message(40_000)).expect("queued");
    let short = a.send_request(message(10)).expect("queued");
    assert_eq!((a.last_request(), a.queued_messages()), (short, 2));
    let mut sent = vec![(a.is_sent(long), a.is_sent(short))];
    while a.poll_frame().is_some() {
        sent.push((a.is_sent(long), a.is_sent(short)));
    }
    assert_eq!(sent, [(false, false), (false, false), (false, true), (false, true), (true, true)]);
    assert_eq!(a.queued_messages(), 0);
}

#[test]
fn first_frames_keep_their_order() {
    let mut a = connection();
    a.send_request(message(40_000)).expect("queued");
    assert_eq!(numbers(&next(&mut a, 1)), [1]);
    a.send_request(message(10_000)).expect("queued");
    a.send_request(message(10_000)).expect("queued");
    a.send_request(urgent(10)).expect("queued");
    // The urgent one may not begin before 2 and 3, but pushes them on ahead of 1, in short frames.
    let frames = next(&mut a, 100);
    assert_eq!(numbers(&frames)[..4], [2, 3, 4, 1]);
    assert!(frames[..2].iter().all(|(_, len)| *len == FRAME_SIZE_MAX_WHILE_URGENT), "{frames:?}");
}

#[test]
fn a_sender_without_acknowledgements_stops() {
    let (mut a, mut b) = (connection(), connection());
    a.send_request(message(1_000_000)).expect("queued");
    let mut sent = 0;
    let mut acks = Vec::new();
    while let Some(frame) = a.poll_frame() {
        sent += Frame::parse(&frame).expect("ours").counted_len();
        b.handle_frame(&frame).expect("ours");
        acks.extend(std::iter::from_fn(|| b.poll_frame()));
    }
    assert!(sent > UNACKNOWLEDGED_MAX && sent <= UNACKNOWLEDGED_MAX + FRAME_SIZE_MAX as u64, "{sent}");
    assert!(a.queued_bytes() > 800_000);
    // Other messages go on.
    a.send_request(message(20_000)).expect("queued");
    assert_eq!(carry(&mut a, &mut b), 2);

    // The receiver acknowledged on its own at each threshold, running totals.
    let totals: Vec<u64> = acks
        .iter()
        .map(|bytes| {
            let ack = Frame::parse(bytes).expect("an acknowledgement");
            assert_eq!((ack.header.number, ack.header.flags.bits(), ack.checksum), (1, 0x34, None));
            varint::take(ack.payload, "total").expect("a number").0
        })
        .collect();
    assert_eq!(totals.len() as u64, sent / ACK_THRESHOLD);
    assert!(totals.windows(2).all(|pair| pair[1] - pair[0] >= ACK_THRESHOLD), "{totals:?}");

    // One acknowledgement lets it send that much again; then the rest arrives.
    a.handle_frame(&acks[0]).expect("an acknowledgement");
    let more: u64 = next(&mut a, 1_000).len() as u64;
    assert!((1..=totals[0].div_ceil(16_000)).contains(&more), "{more} frames after {} bytes", totals[0]);
}

#[test]
fn acknowledgements_are_urgent_and_may_be_of_anything() {
    let (mut a, mut b) = (connection(), connection());
    let number = a.send_request(message(1)).expect("queued");
    exchange(&mut a, &mut b);
    b.reply(number, message(300_000)).expect("replied");
    b.send_request(message(300_000)).expect("queued");
    exchange(&mut b, &mut a);
    assert!(matches!(a.poll_event(), Some(Event::Request(_) | Event::Reply { .. })));
    assert!(matches!(a.poll_event(), Some(Event::Request(_) | Event::Reply { .. })));

    // Of messages that are over, that never were, of more than was sent: crossing and miscounting are harmless.
    for (kind, number, bytes) in
        [(FrameType::AckRequest, 1, 5u8), (FrameType::AckReply, 77, 9), (FrameType::AckRequest, 1, 127)]
    {
        let mut frame = Vec::new();
        let flags = super::super::frame::FrameFlags::ack(kind);
        let header = super::super::frame::FrameHeader { number, flags };
        Frame { header, payload: &[bytes], checksum: None }.emit(&mut frame);
        b.handle_frame(&frame).expect("harmless");
    }
}
