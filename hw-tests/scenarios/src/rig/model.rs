//! The model: devices on a modelled radio in this process, each with a runtime of its own that can be taken away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gattway::lab::transport::clock::Clock;
use gattway::lab::transport::session::SessionConfig;
use gattway::lab::transport::sim::radio::Path;
use gattway::lab::transport::sim::{HostConfig, SimDevice, SimRadio};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::Config;
use crate::agent::node::Node;
use crate::agent::protocol::{Command, Machine, Request, Said};
use crate::agent::radio::{ModelRadio, NodeRadio};
use crate::agent::{Result, fail, now_us, supervisor};

/// Devices.
pub const NODES: usize = 3;
/// Decides every loss.
const SEED: u64 = 1;
/// Share of packets that others overtake with three EATT channels: as many as BlueZ was seen to reorder.
const EATT_REORDER: f64 = 0.1;
/// Time for a runtime to let go of everything.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// The radio with faults on command.
#[derive(Clone)]
pub struct Air {
    radio: SimRadio,
    devices: Vec<SimDevice>,
    path: Path,
}

impl Air {
    /// A radio with devices as the configuration wants.
    pub fn new(config: Config) -> Air {
        let radio = SimRadio::new(SEED, Clock::new());
        let reorder = if config == Config::Eatt { EATT_REORDER } else { 0.0 };
        let host = HostConfig { reorder, ..HostConfig::default() };
        let devices = (0..NODES).map(|n| radio.add_device(address(n), host)).collect();
        Air { radio, devices, path: Path::default() }
    }

    /// Out of range, or in range again; `None`: all others.
    pub fn reach(&self, a: usize, b: Option<usize>, reachable: bool) {
        for other in (0..NODES).filter(|other| *other != a && b.is_none_or(|b| b == *other)) {
            self.radio.set_path(&self.devices[a], &self.devices[other], Path { reachable, ..self.path });
        }
    }

    /// The radio of a device is switched off: both ends of its connections notice at once.
    pub fn switch(&self, a: usize, on: bool) {
        self.reach(a, None, on);
        if !on {
            for other in (0..NODES).filter(|other| *other != a) {
                self.radio.cut(&self.devices[a], &self.devices[other]);
            }
        }
    }

    /// Share of PDUs lost everywhere, and signal strength.
    pub fn set_quality(&mut self, loss: f64, rssi_dbm: i8) {
        self.path = Path { loss, rssi_dbm, ..Path::default() };
        for a in 0..NODES {
            self.reach(a, None, true);
        }
    }
}

/// Address of a device.
fn address(node: usize) -> String {
    format!("device-{node}")
}

/// The agent of the model: what `supervisor` is for a machine.
pub struct ModelAgent {
    air: Air,
    config: Config,
    directory: tempfile::TempDir,
    nodes: HashMap<u32, (Runtime, Arc<Node>)>,
    all: Arc<Mutex<HashMap<String, SimDevice>>>,
    said: mpsc::UnboundedSender<Said>,
}

impl ModelAgent {
    /// Answers requests until nobody asks any more.
    pub fn start(
        air: Air,
        config: Config,
        mut requests: mpsc::UnboundedReceiver<Request>,
        said: mpsc::UnboundedSender<Said>,
    ) -> Result<()> {
        let directory = tempfile::Builder::new().prefix("hw-test").tempdir()?;
        let all = air.devices.iter().enumerate().map(|(n, device)| (address(n), device.clone())).collect();
        let all = Arc::new(Mutex::new(all));
        let mut agent = ModelAgent { air, config, directory, nodes: HashMap::new(), all, said };
        // Runtimes may not be dropped where futures run.
        std::thread::Builder::new().name("model".to_owned()).spawn(move || {
            while let Some(request) = requests.blocking_recv() {
                if request.node == u32::MAX {
                    break;
                }
                agent.handle(request);
            }
            let nodes: Vec<u32> = agent.nodes.keys().copied().collect();
            for node in nodes {
                agent.end(node, true);
            }
        })?;
        Ok(())
    }

    fn handle(&mut self, request: Request) {
        let (id, node) = (request.id, request.node);
        let result = match request.command {
            Command::Machine { .. } => Ok(json!(machine(self.config))),
            Command::Clock => Ok(json!(now_us())),
            Command::Spawn { fresh, .. } => self.spawn(node, fresh),
            Command::Kill => {
                self.end(node, false);
                Ok(Value::Null)
            }
            Command::Shell { .. } => fail("the model has no machine to run commands on"),
            Command::Power { on } => {
                self.air.switch(node as usize, on);
                Ok(Value::Null)
            }
            _ => match self.nodes.get(&node) {
                Some((runtime, node)) => {
                    let (node, said) = (Arc::clone(node), self.said.clone());
                    runtime.spawn(async move {
                        let _ = said.send(supervisor::answer(&node, request).await);
                    });
                    return;
                }
                None => fail("the node does not run"),
            },
        };
        let said = match result {
            Ok(value) => Said::Done { id, value },
            Err(error) => Said::Failed { id, error: error.to_string() },
        };
        let _ = self.said.send(said);
    }

    fn spawn(&mut self, index: u32, fresh: bool) -> Result<Value> {
        self.end(index, true);
        let directory = self.directory.path().join(index.to_string());
        if fresh {
            let _ = std::fs::remove_dir_all(&directory);
        }
        std::fs::create_dir_all(&directory)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let place = usize::try_from(index)?;
        let device = self.air.devices.get(place).ok_or("no such device")?.clone();
        let radio = NodeRadio::Model(ModelRadio {
            device,
            all: Arc::clone(&self.all),
            address: address(place),
            att_mtu: exchange_mtu(self.config),
        });
        let session = SessionConfig::on(self.air.radio.clock());
        let node = Node::new(index, radio, directory, session, self.said.clone());
        self.nodes.insert(index, (runtime, node));
        Ok(Value::Null)
    }

    /// In order, or as if its process was killed: all tasks are dropped where they are.
    fn end(&mut self, index: u32, in_order: bool) {
        let Some((runtime, node)) = self.nodes.remove(&index) else { return };
        if in_order {
            runtime.block_on(node.end());
        }
        drop(node);
        runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        let _ = self.said.send(Said::Gone { node: index });
    }
}

impl Drop for ModelAgent {
    fn drop(&mut self) {
        // Devices that listen keep the radio alive.
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn machine(config: Config) -> Machine {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        name: "model".to_owned(),
        kernel: kernel.trim().to_owned(),
        bluez: "none".to_owned(),
        channels: 1,
        exchange_mtu: exchange_mtu(config).into(),
        adapters: (0..NODES).map(|n| format!("{}: modelled, 2M, 30 ms, 251 octets", address(n))).collect(),
    }
}

fn exchange_mtu(config: Config) -> u16 {
    if config == Config::SmallMtu { 23 } else { 517 }
}
