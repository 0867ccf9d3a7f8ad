//! What a field device's radio takes for a day of hourly readings: synced in several ways, and read as a log over a UART service.
//!
//! The device advertises, so it is the peripheral here; the gateway is near, hears its advert and fetches. Its adverts are counted by
//! the state machine that decides them in a node.

use std::time::Duration;

use super::CliError;
use super::energy::{LOSS_PERCENT, READING_BYTES, open, radio, reading};
use super::figure::Figure;
use crate::cli::commands::demo::save;
use crate::cli::support::air::{Air, Moment, Protection};
use crate::cli::support::error::Exit;
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::runtime;
use crate::link::AttMtu;
use crate::node::advertising::{AdvertPolicy, Advertiser, Pace, Summary};
use crate::time::Instant;
use crate::transport::clock::Clock;
use crate::transport::sim::energy::{NRF54L15, NRF52840, RadioPower};
use crate::transport::sim::radio::{ConnectionCounters, ConnectionSetup, Path, Phy, Side};
use crate::transport::sim::uart_log::UartLog;

/// Readings of a day.
const READINGS: u32 = 24;
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Octets of data of our advertisement: the most that a legacy one has.
const ADVERTISEMENT_OCTETS: usize = 31;

/// How long the devices are apart after a cut.
const APART: Duration = Duration::from_secs(5);

/// A node looks a second after a connection has ended at what peers have; so long an advert says that something is pending.
const LOOK: Duration = Duration::from_secs(1);

/// One way of a day.
struct Course {
    case: &'static str,
    loss: f64,
    cut: bool,
}

const COURSES: [Course; 3] = [
    Course { case: "no loss", loss: 0.0, cut: false },
    Course { case: "5 % loss", loss: LOSS_PERCENT, cut: false },
    Course { case: "one cut", loss: 0.0, cut: true },
];

/// What the connections of a day took.
struct Day {
    radio: ConnectionCounters,
    /// How long each took, finding and connecting included.
    visits: Vec<Duration>,
}

/// How the device advertises.
enum Adverts {
    Each(Duration),
    By(AdvertPolicy),
}

/// How the readings get away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carriage {
    Synced,
    UartLog,
}

struct Row {
    name: &'static str,
    carriage: Carriage,
    readings_each: u32,
    adverts: Adverts,
}

const EACH_SECOND: Adverts = Adverts::Each(Duration::from_secs(1));
const EACH_10_S: Adverts = Adverts::Each(Duration::from_secs(10));

fn rows() -> Vec<Row> {
    use Carriage::{Synced, UartLog};
    let row = |name, carriage, readings_each, adverts| Row { name, carriage, readings_each, adverts };
    let slow = AdvertPolicy { slow_interval: Duration::from_secs(10), ..AdvertPolicy::default() };
    let silent = AdvertPolicy {
        silent_after: Some(Duration::from_secs(10)),
        silent_for: HOUR,
        ..AdvertPolicy::default()
    };
    vec![
        row("synced each hour, advertised each second", Synced, 1, EACH_SECOND),
        row("synced each hour, advertised each 10 s", Synced, 1, EACH_10_S),
        row("synced each day, advertised each second", Synced, READINGS, EACH_SECOND),
        row("synced each day, advertised each 10 s", Synced, READINGS, EACH_10_S),
        row(
            "synced when an advert tells of it, default policy",
            Synced,
            1,
            Adverts::By(AdvertPolicy::default()),
        ),
        row("synced when an advert tells of it, else each 10 s", Synced, 1, Adverts::By(slow)),
        row("synced when an advert tells of it, else silent", Synced, 1, Adverts::By(silent)),
        row("log over UART read each hour, advertised each second", UartLog, 1, EACH_SECOND),
        row("log over UART read each hour, advertised each 10 s", UartLog, 1, EACH_10_S),
        row("log over UART read each day, advertised each second", UartLog, READINGS, EACH_SECOND),
        row("log over UART read each day, advertised each 10 s", UartLog, READINGS, EACH_10_S),
    ]
}

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-days")?;
    let rows = rows();
    let mut figures = Vec::new();
    for carriage in [Carriage::Synced, Carriage::UartLog] {
        for readings_each in [1, READINGS] {
            for course in &COURSES {
                let day = match carriage {
                    Carriage::Synced => synced(&place, readings_each, course)?,
                    Carriage::UartLog => read(readings_each, course)?,
                };
                let is_of = |row: &&Row| row.carriage == carriage && row.readings_each == readings_each;
                for row in rows.iter().filter(is_of) {
                    figures.extend(in_all(row, &day, course.case));
                }
                let what = match carriage {
                    Carriage::Synced => format!("{readings_each} a sync, {}: syncs alone", course.case),
                    Carriage::UartLog => {
                        format!("{readings_each} a read over UART, {}: reads alone", course.case)
                    }
                };
                let alone = connections_mj(&NRF52840, &day);
                figures.push(Figure::new(
                    "energy",
                    format!("a day of 24 readings, {what}, nRF52840"),
                    alone,
                    "mJ",
                ));
            }
        }
    }
    Ok(figures)
}

fn in_all(row: &Row, day: &Day, case: &str) -> [Figure; 2] {
    let adverts = advertised(&row.adverts, row.readings_each, &day.visits);
    [NRF52840, NRF54L15].map(|power| {
        let name = format!("a day of 24 readings, {}, {case}: {} in all", row.name, power.name);
        let advert_mj = adverts * power.advertisement_uj(ADVERTISEMENT_OCTETS) / 1e3;
        Figure::new("energy", name, connections_mj(&power, day) + advert_mj, "mJ")
    })
}

