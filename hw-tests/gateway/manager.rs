//! What a service manager hears (sd_notify(3)).

use std::os::unix::net::UnixDatagram;

use crate::command::PATIENCE;
use crate::{Machine, Process};

/// What was told until a datagram that holds `last`.
#[track_caller]
fn heard_until(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let (mut heard, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let len = socket
            .recv(&mut bytes)
            .unwrap_or_else(|error| panic!("{last} did not come after {heard:?}: {error}"));
        heard.push(String::from_utf8_lossy(&bytes[..len]).into_owned());
        if heard.last().is_some_and(|text| text.contains(last)) {
            return heard;
        }
    }
}

#[test]
fn the_service_manager_hears_what_goes_on_and_that_it_works() {
    let machine =
        Machine::new("[databases.plant]\ntrust-all = true\n[listeners.a]\naddress = \"tcp:127.0.0.1:0\"\n");
    let path = machine.path("run/notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // The watchdog is that of one process, whose number is known once it is there.
    let gattway = machine.command(&["run", "--json"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" run --json"]).arg(gattway.get_program());
    for (name, value) in gattway.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3000000");
    let mut process = Process::of(command);
    heard_until(&socket, "READY=1");
    heard_until(&socket, "STATUS=1 of 1 databases open, 1 of 1 listeners");
    heard_until(&socket, "WATCHDOG=1");
    heard_until(&socket, "WATCHDOG=1");
    process.signal("HUP");
    let heard = heard_until(&socket, "RELOADING=1");
    assert!(heard.last().unwrap().contains("MONOTONIC_USEC="), "{heard:?}");
    heard_until(&socket, "READY=1");
    process.signal("TERM");
    heard_until(&socket, "STOPPING=1");
    assert_eq!(process.end_of_itself(), Some(0));
}

/// What `systemd-analyze` can judge without a running systemd; where there is none, nothing is judged.
#[test]
fn the_unit_is_hardened_and_names_what_there_is() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gateway/dist/gattway.service");
    let text = std::fs::read_to_string(unit).unwrap();
    for line in ["Type=notify", "ExecStart=/usr/bin/gattway run", "User=gattway", "CapabilityBoundingSet="] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    let judged = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", "--no-pager", unit])
        .output();
    let judged = match judged {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return eprintln!("no systemd-analyze here");
        }
        judged => judged.unwrap(),
    };
    assert!(
        judged.status.success(),
        "{}{}",
        String::from_utf8_lossy(&judged.stdout),
        String::from_utf8_lossy(&judged.stderr)
    );
}

#[test]
fn the_example_beside_the_unit_is_right() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gateway/dist/gattway.toml");
    let machine = Machine::new(&std::fs::read_to_string(example).unwrap());
    let checked = machine.run(&["config", "check"]);
    assert_eq!(checked.code.is_some_and(|code| code == 0), cfg!(feature = "bluetooth"), "{checked:?}");
    // And so it is without what stands there as a comment.
    let text = std::fs::read_to_string(example).unwrap();
    let is_key = |line: &&str| line.starts_with('[') || line.contains(" = ");
    let whole = text.lines().map(|line| line.strip_prefix("# ").filter(is_key).unwrap_or(line));
    machine.write("etc/gattway.toml", &whole.map(|line| format!("{line}\n")).collect::<String>());
    let checked = machine.run(&["config", "check"]);
    let all = cfg!(all(feature = "bluetooth", feature = "websocket"));
    assert_eq!(checked.code.is_some_and(|code| code == 0), all, "{checked:?}");
}
