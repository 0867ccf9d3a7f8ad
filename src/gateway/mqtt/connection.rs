//! A connection to a broker: what was given to the client, what it tells, and what is to be confirmed.

use std::collections::VecDeque;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Publish, QoS, SubscribeFilter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::discovery::Told;
use super::window::Window;
use crate::gateway::config::MqttConfig;

/// Requests to the client that it has not taken: all that may be under way, and confirmations.
const REQUESTS_MAX: usize = 1_024;

/// Confirmations that wait for the client to take them. A broker that sends on and on without them is left.
const OWED_MAX: usize = 2_048;

/// What the client tells and was not looked at.
const EVENTS_MAX: usize = 256;

/// Messages that are not confirmed, of documents.
const WINDOW: usize = 64;

pub(super) const PANICKED: &str = "the client of MQTT has ended";

/// A connection to a broker.
pub(super) struct Connection {
    pub(super) client: AsyncClient,
    pub(super) told: mpsc::Receiver<Result<Event, String>>,
    pub(super) window: Window,
    /// Messages whose documents are on the medium, and which the broker has not been told of.
    pub(super) owed: VecDeque<Publish>,
    pub(super) sensors: Told,
    /// It has confirmed something: a broker that ends each connection at once is not tried again at once.
    pub(super) works: bool,
}

impl Connection {
    /// Begins to connect, by a task of `tasks`.
    pub(super) fn begin(options: MqttOptions, tasks: &mut JoinSet<()>) -> Connection {
        let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
        // The client's own loop has a task, so that nothing is lost where one of several things is waited for.
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        tasks.spawn(drive(events, tell));
        Connection {
            client,
            told,
            window: Window::new(WINDOW),
            owed: VecDeque::new(),
            sensors: Told::default(),
            works: false,
        }
    }

    /// False: the client takes no such topic.
    pub(super) fn publish(
        &mut self,
        feed: usize,
        sequence: u64,
        topic: &str,
        retain: bool,
        payload: Vec<u8>,
    ) -> bool {
        // The window is far below what the client takes.
        let given = self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_ok();
        if given {
            self.window.give(feed, sequence);
        }
        given
    }

    pub(super) fn subscribe(&self, config: &MqttConfig) {
        let filters = config.topics.values().map(|topic| topic.filter.text().to_owned());
        let filters: Vec<SubscribeFilter> =
            filters.map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce)).collect();
        if !filters.is_empty() {
            // Nothing else was given to the client yet but one message, so there is room.
            let _ = self.client.try_subscribe_many(filters);
        }
    }

    /// Confirms messages as far as the client takes it.
    pub(super) fn pay(&mut self) -> Result<(), String> {
        while let Some(message) = self.owed.front() {
            if self.client.try_ack(message).is_err() {
                break;
            }
            self.owed.pop_front();
        }
        if self.owed.len() > OWED_MAX {
            return Err("the broker sends on and on without taking confirmations".into());
        }
        Ok(())
    }
}

/// Runs the client's loop until it fails or nobody listens.
async fn drive(mut events: EventLoop, tell: mpsc::Sender<Result<Event, String>>) {
    loop {
        let event = events.poll().await;
        let is_over = event.is_err();
        if tell.send(event.map_err(|error| error.to_string())).await.is_err() || is_over {
            return;
        }
    }
}
