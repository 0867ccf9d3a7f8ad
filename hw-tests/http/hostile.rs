//! What a client can do wrong, or on purpose.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::client::{Client, read};
use super::command::{PATIENCE, run_with_input};
use super::{Served, end};

/// More than a server has places for.
const IDLE: usize = 1_000;

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn no_path_leads_anywhere_else() {
    let served = Served::start();
    let http = served.client();
    let long = "n".repeat(241);
    for (path, status) in [
        ("/plant/%00", 400),
        ("/plant/a%0ab", 400),
        ("/plant/%ff", 400),
        (&*format!("/plant/{long}"), 400),
        ("/plant/../../etc/passwd", 404),
        ("/../../etc/passwd", 404),
        ("/plant/..%2F..%2Fetc%2Fpasswd", 404),
        ("/%2e%2e/identity", 404),
        ("/plant/_nothing", 404),
        ("/plant./a", 400),
        ("/plant.a.b.c/a", 400),
        ("/plant._system.x/a", 400),
        ("/plant%2F/a", 404),
        ("//", 404),
        ("/plant/", 404),
        ("/plant/a/b/c", 404),
        ("/none/a", 404),
    ] {
        let answer = http.get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.json()["reason"].is_string(), "{path}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("root:"), "{answer:?}");
    }
    // Such IDs are IDs, and no paths.
    for path in ["/plant/..%2Fup", "/plant/a%2Fb", "/plant/%F0%9F%98%80", "/plant/+", "/plant/a%20b"] {
        assert_eq!(http.put(path, "{}").status, 201, "{path}");
        assert_eq!(http.get(path).status, 200, "{path}");
    }
    assert_eq!(http.with("PATCH", "/plant/a", &[], b"{}").status, 405);
    assert_eq!(http.with("DELETE", "/plant", &[], b"").status, 405);
    assert_eq!(http.with("GET", "/plant", &["origin: http://evil.example"], b"").status, 403);
    assert_eq!(http.with("POST", "/plant", &["sec-fetch-site: cross-site"], b"{}").status, 403);
    // Told to be long, and long without being told so.
    let mut stream = http.connect();
    stream.write_all(b"PUT /plant/big HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n").unwrap();
    assert_eq!(read_head(&mut *stream), 413);
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    assert_eq!(http.put("/plant/deep", &deep).status, 400);
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(21 << 20));
    assert_eq!(http.put("/plant/huge", &huge).status, 413);
    assert_eq!(http.put("/plant/after", "{}").status, 201);
    end(served);
}

