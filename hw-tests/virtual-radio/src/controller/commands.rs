//! Every HCI command that this controller knows: parameters in, answer out.

use std::time::Duration;

use gattway::lab::time::Instant;

use super::advertising::{AdvertisingSet, DATA_OCTETS_MAX, LEGACY, LEGACY_SET, legacy_properties};
use super::{
    ACCEPT_LIST_SIZE, ACL_OCTETS, ADVERTISING_SETS, Controller, HostParameters, INITIAL_OCTETS, Initiator,
    LinkCommand, Outcome,
};
use crate::hci::error_code::{
    COMMAND_DISALLOWED, INVALID_PARAMETERS, MEMORY_EXCEEDED, SUCCESS, UNKNOWN_ADVERTISING_SET,
    UNKNOWN_COMMAND,
};
use crate::hci::event::{COMPANY_INTERNAL, VERSION_5_2};
use crate::hci::opcode;
use crate::hci::wire::{Reader, Writer};

/// The unit of scan intervals and windows.
const SCAN_UNIT: Duration = Duration::from_micros(625);
/// "The controller chooses": transmit power in an advertising command.
const POWER_NO_PREFERENCE: u8 = 0x7f;
/// Air time of the longest PDU on 1M, microseconds (Core 5.2, Vol 6, Part B, 4.5.10).
const LONGEST_PDU_US: u16 = 2120;
/// Air time of a 27-octet PDU on 1M, microseconds.
const SHORTEST_PDU_US: u16 = 328;
/// All states and roles at once.
const ALL_STATES: u64 = 0x3ff_ffff_ffff;

fn complete() -> Outcome {
    Outcome::Complete(vec![SUCCESS])
}

fn refuse(code: u8) -> Outcome {
    Outcome::Complete(vec![code])
}

impl Controller {
    /// Carries out a command. Parameters that are too short or out of bounds are refused.
    pub fn command(&mut self, now: Instant, code: u16, parameters: &[u8]) -> Outcome {
        self.commands += 1;
        let mut reader = Reader(parameters);
        self.dispatch(now, code, &mut reader).unwrap_or_else(|| match answers_with_status(code) {
            true => Outcome::Status(INVALID_PARAMETERS),
            false => refuse(INVALID_PARAMETERS),
        })
    }

    fn dispatch(&mut self, now: Instant, code: u16, r: &mut Reader<'_>) -> Option<Outcome> {
        match code >> 10 {
            0x08 => match code {
                opcode::LE_SET_ADVERTISING_PARAMETERS..=opcode::LE_SET_ADVERTISING_ENABLE
                | opcode::LE_SET_SET_RANDOM_ADDRESS..=opcode::LE_CLEAR_ADVERTISING_SETS => {
                    self.advertising(now, code, r)
                }
                opcode::LE_SET_SCAN_PARAMETERS..=opcode::LE_CREATE_CONNECTION_CANCEL
                | opcode::LE_SET_EXT_SCAN_PARAMETERS..=opcode::LE_EXT_CREATE_CONNECTION => {
                    self.scanning(now, code, r)
                }
                _ => self.low_energy(code, r),
            },
            _ => self.general(code, r),
        }
    }

