//! The harness: two links, the application on each side, and the channel between them.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;

use crate::link::{
    CloseReason, Link, LinkConfig, LinkError, LinkEvent, LinkRole, LinkState, PACKETS_IN_FLIGHT_MAX,
    PacketSize, SuspendCause,
};
use crate::time::Instant;

/// A small generator (SplitMix64): a seed gives the same run everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True in `permille` of 1,000 cases.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1000) < permille.into()
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Byte `offset` of the stream that end `end` writes.
fn stream_byte(end: usize, offset: u64) -> u8 {
    mix((offset << 1) + end as u64) as u8
}

/// What the channel does to packets, in parts per thousand.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub loss: u32,
    pub duplicate: u32,
    pub truncate: u32,
    pub grow: u32,
    /// A packet of this share is late by up to `jitter`, and so overtaken.
    pub reorder_window: u32,
    pub jitter: Duration,
    pub latency: Duration,
    /// Time that a packet occupies the channel.
    pub packet_time: Duration,
    /// Packets that wait in front of the channel before the sender has to: the buffers of host and controller.
    pub buffered: u32,
}

impl Faults {
    pub const NONE: Faults = Faults {
        loss: 0,
        duplicate: 0,
        truncate: 0,
        grow: 0,
        reorder_window: 0,
        jitter: Duration::ZERO,
        latency: Duration::from_millis(15),
        packet_time: Duration::from_micros(1400),
        buffered: 0,
    };

    /// From when on a channel that is busy until `free_at` takes another packet.
    fn takes_at(&self, free_at: Instant) -> Instant {
        let waiting = self.packet_time * self.buffered;
        Instant::from_micros(free_at.as_micros().saturating_sub(waiting.as_micros() as u64))
    }
}

/// One direction of the channel.
#[derive(Debug, Default)]
struct Wire {
    /// By time of arrival.
    packets: VecDeque<(Instant, Vec<u8>)>,
    free_at: Instant,
    /// The link was cut short because the channel was busy.
    waits: bool,
}

impl Wire {
    fn insert(&mut self, at: Instant, packet: Vec<u8>) {
        let place = self.packets.partition_point(|(other, _)| *other <= at);
        self.packets.insert(place, (at, packet));
    }
}

/// One side: the link and its application.
pub struct End<const TX: usize, const RX: usize> {
    pub link: Box<Link<TX, RX>>,
    /// Bytes to write in all, and written so far.
    pub to_write: u64,
    pub written: u64,
    pub read: u64,
    /// The application reads nothing before this.
    pub stalled_until: Instant,
    pub events: Vec<LinkEvent>,
}

impl<const TX: usize, const RX: usize> End<TX, RX> {
    pub fn use_stream(&mut self, end: usize, now: Instant) {
        let mut buffer = [0u8; 997];
        while self.written < self.to_write && self.link.writable() > 0 {
            let writable = self.link.writable().min(buffer.len() - 1) as u64 + 1;
            let count = (self.to_write - self.written).min(writable) as usize;
            for (place, byte) in buffer[..count].iter_mut().enumerate() {
                *byte = stream_byte(end, self.written + place as u64);
            }
            let taken = self.link.write(&buffer[..count]);
            self.written += taken as u64;
            if taken < count {
                break;
            }
        }
        assert!(self.link.readable() <= RX, "more than the receive buffer holds");
        while now >= self.stalled_until && self.link.readable() > 0 {
            let count = self.link.read(&mut buffer);
            for byte in &buffer[..count] {
                assert_eq!(
                    *byte,
                    stream_byte(1 - end, self.read),
                    "end {end}: wrong byte at offset {}",
                    self.read
                );
                self.read += 1;
            }
        }
        let told = |event: &LinkEvent| !matches!(event, LinkEvent::Readable | LinkEvent::Writable);
        self.events.extend(core::iter::from_fn(|| self.link.poll_event()).filter(told));
    }
}

/// Central, peripheral, and what is between them.
pub struct Pair<const TX: usize = 65536, const RX: usize = 65536> {
    pub ends: [End<TX, RX>; 2],
    wires: [Wire; 2],
    pub now: Instant,
    /// When something was done last; `now` is when something will be due.
    pub last: Instant,
    config: LinkConfig,
    pub random: Random,
    pub faults: Faults,
    pub size: PacketSize,
    pub connected: bool,
    /// When the connection comes back by itself after it was lost.
    pub reconnect_after: Option<Duration>,
    reconnect_at: Option<Instant>,
    /// When a connection that an end has given up is cut.
    cut_at: Option<Instant>,
    /// The most data packets seen in one direction of the channel.
    pub most_in_channel: usize,
    /// Sees, and may change, each packet that the end of this number sends; `false`: it vanishes.
    pub tap: fn(usize, &mut Vec<u8>) -> bool,
    /// What the ends said about packets; an error fails the test unless it is expected.
    pub errors: Vec<(usize, LinkError)>,
    pub expect_errors: bool,
}

