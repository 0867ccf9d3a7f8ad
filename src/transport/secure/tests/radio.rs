//! Over the link and the modelled radio: cuts, keys that change, and an attacker who has overheard the session's name.

use super::*;
use crate::link::{AttMtu, CloseReason, LinkStats, SessionId};
use crate::secure::RekeyLimits;
use crate::transport::packet::{Connector, PacketChannel};
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
        let (at_a, at_b) = (a.connection.stats().expect("open"), b.connection.stats().expect("open"));
        assert_eq!((at_a.0, at_a.1), (at_b.1, at_b.0), "seed {seed}");
        assert!(at_a.0.rekeys > 5, "seed {seed}: {at_a:?}");
        assert!(stats(&a).resumes > 1, "seed {seed}: {:?}", stats(&a));
        let session = link_of(&a).stats().session;
        assert!(session.is_some() && session == link_of(&b).stats().session);
        assert_eq!(setting.links.sessions(), 1, "seed {seed}");
        let (closed, end) = tokio::join!(a.connection.close(None), b.end());
        closed.expect("close");
        assert!(end.is_none(), "seed {seed}: {end:?}");
    }
}

/// What an attacker says who has overheard a session's name: HELLO for it, then noise in place of the proof.
async fn impostor(channel: &mut PacketChannel, session: SessionId) -> usize {
    let now = crate::time::Instant::ZERO;
    let mut link: Box<crate::link::Link<4096, 4096>> = Box::new(crate::link::Link::new(
        crate::link::LinkRole::Central,
        crate::link::LinkConfig::default(),
        7,
    ));
    link.connected(now, channel.size);
    link.pretend(session);
    let mut packet = [0; 600];
    let mut answers = 0;
    for _ in 0..50 {
        while let Some(length) = link.poll_packet(now, &mut packet) {
            if channel.send(&packet[..length]).await.is_err() {
                return answers;
            }
        }
        match timeout(Duration::from_secs(60), channel.recv(&mut packet)).await {
            Ok(Ok(length)) if length > 0 => {
                answers += 1;
                // Does not believe the peripheral's proof, of course, and answers all the same.
                if link.handle_packet(now, &packet[..length]).is_err() {
                    let forged = link.forged_confirm(&mut packet);
                    if channel.send(&packet[..forged]).await.is_err() {
                        return answers;
                    }
                }
            }
            _ => return answers,
        }
    }
    answers
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
    let attacks = tokio::spawn(async move {
        let mut heard = 0;
        for _ in 0..12 {
            let Ok(mut channel) = door.connect().await else { continue };
            heard += impostor(&mut channel, session).await;
        }
        heard
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

/// A central that comes back before its loss was noticed takes its session over, without another connection.
#[tokio::test(start_paused = true)]
async fn the_own_central_takes_over_from_a_dead_channel() {
    let setting = setting(6, HostConfig::default(), RekeyLimits::default());
    let (mut a, mut b) = setting.pair().await;
    exchange(&mut a, &mut b, 5_000, 1).await;
    // The central's side of the connection alone is lost: the peripheral hears of it only by the new one.
    setting.radio.forget(&setting.central, &setting.peripheral);
    exchange(&mut a, &mut b, 20_000, 2).await;
    assert_eq!((stats(&a).resumes, stats(&b).resumes), (1, 1));
    assert_eq!(link_of(&b).stats().channels, 2);
}

/// "Session unknown" from whoever answers in the peripheral's place ends this connection, recoverably: the replicator
/// makes a fresh one, with a fresh handshake, and nothing that was acknowledged is lost.
#[tokio::test(start_paused = true)]
async fn an_unknown_session_leads_to_a_fresh_handshake() {
    let setting = setting(7, HostConfig::default(), RekeyLimits::default());
    let (mut a, b) = setting.pair().await;
    // The peripheral is another one now: it has forgotten the session.
    drop(b);
    let impostor = LinkAcceptor::new(SessionConfig { seed: Some(99), ..setting.config });
    drop(impostor);
    setting.cut();
    let error = timeout(Duration::from_secs(60), a.end()).await.expect("noticed");
    assert!(error.is_none_or(|error| error.is_recoverable()));
    let (mut a, mut b) = setting.pair().await;
    exchange(&mut a, &mut b, 5_000, 3).await;
    let _ = CloseReason::SessionUnknown;
}

/// The handshake over a modelled radio takes one round trip more than a plain connection before the first byte, in
/// whatever time the connection's interval makes of it.
#[tokio::test(start_paused = true)]
async fn a_denied_central_is_out_over_the_radio_too() {
    let setting = setting(8, HostConfig::default(), RekeyLimits::default());
    let (mut a, mut b) = setting.pair().await;
    exchange(&mut a, &mut b, 5_000, 1).await;
    setting.club.deny_all();
    let (at_a, at_b) = tokio::join!(a.end(), b.end());
    assert!(at_a.expect("an error").is_recoverable() && at_b.expect("an error").is_recoverable());
}
