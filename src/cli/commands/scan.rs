//! `gattway scan`: the devices nearby.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::sync::Notify;

use crate::cli::support::ble::cli_error;
use crate::cli::support::error::CliError;
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::{Output, note, stdout_is_terminal};
use crate::cli::support::runtime::{self, Signals};
use crate::cli::support::security::{Security, SecurityArgs};
use crate::cli::support::sink::Sink;
use crate::cli::support::visible::visible_json;
use crate::database::Database;
use crate::secure::advert::Urgency;
use crate::transport::bluez::Bluez;
use crate::transport::bluez::adapter::Adapter;
use crate::transport::bluez::profile::{AdvertCodec, AdvertState, PlainAdvert, Sighting};
use crate::transport::bluez::scan::{Neighbour, Scan};
use crate::transport::bluez::sealed::SealedAdvert;

/// How long the end of the command waits for a reader that does not go on.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Show the gattway devices nearby, live.
///
/// Only adverts that are received now count. On a terminal the table follows until Ctrl-C; otherwise, and with --json, a
/// line is printed for each device when it is first seen and when it changes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway scan
  gattway --db gateway.db scan                # names the peers that this database knows
  gattway scan --seconds 5 --json
  gattway scan --adapter hci1")]
pub(crate) struct ScanArgs {
    /// The adapter, by name (hci0) or address [default: the first]
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,

    /// Stop after this time [default: at Ctrl-C]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A neighbour as scripts read it.
#[derive(Serialize)]
struct Row<'a> {
    address: String,
    name: Option<&'a str>,
    rssi_dbm: Option<i16>,
    /// The name of the peer in the trust list of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// When the advert was received, milliseconds since 1970.
    seen_ms: u64,
    /// How the state is told: to everybody, or sealed for those who hold a key.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<u32>,
    /// Whether it says that what it has is urgent.
    #[serde(skip_serializing_if = "Option::is_none")]
    urgency: Option<&'static str>,
}

impl Row<'_> {
    fn of<'a>(neighbour: &'a Neighbour, codec: &dyn AdvertCodec) -> Row<'a> {
        let open = AdvertState::decode(&neighbour.state);
        let said = match open {
            Some(AdvertState { device, change, urgency, .. }) => Some(Sighting { device, change, urgency }),
            None => codec.read(&neighbour.state),
        };
        Row {
            address: neighbour.address.to_string(),
            name: neighbour.name.as_deref(),
            rssi_dbm: neighbour.rssi,
            peer: codec.name(&neighbour.state),
            seen_ms: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u64),
            state: match open {
                Some(AdvertState::PAIRING) => "pairing",
                Some(_) => "open",
                None => "sealed",
            },
            group: open.map(|state| state.group),
            device: said.map(|said| format!("{:08x}", said.device)),
            change: said.map(|said| said.change),
            urgency: said.map(|said| match said.urgency {
                Urgency::None => "none",
                Urgency::Pending => "pending",
                Urgency::Urgent => "urgent",
            }),
        }
    }
}

/// Reads sealed adverts as the database can that was named, if one was.
fn scan_codec(global: &GlobalArgs) -> Result<Arc<dyn AdvertCodec>, CliError> {
    let open = || Arc::new(PlainAdvert { group: 0, device: 0 });
    let Some(path) = global.db.as_ref().filter(|path| Database::exists(path)) else { return Ok(open()) };
    let (security, trust_refresher) = SecurityArgs::default().open(path)?;
    Ok(match (&security, trust_refresher.trust()) {
        (Security::Secure(config), Some(trust)) => {
            Arc::new(SealedAdvert::new(Arc::clone(trust), Arc::clone(&config.identity), true, 0))
        }
        _ => open(),
    })
}

pub(crate) fn run(global: &GlobalArgs, args: &ScanArgs) -> Result<(), CliError> {
    let codec = scan_codec(global)?;
    runtime::block_on(async {
        let mut signals = Signals::listen()?;
        let adapter = Adapter::open(&Bluez::default(), args.adapter.as_deref()).await.map_err(cli_error)?;
        let mut scan = Scan::start(&adapter).await.map_err(cli_error)?;
        let end = args.seconds.map(|s| tokio::time::Instant::now() + Duration::from_secs(s));
        let live = !args.json && stdout_is_terminal();
        let rows = if live { None } else { Some(Rows::start(args.json)) };
        let mut table = Table { rows, codec, seen: BTreeMap::new(), lines: 0 };
        loop {
            let over = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                neighbour = scan.next() => match neighbour {
                    Ok(neighbour) => table.seen(neighbour)?,
                    Err(error) => return Err(cli_error(error)),
                },
                () = over => break,
                () = signals.next() => break,
                () = reader_gone(table.rows.as_ref()) => break,
            }
        }
        if let Some(rows) = &table.rows {
            rows.sink.flush(END_PATIENCE);
        }
        if table.seen.is_empty() {
            note("no gattway device was seen");
        }
        Ok(())
    })
}

