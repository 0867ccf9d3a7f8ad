//! A peer that speaks WebSocket frames and BLIP correctly enough to do harm. Blocking, and it holds little itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use gattway::endpoint::ProtocolType;
use gattway::lab::blip::Properties;
use gattway::lab::blip::frame::{Frame, FrameFlags, FrameHeader, FrameType};
use gattway::lab::blip::stream::StreamEncoder;
use gattway::lab::blip::varint;
use gattway::lab::endpoint::framing::{Framing, FramingEvent, FramingRole};

use crate::server::Server;

/// Payload of one frame of a long message, in bytes.
const PIECE: usize = 32 * 1024;
/// Patience with a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a write may block before the pipe counts as full.
const STUCK: Duration = Duration::from_secs(1);

/// How the victim ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a closing frame of this code.
    Closed(u16),
    /// Without one, or it was lost with what was still on its way.
    Gone,
    /// Not yet.
    Open,
}

impl End {
    /// Whether it was ended for what the attacker did; a closing frame may be lost with a reset.
    pub fn is_refusal(self) -> bool {
        matches!(self, End::Closed(1002 | 4001) | End::Gone)
    }
}

pub struct Attacker {
    stream: TcpStream,
    framing: Framing,
    encoder: StreamEncoder,
    requests: u64,
    /// The connection takes nothing more.
    broken: bool,
}

impl Attacker {
    pub fn connect(server: &Server) -> Attacker {
        Attacker::connect_to(server.address)
    }

    pub fn connect_to(address: SocketAddr) -> Attacker {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_write_timeout(Some(STUCK)).expect("a time limit");
        Attacker {
            stream,
            framing: Framing::new(FramingRole::Active, ProtocolType::ByteStream),
            encoder: StreamEncoder::new(9),
            requests: 0,
            broken: false,
        }
    }

