//! All databases of a gateway, and the one loop that looks after them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::config::Config;
use super::history::DatabaseHistory;
use super::http::api::Api;
use super::http::listener::HttpListener;
use super::medium::Medium;
use super::pairing::RadioTurn;
use super::status::{GatewayStatus, now_s};
use super::unit::{Request, Unit};
use super::upstream::Order;
use super::{GatewayEvent, Tell};

/// How long a unit may take to say that it works: opening a large database takes its time, and it answers none meanwhile.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A gateway that runs.
pub(crate) struct Gateway {
    config: Config,
    path: PathBuf,
    since_s: u64,
    units: BTreeMap<String, Unit>,
    medium: Medium,
    /// HTTP on TCP, and what it answers from.
    http: Option<HttpListener>,
    api: Option<Api>,
    tell: Tell,
}

impl Gateway {
    /// Begins with everything that the configuration at `path` names; what fails is tried again, and holds up nothing else.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn start(config: Config, path: &Path, tell: Tell) -> Gateway {
        let (units, medium) = (BTreeMap::new(), Medium::open(&config.state));
        let mut gateway = Gateway {
            config,
            path: path.to_owned(),
            since_s: now_s(),
            units,
            medium,
            http: None,
            api: None,
            tell,
        };
        for name in gateway.config.databases.keys().cloned().collect::<Vec<_>>() {
            gateway.add(&name);
        }
        gateway
    }

    /// Answers programs over HTTP on TCP, as the configuration says now and later.
    pub(crate) fn answer_with(&mut self, api: Api) {
        self.api = Some(api);
        self.open_http();
    }

    fn open_http(&mut self) {
        let wanted = self.config.http.clone().zip(self.api.clone());
        let start =
            |(config, api)| HttpListener::start(config, api, &self.config.state, Arc::clone(&self.tell));
        self.http = wanted.map(start);
    }

    fn add(&mut self, name: &str) {
        if let Some(config) = self.config.databases.get(name) {
            let unit = Unit::start(name, config.clone(), Arc::clone(&self.tell));
            self.units.insert(name.to_owned(), unit);
        }
    }

    /// Whether all work: each has answered, by the loop that does its work. A unit that has ended by itself is begun again.
    pub(crate) async fn is_alive(&mut self) -> bool {
        let ended: Vec<String> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.task.is_finished())
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            // Only a panic ends one that was not told to. Whoever keeps the database open for it lets go of it.
            (self.tell)(&GatewayEvent::Closed { database: name.as_str().into() });
            let (database, error) = (name.as_str().into(), "it has panicked".to_owned());
            (self.tell)(&GatewayEvent::DatabaseFailed { database, error, retry: Duration::ZERO });
            self.add(&name);
        }
        let asked = self.units.values().map(|unit| {
            let (answer, answered) = oneshot::channel();
            (unit.requests.clone(), answer, answered)
        });
        let mut waiting = Vec::new();
        for (requests, answer, answered) in asked {
            let asked =
                async move { requests.send(Request::Ping(answer)).await.is_ok() && answered.await.is_ok() };
            waiting
                .push(crate::task::spawn(async move { timeout(ANSWER_LIMIT, asked).await.unwrap_or(false) }));
        }
        let mut all = true;
        for answer in waiting {
            all &= answer.await.unwrap_or(false);
        }
        self.medium.look();
        self.units.values().for_each(|unit| unit.board.note());
        all
    }

    /// Does as another configuration says; gives what was done, and what only a restart can change.
    pub(crate) async fn reload(&mut self, config: Config) -> Vec<String> {
        let before = std::mem::replace(&mut self.config, config);
        let mut done = Vec::new();
        if before.socket != self.config.socket {
            self.config.socket.clone_from(&before.socket);
            done.push(format!("gateway.socket stays {} until a restart", before.socket.display()));
        }
        if before.http != self.config.http {
            if let Some(http) = self.http.take() {
                http.stop().await;
            }
            self.open_http();
            done.push(format!("http: {}", if self.http.is_some() { "opened anew" } else { "closed" }));
        }
        let gone: Vec<String> =
            self.units.keys().filter(|name| !self.config.databases.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(unit) = self.units.remove(&name) {
                stop(unit).await;
                done.push(format!("database {name}: closed"));
            }
        }
        for (name, config) in self.config.databases.clone() {
            if before.databases.get(&name) == Some(&config) {
                continue;
            }
            let Some(unit) = self.units.get(&name) else {
                self.add(&name);
                done.push(format!("database {name}: opened"));
                continue;
            };
            let (answer, answered) = oneshot::channel();
            let _ = unit.requests.send(Request::Configure(Box::new(config), answer)).await;
            let lines = answered.await.unwrap_or_default();
            done.extend(lines.into_iter().map(|line| format!("database {name}: {line}")));
        }
        done
    }

    /// Tells syncs something: all, or those of one name; gives how many there are.
    pub(crate) async fn order(&self, order: Order, name: Option<&str>) -> usize {
        let mut meant = 0;
        for unit in self.units.values() {
            let (answer, answered) = oneshot::channel();
            let request = Request::Sync(order, name.map(str::to_owned), answer);
            if unit.requests.send(request).await.is_ok() {
                meant += answered.await.unwrap_or(0);
            }
        }
        meant
    }

    /// What is known now.
    pub(crate) fn status(&self) -> GatewayStatus {
        GatewayStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            since_s: self.since_s,
            now_s: now_s(),
            config: self.path.display().to_string(),
            databases: self.units.values().map(|unit| unit.board.status()).collect(),
            http: self.http.as_ref().map(HttpListener::status),
            medium: self.medium.status(
                self.config.databases.values().map(|database| database.store.path.as_path()),
                self.config.medium_cycles,
            ),
        }
    }

    /// Whose turn it is with the adapters; `None`: nobody can pair.
    pub(crate) fn radio_turns(&self) -> Option<watch::Receiver<RadioTurn>> {
        self.api.as_ref().map(|api| api.pairings().radio())
    }

    /// Lets places go of the adapters, or listen there again, as the pairing needs it.
    pub(crate) async fn take_turns(&self, turn: RadioTurn) {
        for unit in self.units.values() {
            let (answer, answered) = oneshot::channel();
            let request = Request::LendRadio(turn != RadioTurn::Places, answer);
            if unit.requests.send(request).await.is_ok() {
                let _ = answered.await;
            }
        }
        if let Some(api) = &self.api {
            api.pairings().radio_is_free();
        }
    }

    /// How the databases did over the last hour and day.
    pub(crate) fn history(&self) -> Vec<DatabaseHistory> {
        self.units.values().map(|unit| unit.board.history()).collect()
    }

    /// Ends everything in order, all at once.
    pub(crate) async fn stop(self) {
        let Gateway { units, mut medium, http, .. } = self;
        if let Some(http) = http {
            http.stop().await;
        }
        let ending: Vec<_> = units.into_values().map(|unit| crate::task::spawn(stop(unit))).collect();
        for ended in ending {
            let _ = ended.await;
        }
        medium.keep();
    }
}

