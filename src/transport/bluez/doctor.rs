//! Is this machine fit for the Bluetooth transport? Each finding says what to do.
//!
//! Only reads: nothing is switched, connected or changed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but could be better.
    Advice,
    /// Known to give trouble.
    Warning,
    /// Bluetooth cannot work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing needs to be done.
    pub advice: String,
}

impl Finding {
    fn new(check: &str, level: Level, found: impl Into<String>, advice: &str) -> Finding {
        Finding { check: check.to_owned(), level, found: found.into(), advice: advice.to_owned() }
    }
}

/// First BlueZ that carries write commands of 511 and 512 bytes; our packets end at 495 for the older ones.
const BLUEZ_FULL_WRITES: (u32, u32) = (5, 69);
/// Crashes on a disconnect during StartNotify (bluez #2538).
const BLUEZ_CRASHES: (u32, u32) = (5, 87);
/// Oldest BlueZ whose socket (Io) modes keep centrals apart on a GATT server.
const BLUEZ_OLDEST: (u32, u32) = (5, 55);
/// Where BlueZ looks for its settings.
const MAIN_CONF: &str = "/etc/bluetooth/main.conf";
/// Places of bluetoothd on Debian, Fedora and Arch.
const BLUETOOTHD: [&str; 3] =
    ["/usr/libexec/bluetooth/bluetoothd", "/usr/lib/bluetooth/bluetoothd", "/usr/sbin/bluetoothd"];

/// Looks at everything; never fails, a check that cannot be made is a finding.
pub async fn examine() -> Vec<Finding> {
    let mut findings = vec![kernel(), bluez_version()];
    findings.extend(rfkill(Path::new("/sys/class/rfkill")));
    findings.extend(settings(fs::read_to_string(MAIN_CONF).unwrap_or_default().as_str()));
    findings.extend(adapters().await);
    findings
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    if Path::new("/sys/class/bluetooth").exists() {
        return Finding::new("kernel", Level::Ok, format!("Linux {release} with Bluetooth"), "");
    }
    let advice = "load the module (modprobe bluetooth) or use a kernel that has it";
    Finding::new("kernel", Level::Problem, format!("Linux {release} without Bluetooth"), advice)
}

fn bluez_version() -> Finding {
    let output = BLUETOOTHD.iter().find_map(|path| Command::new(path).arg("--version").output().ok());
    let Some(output) = output else {
        return Finding::new("bluez", Level::Problem, "bluetoothd is not installed", "apt install bluez");
    };
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    judge_bluez(&text)
}

fn judge_bluez(text: &str) -> Finding {
    let version =
        text.split_once('.').and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)));
    let found = format!("BlueZ {text}");
    match version {
        None => Finding::new(
            "bluez",
            Level::Warning,
            found,
            "a version that is not known; expected 5.55 or newer",
        ),
        Some(v) if v < BLUEZ_OLDEST => {
            Finding::new("bluez", Level::Problem, found, "upgrade to 5.55 or newer")
        }
        Some(BLUEZ_CRASHES) => Finding::new(
            "bluez",
            Level::Warning,
            found,
            "it crashes on some disconnects (bluez #2538); use another",
        ),
        Some(v) if v < BLUEZ_FULL_WRITES => Finding::new(
            "bluez",
            Level::Ok,
            format!("{found} (drops writes of 511-512 bytes; packets end at 495)"),
            "",
        ),
        Some(_) => Finding::new("bluez", Level::Ok, found, ""),
    }
}

/// Reads the switches of a directory like /sys/class/rfkill.
fn rfkill(directory: &Path) -> Vec<Finding> {
    let read =
        |path: &Path, name: &str| fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
    let mut findings = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if read(&path, "type") != "bluetooth" {
            continue;
        }
        let name = read(&path, "name");
        findings.push(if read(&path, "hard") == "1" {
            Finding::new(
                "rfkill",
                Level::Problem,
                format!("{name} is blocked by a switch"),
                "turn the switch on",
            )
        } else if read(&path, "soft") == "1" {
            Finding::new("rfkill", Level::Problem, format!("{name} is blocked"), "rfkill unblock bluetooth")
        } else {
            Finding::new("rfkill", Level::Ok, format!("{name} is not blocked"), "")
        });
    }
    findings
}

/// Judges main.conf. BlueZ's defaults stand where a key is missing.
fn settings(conf: &str) -> Vec<Finding> {
    let mut section = String::new();
    let (mut cache, mut channels) = (String::from("always"), String::from("3"));
    for line in conf.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
        } else if section == "GATT"
            && let Some((key, value)) = line.split_once('=')
        {
            match key.trim() {
                "Cache" => cache = value.trim().to_owned(),
                "Channels" => channels = value.trim().to_owned(),
                _ => {}
            }
        }
    }
    let advise = |key: &str, value: &str, wanted: &str, advice: &str| {
        let level = if value == wanted { Level::Ok } else { Level::Advice };
        let advice = if value == wanted { "" } else { advice };
        Finding::new("settings", level, format!("[GATT] {key} = {value}"), advice)
    };
    vec![
        advise(
            "Cache",
            &cache,
            "no",
            "set Cache = no in main.conf: a stale cache hides a peer's new version",
        ),
        advise(
            "Channels",
            &channels,
            "1",
            "set Channels = 1 in main.conf: more reorder packets and cost speed",
        ),
    ]
}

