//! The GATT profile: UUIDs, the information characteristic and the advertised state, byte for byte.
//!
//! Source: `firmware-notes/gatt.md`.

use bluer::Uuid;
use serde::{Deserialize, Serialize};

use crate::secure::advert::Urgency;

/// The service that a peripheral offers.
pub const SERVICE: Uuid = Uuid::from_u128(0x8f4e_0001_c2d7_4b1a_9d63_5e0a_7b21_f8c4);
/// What the peripheral can do: read, an [`Information`] in postcard.
pub const INFORMATION: Uuid = Uuid::from_u128(0x8f4e_0004_c2d7_4b1a_9d63_5e0a_7b21_f8c4);

/// Lanes of a peripheral, each a pair of characteristics for one central: as many centrals at once. BlueZ mixes what several
/// centrals write to one characteristic and notifies all of them. More lanes make the first service discovery longer.
pub const LANES: u8 = 4;

const TO_PERIPHERAL: u128 = 0x8f4e_0100_c2d7_4b1a_9d63_5e0a_7b21_f8c4;
const FROM_PERIPHERAL: u128 = 0x8f4e_0200_c2d7_4b1a_9d63_5e0a_7b21_f8c4;
/// Where the lane's number is in the UUIDs.
const LANE_SHIFT: u32 = 96;

/// Link packets towards the peripheral on `lane`: write without response.
pub const fn to_peripheral(lane: u8) -> Uuid {
    Uuid::from_u128(TO_PERIPHERAL + ((lane as u128) << LANE_SHIFT))
}

/// Link packets from the peripheral on `lane`: notify.
pub const fn from_peripheral(lane: u8) -> Uuid {
    Uuid::from_u128(FROM_PERIPHERAL + ((lane as u128) << LANE_SHIFT))
}

/// Version of the profile; another one has another meaning of the characteristics.
pub const PROFILE_VERSION: u8 = 1;

/// Value of the information characteristic, in postcard. A reader ignores bytes that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Information {
    /// [`PROFILE_VERSION`] of the peripheral.
    pub profile: u8,
    /// Largest link packet in bytes that it takes, whatever the ATT MTU allows.
    pub packet_size_max: u16,
    /// Protocol/service multiplexer of its L2CAP channel, if it offers one.
    pub l2cap_psm: Option<u16>,
    /// The lane kept for the central that reads this, for 10 s; `None`: all are taken.
    pub lane: Option<u8>,
}

impl Information {
    /// The characteristic's value.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads a peer's value.
    ///
    /// # Errors
    /// Says what is wrong with it; the peer is not one of ours, or of another version.
    pub fn decode(value: &[u8]) -> Result<Information, String> {
        match value.first() {
            None => return Err("empty information characteristic".into()),
            Some(&PROFILE_VERSION) => {}
            Some(other) => {
                return Err(format!("profile version {other}, this side speaks {PROFILE_VERSION}"));
            }
        }
        let (information, _rest) =
            postcard::take_from_bytes::<Information>(value).map_err(|e| e.to_string())?;
        Ok(information)
    }
}

/// Length in bytes of the state in a legacy advert: 31, less 3 of flags, less 18 of the service data's head.
pub const ADVERT_STATE_LEN: usize = 10;

/// The state as it stands in an advert.
pub type AdvertBytes = [u8; ADVERT_STATE_LEN];

/// First bytes of the states that gattway devices advertise: plain, and sealed for those who hold a key
/// (`firmware-notes/gatt.md`).
const ADVERT_KINDS: [u8; 2] = [PROFILE_VERSION, 2];

/// The state in service data of ours; `None` if it is too short or of another version.
pub fn advert_state(data: &[u8]) -> Option<AdvertBytes> {
    let state: AdvertBytes = data.get(..ADVERT_STATE_LEN)?.try_into().ok()?;
    ADVERT_KINDS.contains(&state[0]).then_some(state)
}

/// What an advert says to whoever can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sighting {
    /// Which device, by a tag that stays the same for this reader.
    pub device: u32,
    /// Low 24 bits of the counter that grows with each change of the device's database.
    pub change: u32,
    /// How urgent it is to fetch what the device has.
    pub urgency: Urgency,
}

/// Writes the state that is advertised, and reads those of neighbours. The scan and what skips neighbours know nothing else of
/// what is in it.
pub trait AdvertCodec: Send + Sync {
    /// The state to advertise at `change`, a counter of which the low 24 bits are told. May differ at each call.
    fn write(&self, change: u32, urgency: Urgency) -> AdvertBytes;
    /// What a neighbour's state says; `None` if it is not meant for us.
    fn read(&self, state: &AdvertBytes) -> Option<Sighting>;

