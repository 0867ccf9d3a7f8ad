//! Over pipes in virtual time: the handshake's ways to fail, floods, ends, permissions that change.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use super::*;
use crate::endpoint::ProtocolType;
use crate::endpoint::framing::{Framing, FramingEvent, FramingRole};
use crate::secure::RekeyLimits;
use crate::transport::stream::StreamConnection;

fn carrier(stream: DuplexStream) -> Carrier {
    let (reader, writer) = split(stream);
    Carrier::Stream(Arc::new(StreamConnection::accepted(reader, writer, "pipe")))
}

/// Two sides of a pipe; the passive one goes to the acceptor.
fn connect(acceptor: &SecureAcceptor, active: &SecureConnectionConfig) -> Arc<SecureConnection> {
    let (near, far) = duplex(8 * 1024);
    acceptor.incoming(carrier(far), "pipe");
    Arc::new(SecureConnection::active(carrier(near), active.clone()))
}

async fn pair(passive: &SecureConnectionConfig, active: &SecureConnectionConfig) -> (End, End) {
    let acceptor = SecureAcceptor::new(passive.clone());
    let (active, passive) =
        tokio::join!(End::open(connect(&acceptor, active)), async { accepted(&acceptor).await });
    (active.expect("open"), End::open(passive.connection).await.expect("open"))
}

#[tokio::test(start_paused = true)]
async fn members_exchange_across_many_keys_and_part_in_order() {
    let club = Club::new(9);
    let rekey = RekeyLimits { bytes: 50_000, records: 100 };
    let with = |device| SecureConnectionConfig { rekey, ..config(device, club.clone()) };
    let (mut a, mut b) = pair(&with(2), &with(1)).await;
    exchange(&mut a, &mut b, 600_000, 1).await;
    let (at_a, at_b) = (a.connection.stats().expect("open"), b.connection.stats().expect("open"));
    // One more each time that the last one has come through all buffers.
    assert!(at_a.0.rekeys >= 2, "{at_a:?}");
    assert_eq!((at_a.0, at_a.1), (at_b.1, at_b.0), "records were counted differently");
    let ids = [&a, &b].map(|end| end.connection.peer_uid().expect("known"));
    assert_eq!(ids, [2, 1].map(|device| Identity::from_private([device; 32]).id().to_text()));
    a.send(b"last words").await;
    let (closed, last) = tokio::join!(a.connection.close(None), b.receive(10));
    closed.expect("close");
    assert!(last == b"last words" && b.end().await.is_none());
    b.connection.close(None).await.expect("close");
}

/// Whoever can end the bytes below can end the connection, but not make it look like the peer's own end.
#[tokio::test(start_paused = true)]
async fn an_end_that_the_peer_did_not_say_is_recoverable_and_no_end_in_order() {
    let club = Club::new(9);
    let (a, mut b) = pair(&config(2, club.clone()), &config(1, club)).await;
    match a.connection.carrier() {
        Carrier::Stream(stream) => stream.close(None).await.expect("close"),
        Carrier::Link(_) => unreachable!(),
    }
    assert!(b.end().await.expect("an error").is_recoverable());
}

#[tokio::test(start_paused = true)]
async fn who_is_denied_while_connected_is_out_and_stays_out() {
    let club = Club::new(9);
    let passive = config(2, club.clone());
    let acceptor = SecureAcceptor::new(passive);
    let active = config(1, Club::new(9));
    let (a, b) = tokio::join!(End::open(connect(&acceptor, &active)), async { accepted(&acceptor).await });
    let (mut a, mut b) = (a.expect("open"), End::open(b.connection).await.expect("open"));
    exchange(&mut a, &mut b, 1_000, 1).await;
    club.deny_all();
    let (at_a, at_b) = tokio::join!(a.end(), b.end());
    let (at_a, at_b) = (at_a.expect("an error"), at_b.expect("an error"));
    assert!(at_a.is_recoverable() && at_b.is_recoverable());
    assert!(at_a.message().contains("changed"), "{at_a}");
    // The second attempt is told, under encryption, and gives up.
    let mut again = End::open(connect(&acceptor, &active)).await.expect("the verdict comes after open");
    let error = again.end().await.expect("refused");
    assert!(!error.is_recoverable() && error.message().contains("denied"), "{error}");
    match acceptor.next().await {
        Some(Incoming::Refused { peer: Some(peer), .. }) => assert_eq!(peer, active.identity.id()),
        _ => panic!("the denied peer was not named"),
    }
}

