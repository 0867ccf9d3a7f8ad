//! One connection: anchor points, connection events, exchanges. Tells the [`super::air::Radio`] what each step brought.

use std::collections::VecDeque;
use std::time::Duration;

use super::end::{End, Pdu, Transmission};
use super::phy::T_IFS;
use super::types::{
    Change, ConnectionCounters, ConnectionId, ConnectionParameters, ConnectionSetup, LossCause, NodeId, Path,
    RadioEvent, Side,
};
use crate::time::Instant;

/// Events without a single PDU after which a new connection is given up (Core 5.2, Vol 6, Part B, 4.5.2).
const ESTABLISH_EVENTS: u32 = 6;
/// PDUs with a bad CRC in a row that close an event (4.5.6).
const CRC_ERRORS_CLOSE_EVENT: u8 = 2;

/// What a connection does at its next step.
enum Phase {
    /// Waits for the anchor point.
    Anchor,
    /// A PDU from `from` is on air until the step.
    OnAir { from: Side, transmission: Transmission, lost: bool },
    /// The central sends its next PDU of the event at the step.
    NextExchange,
}

pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) central: End,
    pub(super) peripheral: End,
    parameters: ConnectionParameters,
    pub(super) encrypted: bool,
    event_length_max: Option<Duration>,
    exchanges_per_event_max: Option<u16>,
    phase: Phase,
    /// When the next step is due.
    pub(super) next: Instant,
    /// The next anchor point that has not passed.
    pub(super) anchor: Instant,
    event_started: Instant,
    pub(super) event_counter: u32,
    skipped: u16,
    peripheral_sleeps: bool,
    crc_errors: u8,
    exchanges: u16,
    central_has_more: bool,
    established: bool,
    changes: Vec<(u32, Change)>,
    pub(super) events: u64,
    pub(super) events_missed: u64,
}