impl<const TX: usize, const RX: usize> fmt::Debug for Pair<TX, RX> {
    /// What one looks at first after a failure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "at {}, size {:?}, connected {}, {:?}",
            self.now, self.size, self.connected, self.faults
        )?;
        for end in &self.ends {
            let (link, read) = (&end.link, end.read);
            writeln!(f, "{:?}: {}/{} written, {read} read", link.state(), end.written, end.to_write)?;
            writeln!(f, "  due {:?}, {:?}\n  {:?}", link.poll_at(), link.stats(), end.events)?;
        }
        Ok(())
    }
}

/// Time for the last words of an end that gives up a connection.
const FAREWELL: Duration = Duration::from_millis(100);
const START: Instant = Instant::from_micros(1_000_000);
pub const CENTRAL: usize = 0;
pub const PERIPHERAL: usize = 1;

impl<const TX: usize, const RX: usize> Pair<TX, RX> {
    pub fn new(seed: u64, faults: Faults, size: u16) -> Self {
        Pair::with_config(seed, faults, size, LinkConfig::default())
    }

    pub fn with_config(seed: u64, faults: Faults, size: u16, config: LinkConfig) -> Self {
        let mut pair = Pair::apart(seed, faults, size, config);
        pair.connect();
        pair
    }

    /// Central and peripheral speak no later version than these.
    pub fn with_versions(seed: u64, faults: Faults, size: u16, versions: [u8; 2]) -> Self {
        let mut pair = Pair::apart(seed, faults, size, LinkConfig::default());
        for (end, version) in pair.ends.iter_mut().zip(versions) {
            end.link.version_max = version;
        }
        pair.connect();
        pair
    }

    fn apart(seed: u64, faults: Faults, size: u16, config: LinkConfig) -> Self {
        let end = |role| End {
            link: Box::new(Link::new(role, config, mix(seed ^ role as u64))),
            to_write: 0,
            written: 0,
            read: 0,
            stalled_until: Instant::ZERO,
            events: Vec::new(),
        };
        Pair {
            ends: [end(LinkRole::Central), end(LinkRole::Peripheral)],
            wires: Default::default(),
            now: START,
            last: START,
            config,
            random: Random(seed),
            faults,
            size: PacketSize::try_new(size).expect("a packet size"),
            connected: false,
            reconnect_after: Some(Duration::from_millis(300)),
            reconnect_at: None,
            cut_at: None,
            most_in_channel: 0,
            tap: |_, _| true,
            errors: Vec::new(),
            expect_errors: false,
        }
    }

    /// A transport appears on both sides; nothing of an earlier one is left in it.
    pub fn connect(&mut self) {
        self.cut_at = None;
        self.wires = Default::default();
        self.connected = true;
        self.reconnect_at = None;
        if self.ends[PERIPHERAL].events == [LinkEvent::Failed(LinkError::ConnectionLost)] {
            // Gone before the handshake: the driver of a peripheral makes a new link for each new central.
            let seed = self.random.next();
            *self.ends[PERIPHERAL].link = Link::new(LinkRole::Peripheral, self.config, seed);
            self.ends[PERIPHERAL].written = 0;
            self.ends[PERIPHERAL].events.clear();
        }
        for end in [PERIPHERAL, CENTRAL] {
            self.ends[end].link.connected(self.now, self.size);
        }
    }

    /// The central loses the radio and comes back, and the peripheral notices nothing.
    pub fn reconnect_central_alone(&mut self) {
        self.wires = Default::default();
        let now = self.now;
        self.ends[CENTRAL].link.disconnected(now);
        self.ends[CENTRAL].link.connected(now, self.size);
    }

    /// The radio is lost: both sides notice.
    pub fn cut(&mut self) {
        self.cut_at = None;
        self.wires = Default::default();
        self.connected = false;
        for end in &mut self.ends {
            end.link.disconnected(self.now);
        }
        self.reconnect_at = self.reconnect_after.map(|after| self.now + after);
    }

    pub fn close(&mut self, end: usize, reason: CloseReason) {
        self.ends[end].link.close(self.now, reason);
    }

    /// Does all that is due now, then moves the clock to what is due next. `false` when nothing ever will be.
    pub fn step(&mut self) -> bool {
        self.last = self.now;
        for end in [CENTRAL, PERIPHERAL] {
            self.deliver(end);
            let now = self.now;
            let side = &mut self.ends[end];
            if side.link.poll_at().is_some_and(|at| at <= now) {
                side.link.handle_timeout(now);
                assert!(
                    side.link.poll_at().is_none_or(|at| at > now),
                    "a timer that was handled is still due"
                );
            }
            let seen = side.events.len();
            side.use_stream(end, now);
            let lost = side.events[seen..].iter().any(|event| match event {
                LinkEvent::Suspended(SuspendCause::ConnectionLost) => false,
                LinkEvent::Suspended(_) => true,
                _ => false,
            });
            self.transmit(end);
            self.ends[end].use_stream(end, now);
            if lost && self.connected && self.cut_at.is_none() {
                self.cut_at = Some(self.now + FAREWELL);
            }
        }
        match self.next_at() {
            Some(at) => self.now = at.max(self.now + Duration::from_micros(1)),
            None => return false,
        }
        if self.cut_at.is_some_and(|at| at <= self.now) {
            self.cut();
        }
        if self.reconnect_at.is_some_and(|at| at <= self.now) {
            self.connect();
        }
        true
    }

