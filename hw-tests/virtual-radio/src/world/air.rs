//! Advertising events: who hears them, who is told, who connects.

use gattway::lab::time::Instant;
use gattway::lab::transport::sim::radio::{ConnectionSetup, Phy, Side};

use super::pdu::Pdu;
use super::{Link, World, new_end, radio_parameters};
use crate::controller::Initiator;
use crate::controller::advertising::{AdvertisingSet, CONNECTABLE, DIRECTED};
use crate::hci::PeerAddress;
use crate::hci::error_code::ADVERTISING_TIMEOUT;
use crate::hci::event::{Connected, meta};
use crate::hci::wire::Writer;

/// Advertiser's address and header in front of the data of an advert.
const ADVERT_HEADER_OCTETS: usize = 8;

impl World {
    /// The next advertising event: when, of which controller, of which set.
    pub(super) fn next_advert(&self) -> Option<(Instant, usize, u8)> {
        let powered = self.controllers.iter().enumerate().filter(|(c, _)| self.powered[*c]);
        let sets = powered.flat_map(|(c, controller)| {
            controller
                .sets
                .iter()
                .filter(|(_, set)| set.enabled)
                .map(move |(number, set)| (set.next, c, *number))
        });
        sets.min()
    }

    pub(super) fn advertising_event(&mut self, controller: usize, number: u8) {
        let Some(set) = self.controllers[controller].sets.get_mut(&number) else { return };
        if !set.advance(self.now, &mut self.rng) {
            return self.terminate_set(controller, number, ADVERTISING_TIMEOUT, 0);
        }
        let set = set.clone();
        let from = self.controllers[controller].own_address(set.own_kind, set.random_address);
        let octets = ADVERT_HEADER_OCTETS + set.data.len();
        for other in 0..self.controllers.len() {
            if other == controller || !self.powered[other] {
                continue;
            }
            let interested =
                self.controllers[other].initiator.is_some() || self.controllers[other].scan.enabled;
            let (node, advertiser) = (self.nodes[other], self.nodes[controller]);
            if !interested || !self.radio.draw_reception(advertiser, node, Phy::Le1M, octets) {
                continue;
            }
            if let Some((initiator, own)) = self.wants_connection(other, &set, from) {
                return self.connect(other, controller, number, initiator, from, own);
            }
            self.report(other, controller, &set, from);
        }
    }

    /// The pending connection of `controller`, with its own address, if the advert satisfies it.
    fn wants_connection(
        &self,
        controller: usize,
        set: &AdvertisingSet,
        from: PeerAddress,
    ) -> Option<(Initiator, PeerAddress)> {
        let this = &self.controllers[controller];
        let initiator = this.initiator?;
        let own = this.own_address(initiator.own_kind, None);
        let wanted = initiator.peer.map_or_else(|| this.accept_list.contains(&from), |peer| peer == from);
        let for_us = !set.has(DIRECTED) || set.peer == own;
        (set.has(CONNECTABLE) && wanted && for_us).then_some((initiator, own))
    }

    fn report(&mut self, scanner: usize, advertiser: usize, set: &AdvertisingSet, from: PeerAddress) {
        let rssi = self.radio.path(self.nodes[scanner], self.nodes[advertiser]).rssi_dbm;
        let now = self.now;
        let this = &mut self.controllers[scanner];
        let accepted = !this.scan.accept_list_only || this.accept_list.contains(&from);
        if !accepted || !this.scan.listens_at(now) {
            return;
        }
        let subevent =
            if this.scan.extended { meta::EXTENDED_ADVERTISING_REPORT } else { meta::ADVERTISING_REPORT };
        let reports = this.scan.reports(now, set, from, rssi);
        if self.controllers[scanner].wants(subevent) {
            for report in reports {
                self.send(scanner, report);
            }
        }
    }

    fn connect(
        &mut self,
        central: usize,
        peripheral: usize,
        set: u8,
        initiator: Initiator,
        advertiser: PeerAddress,
        own: PeerAddress,
    ) {
        let (Some(central_handle), Some(peripheral_handle)) =
            (self.free_handle(central), self.free_handle(peripheral))
        else {
            return; // all handles in use: the request goes unanswered
        };
        let parameters = initiator.parameters;
        let setup = ConnectionSetup::initial(radio_parameters(parameters));
        let nodes = (self.nodes[central], self.nodes[peripheral]);
        // the host's parameters were checked when it asked
        let Ok(id) = self.radio.connect(self.now, nodes.0, nodes.1, &setup) else { return };
        self.controllers[central].initiator = None;
        let link = Link {
            central: new_end(central, central_handle),
            peripheral: new_end(peripheral, peripheral_handle),
            parameters,
            phy: Phy::Le1M,
            encrypted: false,
            wanted_key: None,
            since: self.now,
        };
        self.links.insert(id, link);
        let connected = |role, handle, peer| Connected {
            status: 0,
            handle,
            role,
            peer,
            interval: parameters.interval,
            latency: parameters.latency,
            timeout: parameters.timeout,
        };
        self.send_connected(central, connected(0, central_handle, advertiser));
        self.send_connected(peripheral, connected(1, peripheral_handle, own));
        self.terminate_set(peripheral, set, 0, peripheral_handle);
        self.start_procedures(id, central, peripheral);
    }

    /// What controllers do by themselves on a new connection, from what their hosts have set as default.
    fn start_procedures(&mut self, id: super::ConnectionId, central: usize, peripheral: usize) {
        let capabilities = self.config.capabilities;
        if capabilities.two_m && (self.config.moves_to_two_m || self.controllers[central].prefers_two_m) {
            self.send_pdu(id, Side::Central, Pdu::PhyRequest(0b10));
        }
        let suggested = [central, peripheral].map(|c| self.controllers[c].suggested_octets);
        if capabilities.data_length
            && suggested.iter().any(|octets| *octets > crate::controller::INITIAL_OCTETS)
        {
            let receive = self.controllers[central].settings.octets_max();
            self.send_pdu(id, Side::Central, Pdu::LengthRequest(receive, suggested[0]));
        }
    }

    /// A set stops: connected (`status` 0, with the handle), or its time is over.
    fn terminate_set(&mut self, controller: usize, number: u8, status: u8, handle: u16) {
        if let Some(set) = self.controllers[controller].sets.get_mut(&number) {
            set.enabled = false;
        }
        if self.config.capabilities.extended_advertising {
            let parameters = Writer::new().u8(status).u8(number).u16(handle).u8(0).0;
            self.send_meta(controller, meta::ADVERTISING_SET_TERMINATED, &parameters);
        }
    }
}
