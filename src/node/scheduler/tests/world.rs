//! Field devices around a gateway, in virtual time: a model of radios that connect to one device at a time, share their goodput
//! among connections, and hear nothing else while they connect.

use super::super::*;

/// How long a device gathers what it makes in the figures: an hour.
pub(super) const PERIOD: f64 = 3_600.0;
/// Simulated time; what is moved is counted after the first hour.
const HOURS: f64 = 2.0;
const STEP: f64 = 0.5;
/// A connection is made; nothing else can be connected meanwhile.
const CONNECT: f64 = 1.0;
/// Discovery, handshake, checkpoints.
const GREET: f64 = 1.0;
/// The end of a connection, which holds its slot.
const PART: f64 = 2.0;
/// An attempt at a device that does not answer.
const IN_VAIN: f64 = 10.0;
/// Bytes a second of one radio, shared by its connections.
const GOODPUT: f64 = 60_000.0;
/// The mean time until a listening radio hears a device.
const HEARD_EVERY: f64 = 1.0;
/// How often a device makes something.
const READING: f64 = 60.0;
/// How long a device that passes by is there.
const STAY: f64 = 60.0;

#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) devices: u32,
    /// Made by each, in an hour.
    pub(super) bytes: u32,
    pub(super) radios: usize,
    pub(super) slots: usize,
    /// The share of devices that are not reached half of the time.
    pub(super) flaky: f64,
    /// Devices an hour that come by once, each with a reading.
    pub(super) passing: u32,
    pub(super) seed: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { devices: 10, bytes: 1_000, radios: 1, slots: 5, flaky: 0.0, passing: 0, seed: 1 }
    }
}

impl Config {
    /// What all devices make in the time that counts.
    pub(super) fn made(&self) -> f64 {
        f64::from(self.devices) * f64::from(self.bytes) * (HOURS - 1.0)
    }

    /// By how much one visit of each device in an hour, one after the other, fills the hour.
    pub(super) fn load(&self) -> f64 {
        let visit = CONNECT + GREET + PART + f64::from(self.bytes) / GOODPUT;
        f64::from(self.devices) * visit / PERIOD / self.radios as f64
    }

    /// What visits one after the other can move.
    pub(super) fn bound(&self) -> f64 {
        self.made() / self.load().max(1.0)
    }
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Bytes in the time that counts.
    pub(super) moved: f64,
    /// Seconds that the oldest reading waited, of devices that answer, and of flaky ones.
    pub(super) longest_wait: f64,
    pub(super) longest_wait_flaky: f64,
    /// Visits of the device that had fewest, and of the one that had most; of those that answer.
    pub(super) visits: [u32; 2],
    /// The share of those that passed by which was met.
    pub(super) met_passing: f64,
}

#[derive(Default)]
struct Device {
    flaky: bool,
    passes: Option<(f64, f64)>,
    pending: f64,
    oldest: Option<f64>,
    visits: u32,
    link: Option<Link>,
}

struct Link {
    radio: usize,
    /// When what it does now is over; `None` while bytes move.
    until: Option<f64>,
    doing: Doing,
}

enum Doing {
    Connect { in_vain: bool },
    Greet,
    Move,
    Part,
}

pub(super) fn run(config: &Config) -> Seen {
    let mut world = World::new(config);
    let steps = (HOURS * PERIOD / STEP) as usize;
    for step in 0..steps {
        world.step(step as f64 * STEP);
    }
    world.seen()
}

struct World<'a> {
    config: &'a Config,
    random: fastrand::Rng,
    plan: Scheduler<u32>,
    devices: Vec<Device>,
    waits: [f64; 2],
    moved: f64,
    /// Devices that are connected to.
    linked: Vec<u32>,
}

