//! What people and files say: addresses, codes of groups and devices, records for an import. And what neighbours
//! advertise.

use gattway::lab::fuzzing::cli;
use gattway::lab::secure::PeerId;
use gattway::lab::secure::advert::AdvertKey;
use gattway::lab::secure::group::GroupSecret;
use gattway::lab::transport::bluez::profile::{AdvertState, Information};
use gattway::lab::transport::stream::Address;
use serde_json::Value;

use super::super::choices::Choices;
use super::super::memory;

/// Memory of a reader beside what it has read, in bytes.
const OVERHEAD: usize = 64 * 1024;
/// A value takes as much in a tree.
const PER_BYTE: usize = 200;

fn address(text: &str) {
    match text.parse::<Address>() {
        Ok(address) => assert_eq!(address.to_string(), text),
        Err(error) => assert!(error.to_string().contains("tcp:HOST:PORT")),
    }
    if let Ok(place) = cli::place(text) {
        assert_eq!(cli::place(&place).as_ref(), Ok(&place), "what is printed is read");
    }
}

fn records(format: u8, input: &[u8]) {
    let ((records, result), held) = memory::peak(|| cli::records(format, input));
    assert!(held <= PER_BYTE * input.len() + OVERHEAD, "{held} bytes held for {}", input.len());
    if let Err(error) = result {
        assert!(!error.is_empty());
    }
    if format == 0 {
        // Each record is one line, and read alone it is the same.
        for record in records {
            let line = Value::Object(record.clone()).to_string();
            let (again, result) = cli::records(0, line.as_bytes());
            assert_eq!((again, result), (vec![record], Ok(())));
        }
    }
}

fn advert(data: &[u8]) {
    if let Some(state) = AdvertState::decode(data) {
        assert!(state.change <= AdvertState::CHANGE_MAX);
        let mut told = state.encode();
        // An urgency that has no meaning says nothing.
        if told[2] == 0 {
            told[2] = data[2];
        }
        assert_eq!(data.get(..told.len()), Some(&told[..]));
    }
    let key = AdvertKey::from_bytes([3; 32]);
    if let Some(opened) = key.open(data) {
        assert!(opened.device.0 < 1 << 24);
    }
    match Information::decode(data) {
        Ok(information) => assert_eq!(Information::decode(&information.encode()), Ok(information)),
        Err(error) => assert!(!error.is_empty()),
    }
}

/// The text form of a group's secret, and of a device's key.
fn codes(text: &str) {
    match GroupSecret::parse(text) {
        Ok(secret) => {
            for form in [secret.code(), secret.qr_text()] {
                let again = GroupSecret::parse(&form).expect("what is printed is read");
                assert_eq!(*again.code(), *secret.code());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_text().parse(), Ok(peer), "what is printed is read");
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(6) {
        0 => address(&choices.text()),
        1 => advert(choices.rest()),
        5 => codes(&choices.text()),
        format => records(format as u8 - 2, choices.rest()),
    }
}
