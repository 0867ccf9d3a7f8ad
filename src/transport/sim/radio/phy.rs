//! Air time of one link-layer PDU on each PHY, and how often a PDU is lost at a given signal strength.

use std::time::Duration;

/// Time between the end of one PDU and the start of the next of the same exchange (Core 5.2, Vol 6, Part B, 4.1.1).
pub const T_IFS: Duration = Duration::from_micros(150);
/// Payload of a data PDU without data length extension, octets.
pub const DATA_LENGTH_MIN: u16 = 27;
/// Payload of a data PDU with the longest data length extension, octets.
pub const DATA_LENGTH_MAX: u16 = 251;

const ACCESS_ADDRESS_OCTETS: usize = 4;
const PDU_HEADER_OCTETS: usize = 2;
const MIC_OCTETS: usize = 4;
const CRC_OCTETS: usize = 3;
/// Coded PHY: preamble (80), access address (256), coding indicator (16) and first terminator (24), microseconds.
const CODED_FIXED_US: u64 = 80 + 256 + 16 + 24;
/// Coded PHY: bits of the second terminator.
const CODED_TERMINATOR_BITS: u64 = 3;
/// Signal-to-noise exponent at which the bit error rate is 0.1 %, the rate that defines sensitivity: ln(0.5 / 0.001).
const SENSITIVITY_EXPONENT: f64 = 6.2146;
/// Below this bit error rate a PDU counts as safe: less than one loss in ten million PDUs.
const BIT_ERROR_RATE_MIN: f64 = 1e-11;

/// A physical layer of LE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phy {
    /// 1 Mbit/s, what every connection starts with.
    Le1M,
    /// 2 Mbit/s.
    Le2M,
    /// Coded, 500 kbit/s (S=2).
    LeCodedS2,
    /// Coded, 125 kbit/s (S=8).
    LeCodedS8,
}

impl Phy {
    /// Time on air of a data PDU with `payload` octets; `encrypted` adds the MIC that every PDU with a payload then has.
    pub fn air_time(self, payload: usize, encrypted: bool) -> Duration {
        let coded = |spread: u64| {
            let octets = (self.octets_on_air(payload, encrypted) - self.fixed_octets()) as u64;
            CODED_FIXED_US + octets * 8 * spread + CODED_TERMINATOR_BITS * spread
        };
        Duration::from_micros(match self {
            Phy::Le1M => self.octets_on_air(payload, encrypted) as u64 * 8,
            Phy::Le2M => self.octets_on_air(payload, encrypted) as u64 * 4,
            Phy::LeCodedS2 => coded(2),
            Phy::LeCodedS8 => coded(8),
        })
    }

    /// Octets of the same PDU from preamble to CRC; on the coded PHYs before coding.
    pub fn octets_on_air(self, payload: usize, encrypted: bool) -> usize {
        let mic = if encrypted && payload > 0 { MIC_OCTETS } else { 0 };
        self.fixed_octets() + PDU_HEADER_OCTETS + payload + mic + CRC_OCTETS
    }

    /// Weakest signal a good receiver still understands, dBm (bit error rate 0.1 %).
    pub const fn sensitivity_dbm(self) -> i8 {
        match self {
            Phy::Le1M => -96,
            Phy::Le2M => -93,
            Phy::LeCodedS2 => -99,
            Phy::LeCodedS8 => -103,
        }
    }

    /// Share of PDUs of `octets` (from preamble to CRC) that arrive with a bit error at `rssi_dbm`.
    pub fn loss_at(self, rssi_dbm: i8, octets: usize) -> f64 {
        let margin_db = f64::from(rssi_dbm) - f64::from(self.sensitivity_dbm());
        let bit_error_rate = 0.5 * (-SENSITIVITY_EXPONENT * 10f64.powf(margin_db / 10.0)).exp();
        if bit_error_rate < BIT_ERROR_RATE_MIN {
            return 0.0;
        }
        1.0 - (1.0 - bit_error_rate).powf(octets as f64 * 8.0)
    }

    /// Preamble and access address.
    fn fixed_octets(self) -> usize {
        let preamble = if self == Phy::Le2M { 2 } else { 1 };
        preamble + ACCESS_ADDRESS_OCTETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn air_time_is_that_of_the_specification() {
        // Maximum times of Core 5.2, Vol 6, Part B, 4.5.10: with the MIC, 251 octets.
        assert_eq!(Phy::Le1M.air_time(27, true).as_micros(), 328);
        assert_eq!(Phy::Le1M.air_time(251, true).as_micros(), 2120);
        assert_eq!(Phy::Le2M.air_time(251, true).as_micros(), 1064);
        assert_eq!(Phy::LeCodedS8.air_time(251, true).as_micros(), 17040);
        assert_eq!(Phy::LeCodedS2.air_time(251, true).as_micros(), 4542);
        assert_eq!(Phy::Le1M.air_time(0, true).as_micros(), 80);
        assert_eq!(Phy::Le2M.air_time(0, false).as_micros(), 44);
    }

    #[test]
    fn loss_grows_as_the_signal_weakens() {
        let at = |rssi| Phy::Le2M.loss_at(rssi, 262);
        assert_eq!(at(-60), 0.0);
        assert!(at(-93) > 0.5 && at(-100) > 0.99);
        assert!(at(-90) < 0.02 && at(-90) > 0.0);
        assert!(Phy::LeCodedS8.loss_at(-97, 262) < 0.001);
    }
}
