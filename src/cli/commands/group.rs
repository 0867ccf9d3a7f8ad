//! `gattway group`: the secret that the devices of one owner share.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde::Serialize;
use zeroize::Zeroizing;

use self::rotate::{AuthorityArgs, RotateArgs};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::{Output, note, stdout_is_terminal};
use crate::cli::support::trust::{group_failed, no_group};
use crate::cli::support::{secret, security, store};
use crate::database::Database;
use crate::secure::epoch::AuthorityKey;
use crate::secure::group::GroupSecret;
use crate::trust::group::Group;

mod line;
mod rotate;

use self::line::now_s;
pub(crate) use self::line::summary;

/// The group of this database: devices that share its secret find each other and may sync.
///
/// The secret is a code of 32 signs that is typed or scanned on each further device. It is never an argument, stands in
/// no log, and is kept in the database's directory, readable for its owner alone. A database is in one group at most. The
/// device that the group was made on can change the secret for all: `group rotate`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  gattway --db gateway.db group create plant-7
  gattway --db gateway.db group show --qr
  gattway --db sensor.db group join                  # asks for the code, does not show it
  gattway --db sensor.db group join --file code.txt
  gattway --db gateway.db group show --json | jq -r .code | ssh sensor gattway --db sensor.db group join")]
pub(crate) enum GroupCommand {
    Create(CreateArgs),
    Join(JoinArgs),
    Show(ShowArgs),
    Rotate(RotateArgs),
    Authority(AuthorityArgs),
    Leave(LeaveArgs),
}

/// Make a group with a new secret, be its first member, and print its code for the others.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name on this device [default: eight digits of its fingerprint]
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// One JSON object, without the secret
    #[arg(long)]
    json: bool,
}

/// Join a group by its code: typed at a prompt, or from standard input or a file.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Its name on this device [default: eight digits of its fingerprint]
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Read the code from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// One JSON object, without the secret
    #[arg(long)]
    json: bool,
}

/// Print the group's code. Whoever sees it can join: mind who looks at the screen, and what keeps the output.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// As a QR code as well
    #[arg(long, conflicts_with = "json")]
    qr: bool,

    /// Name and fingerprint alone, not the secret
    #[arg(long, conflicts_with = "qr")]
    public: bool,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Leave the group and forget its secret. Peers that came by it are not let in any more, unless the list names them.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// A group as scripts read it.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    /// The same on all members; tells nothing of the secret.
    fingerprint: String,
    /// How often the secret was changed; null: not known here.
    epoch: Option<u32>,
    /// Whether this device may change it.
    authority: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn new(group: &'a Group, code: Option<&'a str>) -> Row<'a> {
        let (fingerprint, epoch, authority) = (group.fingerprint(), group.epoch(), group.is_authority());
        Row { name: group.name(), fingerprint, epoch, authority, code }
    }
}

pub(crate) fn run(global: &GlobalArgs, command: &GroupCommand) -> Result<(), CliError> {
    security::keep_secrets_in_memory();
    let path = global.db_path()?;
    match command {
        GroupCommand::Create(args) => {
            refuse_second(path)?;
            let directory = store::private_directory(path)?;
            let group = found(&directory, args.name.as_deref())?;
            group.store(&directory).map_err(group_failed)?;
            if args.json { told(&group, true) } else { print_code(&group, false) }
        }
        GroupCommand::Join(args) => join(path, args),
        GroupCommand::Show(args) => show(&store::existing_directory(path)?, args),
        GroupCommand::Rotate(args) => rotate::rotate(&store::existing_directory(path)?, args),
        GroupCommand::Authority(args) => rotate::authority(&store::existing_directory(path)?, args),
        GroupCommand::Leave(args) => leave(&store::existing_directory(path)?, args),
    }
}

fn refuse_second(directory: &Path) -> Result<(), CliError> {
    if !Database::exists(directory) {
        return Ok(());
    }
    match Group::load(directory).map_err(group_failed)? {
        None => Ok(()),
        Some(group) => Err(CliError::new(
            Exit::Input,
            format!("this database is in group {:?} ({})", group.name(), group.fingerprint()),
        )
        .help("a database is in one group at most: `gattway group leave` first")),
    }
}

