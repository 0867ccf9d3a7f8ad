//! Two links and whatever can happen between them: an honest channel that loses, repeats, delays, cuts and lengthens
//! packets, and a stranger who puts in packets of his own, in every state of a link's life.

use std::collections::VecDeque;
use std::time::Duration;

use gattway::lab::link::{
    CloseReason, Link, LinkConfig, LinkRole, LinkState, PACKETS_IN_FLIGHT_MAX, PacketSize, peek_session,
};
use gattway::lab::time::Instant;

use super::super::choices::Choices;

const BUFFER_BYTES: usize = 2048;
/// Packets that a channel holds; the rest waits in the link, as behind a full socket.
const CHANNEL_PACKETS_MAX: usize = 160;
/// Packets that a link may give in one go: a window, its repetitions and a few words of control.
const BURST_PACKETS_MAX: usize = 2 * PACKETS_IN_FLIGHT_MAX as usize + 16;
const EVENTS_MAX: usize = 32;
/// Longer than any packet.
const ROOM: usize = 600;

type SmallLink = Link<BUFFER_BYTES, BUFFER_BYTES>;

struct World {
    links: [Box<SmallLink>; 2],
    /// Packets towards each end.
    wires: [VecDeque<Vec<u8>>; 2],
    /// The last few packets that an end has sent, for replays.
    seen: VecDeque<Vec<u8>>,
    now: Instant,
    written: [u64; 2],
    read: [u64; 2],
    /// A packet was changed or invented: the streams may say anything.
    forged: bool,
}

/// Byte `offset` of the stream that `end` writes.
fn stream_byte(end: usize, offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (end as u8) << 7
}

impl World {
    fn new(seed: u64) -> World {
        let link = |role, seed| Box::new(SmallLink::new(role, LinkConfig::default(), seed));
        World {
            links: [link(LinkRole::Central, seed), link(LinkRole::Peripheral, !seed)],
            wires: Default::default(),
            seen: VecDeque::new(),
            now: Instant::from_micros(1_000_000),
            written: [0; 2],
            read: [0; 2],
            forged: false,
        }
    }

    fn connect(&mut self, sizes: [u16; 2]) {
        self.wires.iter_mut().for_each(VecDeque::clear);
        // The peripheral first: it must be there when the HELLO comes.
        for end in [1, 0] {
            let size = PacketSize::try_new(20 + sizes[end] % 476).expect("20 to 495");
            self.links[end].connected(self.now, size);
            self.drain(end);
        }
    }

    /// Takes what a link has to give, and checks what always holds.
    fn drain(&mut self, end: usize) {
        let link = &mut self.links[end];
        let mut out = [0; ROOM];
        let mut sent = 0;
        while self.wires[1 - end].len() < CHANNEL_PACKETS_MAX {
            let Some(length) = link.poll_packet(self.now, &mut out) else { break };
            assert!((1..=495).contains(&length), "a packet of {length} bytes");
            self.wires[1 - end].push_back(out[..length].to_vec());
            self.seen.push_back(out[..length].to_vec());
            sent += 1;
            assert!(sent <= BURST_PACKETS_MAX, "packets without end");
        }
        self.seen.drain(..self.seen.len().saturating_sub(64));
        let events = std::iter::from_fn(|| link.poll_event()).take(EVENTS_MAX + 1).count();
        assert!(events <= EVENTS_MAX, "events without end");
        assert!(link.readable() <= BUFFER_BYTES && link.writable() <= BUFFER_BYTES);
        let stats = link.stats();
        assert!(stats.in_flight <= u16::from(PACKETS_IN_FLIGHT_MAX));
        assert!(stats.bytes_acknowledged <= self.written[end], "more acknowledged than was written");
        if !self.forged {
            assert!(stats.bytes_received <= self.written[1 - end], "more received than was sent");
        }
    }

    fn deliver(&mut self, end: usize, packet: &[u8]) {
        let before = self.links[end].state();
        let _ = peek_session(packet);
        if let Err(error) = self.links[end].handle_packet(self.now, packet) {
            let after = self.links[end].state();
            assert!(
                matches!(after, LinkState::Failed | LinkState::Suspended | LinkState::Closed),
                "{error} in {before:?} leads to {after:?}"
            );
            assert!(!error.to_string().is_empty());
        }
        self.drain(end);
    }

    fn write(&mut self, end: usize, count: usize) {
        let bytes: Vec<u8> = (0..count as u64).map(|n| stream_byte(end, self.written[end] + n)).collect();
        let room = self.links[end].writable();
        let taken = self.links[end].write(&bytes);
        assert!(taken <= room.min(count));
        self.written[end] += taken as u64;
        self.drain(end);
    }

