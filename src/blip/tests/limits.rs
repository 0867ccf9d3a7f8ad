//! Everything a peer can do wrong ends the connection with the right error, and costs little.

use super::super::config::FRAME_SIZE_ACCEPTED_MAX;
use super::super::frame::{Frame, FrameFlags, FrameHeader, FrameType};
use super::super::stream::StreamEncoder;
use super::*;

/// A peer that can say anything with a correct checksum.
struct Liar {
    encoder: StreamEncoder,
}

impl Liar {
    fn new() -> Liar {
        Liar { encoder: StreamEncoder::new(9) }
    }

    fn frame(&mut self, number: u64, flags: FrameFlags, content: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        FrameHeader { number, flags }.emit(&mut frame);
        let checksum = self.encoder.encode(&[content], flags.compressed(), &mut frame);
        frame.extend_from_slice(&checksum.to_be_bytes());
        frame
    }
}

fn request() -> FrameFlags {
    FrameFlags::new(FrameType::Request)
}

fn open_request() -> FrameFlags {
    request().with_more_coming(true)
}

fn reply() -> FrameFlags {
    FrameFlags::new(FrameType::Reply)
}

/// What the frames lead to; all but the last must be accepted.
fn verdict(blip: &mut Connection, frames: &[Vec<u8>]) -> Result<(), BlipError> {
    let (last, first) = frames.split_last().expect("frames");
    for frame in first {
        blip.handle_frame(frame).expect("accepted");
    }
    blip.handle_frame(last)
}

#[test]
fn violations_have_their_errors() {
    let one = |number, flags, content: &[u8]| {
        let frame = Liar::new().frame(number, flags, content);
        connection().handle_frame(&frame)
    };
    assert_eq!(one(1, request(), b"\0body"), Ok(()));
    assert_eq!(one(2, request(), b"\0"), Err(BlipError::OutOfOrder { expected: 1, actual: 2 }));
    assert_eq!(one(0, request(), b"\0"), Err(BlipError::OutOfOrder { expected: 1, actual: 0 }));
    assert_eq!(one(1, reply(), b"\0"), Err(BlipError::UnexpectedReply { number: 1 }));
    assert_eq!(one(1, request(), b""), Err(BlipError::TruncatedInteger { what: "properties length" }));
    assert_eq!(one(1, request(), &[0xff; 12]), Err(BlipError::IntegerOverflow { what: "properties length" }));
    assert_eq!(
        one(1, open_request(), &[0xff; 12]),
        Err(BlipError::IntegerOverflow { what: "properties length" })
    );
    for malformed in [&b"\x05a\0b"[..], b"\x02a\0", b"\x04\xff\0b\0", b"\x01a"] {
        assert_eq!(one(1, request(), malformed), Err(BlipError::MalformedProperties { number: 1 }));
    }
    let mut blip = connection();
    assert_eq!(blip.handle_frame(&[]), Err(BlipError::TruncatedInteger { what: "message number" }));
    assert!(matches!(blip.handle_frame(&[1, 3]), Err(BlipError::Failed(_))), "poisoned");
    assert!(matches!(blip.send_request(message(0)), Err(BlipError::Failed(_))), "poisoned");
    assert_eq!(connection().handle_frame(&[1]), Err(BlipError::TruncatedInteger { what: "frame flags" }));
    assert_eq!(connection().handle_frame(&[1, 0, 9]), Err(BlipError::FrameTooShort { min: 4, actual: 1 }));
    assert_eq!(
        connection().handle_frame(&[1, 4]),
        Err(BlipError::TruncatedInteger { what: "acknowledged bytes" })
    );
    assert_eq!(
        connection().handle_frame(&vec![0; FRAME_SIZE_ACCEPTED_MAX + 1]),
        Err(BlipError::FrameTooLarge { max: FRAME_SIZE_ACCEPTED_MAX, actual: FRAME_SIZE_ACCEPTED_MAX + 1 })
    );
}

