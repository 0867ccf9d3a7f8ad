//! A rig: machines with nodes, faults on command, and what it can and cannot do. Scenarios see nothing else.

pub mod file;
pub mod host;
pub mod model;
pub mod virtual_rig;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use self::file::RigFile;
use self::host::{ANSWER_LIMIT, Host, Samples};
use self::model::{Air, ModelAgent};
use self::virtual_rig::{Guests, Virtual};
use crate::agent::protocol::{Command, Identity, Machine, Way};
use crate::agent::{Result, fail, now_us};

/// Time for a machine to come up: a guest boots in two seconds on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(600);
/// Time for the orderly end of a machine.
const END_LIMIT: Duration = Duration::from_secs(60);
/// How often a machine is asked for its time.
const CLOCK_QUESTIONS: usize = 5;
/// Pause between two attempts to reach an agent.
const START_PAUSE: Duration = Duration::from_millis(200);

/// How the machines of a rig are set up. Rigs of real adapters are as they are, and say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Config {
    /// One ATT channel where it can be chosen.
    Default,
    /// BlueZ's default of three EATT channels.
    Eatt,
    /// The smallest ATT MTU: 23, or 48 where BlueZ is.
    SmallMtu,
    /// Peripheral and central on two machines.
    TwoMachines,
}

impl Config {
    /// For people and files.
    pub fn name(self) -> &'static str {
        match self {
            Config::Default => "default",
            Config::Eatt => "eatt",
            Config::SmallMtu => "small-mtu",
            Config::TwoMachines => "two-machines",
        }
    }
}

/// A machine to be.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// For people.
    pub name: String,
    /// Its adapters, a node each.
    pub adapters: Vec<String>,
    /// Shell command.
    pub kill_bluetoothd: String,
    /// Shell command.
    pub start_bluetoothd: String,
}

/// Which rig.
#[derive(Clone, Debug)]
pub enum RigKind {
    /// The modelled radio.
    Model,
    /// Guests.
    Virtual(Virtual),
    /// Real adapters.
    File(RigFile),
}

/// What runs behind the machines.
enum Running {
    Model(Air),
    Virtual(Guests),
    File(Vec<tokio::process::Child>),
}

/// A node as scenarios use it. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    /// Its machine.
    pub host: Host,
    /// Its number at the machine.
    pub node: u32,
    /// How others reach it; empty until it was started.
    pub address: String,
    /// Its machine's place in the rig.
    pub machine: usize,
    adapter: String,
}

/// A running rig in one configuration.
pub struct Rig {
    kind: RigKind,
    config: Config,
    plan: Vec<HostPlan>,
    hosts: Vec<Host>,
    /// The nodes, peripheral first.
    pub places: Vec<Place>,
    /// The machines as they describe themselves.
    pub machines: Vec<Machine>,
    /// Counters that came in.
    pub samples: Samples,
    running: Running,
}

impl RigKind {
    /// For people.
    pub fn name(&self) -> String {
        match self {
            RigKind::Model => "model".to_owned(),
            RigKind::Virtual(_) => "virtual".to_owned(),
            RigKind::File(file) => file.name.clone().unwrap_or_else(|| "real adapters".to_owned()),
        }
    }

    /// What carries packets there.
    pub fn radio(&self) -> String {
        match self {
            RigKind::Model => "modelled, in this process".to_owned(),
            RigKind::Virtual(options) => {
                format!("virtual controllers, {} ms, {}", f64::from(options.interval) * 1.25, options.radio)
            }
            RigKind::File(_) => "real".to_owned(),
        }
    }

