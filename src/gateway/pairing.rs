//! Pairing a database of a process that runs with another device, as `gattway pair` does it: one at a time, begun, looked at and
//! given up by programs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use super::address::PlaceAddress;
use super::status::now_s;
use crate::database::Database;
use crate::node::{Connect, Listen, PairBuilder, PairError, PairEvent, Paired};
use crate::replica::clip;
use crate::secure::pairing::{ATTEMPTS_MAX, PairingCode};
use crate::secure::{Access, Permissions};
use crate::task;

/// How far a pairing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PairState {
    /// None was begun.
    #[default]
    None,
    /// It begins to listen.
    Starting,
    /// The code is shown, and has to be typed on the other device.
    Waiting,
    /// The other device is connected to, with the code that it shows.
    Connecting,
    /// Each has the other in its list.
    Paired,
    /// It has failed.
    Failed,
    /// It was given up.
    Cancelled,
}

impl PairState {
    fn is_under_way(self) -> bool {
        matches!(self, PairState::Starting | PairState::Waiting | PairState::Connecting)
    }
}

/// The device that is in the list now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PairedPeer {
    pub(crate) id: String,
    /// Its name in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Whether it has said that it has entered this one; if it has not, pair again.
    pub(crate) confirmed: bool,
}

/// The pairing that goes on, or the one that has ended last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PairStatus {
    pub(crate) state: PairState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    /// Where it listens, with the real port, or what it connects to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// The code that a person types on the other device: `482 915`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// Guesses at it that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempts_left: Option<u32>,
    /// What has come of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<String>,
    /// When it ends if nobody pairs, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ends_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<PairedPeer>,
    /// Why it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

/// Which side shows the code.
pub(crate) enum PairWay {
    /// This one, and waits there.
    Show(PlaceAddress),
    /// The other one, which is there and has shown this.
    Answer(PlaceAddress, PairingCode),
}

/// Who has the adapters: two places at one of them cannot be told apart by a device that comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RadioTurn {
    /// The gateway's own places.
    #[default]
    Places,
    /// A pairing wants them.
    Wanted,
    /// The places have let go of them, until the pairing is over.
    Pairing,
}

/// How long the places may take to let go of the adapters.
const RADIO_WAIT_MAX: Duration = Duration::from_secs(5);

/// The one pairing of a process. Clones are handles to it.
#[derive(Clone, Default)]
pub(crate) struct Pairings {
    held: Arc<Mutex<Held>>,
    radio: Arc<watch::Sender<RadioTurn>>,
}

#[derive(Default)]
struct Held {
    status: PairStatus,
    /// Counts pairings, so that one that was given up says nothing more.
    number: u64,
    task: Option<JoinHandle<()>>,
}

impl Pairings {
    /// Nothing under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is.
    pub(crate) fn status(&self) -> PairStatus {
        self.lock().status.clone()
    }

    /// Whose turn it is with the adapters, for whoever has places there.
    pub(crate) fn radio(&self) -> watch::Receiver<RadioTurn> {
        self.radio.subscribe()
    }

    /// The places have let go of the adapters.
    pub(crate) fn radio_is_free(&self) {
        self.radio.send_if_modified(|turn| {
            let is_wanted = *turn == RadioTurn::Wanted;
            if is_wanted {
                *turn = RadioTurn::Pairing;
            }
            is_wanted
        });
    }

    /// Begins one; `None`: another goes on. `closing` turns true when the database is closed.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn begin(
        &self,
        (name, db): (&str, &Database),
        mut closing: watch::Receiver<bool>,
        way: PairWay,
        role: Option<Access>,
    ) -> Option<PairStatus> {
        let mut held = self.lock();
        if held.status.state.is_under_way() {
            return None;
        }
        held.number += 1;
        let number = held.number;
        let (state, address) = match &way {
            PairWay::Show(address) => (PairState::Starting, address),
            PairWay::Answer(address, _) => (PairState::Connecting, address),
        };
        held.status = PairStatus {
            state,
            database: Some(name.to_owned()),
            address: Some(address.to_string()),
            ends_s: Some(now_s() + crate::node::pair::PAIRING_TIMEOUT.as_secs()),
            ..PairStatus::default()
        };
        let begun = held.status.clone();
        let mut radio = self.radio.subscribe();
        // Whoever has places there, has asked for it before; this is one more.
        let waits = matches!(way, PairWay::Show(PlaceAddress::Ble(_))) && self.radio.receiver_count() > 1;
        if waits {
            self.radio.send_replace(RadioTurn::Wanted);
        }
        let (teller, ender) = (self.clone(), self.clone());
        let mut pairing = PairBuilder::new(db.path())
            .observe(move |event| teller.change(number, |status| status.take(event)));
        if let Some(role) = role {
            pairing = pairing.roles(Arc::new(move |list, id| {
                let before = list.permissions(id).clone();
                Ok(Some(Permissions { others: role, ..before }))
            }));
        }
        held.task = Some(task::spawn(async move {
            let paired = async {
                if waits {
                    let freed = radio.wait_for(|turn| *turn == RadioTurn::Pairing);
                    let _ = tokio::time::timeout(RADIO_WAIT_MAX, freed).await;
                }
                run(pairing, way).await
            };
            let ended = tokio::select! {
                paired = paired => Some(paired),
                _ = closing.wait_for(|closing| *closing) => None,
            };
            ender.change(number, |status| status.end(ended));
            ender.give_radio_back(number);
        }));
        Some(begun)
    }

    /// Gives up what goes on, and forgets what has ended.
    pub(crate) fn cancel(&self) -> PairStatus {
        let mut held = self.lock();
        held.number += 1;
        if let Some(task) = held.task.take() {
            task.abort();
        }
        self.radio.send_if_modified(is_given_back);
        held.status = match held.status.state.is_under_way() {
            true => PairStatus {
                state: PairState::Cancelled,
                database: held.status.database.take(),
                ..PairStatus::default()
            },
            false => PairStatus::default(),
        };
        held.status.clone()
    }

    fn give_radio_back(&self, number: u64) {
        let held = self.lock();
        if held.number == number {
            self.radio.send_if_modified(is_given_back);
        }
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut PairStatus)) {
        let mut held = self.lock();
        if held.number == number {
            change(&mut held.status);
        }
    }
}

