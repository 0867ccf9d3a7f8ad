//! The virtual rig: guests with real kernels and bluetoothds on virtual controllers, by `scripts/virtual-bluetooth`.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use serde_json::Value;
use tokio::process::Child;

use super::host::{Host, Samples};
use super::{Config, HostPlan};
use crate::agent::{Result, fail};

/// Adapters of the guest; two peers and a third.
const ADAPTERS: usize = 3;
/// File descriptor of the first guest's serial line in `scripts/virtual-bluetooth --serial`.
const FIRST_SERIAL: i32 = 6;
/// Guests live this long at most, seconds.
const LIFE_SECONDS: u32 = 3600;
/// Time for the radio to answer.
const CONTROL_LIMIT: Duration = Duration::from_secs(60);

/// Options of the virtual rig.
#[derive(Clone, Debug)]
pub struct Virtual {
    /// Root of the project.
    pub root: PathBuf,
    /// Options of the radio.
    pub radio: String,
    /// Connection interval in units of 1.25 ms.
    pub interval: u16,
    /// Where logs go.
    pub out: PathBuf,
}

/// Guests that run.
pub struct Guests {
    child: Child,
    control: PathBuf,
    _directory: tempfile::TempDir,
}

impl Virtual {
    /// Guests of a configuration, with the adapters of each.
    pub fn plan(config: Config) -> Vec<HostPlan> {
        let guest = |name: &str, adapters: usize| HostPlan {
            name: name.to_owned(),
            adapters: (0..adapters).map(|n| format!("hci{n}")).collect(),
            kill_bluetoothd: "busybox killall -9 bluetoothd".to_owned(),
            start_bluetoothd: "setsid /usr/libexec/bluetooth/bluetoothd -n >>/run/bluetoothd.log 2>&1 &"
                .to_owned(),
        };
        match config {
            Config::TwoMachines => vec![guest("guest 0", 1), guest("guest 1", 1)],
            _ => vec![guest("guest", ADAPTERS)],
        }
    }

    /// Starts the guests; their agents answer soon.
    pub fn start(&self, config: Config, samples: &Samples) -> Result<(Guests, Vec<Host>)> {
        let directory = tempfile::Builder::new().prefix("hw-test-guests").tempdir()?;
        let control = directory.path().join("radio");
        let plan = Virtual::plan(config);
        let mut command = Command::new(self.root.join("scripts/virtual-bluetooth"));
        command.args(["--serial", "--quiet", "--limit", &LIFE_SECONDS.to_string()]);
        command.arg("--control").arg(&control);
        command.args(["--interval", &self.interval.to_string(), "--radio", &self.radio]);
        command.arg("--logs").arg(self.out.join(format!("logs-{}", config.name())));
        let adapters = plan.first().map_or(1, |host| host.adapters.len());
        command.args(["--adapters", &adapters.to_string()]);
        match config {
            Config::Eatt => {
                command.arg("--eatt");
            }
            Config::SmallMtu => {
                command.arg("--main-conf").arg(self.root.join("hw-tests/rig/main-mtu48.conf"));
            }
            Config::Default | Config::TwoMachines => {}
        }
        let agent = std::env::current_exe()?;
        let line = format!("/dev/ttyS{adapters}");
        let job = format!("stty -F {line} raw -echo; exec {} agent <{line} >{line}", agent.display());
        let (mut hosts, mut theirs) = (Vec::new(), Vec::new());
        for index in 0..plan.len() {
            command.args(["--guest", &job]);
            let (ours, other) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let (input, output) = tokio::net::UnixStream::from_std(ours)?.into_split();
            hosts.push(Host::over(input, output, samples.clone(), hosts.len()));
            let child_fd = FIRST_SERIAL + i32::try_from(index)?;
            theirs.push(FdMapping { parent_fd: OwnedFd::from(other), child_fd });
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.out.join("virtual-bluetooth.log"))?;
        let output = Stdio::from(log.as_fd().try_clone_to_owned()?);
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::from(log)).fd_mappings(theirs)?;
        let child = tokio::process::Command::from(command).kill_on_drop(false).spawn()?;
        Ok((Guests { child, control, _directory: directory }, hosts))
    }
}

impl Guests {
    /// Waits for the orderly end after the agents were asked to go; ends the rest.
    pub async fn end(&mut self, limit: Duration) {
        if tokio::time::timeout(limit, self.child.wait()).await.is_ok() {
            return;
        }
        if let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            // The script ends its guests.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(limit, self.child.wait()).await.is_err() {
            let _ = self.child.start_kill();
        }
    }

    /// Whether the script has ended, and how.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Gives the radio a command.
    pub fn control(&self, line: &Value) -> Result<Value> {
        control(&self.control, line)
    }
}

/// One command over a radio's control socket.
fn control(socket: &Path, line: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(CONTROL_LIMIT))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    if answer["ok"] != true {
        return fail(format!("the radio refused {line}: {answer}"));
    }
    Ok(answer)
}