/// Who has the old secret only is out as soon as this side has a new one, whatever its policy says of the peer itself.
#[tokio::test(start_paused = true)]
async fn a_new_group_ends_the_sessions_of_the_old_one() {
    for changed_at_passive in [true, false] {
        let (at_passive, at_active) = (Club::new(9), Club::new(9));
        let (mut a, mut b) = pair(&config(2, at_passive.clone()), &config(1, at_active.clone())).await;
        exchange(&mut a, &mut b, 1_000, 1).await;
        let club = if changed_at_passive { at_passive } else { at_active };
        // The same secret once more is no change.
        club.change_key(9);
        exchange(&mut a, &mut b, 1_000, 2).await;
        club.change_key(8);
        let both = timeout(Duration::from_secs(60), async { tokio::join!(a.end(), b.end()) }).await;
        let (at_a, at_b) = both.expect("the session of the old group goes on");
        for error in [at_a, at_b] {
            let error = error.expect("an error");
            assert!(error.is_recoverable() && error.message().contains("changed"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_group_learns_nothing_and_may_try_again_unless_somebody_waits() {
    let acceptor = SecureAcceptor::new(config(2, Club::new(9)));
    for (waits, recoverable) in [(false, true), (true, false)] {
        let mut active = config(1, Club::new(8));
        active.trust_refusals = waits;
        let error = End::open(connect(&acceptor, &active)).await.err().expect("refused");
        assert_eq!(error.is_recoverable(), recoverable);
        assert!(error.message().contains("stranger"), "{error}");
    }
}

/// Silent and babbling strangers, many times more than there is room for: they are bounded in number and in time, and a
/// member comes in all the same.
#[tokio::test(start_paused = true)]
async fn a_flood_of_half_open_handshakes_keeps_nobody_out() {
    let club = Club::new(9);
    let passive = config(2, club.clone());
    let acceptor = SecureAcceptor::new(passive.clone());
    let mut strangers = Vec::new();
    for n in 0..10 * passive.half_open_max {
        let (mut near, far) = duplex(1024);
        acceptor.incoming(carrier(far), format!("stranger {n}"));
        if n % 2 == 0 {
            // The beginning of an offer.
            near.write_all(&[0x47, 1, 200, 0, 1]).await.expect("write");
        }
        strangers.push(near);
        tokio::task::yield_now().await;
        assert!(acceptor.half_open() <= passive.half_open_max);
    }
    let opening = tokio::spawn(End::open(connect(&acceptor, &config(1, club))));
    let came_in = async {
        loop {
            if let Some(Incoming::Accepted(accepted)) = acceptor.next().await {
                return accepted;
            }
        }
    };
    timeout(Duration::from_secs(1), came_in).await.expect("a member waits no longer for strangers");
    opening.await.expect("join").expect("open");
    tokio::time::sleep(passive.timeout + Duration::from_secs(3)).await;
    assert_eq!(acceptor.half_open(), 0, "silence has no limit");
}

/// Members that have shown the key of the group do not give way to strangers.
#[tokio::test(start_paused = true)]
async fn strangers_do_not_push_members_out_of_their_handshake() {
    let club = Club::new(9);
    let mut passive = config(2, club.clone());
    passive.half_open_max = 2;
    let acceptor = SecureAcceptor::new(passive);
    let mut members = Vec::new();
    for device in [3, 4] {
        // A member whose answer is long in coming: its offer goes over, the rest waits.
        let active = config(device, club.clone());
        let keyring = crate::secure::Keyring::new(&active.identity, &*active.policy);
        let now = active.clock.now();
        let entropy = active.entropy().expect("entropy");
        let (mut near, far) = duplex(8 * 1024);
        let (near_carrier, far) = (carrier(duplex(1).0), carrier(far));
        let settings = active.session(&near_carrier).expect("settings");
        let mut session =
            crate::secure::SecureSession::active(settings, &keyring, entropy, now).expect("offer");
        acceptor.incoming(far, "member");
        near.write_all(&session.take_output()).await.expect("write");
        let mut challenge = [0; 36];
        near.read_exact(&mut challenge).await.expect("an answer");
        session.handle_bytes(&challenge).expect("CHALLENGE");
        near.write_all(&session.take_output()).await.expect("write");
        let mut answer = [0; 4];
        near.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer[1], 2, "ACCEPT was expected");
        members.push(near);
    }
    for _ in 0..20 {
        let (_near, far) = duplex(1024);
        acceptor.incoming(carrier(far), "stranger");
        match acceptor.next().await {
            Some(Incoming::Refused { label, .. }) => assert_eq!(label, "stranger"),
            _ => panic!("nobody came in"),
        }
    }
    assert_eq!(acceptor.half_open(), 2);
    assert_eq!(acceptor.stats(), AcceptorStats { accepted: 0, refused: 20, gave_way: 0 });
    // But who has the key and does not go on keeps nobody out for long.
    tokio::time::sleep(KEYED_PLACE_TIME).await;
    let newcomer = config(5, club);
    let (opened, came) = tokio::join!(End::open(connect(&acceptor, &newcomer)), accepted(&acceptor));
    opened.expect("open");
    assert_eq!(came.established.peer, newcomer.identity.id());
    assert_eq!(acceptor.stats(), AcceptorStats { accepted: 1, refused: 20, gave_way: 1 });
}

/// A peer without encryption is told so in its own words, and hears nothing else.
#[tokio::test(start_paused = true)]
async fn a_plain_peer_is_refused_in_its_own_words() {
    let acceptor = SecureAcceptor::new(config(2, Club::new(9)));
    let (mut near, far) = duplex(8 * 1024);
    acceptor.incoming(carrier(far), "plain");
    let mut framing = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
    near.write_all(&framing.encode_frame(b"getCollections", [1, 2, 3, 4])).await.expect("write");
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.expect("read");
    framing.handle_bytes(&answer).expect("a WebSocket frame");
    match framing.poll_event() {
        Some(FramingEvent::Close { code: 1008, reason }) => assert!(reason.contains("--plain")),
        other => panic!("{other:?}"),
    }
    assert_eq!(framing.poll_event(), None);
}

#[tokio::test(start_paused = true)]
async fn a_listener_without_encryption_is_recognised() {
    let (near, mut far) = duplex(8 * 1024);
    let active = Arc::new(SecureConnection::active(carrier(near), config(1, Club::new(9))));
    let close = Framing::new(FramingRole::Passive, ProtocolType::ByteStream)
        .encode_close(1002, "reserved bits", [0; 4])
        .expect("a close");
    far.write_all(&close).await.expect("write");
    let error = End::open(active).await.err().expect("plain");
    assert!(error.message().contains("--plain"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn close_ends_an_open_that_waits_for_an_answer() {
    let (near, _far) = duplex(8 * 1024);
    let active = Arc::new(SecureConnection::active(carrier(near), config(1, Club::new(9))));
    let opening = tokio::spawn(End::open(active.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    timeout(Duration::from_secs(3), active.close(None)).await.expect("returns").expect("close");
    let error = timeout(Duration::from_secs(30), opening).await.expect("returns").expect("join");
    assert!(error.is_err());
}
