//! What the director says to agents and hears from them: JSON, one object a line.
//!
//! A request names a node of the agent's machine and carries an ID; its reply carries the same ID. Requests run side by side,
//! so replies come in any order. Events come by themselves. Times are microseconds since 1970 of the machine that says them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::answers::*;

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the reply.
    pub id: u64,
    /// Which node of the machine.
    pub node: u32,
    /// What to do.
    #[serde(flatten)]
    pub command: Command,
}

/// How a central reaches a peripheral.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// GATT: bluer's sockets.
    Gatt,
    /// GATT with packets of at most 182 bytes, as to a peer with an ATT MTU of 185.
    GattSmall,
    /// An L2CAP connection-oriented channel.
    L2cap,
    /// GATT: btleplug, a D-Bus call a packet.
    Btleplug,
}

impl Way {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Way::Gatt => "GATT",
            Way::GattSmall => "GATT, small packets",
            Way::L2cap => "L2CAP",
            Way::Btleplug => "btleplug",
        }
    }
}

/// What a peripheral does with centrals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Sessions, given to `accept`.
    Bytes,
    /// Sessions, given to a passive replicator.
    Sync,
    /// Packets without any protocol: counts them, sends them on command.
    Raw,
    /// Packets without any protocol and a session, in turns over each channel; the sessions are given to `accept`.
    Turns,
    /// Our service with the number of another profile version.
    WrongVersion,
}

/// Documents to put into a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Records {
    /// 344 penguins.
    Penguins,
    /// 8,759 hours of weather.
    Weather,
    /// Documents of 5,000 letters that nothing foretells: so many.
    Letters(u32),
}

