//! How a pace of advertising is kept: by an interval where BlueZ takes one, else by registering the advert and withdrawing it.
//!
//! Sans-IO: it is given the time. `firmware-notes/bluez.md` (pace of adverts) says which BlueZ does what.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::profile::AdvertBytes;

/// How long an advert stays registered where it comes and goes: two of BlueZ's default intervals of 1.28 s, with the random delay of
/// each and the time to register, so that two adverts at least go out.
const REGISTERED_FOR: Duration = Duration::from_secs(3);

/// Interval of an advert whose pace nobody has chosen: short enough to be found within a scan window or two.
const STEADY_INTERVAL: Duration = Duration::from_millis(100);

/// What is to be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertOrder {
    /// What it says.
    pub state: AdvertBytes,
    /// How often; `None`: not at all.
    pub interval: Option<Duration>,
}

impl AdvertOrder {
    /// Always at the same, high pace.
    pub fn steady(state: AdvertBytes) -> AdvertOrder {
        AdvertOrder { state, interval: Some(STEADY_INTERVAL) }
    }
}

/// What the pace of an advert depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaceControl {
    /// BlueZ takes the interval that is asked for.
    Interval,
    /// BlueZ has one interval for all adverts, that of its main.conf; seldom is to come and go.
    Registration,
}

impl PaceControl {
    /// One word for scripts.
    pub fn word(self) -> &'static str {
        match self {
            PaceControl::Interval => "interval",
            PaceControl::Registration => "registration",
        }
    }
}

impl fmt::Display for PaceControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PaceControl::Interval => "by the intervals that were asked for",
            PaceControl::Registration => {
                "at the interval of main.conf, as this BlueZ takes no other; seldom by registering and withdrawing"
            }
        })
    }
}

/// Says when an advert is to be registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    control: PaceControl,
    order: AdvertOrder,
    /// When this pace began.
    since: Instant,
}

impl Turns {
    pub(super) fn new(control: PaceControl, order: AdvertOrder, now: Instant) -> Turns {
        Turns { control, order, since: now }
    }

    /// Something else is to be advertised; another pace begins with an advert that is registered.
    pub(super) fn set(&mut self, order: AdvertOrder, now: Instant) {
        if order.interval != self.order.interval {
            self.since = now;
        }
        self.order = order;
    }

    /// What is to be registered now.
    pub(super) fn due(&self, now: Instant) -> AdvertOrder {
        let is_on = self.cycle().is_none_or(|cycle| self.position(now, cycle) < REGISTERED_FOR);
        AdvertOrder { interval: self.order.interval.filter(|_| is_on), ..self.order }
    }

    /// When that changes by itself.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let cycle = self.cycle()?;
        let position = self.position(now, cycle);
        let next = if position < REGISTERED_FOR { REGISTERED_FOR } else { cycle };
        Some(now + (next - position))
    }

    /// How often it is registered, if it comes and goes. It does not where it would be there half of the time or more.
    fn cycle(&self) -> Option<Duration> {
        let is_seldom = |interval: &Duration| *interval >= 2 * REGISTERED_FOR;
        self.order.interval.filter(|_| self.control == PaceControl::Registration).filter(is_seldom)
    }

    fn position(&self, now: Instant, cycle: Duration) -> Duration {
        let passed = now.saturating_duration_since(self.since).as_micros() % cycle.as_micros().max(1);
        Duration::from_micros(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: AdvertBytes = [7; 10];

    fn order(interval_ms: u64) -> AdvertOrder {
        AdvertOrder { state: STATE, interval: (interval_ms > 0).then(|| Duration::from_millis(interval_ms)) }
    }

    /// When it is registered, of the whole seconds of the first 20.
    fn registered(control: PaceControl, interval_ms: u64) -> Vec<u64> {
        let start = Instant::now();
        let turns = Turns::new(control, order(interval_ms), start);
        (0..20).filter(|second| turns.due(start + Duration::from_secs(*second)).interval.is_some()).collect()
    }

    #[test]
    fn an_advert_comes_and_goes_only_where_bluez_takes_no_interval_and_it_is_to_be_seldom() {
        use PaceControl::{Interval, Registration};
        let always: Vec<u64> = (0..20).collect();
        for interval in [100, 1_000, 5_999] {
            assert_eq!(registered(Registration, interval), always, "{interval} ms");
        }
        assert_eq!(registered(Interval, 10_000), always);
        assert_eq!(registered(Registration, 10_000), [0, 1, 2, 10, 11, 12]);
        assert_eq!((registered(Interval, 0), registered(Registration, 0)), (vec![], vec![]));
    }

    #[test]
    fn it_says_when_it_comes_and_goes_and_begins_anew_with_another_pace() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut turns = Turns::new(PaceControl::Registration, order(10_000), start);
        assert_eq!((turns.next(at(0)), turns.next(at(2_999))), (Some(at(3_000)), Some(at(3_000))));
        assert_eq!((turns.next(at(3_000)), turns.due(at(3_000))), (Some(at(10_000)), order(0)));
        turns.set(AdvertOrder { state: [8; 10], ..order(10_000) }, at(4_000));
        assert_eq!(turns.due(at(4_000)).interval, None, "the same pace");
        turns.set(order(8_000), at(5_000));
        assert_eq!(turns.due(at(5_000)), order(8_000));
        turns.set(order(100), at(6_000));
        assert_eq!((turns.next(at(6_000)), turns.due(at(60_000))), (None, order(100)));
    }
}
