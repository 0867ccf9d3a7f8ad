//! What a host does with packets, at one end of one connection: the queue towards the controller, L2CAP and ATT headers,
//! reassembly, and the queue towards the application, which drops what comes when it is full.
//!
//! Not modelled: what is between controller and application takes a fixed time, whatever it carries.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::radio::{ATT_HEADER_OCTETS, L2CAP_HEADER_OCTETS};
use crate::time::Instant;

/// L2CAP channel of ATT.
const ATT_CHANNEL: u16 = 4;
/// ATT opcode of a write without response.
const WRITE_COMMAND: u8 = 0x52;
/// The handle of the characteristic does not matter here.
const VALUE_HANDLE: u16 = 0x0010;
/// The longest L2CAP PDU taken, octets: an ATT MTU of 517 with its header.
const L2CAP_PDU_OCTETS_MAX: usize = 517 + L2CAP_HEADER_OCTETS;
/// A packet that is overtaken waits for at most this many others, or this long.
const OVERTAKEN_PACKETS_MAX: u32 = 6;
const OVERTAKEN_TIME: Duration = Duration::from_millis(8);

/// A host: its queues and its faults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostConfig {
    /// Packets that wait for the controller before the sender has to.
    pub send_queue_packets: usize,
    /// Packets that wait for the application; what comes on top is dropped. bluetoothd's socket holds 167.
    pub receive_queue_packets: usize,
    /// Time between application and controller, each way.
    pub latency: Duration,
    /// Share of arriving packets that are dropped besides, as when a buffer overruns for a moment: 0 to 1.
    pub drop: f64,
    /// Share of arriving packets that up to six others overtake, as with several EATT channels: 0 to 1.
    pub reorder: f64,
}

impl Default for HostConfig {
    fn default() -> HostConfig {
        HostConfig {
            send_queue_packets: 16,
            receive_queue_packets: 167,
            latency: Duration::from_micros(500),
            drop: 0.0,
            reorder: 0.0,
        }
    }
}

/// Packets of one direction, counted at the hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCounters {
    /// Packets taken from the sender.
    pub packets: u64,
    /// Their bytes: ATT values, without any header below.
    pub bytes: u64,
    /// Packets that the receiving host dropped.
    pub dropped: u64,
    /// Packets given to the receiver.
    pub delivered: u64,
    /// Packets that others overtook at the receiving host.
    pub overtaken: u64,
}

impl PacketCounters {
    /// Sum of two counts.
    pub fn plus(self, other: PacketCounters) -> PacketCounters {
        PacketCounters {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            dropped: self.dropped + other.dropped,
            delivered: self.delivered + other.delivered,
            overtaken: self.overtaken + other.overtaken,
        }
    }
}

/// A packet that others overtake.
struct Overtaken {
    packet: Bytes,
    after_packets: u32,
    at_the_latest: Instant,
}

pub(super) struct HostEnd {
    pub(super) config: HostConfig,
    /// L2CAP PDUs for the controller, and when the host has them ready.
    sending: VecDeque<(Instant, Bytes)>,
    /// Whether the first of `sending` has been cut already.
    cut: bool,
    assembling: BytesMut,
    receiving: VecDeque<(Instant, Bytes)>,
    overtaken: Option<Overtaken>,
    /// What this end sent; the other three are counted for what it received.
    pub(super) sent: PacketCounters,
    pub(super) dropped: u64,
    pub(super) delivered: u64,
    pub(super) overtaken_packets: u64,
}

impl HostEnd {
    pub(super) fn new(config: HostConfig) -> HostEnd {
        HostEnd {
            config,
            sending: VecDeque::new(),
            cut: false,
            assembling: BytesMut::new(),
            receiving: VecDeque::new(),
            overtaken: None,
            sent: PacketCounters::default(),
            dropped: 0,
            delivered: 0,
            overtaken_packets: 0,
        }
    }

    /// Takes a packet from the application, unless the queue is full.
    pub(super) fn push(&mut self, now: Instant, packet: &[u8]) -> bool {
        if self.sending.len() >= self.config.send_queue_packets {
            return false;
        }
        let mut pdu = BytesMut::with_capacity(L2CAP_HEADER_OCTETS + ATT_HEADER_OCTETS + packet.len());
        pdu.put_u16_le((ATT_HEADER_OCTETS + packet.len()) as u16);
        pdu.put_u16_le(ATT_CHANNEL);
        pdu.put_u8(WRITE_COMMAND);
        pdu.put_u16_le(VALUE_HANDLE);
        pdu.put_slice(packet);
        self.sending.push_back((now + self.config.latency, pdu.freeze()));
        self.sent.packets += 1;
        self.sent.bytes += packet.len() as u64;
        true
    }

