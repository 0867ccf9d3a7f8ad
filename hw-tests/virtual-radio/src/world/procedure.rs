//! Procedures between two link layers: features, version, data length, PHY, connection update, encryption, termination.

use bytes::Bytes;
use gattway::lab::transport::sim::radio::{Change, ConnectionId, Phy, Side};

use super::pdu::Pdu;
use super::{World, radio_parameters};
use crate::controller::{HostParameters, INITIAL_OCTETS, LinkCommand, Outcome};
use crate::hci::error_code::{
    COMMAND_DISALLOWED, KEY_MISSING, LOCAL_HOST_TERMINATED, MIC_FAILURE, SUCCESS, UNKNOWN_CONNECTION,
};
use crate::hci::event::{self, meta};
use crate::hci::wire::Writer;

/// Connection events between the announcement of a change and the change: the least that the specification allows.
const EVENTS_AHEAD: u32 = 6;

/// The answer that refuses a command about a connection, in the form the command asks for.
pub(super) fn refusal(command: &LinkCommand, handle: u16, code: u8) -> Outcome {
    let head = Writer::new().u8(code).u16(handle);
    match command {
        LinkCommand::ReadRssi | LinkCommand::ReadTxPower => Outcome::Complete(head.u8(0).0),
        LinkCommand::ReadPhy => Outcome::Complete(head.u8(1).u8(1).0),
        LinkCommand::LongTermKey(_) | LinkCommand::DataLength { .. } => Outcome::Complete(head.0),
        _ => Outcome::Status(code),
    }
}

impl World {
    pub(super) fn send_pdu(&mut self, id: ConnectionId, side: Side, pdu: Pdu) {
        let octets: Bytes = pdu.encode();
        // a connection that the radio has ended brings its own event
        let _ = self.radio.send_control(id, side, octets);
    }

