//! One adapter of a sync with all neighbours: opened, listened with, and opened again after a failure.

use std::io;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::ble::BlePeer;
use super::scheduler::RETRY_WAIT_MAX;
use crate::replicator::RetryPolicy;
use crate::transport::bluez::adapter::Adapter;
use crate::transport::bluez::scan::{Neighbour, Scan};
use crate::transport::bluez::{BluetoothError, Bluez};

/// An adapter, and how peers are reached through it.
pub(super) struct Listening {
    /// How.
    pub(super) way: BlePeer,
    bluez: Bluez,
    state: State,
    retry: RetryPolicy,
    /// What was told last: each cause is told once.
    told: String,
}

enum State {
    /// It is tried again then.
    Closed(Instant),
    Opening(BoxFuture<'static, Result<Adapter, BluetoothError>>),
    Open {
        adapter: Adapter,
        scan: Option<Scan>,
    },
}

/// What has happened on it.
pub(super) enum Happened {
    /// It can be used.
    Present,
    /// Somebody was heard.
    Heard(Neighbour),
    /// It cannot be used any more, or still not; why, if that was not told before.
    Lost(Option<io::Error>),
}

impl Listening {
    pub(super) fn new(bluez: Bluez, way: BlePeer) -> Listening {
        let (state, retry) = (State::Closed(Instant::now()), RetryPolicy::new(None, RETRY_WAIT_MAX));
        Listening { way, bluez, state, retry, told: String::new() }
    }

    /// Listens from now on, or does not.
    pub(super) async fn listen(&mut self, wanted: bool) -> Option<Happened> {
        let State::Open { adapter, scan } = &mut self.state else { return None };
        match (wanted, scan.is_some()) {
            (true, false) => match Scan::start(adapter).await {
                Ok(started) => {
                    *scan = Some(started);
                    self.retry.succeeded();
                    self.told.clear();
                }
                Err(error) => return Some(self.lose(error)),
            },
            (false, true) => {
                if let Some(scan) = scan.take() {
                    scan.stop().await;
                }
            }
            _ => {}
        }
        None
    }

    /// The next thing that happens. May be dropped without loss.
    pub(super) async fn next(&mut self) -> Happened {
        loop {
            match &mut self.state {
                State::Closed(until) => {
                    sleep_until(*until).await;
                    let (bluez, name) = (self.bluez.clone(), self.way.adapter_name().map(str::to_owned));
                    self.state =
                        State::Opening(Box::pin(async move { Adapter::open(&bluez, name.as_deref()).await }));
                }
                State::Opening(opening) => match opening.await {
                    Ok(adapter) => {
                        self.state = State::Open { adapter, scan: None };
                        return Happened::Present;
                    }
                    Err(error) => return self.lose(error),
                },
                State::Open { scan: Some(scan), .. } => match scan.next().await {
                    Ok(neighbour) => return Happened::Heard(neighbour),
                    Err(error) => return self.lose(error),
                },
                State::Open { scan: None, .. } => std::future::pending().await,
            }
        }
    }

    fn lose(&mut self, error: BluetoothError) -> Happened {
        let pause = self.retry.failed(fastrand::u32(..)).unwrap_or(RETRY_WAIT_MAX);
        self.state = State::Closed(Instant::now() + pause);
        let text = error.to_string();
        let is_new = self.told != text;
        self.told = text;
        Happened::Lost(is_new.then(|| error.into()))
    }
}