    /// Whether the rig can be set up so, before it runs; the reason if not.
    pub fn offers(&self, config: Config) -> std::result::Result<(), String> {
        match (self, config) {
            (RigKind::Model, Config::TwoMachines) => {
                Err("each device of the model is a machine of its own".to_owned())
            }
            (RigKind::File(file), Config::TwoMachines) if file.host.len() < 2 => {
                Err("the rig file names one machine".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The configuration that is started for `config`: real adapters have just one.
    pub fn effective(&self, config: Config) -> Config {
        if matches!(self, RigKind::File(_)) { Config::Default } else { config }
    }
}

impl Rig {
    /// Starts the machines and waits until they answer.
    pub async fn start(kind: &RigKind, config: Config) -> Result<Rig> {
        let samples = Samples::default();
        let (plan, hosts, running) = match kind {
            RigKind::Model => {
                let air = Air::new(config);
                let (host, requests, said) = Host::local(Arc::clone(&samples), 0);
                ModelAgent::start(air.clone(), config, requests, said)?;
                let plan = HostPlan {
                    name: "model".to_owned(),
                    adapters: (0..model::NODES).map(|n| n.to_string()).collect(),
                    kill_bluetoothd: String::new(),
                    start_bluetoothd: String::new(),
                };
                (vec![plan], vec![host], Running::Model(air))
            }
            RigKind::Virtual(options) => {
                let (guests, hosts) = options.start(config, &samples)?;
                (Virtual::plan(config), hosts, Running::Virtual(guests))
            }
            RigKind::File(file) => {
                let (children, hosts) = file.start(&samples)?;
                (file.plan(), hosts, Running::File(children))
            }
        };
        let mut places = Vec::new();
        for (machine, (host, plan)) in hosts.iter().zip(&plan).enumerate() {
            for (node, adapter) in plan.adapters.iter().enumerate() {
                places.push(Place {
                    host: host.clone(),
                    node: u32::try_from(node)?,
                    address: String::new(),
                    adapter: adapter.clone(),
                    machine,
                });
            }
        }
        // The central is on another machine where there is one.
        places.sort_by_key(|place| (place.node, place.machine));
        let mut rig =
            Rig { kind: kind.clone(), config, plan, hosts, places, machines: Vec::new(), samples, running };
        match rig.meet().await {
            Ok(()) => Ok(rig),
            Err(error) => {
                rig.end().await;
                Err(error)
            }
        }
    }

    /// Sets the clock of each machine against ours, by the quickest of some questions.
    pub async fn set_clocks(&self) -> Result<()> {
        for host in &self.hosts {
            let mut best = (u64::MAX, 0);
            for _ in 0..CLOCK_QUESTIONS {
                let before = now_us();
                let theirs: u64 = host.ask(0, Command::Clock, ANSWER_LIMIT).await?;
                let took = now_us() - before;
                let offset = (before + took / 2).cast_signed() - theirs.cast_signed();
                best = best.min((took, offset));
            }
            host.set_offset_us(best.1);
        }
        Ok(())
    }

    /// Waits for each machine's first answer.
    async fn meet(&mut self) -> Result<()> {
        for index in 0..self.hosts.len() {
            let (host, plan) = (self.hosts[index].clone(), self.plan[index].clone());
            let deadline = tokio::time::Instant::now() + START_LIMIT;
            loop {
                // What is asked too early is lost.
                match host.ask::<u64>(0, Command::Clock, Duration::from_secs(2)).await {
                    Ok(_) => break,
                    Err(error) => {
                        if let Running::Virtual(guests) = &mut self.running
                            && let Some(status) = guests.ended()
                        {
                            return fail(format!(
                                "the guests did not start ({status}); see virtual-bluetooth.log"
                            ));
                        }
                        if tokio::time::Instant::now() >= deadline {
                            return fail(format!("{} does not answer: {error}", plan.name));
                        }
                    }
                }
                tokio::time::sleep(START_PAUSE).await;
            }
            let command = Command::Machine { adapters: plan.adapters.clone() };
            let machine: Machine = host.ask(0, command, ANSWER_LIMIT).await?;
            self.machines.push(machine);
        }
        Ok(())
    }

    /// Ends everything.
    pub async fn end(&mut self) {
        for host in &self.hosts {
            host.quit();
        }
        match &mut self.running {
            Running::Model(_) => {}
            Running::Virtual(guests) => guests.end(END_LIMIT).await,
            Running::File(children) => {
                for child in children {
                    if tokio::time::timeout(END_LIMIT, child.wait()).await.is_err() {
                        let _ = child.start_kill();
                    }
                }
            }
        }
    }

    /// How it is set up.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Whether its machines are guests.
    pub fn is_virtual(&self) -> bool {
        matches!(self.kind, RigKind::Virtual(_))
    }

    /// Ways to a peripheral.
    pub fn ways(&self) -> &'static [Way] {
        if matches!(self.kind, RigKind::Model) {
            &[Way::Gatt, Way::GattSmall]
        } else {
            &[Way::Gatt, Way::GattSmall, Way::L2cap, Way::Btleplug]
        }
    }

    /// Whether there is a bluetoothd to disturb.
    pub fn has_bluetoothd(&self) -> bool {
        !matches!(self.kind, RigKind::Model)
    }

    /// Starts the process of a node anew, with empty databases if `fresh`.
    pub async fn spawn(&mut self, place: usize, fresh: bool) -> Result<()> {
        let p = &mut self.places[place];
        let command = Command::Spawn { adapter: p.adapter.clone(), fresh };
        p.host.ask::<Value>(p.node, command, ANSWER_LIMIT).await?;
        p.address = p.host.ask::<Identity>(p.node, Command::Identity, ANSWER_LIMIT).await?.address;
        Ok(())
    }

    /// SIGKILL to a node's process.
    pub async fn kill(&self, place: usize) -> Result<()> {
        let p = &self.places[place];
        p.host.ask::<Value>(p.node, Command::Kill, ANSWER_LIMIT).await.map(drop)
    }

    /// Kills the bluetoothd of a node's machine.
    pub async fn kill_bluetoothd(&self, place: usize) -> Result<()> {
        let p = &self.places[place];
        let command = Command::Shell { command: self.plan[p.machine].kill_bluetoothd.clone() };
        p.host.ask::<Value>(p.node, command, ANSWER_LIMIT).await.map(drop)
    }

    /// Starts it again.
    pub async fn start_bluetoothd(&self, place: usize) -> Result<()> {
        let p = &self.places[place];
        let command = Command::Shell { command: self.plan[p.machine].start_bluetoothd.clone() };
        p.host.ask::<Value>(p.node, command, ANSWER_LIMIT).await.map(drop)
    }

    /// The number of a node's controller at the virtual radio.
    fn controller(&self, place: usize) -> usize {
        let p = &self.places[place];
        let before: usize = self.plan[..p.machine].iter().map(|host| host.adapters.len()).sum();
        before + p.node as usize
    }

    /// Whether nodes can be put out of range; the reason if not.
    pub fn can_cut(&self) -> std::result::Result<(), String> {
        match &self.kind {
            RigKind::File(file) if file.faults.cut.is_none() || file.faults.restore.is_none() => {
                Err("real adapters stay in range: the rig file has no commands [faults] cut and restore"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Puts two nodes out of range of each other, or in range again.
    pub async fn set_reachable(&self, a: usize, b: usize, reachable: bool) -> Result<()> {
        match (&self.running, &self.kind) {
            (Running::Model(air), _) => air.reach(a, Some(b), reachable),
            (Running::Virtual(guests), _) => {
                let [a, b] = [a, b].map(|place| self.controller(place));
                guests.control(&json!({"command": "range", "a": a, "b": b, "reachable": reachable}))?;
            }
            (Running::File(_), RigKind::File(file)) => {
                let command = if reachable { &file.faults.restore } else { &file.faults.cut };
                let command = command.as_ref().ok_or("no such command in the rig file")?;
                let status = tokio::process::Command::new("bash").args(["-c", command]).status().await?;
                if !status.success() {
                    return fail(format!("`{command}` ended with {status}"));
                }
            }
            (Running::File(_), _) => return fail("a rig of another kind"),
        }
        Ok(())
    }

    /// Whether loss and signal strength can be set; the reason if not.
    pub fn can_set_quality(&self) -> std::result::Result<(), String> {
        match self.kind {
            RigKind::File(_) => Err("the signal of real adapters cannot be set".to_owned()),
            _ => Ok(()),
        }
    }

    /// Sets loss (0 to 1) and signal strength (dBm) everywhere.
    pub fn set_quality(&mut self, loss: f64, rssi_dbm: i8) -> Result<()> {
        match &mut self.running {
            Running::Model(air) => air.set_quality(loss, rssi_dbm),
            Running::Virtual(guests) => {
                guests.control(&json!({"command": "loss", "loss": loss}))?;
                guests.control(&json!({"command": "rssi", "dbm": rssi_dbm}))?;
            }
            Running::File(_) => return fail("the signal of real adapters cannot be set"),
        }
        Ok(())
    }
}