    /// The name by which the neighbour is known here, if it is.
    fn name(&self, _state: &AdvertBytes) -> Option<String> {
        None
    }

    /// Whether states are written by turns for different readers, so that each has to be there for a short time only.
    fn takes_turns(&self) -> bool {
        false
    }

    /// Whether it may be worth connecting to a neighbour with this state that nobody named.
    fn may_be_ours(&self, _state: &AdvertBytes) -> bool {
        true
    }
}

/// The codec that everybody can read.
#[derive(Clone, Copy, Debug)]
pub struct PlainAdvert {
    /// Which group of devices this is, a tag.
    pub group: u8,
    /// Which device this is, a tag of its database.
    pub device: u32,
}

impl AdvertCodec for PlainAdvert {
    fn write(&self, change: u32, urgency: Urgency) -> AdvertBytes {
        let (group, device, change) = (self.group, self.device, change & AdvertState::CHANGE_MAX);
        AdvertState { group, urgency, device, change }.encode()
    }

    fn read(&self, state: &AdvertBytes) -> Option<Sighting> {
        let AdvertState { device, change, urgency, .. } = AdvertState::decode(state)?;
        Some(Sighting { device, change, urgency })
    }
}

/// What a plain advert tells a neighbour, so that it need not connect when there is nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertState {
    /// Which group of devices this is, a tag.
    pub group: u8,
    /// How urgent it is to fetch what the device has; earlier releases say nothing.
    pub urgency: Urgency,
    /// Which device this is, a tag of its database.
    pub device: u32,
    /// Low 24 bits of a counter that grows with each change of its database.
    pub change: u32,
}

impl AdvertState {
    /// What a device tells that waits to be paired: nothing of itself.
    pub const PAIRING: AdvertState = AdvertState { group: 0, urgency: Urgency::None, device: 0, change: 0 };

    /// Largest value of [`AdvertState::change`].
    pub const CHANGE_MAX: u32 = 0x00ff_ffff;

    /// `version, group (1), urgency (1), device (4, LE), change (3, LE)`.
    pub fn encode(&self) -> [u8; ADVERT_STATE_LEN] {
        let (urgency, d, c) = (self.urgency.to_bits(), self.device.to_le_bytes(), self.change.to_le_bytes());
        [PROFILE_VERSION, self.group, urgency, d[0], d[1], d[2], d[3], c[0], c[1], c[2]]
    }

    /// Reads service data; `None` if it is too short or of another version.
    pub fn decode(data: &[u8]) -> Option<AdvertState> {
        let data = data.get(..ADVERT_STATE_LEN)?;
        (data[0] == PROFILE_VERSION).then(|| AdvertState {
            group: data[1],
            urgency: Urgency::from_bits(data[2]),
            device: u32::from_le_bytes([data[3], data[4], data[5], data[6]]),
            change: u32::from_le_bytes([data[7], data[8], data[9], 0]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn information_and_state_read_back(size in 20u16..=495, psm in proptest::option::of(0x80u16..=0xff),
            lane in proptest::option::of(0..LANES),
            group: u8, urgency in 0u8..3, device: u32, change in 0..=AdvertState::CHANGE_MAX, tail: Vec<u8>) {
            let information = Information { profile: PROFILE_VERSION, packet_size_max: size, l2cap_psm: psm, lane };
            let mut value = information.encode();
            value.extend(&tail);
            prop_assert_eq!(Information::decode(&value), Ok(information));
            let state = AdvertState { group, urgency: Urgency::from_bits(urgency), device, change };
            prop_assert_eq!(AdvertState::decode(&state.encode()), Some(state));
        }

        #[test]
        fn hostile_values_never_panic(value: Vec<u8>) {
            let _ = Information::decode(&value);
            let _ = AdvertState::decode(&value);
        }
    }

    #[test]
    fn the_documented_bytes_hold() {
        let information =
            Information { profile: 1, packet_size_max: 495, l2cap_psm: Some(0x85), lane: Some(2) };
        assert_eq!(information.encode(), [0x01, 0xef, 0x03, 0x01, 0x85, 0x01, 0x01, 0x02]);
        assert_eq!(to_peripheral(3).to_string(), "8f4e0103-c2d7-4b1a-9d63-5e0a7b21f8c4");
        assert_eq!(from_peripheral(0).to_string(), "8f4e0200-c2d7-4b1a-9d63-5e0a7b21f8c4");
        let (group, device, change) = (0x34, 0xdead_beef, 0x0a_0b_0c);
        let state = AdvertState { group, urgency: Urgency::Urgent, device, change };
        assert_eq!(state.encode(), [0x01, 0x34, 0x02, 0xef, 0xbe, 0xad, 0xde, 0x0c, 0x0b, 0x0a]);
    }
}
