//! `gattway db backup` and `restore`.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::commands::control;
use crate::cli::support::client::Failed;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, bytes_text, counted, note};
use crate::cli::support::progress::Progress;
use crate::cli::support::reach::{self, Reached};
use crate::cli::support::store;
use crate::cli::support::trust::file_failed;
use crate::database::unsendable::UnsendableDocument;
use crate::database::{BackupInfo, Database};
use crate::trust::IDENTITY_FILE;
use crate::trust::presence::{self, PRESENT_FILE};

/// Bytes asked for when a backup is copied from another process.
const PIECE_BYTES: usize = 64 * 1024;

/// Documents of a backup that cannot be synced, which are named; further ones are counted.
const UNSENDABLE_NAMED_MAX: usize = 10;

/// Write a backup of the database, which may be in use by `serve` or `sync` meanwhile.
///
/// The backup is one file that shows all collections as of one moment. It holds the documents and what stands beside them:
/// the identity key, the group secret and the trust list. Keep it as secret as the database; it is made with mode 600.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db gateway.db db backup /mnt/stick/gateway.backup
  gattway --db gateway.db db backup - | ssh store 'cat > gateway.backup'
  gattway db restore /mnt/stick/gateway.backup --to new.db")]
pub(crate) struct BackupArgs {
    /// File to write; `-` is standard output
    #[arg(value_name = "DEST")]
    dest: PathBuf,

    /// Replace the file if there is one
    #[arg(long)]
    replace: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Make a new database of a backup.
///
/// The backup is checked as a whole first. The new database writes under a source ID of its own: what the original wrote
/// after the backup, or still writes, and what is written here stay two different things to every peer, so nothing is lost
/// when they meet again. It also gets an identity of its own, and has to be paired again, unless --same-device is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway db restore gateway.backup --to copy.db
  gattway db restore gateway.backup --to gateway.db --same-device   # in place of a device that is gone for good
  ssh store 'cat gateway.backup' | gattway db restore - --to gateway.db")]
pub(crate) struct RestoreArgs {
    /// The backup; `-` is standard input
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,

    /// Directory of the new database: new or empty [default: what --db says]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,

    /// Keep the identity: peers take this device for the one that the backup is of. That one must never run again
    #[arg(long)]
    same_device: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn backup(path: &Path, args: &BackupArgs) -> Result<(), CliError> {
    store::check_existing(path)?;
    if args.dest == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        let info = write(path, &mut out, true)?;
        out.flush()?;
        note(&format!("{} in {}", counted(info.records, "revision"), bytes_text(info.bytes)));
        return Ok(());
    }
    if args.dest.exists() && !args.replace {
        return Err(CliError::new(Exit::Input, format!("{} exists already", args.dest.display()))
            .help("choose another name, or replace it with --replace"));
    }
    let directory =
        args.dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_space(directory, size_of(path) / 4)?;
    let partial = PathBuf::from(format!("{}.partial", args.dest.display()));
    let made = make(path, &partial, args.json).and_then(|info| {
        fs::rename(&partial, &args.dest).map_err(|error| failed(&args.dest, &error))?;
        File::open(directory).and_then(|d| d.sync_all()).map_err(|error| failed(directory, &error))?;
        Ok(info)
    });
    let info = made.inspect_err(|_| drop(fs::remove_file(&partial)))?;
    let mut out = Output::new();
    if args.json {
        out.json(&json!({
            "backup": args.dest, "source": info.source.to_string(), "records": info.records, "bytes": info.bytes,
        }))?;
    } else {
        let records = counted(info.records, "revision");
        out.line(format!("{}: {records}, {}", args.dest.display(), bytes_text(info.bytes)))?;
    }
    out.flush()
}

/// Writes the backup into a file of its owner's alone, and checks what was written.
fn make(path: &Path, partial: &Path, hidden: bool) -> Result<BackupInfo, CliError> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(partial);
    let file = file.map_err(|error| failed(partial, &error))?;
    let mut out = BufWriter::with_capacity(PIECE_BYTES, file);
    write(path, &mut out, hidden)?;
    let file = out.into_inner().map_err(|error| failed(partial, error.error()))?;
    file.sync_all().map_err(|error| failed(partial, &error))?;
    let mut written = BufReader::new(File::open(partial).map_err(|error| failed(partial, &error))?);
    Database::check_backup(&mut written).map_err(store::failed)
}

