//! Strangers that connect without end, to fill the card that logs are kept on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::command::gattway;
use crate::{Guard, database, wait_until};

const CONNECTIONS: u64 = 1_500;
/// Kinds of lines that one stranger can cause with the same garbage, at most.
const KINDS: u64 = 6;
/// Longest line.
const LINE_BYTES: u64 = 400;

/// Sends garbage on many connections, and waits each time for the listener's word about it, or its end.
fn flood(address: &str, garbage: &[u8]) {
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).unwrap();
        // It may have hung up by then.
        let _ = stream.write_all(garbage);
        let _ = stream.read(&mut [0; 64]);
    }
}

/// What a `serve` with these arguments writes during a flood, on both ways out; asserts the bound for the time that it took.
fn written_by(args: &[&str], garbage: &[u8]) -> String {
    let (directory, db) = database();
    let log = directory.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let mut command = gattway(&db);
    let port = crate::command::free_port();
    let address = format!("127.0.0.1:{port}");
    command.args(args).args(["--listen", &format!("tcp:{address}")]);
    let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    let mut serve = Guard(child);
    let read = || std::fs::read_to_string(&log).unwrap();
    wait_until("it listens", || read().contains("listening"));
    let before = read().len() as u64;
    let began = Instant::now();
    flood(&address, garbage);
    serve.signal("TERM");
    serve.ended();
    // 20 lines of each kind at once, then one in six seconds with its count; and the words of the end.
    let lines = KINDS * (20 + 2 * (began.elapsed().as_secs() / 6 + 1)) + 20;
    let text = read();
    let (told, bytes) = (text.lines().count() as u64, text.len() as u64 - before);
    assert!(told <= lines && bytes <= lines * LINE_BYTES, "{args:?}: {told} lines, {bytes} bytes: {text}");
    text
}

#[test]
fn a_flood_of_garbage_writes_little_and_is_counted() {
    const OFFER_LIKE: &[u8] = b"\x47\x01\xff\xff garbage";
    const HTTP: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    for garbage in [OFFER_LIKE, HTTP] {
        let text = written_by(&["serve", "--json"], garbage);
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let refused = events.iter().filter(|event| event["event"] == "refused").count() as u64;
        let suppressed = events.iter().filter(|event| event["event"] == "suppressed");
        let suppressed: u64 = suppressed.map(|event| event["events"].as_u64().unwrap()).sum();
        // Of those that come while many wait to be told, some are in the last count alone.
        assert!(refused + suppressed > CONNECTIONS * 9 / 10, "{refused} and {suppressed}: {text}");

        let text = written_by(&["-v", "serve"], garbage);
        let line =
            text.lines().find(|line| line.ends_with("peers turned away")).unwrap_or_else(|| panic!("{text}"));
        let told: String =
            line.split(' ').rev().nth(3).unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
        // A connection is closed before it is counted: the last may be missing, on a busy machine as many as wait for their turn.
        let told: u64 = told.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!((CONNECTIONS * 9 / 10..=CONNECTIONS).contains(&told), "{line}");
        assert!(text.contains("not shown one by one") && text.contains("were left out"), "{text}");

        written_by(&["serve", "--plain", "--json"], garbage);
        let text = written_by(&["-v", "serve", "--plain"], garbage);
        assert!(text.contains("not shown one by one"), "{text}");
    }
}
