use super::adapters::{feature_findings, le_features};
use super::machine::{container, wifi};
use super::*;

#[test]
fn versions_are_judged() {
    assert_eq!(judge_bluez("5.50").level, Level::Problem);
    assert_eq!(judge_bluez("5.66").level, Level::Ok);
    assert_eq!(judge_bluez("5.87").level, Level::Warning);
    assert_eq!(judge_bluez("nonsense").level, Level::Warning);
}

#[test]
fn a_kernel_that_crashes_is_known_by_what_it_was_made_of() {
    let debian = |version: &str| {
        format!(
            "Linux version 6.1.0-49-arm64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0) #1 SMP Debian {version} (2026-11-06)"
        )
    };
    let level = |version: &str| judge_kernel("6.1.0-49-arm64", version).level;
    assert_eq!(level(&debian("6.1.192-2")), Level::Warning);
    assert_eq!(level("Linux version 6.1.192 (root@x) #1"), Level::Warning);
    for sound in [debian("6.1.190-1"), debian("6.1.1920-1"), "Linux version 6.18.4 #1".into(), String::new()]
    {
        assert_eq!(level(&sound), Level::Ok, "{sound}");
    }
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
    let levels =
        |file: &str| feature_findings("hci0", le_features(file)).iter().map(|f| f.level).collect::<Vec<_>>();
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

#[test]
fn a_container_needs_the_socket_of_d_bus() -> std::io::Result<()> {
    let root = tempfile::tempdir()?;
    let level = || container(root.path()).map(|finding| finding.level);
    assert_eq!(level(), None, "no container");
    fs::write(root.path().join(".dockerenv"), "")?;
    assert_eq!(level(), Some(Level::Problem));
    fs::create_dir_all(root.path().join("run/dbus"))?;
    fs::write(root.path().join("run/dbus/system_bus_socket"), "")?;
    assert_eq!(level(), Some(Level::Ok));
    Ok(())
}

#[test]
fn wifi_on_the_radio_of_bluetooth_is_told() -> std::io::Result<()> {
    let root = tempfile::tempdir()?;
    let at = |path: &str| root.path().join(path);
    for (name, state, is_wireless) in [("eth0", "up", false), ("wlan0", "up", true), ("wlan1", "down", true)]
    {
        let device = at(&format!("sys/class/net/{name}/device"));
        fs::create_dir_all(&device)?;
        fs::write(at(&format!("sys/class/net/{name}/operstate")), format!("{state}\n"))?;
        std::os::unix::fs::symlink("/sys/bus/sdio/drivers/brcmfmac", device.join("driver"))?;
        if is_wireless {
            fs::create_dir(at(&format!("sys/class/net/{name}/phy80211")))?;
        }
    }
    let levels = || wifi(root.path()).iter().map(|finding| finding.level).collect::<Vec<_>>();
    assert_eq!(levels(), [Level::Ok], "wlan0 alone is up, and this is no Raspberry Pi");
    fs::create_dir_all(at("proc/device-tree"))?;
    fs::write(at("proc/device-tree/model"), "Raspberry Pi 4 Model B Rev 1.4\0")?;
    assert_eq!(levels(), [Level::Advice]);
    Ok(())
}
