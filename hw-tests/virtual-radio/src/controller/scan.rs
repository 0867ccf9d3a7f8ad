//! Scanning: which adverts a host is told of, and the reports.

use std::collections::HashMap;
use std::time::Duration;

use gattway::lab::time::Instant;

use super::advertising::{AdvertisingSet, CONNECTABLE, DIRECTED, LEGACY, SCANNABLE};
use crate::hci::PeerAddress;
use crate::hci::event::{le_meta, meta};
use crate::hci::wire::Writer;

/// With the host's duplicate filter on, an advertiser is still reported this often: kernel 6.1 drops a report that comes before its
/// own discovery state is "active", so a report that came but once would be lost for good.
const DUPLICATE_REPEAT: Duration = Duration::from_millis(50);
/// Advertisers remembered for that; more make it forget all, which costs reports, not memory.
const SEEN_MAX: usize = 256;
/// Most data in one extended report: an event has 255 octets, 26 of them are taken.
const REPORT_DATA_MAX: usize = 229;
/// "More data follows in the next report" in an extended report's event type.
const DATA_INCOMPLETE: u16 = 0x20;
/// "This is a scan response" in an extended report's event type.
const SCAN_RESPONSE: u16 = 0x08;
/// No transmit power, no set identifier.
const NOT_AVAILABLE: u8 = 0x7f;
const NO_SID: u8 = 0xff;

/// What the host has set, and whom it was told of.
#[derive(Default)]
pub struct Scan {
    /// Whether it scans.
    pub enabled: bool,
    /// Started by the extended command: reports are extended ones.
    pub extended: bool,
    /// Asks advertisers for their scan response.
    pub active: bool,
    /// Filter policy 1: only the accept list.
    pub accept_list_only: bool,
    /// The host wants each advertiser once.
    pub filter_duplicates: bool,
    /// Time between the starts of two windows.
    pub interval: Duration,
    /// Time it listens in each interval.
    pub window: Duration,
    /// Hears nothing, until the controller is reset: a fault on command.
    pub deaf: bool,
    since: Instant,
    seen: HashMap<PeerAddress, Instant>,
}

impl Scan {
    /// Starts or stops.
    pub fn enable(&mut self, now: Instant, on: bool, filter_duplicates: bool, extended: bool) {
        self.enabled = on;
        self.filter_duplicates = filter_duplicates;
        self.extended = extended;
        self.since = now;
        self.seen.clear();
    }

    /// Whether the receiver is on at `now`.
    pub fn listens_at(&self, now: Instant) -> bool {
        let interval = self.interval.as_micros() as u64;
        let phase = (now - self.since).as_micros() as u64 % interval.max(1);
        self.enabled && (interval == 0 || phase <= self.window.as_micros() as u64)
    }

