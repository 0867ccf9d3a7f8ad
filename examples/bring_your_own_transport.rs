//! Bring your own transport: two databases sync over a transport that this file writes itself.
//!
//! The transport here is TCP, because every machine has it; put a serial line, a radio or a message queue in its place.
//! It is shown in both shapes that a transport may have: a raw stream of bytes (`ProtocolType::ByteStream`; the library
//! frames them) and whole messages (`ProtocolType::MessageStream`; the transport keeps their boundaries, here with a
//! length before each).
//!
//!     cargo run --example bring_your_own_transport

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gattway::database::{Database, DatabaseConfig};
use gattway::endpoint::{
    Message, MessageEndpoint, MessageEndpointConnection, MessageEndpointDelegate, MessagingError,
    ProtocolType, ReplicatorConnection,
};
use gattway::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};
use gattway::replicator::{Replicator, ReplicatorActivity, ReplicatorConfiguration};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

// ---- The transport: what you write --------------------------------------------------------------------------------

/// The longest message that this transport accepts from the other side, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// One connection, on either side.
struct TcpConnection {
    protocol_type: ProtocolType,
    /// Where to connect to, on the active side.
    address: Option<SocketAddr>,
    /// The socket that is connected already, on the passive side.
    accepted: Mutex<Option<TcpStream>>,
    /// There while the connection is open.
    writer: Mutex<Option<OwnedWriteHalf>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl TcpConnection {
    fn new(
        protocol_type: ProtocolType,
        address: Option<SocketAddr>,
        accepted: Option<TcpStream>,
    ) -> TcpConnection {
        let (writer, reader) = (Mutex::new(None), Mutex::new(None));
        TcpConnection { protocol_type, address, accepted: Mutex::new(accepted), writer, reader }
    }
}

#[async_trait]
impl MessageEndpointConnection for TcpConnection {
    /// Connect, keep the library's handle, return when bytes can flow.
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        let accepted = self.accepted.lock().await.take();
        let stream = match (accepted, self.address) {
            (Some(stream), _) => stream,
            // An io::Error becomes a recoverable error: the replicator will try again with a new connection.
            (None, Some(address)) => TcpStream::connect(address).await?,
            (None, None) => return Err(MessagingError::permanent("nothing to connect to")),
        };
        let (reader, writer) = stream.into_split();
        *self.writer.lock().await = Some(writer);
        // What arrives goes to the handle. Each connection has its own; never mix them up.
        *self.reader.lock().await = Some(tokio::spawn(read(reader, connection, self.protocol_type)));
        Ok(())
    }

    /// Take one message; return when the next may come.
    async fn send(&self, message: Message) -> Result<(), MessagingError> {
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(|| MessagingError::recoverable("not open"))?;
        if self.protocol_type == ProtocolType::MessageStream {
            writer.write_all(&(message.len() as u32).to_be_bytes()).await?;
        }
        Ok(writer.write_all(&message).await?)
    }

    /// Disconnect. Called once for each `open`, also if that failed.
    async fn close(&self, error: Option<MessagingError>) -> Result<(), MessagingError> {
        if let Some(error) = error {
            println!("  the library closes a connection: {error}");
        }
        if let Some(mut writer) = self.writer.lock().await.take() {
            writer.shutdown().await?;
        }
        if let Some(reader) = self.reader.lock().await.take() {
            reader.abort();
        }
        Ok(())
    }
}

/// Gives the library what arrives, and tells it when nothing more will.
async fn read(mut reader: OwnedReadHalf, connection: ReplicatorConnection, protocol_type: ProtocolType) {
    let end = loop {
        let received = match protocol_type {
            ProtocolType::ByteStream => read_some(&mut reader).await,
            ProtocolType::MessageStream => read_message(&mut reader).await,
        };
        match received {
            // Waits while the library has enough: back-pressure that reaches the sender through TCP.
            Ok(Some(message)) => connection.receive(message).await,
            Ok(None) => break None,
            Err(error) => break Some(MessagingError::from(error)),
        }
    };
    // The library answers by calling `close`.
    connection.close(end);
}

/// Any number of bytes will do: the library finds the boundaries.
async fn read_some(reader: &mut OwnedReadHalf) -> std::io::Result<Option<Message>> {
    let mut bytes = vec![0; 16 * 1024];
    let len = reader.read(&mut bytes).await?;
    bytes.truncate(len);
    Ok((len > 0).then(|| Message::from_bytes(bytes)))
}

/// Exactly what the other side's `send` was given.
async fn read_message(reader: &mut OwnedReadHalf) -> std::io::Result<Option<Message>> {
    let len = match reader.read_u32().await {
        Ok(len) => len as usize,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if len > MESSAGE_BYTES_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "message above the limit"));
    }
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes).await?;
    Ok(Some(Message::from_bytes(bytes)))
}

// ---- The active side: the peer that connects ----------------------------------------------------------------------

/// Makes a new connection object for each attempt of the replicator.
struct TcpDelegate;

