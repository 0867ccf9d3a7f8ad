//! Replies that are given and taken in parts.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::*;
use super::noise;

/// Bodies of replies of any length, given in pieces of any length while other messages go both ways, arrive as they were; neither side
/// ever holds more of one than a few pieces.
#[test]
fn replies_in_parts_arrive_as_they_were() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let level = *random.choice(&[0, 6]).unwrap_or(&0);
        let config =
            BlipConfig { compression_level: level, message_size_max: 40_000, ..BlipConfig::default() };
        let (mut a, mut b) = (Connection::new(config.clone()), Connection::new(config));
        let sizes: Vec<usize> = (0..random.usize(1..6)).map(|_| random.usize(0..700_000)).collect();
        let bodies: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| noise(*size, n as u64)).collect();
        let mut asked = Vec::new();
        for n in 0..bodies.len() {
            let ask = OutgoingMessage::request("get").with("n", &n.to_string());
            asked.push(a.send_request_for_parts(ask).expect("queued"));
        }
        let mut given: BTreeMap<MessageNumber, usize> = BTreeMap::new();
        let mut came: BTreeMap<MessageNumber, (Vec<u8>, Option<Properties>, bool)> = BTreeMap::new();
        let (mut others, mut frame) = (0, Vec::new());
        loop {
            let mut moved = false;
            if random.u8(..) < 40 && others < 30 {
                b.send_request(
                    OutgoingMessage::request("other").with_body(noise(random.usize(0..20_000), 9)),
                )
                .expect("queued");
                others += 1;
            }
            if a.poll_frame_into(&mut frame) {
                b.handle_frame(&frame).expect("a frame of ours");
                moved = true;
            }
            while let Some(Event::Request(request)) = b.poll_event() {
                let n: usize = request.properties.get("n").expect("a number").parse().expect("a number");
                let first = random.usize(0..=bodies[n].len().min(30_000));
                let message = OutgoingMessage {
                    compressed: random.bool(),
                    ..OutgoingMessage::default()
                        .with("n", &n.to_string())
                        .with_body(bodies[n][..first].to_vec())
                };
                b.reply_in_parts(request.number, message, (bodies[n].len() - first) as u64).expect("queued");
                given.insert(request.number, first);
            }
            while let Some(number) = b.hungry() {
                let at = given.get_mut(&number).expect("it has begun");
                let body = &bodies[number.0 as usize - 1];
                let more = random.usize(1..=30_000).min(body.len() - *at);
                assert!(more > 0, "nothing is to follow of {number}");
                b.give(number, Bytes::copy_from_slice(&body[*at..*at + more]));
                *at += more;
                moved = true;
            }
            assert!(b.held_reply_bytes() <= bodies.len() * 31_000, "seed {seed}: {}", b.held_reply_bytes());
            if b.poll_frame_into(&mut frame) {
                a.handle_frame(&frame).expect("a frame of ours");
                moved = true;
            }
            while let Some(event) = a.poll_event() {
                match event {
                    Event::ReplyPart { number, properties, body } => {
                        assert!(body.len() <= 40_000);
                        let (bytes, known, is_whole) = came.entry(number).or_default();
                        assert!(!*is_whole && (known.is_none() == properties.is_some()));
                        *known = properties.or(known.take());
                        bytes.extend_from_slice(&body);
                    }
                    Event::Reply { number, result } => {
                        let reply = result.expect("a reply");
                        let (bytes, known, is_whole) = came.entry(number).or_default();
                        bytes.extend_from_slice(&reply.body);
                        known.get_or_insert(reply.properties);
                        *is_whole = true;
                    }
                    Event::Request(_) => {}
                }
            }
            if !moved && others >= 30 {
                break;
            }
        }
        assert_eq!(came.len(), bodies.len(), "seed {seed}");
        for (n, body) in bodies.iter().enumerate() {
            let (bytes, properties, is_whole) = &came[&asked[n]];
            assert!(*is_whole && bytes == body, "seed {seed}: reply {n} of {} bytes", body.len());
            assert_eq!(properties.as_ref().and_then(|p| p.get("n")), Some(&*n.to_string()));
        }
        assert_eq!(
            (a.awaiting_replies(), b.queued_messages(), b.queued_bytes(), b.held_reply_bytes()),
            (0, 0, 0, 0)
        );
    }
}

/// Bytes that nobody waits for, or more than are to follow, change nothing.
#[test]
fn only_a_hungry_reply_takes_bytes() {
    let (mut a, mut b) = (super::connection(), super::connection());
    let number = a.send_request_for_parts(OutgoingMessage::request("get")).expect("queued");
    super::carry(&mut a, &mut b);
    b.reply_in_parts(number, OutgoingMessage::default().with_body(&b"ab"[..]), 3).expect("queued");
    b.give(number, Bytes::from_static(b"x"));
    assert_eq!(b.hungry(), None);
    super::carry(&mut b, &mut a);
    assert_eq!(b.hungry(), Some(number));
    b.give(MessageNumber(2), Bytes::from_static(b"x"));
    b.give(number, Bytes::from_static(b"long"));
    b.give(number, Bytes::new());
    assert_eq!((b.hungry(), b.queued_bytes()), (Some(number), 0));
    b.give(number, Bytes::from_static(b"cde"));
    super::carry(&mut b, &mut a);
    let mut body = Vec::new();
    while let Some(event) = a.poll_event() {
        match event {
            Event::ReplyPart { body: part, .. } => body.extend_from_slice(&part),
            Event::Reply { result, .. } => body.extend_from_slice(&result.expect("a reply").body),
            Event::Request(_) => {}
        }
    }
    assert_eq!(body, b"abcde");
}