const TITLE: &str = "ADDRESS            RSSI      NAME                 GROUP    DEVICE    CHANGE   ";

/// Lines for whoever reads them; nobody waits for that.
struct Rows {
    sink: Sink,
    /// The reader is gone.
    gone: Arc<Notify>,
    json: bool,
    /// The title is still to be printed.
    untitled: bool,
}

impl Rows {
    fn start(json: bool) -> Rows {
        let gone = Arc::new(Notify::new());
        let told = Arc::clone(&gone);
        let tell = move |lines: u64| {
            let text = match json {
                true => format!("{{\"event\":\"dropped\",\"events\":{lines}}}\n"),
                false => format!("{lines} lines were dropped here: nobody read them\n"),
            };
            text.into_bytes()
        };
        let sink = Sink::start("gattway-scan", io::stdout(), tell, move || told.notify_one());
        Rows { sink, gone, json, untitled: true }
    }

    fn push(&mut self, neighbour: &Neighbour, codec: &dyn AdvertCodec) {
        let mut text = if self.json {
            // A row has no key that is not text and no number that JSON does not know.
            let row = serde_json::to_string(&Row::of(neighbour, codec)).unwrap_or_default();
            visible_json(&row).into_owned()
        } else {
            let title = if std::mem::take(&mut self.untitled) { format!("{TITLE}\n") } else { String::new() };
            title + &line(neighbour, codec, None)
        };
        text.push('\n');
        self.sink.push(text.into_bytes());
    }
}

/// Completes when nobody reads the lines any more.
async fn reader_gone(rows: Option<&Rows>) {
    match rows {
        Some(rows) => rows.gone.notified().await,
        None => std::future::pending().await,
    }
}

/// Who was seen, and when last.
struct Table {
    /// Where lines go as they come; `None`: the table is drawn on a terminal.
    rows: Option<Rows>,
    codec: Arc<dyn AdvertCodec>,
    seen: BTreeMap<String, (Neighbour, Option<Instant>)>,
    lines: usize,
}

impl Table {
    fn seen(&mut self, neighbour: Neighbour) -> Result<(), CliError> {
        let key = neighbour.address.to_string();
        let old = self.seen.insert(key, (neighbour.clone(), Some(Instant::now())));
        // The state of a stranger is another one each time, although nothing may have changed.
        let changed = old.is_none_or(|(old, _)| {
            old.name != neighbour.name
                || (old.state != neighbour.state
                    && (self.codec.read(&old.state), AdvertState::decode(&old.state))
                        != (self.codec.read(&neighbour.state), AdvertState::decode(&neighbour.state)))
        });
        match &mut self.rows {
            None => return self.draw(),
            Some(rows) if changed => rows.push(&neighbour, &*self.codec),
            Some(_) => {}
        }
        Ok(())
    }

    fn draw(&mut self) -> Result<(), CliError> {
        let mut out = Output::new();
        if self.lines > 0 {
            // Up to the table's first line, and clear from there.
            out.steer(&format!("\x1b[{}A\x1b[J", self.lines))?;
        }
        out.line(format!("{TITLE} SEEN"))?;
        for (neighbour, at) in self.seen.values() {
            out.line(line(neighbour, &*self.codec, *at))?;
        }
        self.lines = self.seen.len() + 1;
        out.flush()
    }
}

fn line(neighbour: &Neighbour, codec: &dyn AdvertCodec, at: Option<Instant>) -> String {
    let row = Row::of(neighbour, codec);
    let rssi = row.rssi_dbm.map_or_else(|| "?".to_owned(), |r| format!("{r} dBm"));
    let seen = at.map_or_else(String::new, |at| format!("{} s ago", at.elapsed().as_secs()));
    let name = row.peer.as_deref().or(row.name).unwrap_or("-");
    let group = row.group.filter(|_| row.state == "open").map_or_else(|| row.state.into(), |g| g.to_string());
    let device = row.device.unwrap_or_else(|| "-".to_owned());
    let change = row.change.map_or_else(|| "-".to_owned(), |change| change.to_string());
    format!("{:<18} {rssi:<9} {name:<20} {group:<8} {device:<9} {change:<9} {seen}", row.address)
        .trim_end()
        .to_owned()
}