/// What the device's radio takes while it is connected, millijoules.
fn connections_mj(power: &RadioPower, day: &Day) -> f64 {
    power.connection_uj(&day.radio, Side::Peripheral, Phy::Le2M) / 1e3
}

/// Advertisements of a day, counted as if they went on during connections.
fn advertised(adverts: &Adverts, readings_each: u32, visits: &[Duration]) -> f64 {
    let policy = match adverts {
        Adverts::Each(interval) => return DAY.as_secs_f64() / interval.as_secs_f64(),
        Adverts::By(policy) => policy.clone(),
    };
    // The day begins with nothing pending; a reading comes at half past each hour and is fetched at once.
    let mut advertiser = Advertiser::new(policy, Instant::ZERO, Summary::default());
    let mut count = Count { since: Instant::ZERO, adverts: 0.0 };
    let mut summary = Summary::default();
    for hour in 0..READINGS {
        let saved = Instant::ZERO + HOUR * hour + HOUR / 2;
        (summary.change, summary.pending) = (summary.change + 1, summary.pending + 1);
        count.until(saved, &mut advertiser);
        advertiser.handle_summary(saved, summary);
        if (hour + 1) % readings_each == 0 {
            let visit = visits.get((hour / readings_each) as usize).copied().unwrap_or_default();
            let fetched = saved + visit + LOOK;
            count.until(fetched, &mut advertiser);
            summary.pending = 0;
            advertiser.handle_summary(fetched, summary);
        }
    }
    count.until(Instant::ZERO + DAY, &mut advertiser);
    count.adverts
}

/// Counts adverts while time passes.
struct Count {
    since: Instant,
    adverts: f64,
}

impl Count {
    /// Lets the state machine go on until then.
    fn until(&mut self, end: Instant, advertiser: &mut Advertiser) {
        loop {
            advertiser.poll(self.since);
            let next = advertiser.poll_at(self.since).filter(|next| *next < end).unwrap_or(end);
            let pace: Pace = advertiser.advert().pace;
            if let Some(interval) = advertiser.interval(pace) {
                self.adverts += next.since(self.since).as_secs_f64() / interval.as_secs_f64();
            }
            self.since = next;
            if next >= end {
                return;
            }
        }
    }
}

/// The syncs of a day; the database has been synced before.
fn synced(place: &TemporaryDirectory, readings_each: u32, course: &Course) -> Result<Day, CliError> {
    let (field, collection, gateway) = open(place, &format!("day-{readings_each}-{}", course.case))?;
    runtime::block_on(async {
        // The device is the one that is connected to.
        let air = Air::start(&radio(course.loss), &field, Clock::new(), Protection::Secure).await?;
        air.sync(&gateway, &mut |_| ()).await?;
        let mut day = Day { radio: ConnectionCounters::default(), visits: Vec::new() };
        let mut is_cut = !course.cut;
        for n in 0..READINGS {
            save(&field, &collection, &[reading(n)])?;
            if (n + 1) % readings_each != 0 {
                continue;
            }
            let mut watch = |moment: &Moment<'_>| {
                if !std::mem::replace(&mut is_cut, true) {
                    moment.air.cut(APART);
                }
            };
            let (_, traffic) = air.sync(&gateway, &mut watch).await?;
            day.radio = day.radio.plus(traffic.radio);
            day.visits.push(Duration::from_secs_f64(traffic.seconds));
        }
        Ok(day)
    })
}

/// The reads of a day, each of what has come since the one before; a cut is in the first.
fn read(readings_each: u32, course: &Course) -> Result<Day, CliError> {
    let mut day = Day { radio: ConnectionCounters::default(), visits: Vec::new() };
    for n in 0..READINGS / readings_each {
        let log = UartLog {
            setup: ConnectionSetup::default(),
            att_mtu: AttMtu::new(247),
            path: Path { loss: course.loss / 100.0, ..Path::default() },
            record_bytes: READING_BYTES,
            records: readings_each as usize,
            cut: (course.cut && n == 0).then_some(APART),
            seed: u64::from(n) + 1,
        };
        let read = log.read().map_err(|error| CliError::new(Exit::Failure, error.to_string()))?;
        day.radio = day.radio.plus(read.radio);
        day.visits.push(Duration::from_secs_f64(read.seconds));
    }
    Ok(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adverts_of(policy: AdvertPolicy) -> f64 {
        advertised(&Adverts::By(policy), 1, &[Duration::from_secs(1); READINGS as usize])
    }

    /// 2 s fast of each hour, the rest slow: 24 x (20 + 3,598).
    #[test]
    fn adverts_of_a_day_are_counted_by_the_state_machine() {
        assert_eq!(adverts_of(AdvertPolicy::default()).round(), 24.0 * (20.0 + 3_598.0));
        let silent = AdvertPolicy {
            silent_after: Some(Duration::from_secs(10)),
            silent_for: HOUR,
            ..AdvertPolicy::default()
        };
        assert_eq!(adverts_of(silent).round(), 10.0 + 24.0 * (20.0 + 10.0));
        assert_eq!(advertised(&EACH_10_S, 1, &[]), 8_640.0);
    }
}
