//! A BLIP connection against a peer that says anything, with correct checksums where it likes, and against an honest one.

use gattway::lab::blip::frame::{Frame, FrameFlags, FrameHeader, FrameType};
use gattway::lab::blip::stream::StreamEncoder;
use gattway::lab::blip::{
    BlipConfig, BlipError, Connection, ErrorReply, Event, MessageNumber, OutgoingMessage,
};

use super::super::choices::Choices;
use super::super::memory;

/// Small limits, so that a short input reaches them.
fn config() -> BlipConfig {
    BlipConfig {
        compression_level: 6,
        message_size_max: 16 * 1024,
        properties_size_max: 1024,
        open_messages_max: 8,
        open_bytes_max: 32 * 1024,
        open_bytes_shared: None,
        unanswered_requests_max: 16,
    }
}

/// What a connection with these limits may hold: its deflate states, messages of the peer that are whole (each comes of
/// input, or of a bomb within the limit) and those that are not, in bytes.
const MEMORY_MAX: usize = 2 << 20;
const FRAME_SIZE_MAX: usize = 16_384;
/// Content of one frame of the peer, in bytes: more than a message may have.
const CONTENT_MAX: usize = 64 * 1024;

/// Answers or drops what has arrived, and sends what is to be sent.
fn drain(blip: &mut Connection, choices: &mut Choices<'_>, requests: &mut Vec<MessageNumber>) {
    while let Some(event) = blip.poll_event() {
        match event {
            Event::Request(request) => {
                assert!(request.body.len() <= config().message_size_max);
                requests.push(request.number);
                requests.drain(..requests.len().saturating_sub(64));
            }
            Event::Reply { result, .. } => drop(result),
            _ => {}
        }
    }
    let mut frame = Vec::new();
    for _ in 0..choices.below(8) {
        if !blip.poll_frame_into(&mut frame) {
            break;
        }
        assert!(frame.len() <= FRAME_SIZE_MAX, "{} bytes in a frame", frame.len());
        Frame::parse(&frame).expect("our frames are good");
    }
}

/// One frame of the peer.
fn frame(choices: &mut Choices<'_>, encoder: &mut StreamEncoder, next: &mut u64) -> Vec<u8> {
    let kind = choices.byte();
    if kind == 0 {
        return choices.blob().to_vec();
    }
    let flags = choices.byte();
    let frame_type = choices.pick(&[
        FrameType::Request,
        FrameType::Request,
        FrameType::Request,
        FrameType::Reply,
        FrameType::Error,
        FrameType::AckRequest,
        FrameType::AckReply,
        FrameType::Unknown(7),
    ]);
    let number = match kind & 3 {
        0 => choices.u64(),
        1 => {
            *next += 1;
            *next
        }
        2 => u64::from(choices.byte()),
        _ => *next,
    };
    let flags = FrameFlags::new(frame_type)
        .with_compressed(flags & 1 != 0)
        .with_urgent(flags & 2 != 0)
        .with_no_reply(flags & 4 != 0)
        .with_more_coming(flags & 8 != 0);
    let mut out = Vec::new();
    FrameHeader { number, flags }.emit(&mut out);
    let repeat = if kind & 0x40 == 0 { 1 } else { 1 + choices.u16() as usize % 1024 };
    let content = choices.blob();
    // What the peer itself holds is not the question.
    let content = content.repeat(repeat.min(CONTENT_MAX / content.len().max(1)).max(1));
    if !frame_type.has_checksum() {
        out.extend_from_slice(&content);
        return out;
    }
    // An honest BLIP stream with a dishonest content, or not even that.
    let checksum = match kind & 0x80 {
        0 => encoder.encode(&[&content], flags.compressed(), &mut out),
        _ => {
            out.extend_from_slice(&content);
            0
        }
    };
    out.extend_from_slice(&checksum.to_be_bytes());
    out
}

