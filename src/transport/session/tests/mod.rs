//! Both ends of resumable connections over the modelled radio, in virtual time: bytes in are bytes out, once, in order,
//! whatever becomes of the connections below; and everything comes to an end.

mod replication;
mod room;
mod storm;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::config::DeviceLink;
use super::*;
use crate::endpoint::{Inbound, Message, MessageEndpointConnection, MessagingError, ReplicatorConnection};
use crate::link::{AttMtu, LinkRole, ResumeProver};
use crate::transport::clock::Clock;
use crate::transport::packet::{Connector, PacketChannel};
use crate::transport::sim::radio::Path;
use crate::transport::sim::{HostConfig, SimConnector, SimDevice, SimLink, SimRadio};

/// What the library takes before it makes the transport wait.
const INBOUND_BYTES: usize = 16 * 1024;
const OUT_OF_RANGE: Path = Path { reachable: false, rssi_dbm: -127, loss: 1.0 };

struct Setting {
    radio: SimRadio,
    central: SimDevice,
    peripheral: SimDevice,
    connector: Arc<SimConnector>,
    acceptor: LinkAcceptor,
    config: SessionConfig,
}

/// Two devices on a radio; the peripheral accepts.
fn setting(seed: u64, host: HostConfig, change: impl FnOnce(&mut SessionConfig)) -> Setting {
    setting_on(seed, Clock::new(), host, change)
}

fn setting_on(seed: u64, clock: Clock, host: HostConfig, change: impl FnOnce(&mut SessionConfig)) -> Setting {
    let radio = SimRadio::new(seed, clock);
    let central = radio.add_device("central", host);
    let peripheral = radio.add_device("peripheral", host);
    let mut config = SessionConfig { seed: Some(seed), ..SessionConfig::on(clock) };
    change(&mut config);
    let acceptor = LinkAcceptor::new(SessionConfig { seed: Some(!seed), ..config });
    let mut listener = peripheral.listen();
    tokio::spawn({
        let acceptor = acceptor.clone();
        async move {
            while let Some(channel) = listener.accept().await {
                acceptor.incoming(channel);
            }
        }
    });
    let connector = central.connector(&peripheral, SimLink::new(AttMtu::new(247)));
    Setting { radio, central, peripheral, connector, acceptor, config }
}

struct End {
    connection: Arc<LinkConnection>,
    inbound: Inbound,
}

impl Setting {
    fn new_central(&self) -> Arc<LinkConnection> {
        LinkConnection::central(Arc::clone(&self.connector) as Arc<dyn Connector>, self.config)
    }

    async fn pair(&self) -> (End, End) {
        let central = open(self.new_central()).await;
        let peripheral = open(self.acceptor.next().await.expect("a session")).await;
        (central, peripheral)
    }

    fn set_path(&self, path: Path) {
        self.radio.set_path(&self.central, &self.peripheral, path);
    }

    fn cut(&self) {
        self.radio.cut(&self.central, &self.peripheral);
    }
}

async fn open(connection: Arc<LinkConnection>) -> End {
    let (handle, inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    connection.open(handle).await.expect("open");
    End { connection, inbound }
}

impl End {
    async fn send(&self, bytes: &[u8]) {
        self.connection.send(Message::from_bytes(bytes.to_vec())).await.expect("send");
    }

    async fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let message = self.inbound.next().await.expect("more bytes");
            bytes.extend_from_slice(&message);
        }
        bytes
    }

    /// How the library learns of the end, after everything that was received.
    async fn end(&mut self) -> (Vec<u8>, Option<MessagingError>) {
        let mut bytes = Vec::new();
        while let Some(message) = self.inbound.next().await {
            bytes.extend_from_slice(&message);
        }
        (bytes, self.inbound.closed().expect("closed"))
    }
}

fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| rng.u8(..)).collect()
}

async fn send_in_pieces(end: &End, bytes: &[u8], seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(rng.usize(1..=rest.len().min(3000)));
        end.send(piece).await;
        rest = later;
    }
}