#[test]
fn numbers_are_used_once() {
    let mut liar = Liar::new();
    let frames = [liar.frame(1, request(), b"\0"), liar.frame(1, request(), b"\0")];
    assert_eq!(verdict(&mut connection(), &frames), Err(BlipError::OutOfOrder { expected: 2, actual: 1 }));

    let mut a = connection();
    a.send_request(message(1)).expect("queued");
    let early = Liar::new().frame(1, reply(), b"\0");
    assert_eq!(
        a.handle_frame(&early),
        Err(BlipError::UnexpectedReply { number: 1 }),
        "before the request is sent"
    );

    let mut a = connection();
    a.send_request(message(1)).expect("queued");
    a.send_request(OutgoingMessage { no_reply: true, ..message(1) }).expect("queued");
    while a.poll_frame().is_some() {}
    let mut liar = Liar::new();
    let frames = [liar.frame(1, reply(), b"\0"), liar.frame(1, reply(), b"\0")];
    assert_eq!(verdict(&mut a, &frames), Err(BlipError::UnexpectedReply { number: 1 }), "a second reply");

    let mut a = connection();
    a.send_request(OutgoingMessage { no_reply: true, ..message(1) }).expect("queued");
    while a.poll_frame().is_some() {}
    let unwanted = Liar::new().frame(1, reply(), b"\0");
    assert_eq!(a.handle_frame(&unwanted), Err(BlipError::UnexpectedReply { number: 1 }));

    let mut a = connection();
    a.send_request(message(1)).expect("queued");
    while a.poll_frame().is_some() {}
    let mut liar = Liar::new();
    let frames = [
        liar.frame(1, reply().with_more_coming(true), b"\0"),
        liar.frame(1, FrameFlags::new(FrameType::Error), b"text"),
    ];
    assert_eq!(verdict(&mut a, &frames), Err(BlipError::MixedTypes { number: 1 }));
}

#[test]
fn unfinished_messages_are_limited() {
    let config = BlipConfig { open_messages_max: 3, open_bytes_max: 1_000, ..BlipConfig::default() };
    let mut liar = Liar::new();
    let frames: Vec<_> = (1..=4).map(|number| liar.frame(number, open_request(), b"\0")).collect();
    let mut blip = Connection::new(config.clone());
    assert_eq!(verdict(&mut blip, &frames), Err(BlipError::TooManyOpenMessages { max: 3 }));

    let mut liar = Liar::new();
    let part = [0u8; 400];
    let frames: Vec<_> = (1..=3).map(|number| liar.frame(number, open_request(), &part)).collect();
    let mut blip = Connection::new(config.clone());
    assert_eq!(verdict(&mut blip, &frames), Err(BlipError::TooManyOpenBytes { max: 1_000 }));

    // What is finished does not count any more.
    let mut liar = Liar::new();
    let mut blip = Connection::new(config);
    for number in 1..=100 {
        for flags in [open_request(), open_request(), request()] {
            blip.handle_frame(&liar.frame(number, flags, &[0; 300])).expect("within the limits");
        }
        assert!(matches!(blip.poll_event(), Some(Event::Request(request)) if request.body.len() == 899));
    }

    let config = BlipConfig { unanswered_requests_max: 3, ..BlipConfig::default() };
    let mut liar = Liar::new();
    let frames: Vec<_> = (1..=4).map(|number| liar.frame(number, request(), b"\0")).collect();
    assert_eq!(verdict(&mut Connection::new(config), &frames), Err(BlipError::TooManyUnanswered { max: 3 }));
}

