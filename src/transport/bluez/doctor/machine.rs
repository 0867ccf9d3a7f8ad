//! What else of the machine bears on Bluetooth: a container around this process, Wi-Fi on the same radio.

use std::fs;
use std::path::Path;

use super::finding::{Finding, Level};

/// Drivers of Wi-Fi chips that have Bluetooth on the same antenna, with the machines where it is so.
const SHARED_RADIOS: [(&str, &str); 1] = [("brcmfmac", "Raspberry Pi")];

/// Of a process in a container, whether it can reach bluetoothd; `root` is `/`.
pub(super) fn container(root: &Path) -> Option<Finding> {
    let marks = [".dockerenv", "run/.containerenv"];
    if !marks.iter().any(|mark| root.join(mark).exists()) {
        return None;
    }
    if root.join("run/dbus/system_bus_socket").exists()
        || root.join("var/run/dbus/system_bus_socket").exists()
    {
        return Some(Finding::new("container", Level::Ok, "in a container that has a socket of D-Bus", ""));
    }
    let advice = "give it the host's: --volume /run/dbus/system_bus_socket:/run/dbus/system_bus_socket, and --network host for L2CAP";
    Some(Finding::new("container", Level::Problem, "in a container without the socket of D-Bus", advice))
}

/// Each Wi-Fi interface that is up, and whether it shares its radio with Bluetooth; `root` is `/`.
pub(super) fn wifi(root: &Path) -> Vec<Finding> {
    let model = fs::read_to_string(root.join("proc/device-tree/model")).unwrap_or_default();
    let mut names: Vec<_> =
        fs::read_dir(root.join("sys/class/net")).into_iter().flatten().flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    let up = names.iter().filter(|entry| {
        let path = entry.path();
        let state = fs::read_to_string(path.join("operstate")).unwrap_or_default();
        (path.join("phy80211").exists() || path.join("wireless").exists()) && state.trim() == "up"
    });
    let judge = |entry: &fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let driver = fs::read_link(entry.path().join("device/driver")).unwrap_or_default();
        let driver = driver.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if SHARED_RADIOS.iter().any(|(shared, machine)| *shared == driver && model.contains(machine)) {
            let found = format!(
                "{name} is up and has one radio with the built-in Bluetooth: each slows the other down"
            );
            let advice = "Wi-Fi at 5 GHz, a cable, or a USB adapter for Bluetooth with `--adapter`; `rfkill block wifi` where it is not needed";
            return Finding::new("wifi", Level::Advice, found, advice);
        }
        Finding::new(
            "wifi",
            Level::Ok,
            format!("{name} is up; at 2.4 GHz it shares the air with Bluetooth"),
            "",
        )
    };
    up.map(judge).collect()
}
