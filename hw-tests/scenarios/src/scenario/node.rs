//! Nodes and sessions as scenarios use them.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Outcome;
use crate::agent;
use crate::agent::protocol::{
    Command, Digest, Moved, Opened, Records, RoundTrips, Sample, Service, Synced, Way,
};
use crate::rig::host::ANSWER_LIMIT;
use crate::rig::{Place, Rig};

/// A node of the rig.
#[derive(Clone)]
pub struct Node {
    /// Where it is.
    pub place: Place,
}

impl Node {
    /// Asks for anything.
    pub async fn ask<T: DeserializeOwned>(&self, command: Command) -> agent::Result<T> {
        self.place.host.ask(self.place.node, command, ANSWER_LIMIT).await
    }

    /// Asks for something that takes at most `seconds` by itself.
    pub async fn ask_for<T: DeserializeOwned>(&self, command: Command, seconds: f64) -> agent::Result<T> {
        self.place.host.ask_for(self.place.node, command, seconds).await
    }

    /// Runs a shell command on the node's machine; gives what it says.
    pub async fn shell(&self, command: String) -> agent::Result<String> {
        self.ask(Command::Shell { command }).await
    }

    /// Becomes a peripheral.
    pub async fn listen(&self, service: Service, l2cap: bool) -> agent::Result<()> {
        self.ask::<Value>(Command::Listen { service, l2cap, database: DATABASE.to_owned() }).await.map(drop)
    }

    /// The next session of a central.
    pub async fn accept(&self) -> agent::Result<Session> {
        let opened: Opened = self.ask_for(Command::Accept { seconds: 60.0 }, 60.0).await?;
        Ok(Session { node: self.clone(), number: opened.session })
    }

    /// Opens a session to a peripheral.
    pub async fn dial(&self, peer: &str, ways: &[Way]) -> agent::Result<(Session, Opened)> {
        let command = Command::Dial { peer: peer.to_owned(), ways: ways.to_vec() };
        let opened: Opened = self.ask_for(command, 60.0).await?;
        Ok((Session { node: self.clone(), number: opened.session }, opened))
    }

    /// As [`Node::dial`], over a channel that raw packets share.
    pub async fn dial_turns(&self, peer: &str, way: Way) -> agent::Result<(Session, Opened)> {
        let opened: Opened = self.ask_for(Command::DialTurns { peer: peer.to_owned(), way }, 60.0).await?;
        Ok((Session { node: self.clone(), number: opened.session }, opened))
    }

    /// Gives such a channel to the raw packets, or to the session.
    pub async fn turn(&self, raw: bool) -> agent::Result<()> {
        self.ask::<Value>(Command::Turn { raw }).await.map(drop)
    }

    /// All counters that its sessions have told.
    pub fn told(&self, rig: &Rig) -> Vec<Sample> {
        let all = rig.samples.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mine = |row: &&(usize, u32, Sample)| (row.0, row.1) == (self.place.machine, self.place.node);
        all.iter().filter(mine).map(|row| row.2.clone()).collect()
    }

    /// Fills the database.
    pub async fn import(&self, records: Records) -> agent::Result<u64> {
        self.ask(Command::Import { database: DATABASE.to_owned(), records }).await
    }

    /// Saves one document.
    pub async fn put(&self, id: &str, body: Value) -> agent::Result<()> {
        self.ask::<u64>(Command::Put { database: DATABASE.to_owned(), document: id.to_owned(), body })
            .await
            .map(drop)
    }

    /// Waits for one document; gives the time at which it was seen, in ours.
    pub async fn wait_for(&self, id: &str, seconds: f64) -> agent::Result<u64> {
        let command = Command::WaitFor { database: DATABASE.to_owned(), document: id.to_owned(), seconds };
        let at_us = self.ask_for(command, seconds).await?;
        Ok(self.place.host.our_time_us(at_us))
    }

    /// What the database holds.
    pub async fn digest(&self) -> agent::Result<Digest> {
        self.ask(Command::Digest { database: DATABASE.to_owned() }).await
    }