#[test]
fn sizes_are_limited_in_both_directions() {
    let config = BlipConfig { message_size_max: 1_000, properties_size_max: 100, ..BlipConfig::default() };
    let blip = || Connection::new(config.clone());
    let mut liar = Liar::new();
    let frames = [liar.frame(1, open_request(), &[0; 600]), liar.frame(1, request(), &[0; 401])];
    assert_eq!(verdict(&mut blip(), &frames), Err(BlipError::MessageTooLarge { number: 1, max: 1_000 }));
    let frame = Liar::new().frame(1, request(), &[0; 1_001]);
    assert_eq!(blip().handle_frame(&frame), Err(BlipError::MessageTooLarge { number: 1, max: 1_000 }));
    let frame = Liar::new().frame(1, request(), &[0; 1_000]);
    assert_eq!(blip().handle_frame(&frame), Ok(()));
    for flags in [request(), open_request()] {
        let frame = Liar::new().frame(1, flags, &[101, b'a']);
        let refused = BlipError::PropertiesTooLarge { number: 1, max: 100, actual: 101 };
        assert_eq!(blip().handle_frame(&frame), Err(refused));
    }

    let mut sender = blip();
    let long = OutgoingMessage::default().with("k", &"v".repeat(98));
    let refused = BlipError::PropertiesTooLarge { number: 0, max: 100, actual: 101 };
    assert_eq!(sender.send_request(long), Err(refused));
    let body = |len: usize| OutgoingMessage::default().with_body(vec![0; len]);
    assert_eq!(sender.send_request(body(1_000)), Err(BlipError::MessageTooLarge { number: 0, max: 1_000 }));
    assert_eq!(sender.send_request(body(999)), Ok(MessageNumber(1)), "nothing was queued before");
}

#[test]
fn bombs_do_not_go_off() {
    let config = BlipConfig { message_size_max: 100_000, ..BlipConfig::default() };
    let bomb = Liar::new().frame(1, request().with_compressed(true), &vec![0; 50 << 20]);
    assert!(bomb.len() < 60_000, "{} bytes", bomb.len());
    let mut blip = Connection::new(config);
    assert_eq!(blip.handle_frame(&bomb), Err(BlipError::MessageTooLarge { number: 1, max: 100_000 }));
}

/// What unfolds to many times its size is read whole, as far as it may be, in one frame or in several.
#[test]
fn what_unfolds_far_is_read_whole() {
    let compressed = |flags: FrameFlags| flags.with_compressed(true);
    for size in [4_095, 4_096, 4_097, 65_535, 65_536, 65_537, 131_072, 1_000_000] {
        for step in [1, 7, 250] {
            let body: Vec<u8> = (0..size).map(|n| (n / 5_000 * step) as u8).collect();
            let content = [&[0], &body[..]].concat();
            let (mut blip, mut liar) = (connection(), Liar::new());
            blip.handle_frame(&liar.frame(1, compressed(request()), &content)).expect("one frame");
            let half = content.len() / 2;
            blip.handle_frame(&liar.frame(2, compressed(open_request()), &content[..half]))
                .expect("one of two");
            blip.handle_frame(&liar.frame(2, compressed(request()), &content[half..])).expect("the other");
            blip.handle_frame(&liar.frame(3, request(), &content)).expect("as it is");
            for number in 1..=3 {
                let Some(Event::Request(request)) = blip.poll_event() else { panic!("{number} is missing") };
                assert!(request.body == body, "message {number} of {size} bytes, {step}");
            }
        }
    }
}

#[test]
fn a_deflate_stream_must_go_on() {
    let compressed = request().with_compressed(true);
    let bad = BlipError::BadDeflate { number: 1 };
    let frame_of = |payload: &[u8]| {
        let mut frame = Vec::new();
        FrameHeader { number: 1, flags: compressed }.emit(&mut frame);
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&[0; 4]);
        frame
    };
    // A reserved block type; a final block (stored, empty), whole and with the marker as its end.
    for payload in [&[0x06, 0xff, 0xff][..], &[0x01, 0x00, 0x00, 0xff, 0xff], &[0x01]] {
        assert_eq!(connection().handle_frame(&frame_of(payload)), Err(bad.clone()), "{payload:?}");
    }
    // A stored block that says it is longer than it is swallows the marker; the checksum cannot match.
    let torn = connection().handle_frame(&frame_of(&[0x00, 0xff, 0x00, 0x00, 0xff, 1, 2, 3]));
    assert!(matches!(torn, Err(BlipError::BadChecksum { .. } | BlipError::BadDeflate { .. })), "{torn:?}");
}

#[test]
fn compressed_frames_fit_whatever_is_in_them() {
    for level in 1..=9 {
        let mut a = Connection::new(BlipConfig { compression_level: level, ..BlipConfig::default() });
        for seed in 0..4 {
            let body = noise(60_000, seed);
            // Bytes above 143 have the longest fixed codes.
            let body: Vec<u8> = if seed < 2 { body } else { body.iter().map(|byte| byte | 0x90).collect() };
            let message = OutgoingMessage { compressed: true, ..OutgoingMessage::default().with_body(body) };
            a.send_request(message).expect("queued");
        }
        while let Some(frame) = a.poll_frame() {
            assert!(frame.len() <= 16_384, "{} bytes at level {level}", frame.len());
        }
    }
}

