//! Real adapters, described in a file.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::{Child, Command};

use super::HostPlan;
use super::host::{Host, Samples};
use crate::agent::Result;

/// A rig file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RigFile {
    /// What the report calls it.
    #[serde(default)]
    pub name: Option<String>,
    /// The machines. Nodes are numbered over all their adapters: the first is the peripheral.
    pub host: Vec<HostFile>,
    /// What can disturb the radio.
    #[serde(default)]
    pub faults: FaultsFile,
}

/// A machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// What the report calls it.
    pub name: String,
    /// Runs `hw-test agent` there with its standard input and output here, such as `["ssh", "pi@pi.local", "hw-test", "agent"]`.
    /// None: this machine.
    #[serde(default)]
    pub agent: Vec<String>,
    /// Adapters, by name.
    pub adapters: Vec<String>,
    /// Kills bluetoothd.
    #[serde(default = "kill_bluetoothd")]
    pub kill_bluetoothd: String,
    /// Starts it again.
    #[serde(default = "start_bluetoothd")]
    pub start_bluetoothd: String,
}

/// Shell commands of this machine that disturb the radio: a switched attenuator, a virtual radio.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultsFile {
    /// Puts all adapters out of range of each other.
    pub cut: Option<String>,
    /// Puts them in range again.
    pub restore: Option<String>,
}

fn kill_bluetoothd() -> String {
    "systemctl kill --signal KILL bluetooth.service".to_owned()
}

fn start_bluetoothd() -> String {
    "systemctl reset-failed bluetooth.service; systemctl restart bluetooth.service".to_owned()
}

impl RigFile {
    /// Reads a rig file.
    pub fn read(path: &Path) -> Result<RigFile> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        RigFile::parse(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn parse(text: &str) -> Result<RigFile> {
        let file: RigFile = toml::from_str(text)?;
        let adapters: usize = file.host.iter().map(|host| host.adapters.len()).sum();
        if adapters < 2 {
            return Err(format!("it names {adapters} adapters; a rig needs two or more").into());
        }
        Ok(file)
    }

    /// Its machines.
    pub fn plan(&self) -> Vec<HostPlan> {
        let plan = |host: &HostFile| HostPlan {
            name: host.name.clone(),
            adapters: host.adapters.clone(),
            kill_bluetoothd: host.kill_bluetoothd.clone(),
            start_bluetoothd: host.start_bluetoothd.clone(),
        };
        self.host.iter().map(plan).collect()
    }

    /// Starts the agents.
    pub fn start(&self, samples: &Samples) -> Result<(Vec<Child>, Vec<Host>)> {
        let (mut children, mut hosts) = (Vec::new(), Vec::new());
        for host in &self.host {
            let mut command = match host.agent.split_first() {
                Some((program, arguments)) => {
                    let mut command = Command::new(program);
                    command.args(arguments);
                    command
                }
                None => {
                    let mut command = Command::new(std::env::current_exe()?);
                    command.arg("agent");
                    command
                }
            };
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut child = command
                .spawn()
                .map_err(|error| format!("the agent of {:?} did not start: {error}", host.name))?;
            let (Some(output), Some(input)) = (child.stdin.take(), child.stdout.take()) else {
                return Err("an agent without pipes".into());
            };
            hosts.push(Host::over(input, output, samples.clone(), hosts.len()));
            children.push(child);
        }
        Ok((children, hosts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_notes_is_read() {
        let notes = include_str!("../../../../firmware-notes/hw-tests.md");
        let example = notes.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let file = RigFile::parse(example.expect("an example")).expect("it is right");
        assert_eq!(file.host.len(), 2);
        assert_eq!(file.host[0].adapters, ["hci0", "hci1"]);
        assert!(file.host[1].agent.len() > 1);
    }

    #[test]
    fn one_adapter_is_not_enough_and_a_typing_error_is_told() {
        let one = RigFile::parse("[[host]]\nname = \"a\"\nadapters = [\"hci0\"]\n");
        assert!(one.is_err_and(|error| error.to_string().contains("two or more")));
        let typo = RigFile::parse("[[host]]\nname = \"a\"\nadaptors = [\"hci0\", \"hci1\"]\n");
        assert!(typo.is_err_and(|error| error.to_string().contains("adaptors")));
    }
}