    /// Link control, baseband and informational commands.
    fn general(&mut self, code: u16, r: &mut Reader<'_>) -> Option<Outcome> {
        let w = Writer::new().u8(SUCCESS);
        Some(match code {
            opcode::RESET => {
                self.reset();
                Outcome::Reset
            }
            opcode::SET_EVENT_MASK | opcode::SET_EVENT_MASK_PAGE_2 => {
                r.u64()?; // everything that is not LE meta is always sent
                complete()
            }
            opcode::READ_LOCAL_NAME => Outcome::Complete(w.bytes(&[0; 248]).0),
            opcode::READ_LOCAL_VERSION => {
                Outcome::Complete(w.u8(VERSION_5_2).u16(0).u8(VERSION_5_2).u16(COMPANY_INTERNAL).u16(0).0)
            }
            opcode::READ_LOCAL_COMMANDS => {
                Outcome::Complete(w.bytes(&self.settings.capabilities.supported_commands()).0)
            }
            // LE, no BR/EDR: the host skips all set-up of the latter
            opcode::READ_LOCAL_FEATURES => Outcome::Complete(w.bytes(&[0, 0, 0, 0, 0x60, 0, 0, 0]).0),
            opcode::READ_BD_ADDR => Outcome::Complete(w.bytes(&self.settings.address.0).0),
            opcode::DISCONNECT => {
                Outcome::Link { handle: handle(r)?, command: LinkCommand::Disconnect { reason: r.u8()? } }
            }
            opcode::READ_REMOTE_VERSION => {
                Outcome::Link { handle: handle(r)?, command: LinkCommand::RemoteVersion }
            }
            opcode::READ_RSSI => Outcome::Link { handle: handle(r)?, command: LinkCommand::ReadRssi },
            opcode::READ_TX_POWER => Outcome::Link { handle: handle(r)?, command: LinkCommand::ReadTxPower },
            _ => Outcome::Status(UNKNOWN_COMMAND),
        })
    }

    /// LE commands that are neither advertising nor scanning.
    fn low_energy(&mut self, code: u16, r: &mut Reader<'_>) -> Option<Outcome> {
        let w = Writer::new().u8(SUCCESS);
        Some(match code {
            opcode::LE_SET_EVENT_MASK => {
                self.le_event_mask = r.u64()?;
                complete()
            }
            opcode::LE_READ_BUFFER_SIZE => {
                Outcome::Complete(w.u16(ACL_OCTETS).u8(self.settings.acl_buffers).0)
            }
            opcode::LE_READ_FEATURES => {
                Outcome::Complete(w.bytes(&self.settings.capabilities.le_features()).0)
            }
            opcode::LE_SET_RANDOM_ADDRESS => {
                self.random_address = r.address()?;
                complete()
            }
            opcode::LE_READ_ACCEPT_LIST_SIZE => Outcome::Complete(w.u8(ACCEPT_LIST_SIZE as u8).0),
            opcode::LE_CLEAR_ACCEPT_LIST => {
                self.accept_list.clear();
                complete()
            }
            opcode::LE_ADD_TO_ACCEPT_LIST => {
                let peer = r.peer()?;
                match (self.accept_list.contains(&peer), self.accept_list.len() < ACCEPT_LIST_SIZE) {
                    (true, _) => complete(),
                    (false, true) => {
                        self.accept_list.push(peer);
                        complete()
                    }
                    (false, false) => refuse(MEMORY_EXCEEDED),
                }
            }
            opcode::LE_REMOVE_FROM_ACCEPT_LIST => {
                let peer = r.peer()?;
                self.accept_list.retain(|known| *known != peer);
                complete()
            }
            opcode::LE_RAND => Outcome::Complete(w.u64(self.rng.u64(..)).0),
            opcode::LE_READ_STATES => Outcome::Complete(w.u64(ALL_STATES).0),
            opcode::LE_READ_DEFAULT_DATA_LENGTH => {
                Outcome::Complete(w.u16(self.suggested_octets).u16(SHORTEST_PDU_US).0)
            }
            opcode::LE_WRITE_DEFAULT_DATA_LENGTH => {
                self.suggested_octets = r.u16()?.clamp(INITIAL_OCTETS, self.settings.octets_max());
                complete()
            }
            opcode::LE_READ_MAX_DATA_LENGTH => {
                let octets = self.settings.octets_max();
                Outcome::Complete(w.u16(octets).u16(LONGEST_PDU_US).u16(octets).u16(LONGEST_PDU_US).0)
            }
            opcode::LE_SET_DEFAULT_PHY => {
                let (all, transmit) = (r.u8()?, r.u8()?);
                self.prefers_two_m = all & 1 == 0 && transmit & 2 != 0;
                complete()
            }
            _ => return link_command(code, r),
        })
    }