fn is_given_back(turn: &mut RadioTurn) -> bool {
    std::mem::take(turn) != RadioTurn::Places
}

async fn run(pairing: PairBuilder, way: PairWay) -> Result<Paired, PairError> {
    match way {
        PairWay::Show(address) => pairing.listen_on(place(address), None).await,
        PairWay::Answer(address, code) => pairing.connect_by(&*connect(address), &code).await,
    }
}

/// Where the other device arrives; over Bluetooth under the name of this one, so that a person finds it.
fn place(address: PlaceAddress) -> Box<dyn Listen> {
    match address {
        PlaceAddress::Stream(address) => Box::new(address),
        #[cfg(feature = "bluetooth")]
        PlaceAddress::Ble(adapter) => {
            Box::new(crate::node::Ble::adapter(adapter).named(crate::node::access::own_name()))
        }
        #[allow(unreachable_patterns)] // all others are refused before
        _ => unreachable!("such an address is refused before"),
    }
}

/// How the other device is reached.
fn connect(address: PlaceAddress) -> Box<dyn Connect> {
    match address {
        PlaceAddress::Stream(address) => Box::new(address),
        #[cfg(feature = "bluetooth")]
        PlaceAddress::Ble(peer) => Box::new(crate::node::Ble::peer(peer)),
        #[allow(unreachable_patterns)] // all others are refused before
        _ => unreachable!("such an address is refused before"),
    }
}

impl PairStatus {
    fn take(&mut self, event: &PairEvent<'_>) {
        match event {
            PairEvent::Listening { address } => self.address = Some((*address).to_owned()),
            PairEvent::Code { code } => {
                (self.state, self.code) = (PairState::Waiting, Some((*code).to_owned()));
                self.attempts_left = Some(ATTEMPTS_MAX);
            }
            PairEvent::Attempt { left, .. } => {
                (self.attempts_left, self.attempt) = (Some(*left), Some(clip(&event.to_string())));
            }
            PairEvent::Refused { .. } | PairEvent::Readmitted { .. } => {
                self.attempt = Some(clip(&event.to_string()));
            }
        }
    }

    /// `None`: the database was closed.
    fn end(&mut self, ended: Option<Result<Paired, PairError>>) {
        // The code is good for nothing now.
        (self.code, self.attempts_left, self.ends_s) = (None, None, None);
        match ended {
            Some(Ok(Paired { id, name, confirmed })) => {
                self.state = PairState::Paired;
                self.peer = Some(PairedPeer { id: id.to_text(), name, confirmed });
            }
            Some(Err(error)) => {
                self.state = PairState::Failed;
                self.advice = Some(advice(&error).to_owned());
                self.reason = Some(error.to_string());
            }
            None => {
                self.state = PairState::Failed;
                self.reason = Some("the database was closed".to_owned());
            }
        }
    }
}

/// What there is to do about it.
fn advice(error: &PairError) -> &'static str {
    match error {
        PairError::Listen(_) | PairError::ListenerEnded => {
            "choose another address; over Bluetooth, look with `gattway doctor` what is wrong with the adapter"
        }
        PairError::Connect { .. } => {
            "begin on the other device so that it shows a code, and mind that it waits for two minutes only"
        }
        PairError::Refused(_) => {
            "compare the code and try again; if it was right, somebody may be in between"
        }
        PairError::Lost { .. } => "bring the devices nearer to each other and start again",
        PairError::NoAttemptLeft => {
            "start again for a new code; if nobody mistyped, somebody nearby is trying"
        }
        PairError::TimedOut { .. } => "start it again on both sides",
        PairError::Code(_) | PairError::CodeSpent => "let the other device show another code",
        PairError::List(_) => "`gattway peers` changes the list by hand",
        PairError::Access(_) | PairError::Guesses(_) => {
            "the files beside the documents cannot be used: `gattway doctor` looks at them"
        }
    }
}
