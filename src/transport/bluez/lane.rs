//! Lanes: a pair of characteristics for each central.
//!
//! BlueZ has one socket for each characteristic: what several centrals write to it arrives mixed, and what is notified goes to all
//! who have subscribed (`src/gatt-database.c`: `write_io`, `notify_io`, `send_notification_to_devices`). So the information
//! characteristic gives each central that reads it a lane of its own, and each lane has its task here.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bluer::gatt::local::{CharacteristicControl, CharacteristicControlEvent, ReqError};
use bluer::gatt::{CharacteristicReader, CharacteristicWriter};
use bluer::{Address, AddressType, Device};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::adapter::Adapter;
use super::inbox::{Inbox, inbox};
use super::packets::{CharacteristicSource, SharedSink, att_mtu, packet_size};
use super::profile::LANES;
use super::security::LinkSecurity;
use crate::transport::packet::PacketChannel;

/// How long a lane is kept for a central that has read the information and not subscribed yet.
const RESERVATION: Duration = Duration::from_secs(10);

enum Place {
    Reserved { until: Instant },
    Taken,
}

/// Which central has which lane.
#[derive(Default)]
pub(super) struct Lanes {
    places: Mutex<HashMap<u8, (Address, Place)>>,
}

impl Lanes {
    /// No change under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, HashMap<u8, (Address, Place)>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane for a central that asks: the one it has, or a free one.
    pub(super) fn reserve(&self, central: Address) -> Option<u8> {
        let now = Instant::now();
        let mut places = self.lock();
        places.retain(|_, (_, place)| !matches!(place, Place::Reserved { until } if *until <= now));
        let own = places.iter().find(|(_, (owner, _))| *owner == central).map(|(lane, _)| *lane);
        let lane = own.or_else(|| (0..LANES).find(|lane| !places.contains_key(lane)))?;
        places.entry(lane).or_insert_with(|| (central, Place::Reserved { until: now + RESERVATION }));
        Some(lane)
    }

    /// A central has subscribed. False: another one has the lane.
    fn take(&self, lane: u8, central: Address) -> bool {
        let mut places = self.lock();
        let owned_by_another = places.get(&lane).is_some_and(|(owner, _)| *owner != central);
        if !owned_by_another {
            places.insert(lane, (central, Place::Taken));
        }
        !owned_by_another
    }

    fn free(&self, lane: u8) {
        self.lock().remove(&lane);
    }
}

type Control = Pin<Box<CharacteristicControl>>;

/// Serves one lane, one central after the other, until BlueZ takes the service away or nobody wants channels any more.
pub(super) struct LaneTask {
    pub(super) lane: u8,
    pub(super) adapter: Adapter,
    pub(super) security: LinkSecurity,
    pub(super) lanes: Arc<Lanes>,
    pub(super) channels: mpsc::Sender<PacketChannel>,
}

/// The central that has the lane now.
struct Subscriber {
    address: Address,
    writer: Arc<CharacteristicWriter>,
    inbox: Inbox,
}

impl LaneTask {
    pub(super) async fn run(self, mut writes: Control, mut notifies: Control) {
        // A write can overtake the subscription, as they come over two streams: its socket is kept until then.
        let mut early: Vec<CharacteristicReader> = Vec::new();
        loop {
            let writer = tokio::select! {
                event = notifies.next() => match event {
                    Some(CharacteristicControlEvent::Notify(writer)) => writer,
                    Some(CharacteristicControlEvent::Write(_)) => continue,
                    None => return,
                },
                event = writes.next() => match event {
                    Some(CharacteristicControlEvent::Write(request)) => {
                        early.extend(request.accept().ok());
                        continue;
                    }
                    Some(CharacteristicControlEvent::Notify(_)) => continue,
                    None => return,
                },
                () = self.channels.closed() => return,
            };
            let Some(mut subscriber) = self.open_channel(writer).await else { continue };
            for reader in early.drain(..).filter(|reader| reader.device_address() == subscriber.address) {
                subscriber.inbox.add(CharacteristicSource(reader));
            }
            let end = serve(&mut subscriber, &mut writes, &mut notifies).await;
            self.lanes.free(self.lane);
            info!(peer = %subscriber.address, lane = self.lane, "central has gone");
            if end == End::Service {
                return;
            }
        }
    }