    fn advertising(&mut self, now: Instant, code: u16, r: &mut Reader<'_>) -> Option<Outcome> {
        Some(match code {
            opcode::LE_READ_ADVERTISING_TX_POWER => Outcome::Complete(vec![SUCCESS, 0]),
            opcode::LE_SET_ADVERTISING_PARAMETERS => return self.legacy_parameters(r),
            opcode::LE_SET_ADVERTISING_DATA => {
                self.sets.entry(LEGACY_SET).or_default().data = r.counted()?.to_vec();
                complete()
            }
            opcode::LE_SET_SCAN_RESPONSE_DATA => {
                self.sets.entry(LEGACY_SET).or_default().scan_response = r.counted()?.to_vec();
                complete()
            }
            opcode::LE_SET_ADVERTISING_ENABLE => {
                let on = r.u8()? != 0;
                self.sets.entry(LEGACY_SET).or_default().enable(now, on, 0, 0, &mut self.rng);
                complete()
            }
            opcode::LE_SET_SET_RANDOM_ADDRESS => {
                let (set, address) = (r.u8()?, r.address()?);
                self.with_set(set, |set| set.random_address = Some(address))
            }
            opcode::LE_SET_EXT_ADVERTISING_PARAMETERS => return self.extended_parameters(r),
            opcode::LE_SET_EXT_ADVERTISING_DATA | opcode::LE_SET_EXT_SCAN_RESPONSE_DATA => {
                return self.extended_data(code, r);
            }
            opcode::LE_SET_EXT_ADVERTISING_ENABLE => return self.extended_enable(now, r),
            opcode::LE_READ_MAX_ADVERTISING_LENGTH => {
                Outcome::Complete(Writer::new().u8(SUCCESS).u16(DATA_OCTETS_MAX as u16).0)
            }
            opcode::LE_READ_ADVERTISING_SETS => Outcome::Complete(vec![SUCCESS, ADVERTISING_SETS as u8]),
            opcode::LE_REMOVE_ADVERTISING_SET => match self.sets.remove(&r.u8()?) {
                Some(_) => complete(),
                None => refuse(UNKNOWN_ADVERTISING_SET),
            },
            opcode::LE_CLEAR_ADVERTISING_SETS => {
                self.sets.clear();
                complete()
            }
            _ => Outcome::Status(UNKNOWN_COMMAND),
        })
    }

    fn with_set(&mut self, set: u8, change: impl FnOnce(&mut AdvertisingSet)) -> Outcome {
        match self.sets.get_mut(&set) {
            Some(set) => {
                change(set);
                complete()
            }
            None => refuse(UNKNOWN_ADVERTISING_SET),
        }
    }

    fn legacy_parameters(&mut self, r: &mut Reader<'_>) -> Option<Outcome> {
        let (_min, max, kind, own_kind, peer) = (r.u16()?, r.u16()?, r.u8()?, r.u8()?, r.peer()?);
        let set = self.sets.entry(LEGACY_SET).or_default();
        set.set_interval(max.into());
        set.properties = legacy_properties(kind);
        (set.own_kind, set.peer, set.primary_phy, set.secondary_phy) = (own_kind, peer, 1, 0);
        Some(complete())
    }

    fn extended_parameters(&mut self, r: &mut Reader<'_>) -> Option<Outcome> {
        let (number, properties, _min, max) = (r.u8()?, r.u16()?, r.u24()?, r.u24()?);
        let (_channels, own_kind, peer, _filter, power) = (r.u8()?, r.u8()?, r.peer()?, r.u8()?, r.u8()?);
        let (primary_phy, _skip, secondary_phy, sid) = (r.u8()?, r.u8()?, r.u8()?, r.u8()?);
        if !self.sets.contains_key(&number) && self.sets.len() >= ADVERTISING_SETS {
            return Some(Outcome::Complete(vec![MEMORY_EXCEEDED, 0]));
        }
        let set = self.sets.entry(number).or_default();
        set.set_interval(max);
        (set.properties, set.own_kind, set.peer) = (properties, own_kind, peer);
        set.primary_phy = primary_phy;
        set.secondary_phy = if set.has(LEGACY) { 0 } else { secondary_phy };
        set.sid = sid;
        Some(Outcome::Complete(vec![SUCCESS, if power == POWER_NO_PREFERENCE { 0 } else { power }]))
    }

