//! Messages of a handshake that come twice, late, from another session, another connection or the wrong side: each has its answer, and the
//! session stays with who has proven to own it.

use std::vec::Vec;

use crate::link::control::{Close, Hello, Kind, Message, Outbox, Welcome};
use crate::link::packet::Packet;
use crate::link::{
    CloseReason, Link, LinkConfig, LinkError, LinkEvent, LinkRole, LinkState, PacketSize, RefuseReason,
    SessionId, Takeover, TakeoverState, busy_refusal, peek_session,
};
use crate::time::Instant;

pub(super) const NOW: Instant = Instant::from_micros(1_000_000);
pub(super) const SIZE: PacketSize = PacketSize::MAX;
pub(super) type SmallLink = Link<2048, 2048>;

pub(super) fn link(role: LinkRole, seed: u64) -> SmallLink {
    let mut link = SmallLink::new(role, LinkConfig::default(), seed);
    link.connected(NOW, SIZE);
    link
}

/// All that a link has to say now.
pub(super) fn says(link: &mut SmallLink) -> Vec<Vec<u8>> {
    let mut out = [0; 495];
    core::iter::from_fn(|| link.poll_packet(NOW, &mut out).map(|length| out[..length].to_vec())).collect()
}

/// The one packet that a link has to say now.
pub(super) fn says_one(link: &mut SmallLink) -> Vec<u8> {
    let mut all = says(link);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Both links in turn, until neither has anything to say.
fn talk(central: &mut SmallLink, peripheral: &mut SmallLink) {
    loop {
        let (up, down) = (says(central), says(peripheral));
        if up.is_empty() && down.is_empty() {
            return;
        }
        up.iter().for_each(|packet| peripheral.handle_packet(NOW, packet).expect("in order"));
        down.iter().for_each(|packet| central.handle_packet(NOW, packet).expect("in order"));
    }
}

pub(super) fn established() -> (SmallLink, SmallLink) {
    let (mut central, mut peripheral) = (link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2));
    talk(&mut central, &mut peripheral);
    assert_eq!((central.state(), peripheral.state()), (LinkState::Established, LinkState::Established));
    (central, peripheral)
}

/// Bytes go both ways, so both sides mean the same session and place of the stream.
pub(super) fn exchange(central: &mut SmallLink, peripheral: &mut SmallLink) {
    for (from, to) in [(0, 1), (1, 0)] {
        let links = [&mut *central, &mut *peripheral];
        assert_eq!(links[from].write(b"after all"), 9);
        talk(central, peripheral);
        let mut read = [0; 16];
        let reader = if to == 0 { &mut *central } else { &mut *peripheral };
        let count = reader.read(&mut read);
        assert_eq!(&read[..count], b"after all");
    }
}

fn packet(message: &Message) -> Vec<u8> {
    raw(message.kind(), &message.encode())
}

fn raw(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    let mut outbox = Outbox::default();
    outbox.put(kind, bytes.try_into().expect("a message"));
    let mut out = [0; 495];
    let length = outbox.poll(&mut out, 495).expect("a packet");
    out[..length].to_vec()
}

fn message(packet: &[u8]) -> Message {
    let Ok(Packet::Control { kind, chunk, .. }) = Packet::parse(packet, 495) else { panic!("{packet:?}") };
    Message::decode(kind, chunk).expect("a message")
}

fn hello_of(central: &mut SmallLink) -> (Vec<u8>, Hello) {
    let said = says_one(central);
    let Message::Hello(hello) = message(&said) else { panic!("no HELLO") };
    (said, hello)
}

fn welcome(said: &[u8]) -> Welcome {
    let Message::Welcome(welcome) = message(said) else { panic!("no WELCOME: {said:?}") };
    welcome
}

fn last_event(link: &mut SmallLink) -> Option<LinkEvent> {
    core::iter::from_fn(|| link.poll_event()).last()
}

#[test]
fn versions_meet_where_both_sides_have_one() {
    let (_, good) = hello_of(&mut link(LinkRole::Central, 1));
    for (version_min, version_max, fits) in
        [(1, 1, true), (0, 1, true), (1, 9, true), (2, 9, true), (0, 0, false), (3, 9, false), (1, 0, false)]
    {
        let hello = Message::Hello(Hello { version_min, version_max, ..good });
        let answer = link(LinkRole::Peripheral, 2).handle_packet(NOW, &packet(&hello));
        let version =
            LinkError::Version { ours_min: 1, ours_max: 2, theirs_min: version_min, theirs_max: version_max };
        assert_eq!(answer, if fits { Ok(()) } else { Err(version) }, "{version_min} to {version_max}");
    }
}

