//! `cargo run --example hostile`: how long a member's sync takes, and what memory the gateway uses, while somebody attacks it. One table;
//! `firmware-notes/hostile-peers.md` has a run of it.
//!
//! The gateway is `gattway serve` in a process of its own (this program, begun again as the command), with secure sessions and a group.
//! The member pushes one document a sync, in one attempt. Just before each attack the same is measured in quiet, so that a machine
//! whose speed changes compares like with like. The attackers run at the lowest priority: they stand for machines of their own, and what
//! they compute is not to be taken for what the gateway does. A failed sync, or a row beyond its bounds, makes the exit code 1.

mod attacks;
mod gateway;
mod member;
mod row;

#[path = "../attacker.rs"]
#[allow(dead_code)]
mod attacker;

#[path = "../process.rs"]
mod process;

/// What `attacker` connects to.
mod server {
    pub struct Server {
        pub address: std::net::SocketAddr,
    }
}

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

use attacks::{ATTACKS, Attack, Scene};
use gateway::Gateway;
use member::Member;
use row::{MEMORY_TARGET, RATIO_TARGET, Row};

/// How long an attack may take to be under way.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures a member's syncs beside attacks on its gateway
#[derive(Debug, Parser)]
#[command(
    name = "hostile",
    after_help = "Exit code 1: a sync of the member failed, or an attack costs more than is aimed at: twice the time in quiet, and 64 MiB. \
                  Attacks: see --list"
)]
struct Cli {
    /// Syncs beside each attack, and as many in quiet before it
    #[arg(long, value_name = "N", default_value_t = 13, value_parser = clap::value_parser!(u16).range(2..=1000))]
    syncs: u16,
    /// Only the attacks whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Name the attacks and do nothing
    #[arg(long)]
    list: bool,
}

fn measure(attack: &Attack, syncs: u16) -> Row {
    let gateway = Gateway::start();
    let mut member = Member::new(gateway.address);
    let heard = member.overhear();
    let quiet = (0..syncs).map(|_| member.sync().expect("a sync in quiet")).collect();
    let memory_before = gateway.resident();
    let watch = gateway.watch();
    let scene = Scene::new(gateway.address, heard);
    let attackers = scene.begin(attack);
    let began = Instant::now();
    while !scene.is_under_way(attack) && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        scene.is_under_way(attack),
        "{}: only {} attempts",
        attack.name,
        scene.made.load(Ordering::Relaxed)
    );
    let (mut beside, mut failed) = (Vec::new(), Vec::new());
    for _ in 0..syncs {
        match member.sync() {
            Ok(time) => beside.push(time),
            Err(error) => failed.push(error),
        }
    }
    let made = scene.made.load(Ordering::Relaxed);
    scene.end();
    attackers.into_iter().for_each(|attacker| drop(attacker.join()));
    let memory_most = watch.most();
    Row { name: attack.name, quiet, beside, failed, made, memory_before, memory_most }
}

fn main() -> ExitCode {
    // The gateway and what prepares it are the command itself.
    if std::env::args().nth(1).as_deref() == Some("--db") {
        return gattway::cli::main();
    }
    let cli = Cli::parse();
    let only = cli.only.as_deref().unwrap_or_default();
    let wanted: Vec<&Attack> = ATTACKS.iter().filter(|attack| attack.name.contains(only)).collect();
    if wanted.is_empty() {
        eprintln!("hostile: no attack is named {only:?}; see --list");
        return ExitCode::from(2);
    }
    if cli.list {
        wanted.iter().for_each(|attack| println!("{:<40} {}", attack.name, attack.does));
        return ExitCode::SUCCESS;
    }
    if !cli.json {
        println!(
            "{:<40} {:>8} {:>8} {:>8} {:>6} {:>7} {:>9} {:>8}",
            "attack", "quiet ms", "median", "worst", "ratio", "failed", "attempts", "MiB"
        );
    }
    let mut rows = Vec::new();
    for attack in wanted {
        let row = measure(attack, cli.syncs);
        if !cli.json {
            row.print();
        }
        rows.push(row);
    }
    let failed: usize = rows.iter().map(|row| row.failed.len()).sum();
    let met = rows.iter().filter(|row| row.is_met()).count();
    if cli.json {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        println!(
            "{}",
            json!({
                "failed": failed, "met": met, "ratio_target": RATIO_TARGET, "memory_target": MEMORY_TARGET, "attacks": rows,
            })
        );
    } else {
        println!(
            "{failed} syncs failed; {met} of {} attacks: at most twice the time in quiet, and 64 MiB",
            rows.len()
        );
    }
    ExitCode::from(u8::from(met < rows.len()))
}