#[test]
fn acknowledgements_of_whole_messages_do_not_pile_up() {
    let mut liar = Liar::new();
    let mut blip = connection();
    let half = vec![0; 60_000];
    for number in 1..=500 {
        // The first frame is acknowledged, if the peer ever reads; the second ends the message.
        for flags in [open_request(), request()] {
            blip.handle_frame(&liar.frame(number, flags.with_no_reply(true), &half))
                .expect("within the limits");
        }
        assert!(blip.poll_event().is_some());
    }
    blip.handle_frame(&liar.frame(501, open_request(), &half)).expect("within the limits");
    let acks: Vec<_> = std::iter::from_fn(|| blip.poll_frame()).collect();
    let numbers: Vec<u64> = acks.iter().map(|ack| Frame::parse(ack).expect("ours").header.number).collect();
    let expected: Vec<u64> = (1..=64).chain([501]).collect();
    assert_eq!(numbers, expected, "the first of those that are whole, and the one that is open");
}

#[test]
fn a_shared_budget_is_kept_and_given_back() {
    let budget = Budget::new(500_000);
    let config = BlipConfig { open_bytes_shared: Some(budget.clone()), ..BlipConfig::default() };
    let part = vec![0; 300_000];
    let (mut first, mut liar) = (Connection::new(config.clone()), Liar::new());
    for number in 1..=2 {
        first.handle_frame(&liar.frame(number, open_request(), &part)).expect("within the budget");
    }
    // Each connection has 256 KiB of its own.
    assert_eq!(budget.held(), 600_000 - 256 * 1024);
    let (mut second, mut other) = (Connection::new(config), Liar::new());
    second.handle_frame(&other.frame(1, open_request(), &part[..200_000])).expect("its own");
    second.handle_frame(&other.frame(2, request(), &part)).expect("a message in one frame costs nothing");
    second.handle_frame(&other.frame(3, open_request(), &part[..200_000])).expect("within the budget");
    let refused = second.handle_frame(&other.frame(4, open_request(), &part));
    assert_eq!(refused, Err(BlipError::SharedBytesUsedUp { max: 500_000 }));
    // A message that ends, and a connection that goes, give back.
    first.handle_frame(&liar.frame(2, request(), b"")).expect("its end");
    drop(second);
    assert_eq!(budget.held(), 300_000 - 256 * 1024);
    drop(first);
    assert_eq!(budget.held(), 0);
    // A budget is what its clones share, whatever its size.
    assert!(budget == budget.clone() && budget != Budget::new(500_000));
}

#[test]
fn a_bomb_within_a_longer_message_does_not_go_off() {
    let config = BlipConfig { message_size_max: 100_000, ..BlipConfig::default() };
    let (mut blip, mut liar) = (Connection::new(config), Liar::new());
    let compressed = open_request().with_compressed(true);
    blip.handle_frame(&liar.frame(1, compressed, &[0; 60_000])).expect("within the limits");
    let bomb = liar.frame(1, compressed, &vec![0; 50 << 20]);
    assert_eq!(blip.handle_frame(&bomb), Err(BlipError::MessageTooLarge { number: 1, max: 100_000 }));
}