    fn extended_data(&mut self, code: u16, r: &mut Reader<'_>) -> Option<Outcome> {
        const FIRST_FRAGMENT: u8 = 1;
        const COMPLETE: u8 = 3;
        let (number, operation, _preference, data) = (r.u8()?, r.u8()?, r.u8()?, r.counted()?);
        let Some(set) = self.sets.get_mut(&number) else { return Some(refuse(UNKNOWN_ADVERTISING_SET)) };
        let buffer =
            if code == opcode::LE_SET_EXT_ADVERTISING_DATA { &mut set.data } else { &mut set.scan_response };
        if operation == FIRST_FRAGMENT || operation == COMPLETE {
            buffer.clear();
        }
        if buffer.len() + data.len() > DATA_OCTETS_MAX {
            return Some(refuse(MEMORY_EXCEEDED));
        }
        buffer.extend_from_slice(data);
        Some(complete())
    }

    fn extended_enable(&mut self, now: Instant, r: &mut Reader<'_>) -> Option<Outcome> {
        let (on, count) = (r.u8()? != 0, r.u8()?);
        let wanted: Vec<(u8, u16, u8)> =
            (0..count).map(|_| Some((r.u8()?, r.u16()?, r.u8()?))).collect::<Option<_>>()?;
        if wanted.iter().any(|(number, ..)| !self.sets.contains_key(number)) {
            return Some(refuse(UNKNOWN_ADVERTISING_SET));
        }
        if count == 0 {
            self.sets.values_mut().for_each(|set| set.enabled = false);
        }
        for (number, duration, events) in wanted {
            if let Some(set) = self.sets.get_mut(&number) {
                set.enable(now, on, duration, events, &mut self.rng);
            }
        }
        Some(complete())
    }

    fn scanning(&mut self, now: Instant, code: u16, r: &mut Reader<'_>) -> Option<Outcome> {
        Some(match code {
            opcode::LE_SET_SCAN_PARAMETERS => {
                let (kind, interval, window, _own, policy) = (r.u8()?, r.u16()?, r.u16()?, r.u8()?, r.u8()?);
                self.set_scan(kind, interval, window, policy)
            }
            opcode::LE_SET_EXT_SCAN_PARAMETERS => {
                let (_own, policy, _phys) = (r.u8()?, r.u8()?, r.u8()?);
                // the first block of parameters is always that of 1M
                let (kind, interval, window) = (r.u8()?, r.u16()?, r.u16()?);
                self.set_scan(kind, interval, window, policy)
            }
            opcode::LE_SET_SCAN_ENABLE | opcode::LE_SET_EXT_SCAN_ENABLE => {
                let (on, filter) = (r.u8()? != 0, r.u8()? != 0);
                self.scan.enable(now, on, filter, code == opcode::LE_SET_EXT_SCAN_ENABLE);
                complete()
            }
            opcode::LE_CREATE_CONNECTION => {
                r.take(4)?; // scan interval and window
                let (policy, peer, own_kind) = (r.u8()?, r.peer()?, r.u8()?);
                self.initiate(policy, own_kind, peer, r)?
            }
            opcode::LE_EXT_CREATE_CONNECTION => {
                let (policy, own_kind, peer, _phys) = (r.u8()?, r.u8()?, r.peer()?, r.u8()?);
                r.take(4)?; // scan interval and window of 1M
                self.initiate(policy, own_kind, peer, r)?
            }
            opcode::LE_CREATE_CONNECTION_CANCEL => match self.initiator.take() {
                Some(_) => Outcome::ConnectionCancelled,
                None => refuse(COMMAND_DISALLOWED),
            },
            _ => Outcome::Status(UNKNOWN_COMMAND),
        })
    }

