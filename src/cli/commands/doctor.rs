//! `gattway doctor`: is this machine fit for Bluetooth, and what to do if not.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use rustix::fs::StatVfsMountFlags;

use crate::cli::commands::group::summary;
use crate::cli::commands::peers;
use crate::cli::commands::status::{self, SocketArgs};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::{Output, counted};
use crate::cli::support::{condition, runtime};
use crate::database::{Database, DatabaseConfig, DatabaseError};
use crate::gateway::status::DatabaseStatus;
use crate::transport::bluez::doctor::{Finding, Level, examine};
use crate::trust::group::Group;
use crate::trust::list::TrustList;
use crate::trust::problems;

/// Check this machine's Bluetooth: kernel, BlueZ, permissions, switches, adapters, Wi-Fi beside it, a container around it.
///
/// Also the system's clock, and of the database that --db names its identity, group and trust list, its clock, how its medium
/// is mounted, and whether another device has a copy of it; of a gateway that runs, whether it has room and its rules of retention
/// are met. Changes nothing. Each finding says what to do. Exit code 1 if something cannot work here.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway doctor
  gattway doctor --json && systemctl start gattway")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    socket: SocketArgs,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(global: &GlobalArgs, args: &DoctorArgs) -> Result<(), CliError> {
    let mut findings = runtime::block_on(async { Ok::<_, CliError>(examine().await) })?;
    findings.push(system_clock());
    if let Some(path) = global.db.as_ref().filter(|path| Database::exists(path)) {
        findings.extend(security(path));
        findings.extend(group(path));
        findings.extend(database(path));
        findings.extend(medium(path));
    }
    if let Some(status) = status::of_running(&args.socket) {
        findings.extend(status.databases.iter().flat_map(kept));
    }
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
        n => Err(CliError::new(
            Exit::Failure,
            format!("{} found, without whose mending it cannot work here", counted(n as u64, "problem")),
        )),
    }
}

fn finding(check: &str, level: Level, found: impl Into<String>, advice: &str) -> Finding {
    Finding { check: check.into(), level, found: found.into(), advice: advice.into() }
}

fn system_clock() -> Finding {
    if Database::is_clock_plausible() {
        return finding("clock", Level::Ok, "the system's clock is set", "");
    }
    let advice =
        "set it: NTP, a battery-backed clock, or `date -s`; until then edits made here lose conflicts";
    finding("clock", Level::Warning, "the system's clock was never set", advice)
}

/// What is wrong with the files that decide who may come in.
fn security(path: &Path) -> Vec<Finding> {
    let problems = problems::problems(path);
    problems.iter().map(|it| finding("security", Level::Problem, it.found.as_str(), &it.advice)).collect()
}

/// How far a new secret of the group has come.
fn group(path: &Path) -> Option<Finding> {
    let group = Group::load(path).ok().flatten()?;
    let list = TrustList::load(path).ok()?;
    let Some(signed) = group.signed().filter(|signed| signed.number() > 0) else {
        return Some(finding("group", Level::Ok, summary(&group), ""));
    };
    let behind = peers::behind(&list, Some(signed));
    let text = peers::epoch_text(signed.number(), behind.len() as u64);
    if behind.is_empty() {
        return Some(finding("group", Level::Ok, text, ""));
    }
    let last_s = behind.iter().filter_map(|id| list.get(id)).map(|peer| peer.last_seen_s).max().unwrap_or(0);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let last = if last_s == 0 { "never".into() } else { peers::ago(now_s.saturating_sub(last_s)) };
    let advice = "they get it when they come by; `gattway peers ls` lists them, one that is lost for good may be denied or forgotten";
    Some(finding("group", Level::Advice, format!("{text}, the last of them seen {last}"), advice))
}