    /// Starts a replication.
    pub async fn sync(&self, peer: &Node, way: Way, continuous: bool) -> agent::Result<()> {
        let (database, peer) = (DATABASE.to_owned(), peer.place.address.clone());
        self.ask::<Value>(Command::Sync { database, peer, way, continuous }).await.map(drop)
    }

    /// Waits until it has everything.
    pub async fn wait_synced(&self, seconds: f64) -> agent::Result<Synced> {
        let synced: Synced = self.ask_for(Command::WaitSynced { seconds }, seconds).await?;
        match synced.error {
            Some(error) => agent::fail(format!("the sync stopped: {error}")),
            None => Ok(synced),
        }
    }
}

/// Name of the database of each node.
const DATABASE: &str = "database";

/// One end of a session.
#[derive(Clone)]
pub struct Session {
    /// Whose.
    pub node: Node,
    number: u32,
}

impl Session {
    /// Sends a pattern.
    pub async fn send(&self, bytes: u64, seed: u64, message_bytes: u64) -> agent::Result<Moved> {
        let command = Command::Send { session: self.number, bytes, seed, message_bytes };
        self.node.ask_for(command, TRANSFER_SECONDS).await
    }

    /// Takes a pattern and checks it.
    pub async fn receive(&self, bytes: u64, seed: u64) -> agent::Result<Moved> {
        self.receive_from(0, bytes, seed).await
    }

    /// As [`Session::receive`], for `bytes` that follow on the first `offset`. Times are ours.
    pub async fn receive_from(&self, offset: u64, bytes: u64, seed: u64) -> agent::Result<Moved> {
        let command = Command::Receive { session: self.number, bytes, seed, offset };
        let mut moved: Moved = self.node.ask_for(command, TRANSFER_SECONDS).await?;
        let ours = |at| self.node.place.host.our_time_us(at);
        (moved.from_us, moved.to_us) = (ours(moved.from_us), ours(moved.to_us));
        moved.arrivals.iter_mut().for_each(|(at, _)| *at = ours(*at));
        Ok(moved)
    }

    /// Messages there and back; the other end must `echo` the same.
    pub async fn ping(&self, count: u32, bytes: u64) -> agent::Result<RoundTrips> {
        self.node.ask_for(Command::Ping { session: self.number, count, bytes }, TRANSFER_SECONDS).await
    }

    /// The other end of `ping`.
    pub async fn echo(&self, count: u32, bytes: u64) -> agent::Result<()> {
        let command = Command::Echo { session: self.number, count, bytes };
        self.node.ask_for::<Value>(command, TRANSFER_SECONDS).await.map(drop)
    }

    /// Counters.
    pub async fn stats(&self) -> agent::Result<Sample> {
        self.node.ask(Command::Stats { session: self.number }).await
    }

    /// All counters that it has told.
    pub fn told(&self, rig: &Rig) -> Vec<Sample> {
        let mut told = self.node.told(rig);
        told.retain(|sample| sample.session == self.number);
        told
    }

    /// Ends it in order.
    pub async fn close(&self) -> agent::Result<()> {
        self.node.ask::<Value>(Command::Close { session: self.number }).await.map(drop)
    }

    /// Waits for the end; gives the error it ended with.
    pub async fn wait_closed(&self, seconds: f64) -> agent::Result<Option<String>> {
        self.node.ask_for(Command::WaitClosed { session: self.number, seconds }, seconds).await
    }
}

/// Longest transfer; a scenario's own limit is shorter or the same.
const TRANSFER_SECONDS: f64 = 300.0;

/// Sends from one end and takes at the other; gives what the taker saw.
pub async fn transfer(from: &Session, to: &Session, bytes: u64, seed: u64) -> Outcome<Moved> {
    let (sent, received) = tokio::join!(from.send(bytes, seed, 4096), to.receive(bytes, seed));
    sent?;
    Ok(received?)
}

/// Bytes a second between the first and the last arrival.
pub fn rate(moved: &Moved) -> f64 {
    match (moved.arrivals.first(), moved.arrivals.last()) {
        (Some((t0, b0)), Some((t1, b1))) if t1 > t0 => (b1 - b0) as f64 / ((t1 - t0) as f64 / 1e6),
        _ => 0.0,
    }
}

/// A pause.
pub async fn pause(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}
