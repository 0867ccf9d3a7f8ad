//! Over the link and the modelled radio: cuts, keys that change, and an attacker who has overheard the session's name.

use std::task::{Context, Poll};

use super::*;
use crate::link::{AttMtu, LinkStats, SessionId};
use crate::secure::RekeyLimits;
use crate::transport::clock::Clock;
use crate::transport::packet::{Connector, PacketChannel, PacketSink, PacketSource};
use crate::transport::session::{LinkAcceptor, LinkConnection, SessionConfig};
use crate::transport::sim::{HostConfig, SimConnector, SimDevice, SimLink, SimRadio};

struct Setting {
    radio: SimRadio,
    central: SimDevice,
    peripheral: SimDevice,
    connector: Arc<SimConnector>,
    config: SessionConfig,
    links: LinkAcceptor,
    acceptor: SecureAcceptor,
    club: Arc<Club>,
    rekey: RekeyLimits,
}

fn setting(seed: u64, host: HostConfig, rekey: RekeyLimits) -> Setting {
    let clock = Clock::new();
    let radio = SimRadio::new(seed, clock);
    let central = radio.add_device("central", host);
    let peripheral = radio.add_device("peripheral", host);
    let config = SessionConfig { seed: Some(seed), ..SessionConfig::on(clock) };
    let links = LinkAcceptor::new(SessionConfig { seed: Some(!seed), ..config });
    let club = Club::new(9);
    let secure = SecureConnectionConfig { rekey, clock, ..super::config(2, club.clone()) };
    let acceptor = SecureAcceptor::new(secure);
    let mut listener = peripheral.listen();
    let (channels, newcomers, door) = (links.clone(), links.clone(), acceptor.clone());
    tokio::spawn(async move {
        while let Some(channel) = listener.accept().await {
            channels.incoming(channel);
        }
    });
    tokio::spawn(async move {
        while let Some(connection) = newcomers.next().await {
            door.incoming(Carrier::Link(connection), "central");
        }
    });
    let connector = central.connector(&peripheral, SimLink::new(AttMtu::new(247)));
    Setting { radio, central, peripheral, connector, config, links, acceptor, club, rekey }
}

fn link_of(end: &End) -> &Arc<LinkConnection> {
    match end.connection.carrier() {
        Carrier::Link(link) => link,
        Carrier::Stream(_) => unreachable!(),
    }
}

impl Setting {
    fn active(&self) -> Arc<SecureConnection> {
        let connector: Arc<dyn Connector> = self.connector.clone();
        let link = LinkConnection::central(connector, self.config);
        let secure = super::config(1, self.club.clone());
        let config = SecureConnectionConfig { rekey: self.rekey, clock: self.config.clock, ..secure };
        Arc::new(SecureConnection::active(Carrier::Link(link), config))
    }

    async fn pair(&self) -> (End, End) {
        let (central, accepted) = tokio::join!(End::open(self.active()), accepted(&self.acceptor));
        (central.expect("open"), End::open(accepted.connection).await.expect("open"))
    }

    fn cut(&self) {
        self.radio.cut(&self.central, &self.peripheral);
    }
}

fn stats(end: &End) -> LinkStats {
    link_of(end).stats().link
}

/// Cuts at random moments of a transfer both ways, with new keys every few records: each byte comes once and in order,
/// each record was sealed under a number of its own (both sides count the same, and a second use would fail to open), and
/// every resume was proven with the session's key.
#[tokio::test(start_paused = true)]
async fn cuts_are_resumed_under_the_same_session() {
    for seed in 0..12 {
        let host = HostConfig { drop: if seed % 2 == 0 { 0.0 } else { 0.02 }, ..HostConfig::default() };
        let setting = setting(seed, host, RekeyLimits { bytes: 9_000, records: 20 });
        let (mut a, mut b) = setting.pair().await;
        let (radio, central, peripheral) =
            (setting.radio.clone(), setting.central.clone(), setting.peripheral.clone());
        let cuts = tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            loop {
                tokio::time::sleep(Duration::from_millis(rng.u64(50..900))).await;
                radio.cut(&central, &peripheral);
            }
        });
        exchange(&mut a, &mut b, 150_000, seed).await;
        cuts.abort();
        // A change of keys may follow the last data.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (at_a, at_b) = (a.connection.stats().expect("open"), b.connection.stats().expect("open"));
        assert_eq!((at_a.0, at_a.1), (at_b.1, at_b.0), "seed {seed}");
        assert!(at_a.0.rekeys >= 2, "seed {seed}: {at_a:?}");
        assert!(stats(&a).resumes > 1, "seed {seed}: {:?}", stats(&a));
        let session = link_of(&a).stats().session;
        assert!(session.is_some() && session == link_of(&b).stats().session);
        assert_eq!(setting.links.sessions(), 1, "seed {seed}");
        let (closed, end) = tokio::join!(a.connection.close(None), b.end());
        closed.expect("close");
        assert!(end.is_none(), "seed {seed}: {end:?}");
    }
}