/// Far below the limits nobody waits for anybody.
#[test]
fn long_messages_are_acknowledged_beside_each_other_while_there_is_room() {
    let (mut blip, mut liar) = (connection(), Liar::new());
    let part = vec![0; 60_000];
    for number in 1..=3 {
        blip.handle_frame(&liar.frame(number, open_request(), &part)).expect("within the limits");
    }
    let acks: Vec<_> = std::iter::from_fn(|| blip.poll_frame()).collect();
    let numbers: Vec<u64> = acks.iter().map(|ack| Frame::parse(ack).expect("ours").header.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

/// Messages that fit alone come to no limit together: of those that are long only the first goes on.
#[test]
fn long_messages_take_turns_where_together_they_would_be_too_much() {
    let config = BlipConfig {
        message_size_max: 1_000_000,
        open_bytes_max: 2_400_000,
        compression_level: 0,
        ..BlipConfig::default()
    };
    let (mut from, mut to) = (Connection::new(config.clone()), Connection::new(config));
    for n in 0..8 {
        from.send_request(message(if n % 4 == 3 { 100 } else { 900_000 })).expect("queued");
    }
    let mut whole = 0;
    loop {
        let frames: Vec<_> = std::iter::from_fn(|| from.poll_frame()).collect();
        if frames.is_empty() {
            break;
        }
        for frame in frames {
            to.handle_frame(&frame).expect("within all limits");
        }
        whole += std::iter::from_fn(|| to.poll_event()).count();
        while let Some(ack) = to.poll_frame() {
            from.handle_frame(&ack).expect("an acknowledgement");
        }
    }
    assert_eq!((whole, from.queued_bytes()), (8, 0));
}

/// What has been sent of a reply is in memory still, until all of it is: replies by turns are all there until the last turn.
#[test]
fn replies_count_whole_until_they_are_sent() {
    let mut liar = Liar::new();
    let mut blip = connection();
    let sizes = [60_000, 60_000, 200_000];
    for number in 1..=3 {
        blip.handle_frame(&liar.frame(number, request(), b"\0")).expect("within the limits");
        let Some(Event::Request(request)) = blip.poll_event() else { panic!("{number} is missing") };
        let reply = OutgoingMessage::default().with_body(vec![0; sizes[number as usize - 1]]);
        blip.reply(request.number, reply).expect("queued");
    }
    // A byte each for the length of the properties, which are none.
    let all: usize = sizes.iter().map(|size| size + 1).sum();
    let counts = |blip: &Connection| (blip.held_reply_bytes(), blip.sendable_reply_bytes());
    let mut frames = 0;
    while blip.queued_reply_messages() == 3 {
        assert_eq!(counts(&blip), (all, all), "{frames}");
        assert!(blip.poll_frame().is_some());
        frames += 1;
    }
    assert!(frames > 6, "all have begun");
    assert!(blip.poll_frame().is_some(), "the second ends");
    assert_eq!(counts(&blip), (200_001, 200_001));
    while blip.poll_frame().is_some() {}
    assert_eq!(counts(&blip), (200_001, 0), "it waits for an acknowledgement");
    let mut acknowledge = |bytes: u64| {
        let mut ack = Vec::new();
        FrameHeader { number: 3, flags: FrameFlags::ack(FrameType::AckReply) }.emit(&mut ack);
        super::super::varint::put(bytes, &mut ack);
        blip.handle_frame(&ack).expect("an acknowledgement");
        let before = counts(&blip);
        while blip.poll_frame().is_some() {}
        (before, counts(&blip))
    };
    assert_eq!(acknowledge(100_000), ((200_001, 200_001), (0, 0)));
}

/// What is queued is told apart: the peer makes the replies, this side the requests.
#[test]
fn what_is_queued_of_replies_is_told_apart() {
    let (mut liar, mut blip) = (Liar::new(), connection());
    blip.handle_frame(&liar.frame(1, request(), b"\0")).expect("within the limits");
    let Some(Event::Request(request)) = blip.poll_event() else { panic!("it is missing") };
    let message = |len| OutgoingMessage::default().with_body(vec![0; len]);
    blip.send_request(message(500)).expect("queued");
    blip.reply(request.number, message(40_000)).expect("queued");
    // A byte each for the length of the properties, which are none.
    let (mut queued, mut of_replies) = (40_502, 40_001);
    assert_eq!((blip.queued_bytes(), blip.queued_reply_bytes()), (queued, of_replies));
    while blip.poll_frame().is_some() {
        let (now, now_of_replies) = (blip.queued_bytes(), blip.queued_reply_bytes());
        let is_request = queued - now == 501 && now_of_replies == of_replies;
        assert!(is_request || queued - now == of_replies - now_of_replies, "a frame is of one message");
        (queued, of_replies) = (now, now_of_replies);
    }
    assert_eq!((queued, of_replies), (0, 0));
}
