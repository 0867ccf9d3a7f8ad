//! Faults on command, and what the world tells about itself.

use std::time::Duration;

use gattway::lab::transport::sim::radio::{ConnectionCounters, Path, Side};

use super::World;
use super::procedure::phy_number;

/// A command names a controller that is not there, or a value that makes no sense; nothing has changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// No such controller.
    #[error("there is no controller {index}, only 0 to {last}")]
    UnknownController {
        /// The number asked for.
        index: usize,
        /// The last one.
        last: usize,
    },
    /// Not a share.
    #[error("a loss of {actual}, allowed is 0 to 1")]
    Loss {
        /// What was asked for.
        actual: f64,
    },
}

/// A controller, for people and tests.
#[derive(Clone, Debug)]
pub struct ControllerReport {
    /// Its number.
    pub index: usize,
    /// Public address.
    pub address: String,
    /// Whether it has power.
    pub powered: bool,
    /// Whether a set is on the air.
    pub advertising: bool,
    /// Whether it scans.
    pub scanning: bool,
    /// Whether its host waits for a connection.
    pub connecting: bool,
    /// Commands of its host so far.
    pub commands: u64,
}

/// A connection, for people and tests.
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    /// Number of the central's controller.
    pub central: usize,
    /// Number of the peripheral's controller.
    pub peripheral: usize,
    /// How long it exists.
    pub age: Duration,
    /// Milliseconds.
    pub interval_ms: f64,
    /// 1 or 2.
    pub phy: u8,
    /// Octets of a data PDU, from the central and from the peripheral.
    pub octets: [u16; 2],
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// What was on the air.
    pub counters: ConnectionCounters,
}

impl World {
    fn check(&self, index: usize) -> Result<(), FaultError> {
        let last = self.controllers.len().saturating_sub(1);
        if index < self.controllers.len() {
            Ok(())
        } else {
            Err(FaultError::UnknownController { index, last })
        }
    }

    /// Pairs that a command means: one, all of one controller, or all.
    fn pairs(&self, a: Option<usize>, b: Option<usize>) -> Result<Vec<(usize, usize)>, FaultError> {
        for index in [a, b].into_iter().flatten() {
            self.check(index)?;
        }
        let count = self.controllers.len();
        let all = (0..count).flat_map(|x| (x + 1..count).map(move |y| (x, y)));
        let has = |x: usize, y: usize, wanted: Option<usize>| wanted.is_none_or(|w| w == x || w == y);
        Ok(all.filter(|(x, y)| has(*x, *y, a) && has(*x, *y, b)).collect())
    }

    fn change_paths(
        &mut self,
        a: Option<usize>,
        b: Option<usize>,
        change: impl Fn(&mut Path),
    ) -> Result<Vec<(usize, usize)>, FaultError> {
        let pairs = self.pairs(a, b)?;
        for (x, y) in &pairs {
            let mut path = self.radio.path(self.nodes[*x], self.nodes[*y]);
            change(&mut path);
            self.radio.set_path(self.nodes[*x], self.nodes[*y], path);
        }
        Ok(pairs)
    }

    /// Puts controllers out of each other's range, or back.
    ///
    /// # Errors
    /// Unknown controller.
    pub fn set_reachable(
        &mut self,
        a: Option<usize>,
        b: Option<usize>,
        reachable: bool,
    ) -> Result<(), FaultError> {
        let pairs = self.change_paths(a, b, |path| path.reachable = reachable)?;
        self.restore.retain(|(_, x, y)| !pairs.contains(&(*x, *y)));
        Ok(())
    }

    /// Puts controllers out of each other's range for a time.
    ///
    /// # Errors
    /// Unknown controller.
    pub fn cut(&mut self, a: Option<usize>, b: Option<usize>, time: Duration) -> Result<(), FaultError> {
        let pairs = self.change_paths(a, b, |path| path.reachable = false)?;
        let until = self.now + time;
        self.restore.retain(|(_, x, y)| !pairs.contains(&(*x, *y)));
        self.restore.extend(pairs.into_iter().map(|(x, y)| (until, x, y)));
        Ok(())
    }

