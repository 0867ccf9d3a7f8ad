//! Logs: to standard error, as text or as JSON lines, at the level of `-v` or of `RUST_LOG`.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::cli::support::flood::{BURST, EVERY, Limiter};
use crate::cli::support::global::{GlobalArgs, LogFormat};
use crate::cli::support::words::{self, LogWriter};

/// Without `-v`: warnings, but not of what commands tell in words of their own.
const QUIET: &str = "warn,gattway::replicator::service=error,gattway::database::store::writer=error";

/// Starts logging for the rest of the process. `RUST_LOG` wins over `-v`.
pub(crate) fn start(global: &GlobalArgs) {
    words::start();
    let level = match global.verbose {
        0 => QUIET,
        1 => "gattway=info,warn",
        2 => "gattway=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogWriter)
        .with_ansi(io::stderr().is_terminal());
    // Fails only if a subscriber is set already, which then serves as well.
    let _ = match global.log_format {
        LogFormat::Text => builder.finish().with(Limited).try_init(),
        LogFormat::Json => {
            words::use_json();
            std::panic::set_hook(Box::new(|panic| {
                words::say(words::Level::Error, &panic.to_string(), None);
            }));
            builder.json().finish().with(Limited).try_init()
        }
    };
    hide_contained_panics();
}

/// Shows no panic that ends in the store as an error: the error is told.
fn hide_contained_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crate::database::contains_panics() {
            usual(panic);
        }
    }));
}

/// Log lines by the place in the code that writes them.
static LINES: Mutex<Option<Limiter<Place>>> = Mutex::new(None);

/// A place in the code, with where it is for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    callsite: Identifier,
    target: &'static str,
}

impl Place {
    fn new(metadata: &'static Metadata<'static>) -> Place {
        Place { callsite: metadata.callsite(), target: metadata.target() }
    }
}

/// Nothing under this lock can be left half done.
fn lines() -> MutexGuard<'static, Option<Limiter<Place>>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves out what one place in the code says too often, since peers can bring it to that. Details (`-vv`) are asked for by
/// name, and are all told.
struct Limited;

impl<S: Subscriber> Layer<S> for Limited {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let place = Place::new(metadata);
        let told = lines().get_or_insert_with(|| Limiter::new(BURST, EVERY)).ask(&place, Instant::now());
        if let Some(left_out @ 1..) = told {
            tell(left_out, place.target);
        }
        told.is_some()
    }
}

fn tell(left_out: u64, target: &str) {
    words::say(words::Level::Warn, &format!("{left_out} more log lines of {target} were left out"), None);
}

/// Tells how many log lines were left out, where nothing more came since; to be called now and then.
pub(crate) fn tell_left_out() {
    let due = lines().as_mut().map_or_else(Vec::new, |lines| lines.due(Instant::now()));
    for (place, left_out) in due {
        tell(left_out, place.map_or("others", |place| place.target));
    }
}

/// The same at the end, of all places together.
pub(crate) fn tell_rest() {
    let left_out = lines().as_mut().map_or_else(Vec::new, Limiter::rest);
    let left_out: u64 = left_out.into_iter().map(|(_, left_out)| left_out).sum();
    if left_out > 0 {
        tell(left_out, "all parts");
    }
}