impl MessageEndpointDelegate for TcpDelegate {
    fn create_connection(&self, endpoint: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        // The target is whatever you gave the endpoint: an address, the ID of a device ...
        let address = endpoint.target_as::<SocketAddr>().copied();
        Arc::new(TcpConnection::new(endpoint.protocol_type(), address, None))
    }
}

fn replicator(
    db: &Database,
    address: SocketAddr,
    protocol_type: ProtocolType,
    continuous: bool,
) -> Replicator {
    // The uid names the peer's database. Under the same uid a later replication goes on where this one ended.
    let endpoint = MessageEndpoint::new("hub", Arc::new(address), protocol_type, Arc::new(TcpDelegate));
    let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(db.clone()));
    config.continuous = continuous;
    Replicator::new(config)
}

// ---- The passive side: the peer that is connected to --------------------------------------------------------------

/// Hands every socket that connects to a listener.
async fn listen(
    db: &Database,
    protocol_type: ProtocolType,
) -> Result<(Arc<MessageEndpointListener>, SocketAddr), Box<dyn Error>> {
    let config = MessageEndpointListenerConfiguration::new(Arc::new(db.clone()), protocol_type);
    let listener = Arc::new(MessageEndpointListener::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    let accepting = Arc::clone(&listener);
    tokio::spawn(async move {
        // Here an application would check who the peer is, before it lets it replicate.
        while let Ok((stream, _)) = socket.accept().await {
            let connection = Arc::new(TcpConnection::new(protocol_type, None, Some(stream)));
            if let Err(error) = accepting.accept(connection) {
                println!("  refused: {error}");
            }
        }
    });
    Ok((listener, address))
}

// ---- Both, and the proof ------------------------------------------------------------------------------------------

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for protocol_type in [ProtocolType::ByteStream, ProtocolType::MessageStream] {
        println!("{protocol_type:?}:");
        tokio::time::timeout(Duration::from_secs(60), sync(protocol_type)).await??;
    }
    println!("Both databases hold the same documents over both kinds of transport.");
    Ok(())
}

async fn sync(protocol_type: ProtocolType) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let field = Database::open(directory.path().join("field"), DatabaseConfig::default())?;
    let hub = Database::open(directory.path().join("hub"), DatabaseConfig::default())?;
    for n in 0..100 {
        field.default_collection()?.put(&format!("reading-{n:03}"), &json!({ "n": n, "celsius": 20.5 }))?;
    }
    hub.default_collection()?.put("settings", &json!({ "interval_s": 60 }))?;
    let (listener, address) = listen(&hub, protocol_type).await?;

    // Once: exchange what there is, then stop.
    let once = replicator(&field, address, protocol_type, false);
    once.start();
    let status = once.wait_until_stopped().await;
    if let Some(error) = status.error {
        return Err(error.into());
    }
    assert_equal(&field, &hub, "after a one-shot replication")?;

    // Continuously: a change on either side arrives at the other.
    let live = replicator(&field, address, protocol_type, true);
    let _token = live.add_change_listener(|status| println!("  the replicator is {:?}", status.activity));
    live.start();
    live.wait_until(|status| status.activity == ReplicatorActivity::Idle).await;
    field.default_collection()?.put("reading-100", &json!({ "n": 100, "celsius": 21.0 }))?;
    hub.default_collection()?.put("settings", &json!({ "interval_s": 5 }))?;
    arrives(&hub, "reading-100", "n", json!(100)).await?;
    arrives(&field, "settings", "interval_s", json!(5)).await?;
    assert_equal(&field, &hub, "after a change on each side")?;

    // The passive side ends it first; the active side hears of it, and would connect again until it is told to stop.
    listener.close_all();
    live.wait_until(|status| status.activity == ReplicatorActivity::Offline).await;
    live.stop();
    live.wait_until_stopped().await;
    listener.wait_until_closed().await;
    Ok(())
}

/// Waits until a property of a document has a value.
async fn arrives(db: &Database, id: &str, key: &str, value: Value) -> Result<(), Box<dyn Error>> {
    let mut changes = db.watch();
    loop {
        changes.mark_unchanged();
        if db.default_collection()?.get(id)?.is_some_and(|document| document.body().get(key) == Some(&value))
        {
            return Ok(());
        }
        changes.changed().await?;
    }
}

/// The proof.
fn assert_equal(a: &Database, b: &Database, when: &str) -> Result<(), Box<dyn Error>> {
    let (a, b) = (contents(a)?, contents(b)?);
    if a != b {
        return Err(format!("{when} the databases differ: {} and {} documents", a.len(), b.len()).into());
    }
    println!("  {when} both hold the same {} documents", a.len());
    Ok(())
}

fn contents(db: &Database) -> Result<Vec<(String, Value)>, Box<dyn Error>> {
    let mut all = Vec::new();
    for document in db.default_collection()?.iter() {
        let document = document?;
        all.push((document.id().to_owned(), Value::Object(document.body().clone())));
    }
    Ok(all)
}
