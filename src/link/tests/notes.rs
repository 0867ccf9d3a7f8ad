//! The worked example of `firmware-notes/link.md`: the bytes there are those that two links exchange here.

use core::time::Duration;
use std::string::String;
use std::vec::Vec;

use crate::link::{
    CloseReason, Link, LinkConfig, LinkError, LinkEvent, LinkRole, LinkState, PacketSize, RefuseReason,
    ResumeProver, SuspendCause, busy_refusal,
};
use crate::time::Instant;

const NOTES: &str = include_str!("../../../firmware-notes/link.md");
/// What stands before the bytes of each packet of the example.
const DIRECTIONS: [&str; 2] = ["C>P", "P>C"];

type NotesLink = Link<4096, 4096>;

/// Two links, and what they said.
struct Talk {
    links: [NotesLink; 2],
    now: Instant,
    said: Vec<String>,
}

impl Talk {
    fn new() -> Talk {
        let link = |role, seed| NotesLink::new(role, LinkConfig::default(), seed);
        let links = [link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2)];
        Talk { links, now: Instant::ZERO, said: Vec::new() }
    }

    fn connect(&mut self, bytes: u16) {
        let size = PacketSize::try_new(bytes).expect("a packet size");
        for link in &mut self.links {
            link.disconnected(self.now);
            link.connected(self.now, size);
        }
        self.exchange();
    }

    /// Passes packets until both are silent.
    fn exchange(&mut self) {
        let mut out = [0; 495];
        loop {
            let mut silent = true;
            for (from, direction) in DIRECTIONS.iter().enumerate() {
                while let Some(length) = self.links[from].poll_packet(self.now, &mut out) {
                    silent = false;
                    let bytes: Vec<String> = out[..length].iter().map(|byte| format!("{byte:02x}")).collect();
                    self.said.push(format!("{direction} {}", bytes.join(" ")));
                    self.links[1 - from].handle_packet(self.now, &out[..length]).expect("an honest peer");
                }
            }
            if silent {
                return;
            }
        }
    }

    fn write(&mut self, from: usize, bytes: &[u8]) {
        assert_eq!(self.links[from].write(bytes), bytes.len());
        self.exchange();
    }

    /// Lets time pass until the delayed acknowledgements have gone.
    fn pause(&mut self) {
        self.now = self.now + Duration::from_millis(50);
        self.links.iter_mut().for_each(|link| link.handle_timeout(self.now));
        self.exchange();
    }
}

#[test]
fn the_worked_example_of_the_notes_is_what_links_say() {
    let mut talk = Talk::new();
    talk.connect(244);
    talk.write(0, b"hello");
    talk.write(1, b"world");
    talk.pause();
    talk.connect(20);
    talk.write(0, b"a full packet and more");
    talk.pause();
    talk.links[0].close(talk.now, CloseReason::Finished);
    talk.exchange();
    assert!(talk.links.iter().all(|link| link.state() == LinkState::Closed));

    let is_packet = |line: &&str| DIRECTIONS.iter().any(|direction| line.starts_with(direction));
    let noted: Vec<&str> =
        NOTES.lines().filter(is_packet).map(|line| line.split("  ").next().unwrap_or(line)).collect();
    assert_eq!(
        noted,
        talk.said,
        "the packets in firmware-notes/link.md; the links said:\n{}",
        talk.said.join("\n")
    );
}

#[test]
fn the_acknowledgement_and_the_proof_of_the_notes_hold() {
    use crate::link::packet::{Ack, Answer, Packet};
    use crate::link::sequence::Sequence;

    let bytes = |heading: &str| -> Vec<u8> {
        let line = NOTES.lines().find_map(|line| line.strip_prefix(heading)).expect("a line in the notes");
        let hex = line.split("  ").next().unwrap_or(line);
        hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect()
    };
    let ack = Ack {
        answer: Answer::AtOnce,
        next: Sequence::new(1030),
        credit: 0x0001_2345,
        bitmap: &[0b0000_0110],
    };
    let mut out = [0; 20];
    let length = Packet::Ack(ack).emit(&mut out, 20);
    assert_eq!(bytes("ACK "), out[..length]);

    let token: [u8; 16] = bytes("token ").try_into().expect("16 bytes");
    let prover = ResumeProver::from_token(token);
    let proof: [u8; 16] = bytes("proof ").try_into().expect("16 bytes");
    assert!(prover.verify(&bytes("over "), &proof));
}

#[test]
fn a_busy_peripheral_says_the_bytes_of_the_notes_and_a_central_keeps_its_session() {
    let mut packet = [0; 20];
    let length = busy_refusal(&mut packet).expect("the smallest packet has room");
    let bytes: Vec<String> = packet[..length].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(NOTES.contains(&format!("REFUSE 5, `{}`", bytes.join(" "))));
    assert_eq!(busy_refusal(&mut packet[..4]), None);

    let busy = LinkError::Refused(RefuseReason::Busy);
    let mut central = NotesLink::new(LinkRole::Central, LinkConfig::default(), 1);
    central.connected(Instant::ZERO, PacketSize::MIN);
    assert_eq!(central.handle_packet(Instant::ZERO, &packet[..length]), Err(busy));
    assert_eq!(central.poll_event(), Some(LinkEvent::Failed(busy)));

    let mut talk = Talk::new();
    talk.connect(244);
    let [mut central, _] = talk.links;
    while central.poll_event().is_some() {}
    central.disconnected(talk.now);
    central.connected(talk.now, PacketSize::MIN);
    while central.poll_event().is_some() {}
    assert_eq!(central.handle_packet(talk.now, &packet[..length]), Err(busy));
    assert_eq!(central.poll_event(), Some(LinkEvent::Suspended(SuspendCause::Handshake(busy))));
    assert_eq!(central.state(), LinkState::Suspended);
}
