//! Link-layer control PDUs, as octets on the modelled air. Source: Core 5.2, Vol 6, Part B, 2.4.2.
//!
//! Random numbers and vectors of encryption are zeros: keys are compared, nothing is enciphered.

use bytes::Bytes;

use crate::controller::HostParameters;
use crate::hci::wire::{Reader, Writer};

/// A link-layer control PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pdu {
    /// LL_CONNECTION_UPDATE_IND, with the event at which both ends change.
    Update(HostParameters, u16),
    /// LL_TERMINATE_IND with the reason.
    Terminate(u8),
    /// LL_ENC_REQ: random number and diversifier of the key.
    EncryptionRequest(u64, u16),
    /// LL_START_ENC_REQ: the peripheral has the key.
    StartEncryption,
    /// LL_FEATURE_REQ or LL_PERIPHERAL_FEATURE_REQ.
    FeatureRequest,
    /// LL_FEATURE_RSP.
    FeatureResponse([u8; 8]),
    /// LL_VERSION_IND.
    Version,
    /// LL_REJECT_IND with the reason: no key.
    Reject(u8),
    /// LL_LENGTH_REQ: longest to receive, longest to send.
    LengthRequest(u16, u16),
    /// LL_LENGTH_RSP: the same.
    LengthResponse(u16, u16),
    /// LL_PHY_REQ: bits of the PHYs wanted.
    PhyRequest(u8),
    /// LL_PHY_RSP: the same.
    PhyResponse(u8),
    /// LL_PHY_UPDATE_IND: the PHY of both directions and the event at which both ends change.
    PhyUpdate(u8, u16),
}

const UPDATE: u8 = 0x00;
const TERMINATE: u8 = 0x02;
const ENCRYPTION_REQUEST: u8 = 0x03;
const START_ENCRYPTION: u8 = 0x05;
const FEATURE_REQUEST: u8 = 0x08;
const FEATURE_RESPONSE: u8 = 0x09;
const VERSION: u8 = 0x0c;
const REJECT: u8 = 0x0d;
const LENGTH_REQUEST: u8 = 0x14;
const LENGTH_RESPONSE: u8 = 0x15;
const PHY_REQUEST: u8 = 0x16;
const PHY_RESPONSE: u8 = 0x17;
const PHY_UPDATE: u8 = 0x18;

/// Session key and vector parts of an encryption request.
const ENCRYPTION_RANDOM_OCTETS: usize = 12;

impl Pdu {
    /// As octets.
    pub fn encode(self) -> Bytes {
        let w = Writer::new();
        let length = |w: Writer, rx: u16, tx: u16| w.u16(rx).u16((rx + 14) * 8).u16(tx).u16((tx + 14) * 8);
        let w = match self {
            Pdu::Update(p, instant) => {
                w.u8(UPDATE).u8(0).u16(0).u16(p.interval).u16(p.latency).u16(p.timeout).u16(instant)
            }
            Pdu::Terminate(reason) => w.u8(TERMINATE).u8(reason),
            Pdu::EncryptionRequest(random, diversifier) => {
                w.u8(ENCRYPTION_REQUEST).u64(random).u16(diversifier).bytes(&[0; ENCRYPTION_RANDOM_OCTETS])
            }
            Pdu::StartEncryption => w.u8(START_ENCRYPTION),
            Pdu::FeatureRequest => w.u8(FEATURE_REQUEST).bytes(&[0; 8]),
            Pdu::FeatureResponse(features) => w.u8(FEATURE_RESPONSE).bytes(&features),
            Pdu::Version => w.u8(VERSION).bytes(&[0; 5]),
            Pdu::Reject(reason) => w.u8(REJECT).u8(reason),
            Pdu::LengthRequest(rx, tx) => length(w.u8(LENGTH_REQUEST), rx, tx),
            Pdu::LengthResponse(rx, tx) => length(w.u8(LENGTH_RESPONSE), rx, tx),
            Pdu::PhyRequest(phys) => w.u8(PHY_REQUEST).u8(phys).u8(phys),
            Pdu::PhyResponse(phys) => w.u8(PHY_RESPONSE).u8(phys).u8(phys),
            Pdu::PhyUpdate(phy, instant) => w.u8(PHY_UPDATE).u8(phy).u8(phy).u16(instant),
        };
        Bytes::from(w.0)
    }

    /// From octets; `None` for what no controller of ours sends.
    pub fn decode(octets: &[u8]) -> Option<Pdu> {
        let mut r = Reader(octets);
        let code = r.u8()?;
        let mut length = || {
            let (rx, _, tx) = (r.u16()?, r.u16()?, r.u16()?);
            Some((rx, tx))
        };
        Some(match code {
            LENGTH_REQUEST => length().map(|(rx, tx)| Pdu::LengthRequest(rx, tx))?,
            LENGTH_RESPONSE => length().map(|(rx, tx)| Pdu::LengthResponse(rx, tx))?,
            UPDATE => {
                r.take(3)?;
                let parameters = HostParameters { interval: r.u16()?, latency: r.u16()?, timeout: r.u16()? };
                Pdu::Update(parameters, r.u16()?)
            }
            TERMINATE => Pdu::Terminate(r.u8()?),
            ENCRYPTION_REQUEST => Pdu::EncryptionRequest(r.u64()?, r.u16()?),
            START_ENCRYPTION => Pdu::StartEncryption,
            FEATURE_REQUEST => Pdu::FeatureRequest,
            FEATURE_RESPONSE => Pdu::FeatureResponse(r.take(8)?.try_into().ok()?),
            VERSION => Pdu::Version,
            REJECT => Pdu::Reject(r.u8()?),
            PHY_REQUEST => Pdu::PhyRequest(r.u8()?),
            PHY_RESPONSE => Pdu::PhyResponse(r.u8()?),
            PHY_UPDATE => {
                let phy = r.u8()?;
                r.u8()?;
                Pdu::PhyUpdate(phy, r.u16()?)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_understood() {
        let parameters = HostParameters { interval: 24, latency: 1, timeout: 42 };
        for pdu in [
            Pdu::Update(parameters, 70),
            Pdu::Terminate(0x13),
            Pdu::EncryptionRequest(1 << 60, 9),
            Pdu::StartEncryption,
            Pdu::FeatureRequest,
            Pdu::FeatureResponse([0x29, 0x11, 0, 0, 0, 0, 0, 0]),
            Pdu::Version,
            Pdu::Reject(6),
            Pdu::LengthRequest(251, 27),
            Pdu::LengthResponse(27, 251),
            Pdu::PhyRequest(3),
            Pdu::PhyResponse(1),
            Pdu::PhyUpdate(2, 7),
        ] {
            assert_eq!(Pdu::decode(&pdu.encode()), Some(pdu));
        }
        assert_eq!(Pdu::decode(&[]), None);
        assert_eq!(Pdu::decode(&[0x77, 1]), None);
        assert_eq!(Pdu::EncryptionRequest(0, 0).encode().len(), 23);
    }
}
