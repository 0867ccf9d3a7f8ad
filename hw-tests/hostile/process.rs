//! A `gattway serve` in a process of its own, as it is looked at from outside.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Child;

/// Waits until it listens on TCP; reads its further events, so that none of them holds it up.
pub fn listening(child: &mut Child) -> SocketAddr {
    let mut events = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(events.read_line(&mut line).expect("an event") > 0, "it ended before it listened");
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if event["event"] == "listening" {
            let address = event["address"].as_str().expect("text").trim_start_matches("tcp:");
            break address.parse().expect("an address");
        }
    };
    std::thread::spawn(move || std::io::copy(&mut events, &mut std::io::sink()));
    address
}

/// What of a process's memory is in use, in bytes.
pub fn resident(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has not crashed");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}