/// A new group, whose secret this database may change later.
fn found(directory: &Path, name: Option<&str>) -> Result<Group, CliError> {
    let me = security::identity(directory)?.id();
    let key = AuthorityKey::from_bytes(*secret::random()?);
    Group::found(name, key, *secret::random()?, me, now_s()).map_err(group_failed)
}

fn join(directory: &Path, args: &JoinArgs) -> Result<(), CliError> {
    refuse_second(directory)?;
    let code = secret::read("the group's code", args.file.as_deref())?;
    let secret = GroupSecret::parse(&code).map_err(|error| {
        CliError::new(Exit::Input, error.to_string())
            .help("`gattway group show` on a member prints the code; blanks, hyphens and small letters do not matter")
    })?;
    told(&keep(directory, args.name.as_deref(), secret)?, args.json)
}

/// Makes the database too, if there is none: not before the code was taken.
fn keep(path: &Path, name: Option<&str>, secret: GroupSecret) -> Result<Group, CliError> {
    let group = Group::new(name, secret).map_err(group_failed)?;
    group.store(&store::private_directory(path)?).map_err(group_failed)?;
    Ok(group)
}

/// Says which group it is now, without its secret.
fn told(group: &Group, json: bool) -> Result<(), CliError> {
    let mut out = Output::new();
    if json {
        out.json(&Row::new(group, None))?;
    } else {
        out.line(summary(group))?;
    }
    out.flush()
}

fn show(directory: &Path, args: &ShowArgs) -> Result<(), CliError> {
    let group = Group::load(directory).map_err(group_failed)?.ok_or_else(no_group)?;
    if args.public {
        return told(&group, args.json);
    }
    if args.json {
        let (code, mut out) = (group.secret().code(), Output::new());
        out.json(&Row::new(&group, Some(&code)))?;
        return out.flush();
    }
    print_code(&group, args.qr)
}

/// Shows the secret to whoever looks.
fn print_code(group: &Group, as_picture: bool) -> Result<(), CliError> {
    let mut out = Output::new();
    if as_picture {
        out.steer(&picture(&group.secret().qr_text(), stdout_is_terminal())?)?;
        out.line("")?;
    }
    out.line(&*group.secret().code())?;
    out.flush()?;
    note(&format!(
        "group {:?}, fingerprint {}: whoever has seen this code can join (`gattway group join`) and may sync",
        group.name(),
        group.fingerprint()
    ));
    Ok(())
}

/// A QR code of half blocks. In colour it is black on white whatever the terminal's colours are.
fn picture(text: &str, colour: bool) -> Result<Zeroizing<String>, CliError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M)
        .map_err(|error| CliError::new(Exit::Failure, format!("the QR code: {error}")))?;
    let drawn = Zeroizing::new(code.render::<Dense1x2>().quiet_zone(true).build());
    if !colour {
        return Ok(drawn);
    }
    let mut lines = Zeroizing::new(String::with_capacity(drawn.len() * 2));
    for line in drawn.lines() {
        lines.push_str("\x1b[30;107m");
        lines.push_str(line);
        lines.push_str("\x1b[0m\n");
    }
    Ok(lines)
}

fn leave(directory: &Path, args: &LeaveArgs) -> Result<(), CliError> {
    // A damaged file can be left too: that is the way out.
    let group = Group::load(directory).ok().flatten();
    if !Group::leave(directory).map_err(group_failed)? {
        return Err(no_group());
    }
    match (args.json, group) {
        (true, group) => {
            let mut out = Output::new();
            out.json(&serde_json::json!({ "left": group.as_ref().map(Group::name) }))?;
            out.flush()
        }
        (false, Some(group)) => {
            note(&format!("left group {:?} ({})", group.name(), group.fingerprint()));
            Ok(())
        }
        (false, None) => {
            note("left the group; its file could not be read any more");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_square_and_has_a_border() {
        let text = GroupSecret::from_bytes([7; 16]).qr_text();
        let drawn = picture(&text, false).expect("a picture");
        let lines: Vec<usize> = drawn.lines().map(|line| line.chars().count()).collect();
        assert!(lines.iter().all(|width| *width == lines[0]));
        assert!(lines[0].div_ceil(2) == lines.len() && lines[0] <= 45, "{lines:?}");
        assert!(picture(&text, true).expect("a picture").lines().all(|line| line.ends_with("\x1b[0m")));
    }
}
