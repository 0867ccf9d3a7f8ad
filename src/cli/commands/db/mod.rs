//! `gattway db`: one file a subcommand; what they share is here.

mod backup;
mod changes;
mod collections;
mod expire;
mod export;
mod get;
mod import;
mod ls;
mod maintain;
mod put;
mod renew;
mod repair;
mod rm;
mod unsynced;

use std::path::Path;

use clap::{Args, Parser, Subcommand};

use crate::cli::commands::control;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::Output;
use crate::cli::support::store;
use crate::database::Database;

/// What can be done with a database.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DbCommand {
    Put(put::PutArgs),
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
}

/// Which collection a command works on.
#[derive(Debug, Args)]
pub(crate) struct CollectionArg {
    /// The collection: `name`, or `scope.name`
    #[arg(short, long, default_value = "_default", value_name = "NAME")]
    pub(crate) collection: String,
}

/// Runs one subcommand on the database.
pub(crate) fn run(global: &GlobalArgs, command: &DbCommand) -> Result<(), CliError> {
    match command {
        DbCommand::Put(args) => return put::run(global.db_path()?, args),
        DbCommand::Import(args) => return import::run(global.db_path()?, args),
        DbCommand::Changes(args) => return changes::run(global, args),
        DbCommand::Verify(args) => return maintain::verify(global.db_path()?, args),
        DbCommand::Repair(args) => return repair::run(global.db_path()?, args),
        DbCommand::Renew(args) => return renew::run(global.db_path()?, args),
        DbCommand::Backup(args) => return backup::backup(global.db_path()?, args),
        DbCommand::Restore(args) => return backup::restore(global.db_path().ok(), args),
        DbCommand::Export(args) if args.keep_going => return export::keep_going(global.db_path()?, args),
        _ => {}
    }
    if command.only_reads() {
        return read(global.db_path()?, command);
    }
    let db = open(global.db_path()?, command)?;
    match command {
        DbCommand::Rm(args) => rm::run(&db, args),
        DbCommand::Expire(args) => expire::set(&db, args),
        DbCommand::Compact(args) => maintain::compact(&db, args),
        DbCommand::Collections(args) => collections::run(&db, args, &mut Output::new()),
        _ => Ok(()),
    }
}

impl DbCommand {
    /// Whether all it does is to print what an open database holds.
    fn only_reads(&self) -> bool {
        match self {
            DbCommand::Get(_) | DbCommand::Ls(_) | DbCommand::Info(_) | DbCommand::Unsynced(_) => true,
            DbCommand::Export(args) => !args.keep_going,
            DbCommand::Expire(args) => !args.sets(),
            DbCommand::Collections(args) => !args.creates() && !args.deletes(),
            _ => false,
        }
    }
}

/// Prints what the database holds; a process that has it open is asked.
fn read(path: &Path, command: &DbCommand) -> Result<(), CliError> {
    if let Some(db) = store::open_if_free(path)? {
        return print(&db, command, &mut Output::new());
    }
    if let Some(answered) = control::read::ask(path, &mut Output::new()) {
        return answered;
    }
    // A short command ends soon, and what answers nothing is told.
    print(&store::open_to_read(path)?, command, &mut Output::new())
}

/// Prints what the database holds.
///
/// # Errors
/// There is no such thing; a command that does not [only read](DbCommand::only_reads).
pub(crate) fn print(db: &Database, command: &DbCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        DbCommand::Get(args) => get::run(db, args, out),
        DbCommand::Ls(args) => ls::run(db, args, out),
        DbCommand::Info(args) => maintain::info(db, args, out),
        DbCommand::Unsynced(args) => unsynced::run(db, args, out),
        DbCommand::Expire(args) if command.only_reads() => expire::print(db, args, out),
        DbCommand::Export(args) if command.only_reads() => export::run(db, args, out),
        DbCommand::Collections(args) if command.only_reads() => collections::run(db, args, out),
        _ => Err(CliError::new(Exit::Usage, "this needs the database for itself")),
    }
}

/// A command line of which the control socket was told.
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
}

/// Prints what the command of another process reads of the database that this one has open.
///
/// # Errors
/// As of [`print`]; it is no such command.
pub(crate) fn print_asked(db: &Database, args: Vec<String>, out: &mut Output) -> Result<(), CliError> {
    let asked = Asked::try_parse_from(std::iter::once("gattway".to_owned()).chain(args));
    let unknown =
        |_| CliError::new(Exit::Usage, "the process that has the database does not know this command");
    let AskedCommand::Db(command) = asked.map_err(unknown)?.command;
    print(db, &command, out)
}

/// Opens the database for a command that changes it: only what saves something makes one.
fn open(path: &Path, command: &DbCommand) -> Result<Database, CliError> {
    match command {
        DbCommand::Collections(args) if args.creates() => store::open_or_make(path),
        _ => store::open_existing(path),
    }
}
