//! What happened in a run, in order: a hash of all of it, and the last lines for people.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Lines that a failure shows.
const LINES_KEPT: usize = 250;

/// Records a run. The hash covers every packet with its bytes and its time, those of one instant in the order of their channels:
/// tasks that become ready at once, as when all sessions of a node hear that somebody was denied, run in an order that tokio
/// draws anew in each run.
pub struct Trace {
    start: Instant,
    printing: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    hasher: DefaultHasher,
    /// The time of what is not in the hash yet.
    micros: u64,
    /// What happened then, with its channel.
    at_once: Vec<(u32, Vec<u8>)>,
    lines: VecDeque<String>,
    packets: u64,
}

/// Stands for what is on no channel.
const NO_CHANNEL: u32 = u32::MAX;

impl Inner {
    fn add(&mut self, micros: u64, channel: u32, bytes: &[u8]) {
        if micros != self.micros {
            self.hasher = self.hashed();
            self.at_once.clear();
            self.micros = micros;
        }
        self.at_once.push((channel, bytes.to_vec()));
    }

    /// With what has happened until now.
    fn hashed(&self) -> DefaultHasher {
        let mut hasher = self.hasher.clone();
        let mut at_once: Vec<&(u32, Vec<u8>)> = self.at_once.iter().collect();
        at_once.sort_by_key(|(channel, _)| *channel);
        for (channel, bytes) in at_once {
            hasher.write_u64(self.micros);
            hasher.write_u32(*channel);
            hasher.write(bytes);
        }
        hasher
    }
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
        inner.add(micros, NO_CHANNEL, line.as_bytes());
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
        inner.add(micros, channel, packet);
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.lock().hashed().finish()
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
