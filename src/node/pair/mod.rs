//! Pairing: two devices that know nothing of each other come to trust each other by a short code.
//!
//! The side that listens shows the code, the side that connects is given it. Who may try it is in `attempts`, what is said in
//! `talk`.

mod attempts;
mod error;
mod event;
mod policy;
mod talk;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

pub use self::error::PairError;
pub use self::event::{PairEvent, Paired};
pub(crate) use self::talk::Roles;

use self::attempts::{Attempts, Talks, Turn};
use self::policy::PairingPolicy;
use self::talk::{Device, Ended, INBOUND_BYTES, PairObserver};
use super::access::{self, AccessError};
use super::connect::Connect;
use super::handle::Node;
use super::listen::{self, Accept, Arrival, Listen, Local};
use crate::database::Database;
use crate::endpoint::{MessageEndpointConnection, MessagingError, ReplicatorConnection};
use crate::secure::PeerId;
use crate::secure::pairing::{DeviceInfo, Pairing, PairingCode};
use crate::transport::secure::{Incoming, SecureAcceptor, SecureConnection, SecureConnectionConfig};
use crate::trust::Guesses;
use crate::trust::list::check_name;

/// Time for all of it: a person walks from one device to the other and types six digits.
pub(crate) const PAIRING_TIMEOUT: Duration = Duration::from_secs(120);

/// A pairing of a database with that of another device, to be begun by [`listen`](Self::listen) on one of them and by
/// [`connect`](Self::connect) on the other. Afterwards each has the other in its trust list, and they may sync. Made by
/// [`Node::pair`]; a node that runs notices it.
#[must_use = "nothing is paired before `listen` or `connect`"]
pub struct PairBuilder {
    directory: PathBuf,
    name: Option<String>,
    roles: Option<Roles>,
    observers: Vec<PairObserver>,
}

impl Node {
    /// A pairing of a database with that of a device nearby, by a short code, so that the two may sync without a common
    /// group. The database may have a node that runs, or none yet.
    /// ```
    /// use gattway::node::PairEvent;
    /// use gattway::{Database, DatabaseConfig, Node, Tcp};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let open = |name| Database::open(directory.path().join(name), DatabaseConfig::default());
    /// # let (gateway, sensor) = (open("gateway.db")?, open("sensor.db")?);
    /// # let (told, mut telling) = tokio::sync::mpsc::unbounded_channel();
    /// // Shows the code to a person.
    /// let shows = Node::pair(&gateway).observe(move |event| {
    ///     println!("{event}");
    ///     # let _ = told.send(match event {
    ///     #     PairEvent::Listening { address, .. } => address.trim_start_matches("tcp:").to_owned(),
    ///     #     PairEvent::Code { code, .. } => (*code).to_owned(),
    ///     #     _ => return,
    ///     # });
    /// });
    /// let shows = shows.listen(Tcp::bind("127.0.0.1:0"));
    /// # let types = async {
    /// # let (address, code) = (telling.recv().await.unwrap_or_default(), telling.recv().await.unwrap_or_default());
    /// // On the other device, where the person has typed it.
    /// let types = Node::pair(&sensor).connect(Tcp::connect(address), &code);
    /// # types.await };
    /// let (gateway_knows, sensor_knows) = tokio::try_join!(shows, types)?;
    /// assert!(gateway_knows.confirmed && sensor_knows.confirmed);
    /// # Ok(()) }
    /// ```
    pub fn pair(db: &Database) -> PairBuilder {
        PairBuilder::new(db.path())
    }
}

impl PairBuilder {
    /// Of the database in `directory`.
    pub(crate) fn new(directory: &Path) -> PairBuilder {
        PairBuilder { directory: directory.to_owned(), name: None, roles: None, observers: Vec::new() }
    }

    /// What this device calls itself to the other; the name of the machine, unless changed.
    pub fn name(mut self, name: impl Into<String>) -> PairBuilder {
        self.name = Some(name.into());
        self
    }

    /// What the other device may do.
    pub(crate) fn roles(mut self, roles: Roles) -> PairBuilder {
        self.roles = Some(roles);
        self
    }

