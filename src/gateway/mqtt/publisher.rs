//! One broker that is kept in touch with: connected to, published to from where it was left, connected to again after a failure.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{Event, Outgoing, Packet, Publish, SubscribeReasonCode};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::{Connection, PANICKED};
use super::options::{OFFLINE, ONLINE, client_id, options};
use super::payload::{Made, message};
use super::place::Feed;
use super::window::NO_FEED;
use super::{discovery, intake};
use crate::database::{Change, Database};
use crate::gateway::board::Board;
use crate::gateway::config::MqttConfig;
use crate::gateway::status::MqttStatus;
use crate::gateway::{GatewayEvent, Tell};
use crate::replicator::RetryPolicy;
use crate::task;

/// Others beside them: that the gateway is there, what its sensors are.
const INFLIGHT: u16 = 128;

/// Messages that become documents in one go, of those that are there.
const TAKEN_AT_ONCE: usize = 64;

/// Changes that are read at once, and about how many bytes of them.
const READ_AT_ONCE: usize = 32;
const READ_BYTES: usize = 1 << 20;

/// How long the position may be behind on the medium: after a power cut so much is published again.
const KEPT_AFTER: Duration = Duration::from_secs(5);

/// The longest wait between two attempts.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long the last messages may take when it ends.
const ENDING_MAX: Duration = Duration::from_secs(2);

/// Between two looks for new collections.
const COLLECTIONS_WAIT: Duration = Duration::from_secs(30);

/// A broker that is kept in touch with, until dropped or stopped.
pub(crate) struct Publishing {
    pub(crate) config: MqttConfig,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Publishing {
    pub(crate) fn start(
        name: &str,
        database: &Arc<str>,
        db: &Database,
        config: MqttConfig,
        (board, tell): (Board, Tell),
    ) -> Publishing {
        let (stop, stopped) = watch::channel(false);
        board.mqtt(name, &config.broker.to_string());
        let worker = Worker {
            client: config.client_id.clone().unwrap_or_else(|| client_id(db, name)),
            name: name.into(),
            database: Arc::clone(database),
            db: db.clone(),
            config: config.clone(),
            board,
            tell,
            stopped,
        };
        Publishing { config, stop, task: task::spawn(worker.run()) }
    }

    /// Ends it in order: what was confirmed is noted.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    name: Arc<str>,
    database: Arc<str>,
    client: String,
    db: Database,
    config: MqttConfig,
    board: Board,
    tell: Tell,
    stopped: watch::Receiver<bool>,
}

/// How a connection has ended.
enum Ended {
    Stopped,
    Failed(String),
}

impl Worker {
    fn told(&self, change: impl FnOnce(&mut MqttStatus)) {
        self.board.mqtt_told(&self.name, change);
    }

    fn failed(&self, error: String) {
        self.told(|status| {
            status.failures += 1;
            status.error = Some(error);
        });
    }

    async fn run(mut self) {
        let mut retry = RetryPolicy::new(None, RETRY_WAIT_MAX);
        loop {
            let mut feeds = Vec::new();
            let ended = self.connect(&mut feeds, &mut retry).await;
            self.keep(feeds).await;
            let Ended::Failed(error) = ended else { return };
            let wait = retry.failed(fastrand::u32(..)).unwrap_or(RETRY_WAIT_MAX);
            self.failed(error.clone());
            (self.tell)(&GatewayEvent::MqttFailed {
                database: Arc::clone(&self.database),
                name: Arc::clone(&self.name),
                error,
                retry: wait,
            });
            tokio::select! {
                () = sleep(wait) => {}
                () = is_over(&mut self.stopped) => return,
            }
        }
    }

    async fn connect(&mut self, feeds: &mut Vec<Feed>, retry: &mut RetryPolicy) -> Ended {
        let (config, client) = (self.config.clone(), self.client.clone());
        let Some(options) = task::blocking(move || options(&config, &client, INFLIGHT)).await else {
            return Ended::Failed("its settings could not be read".into());
        };
        let options = match options {
            Ok(options) => options,
            Err(error) => return Ended::Failed(error),
        };
        let mut tasks = JoinSet::new();
        let mut connection = Connection::begin(options, &mut tasks);
        let mut stopped = self.stopped.clone();
        let first = tokio::select! {
            first = connection.told.recv() => first,
            () = is_over(&mut stopped) => return Ended::Stopped,
        };
        match first {
            Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => {}
            Some(Ok(other)) => return Ended::Failed(format!("the broker has begun with {other:?}")),
            Some(Err(error)) => return Ended::Failed(error),
            None => return Ended::Failed(PANICKED.into()),
        }
        self.told(|status| (status.connected, status.error) = (true, None));
        let ended = self.serve(&mut connection, feeds).await;
        if connection.works {
            retry.succeeded();
        }
        self.told(|status| status.connected = false);
        if matches!(ended, Ended::Stopped) {
            self.say_goodbye(&mut connection, feeds).await;
        }
        ended
    }

