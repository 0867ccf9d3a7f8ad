//! `gattway status`, `pause` and `resume`: what a gateway that runs is asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::commands::config::ConfigArgs;
use crate::cli::commands::control::gateway::{self as control, OrderWord, SyncRequest};
use crate::cli::support::error::CliError;
use crate::cli::support::output::{Output, bytes_text, counted, thousands};
use crate::cli::support::visible::visible;
use crate::gateway::config::{self, default_socket};
use crate::gateway::status::{
    AdvertTold, DatabaseStatus, GatewayStatus, ListenerStatus, MediumStatus, MqttStatus, NeighbourStatus,
    UpstreamStatus,
};

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Neighbours that are shown to people; --json has all.
const NEIGHBOURS_SHOWN: usize = 50;

/// Whom to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct SocketArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// The gateway's socket [default: what the configuration says]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl SocketArgs {
    /// The configuration may be closed to this user, or be wrong by now: the usual place is asked then.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| match config::load(&self.config.path) {
            Ok(config) => config.socket,
            Err(_) => default_socket(),
        })
    }
}

/// Ask the gateway that runs: what listens, which neighbours came and when they were in sync, upstreams, databases, and
/// what fails and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway status
  gattway status --watch
  gattway status --json | jq '.databases[].upstreams[] | select(.error)'")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    socket: SocketArgs,

    /// One JSON object
    #[arg(long)]
    json: bool,

    /// Ask again every two seconds, until Ctrl-C; with --json a line each time
    #[arg(long)]
    watch: bool,
}

/// Which syncs of the gateway that runs are told something: `now`, `pause` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// The name of an upstream, or bluetooth.NAME for the visits of an adapter; all unless given
    #[arg(value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    socket: SocketArgs,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &StatusArgs) -> Result<(), CliError> {
    let socket = args.socket.socket();
    let mut out = Output::new();
    loop {
        let status = control::status(&socket)?;
        if args.json {
            out.json(&status)?;
        } else {
            if args.watch && out.is_for_people() {
                out.steer(CLEAR)?;
            }
            print(&status, &mut out)?;
        }
        out.flush()?;
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// The state of the gateway that runs; `None`: none does, or it does not tell this user.
pub(crate) fn of_running(args: &SocketArgs) -> Option<GatewayStatus> {
    control::status(&args.socket()).ok()
}

/// How many syncs were told.
#[derive(Serialize)]
struct Told {
    syncs: usize,
}

pub(crate) fn order(order: OrderWord, args: &OrderArgs) -> Result<(), CliError> {
    let meant = control::order(&args.socket.socket(), &SyncRequest { order, name: args.name.clone() })?;
    let mut out = Output::new();
    match args.json {
        true => out.json(&Told { syncs: meant })?,
        false => out.line(format!("{} {}", counted(meant as u64, "sync"), done(order)))?,
    }
    out.flush()
}

/// What syncs were by an order.
pub(crate) fn done(order: OrderWord) -> &'static str {
    match order {
        OrderWord::Now => "told to begin now",
        OrderWord::Pause => "paused",
        OrderWord::Resume => "told to go on",
    }
}

fn print(status: &GatewayStatus, out: &mut Output) -> Result<(), CliError> {
    let now = status.now_s;
    let since = ago(now, status.since_s);
    out.line(format!(
        "gattway {}, process {}, runs since {since}, {}",
        status.version, status.process, status.config
    ))?;
    if let Some(medium) = &status.medium {
        for line in medium_lines(medium) {
            out.line(visible(&line))?;
        }
    }
    if let Some(http) = &status.http {
        print_listener("http", http, out)?;
    }
    for database in &status.databases {
        out.line("")?;
        print_database(database, now, out)?;
    }
    Ok(())
}