async fn stop(mut unit: Unit) {
    let _ = unit.requests.send(Request::Stop).await;
    let _ = (&mut unit.task).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::gateway::config;

    /// Where no adapter is, a place tells so; one that has let go of it tells nothing.
    #[cfg(feature = "bluetooth")]
    #[tokio::test(flavor = "multi_thread")]
    async fn places_let_go_of_the_adapters_while_a_device_is_paired() {
        use crate::gateway::address::PlaceAddress;
        use crate::gateway::http::api::{Api, Limits};
        use crate::gateway::http::databases::Databases;
        use crate::gateway::pairing::{PairState, PairWay};

        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("gattway.toml");
        let path = directory.path().join("plant.db");
        let text =
            format!("[databases.plant]\npath = {path:?}\n[bluetooth.radio]\nroles = [\"peripheral\"]\n");
        std::fs::write(&file, text).expect("written");
        let (opened, mut was_opened) = tokio::sync::mpsc::unbounded_channel();
        let tell: Tell = Arc::new(move |event| {
            if let GatewayEvent::Opened { db, .. } = event {
                drop(opened.send(db.clone()));
            }
        });
        let mut gateway = Gateway::start(config::load(&file).expect("right"), &file, tell);
        let api = Api::new(Databases::default(), None, Limits::default());
        gateway.answer_with(api.clone());
        let db = was_opened.recv().await.expect("opened");
        let told = |gateway: &Gateway| {
            let listener = gateway.status().databases[0].listeners.first().cloned();
            listener.is_some_and(|listener| listener.listening || listener.error.is_some())
        };
        while !told(&gateway) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut turns = gateway.radio_turns().expect("it can pair");
        let (_closing, closing) = watch::channel(false);
        let way = PairWay::Show(PlaceAddress::Ble(String::new()));
        let begun = api.pairings().begin(("plant", &db), closing, way, None).expect("the only one");
        assert_eq!(begun.state, PairState::Starting);
        // It waits for them.
        assert_eq!(
            *turns.wait_for(|turn| *turn != RadioTurn::Places).await.expect("turns"),
            RadioTurn::Wanted
        );
        gateway.take_turns(RadioTurn::Wanted).await;
        assert!(!told(&gateway), "it has let go of it");
        // Given up, or without an adapter, it gives them back.
        api.pairings().cancel();
        turns.wait_for(|turn| *turn == RadioTurn::Places).await.expect("turns");
        gateway.take_turns(RadioTurn::Places).await;
        while !told(&gateway) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gateway.stop().await;
    }

    /// A task that is given up stands for one that has panicked.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_is_gone_is_begun_again_on_the_same_database() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("gattway.toml");
        let path = directory.path().join("plant.db");
        std::fs::write(&file, format!("[databases.plant]\npath = {path:?}\n")).expect("written");
        let (opened, mut was_opened) = tokio::sync::mpsc::unbounded_channel();
        let closed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&closed);
        let tell: Tell = Arc::new(move |event| match event {
            GatewayEvent::Opened { .. } => drop(opened.send(())),
            GatewayEvent::Closed { .. } => {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        });
        let mut gateway = Gateway::start(config::load(&file).expect("right"), &file, tell);
        was_opened.recv().await;
        assert!(gateway.is_alive().await);
        let unit = gateway.units.get_mut("plant").expect("a unit");
        unit.task.abort();
        let _ = (&mut unit.task).await;
        assert_eq!(closed.load(Ordering::SeqCst), 0);
        assert!(gateway.is_alive().await, "begun again");
        assert!(closed.load(Ordering::SeqCst) >= 1, "whoever holds the database lets go of it");
        was_opened.recv().await;
        gateway.stop().await;
    }
}
