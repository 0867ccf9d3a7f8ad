//! Somebody who is near and does not belong to the nodes: connects and sends what may do harm.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use gattway::lab::link::AttMtu;
use gattway::lab::transport::packet::{Connector, PacketChannel};
use gattway::lab::transport::sim::{SimDevice, SimLink};
use tokio::time::{sleep, timeout};

use super::plan::FaultKind;
use super::world::World;

/// How long an attack may take in all.
const ATTACK_TIME_MAX: Duration = Duration::from_secs(30);

/// Connections of one flood.
const FLOOD_CONNECTIONS: usize = 12;

/// Kinds of attack.
const ATTACKS: u32 = 6;

/// Starts an attack on `victim`; it goes on by itself and ends.
pub fn attack(world: &Arc<World>, stranger: &SimDevice, victim: &SimDevice, mut rng: Rng) {
    world.fault(FaultKind::Stranger);
    let connector = stranger.connector(victim, SimLink::new(AttMtu::new(247)));
    let kind = rng.u32(0..ATTACKS);
    world.trace.note(format!("a stranger begins attack {kind}"));
    let overheard = world.overheard();
    tokio::spawn(async move {
        let _ = timeout(ATTACK_TIME_MAX, run(kind, connector, overheard, rng)).await;
    });
}

async fn run(kind: u32, connector: Arc<dyn Connector>, overheard: Vec<Vec<u8>>, mut rng: Rng) {
    match kind {
        // Connections that say nothing.
        0 => {
            let mut channels = Vec::new();
            for _ in 0..FLOOD_CONNECTIONS {
                channels.extend(connector.connect().await.ok());
            }
            sleep(Duration::from_secs(rng.u64(1..20))).await;
        }
        // Garbage.
        1 => {
            let Ok(mut channel) = connector.connect().await else { return };
            for _ in 0..rng.usize(1..100) {
                let mut packet = vec![0; rng.usize(1..=244)];
                rng.fill(&mut packet);
                if channel.send(&packet).await.is_err() {
                    return;
                }
            }
            answer_nothing(channel).await;
        }
        // A handshake that was overheard: once more, whole.
        2 => {
            let Ok(mut channel) = connector.connect().await else { return };
            for packet in pick(&overheard, &mut rng, 8) {
                if channel.send(&packet).await.is_err() {
                    return;
                }
            }
            answer_nothing(channel).await;
        }
        // Its beginning, and then nothing.
        3 => {
            let Ok(mut channel) = connector.connect().await else { return };
            for packet in pick(&overheard, &mut rng, 1) {
                let _ = channel.send(&packet).await;
            }
            sleep(Duration::from_secs(rng.u64(1..25))).await;
        }
        // One that was overheard, with changed bits.
        4 => {
            for mut packet in pick(&overheard, &mut rng, 8) {
                let Ok(mut channel) = connector.connect().await else { return };
                let at = rng.usize(0..packet.len());
                packet[at] ^= 1 << rng.u32(0..8);
                let _ = channel.send(&packet).await;
                sleep(Duration::from_millis(rng.u64(1..500))).await;
            }
        }
        // A session of its own, full of garbage.
        _ => {
            let Ok(mut channel) = connector.connect().await else { return };
            for packet in pick(&overheard, &mut rng, 1) {
                let _ = channel.send(&packet).await;
            }
            sleep(Duration::from_millis(200)).await;
            for number in 0..rng.u16(1..200) {
                let mut packet = vec![0; rng.usize(20..=244)];
                rng.fill(&mut packet);
                // A short data packet with the right number.
                packet[..3].copy_from_slice(&[0x80, (number >> 3) as u8, (number << 5) as u8]);
                if channel.send(&packet).await.is_err() {
                    return;
                }
            }
            answer_nothing(channel).await;
        }
    }
}

/// Stays until the victim has had enough.
async fn answer_nothing(mut channel: PacketChannel) {
    let mut packet = [0; 600];
    while let Ok(1..) = channel.recv(&mut packet).await {}
}

fn pick(overheard: &[Vec<u8>], rng: &mut Rng, count: usize) -> Vec<Vec<u8>> {
    let mut picked = Vec::new();
    for _ in 0..count {
        picked.extend(rng.choice(overheard).cloned());
    }
    picked
}
