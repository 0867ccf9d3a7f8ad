//! The modelled connection as its users see it, in virtual time.

use std::time::Duration;

use super::radio::{ConnectionParameters, Path, Side};
use super::*;
use crate::link::AttMtu;
use crate::transport::clock::Clock;
use crate::transport::packet::{Connector, PacketChannel};

struct Setting {
    radio: SimRadio,
    central: SimDevice,
    peripheral: SimDevice,
    connector: std::sync::Arc<SimConnector>,
    listener: SimListener,
}

fn setting(seed: u64, host: HostConfig) -> Setting {
    let radio = SimRadio::new(seed, Clock::new());
    let central = radio.add_device("gateway", host);
    let peripheral = radio.add_device("sensor", host);
    let listener = peripheral.listen();
    let connector = central.connector(&peripheral, SimLink::new(AttMtu::new(247)));
    Setting { radio, central, peripheral, connector, listener }
}

impl Setting {
    async fn connect(&mut self) -> (PacketChannel, PacketChannel) {
        let central = self.connector.connect().await.expect("connect");
        (central, self.listener.accept().await.expect("accept"))
    }
}

fn packet(n: u32) -> Vec<u8> {
    (0..244u32).map(|i| (n.wrapping_mul(31) + i) as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn packets_arrive_whole_in_order_at_the_speed_of_the_radio() {
    let mut setting = setting(1, HostConfig::default());
    let (mut central, mut peripheral) = setting.connect().await;
    let started = tokio::time::Instant::now();
    let count = 2_000u32;
    let send = async {
        for n in 0..count {
            central.send(&packet(n)).await.expect("send");
        }
    };
    let receive = async {
        let mut buffer = [0; 512];
        for n in 0..count {
            let length = peripheral.recv(&mut buffer).await.expect("receive");
            assert_eq!(buffer[..length], packet(n));
        }
    };
    tokio::join!(send, receive);
    let rate = f64::from(count) * 244.0 / started.elapsed().as_secs_f64();
    let link = SimLink::new(AttMtu::new(247));
    let ceiling = link.ceiling(Path::default(), Side::Central).expect("ceiling");
    assert!((0.95..=1.01).contains(&(rate / ceiling)), "{rate} of {ceiling} bytes/s");
    let counters = setting.radio.counters();
    assert_eq!(counters.to_peripheral.delivered, u64::from(count));
    assert_eq!(counters.on_air().retransmissions, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_loses_what_its_host_cannot_hold() {
    let mut setting = setting(1, HostConfig::default());
    let (mut central, mut peripheral) = setting.connect().await;
    for n in 0..300 {
        central.send(&packet(n)).await.expect("send");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut buffer = [0; 512];
    for n in 0..167 {
        let length = peripheral.recv(&mut buffer).await.expect("receive");
        assert_eq!(buffer[..length], packet(n));
    }
    assert_eq!(setting.radio.counters().to_peripheral.dropped, 300 - 167);
    let more = tokio::time::timeout(Duration::from_secs(1), peripheral.recv(&mut buffer)).await;
    assert!(more.is_err(), "nothing else arrives");
}

#[tokio::test(start_paused = true)]
async fn faults_of_a_host_are_seeded() {
    let run = async |seed| {
        let mut setting = setting(seed, HostConfig { drop: 0.1, reorder: 0.1, ..HostConfig::default() });
        let (mut central, mut peripheral) = setting.connect().await;
        let mut order = Vec::new();
        let mut buffer = [0; 512];
        for n in 0..100u8 {
            central.send(&[n]).await.expect("send");
        }
        while let Ok(length) =
            tokio::time::timeout(Duration::from_millis(500), peripheral.recv(&mut buffer)).await
        {
            assert_eq!(length.expect("receive"), 1);
            order.push(buffer[0]);
        }
        order
    };
    let order = run(5).await;
    assert!((70..100).contains(&order.len()), "{order:?}");
    assert!(!order.is_sorted(), "{order:?}");
    assert_eq!(order, run(5).await);
    assert_ne!(order, run(6).await);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_noticed_at_once_and_leaving_the_range_after_the_supervision_timeout() {
    let mut setting = setting(1, HostConfig::default());
    let (mut central, mut peripheral) = setting.connect().await;
    let mut buffer = [0; 512];
    setting.radio.cut(&setting.central, &setting.peripheral);
    assert_eq!(central.recv(&mut buffer).await.expect("end"), 0);
    assert_eq!(peripheral.recv(&mut buffer).await.expect("end"), 0);
    assert!(central.send(&[1]).await.is_err());

    let (mut central, mut peripheral) = setting.connect().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let unreachable = Path { reachable: false, ..Path::default() };
    setting.radio.set_path(&setting.central, &setting.peripheral, unreachable);
    let left = tokio::time::Instant::now();
    assert_eq!(peripheral.recv(&mut buffer).await.expect("end"), 0);
    let timeout = ConnectionParameters::default().supervision_timeout;
    assert!(
        (timeout..timeout + Duration::from_millis(100)).contains(&left.elapsed()),
        "{:?}",
        left.elapsed()
    );
    assert_eq!(central.recv(&mut buffer).await.expect("end"), 0);
    let error = setting.connector.connect().await.expect_err("out of range");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    setting.radio.set_path(&setting.central, &setting.peripheral, Path::default());
    setting.connector.connect().await.expect("back in range");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_channel_disconnects() {
    let mut setting = setting(1, HostConfig::default());
    let (central, mut peripheral) = setting.connect().await;
    drop(central);
    let mut buffer = [0; 512];
    let ended = tokio::time::timeout(Duration::from_millis(200), peripheral.recv(&mut buffer)).await;
    assert_eq!(ended.expect("soon").expect("end"), 0);
    drop(peripheral);
    assert_eq!(setting.radio.counters().connections, 1);
}
