//! The commands, answers and events that kernel 6.1 with BlueZ 5.66 was seen to exchange with a controller, and what it must survive.

use std::time::Duration;

use gattway::lab::time::Instant;
use proptest::prelude::*;

use super::{Config, World};
use crate::hci::{H4_ACL, H4_COMMAND, H4_EVENT, opcode};

/// A flags field, a service UUID: 21 octets as BlueZ advertises them.
const ADVERT: [u8; 21] = [
    0x11, 7, 0x9e, 0xca, 0xdc, 0x24, 0x0e, 0xe5, 0xa9, 0xe0, 0x93, 0xf3, 0xa3, 0xb5, 1, 0, 0x40, 0x6e, 2, 1,
    6,
];
const PERIPHERAL: usize = 0;
const CENTRAL: usize = 1;

struct Rig {
    world: World,
    now: Instant,
}

impl Rig {
    fn new(config: Config) -> Rig {
        Rig { world: World::new(config, 2), now: Instant::ZERO }
    }

    fn command(&mut self, controller: usize, code: u16, parameters: &[u8]) -> Vec<Vec<u8>> {
        let mut packet = vec![H4_COMMAND];
        packet.extend(code.to_le_bytes());
        packet.push(parameters.len() as u8);
        packet.extend(parameters);
        self.world.handle_packet(controller, &packet);
        self.packets(controller)
    }

    /// What the host of `controller` gets; packets of others are lost.
    fn packets(&mut self, controller: usize) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.world.poll_packet())
            .filter(|(c, _)| *c == controller)
            .map(|(_, p)| p)
            .collect()
    }

    fn run(&mut self, time: Duration) -> Vec<(usize, Vec<u8>)> {
        self.now = self.now + time;
        self.world.handle_timeout(self.now);
        std::iter::from_fn(|| self.world.poll_packet()).collect()
    }

    /// Sets both up as the kernel does and connects them with an interval of 7.5 ms and a timeout of 420 ms.
    /// Gives all packets until one second after the connection was asked for.
    fn connect(&mut self) -> Vec<(usize, Vec<u8>)> {
        for controller in [PERIPHERAL, CENTRAL] {
            self.command(controller, opcode::RESET, &[]);
            self.command(controller, opcode::LE_SET_EVENT_MASK, &[0x5f, 0x1a, 2, 0, 0, 0, 0, 0]);
            self.command(controller, opcode::LE_WRITE_DEFAULT_DATA_LENGTH, &[0xfb, 0, 0x48, 8]);
        }
        self.advertise();
        let address = self.world.address(PERIPHERAL).expect("a controller").0;
        let connect =
            [&[0, 0, 0][..], &address, &[1, 0x60, 0, 0x60, 0, 6, 0, 6, 0, 0, 0, 0x2a, 0, 0, 0, 0, 0]];
        let status = self.command(CENTRAL, opcode::LE_EXT_CREATE_CONNECTION, &connect.concat());
        assert_eq!(status, [[H4_EVENT, 0x0f, 4, 0, 1, 0x43, 0x20]]);
        self.run(Duration::from_secs(1))
    }

    fn advertise(&mut self) {
        let parameters =
            [1, 0x13, 0, 0x40, 0, 0, 0x40, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 1, 0, 1, 0, 0];
        let answer = self.command(PERIPHERAL, opcode::LE_SET_EXT_ADVERTISING_PARAMETERS, &parameters);
        assert_eq!(answer, [[H4_EVENT, 0x0e, 5, 1, 0x36, 0x20, 0, 0]]);
        let data = [&[1, 3, 1, ADVERT.len() as u8][..], &ADVERT].concat();
        self.command(PERIPHERAL, opcode::LE_SET_EXT_ADVERTISING_DATA, &data);
        self.command(
            PERIPHERAL,
            opcode::LE_SET_EXT_SCAN_RESPONSE_DATA,
            &[1, 3, 1, 6, 5, 9, b'v', b'r', b'i', b'g'],
        );
        let answer = self.command(PERIPHERAL, opcode::LE_SET_EXT_ADVERTISING_ENABLE, &[1, 1, 1, 0, 0, 0]);
        assert_eq!(answer, [[H4_EVENT, 0x0e, 4, 1, 0x39, 0x20, 0]]);
    }

    fn acl(&mut self, controller: usize, handle: u16, payload: &[u8]) {
        let mut packet = vec![H4_ACL];
        packet.extend(handle.to_le_bytes());
        packet.extend((payload.len() as u16).to_le_bytes());
        packet.extend(payload);
        self.world.handle_packet(controller, &packet);
    }
}

/// Event codes of one controller, meta events as 0x3e00 and their subcode, ACL data as 2.
fn kinds(packets: &[(usize, Vec<u8>)], controller: usize) -> Vec<u16> {
    let own = packets.iter().filter(|(c, _)| *c == controller);
    own.map(|(_, p)| match p[..] {
        [H4_EVENT, 0x3e, _, subevent, ..] => 0x3e00 | u16::from(subevent),
        [H4_EVENT, code, ..] => code.into(),
        _ => 2,
    })
    .collect()
}

