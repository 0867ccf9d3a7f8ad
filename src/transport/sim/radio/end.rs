//! One end of a connection: what its host has queued, what is on its way, and the one-bit acknowledgement scheme.

use std::collections::VecDeque;

use bytes::Bytes;

use super::phy::Phy;
use super::types::{EndCounters, NodeId};
use crate::time::Instant;

/// A PDU of the data channel.
#[derive(Clone, Debug)]
pub(super) enum Pdu {
    /// Sent when there is nothing to say: carries the acknowledgement.
    Empty,
    /// A part of a fragment; `completes` frees the fragment's buffer once it is acknowledged.
    Data { start: bool, completes: bool, payload: Bytes },
    /// Link-layer control, opaque here.
    Control(Bytes),
}

impl Pdu {
    pub(super) fn octets(&self) -> usize {
        match self {
            Pdu::Empty => 0,
            Pdu::Data { payload, .. } | Pdu::Control(payload) => payload.len(),
        }
    }
}

/// What the host gave: at most one HCI ACL packet. `start` as in HCI's packet boundary flag.
struct Fragment {
    start: bool,
    /// What has not been cut into PDUs yet.
    rest: Bytes,
}

pub(super) struct End {
    pub(super) node: NodeId,
    /// Longest payload this end sends.
    pub(super) data_length: u16,
    /// What this end sends with.
    pub(super) phy: Phy,
    /// When the last understood PDU arrived here.
    pub(super) last_received: Instant,
    /// The host has gone: the end neither sends nor hears.
    pub(super) silent: bool,
    pub(super) counters: EndCounters,
    sequence_number: bool,
    next_expected: bool,
    unacknowledged: Option<Pdu>,
    fragments: VecDeque<Fragment>,
    control: VecDeque<Bytes>,
    /// Fragments of which not every PDU is acknowledged: the buffers that this end occupies.
    occupied: u16,
}

impl End {
    pub(super) fn new(node: NodeId, data_length: u16, phy: Phy, now: Instant) -> End {
        End {
            node,
            data_length,
            phy,
            last_received: now,
            silent: false,
            counters: EndCounters::default(),
            sequence_number: false,
            next_expected: false,
            unacknowledged: None,
            fragments: VecDeque::new(),
            control: VecDeque::new(),
            occupied: 0,
        }
    }

    pub(super) fn push_fragment(&mut self, start: bool, payload: Bytes) {
        self.occupied += 1;
        self.fragments.push_back(Fragment { start, rest: payload });
    }

    pub(super) fn push_control(&mut self, payload: Bytes) {
        self.control.push_back(payload);
    }

    pub(super) fn occupied_buffers(&self) -> u16 {
        self.occupied
    }

    /// Whether something waits behind the PDU on its way: the "more data" bit.
    pub(super) fn has_more(&self) -> bool {
        !self.fragments.is_empty() || !self.control.is_empty()
    }

    /// Nothing to send but empty PDUs.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_more() && matches!(self.unacknowledged, None | Some(Pdu::Empty))
    }

    /// The PDU to send now, and the sequence bits that go with it: the unacknowledged one again, or the next.
    pub(super) fn transmit(&mut self) -> Transmission {
        let pdu = match &self.unacknowledged {
            Some(pdu) => {
                self.counters.retransmissions += 1;
                pdu.clone()
            }
            None => self.next_pdu(),
        };
        self.unacknowledged = Some(pdu.clone());
        Transmission {
            more: self.has_more(),
            sequence_number: self.sequence_number,
            next_expected: self.next_expected,
            pdu,
        }
    }

    /// Payload of what [`End::transmit`] would send.
    pub(super) fn peek_octets(&self) -> usize {
        if let Some(pdu) = &self.unacknowledged {
            return pdu.octets();
        }
        if let Some(payload) = self.control.front() {
            return payload.len();
        }
        self.fragments.front().map_or(0, |f| f.rest.len().min(self.data_length as usize))
    }

    /// Takes in an understood PDU. Returns its content if it is new, and how many of this end's fragments it acknowledges.
    pub(super) fn receive(&mut self, from: Transmission, now: Instant) -> (Option<Pdu>, u16) {
        self.last_received = now;
        let mut completed = 0;
        if from.next_expected != self.sequence_number
            && let Some(pdu) = self.unacknowledged.take()
        {
            self.sequence_number = from.next_expected;
            self.counters.payload_octets +=
                if let Pdu::Data { payload, .. } = &pdu { payload.len() as u64 } else { 0 };
            if matches!(pdu, Pdu::Data { completes: true, .. }) {
                completed = 1;
                self.occupied -= 1;
            }
        }
        if from.sequence_number != self.next_expected {
            return (None, completed);
        }
        self.next_expected = !self.next_expected;
        (Some(from.pdu).filter(|pdu| !matches!(pdu, Pdu::Empty)), completed)
    }

    fn next_pdu(&mut self) -> Pdu {
        if let Some(payload) = self.control.pop_front() {
            return Pdu::Control(payload);
        }
        let Some(fragment) = self.fragments.front_mut() else {
            return Pdu::Empty;
        };
        let payload = fragment.rest.split_to(fragment.rest.len().min(self.data_length as usize));
        let start = std::mem::replace(&mut fragment.start, false);
        let completes = fragment.rest.is_empty();
        if completes {
            self.fragments.pop_front();
        }
        Pdu::Data { start, completes, payload }
    }
}

/// A PDU on air with its header bits.
#[derive(Clone, Debug)]
pub(super) struct Transmission {
    pub(super) pdu: Pdu,
    pub(super) more: bool,
    sequence_number: bool,
    next_expected: bool,
}
