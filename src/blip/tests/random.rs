//! Random conversations, random damage.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::config::FRAME_SIZE_MAX;
use super::*;
use crate::endpoint::ProtocolType;
use crate::endpoint::framing::{Framing, FramingEvent, FramingRole};

#[derive(Clone, Debug)]
struct Request {
    len: usize,
    noisy: bool,
    compressed: bool,
    urgent: bool,
    no_reply: bool,
    reply_len: usize,
}

fn request() -> impl Strategy<Value = Request> {
    let len = || prop_oneof![6 => 0usize..500, 2 => 0usize..40_000, 1 => 0usize..400_000];
    (len(), any::<[bool; 4]>(), len()).prop_map(|(len, [noisy, compressed, urgent, no_reply], reply_len)| {
        Request { len, noisy, compressed, urgent, no_reply, reply_len }
    })
}

impl Request {
    fn body(&self, len: usize, seed: u64) -> Bytes {
        if self.noisy {
            return noise(len, seed).into();
        }
        (0..len).map(|i| b"temperature:-12.5,"[(i + seed as usize) % 18]).collect()
    }

    fn message(&self, seed: u64) -> OutgoingMessage {
        OutgoingMessage {
            properties: Properties::of_profile("test").with("seed", &seed.to_string()),
            body: self.body(self.len, seed),
            compressed: self.compressed,
            urgent: self.urgent,
            no_reply: self.no_reply,
        }
    }

    fn answer(&self, seed: u64) -> OutgoingMessage {
        OutgoingMessage {
            properties: Properties::new().with("re", &seed.to_string()),
            body: self.body(self.reply_len, seed + 1),
            ..self.message(seed)
        }
    }
}

/// One side: what it has still to ask, and what it expects.
struct Peer {
    blip: Connection,
    framing: Framing,
    wire: VecDeque<u8>,
    to_ask: VecDeque<(u64, Request)>,
    asked: HashMap<MessageNumber, (u64, Request)>,
    replies: usize,
    expected_requests: VecDeque<(u64, Request)>,
}

impl Peer {
    fn new(role: FramingRole, level: u32, ask: &[Request], other: &[Request], seed: u64) -> Peer {
        let seeded = |requests: &[Request], base: u64| {
            requests.iter().cloned().enumerate().map(|(i, request)| (base + i as u64, request)).collect()
        };
        Peer {
            blip: Connection::new(BlipConfig { compression_level: level, ..BlipConfig::default() }),
            framing: Framing::new(role, ProtocolType::ByteStream),
            wire: VecDeque::new(),
            to_ask: seeded(ask, seed),
            asked: HashMap::new(),
            replies: 0,
            // The seeds of the other side's requests are those it was given.
            expected_requests: seeded(other, 1_000 - seed),
        }
    }

    fn ask_one(&mut self) {
        let Some((seed, request)) = self.to_ask.pop_front() else { return };
        let number = self.blip.send_request(request.message(seed)).expect("queued");
        if !request.no_reply {
            self.asked.insert(number, (seed, request));
        }
    }

