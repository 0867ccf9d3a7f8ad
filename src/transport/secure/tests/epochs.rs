//! The group's secret changes while devices are away: who gets the new one, from whom, and who does not.

use std::path::Path;

use tempfile::TempDir;
use tokio::io::{duplex, split};
use zeroize::Zeroizing;

use super::*;
use crate::secure::SecureSession;
use crate::secure::epoch::{AuthorityKey, EpochError, Roster, SignedEpoch};
use crate::secure::group::GroupSecret;
use crate::secure::handover;
use crate::simulation::Process;
use crate::transport::stream::StreamConnection;
use crate::trust::group::Group;
use crate::trust::list::{Origin, TrustList};
use crate::trust::{GroupNews, Trust};

/// A device with files of its own.
pub(super) struct Device {
    dir: TempDir,
    trust: Arc<Trust>,
    config: SecureConnectionConfig,
}

impl Device {
    fn with(n: u8, group: &Group) -> Device {
        let dir = tempfile::tempdir().expect("temporary directory");
        group.store(dir.path()).expect("store");
        let trust = Arc::new(Trust::open(dir.path()).expect("open"));
        let identity = Arc::new(Identity::from_private([n; 32]));
        let mut config = SecureConnectionConfig::new(identity, trust.clone());
        config.seed = Some(u64::from(n));
        Device { dir, trust, config }
    }

    /// Where the group was made.
    fn founder(n: u8) -> Device {
        let me = Identity::from_private([n; 32]).id();
        let key = AuthorityKey::from_bytes([200; 32]);
        Device::with(n, &Group::found(Some("plant"), key, [7; 16], me, 1).expect("group"))
    }

    /// Joined by the code that another shows.
    fn joined(n: u8, other: &Device) -> Device {
        Device::with(n, &Group::new(Some("plant"), other.group().secret().clone()).expect("group"))
    }

