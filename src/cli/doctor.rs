//! `gattway doctor`: is this machine fit for Bluetooth, and what to do if not.

use clap::Args;

use super::output::Output;
use super::{CliError, Exit, runtime};
use crate::transport::bluez::doctor::{Finding, Level, examine};

/// Check this machine's Bluetooth: kernel, BlueZ, permissions, switches, adapters.
///
/// Changes nothing. Each finding says what to do. Exit code 1 if Bluetooth cannot work here.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway doctor
  gattway doctor --json && systemctl start gattway")]
pub(super) struct DoctorArgs {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> Result<(), CliError> {
    let findings = runtime::block_on(async { Ok::<_, CliError>(examine().await) })?;
    let mut out = Output::new();
    for finding in &findings {
        if args.json {
            out.json(finding)?;
        } else {
            out.line(line(finding))?;
        }
    }
    out.flush()?;
    match findings.iter().filter(|f| f.level == Level::Problem).count() {
        0 => Ok(()),
        n => Err(CliError::new(Exit::Failure, format!("Bluetooth cannot work here: {n} problem(s)"))),
    }
}

fn line(finding: &Finding) -> String {
    let mark = match finding.level {
        Level::Ok => "ok      ",
        Level::Advice => "advice  ",
        Level::Warning => "warning ",
        Level::Problem => "PROBLEM ",
    };
    let advice = if finding.advice.is_empty() { String::new() } else { format!(" -> {}", finding.advice) };
    format!("{mark} {:<10} {}{advice}", finding.check, finding.found)
}
