//! `gattway db`: one file a subcommand; what they share is here.

mod backup;
mod changes;
mod collections;
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

use clap::{Args, Subcommand};

use super::args::GlobalArgs;
use super::{CliError, store};
use crate::database::Database;

/// What can be done with a database.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DbCommand {
    Put(put::PutArgs),
    Get(get::GetArgs),
    Ls(ls::LsArgs),
    Rm(rm::RmArgs),
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
pub(super) struct CollectionArg {
    /// The collection: `name`, or `scope.name`
    #[arg(short, long, default_value = "_default", value_name = "NAME")]
    pub(super) collection: String,
}

/// Runs one subcommand on the database.
pub(super) fn run(global: &GlobalArgs, command: &DbCommand) -> Result<(), CliError> {
    match command {
        DbCommand::Changes(args) => return changes::run(global, args),
        DbCommand::Verify(args) => return maintain::verify(global.db_path()?, args),
        DbCommand::Repair(args) => return repair::run(global.db_path()?, args),
        DbCommand::Renew(args) => return renew::run(global.db_path()?, args),
        DbCommand::Backup(args) => return backup::backup(global.db_path()?, args),
        DbCommand::Restore(args) => return backup::restore(global.db_path().ok(), args),
        DbCommand::Export(args) if args.keep_going => return export::keep_going(global.db_path()?, args),
        _ => {}
    }
    let db = open(global.db_path()?, command)?;
    match command {
        DbCommand::Put(args) => put::run(&db, args),
        DbCommand::Get(args) => get::run(&db, args),
        DbCommand::Ls(args) => ls::run(&db, args),
        DbCommand::Rm(args) => rm::run(&db, args),
        DbCommand::Import(args) => import::run(&db, args),
        DbCommand::Export(args) => export::run(&db, args),
        DbCommand::Changes(_)
        | DbCommand::Verify(_)
        | DbCommand::Repair(_)
        | DbCommand::Renew(_)
        | DbCommand::Backup(_)
        | DbCommand::Restore(_) => Ok(()),
        DbCommand::Collections(args) => collections::run(&db, args),
        DbCommand::Info(args) => maintain::info(&db, args),
        DbCommand::Compact(args) => maintain::compact(&db, args),
        DbCommand::Unsynced(args) => unsynced::run(&db, args),
    }
}

/// Opens the database as the command needs it: only what saves something makes one, and what only reads does not need to be
/// able to write.
fn open(path: &Path, command: &DbCommand) -> Result<Database, CliError> {
    match command {
        DbCommand::Put(_) | DbCommand::Import(_) => store::open_or_make(path),
        DbCommand::Collections(args) if args.creates() => store::open_or_make(path),
        DbCommand::Rm(_) | DbCommand::Compact(_) => store::open_existing(path),
        DbCommand::Collections(args) if args.deletes() => store::open_existing(path),
        _ => store::open_to_read(path),
    }
}