/// A control message in one packet, as `firmware-notes/link.md` has it.
fn control(kind: u8, body: &impl serde::Serialize) -> Vec<u8> {
    let body = postcard::to_stdvec(body).expect("encodes");
    [&[b'G', b'W', kind << 4 | 0x0f, body.len() as u8], &body[..]].concat()
}

/// What an attacker says who has overheard everything: HELLO for the session, where the stream is, and noise in place of
/// the proof. True if it got as far as a WELCOME.
async fn impostor(channel: &mut PacketChannel, session: SessionId, offset: u64) -> bool {
    let parameters = (244u16, 65_536u32, 65_536u32, 65_536u32, 64u8, 20u16);
    let name = session.number().to_le_bytes();
    let hello = control(1, &(1u8, 1u8, Some(name), [9u8; 8], parameters, offset, 0u32));
    let mut packet = [0; 600];
    if channel.send(&hello).await.is_err() {
        return false;
    }
    let welcomed = matches!(
        timeout(Duration::from_secs(20), channel.recv(&mut packet)).await,
        Ok(Ok(length)) if length > 3 && packet[2] >> 4 == 2
    );
    let _ = channel.send(&control(3, &Some([7u8; 16]))).await;
    let _ = timeout(Duration::from_secs(20), channel.recv(&mut packet)).await;
    welcomed
}

/// Anybody may ask for a session whose name went over the air in the clear. Without the proof nothing becomes of it: the
/// live channel stays, and the stream runs on.
#[tokio::test(start_paused = true)]
async fn an_impostor_with_the_name_of_a_session_disturbs_nothing() {
    let setting = setting(5, HostConfig::default(), RekeyLimits::default());
    let (mut a, mut b) = setting.pair().await;
    exchange(&mut a, &mut b, 5_000, 1).await;
    let session = link_of(&a).stats().session.expect("a session");
    let attacker = setting.radio.add_device("attacker", HostConfig::default());
    let door = attacker.connector(&setting.peripheral, SimLink::new(AttMtu::new(247)));
    let before = (link_of(&a).stats().channels, link_of(&b).stats().channels);
    let overheard = Arc::clone(link_of(&b));
    let attacks = tokio::spawn(async move {
        let mut welcomed = 0;
        for _ in 0..12 {
            let Ok(mut channel) = door.connect().await else { continue };
            let offset = overheard.stats().link.bytes_acknowledged;
            welcomed += usize::from(impostor(&mut channel, session, offset).await);
        }
        welcomed
    });
    for round in 0..20 {
        exchange(&mut a, &mut b, 20_000, round).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(attacks.await.expect("join") > 0, "the impostor was never answered: nothing was tried");
    assert_eq!((link_of(&a).stats().channels, link_of(&b).stats().channels), before, "a channel was lost");
    assert_eq!((stats(&a).resumes, stats(&b).resumes), (0, 0));
    // And the session can still be resumed by its own central.
    setting.cut();
    exchange(&mut a, &mut b, 20_000, 99).await;
    assert_eq!(stats(&b).resumes, 1);
}

/// Makes channels that the central can lose while the peripheral still believes in them.
struct OneSided {
    inner: Arc<SimConnector>,
    lose: Arc<AtomicBool>,
    kept: Arc<std::sync::Mutex<Vec<Box<dyn PacketSource>>>>,
}

struct LosingSource {
    inner: Option<Box<dyn PacketSource>>,
    lose: Arc<AtomicBool>,
    kept: Arc<std::sync::Mutex<Vec<Box<dyn PacketSource>>>>,
}

#[async_trait::async_trait]
impl Connector for OneSided {
    async fn connect(&self) -> std::io::Result<PacketChannel> {
        let mut channel = self.inner.connect().await?;
        let (lose, kept) = (Arc::clone(&self.lose), Arc::clone(&self.kept));
        channel.source = Box::new(LosingSource { inner: Some(channel.source), lose, kept });
        Ok(channel)
    }
}

impl PacketSource for LosingSource {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.inner {
            Some(inner) if !self.lose.load(Ordering::SeqCst) => inner.poll_recv(cx, packet),
            _ => Poll::Ready(Ok(0)),
        }
    }
}

impl Drop for LosingSource {
    fn drop(&mut self) {
        // Kept, so that the radio connection stays and the peripheral notices nothing.
        self.kept.lock().expect("lock").extend(self.inner.take());
        self.lose.store(false, Ordering::SeqCst);
    }
}

