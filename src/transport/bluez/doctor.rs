//! Is this machine fit for the Bluetooth transport? Each finding says what to do.
//!
//! Only reads: nothing is switched, connected or changed.

mod adapters;
mod finding;
mod machine;

use std::fs;
use std::path::Path;
use std::process::Command;

pub use self::finding::{Finding, Level};

use self::adapters::adapters;

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

/// Kernels that free an L2CAP channel twice: `hci_chan_del` in `l2cap_conn_free`.
const KERNELS_CRASH: [&str; 1] = ["6.1.192"];

/// Looks at everything; never fails, a check that cannot be made is a finding.
pub async fn examine() -> Vec<Finding> {
    let mut findings = vec![kernel(), bluez_version()];
    findings.extend(rfkill(Path::new("/sys/class/rfkill")));
    findings.extend(settings(fs::read_to_string(MAIN_CONF).unwrap_or_default().as_str()));
    findings.extend(restarts());
    findings.extend(machine::container(Path::new("/")));
    findings.extend(machine::wifi(Path::new("/")));
    findings.extend(adapters().await);
    findings
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    if Path::new("/sys/class/bluetooth").exists() {
        let version = fs::read_to_string("/proc/version").unwrap_or_default();
        return judge_kernel(&release, &version);
    }
    let advice = "load the module (modprobe bluetooth) or use a kernel that has it";
    Finding::new("kernel", Level::Problem, format!("Linux {release} without Bluetooth"), advice)
}

/// `version` is what `/proc/version` says: a distribution's release does not tell from which version it was made.
fn judge_kernel(release: &str, version: &str) -> Finding {
    let is_made_of =
        |known: &str| version.split(|c: char| !(c.is_ascii_digit() || c == '.')).any(|part| part == known);
    match KERNELS_CRASH.iter().find(|known| is_made_of(known)) {
        Some(known) => {
            let found = format!("Linux {release}, made of {known}, crashes at times when a connection ends");
            let advice = "install a newer kernel, or go back to the one before (firmware-notes/bluez.md)";
            Finding::new("kernel", Level::Warning, found, advice)
        }
        None => Finding::new("kernel", Level::Ok, format!("Linux {release} with Bluetooth"), ""),
    }
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

/// A setting of main.conf that matters here.
struct Setting {
    section: &'static str,
    key: &'static str,
    /// What BlueZ takes where the key is missing.
    default: &'static str,
    /// What suits; empty: anything that was set on purpose.
    wanted: &'static str,
    advice: &'static str,
}

const SETTINGS: [Setting; 4] = [
    Setting {
        section: "GATT",
        key: "Cache",
        default: "always",
        wanted: "no",
        advice: "set Cache = no under [GATT] of main.conf: a stale cache hides a peer's new version",
    },
    Setting {
        section: "GATT",
        key: "Channels",
        default: "3",
        wanted: "1",
        advice: "set Channels = 1 under [GATT] of main.conf: more reorder packets and cost speed",
    },
    Setting {
        section: "LE",
        key: "MinAdvertisementInterval",
        default: "1.28 s",
        wanted: "",
        advice: "set MinAdvertisementInterval = 160 and MaxAdvertisementInterval = 240 under [LE] of main.conf: each connection is \
            made 2 to 3 s sooner",
    },
    Setting {
        section: "Policy",
        key: "AutoEnable",
        default: "true",
        wanted: "true",
        advice: "set AutoEnable = true under [Policy] of main.conf: an adapter that is plugged in again comes up by itself",
    },
];

/// Judges main.conf. BlueZ's defaults stand where a key is missing.
fn settings(main_conf: &str) -> Vec<Finding> {
    let mut section = "";
    let mut set = std::collections::HashMap::new();
    for line in main_conf.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
        } else if !line.starts_with('#')
            && let Some((key, value)) = line.split_once('=')
        {
            let value = value.split('#').next().unwrap_or_default();
            set.insert((section, key.trim()), value.trim());
        }
    }
    let judge = |setting: &Setting| {
        let Setting { section, key, default, wanted, advice } = setting;
        let value = set.get(&(*section, *key)).copied();
        let good = match value {
            Some(_) if wanted.is_empty() => true,
            value => value.unwrap_or(default) == *wanted,
        };
        let found = match value {
            Some(value) => format!("[{section}] {key} = {value}"),
            None => format!("[{section}] {key} is not set: {default}"),
        };
        let (level, advice) = if good { (Level::Ok, "") } else { (Level::Advice, *advice) };
        Finding::new("settings", level, found, advice)
    };
    SETTINGS.iter().map(judge).collect()
}

/// Whether the daemon is started again when it crashes, as BlueZ 5.66 does at times when its adapter goes.
fn restarts() -> Option<Finding> {
    let output =
        Command::new("systemctl").args(["show", "--property=Restart", "--value", "bluetooth"]).output();
    let text = output.ok().filter(|o| o.status.success())?.stdout;
    judge_restarts(String::from_utf8_lossy(&text).trim())
}

fn judge_restarts(policy: &str) -> Option<Finding> {
    let found = format!("systemd restarts bluetoothd: {policy}");
    Some(match policy {
        "" => return None,
        "no" => Finding::new(
            "restart",
            Level::Advice,
            found,
            "systemctl edit bluetooth, and put Restart=on-failure under [Service]: a bluetoothd that crashed stays away else",
        ),
        _ => Finding::new("restart", Level::Ok, found, ""),
    })
}

#[cfg(test)]
mod tests;
