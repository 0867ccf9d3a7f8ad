//! `gattway db blob`: content that documents name.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::CollectionArg;
use super::attach::{nothing_there, path_of};
use crate::cli::commands::control;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, bytes_text};
use crate::cli::support::reach::{self, Reached};
use crate::cli::support::store;
use crate::database::{BlobInfo, Database};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Content that documents name: attachments.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BlobCommand {
    Get(GetArgs),
    List(ListArgs),
}

/// Write the content of an attachment.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db blob get valve-7 picture -o valve.jpg
  gattway --db my.db db blob get valve-7 reports[0].scan | pdftotext - -
  gattway --db my.db db blob get sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk= -o content")]
pub(crate) struct GetArgs {
    /// The document's ID; or the digest of a blob
    #[arg(value_name = "ID|DIGEST")]
    id: String,

    /// Where in the document: a path, as in queries
    #[arg(value_name = "FIELD")]
    field: Option<String>,

    /// File to write; standard output unless given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    collection: CollectionArg,
}

/// List blobs, with the documents that name them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db blob list
  gattway --db my.db db blob list --json | jq 'select(.here | not)'   # what is missing")]
pub(crate) struct ListArgs {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Writes the content to where it is wanted.
pub(super) fn fetch(path: &Path, args: &GetArgs) -> Result<(), CliError> {
    let Some(file) = &args.output else {
        let mut out = Output::new();
        if out.is_for_people() {
            return Err(CliError::new(Exit::Usage, "the content is not for a terminal")
                .help("write it to a file with -o, or pipe it into a program"));
        }
        return get(path, args, &mut out);
    };
    let failed = |error: std::io::Error| {
        CliError::new(Exit::Failure, format!("{} cannot be written: {error}", file.display()))
    };
    let mut name = file.clone().into_os_string();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let target = File::create(&partial).map_err(failed)?;
    let mut out = Output::to(Box::new(target), false);
    let got = get(path, args, &mut out);
    drop(out);
    match got {
        Ok(()) => fs::rename(&partial, file).map_err(failed),
        Err(error) => {
            // The file is as it was, and what came of the other one is of no use.
            let _ = fs::remove_file(&partial);
            Err(error)
        }
    }
}

fn get(path: &Path, args: &GetArgs, out: &mut Output) -> Result<(), CliError> {
    match reach::for_reading(path)? {
        Reached::Own(db) => print(&db, args, out),
        Reached::Held(client) => control::command::ask(&client, None, out),
    }
}

pub(super) fn run(db: &Database, command: &BlobCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        BlobCommand::Get(args) => print(db, args, out),
        BlobCommand::List(args) => list(db, args, out),
    }
}

fn print(db: &Database, args: &GetArgs, out: &mut Output) -> Result<(), CliError> {
    let digest = match &args.field {
        None => args.id.clone(),
        Some(field) => {
            let field = path_of(field)?;
            let document = store::get(&store::collection(db, &args.collection.collection)?, &args.id)?;
            let blob = field.find(document.body()).ok_or_else(|| nothing_there(&args.id, &field))?;
            blob.digest().to_owned()
        }
    };
    let missing = || {
        let error = CliError::new(Exit::NotFound, format!("blob {digest} is not here"));
        match args.field {
            Some(_) => error.help("a sync with a peer that has it brings it"),
            None => error.help("give a document and a field, or a digest that `gattway db blob list` has"),
        }
    };
    let mut content = db.blob(&digest).map_err(store::failed)?.ok_or_else(missing)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = content.read(&mut piece);
        match read.map_err(|error| CliError::new(Exit::Database, error.to_string()))? {
            0 => return out.flush(),
            read => out.raw(&piece[..read])?,
        }
    }
}

fn list(db: &Database, args: &ListArgs, out: &mut Output) -> Result<(), CliError> {
    for info in db.blobs().map_err(store::failed)? {
        let BlobInfo { digest, length, documents, more } = info.map_err(store::failed)?;
        let count = documents.len() as u64 + more;
        if args.json {
            let name = |(collection, id): &(String, String)| json!({"collection": collection, "_id": id});
            let named: Vec<_> = documents.iter().map(name).collect();
            out.json(&json!({
                "digest": digest, "length": length, "here": length.is_some(), "documents": count, "named_by": named,
            }))?;
            continue;
        }
        let size = length.map_or("not here".to_owned(), bytes_text);
        let by = match documents.first() {
            None => "no document".to_owned(),
            Some((collection, id)) if count == 1 => format!("{id} in {collection}"),
            Some((collection, id)) => format!("{id} in {collection}, and {} more", count - 1),
        };
        out.text(&format!("{digest}  {size}  {by}"))?;
    }
    out.flush()
}
