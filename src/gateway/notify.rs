//! What the service manager is told: when all has begun, what goes on, and that it still works (sd_notify(3)). Without one
//! nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The service manager, if this process is a service.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    /// What it was told of the state.
    told: String,
}

impl ServiceManager {
    /// Whether anybody is told.
    pub(crate) fn is_there(&self) -> bool {
        std::env::var_os("NOTIFY_SOCKET").is_some()
    }

    /// Everything has begun, or a new configuration holds.
    pub(crate) fn ready(&mut self) {
        send(&[NotifyState::Ready]);
    }

    /// A new configuration is about to hold.
    pub(crate) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "no monotonic clock"),
        }
    }

    /// The end has begun.
    pub(crate) fn stopping(&mut self) {
        send(&[NotifyState::Stopping]);
    }

    /// One line of what goes on, for `systemctl status`.
    pub(crate) fn status(&mut self, line: String) {
        if line != self.told {
            send(&[NotifyState::Status(&line)]);
            self.told = line;
        }
    }

    /// It works.
    pub(crate) fn alive(&mut self) {
        send(&[NotifyState::Watchdog]);
    }

    /// How often it wants to hear that, if it does.
    pub(crate) fn wants_to_hear(&self) -> Option<Duration> {
        let mut usec = 0;
        sd_notify::watchdog_enabled(false, &mut usec).then(|| Duration::from_micros(usec))
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        debug!(%error, "the service manager cannot be told");
    }
}
