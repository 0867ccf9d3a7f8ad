//! Is this machine fit for the Bluetooth transport? Each finding says what to do.
//!
//! Only reads: nothing is switched, connected or changed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::adapter::SLOTS_DEFAULT;
use super::daemon::Daemon;
use super::error::{BluetoothError, is_denied};
use super::kernel;

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
    findings.extend(restarts());
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

async fn adapters() -> Vec<Finding> {
    let daemon = match Daemon::reach().await {
        Ok(daemon) => daemon,
        Err(error) => {
            let advice = match &error {
                BluetoothError::NotPermitted { .. } => PERMISSION,
                BluetoothError::NoDaemon { message } if message.contains("does not run") => {
                    "start it: systemctl enable --now bluetooth"
                }
                BluetoothError::TimedOut { .. } => "it hangs: systemctl restart bluetooth",
                _ => "is D-Bus running? systemctl start dbus",
            };
            return vec![Finding::new("bluetoothd", Level::Problem, error.to_string(), advice)];
        }
    };
    let mut names = match daemon.session.adapter_names().await {
        Ok(names) => names,
        Err(error) if is_denied(&error) => {
            return vec![Finding::new("d-bus", Level::Problem, error.to_string(), PERMISSION)];
        }
        Err(error) => {
            let advice = "restart it: systemctl restart bluetooth";
            return vec![Finding::new("bluetoothd", Level::Problem, error.to_string(), advice)];
        }
    };
    names.sort();
    let mut findings = vec![Finding::new("bluetoothd", Level::Ok, "running, permission granted", "")];
    if names.is_empty() {
        let advice = "plug in a Bluetooth 5 adapter, or see with `dmesg` why the built-in one did not start";
        findings.push(Finding::new("adapter", Level::Problem, "none", advice));
    }
    for name in names {
        match daemon.session.adapter(&name) {
            Ok(adapter) => findings.extend(adapter_findings(&adapter).await),
            Err(error) => {
                findings.push(Finding::new(&name, Level::Problem, error.to_string(), "unplug, plug in again"))
            }
        }
    }
    findings
}

const PERMISSION: &str = "run as root, or add the user to the group `bluetooth` and log in again";

/// Versions of the specification by the number that the Link Layer has for them.
const SPECIFICATIONS: [(u8, &str); 10] = [
    (6, "4.0"),
    (7, "4.1"),
    (8, "4.2"),
    (9, "5.0"),
    (10, "5.1"),
    (11, "5.2"),
    (12, "5.3"),
    (13, "5.4"),
    (14, "6.0"),
    (15, "6.1"),
];

/// Makers of whose adapters it is known how many connections they hold (`firmware-notes/bluez.md`, slots).
const SLOTS: [(u16, &str, usize); 2] = [(10, "Cambridge Silicon Radio", 5), (15, "Broadcom", 7)];

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
    if let Some(controller) = kernel::controller_number(name) {
        findings.extend(controller_findings(name, controller).await);
    }
    let sets = adapter.supported_advertising_instances().await.unwrap_or(0)
        + adapter.active_advertising_instances().await.unwrap_or(0);
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
    findings
}

/// What the kernel tells of a controller, each as far as this user may know it.
async fn controller_findings(name: &str, controller: u16) -> Vec<Finding> {
    let info = match kernel::controller_info(controller).await {
        Ok(info) => info,
        Err(error) => {
            return vec![Finding::new(name, Level::Advice, format!("its features are unknown: {error}"), "")];
        }
    };
    let version = SPECIFICATIONS.iter().find(|(number, _)| *number == info.version).map_or("?", |(_, v)| v);
    let slots = SLOTS.iter().find(|(maker, ..)| *maker == info.manufacturer);
    let maker =
        slots.map_or_else(|| format!("company {}", info.manufacturer), |(_, maker, _)| (*maker).to_owned());
    let mut findings = vec![if info.supported & kernel::settings::LE == 0 {
        Finding::new(name, Level::Problem, "no Low Energy", "use another adapter, of Bluetooth 4.0 or newer")
    } else if info.current & kernel::settings::LE == 0 {
        let advice = "set ControllerMode = dual or le under [General] of main.conf";
        Finding::new(name, Level::Problem, "Low Energy is switched off", advice)
    } else if info.version < SPECIFICATIONS[2].0 {
        let advice = "a Bluetooth 5 adapter is up to five times as fast";
        Finding::new(
            name,
            Level::Advice,
            format!("Bluetooth {version}, {maker}: packets of 27 octets only"),
            advice,
        )
    } else {
        Finding::new(name, Level::Ok, format!("Bluetooth {version} with Low Energy, {maker}"), "")
    }];
    let told = fs::read_to_string(format!("/sys/kernel/debug/bluetooth/{name}/features")).ok();
    findings.extend(feature_findings(name, told.as_deref().and_then(le_features)));
    if let Ok((supported, selected)) = kernel::phy_configuration(controller).await
        && supported & kernel::phys::LE_2M == kernel::phys::LE_2M
    {
        let coded = if supported & kernel::phys::LE_CODED == 0 { "" } else { ", and coded" };
        findings.push(if selected & kernel::phys::LE_2M == 0 {
            let advice = "btmgmt phy LE1MTX LE1MRX LE2MTX LE2MRX allows it, until the next start";
            Finding::new(name, Level::Advice, format!("Linux does not ask for the 2M PHY{coded}"), advice)
        } else {
            Finding::new(name, Level::Ok, format!("2M PHY is allowed{coded}"), "")
        });
    }
    if info.current & kernel::settings::SECURE_CONNECTIONS == 0 {
        let advice = "set SecureConnections = on under [General] of main.conf, if the adapter can do it";
        findings.push(Finding::new(
            name,
            Level::Advice,
            "no Secure Connections: pairing without elliptic curves",
            advice,
        ));
    }
    findings.push(if info.current & kernel::settings::PRIVACY == 0 {
        let advice = "set Privacy = device under [General] of main.conf where nobody may follow this device; peers then find it by \
            ble:any or the name that they gave it, no longer by its address";
        Finding::new(name, Level::Advice, "the address stays the same: anybody can follow it", advice)
    } else {
        Finding::new(name, Level::Ok, "the address changes (Privacy)", "")
    });
    let text = match slots {
        Some((_, maker, slots)) => format!("connection slots: about {slots} ({maker}); --slots {slots}"),
        None => {
            format!("connection slots: no adapter tells; {SLOTS_DEFAULT} are assumed, --slots changes it")
        }
    };
    findings.push(Finding::new(name, Level::Ok, text, ""));
    findings
}

