//! Data that comes before the handshake is done: it proves nothing.

use std::vec::Vec;

use super::handshake::{NOW, SIZE, SmallLink, established, exchange, link, says, says_one};
use crate::link::packet::Packet;
use crate::link::sequence::Sequence;
use crate::link::{LinkConfig, LinkError, LinkRole, LinkState};

/// The first data packet of a session, which needs no secret.
fn data() -> Vec<u8> {
    let mut out = [0; 495];
    let packet =
        Packet::Data { sequence: Sequence::new(0), ack: Sequence::new(0), payload: b"of somebody else" };
    let length = packet.emit(&mut out, SIZE.bytes());
    out[..length].to_vec()
}

/// Whoever heard its name may ask for a session. The proof alone resumes it.
#[test]
fn data_resumes_no_session() {
    let (mut central, mut peripheral) = established();
    for link in [&mut central, &mut peripheral] {
        link.disconnected(NOW);
        link.connected(NOW, SIZE);
    }
    peripheral.handle_packet(NOW, &says_one(&mut central)).expect("HELLO");
    let welcome = says_one(&mut peripheral);
    peripheral.handle_packet(NOW, &data()).expect("it may be the rest of the earlier connection");
    assert_ne!(peripheral.state(), LinkState::Established);
    assert_eq!((peripheral.readable(), says(&mut peripheral).len()), (0, 0));
    central.handle_packet(NOW, &welcome).expect("WELCOME");
    exchange(&mut central, &mut peripheral);
}

/// The CONFIRM of a new session holds nothing, so what comes after it will do.
#[test]
fn a_new_session_does_without_a_confirm_that_is_lost() {
    let (mut central, mut peripheral) = (link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2));
    peripheral.handle_packet(NOW, &says_one(&mut central)).expect("HELLO");
    central.handle_packet(NOW, &says_one(&mut peripheral)).expect("WELCOME");
    assert_eq!(central.write(b"after all"), 9);
    let said = says(&mut central);
    assert_eq!(said.len(), 2, "CONFIRM and data");
    peripheral.handle_packet(NOW, &said[1]).expect("data");
    assert_eq!((peripheral.state(), peripheral.readable()), (LinkState::Established, 9));
}

#[test]
fn who_only_sends_data_is_no_peer() {
    let mut peripheral = link(LinkRole::Peripheral, 2);
    assert!(matches!(peripheral.handle_packet(NOW, &data()), Err(LinkError::NotOurs { .. })));
    // A central may hear the rest of its earlier connection: a window and its repetitions, and no more.
    let mut central: SmallLink = link(LinkRole::Central, 1);
    let taken = (0..1000).take_while(|_| central.handle_packet(NOW, &data()).is_ok()).count();
    assert!((128..1000).contains(&taken), "{taken}");
    assert_eq!(central.readable(), 0);
}

/// A peripheral that answers at once acknowledges CONFIRM by that; one that does not says so after the delay.
#[test]
fn the_confirm_of_a_new_session_is_acknowledged_by_data() {
    for answers in [true, false] {
        let (mut central, mut peripheral) = (link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2));
        let packets = |from: &mut SmallLink, to: &mut SmallLink, now| {
            let mut out = [0; 495];
            let mut first = Vec::new();
            while let Some(length) = from.poll_packet(now, &mut out) {
                first.push(out[0]);
                to.handle_packet(now, &out[..length]).expect("an honest peer");
            }
            first
        };
        packets(&mut central, &mut peripheral, NOW);
        packets(&mut peripheral, &mut central, NOW);
        central.write(b"a question");
        packets(&mut central, &mut peripheral, NOW);
        peripheral.write(if answers { b"an answer" } else { b"" });
        let said = packets(&mut peripheral, &mut central, NOW);
        assert_eq!(said, if answers { [0x80].as_slice() } else { &[] }, "data alone, or nothing yet");
        let later = NOW + LinkConfig::default().ack_delay;
        peripheral.handle_timeout(later);
        let said = packets(&mut peripheral, &mut central, later);
        assert_eq!(said, if answers { [].as_slice() } else { &[0x40] }, "an acknowledgement, if none went");
        assert!(central.is_flushed());
    }
}