    fn next_at(&self) -> Option<Instant> {
        let timers = self.ends.iter().filter_map(|end| end.link.poll_at());
        let stalls = self.ends.iter().map(|end| end.stalled_until).filter(|until| *until > self.now);
        let arrivals = self.wires.iter().filter_map(|wire| wire.packets.front().map(|(at, _)| *at));
        let free = self.wires.iter().filter(|wire| wire.waits).map(|wire| self.faults.takes_at(wire.free_at));
        timers.chain(stalls).chain(arrivals).chain(free).chain(self.reconnect_at).chain(self.cut_at).min()
    }

    /// What has arrived for `end`.
    fn deliver(&mut self, end: usize) {
        while let Some((at, _)) = self.wires[1 - end].packets.front()
            && *at <= self.now
        {
            let Some((_, packet)) = self.wires[1 - end].packets.pop_front() else { return };
            let now = self.now;
            if let Err(error) = self.ends[end].link.handle_packet(now, &packet) {
                assert!(self.expect_errors, "end {end} at {now}: an honest peer is blamed: {error}");
                self.errors.push((end, error));
            }
        }
    }

    /// What `end` has to send, as far as the channel takes it.
    fn transmit(&mut self, end: usize) {
        self.wires[end].waits = false;
        let mut out = [0u8; 495];
        while self.connected {
            if self.faults.takes_at(self.wires[end].free_at) > self.now {
                self.wires[end].waits = true;
                return;
            }
            let wanted = self.ends[end].link.wants_poll();
            let Some(length) = self.ends[end].link.poll_packet(self.now, &mut out) else { return };
            assert!(wanted, "a driver that is not woken now would leave a packet unsent");
            assert!(length <= self.size.bytes(), "a packet larger than the connection carries");
            let in_flight = self.ends[end].link.stats().in_flight;
            assert!(in_flight <= PACKETS_IN_FLIGHT_MAX.into(), "{in_flight} packets in flight");
            self.put(end, out[..length].to_vec());
        }
    }

    /// Puts a packet into the channel, which does what it does to packets.
    fn put(&mut self, end: usize, mut packet: Vec<u8>) {
        let faults = self.faults;
        let free_at = self.wires[end].free_at.max(self.now) + faults.packet_time;
        self.wires[end].free_at = free_at;
        if !(self.tap)(end, &mut packet) {
            return;
        }
        if self.random.chance(faults.loss) {
            return;
        }
        if self.random.chance(faults.truncate) {
            packet.truncate(self.random.below(packet.len() as u64) as usize);
        } else if self.random.chance(faults.grow) {
            let more = 1 + self.random.below(30);
            packet.extend((0..more).map(|byte| byte as u8));
        }
        let copies = if self.random.chance(faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = free_at + faults.latency;
            if self.random.chance(faults.reorder_window) {
                at = at + Duration::from_micros(self.random.below(faults.jitter.as_micros() as u64));
            }
            self.wires[end].insert(at, packet.clone());
        }
        let data = |packet: &Vec<u8>| packet.first().is_some_and(|first| first >> 6 != 1);
        let count = self.wires[end].packets.iter().filter(|(_, packet)| data(packet)).count();
        self.most_in_channel = self.most_in_channel.max(count);
    }

    /// Steps until `done`, which must be within `limit` of virtual time.
    pub fn run_until(&mut self, limit: Duration, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            let goes_on = self.step();
            assert!(goes_on || done(self), "nothing is ever going to happen, but not yet: {what}: {self:#?}");
            assert!(self.last < end, "not within {limit:?}: {what}: {self:#?}");
        }
    }

    /// Steps for a time.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.step() {}
    }

    pub fn both(&self, state: LinkState) -> bool {
        self.ends.iter().all(|end| end.link.state() == state)
    }

    pub fn both_final(&self) -> bool {
        self.ends.iter().all(|end| end.link.state().is_final())
    }

    /// All that was to be written has been read on the other side, and both sides know.
    pub fn all_across(&self) -> bool {
        let [central, peripheral] = &self.ends;
        central.to_write == peripheral.read
            && peripheral.to_write == central.read
            && central.link.is_flushed()
            && peripheral.link.is_flushed()
    }

    pub fn establish(&mut self) {
        self.run_until(Duration::from_secs(60), "established", |pair| pair.both(LinkState::Established));
    }
}