    pub(super) fn restore_paths(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = self.restore.drain(..).partition(|(at, ..)| *at <= now);
        self.restore = later;
        for (_, x, y) in due {
            let mut path = self.radio.path(self.nodes[x], self.nodes[y]);
            path.reachable = true;
            self.radio.set_path(self.nodes[x], self.nodes[y], path);
        }
    }

    /// Sets the share of PDUs that are lost.
    ///
    /// # Errors
    /// Unknown controller, not a share.
    pub fn set_loss(&mut self, a: Option<usize>, b: Option<usize>, loss: f64) -> Result<(), FaultError> {
        if !(0.0..=1.0).contains(&loss) {
            return Err(FaultError::Loss { actual: loss });
        }
        self.change_paths(a, b, |path| path.loss = loss).map(drop)
    }

    /// Sets the signal strength.
    ///
    /// # Errors
    /// Unknown controller.
    pub fn set_rssi(&mut self, a: Option<usize>, b: Option<usize>, rssi_dbm: i8) -> Result<(), FaultError> {
        self.change_paths(a, b, |path| path.rssi_dbm = rssi_dbm).map(drop)
    }

    /// Moves the connections of a controller, or all, to a PHY, as their controllers might by themselves.
    ///
    /// # Errors
    /// Unknown controller.
    pub fn set_phy(&mut self, controller: Option<usize>, two_m: bool) -> Result<(), FaultError> {
        if let Some(index) = controller {
            self.check(index)?;
        }
        let wanted = |link: &super::Link| {
            controller.is_none_or(|c| link.central.controller == c || link.peripheral.controller == c)
        };
        let ids: Vec<_> = self.links.iter().filter(|(_, link)| wanted(link)).map(|(id, _)| *id).collect();
        for id in ids {
            self.announce_phy(id, if two_m { 0b10 } else { 0b01 });
        }
        Ok(())
    }

    /// Takes a controller's power away: it says nothing more to anybody, until its host speaks to it again.
    ///
    /// # Errors
    /// Unknown controller.
    pub fn power_off(&mut self, controller: usize) -> Result<(), FaultError> {
        self.check(controller)?;
        self.forget_links(controller);
        self.controllers[controller].reset();
        self.powered[controller] = false;
        self.out.retain(|(to, _)| *to != controller);
        Ok(())
    }

    /// Makes a controller's scans hear nothing, without a word to its host, until it is reset: discovery that stalls.
    ///
    /// # Errors
    /// Unknown controller.
    pub fn deafen(&mut self, controller: usize) -> Result<(), FaultError> {
        self.check(controller)?;
        self.controllers[controller].scan.deaf = true;
        Ok(())
    }

    /// All controllers.
    pub fn controllers(&self) -> Vec<ControllerReport> {
        let report = |(index, c): (usize, &crate::controller::Controller)| ControllerReport {
            index,
            address: c.settings.address.to_string(),
            powered: self.powered[index],
            advertising: c.sets.values().any(|set| set.enabled),
            scanning: c.scan.enabled,
            connecting: c.initiator.is_some(),
            commands: c.commands,
        };
        self.controllers.iter().enumerate().map(report).collect()
    }

    /// All connections.
    pub fn connections(&self) -> Vec<ConnectionReport> {
        let report = |(id, link): (&super::ConnectionId, &super::Link)| {
            Some(ConnectionReport {
                central: link.end(Side::Central).controller,
                peripheral: link.end(Side::Peripheral).controller,
                age: self.now - link.since,
                interval_ms: self.radio.parameters(*id)?.interval.as_secs_f64() * 1e3,
                phy: phy_number(link.phy),
                octets: [link.central.tx_octets, link.peripheral.tx_octets],
                encrypted: link.encrypted,
                counters: self.radio.counters(*id)?,
            })
        };
        self.links.iter().filter_map(report).collect()
    }
}
