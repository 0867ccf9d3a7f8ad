//! The command line: global options, the list of commands, and which file runs which.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::commands::control::gateway::OrderWord;
use crate::cli::commands::{
    bench, config, db, demo, documents, group, id, pair, peers, run as daemon, serve, status, sync, top,
};
#[cfg(feature = "bluetooth")]
use crate::cli::commands::{doctor, scan};
use crate::cli::support::error::CliError;
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::words;

const EXIT_CODES: &str = "\
Exit codes:
  0    done (a reader that closes the pipe early is no error)
  1    the answer is bad: databases differ, damage found, a benchmark missed its target
  2    wrong arguments
  3    no such document or collection
  4    input that cannot be taken: malformed, over a limit, or in conflict with the stored revision
  5    the database cannot be opened, read or written
  6    the peer cannot be reached, refused, or failed
  7    synced, but not everything: the documents or collections that were left out are named
  130  ended by Ctrl-C before it was done

Examples:
  gattway demo
  gattway --db gateway.db pair --listen ble
  gattway --db gateway.db serve --listen tcp:0.0.0.0:4985
  gattway --db sensor.db db import readings.csv --id-from date
  gattway --db sensor.db sync tcp:gateway.local:4985";

/// Document sync between nearby devices, over Bluetooth LE, TCP, Unix sockets or a pipe.
#[derive(Debug, Parser)]
#[command(name = "gattway", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What the command can do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Demo(demo::DemoArgs),
    #[command(subcommand)]
    Db(db::DbCommand),
    Query(db::query::QueryArgs),
    #[command(subcommand)]
    Index(db::index::IndexCommand),
    Id(id::IdArgs),
    Serve(serve::ServeArgs),
    Sync(sync::SyncArgs),
    Run(daemon::RunArgs),
    Status(status::StatusArgs),
    Top(top::TopArgs),
    /// Let syncs of the gateway that runs begin now, and wait for no time and no pause after a failure.
    Now(status::OrderArgs),
    /// Let syncs of the gateway that runs make no connection, until `resume` or its restart. Listeners go on.
    Pause(status::OrderArgs),
    /// Let syncs of the gateway that were paused go on.
    Resume(status::OrderArgs),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Pair(pair::PairArgs),
    #[command(subcommand)]
    Peers(peers::PeersCommand),
    #[command(subcommand)]
    Group(group::GroupCommand),
    #[cfg(feature = "bluetooth")]
    Scan(scan::ScanArgs),
    #[cfg(feature = "bluetooth")]
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
    Completions(documents::CompletionsArgs),
    Manual(documents::ManualArgs),
}

/// Says what is wrong with the arguments, or prints the help that they ask for; gives the exit code.
pub(super) fn refuse(error: &clap::Error) -> ExitCode {
    let mut format = std::env::args_os().skip_while(|arg| arg != "--log-format").skip(1);
    let is_json = format.next().is_some_and(|format| format == "json")
        || std::env::args_os().any(|arg| arg == "--log-format=json");
    if is_json && error.use_stderr() {
        words::use_json();
        words::say(words::Level::Error, error.render().to_string().lines().next().unwrap_or_default(), None);
        words::end();
    } else {
        // A reader that has gone already wanted nothing of it.
        let _ = error.print();
    }
    ExitCode::from(error.exit_code() as u8)
}

/// Runs the command that was given.
pub(super) fn run(cli: &Cli) -> Result<(), CliError> {
    match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Db(command) => db::run(&cli.global, command),
        Command::Query(args) => db::query(&cli.global, args.clone()),
        Command::Index(command) => db::index(&cli.global, command.clone()),
        Command::Id(args) => id::run(&cli.global, args),
        Command::Serve(args) => serve::run(&cli.global, args),
        Command::Sync(args) => sync::run(&cli.global, args),
        Command::Run(args) => daemon::run(&cli.global, args),
        Command::Status(args) => status::run(args),
        Command::Top(args) => top::run(args),
        Command::Now(args) => status::order(OrderWord::Now, args),
        Command::Pause(args) => status::order(OrderWord::Pause, args),
        Command::Resume(args) => status::order(OrderWord::Resume, args),
        Command::Config(command) => config::run(command),
        Command::Pair(args) => pair::run(&cli.global, args),
        Command::Peers(command) => peers::run(&cli.global, command),
        Command::Group(command) => group::run(&cli.global, command),
        #[cfg(feature = "bluetooth")]
        Command::Scan(args) => scan::run(&cli.global, args),
        #[cfg(feature = "bluetooth")]
        Command::Doctor(args) => doctor::run(&cli.global, args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => documents::completions(args, Cli::command()),
        Command::Manual(args) => documents::manual(args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// A heading that a group of options has goes on over what stands below it, unless that is seen to.
    #[test]
    fn each_option_stands_under_its_heading() {
        const BLUETOOTH: [&str; 7] =
            ["adapter", "central", "slots", "link_pair", "link_security", "bonded_only", "advertise_name"];
        const IMPORT: [&str; 5] = ["import", "import_collection", "id_from", "id_prefix", "replace"];
        const WEBSOCKET: [&str; 12] = [
            "user",
            "password_file",
            "session_file",
            "headers",
            "roots",
            "pin_cert",
            "client_cert",
            "users",
            "tls_cert",
            "tls_key",
            "tls_self_signed",
            "client_roots",
        ];
        let mut cli = super::Cli::command();
        cli.build();
        let mut seen = 0;
        for command in cli.get_subcommands() {
            let takes_import = ["serve", "sync"].contains(&command.get_name());
            for arg in command.get_arguments() {
                let id = arg.get_id().as_str();
                let expected = match id {
                    "db" | "verbose" | "log_format" => Some("Global options"),
                    "trust_all" | "plain" => Some("Who may come in"),
                    id if id.starts_with("advert_") => Some("Bluetooth"),
                    id if BLUETOOTH.contains(&id) && command.get_name() != "scan" => Some("Bluetooth"),
                    id if takes_import && WEBSOCKET.contains(&id) => Some("WebSocket (ws:// and wss://)"),
                    id if takes_import && (IMPORT.contains(&id) || id == "short_ids") => Some("Import"),
                    _ => None,
                };
                assert_eq!(arg.get_help_heading(), expected, "{} --{id}", command.get_name());
                seen += 1;
            }
        }
        assert!(seen > 50, "{seen}");
    }
}