/// The octets of LE features in the kernel's debug file of a controller: bit 5 data length, bit 8 2M, bit 12 extended
/// advertising.
fn le_features(file: &str) -> Option<u64> {
    let octets = file.lines().find_map(|line| line.trim().strip_prefix("LE:"))?;
    let octets: Vec<u8> = octets
        .split_whitespace()
        .map(|octet| u8::from_str_radix(octet.trim_start_matches("0x"), 16))
        .collect::<Result<_, _>>()
        .ok()?;
    let mut features = [0; 8];
    features.get_mut(..octets.len())?.copy_from_slice(&octets);
    Some(u64::from_le_bytes(features))
}

fn feature_findings(name: &str, features: Option<u64>) -> Vec<Finding> {
    let Some(features) = features else {
        let found = "data length, 2M PHY and extended advertising are unknown";
        return vec![Finding::new(name, Level::Ok, found, "run as root with debugfs mounted to see them")];
    };
    let each = [
        (
            5,
            "data length extension",
            "packets of 27 octets cost half the speed or more: use a Bluetooth 4.2 adapter or newer",
        ),
        (8, "2M PHY", "half the speed: a Bluetooth 5 adapter has it"),
        (12, "extended advertising", ""),
    ];
    let judge = |(bit, what, advice): (u32, &str, &str)| match features >> bit & 1 {
        1 => Finding::new(name, Level::Ok, what, ""),
        _ if advice.is_empty() => Finding::new(name, Level::Ok, format!("no {what}"), ""),
        _ => Finding::new(name, Level::Advice, format!("no {what}"), advice),
    };
    each.into_iter().map(judge).collect()
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
        let good = "[GATT]\nCache = no # fresh\nChannels=1\n[LE]\nMinAdvertisementInterval=160\n";
        let bad = "[General]\nCache = no\n[GATT]\n#Channels=1\n[Policy]\nAutoEnable=false\n";
        assert_eq!(levels(""), [Level::Advice, Level::Advice, Level::Advice, Level::Ok]);
        assert_eq!(levels(good), [Level::Ok; 4]);
        assert_eq!(levels(bad), [Level::Advice; 4]);
    }

    #[test]
    fn a_daemon_that_stays_away_is_told() {
        assert_eq!(judge_restarts("no").map(|f| f.level), Some(Level::Advice));
        assert_eq!(judge_restarts("on-failure").map(|f| f.level), Some(Level::Ok));
        assert_eq!(judge_restarts(""), None);
    }

    #[test]
    fn features_are_read_from_the_kernels_debug_file() {
        let file = " 0: 00 00 00 00 60 00 00 00\nLE: 0x29 0x11 00 00 00 00 00 00\n";
        let levels = |file: &str| {
            feature_findings("hci0", le_features(file)).iter().map(|f| f.level).collect::<Vec<_>>()
        };
        assert_eq!(levels(file), [Level::Ok; 3]);
        assert_eq!(levels("LE: 01 00 00 00 00 00 00 00"), [Level::Advice, Level::Advice, Level::Ok]);
        assert_eq!(levels("nonsense").len(), 1);
        assert_eq!(le_features("LE: 01 02 03 04 05 06 07 08 09"), None);
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
