//! Adverts that only holders of a key can read: the codec between the trust list and what scans and skips neighbours.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::profile::{AdvertBytes, AdvertCodec, AdvertState, PlainAdvert, Sighting};
use crate::secure::Identity;
use crate::secure::advert::{SEALED, Urgency};
use crate::trust::{AdvertResolver, Resolved, Trust};

/// Bit of a change, of 24, that differs where an advert is made for members with a former secret of the group.
const FORMER_CHANGE: u32 = 1 << 23;
/// Bit of a device's tag, beyond its 24, where the advert was under a former secret.
const FORMER_DEVICE: u32 = 1 << 31;

/// Reads no state: finds the devices that wait to be paired.
#[derive(Clone, Copy, Debug)]
pub struct PairingAdvert;

impl AdvertCodec for PairingAdvert {
    fn write(&self, _: u32, _: Urgency) -> AdvertBytes {
        AdvertState::PAIRING.encode()
    }

    fn read(&self, _: &AdvertBytes) -> Option<Sighting> {
        None
    }

    fn may_be_ours(&self, state: &AdvertBytes) -> bool {
        *state == AdvertState::PAIRING.encode()
    }
}

/// Seals this device's state, and opens that of peers. Follows the group and the trust list as they change.
pub struct SealedAdvert {
    trust: Arc<Trust>,
    identity: Arc<Identity>,
    /// Whether peers are wanted that nothing is known of.
    strangers: bool,
    nonce: AtomicU16,
    /// What was made of the keys, and of which state of them.
    resolver: Mutex<Option<(u64, AdvertResolver)>>,
}

impl SealedAdvert {
    /// Counts nonces from `nonce` on: a random one, so that a restart does not begin with what was seen before.
    /// `strangers`: peers are met of whom nothing is known, so the own state is told to everybody.
    pub fn new(trust: Arc<Trust>, identity: Arc<Identity>, strangers: bool, nonce: u16) -> SealedAdvert {
        SealedAdvert { trust, identity, strangers, nonce: AtomicU16::new(nonce), resolver: Mutex::new(None) }
    }

    fn resolve(&self, state: &AdvertBytes) -> Option<Resolved> {
        let version = self.trust.version();
        let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        match &*resolver {
            Some((known, resolver)) if *known == version => resolver.resolve(state),
            _ => resolver.insert((version, self.trust.advert_resolver())).1.resolve(state),
        }
    }
}

impl AdvertCodec for SealedAdvert {
    fn write(&self, change: u32, urgency: Urgency) -> AdvertBytes {
        if self.strangers {
            // Who lets strangers in wants to be found by them.
            let id = self.identity.id().0;
            let device = u32::from_le_bytes([id[0], id[1], id[2], id[3]]);
            return PlainAdvert { group: 0, device }.write(change, urgency);
        }
        let nonce = self.nonce.fetch_add(1, Ordering::Relaxed);
        let (key, is_former) = self.trust.advert_key(&self.identity, usize::from(nonce));
        // Who has the former secret alone has nothing to fetch that it knows of, and is to come all the same.
        let change = if is_former { change ^ FORMER_CHANGE } else { change };
        key.seal(&self.identity.id(), change, urgency, nonce)
    }

    fn read(&self, state: &AdvertBytes) -> Option<Sighting> {
        if let Some(Resolved { opened, is_behind, .. }) = self.resolve(state) {
            // Another device than the one that was synced with before its secret was a former one.
            let device = if is_behind { opened.device.0 | FORMER_DEVICE } else { opened.device.0 };
            return Some(Sighting { device, change: opened.change, urgency: opened.urgency });
        }
        let told =
            AdvertState::decode(state).filter(|told| self.strangers && *told != AdvertState::PAIRING)?;
        Some(Sighting { device: told.device, change: told.change, urgency: told.urgency })
    }

    fn may_be_ours(&self, state: &AdvertBytes) -> bool {
        // A device that was entered by hand has given no key to open its adverts by.
        self.strangers
            || self.resolve(state).is_some()
            || (state[0] == SEALED && self.trust.knows_without_key())
    }

    fn takes_turns(&self) -> bool {
        self.trust.is_handing_over()
    }

    fn name(&self, state: &AdvertBytes) -> Option<String> {
        let peer = self.resolve(state)?.peer?;
        Some(self.trust.list().get(&peer)?.name.clone().unwrap_or_else(|| peer.short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::group::GroupSecret;
    use crate::trust::group::Group;
    use crate::trust::list::{Origin, TrustList};

    #[test]
    fn members_read_each_other_and_strangers_nothing() {
        let group = Group::new(None, GroupSecret::from_bytes([9; 16])).expect("group");
        let device = |n: u8, member: bool, strangers: bool| {
            let dir = tempfile::tempdir().expect("temporary directory");
            if member {
                group.store(dir.path()).expect("store");
            }
            let trust = Arc::new(Trust::open(dir.path()).expect("open"));
            (SealedAdvert::new(trust, Arc::new(Identity::from_private([n; 32])), strangers, u16::MAX), dir)
        };
        let ((a, _a), (b, dir)) = (device(1, true, false), device(2, true, false));
        let ((stranger, _c), (open, _d)) = (device(3, false, false), device(4, false, true));
        let (one, two) = (a.write(7, Urgency::Urgent), a.write(7, Urgency::Urgent));
        assert_ne!(one, two, "no two adverts are alike");
        let seen = b.read(&one).expect("a member");
        assert_eq!((seen.change, seen.urgency, Some(seen)), (7, Urgency::Urgent, b.read(&two)));
        assert_eq!(stranger.read(&one), None);
        assert_eq!(
            (b.read(&open.write(7, Urgency::None)), stranger.read(&open.write(7, Urgency::None))),
            (None, None)
        );
        assert_eq!(
            device(5, false, true).0.read(&open.write(7, Urgency::None)).map(|said| said.change),
            Some(7)
        );
        assert!(
            b.may_be_ours(&one)
                && !stranger.may_be_ours(&one)
                && !b.may_be_ours(&stranger.write(7, Urgency::None))
        );
        assert_eq!(b.name(&one), None, "never met");
        let id = Identity::from_private([1; 32]).id();
        TrustList::update(dir.path(), |list| {
            list.enter(id, Origin::Group)?;
            list.rename(&id, "pump-house")
        })
        .expect("update");
        b.trust.look();
        assert_eq!(b.name(&one).as_deref(), Some("pump-house"));
    }
}