    /// Calls back with each event, among them the code that a person has to type on the other device. The callback must not
    /// block.
    pub fn observe(mut self, observer: impl Fn(&PairEvent<'_>) + Send + Sync + 'static) -> PairBuilder {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Waits there for the other device, for two minutes, and tells the code that has to be typed on it. It is good for three
    /// attempts.
    ///
    /// # Errors
    /// [`PairError`]; the other device may have entered this one all the same if it is [`PairError::Lost`].
    pub async fn listen(self, place: impl Listen) -> Result<Paired, PairError> {
        self.listen_on(Box::new(place), None).await
    }

    /// The same with a code that the other side has already; it is good for one wrong attempt then, for ever.
    pub(crate) async fn listen_on(
        self,
        place: Box<dyn Listen>,
        given: Option<PairingCode>,
    ) -> Result<Paired, PairError> {
        let device = self.device()?;
        let attempts = match &given {
            None => Attempts::of_shown_code(),
            Some(code) => Attempts::of_given_code(Guesses::of(&device.directory, &device.identity, code))?,
        };
        let is_shown = given.is_none();
        let code = given.map_or_else(random_code, Ok)?;
        within_limit(device.show(&*place, &code, is_shown, &attempts)).await
    }

    /// Pairs with the device there, by the code that it shows; blanks in it do not matter.
    ///
    /// # Errors
    /// [`PairError`].
    pub async fn connect(self, way: impl Connect, code: &str) -> Result<Paired, PairError> {
        self.connect_by(&way, &PairingCode::parse(code)?).await
    }

    /// The same with a code that was read before.
    pub(crate) async fn connect_by(self, way: &dyn Connect, code: &PairingCode) -> Result<Paired, PairError> {
        let device = self.device()?;
        within_limit(device.try_code(way, code)).await
    }

    /// This device; its identity is made if it has none.
    fn device(self) -> Result<Device, PairError> {
        let name = self.name.unwrap_or_else(access::own_name);
        check_name(&name)?;
        let identity = Arc::new(access::identity(&self.directory)?);
        let info = DeviceInfo { name, advert_key: identity.advert_key() };
        let PairBuilder { directory, roles, observers, .. } = self;
        Ok(Device { directory, identity, info, roles, observers })
    }
}

impl fmt::Debug for PairBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairBuilder")
            .field("directory", &self.directory)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn random_code() -> Result<PairingCode, AccessError> {
    let mut entropy = zeroize::Zeroizing::new([0; 16]);
    getrandom::fill(&mut *entropy).map_err(|error| AccessError::Randomness { reason: error.to_string() })?;
    Ok(PairingCode::from_entropy(*entropy))
}

async fn within_limit(work: impl Future<Output = Result<Paired, PairError>>) -> Result<Paired, PairError> {
    timeout(PAIRING_TIMEOUT, work).await.unwrap_or(Err(PairError::TimedOut { limit: PAIRING_TIMEOUT }))
}

impl Device {
    fn config(&self) -> SecureConnectionConfig {
        let mut config =
            SecureConnectionConfig::new(Arc::clone(&self.identity), Arc::new(PairingPolicy::new()));
        config.pairing = true;
        config.trust_refusals = true;
        config
    }

    /// The side where the code was typed.
    async fn try_code(&self, way: &dyn Connect, code: &PairingCode) -> Result<Paired, PairError> {
        let connection = SecureConnection::active(way.connect(&Local::default()), self.config());
        let (handle, inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
        let opened = connection.open(handle).await;
        let established = opened.and_then(|()| {
            connection.peer().ok_or_else(|| MessagingError::permanent("the secure session has no peer"))
        });
        let established = match established {
            Ok(established) => established,
            Err(error) => {
                let _ = connection.close(Some(error.clone())).await;
                return Err(PairError::Connect { address: way.address(), error });
            }
        };
        let (me, peer) = (self.identity.id(), established.peer);
        let pairing = Pairing::active(code, established.hash, me, peer, self.info.clone());
        let turn = Turn::default();
        self.converse(&connection, inbound, pairing, &established, &turn).await.result()
    }

    /// The side that shows the code.
    async fn show(
        &self,
        place: &dyn Listen,
        code: &PairingCode,
        is_shown: bool,
        attempts: &Attempts,
    ) -> Result<Paired, PairError> {
        let acceptor = SecureAcceptor::new(self.config());
        let mut place = listen::open(place, &Local::default()).await?;
        self.tell(&PairEvent::Listening { address: &place.address() });
        if is_shown {
            self.tell(&PairEvent::Code { code: &code.text() });
        }
        let mut talks = Talks::default();
        while attempts.left() > 0 || talks.has_proven() {
            tokio::select! {
                taken = take(&mut *place, &acceptor) => taken?,
                incoming = acceptor.next() => match incoming {
                    Some(Incoming::Accepted(accepted)) => {
                        talks.begin(|turn| self.answer(*accepted, code, turn.counted_by(attempts)));
                    }
                    Some(Incoming::Refused { label, error, .. }) => {
                        self.tell(&PairEvent::Refused { label: &label, error: error.to_string() });
                    }
                    None => break,
                },
                (peer, ended) = talks.next() => {
                    if let Some(done) = self.ended(peer, ended, attempts) {
                        return done.result();
                    }
                }
            }
        }
        Err(PairError::NoAttemptLeft)
    }

    /// Tells of an attempt that has failed; gives back how it ended if that is the end of the pairing.
    fn ended(&self, peer: PeerId, ended: Ended, attempts: &Attempts) -> Option<Ended> {
        let (error, counted) = match ended {
            Ended::Failed(error) => (error.to_string(), true),
            Ended::Lost(error) => (error.to_string(), false),
            done => return Some(done),
        };
        self.tell(&PairEvent::Attempt { peer, error, left: attempts.left(), counted });
        None
    }
}

/// Gives the next newcomer to the acceptor.
async fn take(place: &mut dyn Accept, acceptor: &SecureAcceptor) -> Result<(), PairError> {
    let Arrival { carrier, label } = listen::accept(place).await?.ok_or(PairError::ListenerEnded)?;
    acceptor.incoming(carrier, label);
    Ok(())
}
