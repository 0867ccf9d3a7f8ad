//! Who may come in, from files: each node has a group and a trust list on its medium, a list may get lost while the node
//! runs or between two of its runs, and somebody whom all lists deny tries to get in meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gattway::endpoint::{MessageEndpointConnection, ReplicatorConnection};
use gattway::lab::link::AttMtu;
use gattway::lab::secure::group::GroupSecret;
use gattway::lab::secure::{GroupOnly, PeerPolicy};
use gattway::lab::simulation::Process;
use gattway::lab::transport::secure::{Carrier, SecureConnection, SecureConnectionConfig};
use gattway::lab::transport::session::{LinkConnection, SessionConfig};
use gattway::lab::transport::sim::{SimDevice, SimLink};
use gattway::lab::trust::group::Group;
use gattway::lab::trust::list::{Origin, TrustList};
use gattway::lab::trust::{LOOK_INTERVAL, Trust};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::actions::Undo;
use super::model::NodeIndex;
use super::plan::Security;
use super::run::Run;
use super::secure;
use super::world::{World, lock};

/// After this a node has seen that its list is lost, and ended what it had open.
const NOTICED_AFTER: Duration = Duration::from_secs(5);

/// A node looks at its files at least twice before that.
const _: () = assert!(LOOK_INTERVAL.as_millis() * 3 < NOTICED_AFTER.as_millis());

/// Time for one attempt of somebody who is denied.
const THEFT_TIME_MAX: Duration = Duration::from_secs(40);

/// Bytes that a thief takes at most.
const THEFT_BYTES: usize = 16 * 1024;

const LIST: &str = "trust";
const LIST_AWAY: &str = "trust-away";

/// The files of a node.
pub struct Files {
    dir: TempDir,
    /// What the process that runs makes of them.
    trust: Option<Arc<Trust>>,
    lost: Arc<Mutex<Option<Lost>>>,
}

/// A list that is not there.
#[derive(Clone, Copy)]
struct Lost {
    since: Instant,
    /// Whether a process was running then: another one does not even begin.
    while_running: bool,
}

/// Tells whether somebody may be let in at this moment.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<Mutex<Option<Lost>>>>);

impl Gate {
    /// Whether a session that begins now is one too many.
    pub fn is_closed(&self) -> bool {
        let lost = self.0.as_ref().and_then(|lost| *lock(lost));
        lost.is_some_and(|lost| !lost.while_running || lost.since.elapsed() >= NOTICED_AFTER)
    }
}

/// The secret of the nodes' group.
pub fn secret(seed: u64) -> GroupSecret {
    GroupSecret::from_bytes([seed as u8; 16])
}

impl Files {
    /// The files of a node of a run, if its nodes have any.
    pub fn new(world: &World) -> Option<Files> {
        let plan = &world.plan;
        if plan.security != Security::Files {
            return None;
        }
        // In memory where that can be had: what stable storage does is not what this is about.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        Group::new(None, secret(plan.seed)).and_then(|group| group.store(dir.path())).expect("a group");
        let thief = secure::identity(plan.seed, plan.nodes).id();
        let deny = |list: &mut TrustList| {
            list.enter(thief, Origin::Manual)?.denied = true;
            Ok(())
        };
        TrustList::update(dir.path(), deny).expect("a list");
        Some(Files { dir, trust: None, lost: Arc::default() })
    }

    /// A process begins: what it makes of the files, which it looks at from time to time.
    ///
    /// # Errors
    /// It does not, for people.
    pub fn open(&mut self, process: &Process) -> Result<(Arc<dyn PeerPolicy>, JoinHandle<()>), String> {
        let trust = Arc::new(Trust::open(self.dir.path()).map_err(|error| error.to_string())?);
        self.trust = Some(Arc::clone(&trust));
        let looks = Arc::clone(&trust);
        let looking = process.spawn(async move {
            loop {
                sleep(LOOK_INTERVAL).await;
                looks.look();
            }
        });
        Ok((trust, looking))
    }

    /// Whether its list is not there.
    pub fn is_lost(&self) -> bool {
        lock(&self.lost).is_some()
    }

    /// For whoever lets peers in.
    pub fn gate(&self) -> Gate {
        Gate(Some(Arc::clone(&self.lost)))
    }

