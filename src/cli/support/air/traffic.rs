//! What the radio and the link did in a run.

use crate::link::LinkStats;
use crate::transport::sim::WorldCounters;
use crate::transport::sim::radio::ConnectionCounters;

/// What the radio and the link did in one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Packets of both directions.
    pub(crate) packets: u64,
    /// Their bytes: ATT values, with everything that the link adds.
    pub(crate) bytes: u64,
    /// Octets from preamble to CRC, with every header of the radio.
    pub(crate) radio_octets: u64,
    /// Time on air, seconds.
    pub(crate) air_time_s: f64,
    /// What both ends of the radio connection did.
    pub(crate) radio: ConnectionCounters,
    /// What the field device's radio takes for it if it is an nRF52840, microjoules.
    pub(crate) field_uj: f64,
    /// PDUs that the radio sent again.
    pub(crate) radio_retransmissions: u64,
    /// Packets that the link of the field device sent again.
    pub(crate) link_retransmissions: u64,
    /// Bytes of the stream that went over more than once.
    pub(crate) bytes_retransmitted: u64,
    /// Bytes of the byte stream above the link, both directions, each counted once.
    pub(crate) stream_bytes: u64,
    /// How often the session went on over a new connection.
    pub(crate) resumes: u32,
    /// Time of the radio's clock, seconds.
    pub(crate) seconds: f64,
    /// Of that: until the connection stood, finding the device and connecting included.
    pub(crate) setup_s: f64,
    /// Of that: without a connection after a cut, until the session went on.
    pub(crate) outage_s: f64,
}

impl Traffic {
    /// Sum of two runs.
    pub(crate) fn plus(self, other: Traffic) -> Traffic {
        Traffic {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            radio_octets: self.radio_octets + other.radio_octets,
            air_time_s: self.air_time_s + other.air_time_s,
            radio: self.radio.plus(other.radio),
            field_uj: self.field_uj + other.field_uj,
            radio_retransmissions: self.radio_retransmissions + other.radio_retransmissions,
            link_retransmissions: self.link_retransmissions + other.link_retransmissions,
            bytes_retransmitted: self.bytes_retransmitted + other.bytes_retransmitted,
            stream_bytes: self.stream_bytes + other.stream_bytes,
            resumes: self.resumes + other.resumes,
            seconds: self.seconds + other.seconds,
            setup_s: self.setup_s + other.setup_s,
            outage_s: self.outage_s + other.outage_s,
        }
    }

    /// Time with a connection, seconds: from the first look at a moving stream to the end, without the outage.
    pub(crate) fn streaming_s(&self) -> f64 {
        (self.seconds - self.setup_s - self.outage_s).max(0.0)
    }

    /// Bytes of the stream by that time, bytes per second.
    pub(crate) fn goodput_bytes_per_s(&self) -> f64 {
        let streaming_s = self.streaming_s();
        if streaming_s > 0.0 { self.stream_bytes as f64 / streaming_s } else { 0.0 }
    }
}

/// What was added since `before`, time and energy apart.
pub(super) fn traffic(before: &WorldCounters, after: &WorldCounters, links: &[LinkStats]) -> Traffic {
    let packets = (after.packets(), before.packets());
    let radio = after.radio.since(before.radio);
    let air = radio.total();
    Traffic {
        packets: packets.0.packets - packets.1.packets,
        bytes: packets.0.bytes - packets.1.bytes,
        radio_octets: air.air_octets,
        air_time_s: air.air_time_us as f64 / 1e6,
        radio,
        radio_retransmissions: air.retransmissions,
        link_retransmissions: links.iter().map(|link| link.retransmissions).sum(),
        bytes_retransmitted: links.iter().map(|link| link.bytes_retransmitted).sum(),
        stream_bytes: links.iter().map(|link| link.bytes_sent + link.bytes_received).sum(),
        resumes: links.iter().map(|link| link.resumes).sum(),
        ..Traffic::default()
    }
}