#[test]
fn the_start_of_kernel_6_1_is_answered_as_seen() {
    let mut rig = Rig::new(Config::default());
    let mut answer = |code, parameters: &[u8]| {
        let packets = rig.command(0, code, parameters);
        assert_eq!(packets.len(), 1, "{}", opcode::name(code));
        assert_eq!(packets[0][..4], [H4_EVENT, 0x0e, packets[0].len() as u8 - 3, 1]);
        assert_eq!(packets[0][4..6], code.to_le_bytes());
        packets[0][6..].to_vec()
    };
    assert_eq!(answer(opcode::RESET, &[]), [0]);
    assert_eq!(answer(opcode::READ_LOCAL_FEATURES, &[]), [0, 0, 0, 0, 0, 0x60, 0, 0, 0]);
    assert_eq!(answer(opcode::READ_LOCAL_VERSION, &[]), [0, 0x0b, 0, 0, 0x0b, 0xff, 0xff, 0, 0]);
    assert_eq!(answer(opcode::READ_BD_ADDR, &[]), [0, 0, 0, 0, 1, 0xaa, 0]);
    assert_eq!(answer(opcode::LE_READ_FEATURES, &[]), [0, 0x29, 0x11, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer(opcode::LE_READ_BUFFER_SIZE, &[]), [0, 0xfb, 0, 8]);
    assert_eq!(answer(opcode::LE_READ_STATES, &[]), [0, 0xff, 0xff, 0xff, 0xff, 0xff, 3, 0, 0]);
    assert_eq!(answer(opcode::SET_EVENT_MASK, &[0x90, 0xe8, 4, 2, 0, 0x80, 0, 0x20]), [0]);
    assert_eq!(answer(opcode::LE_READ_ACCEPT_LIST_SIZE, &[]), [0, 32]);
    assert_eq!(answer(opcode::LE_READ_MAX_DATA_LENGTH, &[]), [0, 0xfb, 0, 0x48, 8, 0xfb, 0, 0x48, 8]);
    assert_eq!(answer(opcode::LE_READ_DEFAULT_DATA_LENGTH, &[]), [0, 0x1b, 0, 0x48, 1]);
    assert_eq!(answer(opcode::LE_READ_ADVERTISING_SETS, &[]), [0, 4]);
    assert_eq!(answer(opcode::LE_SET_DEFAULT_PHY, &[0, 1, 1]), [0]);
}

#[test]
fn a_scan_reports_advert_and_response_again_and_again() {
    let mut rig = Rig::new(Config::default());
    rig.command(CENTRAL, opcode::LE_SET_EVENT_MASK, &[0x5f, 0x1a, 2, 0, 0, 0, 0, 0]);
    rig.advertise();
    rig.command(CENTRAL, opcode::LE_SET_EXT_SCAN_PARAMETERS, &[1, 0, 1, 1, 0x12, 0, 0x12, 0]);
    rig.command(CENTRAL, opcode::LE_SET_EXT_SCAN_ENABLE, &[1, 1, 0, 0, 0, 0]);
    let packets = rig.run(Duration::from_millis(500));
    let reports: Vec<_> = packets.iter().map(|(_, p)| p).filter(|p| p[3] == 0x0d).collect();
    assert!(reports.len() >= 2 * 4, "only {} reports", reports.len());
    assert_eq!(reports[0][5..7], [0x13, 0]);
    assert_eq!(reports[0][29..], ADVERT);
    assert_eq!(reports[1][5..7], [0x1b, 0]);
    assert_eq!(reports[1][29..], [5, 9, b'v', b'r', b'i', b'g']);
    rig.command(CENTRAL, opcode::LE_SET_EXT_SCAN_ENABLE, &[0, 0, 0, 0, 0, 0]);
    assert!(rig.run(Duration::from_millis(500)).is_empty());
}

#[test]
fn connecting_brings_the_events_seen_and_data_its_buffers_back() {
    let mut rig = Rig::new(Config { moves_to_two_m: true, ..Config::default() });
    let packets = rig.connect();
    // enhanced connection complete, (set terminated), data length, PHY
    assert_eq!(kinds(&packets, CENTRAL), [0x3e0a, 0x3e07, 0x3e0c]);
    assert_eq!(kinds(&packets, PERIPHERAL), [0x3e0a, 0x3e12, 0x3e07, 0x3e0c]);
    let connected = &packets.iter().find(|(c, _)| *c == CENTRAL).expect("events").1;
    assert_eq!(connected[4..8], [0, 1, 0, 0], "status, handle 1, central");
    assert_eq!(connected[connected.len() - 7..], [6, 0, 0, 0, 0x2a, 0, 0]);

    rig.command(CENTRAL, opcode::LE_READ_REMOTE_FEATURES, &[1, 0]);
    let packets = rig.run(Duration::from_millis(50));
    assert_eq!(packets[0].1, [H4_EVENT, 0x3e, 12, 4, 0, 1, 0, 0x29, 0x11, 0, 0, 0, 0, 0, 0]);

    let payload: Vec<u8> = (0..251).map(|i| i as u8).collect();
    for _ in 0..8 {
        rig.acl(CENTRAL, 1, &payload);
    }
    rig.acl(CENTRAL, 1, &payload);
    assert_eq!(rig.packets(CENTRAL), [[H4_EVENT, 0x1a, 1, 1]], "a ninth packet has no buffer");
    let packets = rig.run(Duration::from_millis(100));
    let arrived: Vec<_> = packets.iter().filter(|(c, p)| *c == PERIPHERAL && p[0] == H4_ACL).collect();
    assert_eq!(arrived.len(), 8);
    assert!(arrived.iter().all(|(_, p)| p[1..5] == [1, 0x20, 251, 0] && p[5..] == payload));
    assert_eq!(packets.iter().filter(|(c, p)| *c == CENTRAL && p[1] == 0x13).count(), 8);
}

#[test]
fn encryption_starts_with_equal_keys_and_only_then() {
    for (equal, reason) in [(true, None), (false, Some(0x3d))] {
        let mut rig = Rig::new(Config::default());
        rig.connect();
        let key = [9u8; 16];
        rig.command(
            CENTRAL,
            opcode::LE_ENABLE_ENCRYPTION,
            &[&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &key].concat(),
        );
        let packets = rig.run(Duration::from_millis(50));
        assert_eq!(kinds(&packets, PERIPHERAL), [0x3e05]);
        let reply = [&[1, 0][..], &if equal { key } else { [1; 16] }].concat();
        let answer = rig.command(PERIPHERAL, opcode::LE_LTK_REPLY, &reply);
        assert_eq!(answer, [[H4_EVENT, 0x0e, 6, 1, 0x1a, 0x20, 0, 1, 0]]);
        let packets = rig.run(Duration::from_millis(50));
        let expected = match reason {
            None => vec![H4_EVENT, 8, 4, 0, 1, 0, 1],
            Some(reason) => vec![H4_EVENT, 5, 4, 0, 1, 0, reason],
        };
        assert_eq!(packets.iter().filter(|(_, p)| *p == expected).count(), 2, "{packets:?}");
    }
}

#[test]
fn a_disconnect_tells_both_and_a_lost_peer_is_noticed_in_time() {
    let mut rig = Rig::new(Config::default());
    rig.connect();
    rig.command(CENTRAL, opcode::DISCONNECT, &[1, 0, 0x13]);
    let packets = rig.run(Duration::from_millis(50));
    assert!(packets.contains(&(CENTRAL, vec![H4_EVENT, 5, 4, 0, 1, 0, 0x16])));
    assert!(packets.contains(&(PERIPHERAL, vec![H4_EVENT, 5, 4, 0, 1, 0, 0x13])));
    assert!(rig.world.connections().is_empty());

    rig.connect();
    rig.world.cut(Some(PERIPHERAL), None, Duration::from_secs(2)).expect("a controller");
    assert!(rig.run(Duration::from_millis(400)).is_empty());
    let packets = rig.run(Duration::from_millis(50));
    for controller in [CENTRAL, PERIPHERAL] {
        assert!(packets.contains(&(controller, vec![H4_EVENT, 5, 4, 0, 1, 0, 8])), "{packets:?}");
    }
    rig.run(Duration::from_secs(2));
    assert_eq!(kinds(&rig.connect(), CENTRAL).first(), Some(&0x3e0a), "in range again");
}

#[test]
fn a_reset_forgets_and_the_peer_notices_by_its_timeout() {
    let mut rig = Rig::new(Config::default());
    rig.connect();
    assert_eq!(rig.command(PERIPHERAL, opcode::RESET, &[]), [[H4_EVENT, 0x0e, 4, 1, 3, 12, 0]]);
    let packets = rig.run(Duration::from_secs(1));
    assert_eq!(packets, [(CENTRAL, vec![H4_EVENT, 5, 4, 0, 1, 0, 8])]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A host may send anything: the controller answers each command once and never panics; the other host stays served.
    #[test]
    fn hostile_hosts_get_one_answer_for_each_command(
        connected: bool,
        commands in prop::collection::vec(
            (prop::sample::select(opcode::ALL), any::<u16>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40), 0u64..30_000),
            1..60,
        ),
    ) {
        let mut rig = Rig::new(Config::default());
        if connected {
            rig.connect();
        }
        for (known, any_code, use_known, mut parameters, micros) in commands {
            if parameters.len() > 1 && any_code & 1 == 0 {
                (parameters[0], parameters[1]) = (1, 0); // a handle that may exist
            }
            let code = if use_known { known } else { any_code };
            let answers = rig.command(CENTRAL, code, &parameters);
            let count = answers.iter().filter(|p| {
                (p[1] == 0x0e && p[4..6] == code.to_le_bytes()) || (p[1] == 0x0f && p[5..7] == code.to_le_bytes())
            }).count();
            prop_assert_eq!(count, 1, "{:#06x}: {:?}", code, answers);
            rig.acl(CENTRAL, any_code, &parameters);
            rig.world.handle_packet(CENTRAL, &parameters);
            rig.run(Duration::from_micros(micros));
        }
        prop_assert_eq!(rig.command(PERIPHERAL, opcode::READ_BD_ADDR, &[]).len(), 1);
    }
}
