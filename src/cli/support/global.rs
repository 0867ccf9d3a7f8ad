//! Options that every command knows, and values that several of them take.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::cli::support::error::{CliError, Exit};

/// Options that every command knows.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The database's directory; commands that save something make it if it does not exist
    #[arg(long, global = true, env = "GATTWAY_DB", value_name = "DIR")]
    pub(crate) db: Option<PathBuf>,

    /// Log more to standard error: -v what happens, -vv details, -vvv everything. RUST_LOG wins over it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// How log lines are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl GlobalArgs {
    /// Where the database is.
    pub(crate) fn db_path(&self) -> Result<&PathBuf, CliError> {
        self.db.as_ref().ok_or_else(|| {
            CliError::new(Exit::Usage, "no database was named").help("give --db DIR, or set GATTWAY_DB")
        })
    }
}

/// Reads a number of bytes: `1500`, `500K`, `64M`, `2G`, in powers of 1,024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(1),
        "K" | "KIB" => Some(1 << 10),
        "M" | "MIB" => Some(1 << 20),
        "G" | "GIB" => Some(1 << 30),
        _ => None,
    };
    let bytes =
        digits.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or_else(|| "a number of bytes, as 500K, 64M or 2G".into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("1500", 1500), ("0", 0), ("500K", 512_000), ("2m", 2 << 20), ("3GiB", 3 << 30)]
        {
            assert_eq!(super::parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "12Q", "99999999999G"] {
            assert!(super::parse_size(text).is_err(), "{text}");
        }
    }
}
