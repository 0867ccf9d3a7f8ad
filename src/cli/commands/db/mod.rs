//! `gattway db`: one file a subcommand; what they share is here.

mod attach;
mod backup;
mod blob;
mod changes;
mod collections;
mod create;
mod expire;
mod export;
mod get;
mod import;
pub(in crate::cli) mod index;
mod ls;
mod maintain;
mod put;
pub(in crate::cli) mod query;
mod renew;
mod repair;
mod rm;
mod unsynced;

use clap::{Args, Parser, Subcommand};

use crate::cli::commands::control;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::Output;
use crate::cli::support::reach::{self, Reached};
use crate::cli::support::store;
use crate::database::Database;

/// What can be done with a database.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DbCommand {
    Create(create::CreateArgs),
    Put(put::PutArgs),
    Attach(attach::AttachArgs),
    Detach(attach::DetachArgs),
    #[command(subcommand)]
    Blob(blob::BlobCommand),
    Get(get::GetArgs),
    Ls(ls::LsArgs),
    Rm(rm::RmArgs),
    Expire(expire::ExpireArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Changes(changes::ChangesArgs),
    Collections(collections::CollectionsArgs),
    Info(maintain::InfoArgs),
    Compact(maintain::CompactArgs),
    Verify(maintain::VerifyArgs),
    Repair(repair::RepairArgs),
    Renew(renew::RenewArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Unsynced(unsynced::UnsyncedArgs),
    /// `gattway query`.
    #[command(skip)]
    Query(query::QueryArgs),
    /// `gattway index`.
    #[command(skip)]
    Index(index::IndexCommand),
}

/// Which collection a command works on.
#[derive(Clone, Debug, Args)]
pub(crate) struct CollectionArg {
    /// The collection: `name`, or `scope.name`
    #[arg(short, long, default_value = "_default", value_name = "NAME")]
    pub(crate) collection: String,
}

/// Runs `gattway query`.
pub(crate) fn query(global: &GlobalArgs, args: query::QueryArgs) -> Result<(), CliError> {
    run(global, &DbCommand::Query(args))
}

/// Runs `gattway index`.
pub(crate) fn index(global: &GlobalArgs, command: index::IndexCommand) -> Result<(), CliError> {
    run(global, &DbCommand::Index(command))
}

/// Runs one subcommand on the database.
pub(crate) fn run(global: &GlobalArgs, command: &DbCommand) -> Result<(), CliError> {
    match command {
        DbCommand::Create(args) => return create::run(global.db_path()?, args),
        DbCommand::Import(args) => return import::run(global.db_path()?, args),
        DbCommand::Changes(args) => return changes::run(global, args),
        DbCommand::Attach(args) => return attach::run(global.db_path()?, args),
        DbCommand::Blob(blob::BlobCommand::Get(args)) => return blob::fetch(global.db_path()?, args),
        DbCommand::Verify(args) => return maintain::verify(global.db_path()?, args),
        DbCommand::Repair(args) => return repair::run(global.db_path()?, args),
        DbCommand::Renew(args) => return renew::run(global.db_path()?, args),
        DbCommand::Backup(args) => return backup::backup(global.db_path()?, args),
        DbCommand::Restore(args) => return backup::restore(global.db_path().ok(), args),
        DbCommand::Export(args) if args.keep_going => return export::keep_going(global.db_path()?, args),
        DbCommand::Compact(args) => {
            return maintain::compact(&store::open_existing(global.db_path()?)?, args);
        }
        // Whoever serves a collection counts on it.
        DbCommand::Collections(args) if args.deletes() => {
            let path = global.db_path()?;
            let db = if args.creates() { store::open_or_make(path)? } else { store::open_existing(path)? };
            return collections::run(&db, args, &mut Output::new());
        }
        _ => {}
    }
    let path = global.db_path()?;
    let (reached, input) = match command {
        DbCommand::Put(args) => reach::or_make_for(path, || args.read_input())?,
        DbCommand::Collections(args) if args.creates() => (reach::or_make(path)?, None),
        command if command.only_reads() => (reach::for_reading(path)?, None),
        _ => (reach::existing(path)?, None),
    };
    let mut out = Output::new();
    match (reached, command) {
        (Reached::Own(db), DbCommand::Index(command)) => index::run(&db, command, true, &mut out),
        (Reached::Own(db), _) => perform(&db, command, input, &mut out),
        (Reached::Held(client), _) => control::command::ask(&client, input.as_deref(), &mut out),
    }
}

impl DbCommand {
    /// Whether all it does is to print what an open database holds.
    fn only_reads(&self) -> bool {
        match self {
            DbCommand::Get(_) | DbCommand::Ls(_) | DbCommand::Info(_) | DbCommand::Unsynced(_) => true,
            DbCommand::Query(_) | DbCommand::Blob(_) => true,
            DbCommand::Index(command) => command.only_reads(),
            DbCommand::Export(args) => !args.keep_going,
            DbCommand::Expire(args) => !args.sets(),
            DbCommand::Collections(args) => !args.creates() && !args.deletes(),
            _ => false,
        }
    }
}

/// Prints what the database holds, or changes it; `input` is what the command has read on standard input.
///
/// # Errors
/// There is no such thing, it cannot be saved; a command that needs the database for itself.
fn perform(
    db: &Database,
    command: &DbCommand,
    input: Option<Vec<u8>>,
    out: &mut Output,
) -> Result<(), CliError> {
    match command {
        DbCommand::Get(args) => get::run(db, args, out),
        DbCommand::Ls(args) => ls::run(db, args, out),
        DbCommand::Info(args) => maintain::info(db, args, out),
        DbCommand::Unsynced(args) => unsynced::run(db, args, out),
        DbCommand::Export(args) if !args.keep_going => export::run(db, args, out),
        DbCommand::Expire(args) if args.sets() => expire::set(db, args, out),
        DbCommand::Expire(args) => expire::print(db, args, out),
        DbCommand::Collections(args) if !args.deletes() => collections::run(db, args, out),
        DbCommand::Put(args) => put::run(db, args, input, out),
        DbCommand::Rm(args) => rm::run(db, args, out),
        DbCommand::Detach(args) => attach::detach(db, args, out),
        DbCommand::Blob(command) => blob::run(db, command, out),
        DbCommand::Query(args) => query::run(db, args, out),
        DbCommand::Index(command) => index::run(db, command, false, out),
        _ => Err(CliError::new(Exit::Usage, "this needs the database for itself")),
    }
}

/// A command line of which the socket was told.
#[derive(Parser)]
#[command(name = "gattway")]
struct Asked {
    #[command(flatten)]
    _global: GlobalArgs,
    #[command(subcommand)]
    command: AskedCommand,
}

#[derive(Subcommand)]
enum AskedCommand {
    #[command(subcommand)]
    Db(DbCommand),
    Query(query::QueryArgs),
    #[command(subcommand)]
    Index(index::IndexCommand),
}

/// Does what the command of another process is to do with the database that this one has open.
///
/// # Errors
/// As of [`perform`]; it is no such command.
pub(crate) fn print_asked(
    db: &Database,
    args: Vec<String>,
    input: Option<Vec<u8>>,
    out: &mut Output,
) -> Result<(), CliError> {
    let asked = Asked::try_parse_from(std::iter::once("gattway".to_owned()).chain(args));
    let unknown =
        |_| CliError::new(Exit::Usage, "the process that has the database does not know this command");
    let command = match asked.map_err(unknown)?.command {
        AskedCommand::Db(command) => command,
        AskedCommand::Query(args) => DbCommand::Query(args),
        AskedCommand::Index(command) => DbCommand::Index(command),
    };
    perform(db, &command, input, out)
}
