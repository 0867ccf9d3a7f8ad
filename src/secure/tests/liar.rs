//! A passive side that has the group's key and keeps to nothing after its handshake.

use super::super::handshake::{Accepting, Agreed, Dice, HEAD_BYTES};
use super::super::offer::Said;
use super::super::record::Records;
use super::*;

/// The honest active side, and the keys of the session with it in the hands of the liar.
pub(super) struct Liar {
    pub peer: SecureSession,
    pub records: Records,
    pub out: BytesMut,
}

impl Liar {
    /// After PROVE; the liar has not said *admitted*.
    pub fn new() -> Liar {
        let fresh = [5; 32];
        let a = SecureConfig { fresh: Some(fresh), ..config(1, Fixed::group(9)) };
        let b = config(2, Fixed::group(9));
        let mut peer = active(&a);
        let offer = peer.take_output();
        let keyring = Keyring::new(&b.identity, &*b.policy);
        let mut out = BytesMut::new();
        let body = &offer[HEAD_BYTES..];
        let Ok(Said::Offers(offers)) = Said::read(body) else { panic!("an OFFER") };
        let dice = Dice::new([102; 32]);
        let accepting =
            Accepting::start(&b.identity, &keyring, None, (body, &offers), &fresh, dice, &mut out);
        peer.handle_bytes(&out.split()).expect("ACCEPT");
        let prove = peer.take_output();
        let agreed = accepting.expect("a member").prove(&prove[HEAD_BYTES..]).expect("PROVE");
        let Agreed { noise, resume_key, .. } = agreed;
        Liar { peer, records: Records::new(noise, resume_key, RekeyLimits::default()), out }
    }

    /// After *admitted*.
    pub fn admitted() -> Liar {
        let mut liar = Liar::new();
        liar.records.seal_admitted(&mut liar.out).expect("seal");
        let bytes = liar.out.split();
        liar.peer.handle_bytes(&bytes).expect("admitted");
        liar
    }
}