/// Sends both ways at once and compares what arrives.
async fn exchange(central: &mut End, peripheral: &mut End, count: usize, seed: u64) {
    let (up, down) = (pattern(seed, count), pattern(!seed, count));
    let (from_central, from_peripheral) =
        (Arc::clone(&central.connection), Arc::clone(&peripheral.connection));
    let sender = |connection: Arc<LinkConnection>, bytes: Vec<u8>| async move {
        let (_handle, inbound) = ReplicatorConnection::detached(1);
        send_in_pieces(&End { connection, inbound }, &bytes, seed).await;
    };
    let (_, _, at_peripheral, at_central) = tokio::join!(
        sender(from_central, up.clone()),
        sender(from_peripheral, down.clone()),
        peripheral.receive(count),
        central.receive(count),
    );
    assert!(at_peripheral == up, "central to peripheral, seed {seed}");
    assert!(at_central == down, "peripheral to central, seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn bytes_flow_both_ways_and_an_orderly_close_delivers_all() {
    let setting = setting(1, HostConfig::default(), |_| ());
    let (mut central, mut peripheral) = setting.pair().await;
    exchange(&mut central, &mut peripheral, 300_000, 1).await;
    let last = pattern(9, 50_000);
    central.send(&last).await;
    let began = Instant::now();
    let (closed, (bytes, error)) = tokio::join!(central.connection.close(None), peripheral.end());
    closed.expect("close");
    assert!(bytes == last && error.is_none(), "{error:?}");
    peripheral.connection.close(None).await.expect("close");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setting.acceptor.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_resumed_where_it_was() {
    let setting = setting(2, HostConfig::default(), |_| ());
    let (mut central, mut peripheral) = setting.pair().await;
    let bytes = pattern(2, 400_000);
    let (sending, mut receiving) = (central.connection.clone(), Vec::new());
    let send = tokio::spawn({
        let bytes = bytes.clone();
        async move { sending.send(Message::from_bytes(bytes)).await }
    });
    for _ in 0..3 {
        receiving.extend(peripheral.receive(90_000).await);
        setting.cut();
    }
    receiving.extend(peripheral.receive(bytes.len() - receiving.len()).await);
    send.await.expect("join").expect("send");
    assert!(receiving == bytes);
    let (at_central, at_peripheral) = (central.connection.stats(), peripheral.connection.stats());
    assert_eq!((at_central.link.resumes, at_peripheral.link.resumes), (3, 3));
    assert_eq!(at_central.channels, 4);
    let resent = at_central.link.bytes_retransmitted;
    let window = 3 * 128 * 244;
    assert!(resent <= window, "{resent} bytes sent twice, a window at each cut is {window}");
    exchange(&mut central, &mut peripheral, 1_000, 3).await;
}

#[tokio::test(start_paused = true)]
async fn leaving_the_range_and_coming_back_resumes_too() {
    let setting = setting(3, HostConfig::default(), |_| ());
    let (mut central, mut peripheral) = setting.pair().await;
    exchange(&mut central, &mut peripheral, 10_000, 1).await;
    setting.set_path(OUT_OF_RANGE);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(central.connection.stats().state, crate::link::LinkState::Suspended);
    setting.set_path(Path::default());
    exchange(&mut central, &mut peripheral, 10_000, 2).await;
    assert_eq!(peripheral.connection.stats().link.resumes, 1);
}

#[tokio::test(start_paused = true)]
async fn who_stays_away_too_long_ends_the_session_at_both_ends() {
    let setting = setting(4, HostConfig::default(), |_| ());
    let (mut central, mut peripheral) = setting.pair().await;
    exchange(&mut central, &mut peripheral, 1_000, 1).await;
    setting.set_path(OUT_OF_RANGE);
    let began = Instant::now();
    let ((_, at_central), (_, at_peripheral)) = tokio::join!(central.end(), peripheral.end());
    let limit = setting.config.link.session_timeout + Duration::from_secs(10);
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
    for error in [at_central.expect("an error"), at_peripheral.expect("an error")] {
        assert!(error.is_recoverable(), "{error}");
    }
    let refused = central.connection.send(Message::from_bytes(vec![1])).await;
    assert!(refused.expect_err("over").is_recoverable());
    central.connection.close(None).await.expect("close");
    assert_eq!(setting.acceptor.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_library_that_takes_nothing_stops_the_peer_and_no_packet_is_dropped() {
    let setting = setting(5, HostConfig::default(), |_| ());
    let (central, mut peripheral) = setting.pair().await;
    let bytes = pattern(5, 500_000);
    let sending = tokio::spawn({
        let (connection, bytes) = (central.connection.clone(), bytes.clone());
        async move { connection.send(Message::from_bytes(bytes)).await }
    });
    sleep(Duration::from_secs(60)).await;
    assert!(!sending.is_finished());
    let stats = central.connection.stats();
    assert!(stats.link.bytes_sent < 200_000, "{} bytes went into buffers", stats.link.bytes_sent);
    assert_eq!(stats.link.resumes, 0, "a stalled reader is no dead peer");
    assert!(peripheral.receive(bytes.len()).await == bytes);
    sending.await.expect("join").expect("send");
    assert_eq!(setting.radio.counters().packets().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn hosts_with_small_buffers_lose_packets_but_no_bytes() {
    let host =
        HostConfig { receive_queue_packets: 4, latency: Duration::from_millis(12), ..HostConfig::default() };
    let setting = setting(6, host, |_| ());
    let (mut central, mut peripheral) = setting.pair().await;
    exchange(&mut central, &mut peripheral, 100_000, 6).await;
    assert!(setting.radio.counters().packets().dropped > 0);
}

#[tokio::test(start_paused = true)]
async fn close_ends_an_open_that_waits() {
    let setting = setting(7, HostConfig::default(), |_| ());
    setting.set_path(OUT_OF_RANGE);
    let connection = setting.new_central();
    let (handle, _inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    let opening = tokio::spawn({
        let connection = connection.clone();
        async move { connection.open(handle).await }
    });
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    connection.close(None).await.expect("close");
    let error =
        timeout(Duration::from_secs(1), opening).await.expect("returns").expect("join").expect_err("closed");
    assert!(error.is_recoverable() && began.elapsed() < Duration::from_secs(1), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_not_there_is_a_recoverable_error() {
    let setting = setting(8, HostConfig::default(), |_| ());
    setting.set_path(OUT_OF_RANGE);
    let (handle, _inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    let error = setting.new_central().open(handle).await.expect_err("nobody there");
    assert!(error.is_recoverable(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn close_with_an_error_tells_the_peer_at_once() {
    let setting = setting(9, HostConfig::default(), |_| ());
    for (error, recoverable) in
        [(MessagingError::recoverable("busy"), true), (MessagingError::permanent("no"), false)]
    {
        let (central, mut peripheral) = setting.pair().await;
        let began = Instant::now();
        central.connection.close(Some(error)).await.expect("close");
        assert!(began.elapsed() <= Duration::from_millis(600), "{:?}", began.elapsed());
        let (_, received) = peripheral.end().await;
        assert_eq!(received.expect("an error").is_recoverable(), recoverable);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_either_end_equals_closing_it() {
    let setting = setting(10, HostConfig::default(), |_| ());
    let (central, mut peripheral) = setting.pair().await;
    central.send(b"last words").await;
    drop(central);
    let (bytes, error) = timeout(Duration::from_secs(5), peripheral.end()).await.expect("noticed");
    assert!(bytes == b"last words" && error.is_none(), "{error:?}");
    drop(peripheral);
    let (mut central, peripheral) = setting.pair().await;
    drop(peripheral);
    let (_, error) = timeout(Duration::from_secs(5), central.end()).await.expect("noticed");
    assert!(error.is_none(), "{error:?}");
    sleep(Duration::from_secs(15)).await;
    assert_eq!(setting.acceptor.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_says_nothing_or_nonsense_is_dropped_and_disturbs_nobody() {
    let setting = setting(11, HostConfig::default(), |config| config.handshakes_max = 2);
    let (mut central, mut peripheral) = setting.pair().await;
    let mut buffer = [0; 512];
    let mut strangers = Vec::new();
    for first in [None, Some(&b"GET / HTTP/1.1\r\n"[..]), Some(&[0xff; 100][..]), None, None] {
        let mut channel = setting.connector.connect().await.expect("connect");
        if let Some(first) = first {
            channel.send(first).await.expect("send");
        }
        strangers.push(channel);
    }
    exchange(&mut central, &mut peripheral, 50_000, 11).await;
    for mut stranger in strangers {
        let limit = setting.config.link.handshake_timeout + Duration::from_secs(5);
        let ended =
            timeout(limit, async { while stranger.recv(&mut buffer).await.is_ok_and(|n| n > 0) {} }).await;
        assert!(ended.is_ok(), "still connected");
    }
    assert_eq!(setting.acceptor.sessions(), 1);
    let AcceptorRefusals { handshakes, silent, strangers, sessions } = setting.acceptor.refusals();
    assert_eq!((handshakes + silent + strangers, sessions), (5, 0));
    assert!(handshakes >= 1, "two at a time");
}

/// A channel on which a HELLO was said, and nothing after it.
async fn half_open(setting: &Setting, seed: u64) -> PacketChannel {
    let mut channel = setting.connector.connect().await.expect("connect");
    let mut link = Box::new(DeviceLink::new(LinkRole::Central, setting.config.link, seed));
    let now = setting.config.clock.now();
    link.connected(now, channel.size);
    let mut packet = [0; 512];
    let length = link.poll_packet(now, &mut packet).expect("a HELLO");
    channel.send(&packet[..length]).await.expect("send");
    channel
}

#[tokio::test(start_paused = true)]
async fn half_open_handshakes_give_way_in_time() {
    let setting = setting(21, HostConfig::default(), |config| config.handshakes_max = 2);
    let _half_open = [half_open(&setting, 1).await, half_open(&setting, 2).await];
    sleep(Duration::from_secs(1)).await;
    let (handle, _inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    let error = setting.new_central().open(handle).await.expect_err("two are in a handshake");
    assert!(error.is_recoverable(), "{error}");
    assert!(setting.acceptor.refusals().handshakes >= 1);
    sleep(setting.config.link.handshake_timeout + Duration::from_secs(2)).await;
    let (mut central, mut peripheral) = setting.pair().await;
    exchange(&mut central, &mut peripheral, 1_000, 21).await;
}

#[tokio::test(start_paused = true)]
async fn half_open_sessions_give_way_before_lost_ones() {
    let setting = setting(22, HostConfig::default(), |config| config.sessions_max = 2);
    let (mut central, mut peripheral) = setting.pair().await;
    setting.set_path(OUT_OF_RANGE);
    setting.cut();
    sleep(Duration::from_secs(1)).await;
    setting.set_path(Path::default());
    // Each stranger takes the place of the one before, not that of the session that was lost.
    for seed in 0..3 {
        half_open(&setting, seed).await;
        sleep(setting.config.link.handshake_timeout + Duration::from_secs(2)).await;
    }
    exchange(&mut central, &mut peripheral, 1_000, 22).await;
}

/// What a host hands over before the central's first packet, as BlueZ does, costs a repetition and no more.
#[tokio::test(start_paused = true)]
async fn packets_before_the_first_one_are_passed_over() {
    struct Spoilt(Arc<SimConnector>);
    #[async_trait::async_trait]
    impl Connector for Spoilt {
        async fn connect(&self) -> std::io::Result<PacketChannel> {
            let mut channel = self.0.connect().await?;
            for first in [0x00, 0x41, b'G'] {
                channel.send(&[first; 30]).await?;
            }
            Ok(channel)
        }
    }
    let setting = setting(13, HostConfig::default(), |_| {});
    let central = LinkConnection::central(Arc::new(Spoilt(Arc::clone(&setting.connector))), setting.config);
    let mut central = open(central).await;
    let mut peripheral = open(setting.acceptor.next().await.expect("a session")).await;
    exchange(&mut central, &mut peripheral, 20_000, 13).await;
    setting.cut();
    exchange(&mut central, &mut peripheral, 20_000, 14).await;
    assert_eq!(central.connection.stats().link.resumes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_several_threads_ten_times_as_fast_as_the_radio() {
    let setting = setting_on(13, Clock::scaled(10.0), HostConfig::default(), |_| ());
    let (mut central, mut peripheral) = setting.pair().await;
    exchange(&mut central, &mut peripheral, 300_000, 13).await;
    setting.cut();
    exchange(&mut central, &mut peripheral, 100_000, 14).await;
    let (closed, (rest, error)) = tokio::join!(central.connection.close(None), peripheral.end());
    closed.expect("close");
    assert!(rest.is_empty() && error.is_none(), "{error:?}");
}
