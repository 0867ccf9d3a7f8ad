//! An agent: speaks with the director, keeps a process for each node, tells about the machine.
//!
//! A node is a process of its own, so that it can be killed as a crash or an out-of-memory killer would.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command as Process};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::node::Node;
use super::protocol::{Command, Machine, Request, Said};
use super::radio::NodeRadio;
use super::{Result, fail, now_us};
use gattway::lab::transport::bluez::Bluez;
use gattway::lab::transport::session::SessionConfig;

/// Time for bluetoothd to tell of an adapter.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(60);
/// Time for a node's process to end, and then for the kernel to end it.
const ENDING_LIMIT: Duration = Duration::from_secs(60);
/// Time for disconnects under way.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(4);

/// Answers the director until it goes.
pub async fn run() -> Result<()> {
    let (lines, output) = mpsc::unbounded_channel::<String>();
    let writer = tokio::spawn(write(output));
    let directory = tempfile::Builder::new().prefix("hw-test").tempdir()?;
    let agent = Arc::new(Agent { lines, nodes: Mutex::default(), directory: directory.path().to_owned() });
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = input.next_line().await? {
        // Anything but a request is the noise of a terminal that was not yet raw.
        let Ok(request) = serde_json::from_str::<Request>(&line) else {
            tracing::error!(line, "not a request");
            continue;
        };
        if matches!(request.command, Command::Quit) && request.node == u32::MAX {
            break;
        }
        let agent = Arc::clone(&agent);
        tokio::spawn(async move { agent.handle(request).await });
    }
    agent.end().await;
    drop(agent);
    let _ = timeout(Duration::from_secs(2), writer).await;
    Ok(())
}

/// Writes lines in order.
async fn write(mut lines: mpsc::UnboundedReceiver<String>) {
    let mut output = tokio::io::stdout();
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if output.write_all(line.as_bytes()).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

struct Agent {
    lines: mpsc::UnboundedSender<String>,
    nodes: Mutex<HashMap<u32, Worker>>,
    directory: PathBuf,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    /// Ends after it has told that the process is gone.
    reader: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn say(&self, said: &Said) {
        if let Ok(line) = serde_json::to_string(said) {
            // Fails only when the director has gone.
            let _ = self.lines.send(line);
        }
    }

    async fn handle(&self, request: Request) {
        let id = request.id;
        let result = match &request.command {
            Command::Machine { adapters } => machine(adapters).await.map(|machine| json!(machine)),
            Command::Clock => Ok(json!(now_us())),
            Command::Spawn { adapter, fresh } => self.spawn(request.node, adapter, *fresh).await,
            Command::Kill => self.kill(request.node).await,
            Command::Shell { command } => shell(command).await,
            _ => match self.forward(&request).await {
                Ok(()) => return,
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(value) => self.say(&Said::Done { id, value }),
            Err(error) => self.say(&Said::Failed { id, error: error.to_string() }),
        }
    }

    async fn forward(&self, request: &Request) -> Result<()> {
        let mut nodes = self.nodes.lock().await;
        let Some(worker) = nodes.get_mut(&request.node) else {
            return fail("the node's process does not run");
        };
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        worker.input.write_all(line.as_bytes()).await?;
        Ok(worker.input.flush().await?)
    }

    async fn spawn(&self, node: u32, adapter: &str, fresh: bool) -> Result<Value> {
        if let Some(worker) = self.nodes.lock().await.remove(&node) {
            worker.end().await?;
        }
        let directory = self.directory.join(node.to_string());
        if fresh {
            let _ = std::fs::remove_dir_all(&directory);
        }
        std::fs::create_dir_all(&directory)?;
        let mut child = Process::new(std::env::current_exe()?)
            .args(["node", "--index", &node.to_string(), "--adapter", adapter, "--directory"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return fail("a process without pipes");
        };
        let lines = self.lines.clone();
        let reader = tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Ok(Some(line)) = output.next_line().await {
                if lines.send(line).is_err() {
                    return;
                }
            }
            let _ = lines.send(serde_json::to_string(&Said::Gone { node }).unwrap_or_default());
        });
        self.nodes.lock().await.insert(node, Worker { child, input, reader });
        Ok(Value::Null)
    }

    async fn kill(&self, node: u32) -> Result<Value> {
        let Some(mut worker) = self.nodes.lock().await.remove(&node) else {
            return fail("the node's process does not run");
        };
        worker.child.kill().await?; // SIGKILL, and waits
        let _ = worker.reader.await;
        Ok(Value::Null)
    }

    async fn end(&self) {
        let workers: Vec<Worker> = self.nodes.lock().await.drain().map(|(_, worker)| worker).collect();
        for worker in workers {
            if let Err(error) = worker.end().await {
                eprintln!("{error}");
            }
        }
    }
}

impl Worker {
    /// Closes its input, which it takes as the request to end, and waits a little; then it is killed.
    ///
    /// # Errors
    /// It does not even end when it is killed: the kernel holds it.
    async fn end(self) -> Result<()> {
        let Worker { mut child, input, reader } = self;
        let id = child.id().unwrap_or_default();
        drop(input);
        if timeout(ENDING_LIMIT, child.wait()).await.is_err()
            && timeout(ENDING_LIMIT, child.kill()).await.is_err()
        {
            return fail(format!("process {id} was killed and does not end: {}", state_of(id)));
        }
        // What it has started itself may hold its output.
        let stop = reader.abort_handle();
        if timeout(ENDING_LIMIT, reader).await.is_err() {
            stop.abort();
            eprintln!("process {id} has ended, and something that it started still has its output");
        }
        Ok(())
    }
}

/// Where the kernel has a process, for whoever looks for the reason.
fn state_of(id: u32) -> String {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
    let state = read("status").lines().find(|line| line.starts_with("State")).unwrap_or_default().to_owned();
    format!("{state}, in {} {}", read("wchan"), read("stack").trim())
}

async fn shell(command: &str) -> Result<Value> {
    let output = Process::new("bash").args(["-c", command]).stdin(Stdio::null()).output().await?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return fail(format!("`{command}` ended with {}: {}", output.status, stderr.trim()));
    }
    Ok(json!(String::from_utf8_lossy(&output.stdout).trim()))
}