    fn send_one(&mut self, mask: [u8; 4]) {
        let Some(frame) = self.blip.poll_frame() else { return };
        assert!(frame.len() <= FRAME_SIZE_MAX, "{} bytes in a frame", frame.len());
        let mut wire = Vec::new();
        self.framing.encode_frame_into(&frame, mask, &mut wire);
        self.wire.extend(wire);
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.framing.handle_bytes(bytes).expect("valid bytes");
        while let Some(FramingEvent::Frame(frame)) = self.framing.poll_event() {
            self.blip.handle_frame(&frame).expect("a valid frame");
            while let Some(event) = self.blip.poll_event() {
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request(request) => {
                let seed: u64 = request.properties.get("seed").and_then(|s| s.parse().ok()).expect("seed");
                // Long requests may end after later ones.
                let place =
                    self.expected_requests.iter().position(|(s, _)| *s == seed).expect("expected once");
                let (_, expected) = self.expected_requests.remove(place).expect("found");
                assert_eq!(request.body, expected.body(expected.len, seed));
                assert_eq!((request.urgent, request.no_reply), (expected.urgent, expected.no_reply));
                self.blip.reply(request.number, expected.answer(seed)).expect("replied");
            }
            Event::Reply { number, result } => {
                let (seed, request) = self.asked.remove(&number).expect("asked once");
                let reply = result.expect("no error");
                assert_eq!(reply.properties, request.answer(seed).properties);
                assert_eq!(reply.body, request.body(request.reply_len, seed + 1));
                self.replies += 1;
            }
            Event::ReplyPart { .. } => panic!("nothing was asked for in parts"),
        }
    }

    fn finished(&self) -> bool {
        self.to_ask.is_empty()
            && self.asked.is_empty()
            && self.expected_requests.is_empty()
            && self.blip.queued_messages() == 0
            && self.wire.is_empty()
    }
}

/// Moves up to `len` bytes from one side's wire to the other side.
fn deliver(from: &mut Peer, to: &mut Peer, len: usize) {
    let len = len.min(from.wire.len());
    let bytes: Vec<u8> = from.wire.drain(..len).collect();
    to.receive(&bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_conversations_arrive_whole(
        a_asks in vec(request(), 0..30),
        b_asks in vec(request(), 0..30),
        levels in (0u32..=9, 0u32..=9),
        seed: u64,
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut a = Peer::new(FramingRole::Active, levels.0, &a_asks, &b_asks, 0);
        let mut b = Peer::new(FramingRole::Passive, levels.1, &b_asks, &a_asks, 1_000);
        let mut steps = 0;
        while !(a.finished() && b.finished()) {
            steps += 1;
            prop_assert!(steps < 1_000_000, "stuck");
            let (one, other) = if random.bool() { (&mut a, &mut b) } else { (&mut b, &mut a) };
            match random.u8(..8) {
                0 => one.ask_one(),
                1..=3 => one.send_one(random.u32(..).to_ne_bytes()),
                4 => deliver(one, other, random.usize(1..20)),
                _ => deliver(one, other, random.usize(1..20_000)),
            }
        }
        prop_assert_eq!(a.replies, a_asks.iter().filter(|r| !r.no_reply).count());
        prop_assert_eq!(b.replies, b_asks.iter().filter(|r| !r.no_reply).count());
        for peer in [&a, &b] {
            prop_assert_eq!((peer.blip.queued_bytes(), peer.blip.unanswered_requests()), (0, 0));
        }
    }

    #[test]
    fn arbitrary_frames_never_panic(frames in vec(vec(any::<u8>(), 0..40), 1..20)) {
        let mut blip = connection();
        blip.send_request(message(100)).expect("queued");
        let _ = blip.poll_frame();
        for frame in &frames {
            let failed = blip.failure().is_some();
            let result = blip.handle_frame(frame);
            prop_assert_eq!(result.is_err(), blip.failure().is_some());
            prop_assert!(!failed || matches!(result, Err(BlipError::Failed(_))));
        }
    }

    #[test]
    fn damage_is_found(
        requests in vec(request(), 1..6),
        at: prop::sample::Index,
        byte: prop::sample::Index,
        bit in 0u8..8,
    ) {
        let (mut a, mut b) = (connection(), connection());
        for (i, request) in requests.iter().enumerate() {
            a.send_request(request.message(i as u64)).expect("queued");
        }
        let mut frames: Vec<Vec<u8>> = std::iter::from_fn(|| a.poll_frame()).collect();
        let mut twin = connection();
        frames.iter().for_each(|frame| twin.handle_frame(frame).expect("a frame of ours"));
        let expected: Vec<Event> = std::iter::from_fn(|| twin.poll_event()).collect();
        let at = at.index(frames.len());
        let header_len = 2;
        let place = header_len + byte.index(frames[at].len() - header_len);
        frames[at][place] ^= 1 << bit;
        let result = frames.iter().try_for_each(|frame| b.handle_frame(frame));
        // The damage is in payload or checksum, so the running checksum or the deflate stream must break at once; only
        // the few bits that fill up the last byte of a compressed payload mean nothing.
        match result {
            Err(BlipError::BadChecksum { .. } | BlipError::BadDeflate { .. } | BlipError::MessageTooLarge { .. }) => {}
            Ok(()) => {
                let unharmed: Vec<Event> = std::iter::from_fn(|| b.poll_event()).collect();
                prop_assert_eq!(unharmed, expected);
                return Ok(());
            }
            result => prop_assert!(false, "{:?}", result),
        }
        prop_assert_eq!(b.poll_frame(), None, "a failed connection is silent");
    }
}
