//! Random courses of faults.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::{OUT_OF_RANGE, exchange, setting};
use crate::endpoint::MessageEndpointConnection;
use crate::link::AttMtu;
use crate::transport::sim::radio::Path;
use crate::transport::sim::{HostConfig, SimLink};

/// A course of faults drawn from a seed, while bytes flow both ways.
async fn storm(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let host = HostConfig {
        drop: rng.f64() * 0.05,
        reorder: rng.f64() * 0.1,
        receive_queue_packets: rng.usize(8..=167),
        ..HostConfig::default()
    };
    let setting = setting(seed, host, |_| ());
    let (mut central, mut peripheral) = setting.pair().await;
    let faults = async {
        loop {
            sleep(Duration::from_millis(rng.u64(50..3_000))).await;
            setting.connector.set_link(SimLink::new(AttMtu::new(rng.u16(23..=517))));
            match rng.u8(..4) {
                0 | 1 => setting.cut(),
                2 => {
                    setting.set_path(OUT_OF_RANGE);
                    sleep(Duration::from_millis(rng.u64(100..20_000))).await;
                    setting.set_path(Path::default());
                }
                _ => setting.set_path(Path { loss: rng.f64() * 0.3, ..Path::default() }),
            }
        }
    };
    let traffic = async {
        exchange(&mut central, &mut peripheral, 150_000, seed).await;
    };
    tokio::select! {
        () = faults => {}
        ended = timeout(Duration::from_secs(3_600), traffic) => ended.expect("all bytes within an hour"),
    }
    setting.set_path(Path::default());
    let (closed, (rest, error)) = tokio::join!(central.connection.close(None), peripheral.end());
    closed.expect("close");
    assert!(rest.is_empty() && error.is_none(), "seed {seed}: {} bytes too many, {error:?}", rest.len());
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("runtime").block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn bytes_in_are_bytes_out_across_random_faults(seed in any::<u64>()) {
        in_virtual_time(storm(seed));
    }
}
