//! Raw packets over BlueZ, without any protocol: what the radio and BlueZ carry at most, and a look at the channels themselves.
//!
//! `ble_packets serve hci0` on one side, `ble_packets connect hci1 any [COUNT] [SIZE] [--plug]` on the other; or both at once with
//! `ble_packets both hci0 hci1 [COUNT] [SIZE] [--plug]`. Prints packets lost and out of order, and KiB/s each way.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gattway::link::PACKET_BYTES_MAX;
use gattway::transport::bluez::adapter::Adapter;
use gattway::transport::bluez::central::BluerCentral;
use gattway::transport::bluez::central_btleplug::BtleplugCentral;
use gattway::transport::bluez::l2cap::{L2capCentral, L2capListener, PSM};
use gattway::transport::bluez::peripheral::Peripheral;
use gattway::transport::bluez::profile::{AdvertState, Information, PROFILE_VERSION};
use gattway::transport::bluez::scan::{Search, Wanted};
use gattway::transport::bluez::security::LinkSecurity;
use gattway::transport::packet::{Connector, PacketChannel};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// First byte of a packet: counted by the server.
const COUNT: u8 = b'c';
/// First byte of a packet: the server answers with what it has counted and begins anew.
const REPORT: u8 = b'r';
/// First byte of a packet: the server sends so many packets (u32) of such a size (u16).
const SEND: u8 = b's';
/// How long after the last packet the others count as lost.
const SILENCE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let way = arguments.iter().position(|a| a.starts_with("--")).map_or(Way::Bluer, |at| {
        match &*arguments.remove(at) {
            "--plug" => Way::Btleplug,
            "--l2cap" => Way::L2cap,
            _ => Way::Bluer,
        }
    });
    let text = |i: usize| arguments.get(i).cloned().unwrap_or_default();
    let number = |i: usize, default: usize| arguments.get(i).map_or(Ok(default), |a| a.parse::<usize>());
    match text(0).as_str() {
        "serve" => serve(&text(1)).await,
        "connect" => connect(&text(1), &text(2), number(3, 1000)?, number(4, 495)?, way).await,
        "both" => {
            let adapter = text(1);
            tokio::spawn(async move {
                if let Err(error) = serve(&adapter).await {
                    eprintln!("server: {error}");
                }
            });
            connect(&text(2), "any", number(3, 1000)?, number(4, 495)?, way).await
        }
        _ => Err("usage: ble_packets serve ADAPTER | connect ADAPTER TARGET | both ADAPTER ADAPTER".into()),
    }
}

/// How a central reaches the peripheral.
#[derive(Clone, Copy)]
enum Way {
    Bluer,
    Btleplug,
    L2cap,
}

#[derive(Default)]
struct Counts {
    packets: u32,
    disorder: u32,
    next: u32,
}

impl Counts {
    fn take(&mut self, packet: &[u8]) {
        let number = u32::from_le_bytes([packet[1], packet[2], packet[3], packet[4]]);
        self.packets += 1;
        self.disorder += u32::from(number != self.next);
        self.next = number + 1;
    }
}

fn numbered(number: u32, size: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; size];
    packet[0] = COUNT;
    packet[1..5].copy_from_slice(&number.to_le_bytes());
    packet
}

async fn serve(adapter: &str) -> Result<()> {
    let adapter = Adapter::open(Some(adapter)).await?;
    let listener = L2capListener::bind(&adapter, LinkSecurity::default()).await?;
    let information = Information {
        profile: PROFILE_VERSION,
        packet_size_max: PACKET_BYTES_MAX,
        l2cap_psm: Some(PSM),
        lane: None,
    };
    let state = AdvertState { group: 0, device: 0, change: 0 }.encode();
    let name = Some("packets".to_owned());
    let mut peripheral =
        Peripheral::start(&adapter, information, name, state, LinkSecurity::default()).await?;
    loop {
        let channel = tokio::select! {
            channel = peripheral.accept() => channel.ok_or("the service was taken away")?,
            channel = listener.accept() => match channel? {
                Some(channel) => channel,
                None => continue,
            },
        };
        tokio::spawn(async move {
            let label = channel.label.clone();
            if let Err(error) = answer(channel).await {
                eprintln!("{label}: {error}");
            }
        });
        peripheral.advertise(state).await?;
    }
}

