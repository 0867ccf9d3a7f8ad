//! Bring your own packet radio: two stations sync over a serial line that this file drives itself.
//!
//! A packet radio carries whole packets, and may lose them or the connection. That is all that is written here: how a packet
//! becomes bytes on the line and comes out of them again (SLIP, RFC 1055, with a checksum), and how both ends get hold of the
//! line. The library makes of it a stream that goes on after a loss where it was, with encryption and replication on top.
//! A pair of sockets stands in for the line; put the device of a radio modem in its place.
//!
//!     cargo run --example serial_radio

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use gattway::database::{Database, DatabaseConfig};
use gattway::node::{Admission, Node, NodeEvent, PacketListener, Packets};
use gattway::node::{Connector, PacketChannel, PacketSink, PacketSource};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Ends a frame on the line.
const END: u8 = 0xC0;
/// Begins a pair of bytes that stands for one of these two.
const ESC: u8 = 0xDB;
const ESC_END: u8 = 0xDC;
const ESC_ESC: u8 = 0xDD;
/// Bytes of a packet at most.
const PACKET_BYTES: u16 = 120;
/// Bytes that wait for the line; more packets are not taken.
const WAITING_BYTES_MAX: usize = 4096;
/// After so many packets of the caller somebody pulls the plug, once.
const PACKETS_BEFORE_CUT: u32 = 20;

// ---- Packets on a line of bytes -------------------------------------------------------------------------------------

/// One end of the line.
struct Port {
    line: UnixStream,
    outgoing: VecDeque<u8>,
    /// What has come of a frame.
    frame: Vec<u8>,
    escaped: bool,
    /// Packets until the plug is pulled.
    cut_after: Option<u32>,
}

impl Port {
    fn channel(line: UnixStream, cut_after: Option<u32>, label: &str) -> io::Result<PacketChannel> {
        let port = Port { line, outgoing: VecDeque::new(), frame: Vec::new(), escaped: false, cut_after };
        let port = Arc::new(Mutex::new(port));
        let (sink, source) = (Box::new(Sink(Arc::clone(&port))), Box::new(Source(port)));
        PacketChannel::new(sink, source, PACKET_BYTES, label)
    }

    /// Puts a packet on the line, with its checksum, so that no byte of it looks like the end.
    fn put(&mut self, packet: &[u8]) {
        for byte in packet.iter().copied().chain(checksum(packet)) {
            match byte {
                END => self.outgoing.extend([ESC, ESC_END]),
                ESC => self.outgoing.extend([ESC, ESC_ESC]),
                byte => self.outgoing.push_back(byte),
            }
        }
        self.outgoing.push_back(END);
    }

    /// Takes a byte of the line; gives the packet that it ends. What is damaged is dropped: the library sends it again.
    fn take(&mut self, byte: u8) -> Option<Vec<u8>> {
        match (std::mem::take(&mut self.escaped), byte) {
            (_, END) => {
                let mut frame = std::mem::take(&mut self.frame);
                let sum = frame.split_off(frame.len().saturating_sub(2));
                return (!frame.is_empty() && sum == checksum(&frame)).then_some(frame);
            }
            (false, ESC) => self.escaped = true,
            (true, ESC_END) => self.frame.push(END),
            (true, ESC_ESC) => self.frame.push(ESC),
            // Noise without an end must not take all memory.
            (_, byte) if self.frame.len() < 2 * usize::from(PACKET_BYTES) => self.frame.push(byte),
            _ => self.frame.clear(),
        }
        None
    }

