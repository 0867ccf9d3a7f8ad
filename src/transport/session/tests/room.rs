//! Whose session gives way to whose when there is no room left.

use super::*;

/// Both ends get keys of a proof, as a secure session gives them.
fn prove(pair: &(End, End), key: u8) {
    for end in [&pair.0, &pair.1] {
        end.connection.set_resume_prover(ResumeProver::new([key; 32], |key, transcript| {
            std::array::from_fn(|n| transcript.iter().fold(key[n], |all, byte| all.rotate_left(1) ^ byte))
        }));
        end.connection.confirm_resume_prover();
    }
}

/// Another central finds no room.
async fn finds_no_room(setting: &Setting) {
    let (handle, _inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    let error = setting.new_central().open(handle).await.expect_err("no room");
    assert!(error.is_recoverable(), "{error}");
    assert!(error.to_string().contains("as many peers as it can"), "it must hear why: {error}");
}

#[tokio::test(start_paused = true)]
async fn sessions_are_bounded() {
    let setting = setting(12, HostConfig::default(), |config| config.sessions_max = 2);
    let first = setting.pair().await;
    let second = setting.pair().await;
    finds_no_room(&setting).await;
    assert_eq!(setting.acceptor.refusals().sessions, 1);
    drop(first);
    sleep(Duration::from_secs(15)).await;
    setting.pair().await;
    drop(second);
}

/// A central that never comes back after its first connection.
struct Once(Arc<SimConnector>, std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl Connector for Once {
    async fn connect(&self) -> std::io::Result<PacketChannel> {
        if self.1.swap(true, std::sync::atomic::Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.0.connect().await
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_lost_first_gives_way() {
    let setting = setting(14, HostConfig::default(), |config| config.sessions_max = 2);
    let once = Arc::new(Once(setting.connector.clone(), false.into()));
    let _first = open(LinkConnection::central(once, setting.config)).await;
    let mut peripheral_of_first = open(setting.acceptor.next().await.expect("a session")).await;
    let (mut second, mut peripheral_of_second) = setting.pair().await;
    setting.cut();
    exchange(&mut second, &mut peripheral_of_second, 1_000, 1).await;
    setting.pair().await;
    let (_, error) = timeout(Duration::from_secs(1), peripheral_of_first.end()).await.expect("gave way");
    assert!(error.expect("an error").is_recoverable());
    exchange(&mut second, &mut peripheral_of_second, 1_000, 2).await;
}

/// Strangers can begin as many sessions as they like, finish their handshakes and leave: they push out each other. Who has
/// proven who it is keeps its lost session until somebody who has done so too needs the room.
#[tokio::test(start_paused = true)]
async fn strangers_do_not_push_out_the_lost_sessions_of_members() {
    let setting = setting(23, HostConfig::default(), |config| config.sessions_max = 2);
    let (mut first, mut second) = (setting.pair().await, setting.pair().await);
    prove(&first, 1);
    prove(&second, 2);
    setting.set_path(OUT_OF_RANGE);
    setting.cut();
    sleep(Duration::from_secs(1)).await;
    let stranger = setting.radio.add_device("stranger", HostConfig::default());
    let door = stranger.connector(&setting.peripheral, SimLink::new(AttMtu::new(247)));
    let once = || Arc::new(Once(Arc::clone(&door), false.into()));
    let mut left = Vec::new();
    for _ in 0..20 {
        left.push(open(LinkConnection::central(once(), setting.config)).await);
        left.push(open(setting.acceptor.next().await.expect("a session")).await);
        assert!(setting.acceptor.sessions() <= 2 + 4);
        setting.radio.cut(&stranger, &setting.peripheral);
        sleep(Duration::from_millis(100)).await;
    }
    setting.set_path(Path::default());
    exchange(&mut first.0, &mut first.1, 1_000, 1).await;
    exchange(&mut second.0, &mut second.1, 1_000, 2).await;
    for (central, _) in [&first, &second] {
        assert_eq!(central.connection.stats().link.resumes, 1, "it was pushed out, or not lost");
    }
    // The second is lost for longer, and a member that comes anew takes its place as soon as it has proven who it is.
    drop(left);
    sleep(Duration::from_secs(30)).await;
    setting.set_path(OUT_OF_RANGE);
    setting.cut();
    sleep(Duration::from_secs(1)).await;
    let member = open(LinkConnection::central(once(), setting.config)).await;
    let third = (member, open(setting.acceptor.next().await.expect("a session")).await);
    assert_eq!(setting.acceptor.sessions(), 3, "it is only a newcomer");
    prove(&third, 3);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setting.acceptor.sessions(), 2);
    let gone = [&first, &second].map(|(_, peripheral)| peripheral.inbound.closed().is_some());
    assert_eq!(gone.into_iter().filter(|gone| *gone).count(), 1);
}

/// A stranger that stays connected has room for 3 s where a peer has proven who it is; that peer's session stays. Where nobody has,
/// nobody who is connected gives way.
#[tokio::test(start_paused = true)]
async fn who_has_proven_nothing_for_three_seconds_gives_way_where_others_have() {
    for proven in [true, false] {
        let setting = setting(24, HostConfig::default(), |config| config.sessions_max = 2);
        let mut member = setting.pair().await;
        if proven {
            prove(&member, 1);
        }
        sleep(Duration::from_secs(60)).await;
        let mut stranger = setting.pair().await;
        sleep(Duration::from_secs(2)).await;
        if !proven {
            sleep(Duration::from_secs(60)).await;
        }
        finds_no_room(&setting).await;
        if proven {
            sleep(Duration::from_secs(1)).await;
            let mut newcomer = setting.pair().await;
            let (_, error) = timeout(Duration::from_secs(1), stranger.1.end()).await.expect("gave way");
            assert!(error.expect("an error").is_recoverable());
            exchange(&mut newcomer.0, &mut newcomer.1, 1_000, 3).await;
        } else {
            exchange(&mut stranger.0, &mut stranger.1, 1_000, 3).await;
        }
        exchange(&mut member.0, &mut member.1, 1_000, 4).await;
    }
}