/// What the versions of a database say of its clock, and of a copy.
fn database(path: &Path) -> Vec<Finding> {
    let config = DatabaseConfig { create: false, read_only: true, ..DatabaseConfig::default() };
    let (db, ahead) = match Database::open(path, config).and_then(|db| Ok((db.count_ahead()?, db))) {
        Ok((ahead, db)) => (db, ahead),
        Err(DatabaseError::InUse { .. }) => {
            let advice = "the process that has it open tells of its clock (`clock` and `copy` events)";
            return vec![finding("database", Level::Ok, "in use", advice)];
        }
        Err(error) => {
            let advice = "`gattway db verify` says what is damaged, `gattway db repair` saves what is whole";
            return vec![finding("database", Level::Warning, error.to_string(), advice)];
        }
    };
    let mut found = Vec::new();
    if Database::is_clock_plausible() && db.clock_ahead() > condition::CLOCK_TOLD {
        let advice = "set the system's clock right; once it is, the database follows it";
        found.push(finding("database", Level::Warning, condition::clock_text(db.clock_ahead()), advice));
    }
    if ahead > 0 {
        let text = format!("{} more than a day ahead of the system's clock", counted(ahead, "document"));
        let advice = "set the system's clock right, then `gattway db renew` brings them back";
        found.push(finding("database", Level::Warning, text, advice));
    }
    if let Some(twin) = db.twin() {
        found.push(finding("database", Level::Warning, condition::copy_text(&twin), condition::COPY_HELP));
    }
    if found.is_empty() {
        found.push(finding(
            "database",
            Level::Ok,
            "nothing is ahead of the system's clock, and no copy was noticed",
            "",
        ));
    }
    found
}

/// Whether a gateway that runs has room for a database, and keeps to the rules of what is kept of it.
fn kept(database: &DatabaseStatus) -> Vec<Finding> {
    let mut found = Vec::new();
    if database.full {
        let text = format!("database {}: nothing is stored for want of room", database.name);
        found.push(finding(
            "room",
            Level::Problem,
            text,
            "make room; `gattway status` tells how much is free",
        ));
    }
    for rules in &database.retention {
        let name = format!("retention {} of database {}", rules.name, database.name);
        match rules.error.as_ref().or(rules.held.as_ref()) {
            Some(why) => {
                let advice =
                    "the disk fills up if it stays so; `gattway status` shows the upstream and the room";
                found.push(finding("retention", Level::Warning, format!("{name}: {why}"), advice));
            }
            None => found.push(finding("retention", Level::Ok, format!("{name}: its rules are met"), "")),
        }
    }
    found
}

/// How the file system of a database is mounted; nothing where that cannot be told.
fn medium(path: &Path) -> Option<Finding> {
    rustix::fs::statvfs(path).ok().map(|found| judge_mount(found.f_flag))
}

fn judge_mount(flags: StatVfsMountFlags) -> Finding {
    if flags.contains(StatVfsMountFlags::RDONLY) {
        let advice = "`dmesg` tells whether the kernel did it because the medium fails: then copy what is there with `gattway db backup`";
        return finding(
            "medium",
            Level::Warning,
            "mounted read-only: nothing can be received or written",
            advice,
        );
    }
    if !flags.intersects(StatVfsMountFlags::NOATIME | StatVfsMountFlags::RELATIME) {
        let advice = "mount it with noatime (/etc/fstab): a card wears out by each write";
        return finding(
            "medium",
            Level::Advice,
            "mounted with strictatime: each reading of a file is a write",
            advice,
        );
    }
    finding("medium", Level::Ok, "writable, and reading it writes nothing", "")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_medium_is_mounted_is_judged() {
        let level = |flags| judge_mount(flags).level;
        assert_eq!(level(StatVfsMountFlags::RELATIME), Level::Ok);
        assert_eq!(level(StatVfsMountFlags::NOATIME), Level::Ok);
        assert_eq!(level(StatVfsMountFlags::empty()), Level::Advice);
        assert_eq!(level(StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOATIME), Level::Warning);
    }
}