    fn id(&self) -> PeerId {
        self.config.identity.id()
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// As it is on stable storage.
    fn group(&self) -> Group {
        Group::load(self.path()).expect("load").expect("a group")
    }

    fn epoch(&self) -> Option<u32> {
        self.group().epoch()
    }

    fn list(&self) -> TrustList {
        TrustList::load(self.path()).expect("load")
    }

    fn change(&self, change: impl FnOnce(&mut TrustList)) {
        let changed = TrustList::update(self.path(), |list| {
            change(list);
            Ok(())
        });
        changed.expect("update");
        self.trust.look();
    }

    fn knows(&self, others: &[&Device]) {
        self.change(|list| others.iter().for_each(|other| drop(list.enter(other.id(), Origin::Group))));
    }

    /// What `gattway group rotate` does.
    fn rotate(&self, salt: u8) {
        let roster = self.list().roster(self.id());
        Group::update(self.path(), |group| group.rotated([salt; 16], &roster, 1)).expect("rotate");
        self.trust.look();
    }
}

fn carriers() -> (Carrier, Carrier) {
    let (near, far) = duplex(8 * 1024);
    let [near, far] = [near, far].map(|stream| {
        let (reader, writer) = split(stream);
        Carrier::Stream(Arc::new(StreamConnection::accepted(reader, writer, "pipe")))
    });
    (near, far)
}

/// Both sides of a connection, as each sees it.
async fn meet(
    active: &SecureConnectionConfig,
    passive: &SecureConnectionConfig,
) -> (Result<End, MessagingError>, Result<End, MessagingError>) {
    let acceptor = SecureAcceptor::new(passive.clone());
    let (near, far) = carriers();
    acceptor.incoming(far, "pipe");
    let near = async {
        let connection = Arc::new(SecureConnection::active(near, active.clone()));
        End::open(connection).await
    };
    let far = async {
        match acceptor.next().await.expect("the acceptor is there") {
            Incoming::Accepted(accepted) => End::open(accepted.connection).await,
            Incoming::Refused { error, .. } => Err(error),
        }
    };
    timeout(Duration::from_secs(300), async { tokio::join!(near, far) }).await.expect("it comes to an end")
}

/// They meet and exchange something; what went wrong at either side.
async fn sync(active: &Device, passive: &Device) -> Result<(), [Option<String>; 2]> {
    let text = |error: MessagingError| Some(error.message().to_owned());
    match meet(&active.config, &passive.config).await {
        (Ok(mut a), Ok(mut b)) => {
            exchange(&mut a, &mut b, 5_000, 1).await;
            let (closed, _) = tokio::join!(a.connection.close(None), b.end());
            closed.expect("close");
            b.connection.close(None).await.expect("close");
            [active, passive].iter().for_each(|device| device.trust.look());
            Ok(())
        }
        // The refusal comes after the active side has opened.
        (Ok(mut a), Err(at_passive)) => Err([a.end().await.and_then(text), text(at_passive)]),
        (a, b) => Err([a.err().and_then(text), b.err().and_then(text)]),
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_gets_the_new_secret_and_goes_on() {
    for is_active in [true, false] {
        let hub = Device::founder(1);
        let away = Device::joined(2, &hub);
        sync(&away, &hub).await.expect("members");
        hub.rotate(9);
        assert_eq!((hub.epoch(), away.epoch()), (Some(1), None));
        let met = if is_active { sync(&away, &hub).await } else { sync(&hub, &away).await };
        met.expect("one session for both");
        assert_eq!((away.epoch(), away.group().key()), (Some(1), hub.group().key()));
        assert!(!away.group().is_authority() && away.group().authority() == hub.group().authority());
        let told = GroupNews::PeerHas { peer: away.id(), epoch: 1 };
        assert!(hub.trust.take_news().contains(&told), "the giver knows who has it");
        let told = GroupNews::Changed { epoch: Some(1), from: Some(hub.id()) };
        assert!(away.trust.take_news().contains(&told));
        assert_eq!((hub.list().epoch(&away.id()), away.list().epoch(&hub.id())), (Some(1), Some(1)));
        assert!(hub.trust.former_psks().is_empty(), "all have it: the former secret is of no use any more");
        sync(&away, &hub).await.expect("members of the new epoch");
    }
}

/// What replication says before it knows better is not lost, nor does it come before the handover.
#[tokio::test(start_paused = true)]
async fn nothing_is_replicated_before_the_new_secret_is_stored_and_nothing_is_lost() {
    let hub = Device::founder(1);
    let away = Device::joined(2, &hub);
    hub.knows(&[&away]);
    hub.rotate(9);
    // The active side speaks as soon as it can.
    let (near, far) = carriers();
    let acceptor = SecureAcceptor::new(hub.config.clone());
    acceptor.incoming(far, "pipe");
    let early = End::open(Arc::new(SecureConnection::active(near, away.config.clone()))).await.expect("open");
    early.send(b"the first words").await;
    let accepted = accepted(&acceptor).await;
    assert_eq!(away.epoch(), Some(1), "stored before the other side goes on");
    assert_eq!(accepted.established.via, Authentication::Group);
    let mut at_hub = End::open(accepted.connection).await.expect("open");
    assert_eq!(at_hub.receive(15).await, b"the first words");
}

#[tokio::test(start_paused = true)]
async fn a_relay_passes_it_on_and_with_it_who_is_kept_out() {
    let hub = Device::founder(1);
    let [relay, far, thief] = [2, 3, 4].map(|n| Device::joined(n, &hub));
    hub.knows(&[&relay, &far, &thief]);
    sync(&thief, &far).await.expect("nobody has denied him yet");
    hub.change(|list| list.get_mut(&thief.id()).expect("known").denied = true);
    hub.rotate(9);
    sync(&relay, &hub).await.expect("a member");
    assert!(relay.list().get(&thief.id()).is_some_and(|peer| peer.denied));
    sync(&relay, &far).await.expect("from a device that is not the authority");
    assert_eq!(far.group().key(), hub.group().key());
    assert!(far.list().get(&thief.id()).is_some_and(|peer| peer.denied), "who was let in before");
    // The thief, and a new identity with the secret that he has: as either side, at every device.
    let new = Device::joined(5, &thief);
    for device in [&hub, &relay, &far] {
        for outsider in [&thief, &new] {
            let at_device = sync(outsider, device).await.expect_err("kept out")[1].clone();
            let why = at_device.expect("a reason");
            // Where all who may have it are known to have it, the former secret is not even known any more.
            let reasons = ["denied", "former secret", "a stranger"];
            assert!(reasons.iter().any(|reason| why.contains(reason)), "{why}");
            assert!(!Arc::ptr_eq(&device.trust, &hub.trust) || !why.contains("a stranger"), "{why}");
            sync(device, outsider).await.expect_err("kept out");
            assert_eq!(outsider.epoch(), None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_behind_by_some_epochs_comes_to_the_newest() {
    let hub = Device::founder(1);
    let [a, b] = [2, 3].map(|n| Device::joined(n, &hub));
    hub.knows(&[&a, &b]);
    hub.rotate(9);
    sync(&a, &hub).await.expect("a member");
    for salt in 10..13 {
        hub.rotate(salt);
    }
    sync(&b, &hub).await.expect("four behind");
    sync(&a, &b).await.expect("three behind, from one that has missed these");
    assert_eq!([a.epoch(), b.epoch()], [Some(4), Some(4)]);
}

/// The authority's device was set back to a backup and has made another epoch of the same number.
#[tokio::test(start_paused = true)]
async fn two_epochs_of_one_number_come_to_one() {
    let hub = Device::founder(1);
    let [a, b] = [2, 3].map(|n| Device::joined(n, &hub));
    hub.knows(&[&a, &b]);
    let backup = hub.group();
    hub.rotate(9);
    sync(&a, &hub).await.expect("a member");
    backup.store(hub.path()).expect("set back");
    hub.rotate(10);
    sync(&b, &hub).await.expect("a member");
    assert!(a.epoch() == b.epoch() && a.group().key() != b.group().key(), "the fork");
    sync(&a, &b).await.expect("each has a former secret of the other");
    assert_eq!(a.group().key(), b.group().key());
    sync(&b, &hub).await.expect("and the authority follows");
    assert_eq!(hub.group().key(), b.group().key());
    hub.rotate(11);
    sync(&a, &hub).await.expect("a member");
    assert_eq!((a.epoch(), a.group().key()), (Some(2), hub.group().key()));
}

/// A member of the group who says what he likes about its epochs.
struct Liar {
    psk: Psk,
    says: Vec<u8>,
    version: watch::Sender<u64>,
}

impl PeerPolicy for Liar {
    fn group_psk(&self) -> Option<Psk> {
        // Whoever shows the real one is taken for one with a former secret.
        Some(Psk([99; 32]))
    }

    fn former_psks(&self) -> Vec<Psk> {
        vec![self.psk.clone()]
    }

    fn epoch(&self, _: &PeerId) -> Option<(Psk, Zeroizing<Vec<u8>>)> {
        Some((Psk([99; 32]), Zeroizing::new(self.says.clone())))
    }

    fn paired(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn admit(&self, _: &PeerId, _: Authentication) -> Result<Grant, Refusal> {
        Ok(Grant::full(None))
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

/// What a device makes of what a hostile member says, as either side.
async fn told(device: &Device, says: &[u8]) {
    let psk = device.group().key().psk();
    let before = device.group();
    for is_active in [true, false] {
        let policy = Liar { psk: psk.clone(), says: says.to_vec(), version: watch::Sender::new(0) };
        let identity = Arc::new(Identity::from_private([66; 32]));
        let liar = SecureConnectionConfig::new(identity, Arc::new(policy));
        let met = async {
            let (a, b) = match is_active {
                true => meet(&liar, &device.config).await,
                false => meet(&device.config, &liar).await,
            };
            let (device_end, liar_end) = if is_active { (b, a) } else { (a, b) };
            assert!(liar_end.is_err(), "nobody has stored it");
            if let Ok(mut end) = device_end {
                end.end().await;
            }
        };
        timeout(Duration::from_secs(600), met).await.expect("it comes to an end");
        assert_eq!(device.group(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_but_the_authority_changes_the_secret() {
    let hub = Device::founder(1);
    let device = Device::joined(2, &hub);
    hub.knows(&[&device]);
    let stolen = hub.group().secret().clone();
    let roster = Roster { members: vec![device.id()], denied: vec![hub.id()] };
    // Under a key of his own, for the secret that he knows.
    let usurper = Group::new(None, GroupSecret::parse(&stolen.code()).expect("code")).expect("group");
    let usurper = usurper.with_key(AuthorityKey::from_bytes([66; 32]));
    let forged = usurper.rotated([1; 16], &roster, 1).expect("his own");
    told(&device, forged.signed().expect("signed").as_bytes()).await;
    assert!(device.list().get(&hub.id()).is_none_or(|peer| !peer.denied), "nor says who is kept out");
    // Changed on its way.
    hub.rotate(9);
    let mut changed = hub.group().signed().expect("signed").as_bytes().to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    told(&device, &changed).await;
    told(&device, b"nothing of the kind").await;
    told(&device, &vec![1; 300_000]).await;
    sync(&device, &hub).await.expect("all is well with the authority");
    assert_eq!(device.epoch(), Some(1));
    // What he has recorded as a member of the first epoch, and the first epoch itself.
    let old = hub.group().signed().expect("signed").as_bytes().to_vec();
    hub.rotate(10);
    sync(&device, &hub).await.expect("a member");
    assert_eq!(device.epoch(), Some(2));
    told(&device, &old).await;
}

/// Who says that he has stored it and cannot know it is not believed.
#[tokio::test(start_paused = true)]
async fn a_word_without_proof_is_not_taken_for_having_the_secret() {
    let hub = Device::founder(1);
    let device = Device::joined(2, &hub);
    hub.knows(&[&device]);
    hub.rotate(9);
    let (near, far) = carriers();
    let acceptor = SecureAcceptor::new(hub.config.clone());
    acceptor.incoming(far, "pipe");
    // A device that knows no handovers: the session below the connection.
    let (handle, mut inbound) = ReplicatorConnection::detached(INBOUND);
    near.connection().open(handle).await.expect("open");
    let session = device.config.session(&near).expect("stream");
    let entropy = device.config.entropy().expect("seeded");
    let session =
        SecureSession::active(session, &device.config.keyring(), entropy, device.config.clock.now());
    let shared = shared::Shared::new(device.config.clone(), near.clone(), session.expect("a key"));
    shared.shake_hands(&mut inbound, None).await.expect("a member");
    shared.act(|session| session.seal_group(&handover::taken(&[0; 32]))).0.expect("open");
    shared.flush().await.expect("flush");
    match acceptor.next().await {
        Some(Incoming::Refused { .. }) => {}
        _ => panic!("it was let in"),
    }
    hub.trust.look();
    assert_eq!(hub.list().epoch(&device.id()), None);
    assert!(hub.trust.take_news().iter().all(|news| !matches!(news, GroupNews::PeerHas { .. })));
}

/// Power is lost between stable storage and the word about it, at any moment: both sides go on as if it had been said, or as if
/// nothing had been.
#[tokio::test(start_paused = true)]
async fn a_crash_between_storing_and_saying_so_loses_nothing() {
    let mut stored = 0;
    for stop_us in (0..24_000).step_by(1_000) {
        let hub = Device::founder(1);
        let device = Device::joined(2, &hub);
        hub.knows(&[&device]);
        hub.rotate(9);
        let process = Process::new(stop_us);
        // From the call to stable storage, and from there until the caller learns of it.
        process.set_work_time(Duration::from_millis(10)..Duration::from_millis(10));
        let acceptor = SecureAcceptor::new(hub.config.clone());
        let (near, far) = carriers();
        acceptor.incoming(far, "pipe");
        let config = device.config.clone();
        process.spawn(async move {
            if let Ok(mut end) = End::open(Arc::new(SecureConnection::active(near, config))).await {
                end.end().await;
            }
        });
        tokio::time::sleep(Duration::from_micros(stop_us)).await;
        process.kill();
        stored += usize::from(device.epoch() == Some(1));
        // It starts again with what is on stable storage.
        let again = Device { trust: Arc::new(Trust::open(device.path()).expect("open")), ..device };
        let config = SecureConnectionConfig::new(again.config.identity.clone(), again.trust.clone());
        let again = Device { config, ..again };
        sync(&again, &hub).await.expect("a member, of whichever epoch");
        assert_eq!((again.epoch(), hub.list().epoch(&again.id())), (Some(1), Some(1)));
    }
    assert!((5..20).contains(&stored), "{stored} of 24: the moment between is not among them");
}

/// The file system is full, or read-only.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_is_not_acknowledged() {
    let hub = Device::founder(1);
    let device = Device::joined(2, &hub);
    hub.knows(&[&device]);
    hub.rotate(9);
    // A directory in the way of the draft.
    std::fs::create_dir(device.path().join("group.partial")).expect("mkdir");
    sync(&device, &hub).await.expect_err("it says that it has it");
    assert!(device.epoch().is_none() && hub.list().epoch(&device.id()).is_none());
    std::fs::remove_dir(device.path().join("group.partial")).expect("rmdir");
    sync(&device, &hub).await.expect("a member");
    assert_eq!(device.epoch(), Some(1));
}

/// Who is paired is let in by that, whatever secret of the group it has; it gets the new one only if that is for it.
#[tokio::test(start_paused = true)]
async fn a_paired_device_that_is_not_to_have_the_secret_comes_in_without() {
    let hub = Device::founder(1);
    let device = Device::joined(2, &hub);
    hub.rotate(9);
    hub.change(|list| list.enter(device.id(), Origin::Paired).map(|_| ()).expect("room"));
    device.change(|list| list.enter(hub.id(), Origin::Paired).map(|_| ()).expect("room"));
    sync(&device, &hub).await.expect("paired");
    assert_eq!(device.epoch(), None);
    hub.rotate(10);
    // Two behind, and now named.
    sync(&device, &hub).await.expect("paired");
    assert_eq!(device.epoch(), Some(2));
}

/// A device that is not the authority has nothing to give but its word.
#[test]
fn a_signed_epoch_says_itself_who_signed_it() {
    let hub = Device::founder(1);
    let signed = SignedEpoch::parse(hub.group().signed().expect("signed").as_bytes()).expect("holds");
    assert_eq!(Some(signed.authority()), hub.group().authority());
    let error = hub.trust.take_epoch(&hub.id(), b"no");
    assert_eq!(error, Err(EpochError::Malformed));
}
