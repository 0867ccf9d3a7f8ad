//! `gattway db attach` and `detach`: content of a file into a document, and out of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::CollectionArg;
use crate::cli::support::client::{Client, Failed};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, bytes_text};
use crate::cli::support::reach::{self, Reached};
use crate::cli::support::store;
use crate::database::blob::TYPE_UNKNOWN;
use crate::database::{AttachmentPath, Blob, Collection, Database, DatabaseError};

/// Longest answer to a request.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Attach the content of a file to a document.
///
/// The content is stored beside the documents, once whoever names it, and is synced with them. The document has to be there.
/// Prints the digest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db attach valve-7 picture valve.jpg
  gattway --db my.db db attach valve-7 reports[0].scan scan.bin --type application/pdf
  camera | gattway --db my.db db attach valve-7 picture - --type image/jpeg")]
pub(crate) struct AttachArgs {
    /// The document's ID
    id: String,

    /// Where in the document: a path, as in queries
    #[arg(value_name = "FIELD")]
    field: String,

    /// The file; `-` reads standard input
    file: PathBuf,

    /// MIME type [default: by the name of the file]
    #[arg(long = "type", value_name = "MIME")]
    content_type: Option<String>,

    #[command(flatten)]
    collection: CollectionArg,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Take an attachment out of a document.
///
/// Its content goes a day later at the earliest, unless another document names it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db detach valve-7 picture")]
pub(crate) struct DetachArgs {
    /// The document's ID
    id: String,

    /// Where in the document: a path, as in queries
    #[arg(value_name = "FIELD")]
    field: String,

    #[command(flatten)]
    collection: CollectionArg,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn path_of(text: &str) -> Result<AttachmentPath, CliError> {
    AttachmentPath::parse(text).map_err(store::failed)
}

pub(super) fn run(path: &Path, args: &AttachArgs) -> Result<(), CliError> {
    let field = path_of(&args.field)?;
    let content_type = match &args.content_type {
        Some(given) => given.clone(),
        None => mime_guess::from_path(&args.file).first_raw().unwrap_or(TYPE_UNKNOWN).to_owned(),
    };
    let unreadable = |error: io::Error| {
        CliError::new(Exit::Input, format!("{} cannot be read: {error}", args.file.display()))
    };
    let content: Box<dyn Read + Send> = match args.file.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => {
            let file = File::open(&args.file).map_err(unreadable)?;
            if file.metadata().map_err(unreadable)?.is_dir() {
                return Err(unreadable(io::ErrorKind::IsADirectory.into()));
            }
            Box::new(file)
        }
    };
    let (digest, length, rev) = match reach::existing(path)? {
        Reached::Own(db) => {
            let collection = store::collection(&db, &args.collection.collection)?;
            // Before all is read.
            store::get(&collection, &args.id)?;
            let blob = db.save_blob(content, &content_type).map_err(|error| match error {
                DatabaseError::Io { source, action: "read what is to be a blob" } => unreadable(source),
                error => store::failed(error),
            })?;
            let rev = change(&collection, &args.id, |body| {
                field.attach(body, &blob).map(|()| blob.clone()).map_err(store::failed)
            })?;
            (blob.digest().to_owned(), blob.length(), rev.1)
        }
        Reached::Held(client) => send(&client, args, content, &content_type)?,
    };
    let mut out = Output::new();
    if args.json {
        out.json(&json!({
            "_id": args.id, "_rev": rev, "digest": digest, "length": length, "content_type": content_type,
        }))?;
    } else if out.is_for_people() {
        out.line(format!("{digest}  {}, {content_type}", bytes_text(length)))?;
    } else {
        out.line(digest)?;
    }
    out.flush()
}

/// Gives the content to the process that has the database open.
fn send(
    client: &Client,
    args: &AttachArgs,
    content: Box<dyn Read + Send>,
    content_type: &str,
) -> Result<(String, u64, String), CliError> {
    let collection = &args.collection.collection;
    let path = format!("/_db.{}/{}/{}", encoded(collection), encoded(&args.id), encoded(&args.field));
    let headers = [("content-type", content_type), ("if-match", "*")];
    let answer = client.send(Method::PUT, &path, &headers, content);
    let mut answer = answer.map_err(|failed| match failed {
        Failed::Refused(StatusCode::PRECONDITION_FAILED, _) => {
            CliError::new(Exit::NotFound, format!("no document {:?} in collection {collection}", args.id))
                .help("`gattway db ls` lists what is there")
        }
        failed => failed.told(),
    })?;
    let bytes = answer.all(ANSWER_BYTES_MAX).map_err(|error| Failed::Io(error).told())?;
    let told: Value = serde_json::from_slice(&bytes).map_err(|error| Failed::Io(error.into()).told())?;
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    Ok((text("digest"), told["length"].as_u64().unwrap_or_default(), text("rev")))
}

/// A part of a path, percent-encoded.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub(super) fn detach(db: &Database, args: &DetachArgs, out: &mut Output) -> Result<(), CliError> {
    let field = path_of(&args.field)?;
    let collection = store::collection(db, &args.collection.collection)?;
    let (blob, rev) = change(&collection, &args.id, |body| {
        field.detach(body).ok_or_else(|| nothing_there(&args.id, &field))
    })?;
    if args.json {
        out.json(&json!({"_id": args.id, "_rev": rev, "digest": blob.digest()}))?;
    } else {
        out.line(blob.digest())?;
    }
    out.flush()
}

pub(super) fn nothing_there(id: &str, field: &AttachmentPath) -> CliError {
    CliError::new(Exit::NotFound, format!("document {id:?} has no attachment {:?}", field.text()))
        .help("`gattway db blob list` lists what documents name")
}

/// Changes a document that is there; gives the blob and the new revision.
fn change(
    collection: &Collection,
    id: &str,
    mut edit: impl FnMut(&mut serde_json::Map<String, Value>) -> Result<Blob, CliError>,
) -> Result<(Blob, String), CliError> {
    loop {
        let mut document = store::get(collection, id)?;
        let blob = edit(document.body_mut())?;
        match collection.save(&mut document) {
            Ok(()) => return Ok((blob, store::revision_of(&document).unwrap_or_default())),
            // Somebody was faster; what is there now is changed.
            Err(DatabaseError::Conflict { .. }) => {}
            Err(error) => return Err(store::failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn what_stands_in_a_path_is_encoded() {
        assert_eq!(encoded("a-1._~"), "a-1._~");
        assert_eq!(encoded("a/b c[0]?\u{fc}%"), "a%2Fb%20c%5B0%5D%3F%C3%BC%25");
    }
}