    fn read(&mut self, end: usize, count: usize) {
        let mut buffer = vec![0; count];
        let readable = self.links[end].readable();
        let count = self.links[end].read(&mut buffer);
        assert_eq!(count, readable.min(buffer.len()));
        for &byte in &buffer[..count] {
            assert!(self.forged || byte == stream_byte(1 - end, self.read[end]), "at {}", self.read[end]);
            self.read[end] += 1;
        }
        self.drain(end);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for end in [0, 1] {
            self.links[end].handle_timeout(self.now);
            self.drain(end);
        }
    }

    /// Whatever has happened, a close ends in time.
    fn end(mut self) {
        for end in [0, 1] {
            let link = &mut self.links[end];
            link.close(self.now, CloseReason::Finished);
            let limit = self.now + Duration::from_secs(11);
            let mut steps = 0;
            while let Some(at) = link.poll_at() {
                assert!(at < limit, "a close has its time");
                steps += 1;
                assert!(steps < 4_000, "timers without end");
                // A driver cannot be woken in the past.
                let now = at.max(self.now) + Duration::from_micros(1);
                link.handle_timeout(now);
                while link.poll_packet(now, &mut [0; ROOM]).is_some() {}
                while link.poll_event().is_some() {}
            }
            assert!(link.state().is_final(), "{:?}", link.state());
        }
    }
}

/// A packet that someone made: of each layout, with free choice of all that stands in it.
fn invented(choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.below(5) {
        0 => choices.blob().to_vec(),
        1 => {
            let (kind, message) = (choices.byte() & 15, choices.blob());
            [&[b'G', b'W', kind << 4 | 15, message.len() as u8][..], message].concat()
        }
        2 => {
            let (kind, length, chunk) = (choices.byte(), choices.byte(), choices.take(16));
            [&[b'G', b'W', kind, length][..], chunk].concat()
        }
        3 => {
            let mut packet = vec![0x40 | choices.byte() & 1];
            packet.extend_from_slice(choices.take(6));
            packet.resize(7, 0);
            let bitmap = choices.take(choices.clone().below(36) + 1);
            packet.push(bitmap.len() as u8);
            packet.extend_from_slice(bitmap);
            packet
        }
        _ => {
            // A full data packet of the size that is in use, if it is this one.
            let (header, length) = (choices.take(3), 20 + usize::from(choices.u16() % 476));
            let mut packet = header.to_vec();
            packet.resize(length, 0x5a);
            packet[0] &= 0x3f;
            packet
        }
    }
}

fn step(world: &mut World, choices: &mut Choices<'_>) {
    let operation = choices.byte();
    let end = usize::from(operation >> 7);
    match operation & 15 {
        0..=2 => {
            for _ in 0..1 << (2 * (operation & 3)) {
                let Some(packet) = world.wires[end].pop_front() else { break };
                world.deliver(end, &packet);
            }
        }
        3 => {
            world.wires[end].pop_front();
        }
        4 => {
            if let Some(packet) = world.wires[end].front().cloned() {
                world.deliver(end, &packet);
            }
        }
        5 => {
            if let Some(packet) = world.wires[end].pop_front() {
                world.wires[end].push_back(packet);
            }
        }
        6 => {
            // Cut, or grown.
            if let Some(mut packet) = world.wires[end].pop_front() {
                packet.resize(packet.len() * choices.below(256) / 128, 0);
                world.deliver(end, &packet);
            }
        }
        7 | 8 => {
            world.forged = true;
            if let Some(mut packet) = world.wires[end].pop_front() {
                for _ in 0..=choices.below(3) {
                    let (place, change) = (choices.u16(), choices.byte());
                    let place = usize::from(place) % packet.len().max(1);
                    if let Some(byte) = packet.get_mut(place) {
                        *byte ^= change;
                    }
                }
                world.deliver(end, &packet);
            }
        }
        9 | 10 => {
            world.forged = true;
            let packet = invented(choices);
            world.deliver(end, &packet);
        }
        11 => world.write(end, choices.u16().into()),
        12 => world.read(end, choices.u16().into()),
        13 => {
            let steps = [1, 20, 50, 300, 2_000, 6_000, 16_000, 125_000];
            world.pass(Duration::from_millis(choices.pick(&steps)));
        }
        14 => match choices.below(4) {
            0 => {
                world.links[end].disconnected(world.now);
                world.drain(end);
            }
            1 => {
                world.links[end].close(world.now, CloseReason::Finished);
                world.drain(end);
            }
            _ => world.connect([choices.u16(), choices.u16()]),
        },
        _ => {
            // A packet of before, to either side.
            world.forged = true;
            let at = choices.below(64);
            if let Some(packet) = world.seen.get(at).cloned() {
                world.deliver(end, &packet);
            }
        }
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let mut world = World::new(choices.byte().into());
    world.connect([choices.u16(), choices.u16()]);
    while !choices.is_empty() {
        step(&mut world, &mut choices);
    }
    world.end();
}
