//! The options of `gattway sync`.

use std::time::Duration;

use clap::Args;

use crate::cli::support::feed::FeedArgs;
use crate::cli::support::quota::QuotaArgs;
use crate::cli::support::security::SecurityArgs;
use crate::gateway::address::PlaceAddress;

/// Sync with a peer, once or continuously.
///
/// Both directions, unless --push or --pull alone is given. Every document that was reported as done is on stable storage of
/// the side that received it. Interrupted, it continues where it was the next time.
///
/// What one side refuses is named and left out, the rest is synced, and the exit code is 7: documents, for what they are; and,
/// unless they are named with --collection, collections that the peer lacks, or what it may not do or does not let us do.
/// `gattway db unsynced` lists the documents. They are tried again when they were changed, or with --retry.
///
/// With --json, standard output has one event a line: `status` (activity, completed, total, documents), `document` (those
/// that failed; all with --documents), `conflict` (both sides had changed a document: `outcome` tells what was kept), `unsynced` (when that has changed), `suppressed` (how many
/// `document` or `conflict` events were left out, for they came too fast; none with --documents), `saved` and `rejected` (of --import), and last
/// `finished`. Nobody waits for whoever reads them: events beyond 1 MiB that were not read are left out, and `dropped`
/// tells how many. A reader that ends ends nothing else.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db sensor.db sync ble:any
  gattway --db sensor.db sync ble:any --continuous   # every neighbour that has something new, several at a time
  gattway --db sensor.db sync tcp:gateway.local:4985
  gattway --db sensor.db sync tcp:gateway.local:4985 --push --collection plant.readings
  gattway --db gateway.db sync wss://sync.example/plant --user gateway-7 --password-file secret.txt --plain --continuous
  my-sensor | gattway --db sensor.db sync unix:/run/gateway.sock --continuous --import - --id-from time --json")]
pub(crate) struct SyncArgs {
    /// The peer: ble:ADDRESS, ble:NAME or ble:any, tcp:HOST:PORT, unix:PATH, ws://HOST:PORT/DATABASE or
    /// wss://..., or stdio
    #[arg(value_name = "ADDRESS")]
    pub(super) address: PlaceAddress,

    #[cfg(feature = "bluetooth")]
    #[command(flatten)]
    pub(super) ble: crate::cli::support::ble::BleArgs,

    /// Send documents to the peer
    #[arg(long)]
    pub(super) push: bool,

    /// Get documents from the peer
    #[arg(long)]
    pub(super) pull: bool,

    /// Stay connected and pass on every change, until Ctrl-C; connect again after a failure
    #[arg(long)]
    pub(super) continuous: bool,

    /// A collection to sync, again for more; unless given, all that the database has when it starts
    #[arg(long = "collection", short, value_name = "NAME")]
    pub(super) collections: Vec<String>,

    /// Create the collections that do not exist here
    #[arg(long)]
    pub(super) create_collections: bool,

    /// Forget what was synced before and compare everything again
    #[arg(long)]
    pub(super) reset: bool,

    /// Try again what earlier syncs could not (`gattway db unsynced` lists it)
    #[arg(long)]
    pub(super) retry: bool,

    /// Name of the peer that outlives its address: what was synced before is remembered under it [default: the address]
    #[arg(long, value_name = "NAME")]
    pub(super) peer: Option<String>,

    /// Attempts to connect before giving up, counted again after each success [default: 3, or no limit if --continuous]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) attempts: Option<u32>,

    /// Longest wait between two attempts, which doubles from two seconds [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(super) retry_wait: Option<Duration>,

    #[command(flatten)]
    pub(super) quota: QuotaArgs,

    #[cfg(feature = "websocket")]
    #[command(flatten)]
    pub(super) web: crate::cli::support::web::WebClientArgs,

    #[command(flatten)]
    pub(super) security: SecurityArgs,

    /// Events for scripts on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// With --json: an event for each document as well
    #[arg(long, requires = "json")]
    pub(super) documents: bool,

    // Last: its heading goes on over what follows.
    #[command(flatten)]
    pub(super) feed: FeedArgs,
}

impl SyncArgs {
    /// What is taken of a peer: one that is called again and again without anybody looking on is limited unless somebody has said
    /// otherwise, one sync only then.
    pub(super) fn quota(&self) -> Option<QuotaArgs> {
        if self.continuous { Some(self.quota.clone()) } else { self.quota.of_one_sync() }
    }

    /// Whether the way itself encrypts, and the server there proves its name.
    pub(super) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "websocket")]
        return matches!(&self.address, PlaceAddress::WebSocket(url) if url.is_tls());
        #[cfg(not(feature = "websocket"))]
        false
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