/// What a connection needs to know of its surroundings for one step.
pub(super) struct Surroundings<'a> {
    pub(super) now: Instant,
    pub(super) path: Path,
    /// One of the two nodes is in an event of another connection.
    pub(super) busy: bool,
    /// When the nearest anchor point of another connection of these nodes comes.
    pub(super) others_anchor: Option<Instant>,
    pub(super) rng: &'a mut fastrand::Rng,
    pub(super) events: &'a mut VecDeque<RadioEvent>,
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        nodes: [NodeId; 2],
        setup: &ConnectionSetup,
        now: Instant,
        anchor: Instant,
    ) -> Connection {
        let end = |node| End::new(node, setup.data_length, setup.phy, now);
        Connection {
            id,
            central: end(nodes[0]),
            peripheral: end(nodes[1]),
            parameters: setup.parameters,
            encrypted: setup.encrypted,
            event_length_max: setup.event_length_max,
            exchanges_per_event_max: setup.exchanges_per_event_max,
            phase: Phase::Anchor,
            next: anchor,
            anchor,
            event_started: anchor,
            event_counter: 0,
            skipped: 0,
            peripheral_sleeps: false,
            crc_errors: 0,
            exchanges: 0,
            central_has_more: false,
            established: false,
            changes: Vec::new(),
            events: 0,
            events_missed: 0,
        }
    }

    pub(super) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Central => &mut self.central,
            Side::Peripheral => &mut self.peripheral,
        }
    }

    pub(super) fn uses(&self, node: NodeId) -> bool {
        self.central.node == node || self.peripheral.node == node
    }

    pub(super) fn in_event(&self) -> bool {
        !matches!(self.phase, Phase::Anchor)
    }

    pub(super) fn parameters(&self) -> ConnectionParameters {
        self.parameters
    }

    pub(super) fn counters(&self) -> ConnectionCounters {
        ConnectionCounters {
            central: self.central.counters,
            peripheral: self.peripheral.counters,
            events: self.events,
            events_missed: self.events_missed,
        }
    }

    pub(super) fn schedule(&mut self, event_counter: u32, change: Change) {
        self.changes.push((event_counter, change));
    }

    /// One step: an anchor point, the end of a PDU or the start of the next. True: the connection is lost for all.
    pub(super) fn step(&mut self, mut at: Surroundings<'_>) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Anchor) {
            Phase::Anchor => return self.anchor_point(at),
            Phase::NextExchange => self.send(Side::Central, at.now, &mut at),
            Phase::OnAir { from, transmission, lost } => self.pdu_ends(from, transmission, lost, at),
        }
        false
    }

    fn anchor_point(&mut self, mut at: Surroundings<'_>) -> bool {
        self.event_counter = self.event_counter.wrapping_add(1);
        self.make_changes(at.events);
        self.event_started = at.now;
        self.anchor = self.anchor + self.parameters.interval;
        self.next = self.anchor;
        if let Some(cause) = self.loss_cause(at.now) {
            for side in [Side::Central, Side::Peripheral] {
                if !self.end(side).silent {
                    at.events.push_back(RadioEvent::Lost { connection: self.id, side, cause });
                }
            }
            return true;
        }
        if at.busy || !at.path.reachable || self.central.silent {
            self.events_missed += 1;
            return false;
        }
        self.events += 1;
        self.crc_errors = 0;
        self.exchanges = 0;
        self.choose_sleep();
        self.send(Side::Central, at.now, &mut at);
        false
    }

    fn make_changes(&mut self, events: &mut VecDeque<RadioEvent>) {
        let counter = self.event_counter;
        let (due, later): (Vec<_>, Vec<_>) =
            self.changes.drain(..).partition(|(instant, _)| *instant <= counter);
        self.changes = later;
        for (_, change) in due {
            match change {
                Change::Parameters(parameters) => self.parameters = parameters,
                Change::Phy { central, peripheral } => {
                    (self.central.phy, self.peripheral.phy) = (central, peripheral)
                }
            }
            events.push_back(RadioEvent::Changed { connection: self.id, change });
        }
    }

    fn loss_cause(&self, now: Instant) -> Option<LossCause> {
        if !self.established {
            return (self.event_counter > ESTABLISH_EVENTS).then_some(LossCause::NotEstablished);
        }
        // An end that is itself silent has no clock to run out.
        let silence = |end: &End| if end.silent { Duration::ZERO } else { now - end.last_received };
        let longest = silence(&self.central).max(silence(&self.peripheral));
        (longest > self.parameters.supervision_timeout).then_some(LossCause::SupervisionTimeout)
    }

    /// Puts the PDU of `from` on air at `start`.
    fn send(&mut self, from: Side, start: Instant, at: &mut Surroundings<'_>) {
        let encrypted = self.encrypted;
        let end = self.end(from);
        let transmission = end.transmit();
        let octets = transmission.pdu.octets();
        let air_time = end.phy.air_time(octets, encrypted);
        let on_air = end.phy.octets_on_air(octets, encrypted);
        let chance = 1.0 - (1.0 - at.path.loss) * (1.0 - end.phy.loss_at(at.path.rssi_dbm, on_air));
        let lost = chance > 0.0 && at.rng.f64() < chance;
        let counters = &mut end.counters;
        counters.pdus += 1;
        counters.empty_pdus += u64::from(octets == 0);
        counters.lost_pdus += u64::from(lost);
        counters.air_octets += on_air as u64;
        counters.air_time_us += air_time.as_micros() as u64;
        if from == Side::Central {
            self.central_has_more = transmission.more;
        }
        self.phase = Phase::OnAir { from, transmission, lost };
        self.next = start + air_time;
    }

    /// The PDU of `from` has ended: the other end acts on it and answers, or the event goes on or closes.
    fn pdu_ends(&mut self, from: Side, transmission: Transmission, lost: bool, mut at: Surroundings<'_>) {
        let to = from.other();
        let asleep = to == Side::Peripheral && self.peripheral_sleeps;
        let heard = at.path.reachable && !self.end(to).silent && !asleep;
        let more = transmission.more;
        self.crc_errors = if lost { self.crc_errors + 1 } else { 0 };
        if heard && !lost {
            self.established = true;
            self.deliver(to, transmission, &mut at);
        }
        if !heard || self.crc_errors >= CRC_ERRORS_CLOSE_EVENT {
            return self.close_event();
        }
        if from == Side::Central {
            return self.send(Side::Peripheral, at.now + T_IFS, &mut at);
        }
        self.exchanges += 1;
        let wanted = self.central_has_more || self.central.has_more() || more || self.crc_errors > 0;
        if wanted && self.next_exchange_fits(&at) {
            self.phase = Phase::NextExchange;
            self.next = at.now + T_IFS;
        } else {
            self.close_event();
        }
    }

    fn deliver(&mut self, to: Side, transmission: Transmission, at: &mut Surroundings<'_>) {
        let (connection, now) = (self.id, at.now);
        let (pdu, completed) = self.end(to).receive(transmission, now);
        if completed > 0 {
            at.events.push_back(RadioEvent::Completed { connection, side: to, fragments: completed });
        }
        match pdu {
            Some(Pdu::Data { start, payload, .. }) => {
                at.events.push_back(RadioEvent::Data { connection, side: to, start, payload });
            }
            Some(Pdu::Control(payload)) => {
                at.events.push_back(RadioEvent::Control { connection, side: to, payload })
            }
            Some(Pdu::Empty) | None => {}
        }
    }

    /// Peripheral latency: with nothing to say, the peripheral sleeps through events, whatever the central has.
    fn choose_sleep(&mut self) {
        self.peripheral_sleeps = self.established
            && self.skipped < self.parameters.peripheral_latency
            && self.peripheral.is_idle();
        self.skipped = if self.peripheral_sleeps { self.skipped + 1 } else { 0 };
    }

    fn close_event(&mut self) {
        self.phase = Phase::Anchor;
        self.next = self.anchor;
    }

    /// Whether one more exchange ends before the event must.
    fn next_exchange_fits(&self, at: &Surroundings<'_>) -> bool {
        if self.exchanges_per_event_max.is_some_and(|max| self.exchanges >= max) {
            return false;
        }
        let mut limit = self.anchor;
        if let Some(max) = self.event_length_max {
            limit = limit.min(self.event_started + max);
        }
        if let Some(anchor) = at.others_anchor {
            limit = limit.min(anchor);
        }
        let air = |end: &End| end.phy.air_time(end.peek_octets(), self.encrypted);
        at.now + T_IFS + air(&self.central) + T_IFS + air(&self.peripheral) + T_IFS <= limit
    }
}