    /// Sends bytes; what the victim does not take any more is no matter.
    pub fn raw(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let began = Instant::now();
        while !rest.is_empty() && !self.broken {
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if is_timeout(&error) && began.elapsed() < PATIENCE => {}
                Err(_) => self.broken = true,
            }
        }
    }

    fn frame(&mut self, number: u64, flags: FrameFlags, parts: &[&[u8]]) {
        let mut frame = Vec::new();
        FrameHeader { number, flags }.emit(&mut frame);
        let checksum = self.encoder.encode(parts, flags.compressed(), &mut frame);
        frame.extend_from_slice(&checksum.to_be_bytes());
        let bytes = self.framing.encode_frame(&frame, [1, 2, 3, 4]);
        self.raw(&bytes);
    }

    /// A request of properties and body, in as many frames as it takes.
    pub fn request(&mut self, properties: &[(&str, &str)], body: &str) {
        self.requests += 1;
        let mut head = Vec::new();
        let properties: Properties = properties.iter().copied().collect();
        varint::put(properties.as_bytes().len() as u64, &mut head);
        head.extend_from_slice(properties.as_bytes());
        let flags = FrameFlags::new(FrameType::Request);
        if body.len() < PIECE {
            return self.frame(self.requests, flags, &[&head, body.as_bytes()]);
        }
        self.frame(self.requests, flags.with_more_coming(true), &[&head]);
        let mut pieces = body.as_bytes().chunks(PIECE).peekable();
        while let Some(piece) = pieces.next() {
            let more = pieces.peek().is_some();
            self.frame(self.requests, flags.with_more_coming(more), &[piece]);
        }
    }

    /// Begins as an honest peer does.
    pub fn collections(&mut self) {
        let body = r#"{"checkpoint_ids":["cp-x"],"collections":["_default"]}"#;
        self.request(&[("Profile", "getCollections"), ("gattway", "1")], body);
        assert!(self.hears(FrameType::Reply), "the collections");
    }

    /// A message of a single frame that unfolds to so many zeros.
    pub fn bomb(&mut self, bytes: usize) {
        self.requests += 1;
        let zeros = vec![0; PIECE];
        let parts = vec![&zeros[..]; bytes / PIECE];
        self.frame(self.requests, FrameFlags::new(FrameType::Request).with_compressed(true), &parts);
    }

    /// So many messages by turns, none of which ends, until so many bytes are sent.
    pub fn flood(&mut self, messages: u64, bytes: usize) {
        let piece = vec![0; PIECE];
        let flags = FrameFlags::new(FrameType::Request).with_more_coming(true);
        for n in 0..(bytes / PIECE) as u64 {
            if self.broken {
                return;
            }
            self.frame(1 + n % messages, flags, &[&piece]);
        }
    }

    /// A revision whose body begins with `head` and goes on with an array of numbers, about `bytes` long.
    pub fn large_rev(&mut self, head: &str, bytes: usize) {
        self.requests += 1;
        let mut start = Vec::new();
        let pairs = [("Profile", "rev"), ("id", "large"), ("rev", "18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ")];
        let properties: Properties = pairs.into_iter().collect();
        varint::put(properties.as_bytes().len() as u64, &mut start);
        start.extend_from_slice(properties.as_bytes());
        let flags = FrameFlags::new(FrameType::Request).with_more_coming(true);
        self.frame(self.requests, flags, &[&start, head.as_bytes(), b"["]);
        let piece = b"0,".repeat(PIECE / 2);
        for _ in 0..bytes / PIECE {
            self.frame(self.requests, flags, &[&piece]);
        }
        self.frame(self.requests, flags.with_more_coming(false), &[b"0]}"]);
    }

    /// 512 of the same requests at once; `false` if the pipe does not take them.
    pub fn ask(&mut self, properties: &[(&str, &str)]) -> bool {
        let properties: Properties = properties.iter().copied().collect();
        let mut head = Vec::new();
        varint::put(properties.as_bytes().len() as u64, &mut head);
        head.extend_from_slice(properties.as_bytes());
        let mut batch = Vec::new();
        for _ in 0..512 {
            self.requests += 1;
            let mut frame = Vec::new();
            let flags = FrameFlags::new(FrameType::Request);
            FrameHeader { number: self.requests, flags }.emit(&mut frame);
            let checksum = self.encoder.encode(&[&head], false, &mut frame);
            frame.extend_from_slice(&checksum.to_be_bytes());
            self.framing.encode_frame_into(&frame, [1, 2, 3, 4], &mut batch);
        }
        let mut rest = &batch[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads until a BLIP frame of this type comes.
    pub fn hears(&mut self, kind: FrameType) -> bool {
        self.read(PATIENCE, |event| match event {
            FramingEvent::Frame(frame) => {
                Frame::parse(frame).is_ok_and(|frame| frame.header.flags.kind() == kind)
            }
            _ => false,
        })
        .is_some()
    }

    /// Reads to the end.
    pub fn end(&mut self) -> End {
        self.end_within(PATIENCE)
    }

    /// Reads to the end, or for so long.
    pub fn end_within(&mut self, time: Duration) -> End {
        let began = Instant::now();
        match self.read(time, |event| matches!(event, FramingEvent::Close { .. })) {
            Some(FramingEvent::Close { code, .. }) => End::Closed(code),
            _ if began.elapsed() < time => End::Gone,
            _ => End::Open,
        }
    }

    /// Waits for the end without reading a byte.
    pub fn end_unread(&mut self, time: Duration) -> End {
        let began = Instant::now();
        let ping = self.framing.encode_ping(b"", [1, 2, 3, 4]).expect("a byte stream has pings");
        while began.elapsed() < time {
            match self.stream.write(&ping) {
                Ok(_) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) if is_timeout(&error) => {}
                Err(_) => return End::Gone,
            }
        }
        End::Open
    }

    /// Reads until an event is the wanted one; `None` at the end of the stream or of the time.
    fn read(&mut self, time: Duration, wanted: impl Fn(&FramingEvent) -> bool) -> Option<FramingEvent> {
        let began = Instant::now();
        self.stream.set_read_timeout(Some(Duration::from_millis(20))).ok()?;
        let mut buffer = [0; 4096];
        loop {
            while let Some(event) = self.framing.poll_event() {
                if wanted(&event) {
                    return Some(event);
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => {
                    self.framing.handle_bytes(&buffer[..count]).expect("the victim speaks correctly")
                }
                Err(error) if is_timeout(&error) && began.elapsed() < time => {}
                Err(_) => return None,
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// A JSON list of about `bytes` bytes: numbers in one row after `[[`, empty rows after `[`.
pub fn list_of(head: &str, bytes: usize) -> String {
    let (item, end) = if head == "[[" { ("0,", "0]]") } else { ("[],", "[]]") };
    let mut text = head.to_owned();
    text.push_str(&item.repeat(bytes / item.len()));
    text.push_str(end);
    text
}