/// What was written, and what that means where the size of the medium is known.
fn medium_lines(medium: &MediumStatus) -> Vec<String> {
    let (written, measured) = (bytes_text(medium.written_bytes), duration(medium.measured_s));
    let mut first = format!("medium: {written} written in {measured}");
    if let Some(bytes) = medium.bytes_a_day {
        first.push_str(&format!(", at this rate {} a day", bytes_text(bytes)));
    }
    let mut lines = vec![first];
    if let (Some(device), Some(bytes), Some(days)) =
        (&medium.device, medium.device_bytes, medium.days_to_fill)
    {
        let (size, days) = (bytes_text(bytes), counted(days, "day"));
        lines.push(format!("  {device} has {size}: as much would be written in {days}"));
    }
    match (medium.cycles, medium.days_to_wear) {
        (Some(cycles), Some(days)) => lines.push(format!(
            "  written over {} times (medium-cycles) in {}, if nothing else writes, and the device itself no more than \
             it is given",
            thousands(cycles),
            counted(days, "day")
        )),
        (Some(cycles), None) => lines.push(format!(
            "  medium-cycles is {}: how long that would last cannot be said yet",
            thousands(cycles)
        )),
        (None, _) => {}
    }
    lines
}

fn print_database(database: &DatabaseStatus, now: u64, out: &mut Output) -> Result<(), CliError> {
    let documents: u64 = database.collections.iter().map(|collection| collection.documents).sum();
    let mut line = format!("database {}: ", database.name);
    match database.open {
        true => line.push_str(&format!(
            "{} in {}",
            counted(documents, "document"),
            counted(database.collections.len() as u64, "collection")
        )),
        false => line.push_str("not open"),
    }
    line.push_str(&format!(", {}", database.path));
    if let Some(free) = database.free_bytes {
        line.push_str(&format!(", {} free", bytes_text(free)));
    }
    if database.full {
        line.push_str(", NO ROOM: nothing is stored");
    }
    out.line(visible(&line))?;
    failure(database.failures, database.error.as_deref(), out)?;
    for listener in &database.listeners {
        print_listener(&format!("  listener {}", listener.name), listener, out)?;
    }
    for (adapter, advert) in database.adapters.iter().filter_map(|one| Some((one, one.advert.as_ref()?))) {
        print_advert(&adapter.name, advert, out)?;
    }
    for upstream in &database.upstreams {
        print_upstream(upstream, now, out)?;
    }
    for mqtt in &database.mqtt {
        print_mqtt(mqtt, out)?;
    }
    for retention in &database.retention {
        let (removed, kept) = (counted(retention.removed, "document"), bytes_text(retention.bytes));
        let mut line = format!("  retention {}: {removed} removed, {kept} kept", retention.name);
        if let (Some(files), Some(allowed)) = (retention.files_bytes, retention.files_allowed) {
            line.push_str(&format!(", files {} of {}", bytes_text(files), bytes_text(allowed)));
        }
        out.line(visible(&line))?;
        if let Some(held) = &retention.held {
            out.line(visible(&format!("    NOT MET: {held}")))?;
        }
        if let Some(error) = &retention.error {
            failure(1, Some(error), out)?;
        }
    }
    if database.tombstones_removed > 0 {
        out.line(format!("  {} removed", counted(database.tombstones_removed, "tombstone")))?;
    }
    for neighbour in database.neighbours.iter().take(NEIGHBOURS_SHOWN) {
        print_neighbour(neighbour, now, out)?;
    }
    if let more @ 1.. = database.neighbours.len().saturating_sub(NEIGHBOURS_SHOWN) {
        out.line(format!("  and {} more neighbours", thousands(more as u64)))?;
    }
    Ok(())
}