/// What somebody who reads a report wants to know of a machine.
async fn machine(adapters: &[String]) -> Result<Machine> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let conf = read("/etc/bluetooth/main.conf");
    let setting = |name: &str, default: u32| {
        let found = conf.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == name);
        found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(default)
    };
    let mut about = Vec::new();
    for adapter in adapters {
        about.push(describe(adapter).await);
    }
    Ok(Machine {
        name: read("/proc/sys/kernel/hostname"),
        kernel: read("/proc/sys/kernel/osrelease"),
        bluez: bluez_version().await,
        channels: setting("Channels", 3),
        exchange_mtu: setting("ExchangeMTU", 517),
        adapters: about,
    })
}

async fn bluez_version() -> String {
    for path in ["/usr/libexec/bluetooth/bluetoothd", "/usr/lib/bluetooth/bluetoothd", "bluetoothd"] {
        if let Ok(output) = Process::new(path).arg("--version").output().await {
            return String::from_utf8_lossy(&output.stdout).trim().to_owned();
        }
    }
    "unknown".to_owned()
}

async fn describe(name: &str) -> String {
    let read = async {
        let session = bluer::Session::new().await?;
        let adapter = session.adapter(name)?;
        let address = adapter.address().await?;
        let modalias = adapter.modalias().await.ok().flatten();
        let chip =
            modalias.map_or(String::new(), |m| format!(", {} {:04x}:{:04x}", m.source, m.vendor, m.product));
        let roles = adapter.supported_advertising_instances().await.unwrap_or(0);
        bluer::Result::Ok(format!("{name} {address}{chip}, {roles} advertising sets"))
    };
    match timeout(DESCRIBE_LIMIT, read).await {
        Ok(read) => read.unwrap_or_else(|error| format!("{name}: {error}")),
        Err(_) => format!("{name}: bluetoothd does not answer"),
    }
}

/// The process of one node.
pub async fn run_node(index: u32, adapter: String, directory: PathBuf) -> Result<()> {
    let (said, mut saying) = mpsc::unbounded_channel::<Said>();
    let (lines, output) = mpsc::unbounded_channel::<String>();
    let writer = tokio::spawn(write(output));
    let to = lines.clone();
    tokio::spawn(async move {
        while let Some(said) = saying.recv().await {
            let _ = to.send(serde_json::to_string(&said).unwrap_or_default());
        }
    });
    let bluez = Bluez::default();
    bluez.watch_radio();
    let node =
        Node::new(index, NodeRadio::Bluez(bluez.clone(), adapter), directory, SessionConfig::default(), said);
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = input.next_line().await? {
        let request: Request = serde_json::from_str(&line)?;
        let (node, lines) = (Arc::clone(&node), lines.clone());
        tokio::spawn(async move {
            let said = answer(&node, request).await;
            let _ = lines.send(serde_json::to_string(&said).unwrap_or_default());
        });
    }
    node.end().await;
    // Sessions that were dropped begin their disconnects; BlueZ takes two seconds for each, and whoever comes next must not meet
    // the old connection.
    tokio::time::sleep(Duration::from_millis(200)).await;
    bluez.wait_for_disconnects(DISCONNECT_LIMIT).await;
    drop((node, lines));
    let _ = timeout(Duration::from_secs(1), writer).await;
    Ok(())
}

/// Carries out one request.
pub async fn answer(node: &Arc<Node>, request: Request) -> Said {
    match node.handle(request.command).await {
        Ok(value) => Said::Done { id: request.id, value },
        Err(error) => Said::Failed { id: request.id, error: error.to_string() },
    }
}