async fn answer(mut channel: PacketChannel) -> Result<()> {
    let mut buffer = [0; 512];
    let mut counts = Counts::default();
    loop {
        let length = channel.recv(&mut buffer).await?;
        match buffer[..length] {
            [] => return Ok(()),
            [COUNT, ..] => counts.take(&buffer[..length]),
            [REPORT, ..] => {
                let mut report = vec![REPORT];
                report.extend(counts.packets.to_le_bytes());
                report.extend(counts.disorder.to_le_bytes());
                channel.send(&report).await?;
                counts = Counts { next: counts.next, ..Counts::default() };
            }
            [SEND, a, b, c, d, low, high, ..] => {
                for number in 0..u32::from_le_bytes([a, b, c, d]) {
                    channel.send(&numbered(number, u16::from_le_bytes([low, high]).into())).await?;
                }
            }
            _ => {}
        }
    }
}

async fn connect(adapter: &str, target: &str, count: usize, size: usize, way: Way) -> Result<()> {
    let adapter = Adapter::open(Some(adapter)).await?;
    let search = Search::open(Wanted::parse(target));
    let connector: Arc<dyn Connector> = match way {
        Way::Bluer => BluerCentral::new(adapter, search),
        Way::Btleplug => BtleplugCentral::new(adapter.name(), search),
        Way::L2cap => L2capCentral::new(adapter, search),
    };
    let start = Instant::now();
    let mut channel = connector.connect().await?;
    let size = size.min(channel.size.bytes());
    println!("{}: connected in {:.2} s, packets of {size}", channel.label, start.elapsed().as_secs_f64());
    up(&mut channel, count, size).await?;
    down(&mut channel, count, size).await
}

fn rate(packets: u32, size: usize, time: Duration) -> f64 {
    f64::from(packets) * size as f64 / 1024.0 / time.as_secs_f64()
}

async fn up(channel: &mut PacketChannel, count: usize, size: usize) -> Result<()> {
    let start = Instant::now();
    for number in 0..count as u32 {
        channel.send(&numbered(number, size)).await?;
    }
    let (mut buffer, mut packets, mut disorder) = ([0; 512], 0, 0);
    let mut end = start.elapsed();
    // the report can overtake packets, so ask until all are there or nothing more comes
    while packets < count as u32 {
        channel.send(&[REPORT]).await?;
        let length = tokio::time::timeout(Duration::from_secs(60), channel.recv(&mut buffer)).await??;
        let [_, a, b, c, d, e, f, g, h] = buffer[..length] else { return Err("no report".into()) };
        let more = u32::from_le_bytes([a, b, c, d]);
        if more == 0 && start.elapsed() > end + SILENCE {
            break;
        }
        if more > 0 {
            end = start.elapsed();
        }
        packets += more;
        disorder += u32::from_le_bytes([e, f, g, h]);
    }
    println!("up: {packets} of {count}, {disorder} out of order, {:.1} KiB/s", rate(packets, size, end));
    Ok(())
}

async fn down(channel: &mut PacketChannel, count: usize, size: usize) -> Result<()> {
    let mut request = vec![SEND];
    request.extend((count as u32).to_le_bytes());
    request.extend((size as u16).to_le_bytes());
    let (mut buffer, mut counts) = ([0; 512], Counts::default());
    let start = Instant::now();
    channel.send(&request).await?;
    let mut end = start.elapsed();
    while counts.packets < count as u32 {
        match tokio::time::timeout(SILENCE, channel.recv(&mut buffer)).await {
            Ok(Ok(length)) if length >= 5 => counts.take(&buffer[..length]),
            _ => break,
        }
        end = start.elapsed();
    }
    let Counts { packets, disorder, .. } = counts;
    println!("down: {packets} of {count}, {disorder} out of order, {:.1} KiB/s", rate(packets, size, end));
    Ok(())
}