    pub(super) fn has_room(&self) -> bool {
        self.sending.len() < self.config.send_queue_packets
    }

    /// Whether [`HostEnd::next_fragment`] would give one.
    pub(super) fn has_fragment(&self, now: Instant) -> bool {
        self.sending.front().is_some_and(|(ready, _)| *ready <= now)
    }

    /// The next fragment for the controller, of at most `octets`, with whether it starts an L2CAP PDU.
    pub(super) fn next_fragment(&mut self, now: Instant, octets: usize) -> Option<(bool, Bytes)> {
        let (ready, pdu) = self.sending.front_mut()?;
        if *ready > now {
            return None;
        }
        let start = !std::mem::replace(&mut self.cut, true);
        let fragment = pdu.split_to(pdu.len().min(octets));
        if pdu.is_empty() {
            self.sending.pop_front();
            self.cut = false;
        }
        Some((start, fragment))
    }

    /// When a queued packet becomes ready for the controller or for the application, if that is after `now`.
    pub(super) fn poll_at(&self, now: Instant) -> Option<Instant> {
        let sending = self.sending.front().map(|(ready, _)| *ready);
        let receiving = self.receiving.front().map(|(ready, _)| *ready);
        let overtaken = self.overtaken.as_ref().map(|o| o.at_the_latest);
        [sending, receiving, overtaken].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Takes in what the controller received.
    pub(super) fn handle_data(&mut self, now: Instant, start: bool, payload: &[u8], rng: &mut fastrand::Rng) {
        if start {
            self.assembling.clear();
        }
        self.assembling.extend_from_slice(payload);
        let Some(length) = self.assembling.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes)) else {
            return;
        };
        let whole = L2CAP_HEADER_OCTETS + usize::from(length);
        if whole > L2CAP_PDU_OCTETS_MAX || self.assembling.len() > whole {
            self.assembling.clear();
        } else if self.assembling.len() == whole && whole >= L2CAP_HEADER_OCTETS + ATT_HEADER_OCTETS {
            let packet = self.assembling.split().freeze().slice(L2CAP_HEADER_OCTETS + ATT_HEADER_OCTETS..);
            self.take_packet(now, packet, rng);
        }
    }

    fn take_packet(&mut self, now: Instant, packet: Bytes, rng: &mut fastrand::Rng) {
        let dropped = self.config.drop > 0.0 && rng.f64() < self.config.drop;
        if dropped || self.receiving.len() >= self.config.receive_queue_packets {
            self.dropped += 1;
            return;
        }
        if self.config.reorder > 0.0 && self.overtaken.is_none() && rng.f64() < self.config.reorder {
            self.overtaken_packets += 1;
            let after_packets = rng.u32(1..=OVERTAKEN_PACKETS_MAX);
            self.overtaken = Some(Overtaken { packet, after_packets, at_the_latest: now + OVERTAKEN_TIME });
            return;
        }
        self.receiving.push_back((now + self.config.latency, packet));
        if let Some(overtaken) = &mut self.overtaken {
            overtaken.after_packets -= 1;
            if overtaken.after_packets == 0 {
                self.release_overtaken(now);
            }
        }
    }

    fn release_overtaken(&mut self, now: Instant) {
        if let Some(overtaken) = self.overtaken.take() {
            self.receiving.push_back((now + self.config.latency, overtaken.packet));
        }
    }

    /// Lets go what has been overtaken for long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.overtaken.as_ref().is_some_and(|o| o.at_the_latest <= now) {
            self.release_overtaken(now);
        }
    }

    pub(super) fn readable(&self, now: Instant) -> bool {
        self.receiving.front().is_some_and(|(ready, _)| *ready <= now)
    }

    /// The next packet for the application.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Bytes> {
        if !self.readable(now) {
            return None;
        }
        self.delivered += 1;
        self.receiving.pop_front().map(|(_, packet)| packet)
    }
}