    /// The reports of one advert that was heard from `from`.
    pub fn reports(
        &mut self,
        now: Instant,
        set: &AdvertisingSet,
        from: PeerAddress,
        rssi_dbm: i8,
    ) -> Vec<Vec<u8>> {
        let legacy = set.has(LEGACY);
        if self.deaf || (!legacy && !self.extended) {
            return Vec::new(); // a host of legacy commands has no event for it
        }
        if self.filter_duplicates && self.seen.get(&from).is_some_and(|at| now < *at + DUPLICATE_REPEAT) {
            return Vec::new();
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        self.seen.insert(from, now);
        let mut reports = Vec::new();
        // An extended scannable set has its data in the scan response alone.
        self.report(&mut reports, set, false, from, rssi_dbm);
        if self.active && set.has(SCANNABLE) {
            self.report(&mut reports, set, true, from, rssi_dbm);
        }
        reports
    }

    fn report(
        &self,
        out: &mut Vec<Vec<u8>>,
        set: &AdvertisingSet,
        response: bool,
        from: PeerAddress,
        rssi_dbm: i8,
    ) {
        let data = if response { &set.scan_response } else { &set.data };
        if !self.extended {
            let data = &data[..data.len().min(31)];
            let kind = legacy_report_kind(set.properties, response);
            let report =
                Writer::new().u8(1).u8(kind).peer(from).u8(data.len() as u8).bytes(data).u8(rssi_dbm as u8);
            out.push(le_meta(meta::ADVERTISING_REPORT, &report.0));
            return;
        }
        let legacy = set.has(LEGACY);
        let kind = set.properties & (CONNECTABLE | SCANNABLE | DIRECTED | LEGACY)
            | if response { SCAN_RESPONSE } else { 0 };
        let mut rest = &data[..];
        loop {
            let (part, later) = rest.split_at(rest.len().min(REPORT_DATA_MAX));
            rest = later;
            let kind = kind | if rest.is_empty() { 0 } else { DATA_INCOMPLETE };
            let report =
                Writer::new().u8(1).u16(kind).peer(from).u8(set.primary_phy.max(1)).u8(set.secondary_phy);
            let report =
                report.u8(if legacy { NO_SID } else { set.sid }).u8(NOT_AVAILABLE).u8(rssi_dbm as u8);
            // no periodic advertising, no direct address
            let report = report.u16(0).u8(0).bytes(&[0; 6]).u8(part.len() as u8).bytes(part);
            out.push(le_meta(meta::EXTENDED_ADVERTISING_REPORT, &report.0));
            if rest.is_empty() {
                return;
            }
        }
    }
}

fn legacy_report_kind(properties: u16, response: bool) -> u8 {
    let has = |mask| properties & mask == mask;
    match () {
        () if response => 4,
        () if has(CONNECTABLE | DIRECTED) => 1,
        () if has(CONNECTABLE) => 0,
        () if has(SCANNABLE) => 2,
        () => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::advertising::legacy_properties;

    fn advert(octets: usize) -> AdvertisingSet {
        AdvertisingSet {
            properties: 0,
            data: vec![7; octets],
            sid: 3,
            primary_phy: 1,
            secondary_phy: 2,
            ..Default::default()
        }
    }

    #[test]
    fn long_data_comes_in_parts_that_say_so() {
        let mut scan = Scan { extended: true, enabled: true, ..Default::default() };
        let reports = scan.reports(Instant::ZERO, &advert(251), PeerAddress::default(), -50);
        let lengths: Vec<_> = reports.iter().map(|r| (r[5] & 0x60, r[28])).collect();
        assert_eq!(lengths, [(0x20, 229), (0, 22)]);
    }

    #[test]
    fn duplicates_are_repeated_but_rarely() {
        let mut scan = Scan { extended: true, enabled: true, filter_duplicates: true, ..Default::default() };
        let mut count =
            |at| scan.reports(Instant::from_micros(at), &advert(3), PeerAddress::default(), -50).len();
        assert_eq!([count(0), count(49_000), count(50_000), count(51_000)], [1, 0, 1, 0]);
    }

    #[test]
    fn a_deaf_controller_reports_nothing_until_it_is_reset() {
        let mut scan = Scan { extended: true, deaf: true, ..Default::default() };
        scan.enable(Instant::ZERO, true, false, true);
        assert!(scan.reports(Instant::ZERO, &advert(3), PeerAddress::default(), -50).is_empty());
        assert!(!Scan::default().deaf, "a reset begins with the default");
    }

    #[test]
    fn an_active_scan_gives_advert_and_response() {
        let mut scan = Scan { extended: true, enabled: true, active: true, ..Default::default() };
        let set = AdvertisingSet { properties: legacy_properties(0), ..Default::default() };
        let reports = scan.reports(Instant::ZERO, &set, PeerAddress::default(), -50);
        let kinds: Vec<_> = reports.iter().map(|r| u16::from_le_bytes([r[5], r[6]])).collect();
        assert_eq!(kinds, [0x13, 0x1b]);
    }
}
