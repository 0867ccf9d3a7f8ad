//! The most a modelled connection carries: one direction saturated with raw packets, no protocol above.

use std::time::Duration;

use bytes::Bytes;

use super::{ConnectionSetup, NodeConfig, Path, Radio, RadioError, RadioEvent, Side};
use crate::time::Instant;

/// Length and channel in front of each L2CAP PDU, octets.
pub const L2CAP_HEADER_OCTETS: usize = 4;
/// Opcode and handle in front of an ATT value in a write command or a notification, octets.
pub const ATT_HEADER_OCTETS: usize = 3;

/// Time for the connection to settle before counting starts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Counted time; long against every interval.
const MEASURED: Duration = Duration::from_secs(20);

/// Bytes of ATT values per second that `from` can send in packets of `packet` bytes (write commands or notifications).
///
/// # Errors
/// A setup outside the specification, an empty packet.
pub fn ceiling(setup: &ConnectionSetup, path: Path, from: Side, packet: usize) -> Result<f64, RadioError> {
    let sdu = L2CAP_HEADER_OCTETS + ATT_HEADER_OCTETS + packet;
    Ok(packets_per_second(setup, path, from, sdu)? * packet as f64)
}

/// L2CAP PDUs of `octets` (header included) per second that `from` can send, whole ones counted where they arrive.
///
/// # Errors
/// A setup outside the specification, an empty PDU.
pub fn packets_per_second(
    setup: &ConnectionSetup,
    path: Path,
    from: Side,
    octets: usize,
) -> Result<f64, RadioError> {
    let mut radio = Radio::new(0);
    let config = NodeConfig::default();
    let (central, peripheral) = (radio.add_node(config), radio.add_node(config));
    radio.set_path(central, peripheral, path);
    let connection = radio.connect(Instant::ZERO, central, peripheral, setup)?;
    let node = if from == Side::Central { central } else { peripheral };
    let pdu = Bytes::from(vec![0u8; octets]);
    let (mut arrived, mut rest) = (0u64, pdu.clone());
    let start = Instant::ZERO + WARM_UP;
    let end = start + MEASURED;
    loop {
        while radio.free_buffers(node) > 0 {
            let is_start = rest.len() == pdu.len();
            let fragment = rest.split_to(rest.len().min(config.acl_octets.into()));
            radio.send(connection, from, is_start, fragment)?;
            if rest.is_empty() {
                rest = pdu.clone();
            }
        }
        let Some(now) = radio.poll_at().filter(|at| *at <= end) else { break };
        radio.handle_timeout(now);
        while let Some(event) = radio.poll_event() {
            if let RadioEvent::Data { payload, .. } = event
                && now > start
            {
                arrived += payload.len() as u64;
            }
        }
    }
    Ok(arrived as f64 / octets as f64 / MEASURED.as_secs_f64())
}
