//! Sessions without replication: patterns there and back, checked byte by byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use gattway::endpoint::{Inbound, Message, MessageEndpointConnection, ReplicatorConnection};
use gattway::lab::transport::session::{LinkConnection, SessionStats};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::protocol::{Moved, RoundTrips, Sample};
use super::{Result, fail, now_us};

/// Bytes that may wait for whoever reads; behind them the link's own buffer fills, then the peer must stop.
const QUEUE_BYTES: usize = 32 * 1024;
/// Shortest time between two recorded arrivals.
const ARRIVAL_STEP_US: u64 = 10_000;

/// An open session.
pub struct ByteSession {
    /// The product's connection.
    pub connection: Arc<LinkConnection>,
    reader: Mutex<Reader>,
}

struct Reader {
    inbound: Inbound,
    rest: Bytes,
}

impl ByteSession {
    /// Opens a connection; a central connects now.
    pub async fn open(connection: Arc<LinkConnection>) -> Result<ByteSession> {
        let (handle, inbound) = ReplicatorConnection::detached(QUEUE_BYTES);
        if let Err(error) = connection.open(handle).await {
            let _ = connection.close(None).await;
            return Err(error.into());
        }
        Ok(ByteSession { connection, reader: Mutex::new(Reader { inbound, rest: Bytes::new() }) })
    }

    /// Sends `bytes` of the pattern; done when the link has taken them.
    pub async fn send(&self, bytes: u64, seed: u64, message_bytes: u64) -> Result<Moved> {
        let from_us = now_us();
        let mut at = 0;
        while at < bytes {
            let length = message_bytes.clamp(1, bytes - at);
            let message: Vec<u8> = (at..at + length).map(|offset| pattern(seed, offset)).collect();
            self.connection.send(Message::from_bytes(message)).await?;
            at += length;
        }
        Ok(Moved { from_us, to_us: now_us(), arrivals: Vec::new() })
    }

    /// Takes `bytes` and compares them with the pattern from `offset` on. Between two calls nobody reads.
    pub async fn receive(&self, bytes: u64, seed: u64, offset: u64) -> Result<Moved> {
        let mut reader = self.reader.lock().await;
        let (mut at, mut arrivals, mut from_us) = (offset, Vec::<(u64, u64)>::new(), 0);
        let bytes = offset + bytes;
        while at < bytes {
            let piece = reader.next(bytes - at).await?;
            for byte in &piece {
                if *byte != pattern(seed, at) {
                    return fail(format!("byte {at} is {byte:#04x}, not {:#04x}", pattern(seed, at)));
                }
                at += 1;
            }
            let now = now_us();
            if from_us == 0 {
                from_us = now;
            }
            if at == bytes || arrivals.last().is_none_or(|(last, _)| now >= last + ARRIVAL_STEP_US) {
                arrivals.push((now, at));
            }
        }
        Ok(Moved { from_us, to_us: now_us(), arrivals })
    }

    /// Messages there and back, one at a time.
    pub async fn ping(&self, count: u32, bytes: u64) -> Result<RoundTrips> {
        let mut ms = Vec::new();
        for number in 0..u64::from(count) {
            let began = std::time::Instant::now();
            self.send(bytes, number, bytes).await?;
            self.receive(bytes, number, 0).await?;
            ms.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(RoundTrips { ms })
    }

    /// The other side of [`ByteSession::ping`].
    pub async fn echo(&self, count: u32, bytes: u64) -> Result<()> {
        for number in 0..u64::from(count) {
            self.receive(bytes, number, 0).await?;
            self.send(bytes, number, bytes).await?;
        }
        Ok(())
    }

    /// Waits for the end; gives the error it ended with.
    pub async fn wait_closed(&self, limit: Duration) -> Result<Option<String>> {
        let reader = self.reader.lock().await;
        if timeout(limit, reader.inbound.wait_closed()).await.is_err() {
            return fail(format!("the session has not ended within {} s", limit.as_secs()));
        }
        Ok(reader.inbound.closed().flatten().map(|error| error.to_string()))
    }
}

impl Reader {
    /// Some bytes, at most `limit`.
    async fn next(&mut self, limit: u64) -> Result<Bytes> {
        if self.rest.is_empty() {
            match self.inbound.next().await {
                Some(message) => self.rest = message.to_bytes(),
                None => {
                    let error = self.inbound.closed().flatten().map(|error| error.to_string());
                    return fail(format!("the session ended: {}", error.as_deref().unwrap_or("in order")));
                }
            }
        }
        let length = self.rest.remaining().min(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(self.rest.split_to(length))
    }
}

/// Byte number `offset` of the pattern `seed`: no two stretches are alike.
fn pattern(seed: u64, offset: u64) -> u8 {
    let mut x = (offset >> 3)
        .wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 31;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> ((offset & 7) * 8)) as u8
}

/// A session's counters as the director reads them.
pub fn sample(session: u32, stats: &SessionStats) -> Sample {
    let link = &stats.link;
    Sample {
        session,
        at_us: now_us(),
        label: stats.label.clone(),
        sent: link.bytes_acknowledged,
        given: link.bytes_sent,
        received: link.bytes_received,
        packets_sent: link.packets_sent,
        packets_received: link.packets_received,
        retransmissions: link.retransmissions,
        bytes_retransmitted: link.bytes_retransmitted,
        needless: link.retransmissions_needless,
        out_of_order: link.out_of_order,
        resumes: link.resumes,
        channels: stats.channels,
        srtt_ms: link.srtt.as_secs_f64() * 1e3,
        rssi_dbm: None,
    }
}