/// The status of an answer whose connection may stay open.
fn read_head(stream: &mut (impl Read + ?Sized)) -> u16 {
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

#[test]
fn garbage_and_silence_keep_nobody_out() {
    let served = Served::start();
    let http = served.client();
    for garbage in [
        &b"\0\x01\x02\xff\xfe garbage\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\nhost: x\r\n\r\n",
        b"read {\"args\":[\"db\",\"ls\"],\"people\":false}\n",
        b"POST /plant/_bulk_docs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /plant/a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        &[b'a'; 70_000],
        &[&b"GET / HTTP/1.1\r\n"[..], &b"x: y\r\n".repeat(500), b"\r\n"].concat(),
    ] {
        let mut stream = http.connect();
        // It may be refused before it is sent.
        let _ = stream.write_all(garbage);
        let answer = read(stream);
        assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{answer:?}");
    }
    // A request that breaks off, and many who say nothing at all: the one who does gives no way.
    let Client::Unix(path) = &http else { panic!("it is one") };
    let mut follower = http.follow("/plant/_changes?feed=continuous&heartbeat=true");
    let mut idle = Vec::new();
    for n in 0..IDLE {
        let mut stream = UnixStream::connect(path).unwrap();
        if n % 2 == 0 {
            let _ = stream.write_all(b"PUT /plant/a HTTP/1.1\r\nhost: x\r\ncontent-le");
        }
        idle.push(stream);
        if n % 100 == 0 {
            assert_eq!(http.get("/plant").status, 200);
        }
    }
    assert_eq!(http.put("/plant/heard", "{}").status, 201);
    assert!(follower.next_with("\"heard\"").is_some(), "who is answered does not give way");
    drop(idle);
    end(served);
}

#[test]
fn who_never_reads_costs_no_memory() {
    let served = Served::start();
    let http = served.client();
    let filler = "x".repeat(20_000);
    for batch in 0..10 {
        let docs: Vec<serde_json::Value> = (0..100)
            .map(|n| serde_json::json!({"_id": format!("{batch}-{n}"), "filler": filler, "n": fastrand(batch * 100 + n)}))
            .collect();
        let body = serde_json::json!({ "docs": docs }).to_string();
        assert_eq!(http.post("/plant/_bulk_docs", &body).status, 201);
    }
    let all = http.get("/plant/_all_docs?include_docs=true").body.len();
    assert!(all > 20_000_000, "{all}");
    let before = resident(served.process.child.id());
    let paths = ["/plant/_changes?include_docs=true", "/plant/_all_docs?include_docs=true"];
    let deaf: Vec<_> = (0..60)
        .map(|n| {
            let mut stream = http.connect();
            stream.write_all(format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", paths[n % 2]).as_bytes()).unwrap();
            // It has begun to be answered.
            assert_eq!(read_head(&mut *stream), 200);
            stream
        })
        .collect();
    // What the deaf are sent stands still: others are answered meanwhile.
    for n in 0..20 {
        assert_eq!(http.put(&format!("/plant/while-{n}"), "{}").status, 201);
    }
    let after = resident(served.process.child.id());
    assert!(
        after < before + 60 * 1_024,
        "{before} KiB before, {after} KiB with 60 who do not read {all} bytes each"
    );
    drop(deaf);
    end(served);
}

/// Something that compresses to no less.
fn fastrand(n: usize) -> u64 {
    (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What is for our own commands has no room of its own: two bodies that do not end take it, and the rest is let go of with them.
#[test]
fn bodies_of_all_requests_share_one_room() {
    let served = Served::start();
    let http = served.client();
    let begun = |path: &str, sent: usize| {
        let mut stream = UnixStream::connect(served.db.join("http")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 23 << 20);
        let written = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b' '; sent]));
        (stream, written)
    };
    // Those before may still have the room for a moment. Who is sent away has an answer, though all that he sends may be read.
    let is_waited_for = |stream: &mut UnixStream| {
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let held = || loop {
        if let (mut stream, Ok(())) = begun("/_save", 22 << 20)
            && is_waited_for(&mut stream)
        {
            return stream;
        }
    };
    for path in ["/_command", "/_save"] {
        let held = [held(), held()];
        let (mut refused, _) = begun(path, 22 << 20);
        assert_eq!(read_head(&mut refused), 429, "{path}");
        drop(held);
    }
    // Whoever was sent away is asked to come again, and our own commands do.
    let held = [held(), held()];
    let document = format!("{{\"filler\":\"{}\"}}", "x".repeat(12 << 20));
    std::thread::scope(|scope| {
        let put =
            scope.spawn(|| run_with_input(&served.db, &["db", "put", "large", "-"], document.as_bytes()));
        assert_eq!(http.put("/plant/small", "{}").status, 201);
        drop(held);
        assert_eq!(put.join().unwrap().code, Some(0));
    });
    assert_eq!(http.get("/plant/large").status, 200);
    end(served);
}

#[test]
fn the_sockets_are_their_owners_alone() {
    let served = Served::start();
    let socket = served.db.join("http");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&served.db)), (0o600, 0o700));
    // Another user: only root can try.
    let id = std::process::Command::new("id").arg("-u").output().unwrap();
    if id.stdout == b"0\n" {
        // The directories above are opened, so that the mode of the socket is what counts.
        for directory in [&*served.db, served.db.parent().unwrap()] {
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let script = format!(
            "import os, socket\nos.setgid(65534)\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n\
             try:\n    s.connect({:?})\n    print('in')\nexcept PermissionError:\n    print('out')\n",
            socket.to_str().unwrap()
        );
        let tried = std::process::Command::new("python3").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&tried.stdout), "out\n", "{tried:?}");
    }
    end(served);
}

#[test]
fn a_body_that_comes_in_drops_is_taken() {
    let served = Served::start();
    let http = served.client();
    let mut stream = http.connect();
    stream
        .write_all(b"PUT /plant/slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 12\r\n\r\n")
        .unwrap();
    for byte in b"{\"n\": 12345}" {
        stream.write_all(&[*byte]).unwrap();
        stream.flush().unwrap();
    }
    assert_eq!(read(stream).unwrap().status, 201);
    let until = Instant::now() + PATIENCE;
    while http.get("/plant/slow").status != 200 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
    end(served);
}