    /// Writes what the line takes now.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            let (bytes, _) = self.outgoing.as_slices();
            match Pin::new(&mut self.line).poll_write(cx, bytes) {
                Poll::Ready(written) => drop(self.outgoing.drain(..written?)),
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

/// Fletcher's, of 16 bits.
fn checksum(packet: &[u8]) -> [u8; 2] {
    let sums = packet.iter().fold((0u16, 0u16), |(a, b), byte| {
        let a = (a + u16::from(*byte)) % 255;
        (a, (a + b) % 255)
    });
    [sums.0 as u8, sums.1 as u8]
}

struct Sink(Arc<Mutex<Port>>);
struct Source(Arc<Mutex<Port>>);

impl PacketSink for Sink {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        port.poll_write(cx)?;
        if port.outgoing.len() > WAITING_BYTES_MAX {
            return Poll::Pending;
        }
        match &mut port.cut_after {
            Some(0) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(left) => *left -= 1,
            None => {}
        }
        port.put(packet);
        Poll::Ready(port.poll_write(cx))
    }
}

impl PacketSource for Source {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if port.cut_after == Some(0) {
            return Poll::Ready(Ok(0));
        }
        // What did not fit before.
        port.poll_write(cx)?;
        loop {
            let mut byte = [0];
            let mut read = ReadBuf::new(&mut byte);
            if Pin::new(&mut port.line).poll_read(cx, &mut read)?.is_pending() {
                return Poll::Pending;
            }
            let Some(byte) = read.filled().first().copied() else { return Poll::Ready(Ok(0)) };
            let Some(frame) = port.take(byte) else { continue };
            let length = frame.len().min(packet.len());
            packet[..length].copy_from_slice(&frame[..length]);
            return Poll::Ready(Ok(length));
        }
    }
}

// ---- Who has the line -----------------------------------------------------------------------------------------------

/// The end that calls.
struct Caller {
    line: mpsc::Sender<UnixStream>,
    calls: AtomicU32,
}

#[async_trait]
impl Connector for Caller {
    async fn connect(&self) -> io::Result<PacketChannel> {
        let (here, there) = UnixStream::pair()?;
        self.line.send(there).await.map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
        let is_first = self.calls.fetch_add(1, Ordering::SeqCst) == 0;
        Port::channel(here, is_first.then_some(PACKETS_BEFORE_CUT), "serial:caller")
    }
}

/// The end that is called.
struct Called(tokio::sync::Mutex<mpsc::Receiver<UnixStream>>);

#[async_trait]
impl PacketListener for Called {
    async fn accept(&self) -> io::Result<Option<PacketChannel>> {
        let line = self.0.lock().await.recv().await;
        line.map(|line| Port::channel(line, None, "serial:called")).transpose()
    }
}

// ---- The program ----------------------------------------------------------------------------------------------------

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let open = |name| Database::open(directory.path().join(name), DatabaseConfig::default());
    let (station_db, gateway_db) = (open("station.db")?, open("gateway.db")?);
    let readings = station_db.default_collection()?;
    for hour in 0..500 {
        let reading =
            json!({ "celsius": f64::from(hour) / 10.0, "serial": format!("{:x}", hour * 7919 % 9973) });
        readings.put(&format!("reading-{hour}"), &reading)?;
    }

    let (line, calls) = mpsc::channel(1);
    let caller = Arc::new(Caller { line, calls: AtomicU32::new(0) });
    let called = Arc::new(Called(tokio::sync::Mutex::new(calls)));
    // Two that know nothing of each other meet here; else they need a group, or to be paired.
    let gateway = Node::builder(gateway_db.clone()).admission(Admission::Anybody);
    let gateway = gateway.listen(Packets::listen("serial", called)).start().await?;
    let mut heard = gateway.events();
    let station = Node::builder(station_db.clone()).admission(Admission::Anybody).start().await?;
    let way: Arc<Caller> = Arc::clone(&caller);
    let sync = station.sync(Packets::connect("serial", way)).start();
    sync.finished().await?;
    station.shutdown().await?;
    gateway.shutdown().await?;

    let mut connections = 0;
    while let Some(event) = heard.next().await {
        println!("{event}");
        connections += u32::from(matches!(event, NodeEvent::Connected { .. }));
    }
    let (calls, documents) = (caller.calls.load(Ordering::SeqCst), gateway_db.default_collection()?.count());
    println!("{documents} documents in {connections} connection, over a line that was called {calls} times");
    if (documents, connections, calls) != (500, 1, 2) {
        return Err("the sync did not go on where the line was lost".into());
    }
    Ok(())
}