async fn adapters() -> Vec<Finding> {
    let session = match bluer::Session::new().await {
        Ok(session) => session,
        Err(error) => {
            let advice = "is D-Bus running? systemctl start dbus";
            return vec![Finding::new("d-bus", Level::Problem, error.to_string(), advice)];
        }
    };
    let names = match session.adapter_names().await {
        Ok(names) => names,
        Err(error) if error.to_string().contains("AccessDenied") => {
            let advice = "run as root, or add the user to the group `bluetooth`";
            return vec![Finding::new("d-bus", Level::Problem, error.to_string(), advice)];
        }
        Err(error) => {
            let advice = "is bluetoothd running? systemctl start bluetooth";
            return vec![Finding::new("bluetoothd", Level::Problem, error.to_string(), advice)];
        }
    };
    let mut findings = vec![Finding::new("bluetoothd", Level::Ok, "running, permission granted", "")];
    if names.is_empty() {
        findings.push(Finding::new("adapter", Level::Problem, "none", "plug in a Bluetooth 5 adapter"));
    }
    for name in names {
        match session.adapter(&name) {
            Ok(adapter) => findings.extend(adapter_findings(&adapter).await),
            Err(error) => {
                findings.push(Finding::new(&name, Level::Problem, error.to_string(), "unplug, plug in again"))
            }
        }
    }
    findings
}

async fn adapter_findings(adapter: &bluer::Adapter) -> Vec<Finding> {
    let name = adapter.name();
    let address = adapter.address().await.map(|a| a.to_string()).unwrap_or_default();
    let mut findings = vec![match adapter.is_powered().await {
        Ok(true) => Finding::new(name, Level::Ok, format!("{address}, on"), ""),
        Ok(false) => Finding::new(
            name,
            Level::Warning,
            format!("{address}, off"),
            "it is switched on when used; or: bluetoothctl power on",
        ),
        Err(error) => Finding::new(name, Level::Problem, error.to_string(), "unplug it and plug it in again"),
    }];
    let sets = adapter.supported_advertising_instances().await.unwrap_or(0);
    findings.push(if sets > 0 {
        Finding::new(name, Level::Ok, format!("can advertise ({sets} sets): peripheral role"), "")
    } else {
        Finding::new(
            name,
            Level::Warning,
            "cannot advertise: central role only",
            "use another adapter to serve",
        )
    });
    if let Ok(Some(capabilities)) = adapter.supported_advertising_capabilities().await {
        let bytes = capabilities.max_advertisement_length;
        findings.push(Finding::new(name, Level::Ok, format!("adverts of up to {bytes} bytes"), ""));
    }
    if let Ok(Some(channels)) = adapter.supported_advertising_secondary_channels().await {
        let two = channels.iter().any(|c| c.to_string().eq_ignore_ascii_case("2M"));
        findings.push(if two {
            Finding::new(name, Level::Ok, "2M PHY", "")
        } else {
            Finding::new(name, Level::Advice, "no 2M PHY", "half the speed; a Bluetooth 5 adapter has it")
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged() {
        assert_eq!(judge_bluez("5.50").level, Level::Problem);
        assert_eq!(judge_bluez("5.66").level, Level::Ok);
        assert_eq!(judge_bluez("5.87").level, Level::Warning);
        assert_eq!(judge_bluez("nonsense").level, Level::Warning);
    }

    #[test]
    fn settings_are_read_with_their_defaults() {
        let levels = |conf: &str| settings(conf).iter().map(|f| f.level).collect::<Vec<_>>();
        assert_eq!(levels(""), [Level::Advice, Level::Advice]);
        assert_eq!(levels("[GATT]\nCache = no\nChannels=1\n"), [Level::Ok, Level::Ok]);
        assert_eq!(levels("[General]\nCache = no\n[GATT]\n#Channels=1\n"), [Level::Advice, Level::Advice]);
    }

    #[test]
    fn a_blocked_switch_is_a_problem() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let switch = directory.path().join("rfkill0");
        fs::create_dir(&switch)?;
        for (name, value) in [("type", "bluetooth"), ("name", "hci0"), ("hard", "0"), ("soft", "1")] {
            fs::write(switch.join(name), value)?;
        }
        let found = rfkill(directory.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].level, Level::Problem);
        assert!(found[0].advice.contains("rfkill unblock"));
        Ok(())
    }
}