    fn lose(&self, while_running: bool) {
        let (from, to) = (self.dir.path().join(LIST), self.dir.path().join(LIST_AWAY));
        std::fs::rename(from, to).expect("a list");
        *lock(&self.lost) = Some(Lost { since: Instant::now(), while_running });
    }

    fn restore(&self) -> Option<Lost> {
        let lost = lock(&self.lost).take()?;
        let (from, to) = (self.dir.path().join(LIST_AWAY), self.dir.path().join(LIST));
        std::fs::rename(from, to).expect("a list");
        Some(lost)
    }
}

impl Run {
    /// Whether the trust list of a node is lost at this time.
    pub fn is_without_list(&self, at: NodeIndex) -> bool {
        self.nodes[at].files.as_ref().is_some_and(Files::is_lost)
    }

    /// The trust list of a node is gone, for a while.
    pub fn lose_trust(&mut self, at: NodeIndex) -> bool {
        let node = &self.nodes[at];
        let Some(files) = node.files.as_ref().filter(|files| !files.is_lost()) else { return false };
        files.lose(node.is_up());
        self.world.trace.note(format!("the trust list of {at} is lost"));
        let time = NOTICED_AFTER + Duration::from_millis(self.rng.u64(500..15_000));
        self.later(time, Undo::Trust(at));
        // One comes before it is noticed, perhaps, and one surely after it.
        let early = Duration::from_millis(self.rng.u64(0..3_000));
        for wait in [early, NOTICED_AFTER] {
            self.steal(at, wait);
        }
        true
    }

    /// The list is put back; until now the node has said that it is missing, and has nobody in.
    pub fn restore_trust(&mut self, at: NodeIndex) {
        let node = &self.nodes[at];
        let Some(files) = &node.files else { return };
        let (says, is_up) = (files.trust.as_ref().and_then(|trust| trust.failure()), node.is_up());
        let Some(lost) = files.restore() else { return };
        self.world.trace.note(format!("the trust list of {at} is put back"));
        let Some(running) = node.running.as_ref().filter(|_| is_up && lost.since.elapsed() >= NOTICED_AFTER)
        else {
            return;
        };
        if says.is_none_or(|says| !says.contains(LIST)) {
            self.world.violation(format!("node {at} does not say that its trust list is missing"));
        }
        let inside = running.listener.connections().len();
        if inside > 0 {
            self.world.violation(format!("node {at} has {inside} peers in without its trust list"));
        }
    }

    /// Somebody who has the group's secret and is denied by name tries to get in.
    fn steal(&mut self, at: NodeIndex, wait: Duration) {
        let plan = &self.world.plan;
        let (seed, thief) = (self.rng.u64(..), secure::identity(plan.seed, plan.nodes));
        let mut config =
            SecureConnectionConfig::new(Arc::new(thief), Arc::new(GroupOnly(secret(plan.seed).key().psk())));
        config.seed = Some(seed);
        config.clock = self.world.clock;
        let (world, thief, victim) =
            (Arc::clone(&self.world), self.stranger.clone(), self.devices[at].clone());
        tokio::spawn(async move {
            sleep(wait).await;
            match timeout(THEFT_TIME_MAX, steal(&world, &thief, &victim, config)).await {
                Ok(Ok(())) => world.violation(format!("node {at} talks to somebody whom its list denies")),
                Ok(Err(why)) => world.trace.note(format!("a thief is kept out of {at}: {why}")),
                Err(_) => world.trace.note(format!("a thief gets no answer of {at}")),
            }
        });
    }
}

/// Whether the thief comes in.
async fn steal(
    world: &World,
    thief: &SimDevice,
    victim: &SimDevice,
    config: SecureConnectionConfig,
) -> Result<(), String> {
    let connector = thief.connector(victim, SimLink::new(AttMtu::new(247)));
    let session = SessionConfig { seed: config.seed, ..SessionConfig::on(world.clock) };
    let link = LinkConnection::central(connector, session);
    let connection = Arc::new(SecureConnection::active(Carrier::Link(link), config));
    let (handle, mut inbound) = ReplicatorConnection::detached(THEFT_BYTES);
    connection.open(handle).await.map_err(|error| error.to_string())?;
    // It thinks that it is in, until it hears that it is not.
    match inbound.next().await {
        Some(_) => Ok(()),
        None => Err("told nothing".into()),
    }
}
