//! Nodes that meet in one process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::listen::Sealed;
use super::*;
use crate::database::{Database, DatabaseConfig};
use crate::link::AttMtu;
use crate::replicator::ReplicatorActivity;
use crate::transport::clock::Clock;
use crate::transport::sim::{HostConfig, SimLink, SimRadio};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Nothing here waits so long; a test that hangs is to end.
const HANG_GUARD: Duration = Duration::from_secs(120);

struct Pair {
    _directory: tempfile::TempDir,
    station: Database,
    gateway: Database,
}

fn pair() -> Result<Pair, Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let open = |name| Database::open(directory.path().join(name), DatabaseConfig::default());
    let (station, gateway) = (open("station")?, open("gateway")?);
    station.default_collection()?.put("reading", &json!({ "celsius": 4.5 }))?;
    Ok(Pair { station, gateway, _directory: directory })
}

fn met_by_anybody(db: &Database) -> NodeBuilder {
    Node::builder(db.clone()).admission(Admission::Anybody)
}

async fn guarded(test: impl Future<Output = TestResult>) -> TestResult {
    tokio::time::timeout(HANG_GUARD, test).await?
}

/// All that a sync tells.
async fn all_of(sync: &mut SyncHandle) -> Vec<SyncEvent> {
    let mut events = Vec::new();
    while let Some(event) = sync.events().next().await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn two_nodes_sync_over_tcp_and_tell_of_it() -> TestResult {
    guarded(async {
        let pair = pair()?;
        let gateway = met_by_anybody(&pair.gateway).listen(Tcp::bind("127.0.0.1:0")).start().await?;
        let mut heard = gateway.events();
        let station = met_by_anybody(&pair.station).start().await?;
        let address: Address = gateway.addresses()[0].parse()?;
        let mut sync = station.sync(address).start();
        let events = all_of(&mut sync).await;
        sync.finished().await?;
        let gateway_id = gateway.id();
        assert!(events.iter().any(|event| matches!(event,
            SyncEvent::Authenticated { peer, .. } if Some(*peer) == gateway_id)));
        assert!(
            matches!(events.last(), Some(SyncEvent::Status { status, .. }) if status.activity == ReplicatorActivity::Stopped),
            "{events:?}"
        );
        assert!(pair.gateway.default_collection()?.get("reading")?.is_some());
        let station_id = station.id();
        station.shutdown().await?;
        gateway.shutdown().await?;
        let mut told = Vec::new();
        while let Some(event) = heard.next().await {
            told.push(event);
        }
        assert!(matches!(&told[0], NodeEvent::Authenticated { peer, .. } if Some(*peer) == station_id), "{told:?}");
        assert!(matches!(&told[1], NodeEvent::Connected { .. }), "{told:?}");
        assert!(told.iter().any(|event| matches!(event,
            NodeEvent::Status { status, .. } if status.activity == ReplicatorActivity::Stopped)));
        Ok(())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_continuous_sync_goes_on_over_a_new_radio_connection() -> TestResult {
    let pair = pair()?;
    let radio = SimRadio::new(7, Clock::default());
    let [station_device, gateway_device] =
        ["station", "gateway"].map(|name| radio.add_device(name, HostConfig::default()));
    let gateway =
        met_by_anybody(&pair.gateway).listen(Packets::listen_modelled(&gateway_device)).start().await?;
    let station = met_by_anybody(&pair.station).start().await?;
    let way =
        Packets::connect_modelled(station_device.connector(&gateway_device, SimLink::new(AttMtu::new(247))));
    let sync = station.sync(way).continuous(true).start();
    arrived(&pair.gateway, "reading").await?;
    radio.cut(&station_device, &gateway_device);
    pair.station.default_collection()?.put("later", &json!({ "celsius": 5.0 }))?;
    arrived(&pair.gateway, "later").await?;
    assert_eq!(gateway.listener().connections().len(), 1, "the session went on; no other was made");
    sync.stop();
    sync.finished().await?;
    station.shutdown().await?;
    gateway.shutdown().await?;
    Ok(())
}

async fn arrived(db: &Database, id: &str) -> TestResult {
    let mut changes = db.watch();
    while db.default_collection()?.get(id)?.is_none() {
        changes.changed().await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_a_group_nobody_comes_in() -> TestResult {
    guarded(async {
        let pair = pair()?;
        let gateway = Node::builder(pair.gateway.clone()).listen(Tcp::bind("127.0.0.1:0")).start().await?;
        assert!(gateway.knows_nobody());
        let mut heard = gateway.events();
        let station = met_by_anybody(&pair.station).start().await?;
        let sync = station
            .sync(gateway.addresses()[0].parse::<Address>()?)
            .options(SyncOptions { attempts: Some(1), ..SyncOptions::default() })
            .start();
        assert!(matches!(sync.finished().await, Err(SyncError::Replication { .. })));
        assert!(matches!(heard.next().await, Some(NodeEvent::Refused { .. })));
        assert!(pair.gateway.default_collection()?.get("reading")?.is_none());
        Ok(())
    })
    .await
}

/// A place that fails as often as it is told.
struct Failing {
    works: Arc<AtomicBool>,
}

impl Sealed for Failing {}

#[async_trait]
impl Listen for Failing {
    fn address(&self) -> String {
        "nowhere".to_owned()
    }

    async fn open(&self, local: &Local) -> io::Result<Box<dyn Accept>> {
        if self.works.load(Ordering::SeqCst) {
            return Tcp::bind("127.0.0.1:0").open(local).await;
        }
        Err(io::Error::other("it is broken"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_fails_is_tried_again_while_another_works() -> TestResult {
    let pair = pair()?;
    let works = Arc::new(AtomicBool::new(false));
    let failing = Failing { works: Arc::clone(&works) };
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let gateway = met_by_anybody(&pair.gateway)
        .observe(move |event| drop(sender.send(event.clone())))
        .listen(Tcp::bind("127.0.0.1:0"))
        .listen(failing)
        .start()
        .await?;
    loop {
        match heard.recv().await.ok_or("the node has ended")? {
            NodeEvent::ListenFailed { address, error, .. } => {
                assert_eq!(address, "nowhere");
                assert_eq!(error.to_string(), "cannot listen on nowhere: it is broken");
                works.store(true, Ordering::SeqCst);
            }
            NodeEvent::Listening { .. } if works.load(Ordering::SeqCst) => break,
            _ => {}
        }
    }
    assert_eq!(gateway.addresses().len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_node_that_can_listen_nowhere_does_not_start() -> TestResult {
    let pair = pair()?;
    let broken = || Failing { works: Arc::default() };
    match met_by_anybody(&pair.gateway).listen(broken()).listen(broken()).start().await {
        Err(NodeError::Listen { others, .. }) => assert_eq!(others.len(), 1),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn one_connection_too_many_is_declined_and_told_so() -> TestResult {
    guarded(async {
        let pair = pair()?;
        let gateway = Node::builder(pair.gateway.clone())
            .admission(Admission::Plain)
            .options(NodeOptions { connections_max: 0, ..NodeOptions::default() })
            .listen(Tcp::bind("127.0.0.1:0"))
            .start()
            .await?;
        let mut heard = gateway.events();
        let station = Node::builder(pair.station.clone()).admission(Admission::Plain).start().await?;
        let sync = station
            .sync(gateway.addresses()[0].parse::<Address>()?)
            .options(SyncOptions { attempts: Some(1), ..SyncOptions::default() })
            .start();
        assert!(sync.finished().await.is_err());
        let Some(NodeEvent::Connected { connection, .. }) = heard.next().await else { panic!("connected") };
        assert!(matches!(heard.next().await,
            Some(NodeEvent::Declined { connection: declined, .. }) if declined == connection));
        Ok(())
    })
    .await
}

/// A server that takes the connection, and what is sent, and says no word.
#[cfg(feature = "websocket")]
#[tokio::test]
async fn an_upstream_that_falls_silent_is_asked_and_then_given_up() -> TestResult {
    use crate::endpoint::framing::{Framing, FramingEvent, FramingRole};
    use crate::endpoint::{MessageEndpointConnection as _, ProtocolType, ReplicatorConnection};
    use crate::replicator::ReplicatorError;
    use crate::transport::websocket::{WebSocketClient, WebSocketClientConfig};
    use crate::transport::websocket::{WebSocketListener, WebSocketListenerConfig};

    guarded(async {
        let pair = pair()?;
        let server = WebSocketListener::bind("127.0.0.1:0", WebSocketListenerConfig::new("plant")).await?;
        let client = WebSocketClient::new(server.url().parse()?, &WebSocketClientConfig::default())?;
        let station = met_by_anybody(&pair.station).start().await?;
        let heartbeat = Some(Duration::from_millis(50));
        let options = SyncOptions { attempts: Some(1), heartbeat, ..SyncOptions::default() };
        let sync = station.sync(client).plain(true).options(options).start();
        let connection = server.accept().await?;
        let (handle, mut inbound) = ReplicatorConnection::detached(1 << 20);
        connection.open(handle).await?;
        let mut framing = Framing::new(FramingRole::Passive, ProtocolType::ByteStream);
        let mut pings = 0;
        while let Some(message) = inbound.next().await {
            framing.handle_bytes(&message).map_err(|error| error.to_string())?;
            pings += std::iter::from_fn(|| framing.poll_event())
                .filter(|event| matches!(event, FramingEvent::Ping(_)))
                .count();
        }
        assert_eq!(pings, 1, "it is asked once");
        let ended = sync.finished().await;
        assert!(
            matches!(&ended, Err(SyncError::Replication { source: ReplicatorError::PeerSilent { .. }, .. })),
            "{ended:?}"
        );
        Ok(station.shutdown().await?)
    })
    .await
}

/// Of two kinds of databases the two sub-protocols have nothing in common, and the refusal says so.
#[cfg(feature = "websocket")]
#[tokio::test]
async fn a_database_with_trees_is_met_by_its_like_over_websocket() -> TestResult {
    use crate::database::Versioning;
    use crate::transport::websocket::{WebSocketClient, WebSocketClientConfig, WebSocketListenerConfig};

    guarded(async {
        let directory = tempfile::tempdir()?;
        let open = |name: &str, versioning| {
            let config = DatabaseConfig { versioning: Some(versioning), ..DatabaseConfig::default() };
            Database::open(directory.path().join(name), config).map(Arc::new)
        };
        let gateway = open("gateway", Versioning::RevisionTrees)?;
        gateway.default_collection()?.put("reading", &json!({"celsius": 21}))?;
        let place = WebSocket::bind("127.0.0.1:0", WebSocketListenerConfig::new("plant"));
        let served = met_by_anybody(&gateway).listen(place).start().await?;
        for (versioning, syncs) in [(Versioning::RevisionTrees, true), (Versioning::VersionVectors, false)] {
            let station = open(&versioning.to_string(), versioning)?;
            let url = served.addresses()[0].parse()?;
            let client = WebSocketClient::new(url, &WebSocketClientConfig::default())?;
            let node = met_by_anybody(&station).start().await?;
            let options = SyncOptions { attempts: Some(1), ..SyncOptions::default() };
            let ended = node.sync(client).options(options).start().finished().await;
            assert_eq!(ended.is_ok(), syncs, "{versioning}: {ended:?}");
            assert_eq!(station.default_collection()?.count(), u64::from(syncs), "{versioning}");
            if let Err(error) = ended {
                let told = format!("{error:?}");
                assert!(told.contains("BLIP_3+CBMobile_3") && told.contains("other revision IDs"), "{told}");
            }
            node.shutdown().await?;
        }
        Ok(served.shutdown().await?)
    })
    .await
}