    async fn serve(&mut self, connection: &mut Connection, feeds: &mut Vec<Feed>) -> Ended {
        if !self.config.availability.is_empty() {
            connection.publish(NO_FEED, 0, &self.config.availability, true, ONLINE.into());
        }
        connection.subscribe(&self.config);
        let (mut changed, mut stopped) = (self.db.watch(), self.stopped.clone());
        let (mut keep_at, mut look_at) = (None, Instant::now());
        loop {
            changed.borrow_and_update();
            if Instant::now() >= look_at {
                self.look_for_collections(feeds).await;
                look_at = Instant::now() + COLLECTIONS_WAIT;
            }
            // As much as there is room for; more may be there.
            let has_more = self.publish(connection, feeds).await;
            let pending = feeds.iter().map(Feed::pending).sum();
            self.told(|status| status.pending = pending);
            let event = tokio::select! {
                event = connection.told.recv() => event,
                () = is_over(&mut stopped) => return Ended::Stopped,
                Ok(()) = changed.changed(), if connection.window.room() > 0 => continue,
                () = std::future::ready(()), if has_more && connection.window.room() > 0 => continue,
                () = sleep_until(keep_at.unwrap_or(look_at).min(look_at)) => {
                    if keep_at.is_some_and(|keep_at| Instant::now() >= keep_at) {
                        keep_at = None;
                        *feeds = self.keep(std::mem::take(feeds)).await;
                    }
                    continue;
                }
            };
            let moved = match self.listen(connection, feeds, event).await {
                Ok(moved) => moved,
                Err(error) => return Ended::Failed(error),
            };
            if moved && keep_at.is_none() {
                keep_at = Some(Instant::now() + KEPT_AFTER);
            }
        }
    }

    /// Looks at what the client tells, and at all else that it has told meanwhile; whether a position has moved.
    async fn listen(
        &self,
        connection: &mut Connection,
        feeds: &mut [Feed],
        event: Option<Result<Event, String>>,
    ) -> Result<bool, String> {
        let mut next = Some(event.unwrap_or_else(|| Err(PANICKED.into())));
        let (mut messages, mut moved) = (Vec::new(), false);
        while let Some(event) = next.take() {
            match event? {
                Event::Outgoing(Outgoing::Publish(number)) => {
                    connection.window.sent(number);
                }
                Event::Incoming(Packet::PubAck(confirmed)) => {
                    connection.works = true;
                    for (feed, position) in connection.window.confirmed(confirmed.pkid) {
                        if let Some(feed) = feeds.get_mut(feed) {
                            feed.position = position;
                        }
                        moved = true;
                    }
                }
                Event::Incoming(Packet::Publish(message)) => messages.push(message),
                Event::Incoming(Packet::SubAck(answer))
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) =>
                {
                    self.failed(
                        "the broker refuses a subscription: its rules have to allow it to this user".into(),
                    );
                }
                Event::Incoming(Packet::PingResp) => connection.works = true,
                Event::Outgoing(Outgoing::Disconnect) => return Ok(moved),
                _ => {}
            }
            if messages.len() < TAKEN_AT_ONCE {
                next = connection.told.try_recv().ok();
            }
        }
        if !messages.is_empty() {
            self.take(connection, messages).await?;
        }
        connection.pay()?;
        Ok(moved)
    }

    /// Makes documents of messages, and confirms them then.
    async fn take(&self, connection: &mut Connection, messages: Vec<Publish>) -> Result<(), String> {
        let (db, config) = (self.db.clone(), self.config.clone());
        let work = move || intake::take(&db, &config, &messages).map(|taken| (taken, messages));
        match task::blocking(work).await {
            Some(Ok((taken, messages))) => {
                self.told(|status| {
                    status.received += taken.saved;
                    status.refused += taken.refused;
                    status.last_refused = taken.why.or(status.last_refused.take());
                });
                connection.owed.extend(messages);
                Ok(())
            }
            Some(Err(error)) => Err(format!("messages cannot be saved: {error}; the broker keeps them")),
            None => Err("messages cannot be saved".into()),
        }
    }

