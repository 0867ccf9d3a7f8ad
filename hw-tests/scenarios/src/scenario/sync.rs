//! Databases: equal after a sync, fresh while connected, the same after many connections.

use std::collections::HashMap;

use serde_json::json;

use super::{Context, Node, Outcome, failed, pause};
use crate::agent::protocol::{Command, Records, Service, Synced, Usage, Way};

/// All records.
const DOCUMENTS: u64 = 344 + 8_759;
/// Against a hang alone, seconds: a change goes over the connection that stands.
const CHANGE_SECONDS: f64 = 120.0;
/// Time for all records, seconds.
const SYNC_SECONDS: f64 = 180.0;
/// Memory that a process may gain in many cycles, KiB: caches of the store fill, nothing else.
const GROWTH_KIB: f64 = 16.0 * 1024.0;

/// What both sides hold must be the same.
pub async fn require_equal(c: &Context<'_>, a: &Node, b: &Node, documents: u64) -> Outcome {
    let (a, b) = (a.digest().await?, b.digest().await?);
    c.require(a == b, format!("the databases differ: {a:?} and {b:?}"))?;
    c.require(a.documents == documents, format!("{} documents, not {documents}", a.documents))
}

/// The fastest way that the rig has, as the command would choose.
pub fn best_way(c: &Context<'_>) -> Way {
    if c.rig.ways().contains(&Way::L2cap) { Way::L2cap } else { Way::Gatt }
}

/// Penguins at the peripheral, weather at the central, and the peripheral listens.
pub async fn prepare(c: &mut Context<'_>) -> Outcome<(Node, Node)> {
    let (peripheral, central) = (c.node(0), c.node(1));
    peripheral.import(Records::Penguins).await?;
    central.import(Records::Weather).await?;
    peripheral.listen(Service::Sync, true).await?;
    Ok((peripheral, central))
}

pub async fn records(c: &mut Context<'_>) -> Outcome {
    let (peripheral, central) = prepare(c).await?;
    for way in [Way::Gatt, best_way(c)] {
        c.mark(&format!("sync over {}", way.name()));
        central.sync(&peripheral, way, false).await?;
        let synced = central.wait_synced(SYNC_SECONDS).await?;
        let name = if synced.documents > 0 { "all records" } else { "nothing to do" };
        c.metric(&format!("{name}, {}", way.name()), synced.seconds, "s");
        c.metric("documents", synced.documents as f64, "");
        require_equal(c, &peripheral, &central, DOCUMENTS).await?;
    }
    Ok(())
}

pub async fn idle_change(c: &mut Context<'_>) -> Outcome {
    let (peripheral, central) = prepare(c).await?;
    let way = best_way(c);
    central.sync(&peripheral, way, true).await?;
    central.wait_synced(SYNC_SECONDS).await?;
    let idle = if c.full { 60.0 } else { 8.0 };
    c.mark("idle");
    pause(idle).await;
    let connections = connections(c, &central);
    for (name, from, to) in
        [("to the peripheral", &central, &peripheral), ("to the central", &peripheral, &central)]
    {
        let id = format!("change {name}");
        c.mark(&id);
        let began = crate::agent::now_us();
        let (seen, put) = tokio::join!(to.wait_for(&id, CHANGE_SECONDS), from.put(&id, json!({"n": 1})));
        put?;
        let seconds = seen?.saturating_sub(began) as f64 / 1e6;
        c.metric(&format!("change {name} after {idle} s idle"), seconds, "s");
    }
    let now = self::connections(c, &central);
    c.require(now == connections, format!("{} connections were made for the changes", now - connections))?;
    let stopped: Synced = central.ask(Command::StopSync).await?;
    c.require(stopped.error.is_none(), format!("stopped with {:?}", stopped.error))?;
    require_equal(c, &peripheral, &central, DOCUMENTS + 2).await
}

/// Radio connections of all sessions that a node has told of.
fn connections(c: &Context<'_>, node: &Node) -> u64 {
    let told = node.told(c.rig);
    let sessions: HashMap<u32, u32> = told.iter().map(|sample| (sample.session, sample.channels)).collect();
    sessions.into_values().map(u64::from).sum()
}

pub async fn cycles(c: &mut Context<'_>) -> Outcome {
    let (peripheral, central) = (c.node(0), c.node(1));
    peripheral.import(Records::Penguins).await?;
    peripheral.listen(Service::Sync, true).await?;
    let count: u64 = if c.full { 50 } else { 6 };
    let warm = count / 5;
    let (mut before, mut slowest, mut all) = (Vec::new(), 0.0f64, Vec::new());
    for n in 0..count {
        if n == warm {
            before = usage(&peripheral, &central).await?;
        }
        central.put(&format!("from the central {n:03}"), json!({"n": n})).await?;
        peripheral.put(&format!("from the peripheral {n:03}"), json!({"n": n})).await?;
        let way = if n % 2 == 0 { Way::Gatt } else { best_way(c) };
        central.sync(&peripheral, way, false).await?;
        let synced = match central.wait_synced(60.0).await {
            Ok(synced) => synced,
            Err(error) => return failed(format!("cycle {n} of {count}: {error}")),
        };
        slowest = slowest.max(synced.seconds);
        all.push(synced.seconds);
    }
    require_equal(c, &peripheral, &central, 344 + 2 * count).await?;
    let after = usage(&peripheral, &central).await?;
    all.sort_by(f64::total_cmp);
    c.metric("cycles", count as f64, "");
    c.metric("a cycle, median", all[all.len() / 2], "s");
    c.metric("a cycle, slowest", slowest, "s");
    for ((name, before), after) in ["peripheral", "central"].iter().zip(&before).zip(&after) {
        let growth = after.rss_kib as f64 - before.rss_kib as f64;
        c.limit(&format!("memory gained, {name}"), growth, "KiB", GROWTH_KIB)?;
    }
    // BlueZ takes 2 s to say that a device has gone.
    pause(3.0).await;
    for node in [&peripheral, &central] {
        let usage: Usage = node.ask(Command::Usage).await?;
        c.require(usage.connected == 0, format!("{} connections are still up", usage.connected))?;
    }
    Ok(())
}

async fn usage(peripheral: &Node, central: &Node) -> Outcome<Vec<Usage>> {
    Ok(vec![peripheral.ask(Command::Usage).await?, central.ask(Command::Usage).await?])
}
