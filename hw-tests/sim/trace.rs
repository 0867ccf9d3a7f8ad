//! What happened in a run, in order: a hash of all of it, and the last lines for people.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Lines that a failure shows.
const LINES_KEPT: usize = 250;

/// Records a run. The hash covers every packet with its bytes and its time.
pub struct Trace {
    start: Instant,
    printing: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    hasher: DefaultHasher,
    lines: VecDeque<String>,
    packets: u64,
}

impl Trace {
    /// A trace that begins now; prints each line at once if so wanted.
    pub fn new(printing: bool) -> Trace {
        Trace { start: Instant::now(), printing, inner: Mutex::default() }
    }

    /// Time since the run began, in microseconds.
    pub fn micros(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Notes a line.
    pub fn note(&self, line: impl AsRef<str>) {
        let micros = self.micros();
        let line = format!("{:>5}.{:06} {}", micros / 1_000_000, micros % 1_000_000, line.as_ref());
        if self.printing {
            eprintln!("{line}");
        }
        let mut inner = self.lock();
        inner.hasher.write(line.as_bytes());
        if inner.lines.len() >= LINES_KEPT {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line);
    }

    /// Notes a packet on a channel.
    pub fn packet(&self, channel: u32, packet: &[u8]) {
        let micros = self.micros();
        if self.printing {
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            let (half, bytes) = (if channel.is_multiple_of(2) { "sent" } else { "received" }, packet.len());
            let hash = crc32fast::hash(packet);
            eprintln!("{seconds:>5}.{micros:06} channel {} {half} {bytes} bytes {hash:08x}", channel / 2);
        }
        let mut inner = self.lock();
        inner.packets += 1;
        inner.hasher.write_u64(micros);
        inner.hasher.write_u32(channel);
        inner.hasher.write(packet);
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.lock().hasher.finish()
    }

    /// Packets so far.
    pub fn packets(&self) -> u64 {
        self.lock().packets
    }

    /// The last lines.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
