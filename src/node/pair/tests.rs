//! Two devices and a person between them, and what goes wrong.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::database::DatabaseConfig;
use crate::node::{PacketListener, Packets, Tcp};
use crate::transport::packet::PacketChannel;
use crate::trust::list::TrustList;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Nothing here waits so long; a test that hangs is to end.
const HANG_GUARD: Duration = Duration::from_secs(120);

fn database(directory: &Path, name: &str) -> Result<Database, Box<dyn std::error::Error>> {
    Ok(Database::open(directory.join(name), DatabaseConfig::default())?)
}

/// A device that shows its code, with the address and the code as it tells them, and what it tells then.
fn shows(db: &Database) -> (PairBuilder, UnboundedReceiver<String>, Arc<Mutex<Vec<String>>>) {
    let (tell, told) = unbounded_channel();
    let others = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&others);
    let pairing = Node::pair(db).observe(move |event| match event {
        PairEvent::Listening { address } => {
            let _ = tell.send(address.trim_start_matches("tcp:").to_owned());
        }
        PairEvent::Code { code } => {
            let _ = tell.send((*code).to_owned());
        }
        other => heard.lock().expect("not poisoned").push(other.to_string()),
    });
    (pairing, told, others)
}

fn known_to(db: &Database) -> Vec<PeerId> {
    TrustList::load(db.path()).expect("a list").peers().map(|(id, _)| *id).collect()
}

#[tokio::test]
async fn paired_devices_know_each_other_and_sync() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (gateway, sensor) = (database(directory.path(), "gateway")?, database(directory.path(), "sensor")?);
    sensor.default_collection()?.put("reading", &json!({ "celsius": 4.5 }))?;
    let (pairing, mut told, _) = shows(&gateway);
    let shows = pairing.name("the gateway").listen(Tcp::bind("127.0.0.1:0"));
    let types = async {
        let address = told.recv().await.unwrap_or_default();
        let code = told.recv().await.unwrap_or_default();
        Node::pair(&sensor).connect(Tcp::connect(address), &code).await
    };
    let (at_gateway, at_sensor) =
        tokio::time::timeout(HANG_GUARD, async { tokio::try_join!(shows, types) }).await??;
    assert!(at_gateway.confirmed && at_sensor.confirmed);
    assert_eq!(at_sensor.name.as_deref(), Some("the gateway"));
    assert_eq!((known_to(&gateway), known_to(&sensor)), (vec![at_gateway.id], vec![at_sensor.id]));

    let served = Node::builder(gateway.clone()).listen(Tcp::bind("127.0.0.1:0")).start().await?;
    let node = Node::builder(sensor).start().await?;
    assert_eq!((served.id(), node.id()), (Some(at_sensor.id), Some(at_gateway.id)));
    let address = served.addresses().remove(0);
    let sync = node.sync(Tcp::connect(address.trim_start_matches("tcp:"))).start();
    tokio::time::timeout(HANG_GUARD, sync.finished()).await??;
    assert!(gateway.default_collection()?.get("reading")?.is_some());
    node.shutdown().await?;
    Ok(served.shutdown().await?)
}

#[tokio::test]
async fn wrong_codes_end_it_and_enter_nobody() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (gateway, sensor) = (database(directory.path(), "gateway")?, database(directory.path(), "sensor")?);
    let (pairing, mut told, heard) = shows(&gateway);
    let shows = pairing.listen(Tcp::bind("127.0.0.1:0"));
    let guesses = async {
        let address = told.recv().await.unwrap_or_default();
        let code = told.recv().await.unwrap_or_default().replace(' ', "");
        let wrong = if code == "000000" { "111111" } else { "000000" };
        for _ in 0..crate::secure::pairing::ATTEMPTS_MAX {
            let guess = Node::pair(&sensor).connect(Tcp::connect(address.clone()), wrong).await;
            assert!(matches!(guess, Err(PairError::Refused(_) | PairError::Lost { .. })), "{guess:?}");
        }
    };
    let (ended, ()) = tokio::time::timeout(HANG_GUARD, async { tokio::join!(shows, guesses) }).await?;
    assert!(matches!(ended, Err(PairError::NoAttemptLeft)), "{ended:?}");
    assert_eq!((known_to(&gateway), known_to(&sensor)), (vec![], vec![]));
    let heard = heard.lock().expect("not poisoned");
    for left in ["2 attempts left", "1 attempt left", "0 attempts left"] {
        assert!(heard.iter().any(|line| line.ends_with(left)), "{left}: {heard:?}");
    }
    Ok(())
}

/// Nobody comes.
struct Silent;

#[async_trait]
impl PacketListener for Silent {
    async fn accept(&self) -> io::Result<Option<PacketChannel>> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_and_no_code_is_taken_for_one() -> TestResult {
    let directory = tempfile::tempdir()?;
    let db = database(directory.path(), "gateway")?;
    let alone = Node::pair(&db).listen(Packets::listen("radio:", Arc::new(Silent))).await;
    assert!(matches!(alone, Err(PairError::TimedOut { limit }) if limit == PAIRING_TIMEOUT), "{alone:?}");
    for code in ["", "12345", "1234567", "12345a"] {
        let refused = Node::pair(&db).connect(Tcp::connect("127.0.0.1:9"), code).await;
        assert!(matches!(refused, Err(PairError::Code(_))), "{code}: {refused:?}");
    }
    let unnamed = Node::pair(&db).name("").connect(Tcp::connect("127.0.0.1:9"), "123 456").await;
    assert!(matches!(unnamed, Err(PairError::List(_))), "{unnamed:?}");
    let other = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = Node::pair(&db).listen(Tcp::bind(other.local_addr()?.to_string())).await;
    assert!(matches!(taken, Err(PairError::Listen(_))), "{taken:?}");
    Ok(())
}