/// A central that comes back before its loss was noticed takes its session over at once, while the first connection still
/// stands.
#[tokio::test(start_paused = true)]
async fn the_own_central_takes_over_from_a_channel_that_still_stands() {
    let setting = setting(6, HostConfig::default(), RekeyLimits::default());
    let (lose, kept) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let connector =
        OneSided { inner: setting.connector.clone(), lose: lose.clone(), kept: Arc::clone(&kept) };
    let link = LinkConnection::central(Arc::new(connector), setting.config);
    let secure = super::config(1, setting.club.clone());
    let secure = SecureConnectionConfig { clock: setting.config.clock, ..secure };
    let active = Arc::new(SecureConnection::active(Carrier::Link(link), secure));
    let (a, accepted) = tokio::join!(End::open(active), accepted(&setting.acceptor));
    let (mut a, mut b) = (a.expect("open"), End::open(accepted.connection).await.expect("open"));
    for round in 1..=5 {
        exchange(&mut a, &mut b, 20_000, u64::from(round)).await;
        lose.store(true, Ordering::SeqCst);
        exchange(&mut a, &mut b, 20_000, u64::from(round) << 8).await;
        assert_eq!((stats(&a).resumes, stats(&b).resumes), (round, round));
        assert_eq!(link_of(&b).stats().channels, round + 1);
    }
    assert_eq!(kept.lock().expect("lock").len(), 5, "the peripheral was told of a loss");
}

/// Answers every HELLO with "session unknown", as an impostor or a peripheral that has restarted does.
struct Amnesiac {
    inner: Arc<SimConnector>,
    forgets: Arc<AtomicBool>,
}

struct Refuser {
    refused: bool,
}

impl PacketSource for Refuser {
    fn poll_recv(&mut self, _: &mut Context<'_>, packet: &mut [u8]) -> Poll<std::io::Result<usize>> {
        if std::mem::replace(&mut self.refused, true) {
            return Poll::Pending;
        }
        let refuse = control(4, &crate::link::RefuseReason::SessionUnknown);
        packet[..refuse.len()].copy_from_slice(&refuse);
        Poll::Ready(Ok(refuse.len()))
    }
}

impl PacketSink for Refuser {
    fn poll_send(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait::async_trait]
impl Connector for Amnesiac {
    async fn connect(&self) -> std::io::Result<PacketChannel> {
        let mut channel = self.inner.connect().await?;
        if self.forgets.load(Ordering::SeqCst) {
            channel.source = Box::new(Refuser { refused: false });
            channel.sink = Box::new(Refuser { refused: false });
        }
        Ok(channel)
    }
}

/// "Session unknown" from whoever answers in the peripheral's place ends this connection, recoverably: the replicator
/// makes a fresh one with a fresh handshake, and nothing that was acknowledged is lost.
#[tokio::test(start_paused = true)]
async fn an_unknown_session_leads_to_a_fresh_handshake() {
    let setting = setting(7, HostConfig::default(), RekeyLimits::default());
    let forgets = Arc::new(AtomicBool::new(false));
    let connector = Arc::new(Amnesiac { inner: setting.connector.clone(), forgets: forgets.clone() });
    let open = async || {
        let link = LinkConnection::central(connector.clone() as Arc<dyn Connector>, setting.config);
        let secure = super::config(1, setting.club.clone());
        let config = SecureConnectionConfig { clock: setting.config.clock, ..secure };
        let active = Arc::new(SecureConnection::active(Carrier::Link(link), config));
        let (a, accepted) = tokio::join!(End::open(active), accepted(&setting.acceptor));
        (a.expect("open"), End::open(accepted.connection).await.expect("open"))
    };
    let (mut a, _b) = open().await;
    forgets.store(true, Ordering::SeqCst);
    setting.cut();
    let error = timeout(Duration::from_secs(60), a.end()).await.expect("noticed").expect("an error");
    assert!(error.is_recoverable(), "{error}");
    forgets.store(false, Ordering::SeqCst);
    let (mut a, mut b) = open().await;
    exchange(&mut a, &mut b, 5_000, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_denied_central_is_out_over_the_radio_too() {
    let setting = setting(8, HostConfig::default(), RekeyLimits::default());
    let (mut a, mut b) = setting.pair().await;
    exchange(&mut a, &mut b, 5_000, 1).await;
    setting.club.deny_all();
    let (at_a, at_b) = tokio::join!(a.end(), b.end());
    assert!(at_a.expect("an error").is_recoverable() && at_b.expect("an error").is_recoverable());
}
