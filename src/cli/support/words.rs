//! Standard error, where commands speak to people: notes, errors, logs, bars. All of it goes one way, through a [`Sink`], so that
//! it stays in order and a reader that has stopped (a full pipe, Ctrl-S) holds up nobody.
//!
//! With `--log-format json` everything is a JSON object a line, notes and errors in the form of log lines.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::cli::support::sink::Sink;
use crate::cli::support::visible::{visible, visible_json};

/// How long the end of the process waits for a reader that does not go on.
const END_PATIENCE: Duration = Duration::from_secs(1);

static SINK: OnceLock<Sink> = OnceLock::new();
static IS_JSON: AtomicBool = AtomicBool::new(false);
static TELLS_TIME: AtomicBool = AtomicBool::new(false);

/// How a line is marked among log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// Takes what this needs of the system while there is enough of it.
pub(crate) fn start() {
    sink();
}

/// Everything is JSON from now on.
pub(crate) fn use_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Whether a program reads this.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

fn sink() -> &'static Sink {
    let tell =
        |dropped| in_form(Level::Warn, &format!("{dropped} lines were dropped here: nobody read them"), None);
    SINK.get_or_init(|| Sink::start("gattway-stderr", io::stderr(), tell, || ()))
}

/// Lines have the time from now on: who reads them later wants to know.
pub(crate) fn tell_time() {
    TELLS_TIME.store(true, Ordering::Relaxed);
}

/// Says something in one line; `help`: what to do now.
pub(crate) fn say(level: Level, line: &str, help: Option<&str>) {
    sink().push(in_form(level, line, help));
}

/// An end of line in what a peer chose does not make a line of its own.
fn in_form(level: Level, line: &str, help: Option<&str>) -> Vec<u8> {
    let mut text = if is_json() {
        let mut fields = Map::from_iter([("message".to_owned(), Value::from(line))]);
        fields.extend(help.map(|help| ("help".to_owned(), help.into())));
        let name = match level {
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        };
        let line = json!({"timestamp": time(), "level": name, "fields": fields, "target": "gattway"});
        visible_json(&line.to_string()).into_owned()
    } else {
        let at = if TELLS_TIME.load(Ordering::Relaxed) { format!("{} ", second()) } else { String::new() };
        let help = help.map_or_else(String::new, |help| format!("\n  -> {}", visible(help)));
        format!("{at}{}{help}", visible(line))
    };
    text.push('\n');
    text.into_bytes()
}

/// Now, as log lines have it.
fn time() -> String {
    let mut text = String::new();
    // Fails only if the text cannot grow.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// The same without fractions, which nobody needs among words.
fn second() -> String {
    let time = time();
    time.split_once('.').map_or(time.clone(), |(second, _)| format!("{second}Z"))
}

/// Something for a terminal that the next one replaces.
pub(crate) fn draw(bytes: Vec<u8>) {
    sink().push_passing(bytes);
}

/// Waits until all was written, unless nothing is for `patience`.
pub(crate) fn flush(patience: Duration) {
    if let Some(sink) = SINK.get() {
        sink.flush(patience);
    }
}

/// The process ends now.
pub(crate) fn end() {
    flush(END_PATIENCE);
}

/// Takes log lines, each with one write.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = match std::str::from_utf8(bytes) {
            Ok(line) if is_json() => visible_json(line).into_owned().into_bytes(),
            Ok(line) => with_colours(line).into_bytes(),
            Err(_) => bytes.to_vec(),
        };
        sink().push(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes what steers a terminal, and every end of line but the last, so that no text of a peer looks like a line of ours; but not the
/// colours of log lines: what is logged has them escaped already.
fn with_colours(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let (mut rest, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
    while let Some((before, sequence)) = rest.split_once("\x1b[") {
        let end = sequence.find(|c: char| !c.is_ascii_digit() && c != ';');
        text.push_str(&visible(before));
        match end.filter(|&end| sequence[end..].starts_with('m')) {
            Some(end) => {
                text.push_str("\x1b[");
                text.push_str(&sequence[..=end]);
                rest = &sequence[end + 1..];
            }
            None => {
                text.push_str("\\u{1b}[");
                rest = sequence;
            }
        }
    }
    text.push_str(&visible(rest));
    text.push_str(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_keep_their_colours_and_nothing_else() {
        assert_eq!(with_colours("\x1b[33m WARN\x1b[0m a\n"), "\x1b[33m WARN\x1b[0m a\n");
        assert_eq!(with_colours("a\x1b[2Jb\x1b]0;t\x07"), "a\\u{1b}[2Jb\\u{1b}]0;t\\u{7}");
        assert_eq!(with_colours("\x1b["), "\\u{1b}[");
        assert_eq!(with_colours("a\nb\n"), "a\\u{a}b\n");
    }
}
