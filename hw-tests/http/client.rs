//! HTTP by hand, so that a test sends what no library would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::PATIENCE;

/// What is asked.
#[derive(Clone)]
pub enum Client {
    Unix(PathBuf),
    Tcp(String, Vec<String>),
}

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Client {
    pub fn unix(path: &Path) -> Client {
        Client::Unix(path.to_owned())
    }

    pub fn connect(&self) -> Box<dyn Stream> {
        match self {
            Client::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
            Client::Tcp(address, _) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
        }
    }

    /// The head of a request, without the empty line.
    fn head(&self, method: &str, path: &str) -> String {
        match self {
            Client::Unix(_) => format!("{method} {path} HTTP/1.1\r\nhost: x\r\n"),
            Client::Tcp(address, headers) => {
                let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
                format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}")
            }
        }
    }

    pub fn with(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let mut request = self.head(method, path);
        headers.iter().for_each(|header| request.push_str(&format!("{header}\r\n")));
        request.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()));
        // Who is refused may hear it before all was sent.
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body));
        read(stream).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.with("GET", path, &[], b"")
    }

    pub fn put(&self, path: &str, body: &str) -> Answer {
        self.with("PUT", path, &[], body.as_bytes())
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.with("POST", path, &[], body.as_bytes())
    }

    /// A feed that goes on: its lines, without those of the framing.
    pub fn follow(&self, path: &str) -> Lines {
        let mut stream = self.connect();
        stream.write_all(format!("{}\r\n", self.head("GET", path)).as_bytes()).unwrap();
        let mut lines = Lines(BufReader::new(stream));
        while !lines.line().unwrap().is_empty() {}
        lines
    }
}

/// Lines as they come.
pub struct Lines(BufReader<Box<dyn Stream>>);

impl Lines {
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let len = self.0.read_line(&mut line).unwrap();
        (len > 0).then(|| line.trim_end().to_owned())
    }

    /// The next line with this in it; `None`: the feed has ended.
    pub fn next_with(&mut self, text: &str) -> Option<String> {
        loop {
            let line = self.line()?;
            if line.contains(text) {
                return Some(line);
            }
        }
    }
}

/// Reads an answer to its end.
pub fn read(mut stream: impl Read) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A connection that is closed with something unread may end so.
    let _ = stream.read_to_end(&mut bytes);
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let is_chunked = header(&head, "transfer-encoding").is_some_and(|coding| coding == "chunked");
    let body = bytes[at + 4..].to_vec();
    Some(Answer { status, head, body: if is_chunked { unchunked(&body) } else { body } })
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let Some(at) = bytes.windows(2).position(|two| two == b"\r\n") else { return body };
        let len = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
        if len == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[at + 2..at + 2 + len]);
        bytes = &bytes[at + 2 + len + 2..];
    }
}