#[test]
fn a_hello_that_comes_again_is_answered_again_and_another_one_begins_anew() {
    let (mut central, mut peripheral) = (link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2));
    let (first, _) = hello_of(&mut central);
    let (other, _) = hello_of(&mut link(LinkRole::Central, 3));
    peripheral.handle_packet(NOW, &first).expect("a HELLO");
    let said = says_one(&mut peripheral);
    peripheral.handle_packet(NOW, &first).expect("the same");
    assert_eq!(says_one(&mut peripheral), said);
    // The central has begun anew: what it never confirmed is nothing.
    peripheral.handle_packet(NOW, &other).expect("another");
    let anew = says_one(&mut peripheral);
    assert_ne!(welcome(&anew).session, welcome(&said).session);
    peripheral.handle_packet(NOW, &first).expect("the first again");
    talk(&mut central, &mut peripheral);
    exchange(&mut central, &mut peripheral);
}

#[test]
fn a_hello_to_an_open_session_is_late_a_resume_or_a_restart() {
    let (mut central, mut peripheral) = (link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2));
    let (late, _) = hello_of(&mut central);
    peripheral.handle_packet(NOW, &late).expect("a HELLO");
    talk(&mut central, &mut peripheral);
    // It was on its way for longer than the handshake took.
    let ignored = peripheral.stats().ignored;
    peripheral.handle_packet(NOW, &late).expect("late");
    assert_eq!((says(&mut peripheral), peripheral.stats().ignored), (Vec::new(), ignored + 1));
    exchange(&mut central, &mut peripheral);
    // The central has lost the connection, this side has not noticed: that is how it resumes.
    central.disconnected(NOW);
    central.connected(NOW, SIZE);
    let (resume, hello) = hello_of(&mut central);
    assert_eq!(peek_session(&resume), Some(peripheral.session_id()));
    peripheral.handle_packet(NOW, &resume).expect("a resume");
    talk(&mut central, &mut peripheral);
    assert_eq!((central.stats().resumes, peripheral.stats().resumes), (1, 1));
    exchange(&mut central, &mut peripheral);
    // Of another session, or of none: not the central of before.
    let (_, new) = hello_of(&mut link(LinkRole::Central, 3));
    let other = Hello { session: Some(SessionId::new(99)), nonce: new.nonce, ..hello };
    for hello in [new, other] {
        let (_central, mut peripheral) = established();
        let answer = peripheral.handle_packet(NOW, &packet(&Message::Hello(hello)));
        assert_eq!(answer, Err(LinkError::PeerRestarted));
    }
}

#[test]
fn another_session_than_the_one_that_waits_is_refused_and_it_waits_on() {
    let (_, new) = hello_of(&mut link(LinkRole::Central, 3));
    for session in [None, Some(SessionId::new(99))] {
        let (mut central, mut peripheral) = established();
        let ours = peripheral.session_id().expect("a session");
        peripheral.disconnected(NOW);
        peripheral.connected(NOW, SIZE);
        let hello = Message::Hello(Hello { session, ..new });
        let answer = peripheral.handle_packet(NOW, &packet(&hello));
        assert_eq!(answer, Err(LinkError::SessionMismatch { ours }), "{session:?}");
        assert_eq!(message(&says_one(&mut peripheral)), Message::Refuse(RefuseReason::SessionUnknown));
        assert_eq!(peripheral.state(), LinkState::Suspended);
        for link in [&mut central, &mut peripheral] {
            link.disconnected(NOW);
            link.connected(NOW, SIZE);
        }
        talk(&mut central, &mut peripheral);
        exchange(&mut central, &mut peripheral);
    }
}

#[test]
fn a_welcome_that_comes_again_is_confirmed_again_until_that_is_known() {
    let (mut central, mut peripheral) = (link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2));
    let (hello, _) = hello_of(&mut central);
    peripheral.handle_packet(NOW, &hello).expect("a HELLO");
    let welcome = says_one(&mut peripheral);
    central.handle_packet(NOW, &welcome).expect("a WELCOME");
    let confirm = says_one(&mut central);
    assert!(matches!(message(&confirm), Message::Confirm(_)));
    central.handle_packet(NOW, &welcome).expect("the same");
    assert_eq!(says_one(&mut central), confirm);
    peripheral.handle_packet(NOW, &confirm).expect("a CONFIRM");
    peripheral.handle_timeout(NOW + LinkConfig::default().ack_delay);
    talk(&mut central, &mut peripheral);
    let ignored = central.stats().ignored;
    central.handle_packet(NOW, &welcome).expect("late");
    assert_eq!((says(&mut central), central.stats().ignored), (Vec::new(), ignored + 1));
    peripheral.handle_packet(NOW, &confirm).expect("late");
    talk(&mut central, &mut peripheral);
    exchange(&mut central, &mut peripheral);
}

