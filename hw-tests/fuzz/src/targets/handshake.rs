//! Control messages of the link: what is read is written back, and a link that waits for a word of the peer survives any.

use std::time::Duration;

use gattway::lab::fuzzing::link::read_and_write_control;
use gattway::lab::link::{CloseReason, Link, LinkConfig, LinkRole, LinkState, PacketSize, peek_session};
use gattway::lab::time::Instant;

use super::super::choices::Choices;

type SmallLink = Link<2048, 2048>;

/// Bytes of a message in each piece but the last.
const PIECE_BYTES: usize = 16;
const ROOM: usize = 600;

fn link(role: LinkRole, seed: u64) -> SmallLink {
    SmallLink::new(role, LinkConfig::default(), seed)
}

/// A message, whole or in pieces that arrive in an order of choice.
fn packets(choices: &mut Choices<'_>, kind: u8, message: &[u8]) -> Vec<Vec<u8>> {
    let packet =
        |piece: u8, chunk: &[u8]| [&[b'G', b'W', kind << 4 | piece, message.len() as u8][..], chunk].concat();
    if choices.bool() {
        return vec![packet(15, message)];
    }
    let pieces = message.chunks(PIECE_BYTES).zip(0..15).map(|(chunk, piece)| packet(piece, chunk));
    let mut pieces: Vec<Vec<u8>> = pieces.collect();
    let turn = choices.below(4) % pieces.len().max(1);
    pieces.rotate_left(turn);
    pieces
}

/// Carries everything both have to say, once each way.
fn carry(ends: &mut [SmallLink; 2], now: Instant) {
    for _ in 0..4 {
        for from in [0, 1] {
            let mut out = [0; ROOM];
            for _ in 0..64 {
                let Some(length) = ends[from].poll_packet(now, &mut out) else { break };
                let _ = ends[1 - from].handle_packet(now, &out[..length]);
            }
        }
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let mode = choices.byte();
    let mut now = Instant::from_micros(1_000_000);
    let mut ends = [link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2)];
    let size = PacketSize::try_new([20, 64, 244, 495][usize::from(mode >> 6)]).expect("a packet size");
    ends.iter_mut().for_each(|end| end.connected(now, size));
    // Before the first word, in the middle of the handshake, in a session, in a resume, at its end.
    match mode & 7 {
        0 | 1 => {}
        2 => {
            let mut out = [0; ROOM];
            while let Some(length) = ends[0].poll_packet(now, &mut out) {
                let _ = ends[1].handle_packet(now, &out[..length]);
            }
        }
        3 | 4 => carry(&mut ends, now),
        5 => {
            carry(&mut ends, now);
            ends[0].close(now, CloseReason::Finished);
        }
        _ => {
            carry(&mut ends, now);
            ends.iter_mut().for_each(|end| end.connected(now, size));
        }
    }
    while !choices.is_empty() {
        let turn = choices.byte();
        let end = usize::from(turn & 1);
        let kind = turn >> 1 & 7;
        let message = choices.blob();
        if let Some(again) = read_and_write_control(kind, message) {
            assert_eq!(read_and_write_control(kind, &again).as_ref(), Some(&again), "written back");
            assert!(again.len() <= message.len().max(64));
        }
        for packet in packets(&mut choices, kind, message) {
            let _ = peek_session(&packet);
            if let Err(error) = ends[end].handle_packet(now, &packet) {
                let state = ends[end].state();
                assert!(
                    matches!(state, LinkState::Failed | LinkState::Suspended | LinkState::Closed),
                    "{error} leads to {state:?}"
                );
            }
        }
        if turn & 0x10 != 0 {
            carry(&mut ends, now);
        }
        if turn & 0x20 != 0 {
            now = now + Duration::from_millis(700);
            ends.iter_mut().for_each(|end| end.handle_timeout(now));
        }
        if turn & 0x40 != 0 {
            ends[end].connected(now, size);
        }
    }
    for end in &mut ends {
        end.close(now, CloseReason::Finished);
        let limit = now + Duration::from_secs(11);
        for steps in 0.. {
            let Some(at) = end.poll_at() else { break };
            assert!(at < limit && steps < 4_000, "a close has its time");
            end.handle_timeout(at.max(now) + Duration::from_micros(1));
            while end.poll_packet(at.max(now), &mut [0; ROOM]).is_some() {}
        }
        assert!(end.state().is_final());
    }
}
