//! Advertising sets: what a host has them say. The legacy commands act on a set of their own.

use std::time::Duration;

use gattway::lab::time::Instant;

use crate::hci::{Address, PeerAddress};

/// Advertising event property: connectable.
pub const CONNECTABLE: u16 = 0x01;
/// Advertising event property: answers scan requests.
pub const SCANNABLE: u16 = 0x02;
/// Advertising event property: for one peer.
pub const DIRECTED: u16 = 0x04;
/// Advertising event property: on the primary channels alone, at most 31 octets.
pub const LEGACY: u16 = 0x10;

/// The set that the legacy commands mean.
pub const LEGACY_SET: u8 = 0;
/// Most data of a set, octets; also what the host is told.
pub const DATA_OCTETS_MAX: usize = 251;
/// The unit of advertising intervals.
const INTERVAL_UNIT: Duration = Duration::from_micros(625);
/// The specification's smallest interval, of high duty cycle directed advertising.
const INTERVAL_MIN: Duration = Duration::from_micros(3_750);
/// Most random delay between advertising events (Core 5.2, Vol 6, Part B, 4.4.2.2.1), microseconds.
const DELAY_MAX_US: u64 = 10_000;

/// One advertising set.
#[derive(Clone, Debug, Default)]
pub struct AdvertisingSet {
    /// Whether it is on the air.
    pub enabled: bool,
    /// Event properties, as in the extended command.
    pub properties: u16,
    /// Time between events, before the random delay.
    pub interval: Duration,
    /// Own address type.
    pub own_kind: u8,
    /// Its own random address, if one was set.
    pub random_address: Option<Address>,
    /// The peer of directed advertising.
    pub peer: PeerAddress,
    /// PHY of the primary channel: 1 is 1M.
    pub primary_phy: u8,
    /// PHY of the secondary channel, 0 for legacy.
    pub secondary_phy: u8,
    /// Set identifier on air.
    pub sid: u8,
    /// Advertising data.
    pub data: Vec<u8>,
    /// Scan response data.
    pub scan_response: Vec<u8>,
    /// The next event.
    pub next: Instant,
    /// When it ends by itself.
    pub until: Option<Instant>,
    /// Events left, if the host has limited them.
    pub events_left: Option<u8>,
}

impl AdvertisingSet {
    /// Sets the interval from the host's units of 0.625 ms.
    pub fn set_interval(&mut self, units: u32) {
        self.interval = (INTERVAL_UNIT * units).max(INTERVAL_MIN);
    }

    /// Starts or stops. `duration` in units of 10 ms, 0 for ever; `events` 0 for ever.
    pub fn enable(&mut self, now: Instant, on: bool, duration: u16, events: u8, rng: &mut fastrand::Rng) {
        self.enabled = on;
        self.interval = self.interval.max(INTERVAL_MIN);
        self.next = now + Duration::from_micros(rng.u64(..DELAY_MAX_US));
        self.until = (duration > 0).then(|| now + Duration::from_millis(u64::from(duration) * 10));
        self.events_left = (events > 0).then_some(events);
    }

    /// Moves on to the next event. False: the set has used its time or its events.
    pub fn advance(&mut self, now: Instant, rng: &mut fastrand::Rng) -> bool {
        self.next = now + self.interval + Duration::from_micros(rng.u64(..DELAY_MAX_US));
        let spent = self.until.is_some_and(|until| now >= until) || self.events_left == Some(0);
        self.events_left = self.events_left.map(|left| left.saturating_sub(1));
        !spent
    }

    /// Whether all properties in `mask` are set.
    pub fn has(&self, mask: u16) -> bool {
        self.properties & mask == mask
    }
}

/// Properties that the legacy advertising type `kind` stands for.
pub fn legacy_properties(kind: u8) -> u16 {
    match kind {
        0 => LEGACY | CONNECTABLE | SCANNABLE,
        1 => LEGACY | CONNECTABLE | DIRECTED | 0x08,
        2 => LEGACY | SCANNABLE,
        4 => LEGACY | CONNECTABLE | DIRECTED,
        _ => LEGACY,
    }
}