fn hostile(choices: &mut Choices<'_>) {
    let mut blip = Connection::new(config());
    let mut encoder = StreamEncoder::new(9);
    let (mut requests, mut next) = (Vec::new(), 0);
    let ((), held) = memory::peak(|| {
        while !choices.is_empty() {
            match choices.below(4) {
                0 => own_move(&mut blip, choices, &requests),
                _ => {
                    let frame = frame(choices, &mut encoder, &mut next);
                    let result = blip.handle_frame(&frame);
                    assert_eq!(result.is_err(), blip.failure().is_some());
                }
            }
            drain(&mut blip, choices, &mut requests);
            assert!(blip.unanswered_requests() <= config().unanswered_requests_max);
            if let Some(error) = blip.failure() {
                assert!(!error.to_string().is_empty());
                assert!(matches!(blip.handle_frame(b""), Err(BlipError::Failed(_))));
                assert_eq!(blip.poll_frame(), None, "a dead connection says nothing");
                return;
            }
        }
    });
    assert!(held <= MEMORY_MAX, "{held} bytes held");
}

/// What the library may do meanwhile.
fn own_move(blip: &mut Connection, choices: &mut Choices<'_>, requests: &[MessageNumber]) {
    let message = OutgoingMessage {
        compressed: choices.bool(),
        urgent: choices.bool(),
        no_reply: choices.bool(),
        ..OutgoingMessage::default().with("Profile", "rev").with_body(vec![7; choices.u16() as usize % 4096])
    };
    if blip.queued_bytes() > 64 * 1024 {
        // The layer above stops here.
        return;
    }
    let request = requests.get(choices.below(64)).copied();
    let result = match (choices.below(3), request) {
        (0, Some(request)) => blip.reply(request, message),
        (1, Some(request)) => blip.reply_error(request, &ErrorReply::blip(404, "no")),
        _ => blip.send_request(message).map(|_| ()),
    };
    assert!(result.is_ok() || blip.failure().is_some(), "{result:?}");
}

/// Two honest connections: every message arrives once, whole, in the order in which it was begun.
fn honest(choices: &mut Choices<'_>) {
    let level = u32::from(choices.byte() % 10);
    let end = || Connection::new(BlipConfig { compression_level: level, ..BlipConfig::default() });
    let mut ends = [end(), end()];
    let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
    let mut arrived: [Vec<(u64, Vec<u8>)>; 2] = Default::default();
    let mut carry = |ends: &mut [Connection; 2], from: usize, frames: usize| {
        for _ in 0..frames {
            let Some(frame) = ends[from].poll_frame() else { return false };
            ends[1 - from].handle_frame(&frame).expect("our frames are good");
            while let Some(event) = ends[1 - from].poll_event() {
                if let Event::Request(request) = event {
                    arrived[1 - from].push((request.number.0, request.body.to_vec()));
                    let reply = OutgoingMessage::default().with_body(request.body);
                    ends[1 - from].reply(request.number, reply).expect("it is open");
                }
            }
        }
        true
    };
    while !choices.is_empty() {
        let from = choices.below(2);
        match choices.below(3) {
            0 => {
                carry(&mut ends, from, choices.below(16));
            }
            _ => {
                let flags = choices.byte();
                let body = choices.blob().repeat(1 + choices.below(64));
                let message = OutgoingMessage {
                    compressed: flags & 1 != 0,
                    urgent: flags & 2 != 0,
                    no_reply: flags & 4 != 0,
                    ..OutgoingMessage::default().with("k", "v").with_body(body.clone())
                };
                ends[from].send_request(message).expect("small");
                sent[from].push(body);
            }
        }
    }
    let mut quiet = 0;
    for round in 0.. {
        assert!(round < 100_000, "no end");
        quiet = if carry(&mut ends, round % 2, 1) { 0 } else { quiet + 1 };
        if quiet > 2 {
            break;
        }
    }
    for end in [0, 1] {
        arrived[1 - end].sort_by_key(|(number, _)| *number);
        let bodies: Vec<&Vec<u8>> = arrived[1 - end].iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, sent[end].iter().collect::<Vec<_>>());
        assert_eq!((ends[end].awaiting_replies(), ends[end].queued_messages()), (0, 0));
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(4) {
        0 => honest(&mut choices),
        _ => hostile(&mut choices),
    }
}
