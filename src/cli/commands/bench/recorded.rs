//! A sync over a pipe that records how many bytes go which way.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};

use super::{CliError, Exit};
use crate::database::Database;
use crate::endpoint::{MessageEndpoint, MessageEndpointConnection, MessageEndpointDelegate, ProtocolType};
use crate::replicator::extension::RevsFormat;
use crate::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};
use crate::replicator::{Replicator, ReplicatorConfiguration, ReplicatorType};
use crate::transport::stream::StreamConnection;

/// Bytes in flight inside the recorder.
const PIPE_BYTES: usize = 64 * 1024;

/// Bytes that went over, in order: from the active side (`true`) or to it.
pub(super) type Record = Arc<Mutex<Vec<(bool, usize)>>>;

/// Bytes from the active side, or to it.
pub(super) fn bytes(record: &[(bool, usize)], from_active: bool) -> f64 {
    record.iter().filter(|sent| sent.0 == from_active).map(|sent| sent.1).sum::<usize>() as f64
}

/// How often the peer was waited for; the closing handshake of the byte stream is not counted.
pub(super) fn round_trips(record: &[(bool, usize)]) -> f64 {
    let turns = record.iter().zip(record.iter().skip(1)).filter(|(a, b)| a.0 && !b.0).count();
    turns.saturating_sub(1) as f64
}

/// How two databases are synced.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    /// Part of the checkpoints' name: another one starts from nothing.
    pub(super) uid: &'a str,
    pub(super) extension: bool,
    /// The form of its messages at most.
    pub(super) format: RevsFormat,
    pub(super) deltas: bool,
    /// Of deflate, 0 to 9, on both sides.
    pub(super) level: u32,
    pub(super) direction: ReplicatorType,
}

/// With the messages between our own peers.
pub(super) const OFFERED: How<'_> = How {
    uid: "recorded",
    extension: true,
    format: RevsFormat::NEWEST,
    deltas: true,
    level: 6,
    direction: ReplicatorType::PushAndPull,
};

/// As earlier releases offer them.
pub(super) const EARLIER: How<'_> = How { uid: "earlier", format: RevsFormat::TreeIds, ..OFFERED };

/// With those that a stock peer knows.
pub(super) const STOCK: How<'_> = How { uid: "plain", extension: false, ..OFFERED };

/// Syncs two databases once over a pipe that records what goes through it.
pub(super) async fn sync_recorded(
    active: &Database,
    passive: &Database,
    record: &Record,
    how: How<'_>,
) -> Result<(), CliError> {
    let mut config =
        MessageEndpointListenerConfiguration::new(Arc::new(passive.clone()), ProtocolType::ByteStream);
    config.blip.compression_level = how.level;
    config.deltas = how.deltas;
    let listener = MessageEndpointListener::new(config);
    let delegate = Arc::new(Pipe { record: Arc::clone(record), far: Mutex::default() });
    let endpoint =
        MessageEndpoint::new(how.uid, Arc::new(()), ProtocolType::ByteStream, Arc::clone(&delegate) as _);
    let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(active.clone()));
    (config.extension, config.deltas, config.replicator_type) = (how.extension, how.deltas, how.direction);
    config.revs_format = how.format;
    config.blip.compression_level = how.level;
    let replicator = Replicator::new(config);
    let (near, far) = recorded_pipe(record);
    *delegate.far.lock().unwrap_or_else(PoisonError::into_inner) = Some(near);
    let (reader, writer) = split(far);
    let accepted: Arc<dyn MessageEndpointConnection> =
        Arc::new(StreamConnection::accepted(reader, writer, "pipe"));
    listener.accept(accepted).map_err(|error| CliError::new(Exit::Peer, error.to_string()))?;
    replicator.start();
    let status = replicator.wait_until_stopped().await;
    listener.wait_until_closed().await;
    status.error.map_or(Ok(()), |error| Err(CliError::new(Exit::Peer, error.to_string())))
}

/// Gives the replicator its end of the pipe, once.
struct Pipe {
    record: Record,
    far: Mutex<Option<DuplexStream>>,
}

impl MessageEndpointDelegate for Pipe {
    fn create_connection(&self, _: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        let stream = self.far.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A second attempt finds a pipe whose other end is gone, and fails.
        let stream = stream.unwrap_or_else(|| recorded_pipe(&self.record).0);
        let (reader, writer) = split(stream);
        Arc::new(StreamConnection::accepted(reader, writer, "pipe"))
    }
}

/// Two ends of a pipe that records what goes through it.
fn recorded_pipe(record: &Record) -> (DuplexStream, DuplexStream) {
    let (near, near_inside) = duplex(PIPE_BYTES);
    let (far, far_inside) = duplex(PIPE_BYTES);
    let (from_near, to_near) = split(near_inside);
    let (from_far, to_far) = split(far_inside);
    tokio::spawn(copy(from_near, to_far, true, Arc::clone(record)));
    tokio::spawn(copy(from_far, to_near, false, Arc::clone(record)));
    (near, far)
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    from_active: bool,
    record: Record,
) {
    let mut buffer = vec![0; PIPE_BYTES];
    loop {
        match from.read(&mut buffer).await {
            Ok(len) if len > 0 => {
                record.lock().unwrap_or_else(PoisonError::into_inner).push((from_active, len));
                if to.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
            _ => {
                // The other side may have gone already.
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}