/// The peripheral says that another session goes on than the one that was asked for.
#[test]
fn a_welcome_to_another_session_is_refused() {
    let (mut central, mut peripheral) = established();
    let ours = central.session_id().expect("a session");
    for link in [&mut central, &mut peripheral] {
        link.disconnected(NOW);
        link.connected(NOW, SIZE);
    }
    let (hello, _) = hello_of(&mut central);
    peripheral.handle_packet(NOW, &hello).expect("a resume");
    let good = welcome(&says_one(&mut peripheral));
    let other = Message::Welcome(Welcome { session: SessionId::new(99), ..good });
    let answer = central.handle_packet(NOW, &packet(&other));
    assert_eq!(answer, Err(LinkError::SessionMismatch { ours }));
    assert_eq!(central.state(), LinkState::Suspended);
}

#[test]
fn messages_of_the_wrong_side_are_violations() {
    let (mut central, mut peripheral) = (link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2));
    let (hello, _) = hello_of(&mut central);
    peripheral.handle_packet(NOW, &hello).expect("a HELLO");
    let welcome = says_one(&mut peripheral);
    central.handle_packet(NOW, &welcome).expect("a WELCOME");
    let confirm = says_one(&mut central);
    let unexpected = |kind: Kind| Err(LinkError::UnexpectedControl { kind: kind as u8 });
    let cases = [
        (LinkRole::Central, &hello, Kind::Hello),
        (LinkRole::Central, &confirm, Kind::Confirm),
        (LinkRole::Peripheral, &welcome, Kind::Welcome),
    ];
    for (role, packet, kind) in cases {
        let (mut central, mut peripheral) = established();
        let link = if role == LinkRole::Central { &mut central } else { &mut peripheral };
        assert_eq!(link.handle_packet(NOW, packet), unexpected(kind), "{role:?} hears {kind:?}");
        assert_eq!(message(&says_one(link)), Message::Refuse(RefuseReason::Violation));
    }
}

#[test]
fn who_cannot_fit_is_told_that_it_is_the_parameters() {
    let (_, good) = hello_of(&mut link(LinkRole::Central, 1));
    let mut small = good;
    small.parameters.packet_size = 19;
    let mut windowless = good;
    windowless.parameters.window_packets = 0;
    for hello in [small, windowless] {
        let mut peripheral = link(LinkRole::Peripheral, 2);
        assert!(peripheral.handle_packet(NOW, &packet(&Message::Hello(hello))).is_err());
        assert_eq!(message(&says_one(&mut peripheral)), Message::Refuse(RefuseReason::Parameters));
    }
}

/// What the acceptor sorts connections by.
#[test]
fn only_a_hello_asks_for_a_session() {
    assert_eq!(peek_session(&raw(Kind::Confirm, &[0, 0, 0])), None);
    assert_eq!(
        peek_session(&packet(&Message::Close(Close { reason: CloseReason::Finished, offset: 0 }))),
        None
    );
    let mut busy = [0; 495];
    let length = busy_refusal(&mut busy).expect("it fits");
    assert_eq!(peek_session(&busy[..length]), None);
    let session = SessionId::new(0x0102_0304_0506_0708);
    assert_eq!((session.number(), session.to_string().as_str()), (0x0102_0304_0506_0708, "0102030405060708"));
    let recoverable = |reason: CloseReason| reason.is_recoverable();
    assert!(recoverable(CloseReason::Recoverable(1)) && recoverable(CloseReason::SessionUnknown));
    assert!(!recoverable(CloseReason::Finished) && !recoverable(CloseReason::Permanent(1)));
}

#[test]
fn who_never_says_hello_is_named_as_that() {
    let mut peripheral = link(LinkRole::Peripheral, 2);
    while let Some(at) = peripheral.poll_at() {
        peripheral.handle_timeout(at);
    }
    let error = LinkError::HandshakeTimeout { limit_ms: 10_000 };
    assert_eq!(last_event(&mut peripheral), Some(LinkEvent::Failed(error)));
}

/// A second connection asks for the session of the first, which goes on until a proof holds.
struct Attempt {
    central: SmallLink,
    peripheral: SmallLink,
    asking: Takeover,
    hello: Vec<u8>,
}

impl Attempt {
    fn new() -> Attempt {
        let (mut central, peripheral) = established();
        central.disconnected(NOW);
        central.connected(NOW, SIZE);
        let (hello, _) = hello_of(&mut central);
        let asking = peripheral.takeover(SIZE);
        Attempt { central, peripheral, asking, hello }
    }

