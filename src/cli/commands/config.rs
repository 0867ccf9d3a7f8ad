//! `gattway config`: the configuration of `gattway run`.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, counted};
use crate::cli::support::words::{self, Level};
use crate::durable;
use crate::gateway::config::{self, Config, Problem};

/// Mode of a new configuration: it holds no secrets.
const FILE_MODE: u32 = 0o644;

/// Which configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration; files *.toml in conf.d beside it are read after it, by their names
    #[arg(long = "config", env = "GATTWAY_CONFIG", value_name = "FILE", default_value = config::PATH)]
    pub(crate) path: PathBuf,
}

/// The configuration of `gattway run`: write one, check it, show what is in force.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  gattway config init                                # /etc/gattway/gattway.toml with all defaults and what they mean
  gattway config check                               # each error with file, line, key and what would be right
  gattway config show --config ./gattway.toml        # what is in force, and from which file")]
pub(crate) enum ConfigCommand {
    Init(InitArgs),
    Check(CheckArgs),
    Show(ShowArgs),
}

/// Write a configuration with all defaults and what each key means. An existing one is left alone.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// Replace the file that is there
    #[arg(long)]
    force: bool,

    /// Print it, and write no file
    #[arg(long, conflicts_with = "force")]
    print: bool,
}

/// Check the configuration: all errors, with file, line, key and what would be right. Exit code 4 if there are any.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Show what is in force, and the file and line that each key comes from. Secrets are not shown.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) fn run(command: &ConfigCommand) -> Result<(), CliError> {
    match command {
        ConfigCommand::Init(args) => init(args),
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Show(args) => {
            let text =
                config::show(&args.config.path).map_err(|problems| refused(&args.config.path, &problems))?;
            print(&text)
        }
    }
}

/// The configuration, or an error after all that is wrong with it was said.
pub(crate) fn load(path: &Path) -> Result<Config, CliError> {
    config::load(path).map_err(|problems| refused(path, &problems))
}

/// Says what is wrong.
pub(crate) fn tell(problems: &[Problem]) {
    for problem in problems {
        words::say(Level::Error, &problem.to_string(), problem.right.as_deref());
    }
}

fn refused(path: &Path, problems: &[Problem]) -> CliError {
    tell(problems);
    let count = counted(problems.len() as u64, "error");
    CliError::new(Exit::Input, format!("{} in the configuration {}", count, path.display()))
        .help("`gattway config init --print` shows all keys and what they mean")
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = Output::new();
    out.line(text.trim_end())?;
    out.flush()
}

fn init(args: &InitArgs) -> Result<(), CliError> {
    let (path, text) = (&args.config.path, config::init_text());
    if args.print {
        return print(&text);
    }
    let failed = |error: io::Error| {
        let told = CliError::new(Exit::Input, format!("{} cannot be written: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                told.help("--force replaces it; --print shows what would stand there")
            }
            io::ErrorKind::PermissionDenied => {
                told.help("run it as root, or name another file with --config")
            }
            _ => told,
        }
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    if args.force {
        durable::write_atomic(path, FILE_MODE, text.as_bytes()).map_err(failed)?;
    } else {
        durable::write_new(path, FILE_MODE, text.as_bytes()).map_err(failed)?;
    }
    let mut out = Output::new();
    out.line(format!(
        "wrote {}: name your databases and peers there, then `gattway config check`",
        path.display()
    ))?;
    out.flush()
}

fn check(args: &CheckArgs) -> Result<(), CliError> {
    let path = &args.config.path;
    let loaded = config::load(path);
    let mut out = Output::new();
    match loaded {
        Ok(config) => {
            let summary = summary(&config);
            match args.json {
                true => out.json(&json!({"ok": true, "problems": []}))?,
                false => out.line(format!("{}: right: {summary}", path.display()))?,
            }
            out.flush()
        }
        Err(problems) if args.json => {
            out.json(&json!({"ok": false, "problems": problems}))?;
            out.flush()?;
            let count = counted(problems.len() as u64, "error");
            Err(CliError::new(Exit::Input, format!("{count} in the configuration {}", path.display())))
        }
        Err(problems) => Err(refused(path, &problems)),
    }
}

/// What a configuration is about, in a line.
fn summary(config: &Config) -> String {
    let databases = config.databases.values();
    let count = |of: fn(&config::DatabaseConfig) -> usize| databases.clone().map(of).sum::<usize>() as u64;
    [
        counted(config.databases.len() as u64, "database"),
        counted(count(|database| database.bluetooth.len()), "adapter"),
        counted(count(|database| database.listeners.len()), "listener"),
        counted(count(|database| database.upstreams.len()), "upstream"),
    ]
    .join(", ")
}
