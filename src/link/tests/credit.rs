//! Credit that is lost on its way is asked for: nothing else would come after it.

use std::vec::Vec;

use crate::link::{Link, LinkConfig, LinkRole, LinkState, PacketSize};
use crate::time::Instant;

pub(super) type SmallLink = Link<2048, 2048>;

pub(super) fn says(link: &mut SmallLink, now: Instant) -> Vec<Vec<u8>> {
    let mut out = [0; 495];
    core::iter::from_fn(|| link.poll_packet(now, &mut out).map(|length| out[..length].to_vec())).collect()
}

/// The next deadline of either side, and what is said then, until `is_done`.
pub(super) fn run(links: &mut [SmallLink; 2], now: &mut Instant, is_done: impl Fn(&[SmallLink; 2]) -> bool) {
    for _ in 0..1000 {
        if is_done(links) {
            return;
        }
        let said = links.each_mut().map(|link| says(link, *now));
        if said.iter().all(Vec::is_empty) {
            *now = links.iter().filter_map(Link::poll_at).min().expect("nobody waits for anything");
            links.iter_mut().for_each(|link| link.handle_timeout(*now));
        }
        for (from, packets) in said.iter().enumerate() {
            packets.iter().for_each(|p| links[1 - from].handle_packet(*now, p).expect("as it should be"));
        }
    }
    panic!("it never comes to that");
}

#[test]
fn credit_that_is_lost_is_asked_for() {
    let config = LinkConfig { keep_alive: None, ..LinkConfig::default() };
    let mut now = Instant::from_micros(1_000_000);
    let mut links = [(LinkRole::Central, 1), (LinkRole::Peripheral, 2)].map(|(role, seed)| {
        let mut link = SmallLink::new(role, config, seed);
        link.connected(now, PacketSize::MAX);
        link
    });
    run(&mut links, &mut now, |links| links.iter().all(|link| link.state() == LinkState::Established));
    assert_eq!(links[0].write(&[1; 2048]), 2048);
    run(&mut links, &mut now, |links| links[0].is_flushed());
    assert_eq!(links[0].write(&[2; 500]), 500);
    assert!(says(&mut links[0], now).is_empty(), "the peer has no room");
    let mut read = [0; 2048];
    assert_eq!(links[1].read(&mut read), 2048);
    // It says so, and that is lost.
    assert!(!says(&mut links[1], now).is_empty());
    run(&mut links, &mut now, |links| links[1].readable() == 500);
}