fn print_mqtt(mqtt: &MqttStatus, out: &mut Output) -> Result<(), CliError> {
    let state = if mqtt.connected { "connected" } else { "not connected" };
    let mut line = format!("  mqtt {}: {}, {state}", mqtt.name, mqtt.broker);
    line.push_str(&format!(", {} published", counted(mqtt.published, "message")));
    if mqtt.pending > 0 {
        line.push_str(&format!(", {} waiting", thousands(mqtt.pending)));
    }
    if mqtt.received > 0 {
        line.push_str(&format!(", {} made of messages", counted(mqtt.received, "document")));
    }
    out.line(visible(&line))?;
    for (count, what, last) in
        [(mqtt.skipped, "NOT PUBLISHED", &mqtt.last_skipped), (mqtt.refused, "REFUSED", &mqtt.last_refused)]
    {
        if let Some(last) = last {
            out.line(visible(&format!("    {what}: {}, the last: {last}", thousands(count))))?;
        }
    }
    failure(mqtt.failures, mqtt.error.as_deref(), out)
}

fn print_listener(what: &str, listener: &ListenerStatus, out: &mut Output) -> Result<(), CliError> {
    let state = if listener.listening { "listens on" } else { "does not listen on" };
    out.line(visible(&format!("{what}: {state} {}", listener.address)))?;
    if listener.listening {
        return Ok(());
    }
    failure(listener.failures, listener.error.as_deref(), out)
}

fn print_advert(name: &str, advert: &AdvertTold, out: &mut Output) -> Result<(), CliError> {
    let mut line = format!("  bluetooth {name}: advertises {}", advert.pace);
    if advert.pace == "silent" {
        line = format!("  bluetooth {name}: silent, nobody finds it");
    }
    if advert.pending > 0 {
        let urgent = if advert.urgent { ", urgent" } else { "" };
        line.push_str(&format!(", {} that no peer has{urgent}", counted(advert.pending, "change")));
    }
    if advert.control == "registration" {
        line.push_str("; BlueZ takes no interval, that of main.conf holds");
    }
    out.line(visible(&line))
}

fn print_upstream(upstream: &UpstreamStatus, now: u64, out: &mut Output) -> Result<(), CliError> {
    let mut line = format!("  upstream {}: {}, {}", upstream.name, upstream.activity, upstream.address);
    line.push_str(&synced(upstream.last_synced_s, upstream.documents, upstream.pending, now));
    if let Some(next) = upstream.next_s.filter(|next| *next > now) {
        line.push_str(&format!(", next in {}", duration(next - now)));
    }
    out.line(visible(&line))?;
    match &upstream.error {
        Some(error) => failure(upstream.failures, Some(error), out),
        None => Ok(()),
    }
}

fn print_neighbour(neighbour: &NeighbourStatus, now: u64, out: &mut Output) -> Result<(), CliError> {
    let state = match neighbour.connected {
        true => "connected".to_owned(),
        false => format!("heard {}", ago(now, neighbour.last_heard_s)),
    };
    let mut line = format!("  neighbour {}: {state}", neighbour.name);
    line.push_str(&synced(neighbour.last_synced_s, neighbour.documents, neighbour.pending, now));
    out.line(visible(&line))?;
    match &neighbour.error {
        Some(error) => failure(neighbour.failures, Some(error), out),
        None => Ok(()),
    }
}

fn synced(last_s: Option<u64>, documents: u64, pending: u64, now: u64) -> String {
    let mut text = match last_s {
        Some(last) => format!(", in sync {}", ago(now, last)),
        None => ", never in sync".to_owned(),
    };
    text.push_str(&format!(", {}", counted(documents, "document")));
    if pending > 0 {
        text.push_str(&format!(", {} to go", thousands(pending)));
    }
    text
}

/// What fails, and how often it has.
fn failure(failures: u64, error: Option<&str>, out: &mut Output) -> Result<(), CliError> {
    match error {
        Some(error) => out.line(visible(&format!("    {}: {error}", counted(failures, "failure")))),
        None => Ok(()),
    }
}

pub(crate) fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", duration(seconds)),
    }
}

/// Two units at most.
pub(crate) fn duration(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