    pub(super) fn link_command(
        &mut self,
        id: ConnectionId,
        side: Side,
        handle: u16,
        command: LinkCommand,
    ) -> Outcome {
        let done = Writer::new().u8(SUCCESS).u16(handle);
        match command {
            LinkCommand::ReadRssi => {
                let rssi = self.rssi_of(id);
                Outcome::Complete(done.u8(rssi as u8).0)
            }
            LinkCommand::ReadTxPower => Outcome::Complete(done.u8(0).0),
            LinkCommand::ReadPhy => {
                let phy = self.links.get(&id).map_or(1, |link| phy_number(link.phy));
                Outcome::Complete(done.u8(phy).u8(phy).0)
            }
            LinkCommand::Disconnect { reason } => self.start(id, side, Pdu::Terminate(reason)),
            LinkCommand::RemoteFeatures => self.start(id, side, Pdu::FeatureRequest),
            LinkCommand::RemoteVersion => self.ask_version(id, side),
            LinkCommand::Update(parameters) => self.update(id, side, parameters),
            LinkCommand::DataLength { octets } => {
                let controller = self.controller_of(id, side);
                let max = self.controllers[controller].settings.octets_max();
                self.send_pdu(id, side, Pdu::LengthRequest(max, octets.clamp(INITIAL_OCTETS, max)));
                Outcome::Complete(done.0)
            }
            LinkCommand::SetPhy { two_m } => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.end_mut(side).phy_asked = true;
                }
                self.start(id, side, Pdu::PhyRequest(if two_m { 0b10 } else { 0b01 }))
            }
            LinkCommand::EnableEncryption { random, diversifier, key } => {
                if side == Side::Peripheral {
                    return Outcome::Status(COMMAND_DISALLOWED);
                }
                if let Some(link) = self.links.get_mut(&id) {
                    link.wanted_key = Some(key);
                }
                self.start(id, side, Pdu::EncryptionRequest(random, diversifier))
            }
            LinkCommand::LongTermKey(key) => self.long_term_key(id, side, handle, key),
        }
    }

    fn start(&mut self, id: ConnectionId, side: Side, pdu: Pdu) -> Outcome {
        self.send_pdu(id, side, pdu);
        Outcome::Status(SUCCESS)
    }

    fn controller_of(&self, id: ConnectionId, side: Side) -> usize {
        self.links.get(&id).map_or(0, |link| link.end(side).controller)
    }

    fn rssi_of(&self, id: ConnectionId) -> i8 {
        let nodes = (self.radio.node(id, Side::Central), self.radio.node(id, Side::Peripheral));
        let (Some(a), Some(b)) = nodes else { return self.config.path.rssi_dbm };
        self.radio.path(a, b).rssi_dbm
    }

    fn ask_version(&mut self, id: ConnectionId, side: Side) -> Outcome {
        let Some(link) = self.links.get_mut(&id) else { return Outcome::Status(UNKNOWN_CONNECTION) };
        let end = link.end_mut(side);
        if end.peer_version_known {
            let (controller, packet) = (end.controller, event::remote_version(end.handle));
            self.send(controller, packet); // comes before the status: a host waits for both
            return Outcome::Status(SUCCESS);
        }
        end.version_asked = true;
        if end.version_sent {
            return Outcome::Status(SUCCESS);
        }
        end.version_sent = true;
        self.start(id, side, Pdu::Version)
    }

    /// The central announces new parameters. A peripheral asks its peer's host over L2CAP instead.
    fn update(&mut self, id: ConnectionId, side: Side, parameters: HostParameters) -> Outcome {
        if side == Side::Peripheral {
            return Outcome::Status(COMMAND_DISALLOWED);
        }
        let instant = self.instant(id);
        // parameters were checked with the command
        let _ = self.radio.schedule(id, instant, Change::Parameters(radio_parameters(parameters)));
        if let Some(link) = self.links.get_mut(&id) {
            link.parameters = parameters;
        }
        self.start(id, side, Pdu::Update(parameters, instant as u16))
    }

    fn instant(&self, id: ConnectionId) -> u32 {
        self.radio.event_counter(id).unwrap_or(0).wrapping_add(EVENTS_AHEAD)
    }

    /// The peripheral's host has answered the request for its key.
    fn long_term_key(&mut self, id: ConnectionId, side: Side, handle: u16, key: Option<[u8; 16]>) -> Outcome {
        let wanted = self.links.get_mut(&id).and_then(|link| link.wanted_key.take());
        let (Some(wanted), Side::Peripheral) = (wanted, side) else {
            return Outcome::Complete(Writer::new().u8(COMMAND_DISALLOWED).u16(handle).0);
        };
        let pdu = match key {
            None => Pdu::Reject(KEY_MISSING),
            Some(key) if key == wanted => Pdu::StartEncryption,
            Some(_) => Pdu::Terminate(MIC_FAILURE),
        };
        self.send_pdu(id, side, pdu);
        Outcome::Complete(Writer::new().u8(SUCCESS).u16(handle).0)
    }

    /// A control PDU has arrived at `side`.
    pub(super) fn handle_pdu(&mut self, id: ConnectionId, side: Side, pdu: Pdu) {
        let features = self.config.capabilities.le_features();
        let Some(link) = self.links.get_mut(&id) else { return };
        let end = link.end_mut(side);
        let (controller, handle) = (end.controller, end.handle);
        match pdu {
            Pdu::FeatureRequest => self.send_pdu(id, side, Pdu::FeatureResponse(features)),
            Pdu::FeatureResponse(features) => {
                let parameters = Writer::new().u8(SUCCESS).u16(handle).bytes(&features).0;
                self.send_meta(controller, meta::REMOTE_FEATURES_COMPLETE, &parameters);
            }
            Pdu::Version => {
                end.peer_version_known = true;
                let asked = std::mem::take(&mut end.version_asked);
                if !std::mem::replace(&mut end.version_sent, true) {
                    self.send_pdu(id, side, Pdu::Version);
                }
                if asked {
                    self.send(controller, event::remote_version(handle));
                }
            }
            Pdu::LengthRequest(receive, transmit) => self.agree_length(id, side, receive, transmit, true),
            Pdu::LengthResponse(receive, transmit) => self.agree_length(id, side, receive, transmit, false),
            Pdu::PhyRequest(phys) if side == Side::Peripheral => {
                let own = if self.config.capabilities.two_m { 0b11 } else { 0b01 };
                self.send_pdu(id, side, Pdu::PhyResponse(phys & own));
            }
            Pdu::PhyRequest(phys) | Pdu::PhyResponse(phys) => self.announce_phy(id, phys),
            // both ends act when the radio says that the event has come
            Pdu::PhyUpdate(..) | Pdu::Update(..) => {}
            Pdu::EncryptionRequest(random, diversifier) => {
                let parameters = Writer::new().u16(handle).u64(random).u16(diversifier).0;
                self.send_meta(controller, meta::LTK_REQUEST, &parameters);
            }
            Pdu::StartEncryption => self.encryption_starts(id),
            Pdu::Reject(reason) => self.send(controller, event::encryption_change(reason, handle)),
            Pdu::Terminate(reason) => self.terminated(id, side, reason),
        }
    }

    /// The peer has said how long its PDUs may be; `answer` if it has asked.
    fn agree_length(
        &mut self,
        id: ConnectionId,
        side: Side,
        peer_receive: u16,
        peer_transmit: u16,
        answer: bool,
    ) {
        let controller = self.controller_of(id, side);
        let settings = &self.controllers[controller].settings;
        let receive_max = settings.octets_max();
        let own_transmit = self.controllers[controller].suggested_octets;
        let Some(link) = self.links.get_mut(&id) else { return };
        let end = link.end_mut(side);
        let before = (end.tx_octets, end.rx_octets);
        end.tx_octets = own_transmit.min(peer_receive).max(INITIAL_OCTETS);
        end.rx_octets = receive_max.min(peer_transmit).max(INITIAL_OCTETS);
        let after = (end.tx_octets, end.rx_octets);
        let handle = end.handle;
        if answer {
            self.send_pdu(id, side, Pdu::LengthResponse(receive_max, own_transmit));
        }
        // within the radio's bounds by the two lines above
        let _ = self.radio.set_data_length(id, side, after.0);
        if before != after {
            let time = |octets: u16| (octets + 14) * 8;
            let parameters =
                Writer::new().u16(handle).u16(after.0).u16(time(after.0)).u16(after.1).u16(time(after.1)).0;
            self.send_meta(controller, meta::DATA_LENGTH_CHANGE, &parameters);
        }
    }

    /// The central's controller chooses among the PHYs that both take.
    pub(super) fn announce_phy(&mut self, id: ConnectionId, phys: u8) {
        let two_m = self.config.capabilities.two_m && phys & 0b10 != 0;
        let phy = if two_m { Phy::Le2M } else { Phy::Le1M };
        let instant = self.instant(id);
        let _ = self.radio.schedule(id, instant, Change::Phy { central: phy, peripheral: phy });
        self.send_pdu(id, Side::Central, Pdu::PhyUpdate(phy_number(phy), instant as u16));
    }

    /// A change agreed for a certain connection event has come.
    pub(super) fn handle_change(&mut self, id: ConnectionId, change: Change) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (subevent, tail, everybody) = match change {
            Change::Parameters(_) => {
                let p = link.parameters;
                let tail = Writer::new().u16(p.interval).u16(p.latency).u16(p.timeout).0;
                (meta::CONNECTION_UPDATE_COMPLETE, tail, true)
            }
            Change::Phy { central, .. } => {
                let changed = std::mem::replace(&mut link.phy, central) != central;
                let number = phy_number(central);
                (meta::PHY_UPDATE_COMPLETE, vec![number, number], changed)
            }
        };
        let mut told = Vec::new();
        for side in [Side::Central, Side::Peripheral] {
            let end = link.end_mut(side);
            let asked = subevent == meta::PHY_UPDATE_COMPLETE && std::mem::take(&mut end.phy_asked);
            if (everybody || asked) && !end.gone {
                told.push((end.controller, end.handle));
            }
        }
        for (controller, handle) in told {
            let parameters = Writer::new().u8(SUCCESS).u16(handle).bytes(&tail).0;
            self.send_meta(controller, subevent, &parameters);
        }
    }

    fn encryption_starts(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let refresh = std::mem::replace(&mut link.encrypted, true);
        let _ = self.radio.set_encrypted(id, true);
        for side in [Side::Central, Side::Peripheral] {
            self.tell_end(id, side, |end| match refresh {
                true => event::encryption_key_refresh(end.handle),
                false => event::encryption_change(SUCCESS, end.handle),
            });
        }
    }

    /// The peer of `side` has ended the connection; that peer's host is told too.
    fn terminated(&mut self, id: ConnectionId, side: Side, reason: u8) {
        let own = if reason == MIC_FAILURE { MIC_FAILURE } else { LOCAL_HOST_TERMINATED };
        self.radio.remove(id);
        self.end_of_link(id, side, reason);
        self.end_of_link(id, side.other(), own);
    }
}

pub(super) fn phy_number(phy: Phy) -> u8 {
    match phy {
        Phy::Le1M => 1,
        Phy::Le2M => 2,
        Phy::LeCodedS2 | Phy::LeCodedS8 => 3,
    }
}
