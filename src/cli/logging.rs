//! Logs: to standard error, as text or as JSON lines, at the level of `-v` or of `RUST_LOG`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::args::{GlobalArgs, LogFormat};
use super::words::{self, LogWriter};

/// Without `-v`: warnings, but not of what commands tell in words of their own.
const QUIET: &str = "warn,gattway::endpoint::listener=error,gattway::replicator::handle=error,gattway::database::store::writer=error";

/// Starts logging for the rest of the process. `RUST_LOG` wins over `-v`.
pub(super) fn start(global: &GlobalArgs) {
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
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => {
            words::use_json();
            std::panic::set_hook(Box::new(|panic| {
                words::say(words::Level::Error, &panic.to_string(), None);
            }));
            builder.json().try_init()
        }
    };
}
