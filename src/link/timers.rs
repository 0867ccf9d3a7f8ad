//! All deadlines of a link, in one table.

use crate::time::Instant;

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Timer {
    /// The handshake has taken too long.
    Handshake,
    /// No answer to a control message: send it again.
    Control,
    /// The session was without a connection for too long.
    Session,
    /// A packet that others have overtaken counts as lost now.
    Late,
    /// No acknowledgement: send a packet again, to provoke one.
    Probe,
    /// An acknowledgement has waited long enough for data to ride on.
    Ack,
    /// Nothing arrived for a while: ask for a sign of life.
    KeepAlive,
    /// Nothing arrived for too long.
    Dead,
    /// Closing has taken too long.
    Close,
}

impl Timer {
    /// In the order in which they are looked at when several are due: what ends a connection comes first.
    const ALL: [Timer; 9] = [
        Timer::Close,
        Timer::Session,
        Timer::Handshake,
        Timer::Dead,
        Timer::Control,
        Timer::Late,
        Timer::Probe,
        Timer::Ack,
        Timer::KeepAlive,
    ];
}

/// The deadline of each [`Timer`], if it runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    due: [Option<Instant>; Timer::ALL.len()],
}

impl Timers {
    /// How many there are.
    pub(super) const COUNT: usize = Timer::ALL.len();

    pub(super) fn set(&mut self, timer: Timer, due: Instant) {
        self.due[timer as usize] = Some(due);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.due[timer as usize] = None;
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.due[timer as usize].is_some()
    }

    /// Stops all that belong to a connection; those of the session go on.
    pub(super) fn stop_connection(&mut self) {
        let (session, close) = (self.due[Timer::Session as usize], self.due[Timer::Close as usize]);
        *self = Timers::default();
        self.due[Timer::Session as usize] = session;
        self.due[Timer::Close as usize] = close;
    }

    pub(super) fn stop_all(&mut self) {
        *self = Timers::default();
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.iter().flatten().min().copied()
    }

    /// Stops one timer that is due at `now` and names it.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let timer =
            Timer::ALL.into_iter().find(|timer| self.due[*timer as usize].is_some_and(|due| due <= now))?;
        self.stop(timer);
        Some(timer)
    }
}
