//! The list of all scenarios.

use super::{Scenario, cuts, external, first_sync, flow, meet, speed, sync};
use crate::rig::Config;

/// Shorthand of the table below.
macro_rules! scenario {
    ($name:literal, $config:ident, $nodes:literal, $limit:literal, $run:path, $about:literal) => {
        Scenario {
            name: $name,
            about: $about,
            config: Config::$config,
            nodes: $nodes,
            limit_s: $limit,
            run: |context| Box::pin($run(context)),
        }
    };
}

/// All scenarios, in the order in which they are shown.
#[rustfmt::skip] // a table
pub fn all() -> Vec<Scenario> {
    vec![
        scenario!("discover", Default, 2, 600, meet::discover, "a central hears the peripheral's adverts, at once and again"),
        scenario!("connect", Default, 2, 600, meet::connect, "connect, agree on a session, end it; five times"),
        scenario!("mtu", Default, 2, 600, meet::mtu, "the packet size follows the ATT MTU, and such packets arrive whole"),
        scenario!("wrong-version", Default, 2, 600, meet::wrong_version, "a service of another version is refused at once, with its version"),
        scenario!("bulk-up", Default, 2, 600, flow::bulk_up, "a long transfer, central to peripheral, checked byte by byte"),
        scenario!("bulk-down", Default, 2, 600, flow::bulk_down, "a long transfer, peripheral to central"),
        scenario!("bulk-both", Default, 2, 600, flow::bulk_both, "both ways at once"),
        scenario!("small-messages", Default, 2, 600, flow::small_messages, "messages of 30 bytes: one at a time there and back, then many at once"),
        scenario!("sync", Default, 2, 720, sync::records, "344 penguins and 8,759 weather records: both databases equal"),
        scenario!("idle-change", Default, 2, 600, sync::idle_change, "nothing happens for a while, then a change each way within 2 s"),
        scenario!("close-central", Default, 2, 600, meet::close_central, "the central ends the session in order; the next one works"),
        scenario!("close-peripheral", Default, 2, 600, meet::close_peripheral, "the peripheral ends the session in order; the next one works"),
        scenario!("cut-radio", Default, 2, 600, cuts::radio, "out of range in the middle of a transfer: the session goes on where it was"),
        scenario!("cut-central-adapter", Default, 2, 600, cuts::central_adapter, "the central's adapter is switched off in the middle"),
        scenario!("cut-peripheral-adapter", Default, 2, 600, cuts::peripheral_adapter, "the peripheral's adapter is switched off in the middle"),
        scenario!("cut-bluetoothd", Default, 2, 720, cuts::bluetoothd, "bluetoothd is killed in the middle and started again"),
        scenario!("kill-central", Default, 2, 720, cuts::kill_central, "SIGKILL to the central in the middle of a sync; the next one ends it"),
        scenario!("kill-peripheral", Default, 2, 720, cuts::kill_peripheral, "SIGKILL to the peripheral in the middle of a sync; the central ends it"),
        scenario!("stalled-reader", Default, 2, 720, flow::stalled_reader, "a reader stops for a while: nothing is lost, bluetoothd answers"),
        scenario!("two-centrals", Default, 3, 720, flow::two_centrals, "two centrals at once on one peripheral, each with its own bytes"),
        scenario!("both-roles", Default, 3, 720, flow::both_roles, "one device is central and peripheral at once"),
        scenario!("l2cap", Default, 2, 600, flow::l2cap, "both ways at once over an L2CAP channel"),
        scenario!("btleplug", Default, 2, 720, flow::btleplug, "both ways at once with btleplug as the central"),
        scenario!("change-channel", Default, 2, 720, cuts::change_channel, "one session over GATT, then L2CAP, then GATT again"),
        scenario!("weak-signal", Default, 2, 720, flow::weak_signal, "10 % of the radio's packets are lost: slower, nothing missing"),
        scenario!("cycles", Default, 2, 900, sync::cycles, "connect, sync, disconnect, again and again: nothing is used up"),
        scenario!("speed", Default, 2, 1800, speed::speed, "goodput by raw packets, GATT and L2CAP, each way; btleplug by bluer"),
        scenario!("first-sync", Default, 2, 1800, first_sync::first_sync, "a first sync of letters by raw packets, GATT and L2CAP, each way; CPU a packet"),
        scenario!("eatt-bulk", Eatt, 2, 600, flow::eatt_bulk, "three EATT channels, which reorder packets: both ways at once"),
        scenario!("eatt-sync", Eatt, 2, 720, sync::records, "three EATT channels: the records synced, both databases equal"),
        scenario!("eatt-cut", Eatt, 2, 600, cuts::radio, "three EATT channels: out of range in the middle of a transfer"),
        scenario!("small-mtu", SmallMtu, 2, 720, meet::small_mtu, "the smallest ATT MTU there is, 23 on the model and 48 on BlueZ: everything arrives"),
        scenario!("two-machines-sync", TwoMachines, 2, 720, sync::records, "peripheral and central on two machines: the records synced"),
        scenario!("two-machines-bluetoothd", TwoMachines, 2, 720, cuts::bluetoothd, "two machines: the peripheral's bluetoothd is killed in the middle"),
        scenario!("commands-one-machine", Default, 0, 900, external::commands_one_machine, "`gattway serve` and `gattway sync` in one guest, and changes over the connection that stands"),
        scenario!("commands-two-machines", Default, 0, 900, external::commands_two_machines, "`gattway serve` and `gattway sync` in two guests, and changes over the connection that stands"),
        scenario!("file-rig", Default, 0, 900, external::file_rig, "a rig file in a guest, the second machine behind a command: the path of real adapters"),
        scenario!("foreign-stack", Default, 0, 900, external::foreign_stack, "a peer on a Bluetooth stack that is not BlueZ: handshake, echo, resume"),
        scenario!("errors", Default, 0, 900, external::errors, "no adapter, no permission, blocked, not ours, slots full: each command says so; an idle central hides nobody"),
        scenario!("others", Default, 0, 1800, external::others, "what other programs on BlueZ change: filters, settings, block, remove; in the long form a kernel stuck in a connect"),
        scenario!("adapters", Default, 0, 1800, external::adapters, "a gateway with two adapters: both at once, either taken away and given back"),
        scenario!("privacy", Default, 0, 600, external::privacy, "addresses that change: heard, reached and synced by `ble:any` all the same"),
        scenario!("adapter-faults", Default, 0, 900, external::adapter_faults, "everything that happens to adapters and daemons, under two commands in two guests (long form only)"),
    ]
}
