//! What commands print: results on standard output, one JSON value a line for scripts; words for people on standard error.
//!
//! Everything that people see passes through here, so that nothing that a peer chose steers their terminal; what goes to
//! standard error waits for nobody ([`words`]).

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use crate::cli::support::error::CliError;
use crate::cli::support::visible::{visible, visible_json, visible_lines};
use crate::cli::support::words;

/// How long standard error is given to take a line before a result follows on the terminal.
const ORDER_PATIENCE: Duration = Duration::from_millis(100);

/// Takes lines that stand beside the output.
type Notes = Box<dyn Fn(&str)>;

/// Standard output, or what stands for it, buffered until [`flush`](Self::flush) or drop.
pub(crate) struct Output {
    out: io::BufWriter<Box<dyn Write>>,
    for_people: bool,
    /// Where notes go, if not to this process's standard error.
    notes: Option<Notes>,
}

impl Output {
    /// Takes standard output.
    pub(crate) fn new() -> Output {
        let for_people = stdout_is_terminal();
        if for_people && stderr_is_terminal() {
            // What was said before stands before.
            words::flush(ORDER_PATIENCE);
        }
        Output::to(Box::new(io::stdout().lock()), for_people)
    }

    /// Prints elsewhere; `for_people`: as on a terminal.
    pub(crate) fn to(out: Box<dyn Write>, for_people: bool) -> Output {
        Output { out: io::BufWriter::with_capacity(64 * 1024, out), for_people, notes: None }
    }

    /// Sends notes elsewhere than to standard error.
    pub(crate) fn noting(self, notes: impl Fn(&str) + 'static) -> Output {
        Output { notes: Some(Box::new(notes)), ..self }
    }

    /// Says a line beside the output.
    pub(crate) fn note(&self, line: &str) {
        match &self.notes {
            Some(notes) => notes(line),
            None => note(line),
        }
    }

    /// Whether a person looks at it.
    pub(crate) fn is_for_people(&self) -> bool {
        self.for_people
    }

    /// Prints what was made elsewhere.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Prints one line, or some; on a terminal, what would steer it is escaped.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), CliError> {
        let text = text.as_ref();
        match self.for_people {
            true => self.out.write_all(visible_lines(text).as_bytes())?,
            false => self.out.write_all(text.as_bytes())?,
        }
        self.out.write_all(b"\n")?;
        Ok(())
    }

    /// Prints something that a peer chose, as one line: on a terminal an end of line in it is escaped too.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), CliError> {
        if self.for_people { self.line(visible(text)) } else { self.line(text) }
    }

    /// Moves the cursor of a terminal.
    pub(crate) fn steer(&mut self, sequence: &str) -> Result<(), CliError> {
        Ok(self.out.write_all(sequence.as_bytes())?)
    }

    /// Prints `value` as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        self.json_text(&json_of(value)?)
    }

    /// Prints what [`json_of`] gave.
    pub(crate) fn json_text(&mut self, text: &str) -> Result<(), CliError> {
        self.out.write_all(visible_json(text).as_bytes())?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Prints `value` as JSON that is laid out for reading.
    pub(crate) fn pretty_json(&mut self, value: &serde_json::Value) -> Result<(), CliError> {
        self.out.write_all(visible_json(&format!("{value:#}")).as_bytes())?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Hands everything to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        Ok(self.out.flush()?)
    }
}

/// Prints a line on standard error; nobody waits for whoever reads it.
pub(crate) fn note(line: &str) {
    words::say(words::Level::Info, line, None);
}

/// Whether a person looks at standard output.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person looks at standard error, where progress goes.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// `12345678` as `12,345,678`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 document`, `1,234 documents`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// Bytes for people, in powers of 1024, with one decimal from KiB on.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A value as one line of JSON.
pub(crate) fn json_of(value: &impl Serialize) -> Result<String, CliError> {
    Ok(serde_json::to_string(value).map_err(io::Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(12_345_678), "12,345,678");
        assert_eq!(counted(1, "document"), "1 document");
        assert_eq!(counted(8759, "document"), "8,759 documents");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text(3 << 30), "3.0 GiB");
    }
}