    /// A central has subscribed: makes its channel.
    async fn open_channel(&self, writer: CharacteristicWriter) -> Option<Subscriber> {
        let address = writer.device_address();
        if !self.lanes.take(self.lane, address) {
            warn!(peer = %address, lane = self.lane, "a central subscribed to the lane of another: refused");
            return None; // dropping the writer ends the subscription
        }
        if !self.security.admits(self.adapter.bluer(), address).await {
            self.lanes.free(self.lane);
            return None;
        }
        let device = self.adapter.bluer().device(address).ok()?;
        let random = matches!(device.address_type().await, Ok(AddressType::LeRandom));
        let writer = Arc::new(writer);
        let size = packet_size(writer.mtu());
        let att_mtu = att_mtu(writer.mtu());
        let (radio, adapter) = (self.adapter.radio(), self.adapter.name());
        let announced = radio.announce(adapter, address, random, "gatt", Some(att_mtu), size.bytes());
        let guard = Disconnect { adapter: self.adapter.clone(), device };
        let (inbox, source) = inbox(Box::new((guard, announced)));
        let channel = PacketChannel {
            sink: Box::new(SharedSink::new(Arc::clone(&writer))),
            source: Box::new(source),
            size,
            label: format!("gatt {address} lane {}", self.lane),
        };
        if self.channels.try_send(channel).is_err() {
            warn!(peer = %address, "too many centrals at once, turned away");
            self.lanes.free(self.lane);
            return None;
        }
        info!(peer = %address, lane = self.lane, att_mtu, packet = size.bytes(), "central connected");
        Some(Subscriber { address, writer, inbox })
    }
}

#[derive(PartialEq, Eq)]
enum End {
    /// Of this central: it has unsubscribed, is lost, or its channel was dropped.
    Subscriber,
    /// BlueZ has taken the service away.
    Service,
}

async fn serve(subscriber: &mut Subscriber, writes: &mut Control, notifies: &mut Control) -> End {
    loop {
        tokio::select! {
            event = writes.next() => match event {
                Some(CharacteristicControlEvent::Write(request)) if request.device_address() == subscriber.address => {
                    // BlueZ asks once for each packet that arrives before its first answer, and uses all these sockets
                    if let Ok(reader) = request.accept() {
                        subscriber.inbox.add(CharacteristicSource(reader));
                    }
                }
                Some(CharacteristicControlEvent::Write(request)) => request.reject(ReqError::NotAuthorized),
                Some(CharacteristicControlEvent::Notify(_)) => {}
                None => return End::Service,
            },
            event = notifies.next() => match event {
                Some(_) => return End::Subscriber, // subscribed again: the old channel is dead
                None => return End::Service,
            },
            // BlueZ closes its end when the central has unsubscribed or is lost
            _ = subscriber.writer.closed() => return End::Subscriber,
            () = subscriber.inbox.unwanted() => return End::Subscriber,
        }
    }
}

/// Ends the radio connection of a central when its channel is dropped: slots are few.
struct Disconnect {
    adapter: Adapter,
    device: Device,
}

impl Drop for Disconnect {
    fn drop(&mut self) {
        self.adapter.disconnect(self.device.clone(), ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn central(last: u8) -> Address {
        Address::new([0, 0, 0, 0, 0, last])
    }

    #[tokio::test(start_paused = true)]
    async fn each_central_has_a_lane_of_its_own_while_it_is_there() {
        let lanes = Lanes::default();
        let given: Vec<_> = (0..LANES).map(|i| lanes.reserve(central(i))).collect();
        assert_eq!(given, (0..LANES).map(Some).collect::<Vec<_>>());
        assert_eq!(lanes.reserve(central(1)), Some(1), "asking again changes nothing");
        assert_eq!(lanes.reserve(central(99)), None);
        assert!(lanes.take(0, central(0)));
        assert!(!lanes.take(0, central(1)), "it belongs to another");
        tokio::time::advance(RESERVATION).await;
        assert!(
            lanes.reserve(central(99)).is_some_and(|lane| lane != 0),
            "only the taken lane is still taken"
        );
        lanes.free(0);
        assert_eq!(lanes.reserve(central(98)), Some(0));
    }
}