/// What a node can be asked. Node-less ones are answered by the agent itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    // --- answered by the agent, for its machine ---
    /// Who are you: a [`Machine`].
    Machine {
        /// Adapters of its nodes, by name.
        adapters: Vec<String>,
    },
    /// What time is it: microseconds.
    Clock,
    /// Starts the process of a node; one that runs is ended first, in order.
    Spawn {
        /// Its adapter.
        adapter: String,
        /// Folder of its databases, kept when the process is killed; cleared if `fresh`.
        fresh: bool,
    },
    /// SIGKILL to the process of a node.
    Kill,
    /// Runs a shell command on the machine.
    Shell {
        /// The command.
        command: String,
    },
    // --- answered by a node's process ---
    /// Its address and where its adapter is: an [`Identity`].
    Identity,
    /// Looks for the peer until it is heard: [`Heard`].
    Scan {
        /// Address.
        peer: String,
        /// Limit.
        seconds: f64,
    },
    /// Becomes a peripheral. One at a time.
    Listen {
        /// For whom.
        service: Service,
        /// L2CAP is offered.
        l2cap: bool,
        /// Database of [`Service::Sync`].
        database: String,
    },
    /// Is a peripheral no more.
    StopListening,
    /// The next session of a central: [`Opened`].
    Accept {
        /// Limit.
        seconds: f64,
    },
    /// Opens a session to a peripheral: [`Opened`].
    Dial {
        /// Address.
        peer: String,
        /// Ways, one after the other at each reconnect.
        ways: Vec<Way>,
    },
    /// Sends a pattern over a session: [`Moved`].
    Send {
        /// Which.
        session: u32,
        /// How many bytes.
        bytes: u64,
        /// Decides the pattern.
        seed: u64,
        /// Bytes of a message.
        message_bytes: u64,
    },
    /// Takes and checks a pattern from a session: [`Moved`].
    Receive {
        /// Which.
        session: u32,
        /// How many bytes.
        bytes: u64,
        /// Decides the pattern.
        seed: u64,
        /// Bytes of the pattern that were taken before.
        offset: u64,
    },
    /// Messages there and back: [`RoundTrips`].
    Ping {
        /// Which session.
        session: u32,
        /// How many.
        count: u32,
        /// Bytes of each.
        bytes: u64,
    },
    /// The other side of `ping`.
    Echo {
        /// Which session.
        session: u32,
        /// How many.
        count: u32,
        /// Bytes of each.
        bytes: u64,
    },
    /// Ends a session in order.
    Close {
        /// Which.
        session: u32,
    },
    /// Waits until a session has ended: the error as text, or nothing.
    WaitClosed {
        /// Which.
        session: u32,
        /// Limit.
        seconds: f64,
    },
    /// Counters of a session: a [`Sample`].
    Stats {
        /// Which.
        session: u32,
    },
    /// Opens a raw packet channel and measures: [`Raw`].
    RawRun {
        /// Address.
        peer: String,
        /// How.
        way: Way,
        /// Packets each way.
        packets: u32,
    },
    /// As `dial`, over a channel that raw packets share.
    DialTurns {
        /// Address.
        peer: String,
        /// How.
        way: Way,
    },
    /// Whose turn it is on such a channel, at this end.
    Turn {
        /// The raw packets'; else the session's.
        raw: bool,
    },
    /// Raw packets over such a channel, in their turn: [`RawWay`].
    RawTurn {
        /// To the peripheral; else from it.
        up: bool,
        /// How many.
        packets: u32,
    },
    /// Lets go of such a channel, after its session was closed.
    EndTurns,
    /// What the node's process has cost: a [`Cost`].
    Cost,
    /// Fills a database: number of documents.
    Import {
        /// Which database.
        database: String,
        /// What.
        records: Records,
    },
    /// Saves one document.
    Put {
        /// Which database.
        database: String,
        /// Its ID.
        document: String,
        /// Its body.
        body: Value,
    },
    /// Waits until a document is there: when it was seen.
    WaitFor {
        /// Which database.
        database: String,
        /// Its ID.
        document: String,
        /// Limit.
        seconds: f64,
    },
    /// What a database holds: a [`Digest`].
    Digest {
        /// Which database.
        database: String,
    },
    /// Starts a replication with a peripheral.
    Sync {
        /// Which database.
        database: String,
        /// Address.
        peer: String,
        /// How.
        way: Way,
        /// Goes on after everything is there.
        continuous: bool,
    },
    /// Waits until the replication has everything, or has stopped: [`Synced`].
    WaitSynced {
        /// Limit.
        seconds: f64,
    },
    /// Waits until so many documents have gone over in this replication: [`Synced`].
    WaitDocuments {
        /// How many.
        documents: u64,
        /// Limit.
        seconds: f64,
    },
    /// Stops the replication and waits for its end: [`Synced`].
    StopSync,
    /// Switches the adapter on or off.
    Power {
        /// On.
        on: bool,
    },
    /// Asks bluetoothd something: how long the answer took, seconds.
    Probe,
    /// Radio connections of the node: [`Air`]s.
    Air,
    /// Memory of the process, KiB resident; connected devices of the adapter: [`Usage`].
    Usage,
    /// Ends everything in order; the process ends.
    Quit,
}

impl Command {
    /// Whether the agent answers it itself, so that the end of a node's process does not matter to it.
    pub fn is_of_agent(&self) -> bool {
        matches!(
            self,
            Command::Machine { .. }
                | Command::Clock
                | Command::Spawn { .. }
                | Command::Kill
                | Command::Shell { .. }
        )
    }
}

/// What an agent says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Said {
    /// It was done.
    Done {
        /// Of the request.
        id: u64,
        /// What came of it.
        value: Value,
    },
    /// It was not done.
    Failed {
        /// Of the request.
        id: u64,
        /// Why.
        error: String,
    },
    /// Counters of a session, now and then.
    Sample {
        /// Which node.
        node: u32,
        /// The counters.
        sample: Sample,
    },
    /// The process of a node has ended.
    Gone {
        /// Which node.
        node: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_their_way() {
        let text = || "x".to_owned();
        let commands = [
            Command::Put { database: text(), document: text(), body: Value::Null },
            Command::WaitFor { database: text(), document: text(), seconds: 1.0 },
            Command::Spawn { adapter: text(), fresh: true },
            Command::Send { session: 1, bytes: 2, seed: 3, message_bytes: 4 },
            Command::Sync { database: text(), peer: text(), way: Way::L2cap, continuous: true },
        ];
        for command in commands {
            let request = Request { id: 7, node: 1, command };
            let line = serde_json::to_string(&request).expect("JSON");
            let read: Request = serde_json::from_str(&line).expect("a field's name may stand only once");
            assert_eq!(format!("{read:?}"), format!("{request:?}"));
        }
    }
}