    fn hear(&mut self, packet: &[u8]) -> TakeoverState {
        self.peripheral.receive_takeover(&mut self.asking, packet)
    }

    fn said(&mut self) -> Option<Vec<u8>> {
        let mut out = [0; 495];
        assert_eq!(self.asking.poll_packet(&mut out[..494]), None, "it would not fit");
        self.asking.poll_packet(&mut out).map(|length| out[..length].to_vec())
    }

    /// What the central confirms with.
    fn confirm(&mut self) -> Vec<u8> {
        let hello = self.hello.clone();
        assert_eq!(self.hear(&hello), TakeoverState::Undecided);
        let welcome = self.said().expect("a WELCOME");
        assert_eq!(self.hear(&hello), TakeoverState::Undecided);
        assert_eq!(self.said(), Some(welcome.clone()), "it may have been lost");
        assert_eq!(self.said(), None);
        self.central.handle_packet(NOW, &welcome).expect("a WELCOME");
        // Data may follow.
        says(&mut self.central).remove(0)
    }
}

#[test]
fn who_proves_to_be_its_central_takes_a_session_over() {
    let mut attempt = Attempt::new();
    let confirm = attempt.confirm();
    assert_eq!(attempt.peripheral.state(), LinkState::Established, "the first connection goes on");
    assert_eq!(attempt.hear(&confirm), TakeoverState::Won);
    let Attempt { mut central, mut peripheral, asking, .. } = attempt;
    assert!(peripheral.take_over(NOW, asking));
    talk(&mut central, &mut peripheral);
    assert_eq!((central.stats().resumes, peripheral.stats().resumes), (1, 1));
    exchange(&mut central, &mut peripheral);
}

#[test]
fn who_does_not_prove_it_takes_nothing_over() {
    // Another session, a new one, a CONFIRM without a HELLO, noise.
    let mut attempt = Attempt::new();
    let confirm = attempt.confirm();
    let Message::Hello(good) = message(&attempt.hello) else { panic!("no HELLO") };
    for session in [None, Some(SessionId::new(99))] {
        let hello = packet(&Message::Hello(Hello { session, ..good }));
        let mut fresh = attempt.peripheral.takeover(SIZE);
        assert_eq!(
            attempt.peripheral.receive_takeover(&mut fresh, &hello),
            TakeoverState::Lost,
            "{session:?}"
        );
        assert!(!attempt.peripheral.take_over(NOW, fresh), "it was offered nothing");
    }
    for packet in [&confirm[..], b"GW\x90\x00", b"noise"] {
        let mut fresh = attempt.peripheral.takeover(SIZE);
        assert_eq!(attempt.peripheral.receive_takeover(&mut fresh, packet), TakeoverState::Lost);
    }
    // Data may overtake CONFIRM.
    assert_eq!(attempt.hear(&[0; 495]), TakeoverState::Undecided);
    for place in 5..confirm.len() {
        let mut wrong = confirm.clone();
        wrong[place] ^= 1;
        assert_eq!(attempt.hear(&wrong), TakeoverState::Lost, "byte {place} of the proof");
    }
    assert_eq!(attempt.peripheral.state(), LinkState::Established);
    assert_eq!(attempt.hear(&confirm), TakeoverState::Won, "the right one holds after all that");
}

/// The stream has gone on over the first connection since the offer: its place there is not the stream's any more.
#[test]
fn an_offer_that_the_stream_has_overtaken_is_void() {
    let (mut central, peripheral) = established();
    assert_eq!(central.write(b"on its way"), 10);
    let on_its_way = says_one(&mut central);
    central.disconnected(NOW);
    central.connected(NOW, SIZE);
    let (hello, _) = hello_of(&mut central);
    let asking = peripheral.takeover(SIZE);
    let mut attempt = Attempt { central, peripheral, asking, hello };
    let confirm = attempt.confirm();
    attempt.peripheral.handle_packet(NOW, &on_its_way).expect("data");
    assert_eq!(attempt.hear(&confirm), TakeoverState::Won);
    let Attempt { mut central, mut peripheral, asking, .. } = attempt;
    assert!(!peripheral.take_over(NOW, asking));
    assert_eq!(peripheral.state(), LinkState::Suspended, "it waits to be asked again");
    for link in [&mut central, &mut peripheral] {
        link.disconnected(NOW);
        link.connected(NOW, SIZE);
    }
    talk(&mut central, &mut peripheral);
    let mut read = [0; 16];
    let count = peripheral.read(&mut read);
    assert_eq!(&read[..count], b"on its way", "once");
    exchange(&mut central, &mut peripheral);
}