    fn set_scan(&mut self, kind: u8, interval: u16, window: u16, policy: u8) -> Outcome {
        self.scan.active = kind != 0;
        self.scan.interval = SCAN_UNIT * u32::from(interval);
        self.scan.window = SCAN_UNIT * u32::from(window);
        self.scan.accept_list_only = policy & 1 != 0;
        complete()
    }

    fn initiate(
        &mut self,
        policy: u8,
        own_kind: u8,
        peer: crate::hci::PeerAddress,
        r: &mut Reader<'_>,
    ) -> Option<Outcome> {
        const USE_ACCEPT_LIST: u8 = 1;
        let (_min, interval, latency, timeout) = (r.u16()?, r.u16()?, r.u16()?, r.u16()?);
        let parameters = HostParameters { interval, latency, timeout };
        if !parameters.are_valid() {
            return Some(Outcome::Status(INVALID_PARAMETERS));
        }
        if self.initiator.is_some() {
            return Some(Outcome::Status(COMMAND_DISALLOWED));
        }
        let peer = (policy != USE_ACCEPT_LIST).then_some(peer);
        self.initiator = Some(Initiator { peer, own_kind, parameters });
        Some(Outcome::Status(SUCCESS))
    }
}

/// LE commands about one connection.
fn link_command(code: u16, r: &mut Reader<'_>) -> Option<Outcome> {
    if !answers_with_status(code) && !answers_with_handle(code) {
        return Some(Outcome::Status(UNKNOWN_COMMAND));
    }
    let handle = handle(r)?;
    let command = match code {
        opcode::LE_CONNECTION_UPDATE => {
            let (_min, interval, latency, timeout) = (r.u16()?, r.u16()?, r.u16()?, r.u16()?);
            let parameters = HostParameters { interval, latency, timeout };
            if !parameters.are_valid() {
                return None;
            }
            LinkCommand::Update(parameters)
        }
        opcode::LE_READ_REMOTE_FEATURES => LinkCommand::RemoteFeatures,
        opcode::LE_ENABLE_ENCRYPTION => {
            LinkCommand::EnableEncryption { random: r.u64()?, diversifier: r.u16()?, key: r.key()? }
        }
        opcode::LE_LTK_REPLY => LinkCommand::LongTermKey(Some(r.key()?)),
        opcode::LE_LTK_NEGATIVE_REPLY => LinkCommand::LongTermKey(None),
        opcode::LE_SET_DATA_LENGTH => LinkCommand::DataLength { octets: r.u16()? },
        opcode::LE_READ_PHY => LinkCommand::ReadPhy,
        opcode::LE_SET_PHY => {
            let (all, transmit) = (r.u8()?, r.u8()?);
            LinkCommand::SetPhy { two_m: all & 1 != 0 || transmit & 2 != 0 }
        }
        _ => return Some(Outcome::Status(UNKNOWN_COMMAND)),
    };
    Some(Outcome::Link { handle, command })
}

/// Commands answered by Command Status, with the result in a later event.
fn answers_with_status(code: u16) -> bool {
    matches!(
        code,
        opcode::DISCONNECT
            | opcode::READ_REMOTE_VERSION
            | opcode::LE_CREATE_CONNECTION
            | opcode::LE_EXT_CREATE_CONNECTION
            | opcode::LE_CONNECTION_UPDATE
            | opcode::LE_READ_REMOTE_FEATURES
            | opcode::LE_ENABLE_ENCRYPTION
            | opcode::LE_SET_PHY
    )
}

fn answers_with_handle(code: u16) -> bool {
    matches!(
        code,
        opcode::LE_LTK_REPLY
            | opcode::LE_LTK_NEGATIVE_REPLY
            | opcode::LE_SET_DATA_LENGTH
            | opcode::LE_READ_PHY
    )
}

fn handle(r: &mut Reader<'_>) -> Option<u16> {
    const HANDLE_MASK: u16 = 0x0fff;
    Some(r.u16()? & HANDLE_MASK)
}