/// Writes a backup: of a database that is free, or by way of the process that has it.
fn write(path: &Path, out: &mut dyn Write, hidden: bool) -> Result<BackupInfo, CliError> {
    let client = match reach::for_reading(path)? {
        Reached::Own(db) => {
            let mut progress = Progress::start("backup", 0, hidden);
            return db.backup(out, |done, total| progress.update(done, total, "")).map_err(store::failed);
        }
        Reached::Held(client) => client,
    };
    let mut stream = control::request_backup(&client).map_err(Failed::told)?;
    let mut tee = Tee { out, checked: Ok(()) };
    let mut progress = Progress::start("backup", 0, hidden);
    let mut bytes = 0;
    let mut reader = Copying {
        input: &mut stream,
        tee: &mut tee,
        told: &mut |read| {
            bytes += read;
            progress.update(bytes, 0, "bytes");
        },
    };
    let info = Database::check_backup(&mut reader);
    tee.checked
        .map_err(|error| CliError::new(Exit::Failure, format!("the backup cannot be written: {error}")))?;
    info.map_err(store::failed)
}

/// Where the bytes that are read go as well.
struct Tee<'o> {
    out: &'o mut dyn Write,
    checked: io::Result<()>,
}

/// Reads, and passes on what it reads.
struct Copying<'a, 'o, R> {
    input: &'a mut R,
    tee: &'a mut Tee<'o>,
    told: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Copying<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        if let Err(error) = self.tee.out.write_all(&buffer[..read]) {
            let kind = error.kind();
            self.tee.checked = Err(error);
            return Err(kind.into());
        }
        (self.told)(read as u64);
        Ok(read)
    }
}

pub(super) fn restore(to: Option<&PathBuf>, args: &RestoreArgs) -> Result<(), CliError> {
    let to = args.to.as_ref().or(to).ok_or_else(|| {
        CliError::new(Exit::Usage, "where the new database goes was not said").help("give --to DIR")
    })?;
    let keep = |name: &str| name != PRESENT_FILE && (name != IDENTITY_FILE || args.same_device);
    let mut progress = Progress::start("restore", 0, args.json);
    let told = |done, total| progress.update(done, total, "");
    let report = if args.backup == Path::new("-") {
        Database::restore(&mut BufReader::new(io::stdin().lock()), to, keep, told)
    } else {
        let unreadable = |error| CliError::new(Exit::Input, format!("{}: {error}", args.backup.display()));
        let mut file = File::open(&args.backup).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        // All of it, before the first byte is written.
        Database::check_backup(&mut BufReader::new(&file)).map_err(store::failed)?;
        io::Seek::rewind(&mut file).map_err(unreadable)?;
        check_space(to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")), len)?;
        Database::restore(&mut BufReader::new(file), to, keep, told)
    };
    let report = report.map_err(store::failed)?;
    presence::begin(to).map_err(|error| file_failed(&error))?;
    drop(progress);
    let unsendable = store::open_to_read(to)?.unsendable(UNSENDABLE_NAMED_MAX).map_err(store::failed)?;
    let mut out = Output::new();
    if args.json {
        out.json(&json!({
            "path": to.to_string_lossy(),
            "documents": report.documents,
            "tombstones": report.tombstones,
            "source": report.source.to_string(),
            "backup_source": report.backup.source.to_string(),
            "files": report.files,
            "unsendable": unsendable.count,
        }))?;
    } else {
        out.line(format!("{}: {}", to.display(), counted(report.documents, "document")))?;
        out.line(format!("source      {} (it was {})", report.source, report.backup.source))?;
        if args.same_device {
            out.line("identity    the same: the device that the backup is of must never run again")?;
        } else {
            out.line("identity    a new one at the first use: pair the device again")?;
        }
    }
    out.flush()?;
    if unsendable.count > 0 {
        for UnsendableDocument { collection, id, reason, .. } in &unsendable.named {
            note(&format!("document {id:?} in {collection} cannot be synced: {reason}"));
        }
        note(&format!("{} restored that cannot be synced", counted(unsendable.count, "document")));
    }
    Ok(())
}

/// Refuses to begin what will not fit.
pub(super) fn check_space(directory: &Path, needed: u64) -> Result<(), CliError> {
    let Ok(space) = rustix::fs::statvfs(directory) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "{} has {} free, about {} are needed",
        directory.display(),
        bytes_text(free),
        bytes_text(needed)
    );
    Err(CliError::new(Exit::Database, message).help("free some space, or choose another place"))
}

/// Bytes of all files of a directory, as far as they can be seen.
pub(super) fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Failure, format!("{}: {error}", path.display()))
}
