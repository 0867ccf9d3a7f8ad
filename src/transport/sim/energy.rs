//! Energy of radios, from what the model counts and what data sheets say.
//!
//! Only the radio: what it takes while it sends and while it listens. A processor's work, what a crystal takes to start, sleep between
//! events and the windows in which a peripheral listens early for a late anchor point come on top (`firmware-notes/radio-model.md`).

use super::radio::{ConnectionCounters, EndCounters, Phy, Side, T_IFS};

/// Between two PDUs of an event the receiver starts: it counts as listening.
const T_IFS_US: f64 = T_IFS.as_micros() as f64;

/// A connectable advertisement goes out on so many channels in turn.
const ADVERTISING_CHANNELS: f64 = 3.0;

/// After each of them the advertiser listens: until the access address of a request would have come.
const REQUEST_WINDOW_US: f64 = T_IFS_US + 40.0;

/// Octets of an advertisement's PDU besides its data: the address.
const ADVERTISER_OCTETS: usize = 6;

/// What a radio takes by its data sheet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RadioPower {
    /// What it is.
    pub name: &'static str,
    /// Supply, volts.
    pub volts: f64,
    /// While it sends at 0 dBm, milliamperes.
    pub send_ma: f64,
    /// While it listens, milliamperes: 1M, 2M.
    pub listen_ma: [f64; 2],
}

/// Nordic nRF52840, Product Specification, current consumption: IRADIO_TX1 and IRADIO_RX0, DC/DC regulator, crystal included. It
/// names none for 2M.
pub const NRF52840: RadioPower =
    RadioPower { name: "nRF52840", volts: 3.0, send_ma: 6.40, listen_ma: [6.26, 6.26] };

/// Nordic nRF54L15, Datasheet, current consumption: IRADIO_TX0, IRADIO_RX0 and IRADIO_RX1, crystal included.
pub const NRF54L15: RadioPower =
    RadioPower { name: "nRF54L15", volts: 3.0, send_ma: 4.8, listen_ma: [3.4, 3.6] };

impl RadioPower {
    /// Microjoules of a time of sending and a time of listening, microseconds.
    fn energy_uj(&self, phy: Phy, sends_us: f64, listens_us: f64) -> f64 {
        let listen_ma = self.listen_ma[usize::from(phy == Phy::Le2M)];
        self.volts * (self.send_ma * sends_us + listen_ma * listens_us) / 1_000.0
    }

    /// What one end of connections has taken, microjoules: its own PDUs, those of the other, and the time before each of those.
    pub fn connection_uj(&self, counters: &ConnectionCounters, side: Side, phy: Phy) -> f64 {
        let (own, other): (&EndCounters, &EndCounters) = match side {
            Side::Central => (&counters.central, &counters.peripheral),
            Side::Peripheral => (&counters.peripheral, &counters.central),
        };
        let listens_us = other.air_time_us as f64 + T_IFS_US * other.pdus as f64;
        self.energy_uj(phy, own.air_time_us as f64, listens_us)
    }

    /// One advertisement with so many octets of data on all three channels, microjoules.
    pub fn advertisement_uj(&self, data_octets: usize) -> f64 {
        let sends = Phy::Le1M.air_time(ADVERTISER_OCTETS + data_octets, false).as_secs_f64() * 1e6;
        ADVERTISING_CHANNELS * self.energy_uj(Phy::Le1M, sends, REQUEST_WINDOW_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of 251 octets on 2M and the empty one that acknowledges it, by hand: 4 x (11 + 251) us and 44 us on air.
    #[test]
    fn a_packet_takes_what_is_worked_out_by_hand() {
        let own = EndCounters { pdus: 1, air_time_us: 1_048, ..EndCounters::default() };
        let other = EndCounters { pdus: 1, air_time_us: 44, ..EndCounters::default() };
        let counters =
            ConnectionCounters { central: own, peripheral: other, ..ConnectionCounters::default() };
        let sender = NRF52840.connection_uj(&counters, Side::Central, Phy::Le2M);
        // 3 V x (6.40 mA x 1,048 us + 6.26 mA x 194 us).
        assert!((sender - 23.765).abs() < 0.001, "{sender}");
        let receiver = NRF52840.connection_uj(&counters, Side::Peripheral, Phy::Le2M);
        assert!((receiver - 23.343).abs() < 0.001, "{receiver}");
        let newer = NRF54L15.connection_uj(&counters, Side::Central, Phy::Le2M);
        assert!((newer - 17.186).abs() < 0.001, "{newer}");
    }

    /// 31 octets of data: 376 us three times, and 190 us of listening after each.
    #[test]
    fn an_advertisement_takes_what_is_worked_out_by_hand() {
        let one = NRF52840.advertisement_uj(31);
        assert!((one - 3.0 * 3.0 * (6.40 * 376.0 + 6.26 * 190.0) / 1_000.0).abs() < 0.001, "{one}");
        assert!((30.0..40.0).contains(&one));
    }
}