impl World<'_> {
    fn new(config: &Config) -> World<'_> {
        let mut random = fastrand::Rng::with_seed(config.seed);
        let settings = Settings { kept: 0, all: false, seed: config.seed };
        let mut devices: Vec<Device> = (0..config.devices)
            .map(|_| Device { flaky: random.f64() < config.flaky, ..Device::default() })
            .collect();
        for _ in 0..(f64::from(config.passing) * HOURS) as u32 {
            let comes = random.f64() * (HOURS * PERIOD - STAY);
            let reading = f64::from(config.bytes) * READING / PERIOD;
            let passes = Some((comes, comes + STAY));
            devices.push(Device { passes, pending: reading, ..Device::default() });
        }
        let plan = Scheduler::new(settings, &vec![super::radio(config.slots); config.radios]);
        World { config, random, plan, devices, waits: [0.0; 2], moved: 0.0, linked: Vec::new() }
    }

    fn step(&mut self, now: f64) {
        self.make(now);
        self.hear(now);
        self.go_on(now);
        while let Some(action) = self.plan.next(super::at(now)) {
            let Action::Visit { key, radio, .. } = action else { panic!("nothing is kept") };
            let device = &mut self.devices[key as usize];
            let gone = device.passes.is_some_and(|(_, leaves)| now + CONNECT > leaves);
            let in_vain = gone || device.flaky && self.random.bool();
            let lasts = if in_vain { IN_VAIN } else { CONNECT };
            self.linked.push(key);
            device.link = Some(Link { radio, until: Some(now + lasts), doing: Doing::Connect { in_vain } });
        }
    }

    /// Each device makes something at a time of its own within the minute.
    fn make(&mut self, now: f64) {
        let reading = f64::from(self.config.bytes) * READING / PERIOD;
        let each = (READING / STEP) as usize;
        let step = (now / STEP) as usize % each;
        for device in
            self.devices.iter_mut().skip(step).step_by(each).filter(|device| device.passes.is_none())
        {
            device.pending += reading;
            device.oldest.get_or_insert(now);
        }
    }

    fn hear(&mut self, now: f64) {
        for radio in 0..self.config.radios {
            if !self.plan.listens(super::at(now), radio) {
                continue;
            }
            for (key, device) in self.devices.iter().enumerate() {
                let there = device.passes.is_none_or(|(comes, leaves)| (comes..leaves).contains(&now));
                if !there || device.link.is_some() || self.random.f64() >= STEP / HEARD_EVERY {
                    continue;
                }
                let news = if device.pending > 0.0 { News::Pending(1) } else { News::None };
                self.plan.heard(super::at(now), radio, key as u32, news);
            }
        }
    }

    fn go_on(&mut self, now: f64) {
        let mut moving = vec![0_u32; self.config.radios];
        for key in &self.linked {
            if let Some(Link { radio, doing: Doing::Move, .. }) = self.devices[*key as usize].link {
                moving[radio] += 1;
            }
        }
        for key in std::mem::take(&mut self.linked) {
            let device = &mut self.devices[key as usize];
            let Some(link) = &mut device.link else { continue };
            self.linked.push(key);
            if link.until.is_some_and(|until| now < until) {
                continue;
            }
            (link.doing, link.until) = match link.doing {
                Doing::Connect { in_vain: true } => {
                    self.plan.ended(super::at(now), key, Ending::Failed);
                    device.link = None;
                    self.linked.pop();
                    continue;
                }
                Doing::Connect { in_vain: false } => {
                    self.plan.connected(key);
                    (Doing::Greet, Some(now + GREET))
                }
                Doing::Greet => (Doing::Move, None),
                Doing::Move => {
                    let share = GOODPUT * STEP / f64::from(moving[link.radio].max(1));
                    let moved = share.min(device.pending);
                    device.pending -= moved;
                    if now >= PERIOD {
                        self.moved += moved;
                    }
                    if device.pending > 0.0 {
                        continue;
                    }
                    if let Some(oldest) = device.oldest.take() {
                        let wait = &mut self.waits[usize::from(device.flaky)];
                        *wait = wait.max(now - oldest);
                    }
                    (Doing::Part, Some(now + PART))
                }
                Doing::Part => {
                    self.plan.ended(super::at(now), key, Ending::Done);
                    device.visits += 1;
                    device.link = None;
                    self.linked.pop();
                    continue;
                }
            };
        }
    }

    fn seen(self) -> Seen {
        let end = HOURS * PERIOD;
        let mut seen = Seen { moved: self.moved, ..Seen::default() };
        [seen.longest_wait, seen.longest_wait_flaky] = self.waits;
        // What still waits has waited too.
        for device in &self.devices {
            if let Some(oldest) = device.oldest {
                let wait = if device.flaky { &mut seen.longest_wait_flaky } else { &mut seen.longest_wait };
                *wait = wait.max(end - oldest);
            }
        }
        let stay = |device: &&Device| device.passes.is_none() && !device.flaky;
        let visits = || self.devices.iter().filter(stay).map(|device| device.visits);
        seen.visits = [visits().min().unwrap_or(0), visits().max().unwrap_or(0)];
        let passed = || self.devices.iter().filter(|device| device.passes.is_some());
        let met = passed().filter(|device| device.pending == 0.0).count();
        seen.met_passing = met as f64 / passed().count().max(1) as f64;
        seen
    }
}