    /// Gives the client what there is room for; whether there may be more.
    async fn publish(&self, connection: &mut Connection, feeds: &mut [Feed]) -> bool {
        let mut has_more = false;
        for (nth, feed) in feeds.iter_mut().enumerate() {
            let (room, until) = (connection.window.room().min(READ_AT_ONCE), feed.collection.last_sequence());
            if feed.read >= until {
                continue;
            }
            if room == 0 {
                has_more = true;
                break;
            }
            let (collection, since) = (feed.collection.clone(), feed.read);
            let read = move || collection.changes_with_bodies((since, until), room, READ_BYTES);
            let changes = match task::blocking(read).await {
                Some(Ok(changes)) => changes,
                Some(Err(error)) => {
                    self.failed(error.to_string());
                    continue;
                }
                None => continue,
            };
            let Some((last, _)) = changes.last() else {
                // What was purged leaves a number without a change.
                feed.read = until;
                feed.pass_over(&mut connection.window, nth, until);
                continue;
            };
            has_more |= last.sequence < until;
            feed.read = last.sequence;
            for change in &changes {
                self.publish_one(connection, (nth, &mut *feed), change);
            }
        }
        has_more
    }

    fn publish_one(
        &self,
        connection: &mut Connection,
        (nth, feed): (usize, &mut Feed),
        (change, body): &(Change, Map<String, Value>),
    ) {
        let why = match message(&self.config, &self.database, &feed.name, change, body) {
            Made::Message(message) => {
                let about = (&*self.database, &*feed.name);
                let devices = connection.sensors.by(&self.config, about, (&change.id, body), &message.topic);
                for discovery::Device { topic, payload } in devices {
                    if !connection.publish(NO_FEED, 0, &topic, true, payload.into_bytes()) {
                        self.failed(format!("Home Assistant could not be told by {topic:?}"));
                    }
                }
                let (topic, payload) = (&message.topic, message.payload);
                if connection.publish(nth, change.sequence, topic, self.config.retain, payload) {
                    self.told(|status| status.published += 1);
                    return;
                }
                Some("its topic is refused by the client".to_owned())
            }
            Made::Nothing => None,
            Made::Skipped(why) => Some(why),
        };
        if let Some(why) = why {
            let id = crate::replica::clip(&change.id).to_string();
            let told = format!("{} {id:?} {why}", feed.name);
            self.told(|status| {
                status.skipped += 1;
                status.last_skipped = Some(told);
            });
        }
        feed.pass_over(&mut connection.window, nth, change.sequence);
    }

    async fn look_for_collections(&self, feeds: &mut Vec<Feed>) {
        let known: Vec<String> = feeds.iter().map(|feed| feed.name.clone()).collect();
        let (db, config, section) = (self.db.clone(), self.config.clone(), Arc::clone(&self.name));
        let open = move || Feed::open_others(&db, &config, &section, &known);
        if self.config.publishes {
            feeds.extend(task::blocking(open).await.unwrap_or_default());
        }
    }

    /// Keeps all positions.
    async fn keep(&self, mut feeds: Vec<Feed>) -> Vec<Feed> {
        let (db, section) = (self.db.clone(), Arc::clone(&self.name));
        let keep = move || {
            feeds.iter_mut().for_each(|feed| feed.keep(&db, &section));
            feeds
        };
        task::blocking(keep).await.unwrap_or_default()
    }

    /// Waits a moment for what is under way, and says that the gateway goes.
    async fn say_goodbye(&self, connection: &mut Connection, feeds: &mut [Feed]) {
        if !self.config.availability.is_empty() {
            connection.publish(NO_FEED, 0, &self.config.availability, true, OFFLINE.into());
        }
        let waiting = async {
            while !connection.window.is_empty() {
                let event = connection.told.recv().await;
                if self.listen(connection, feeds, event).await.is_err() {
                    return;
                }
            }
            let _ = connection.client.disconnect().await;
            while let Some(Ok(event)) = connection.told.recv().await {
                if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                    return;
                }
            }
        };
        let _ = timeout(ENDING_MAX, waiting).await;
    }
}

/// Waits until it is to end.
async fn is_over(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
