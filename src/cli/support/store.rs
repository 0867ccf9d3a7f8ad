//! What commands do with a database, with errors that say what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::holder::holder;
use crate::cli::support::output::note;
use crate::database::{
    Collection, Database, DatabaseConfig, DatabaseError, Document, canonical_collection_name,
    check_document_id,
};
use crate::replica::store::{ReplicaStore, ReplicaStoreError};

/// How long a command waits for another process that has the database open: a short command ends soon, a `serve`
/// does not.
pub(super) const IN_USE_WAIT: Duration = Duration::from_secs(2);

/// Pause between two attempts to open.
pub(super) const IN_USE_RETRY: Duration = Duration::from_millis(50);

/// Opens the database, or makes it, waiting for a short command of another process to end.
pub(crate) fn open(path: &Path) -> Result<Database, CliError> {
    when_free(path, || Database::open(path, DatabaseConfig::default()))
}

/// Opens the database, or makes it and says so.
pub(crate) fn open_or_make(path: &Path) -> Result<Database, CliError> {
    let db = open(path)?;
    if db.is_new() {
        note(&new_text(path));
    }
    Ok(db)
}

/// Opens the database like [`open`], for a command that keeps so many bytes of the file system free.
pub(crate) fn open_keeping_free(path: &Path, keep_free_bytes: u64) -> Result<Database, CliError> {
    let config = DatabaseConfig { keep_free_bytes, ..DatabaseConfig::default() };
    when_free(path, || Database::open(path, config.clone()))
}

/// Opens the database for a command that changes what is there, and makes none.
pub(crate) fn open_existing(path: &Path) -> Result<Database, CliError> {
    let config = DatabaseConfig { create: false, ..DatabaseConfig::default() };
    check_existing(path)?;
    when_free(path, || Database::open(path, config.clone()))
}

/// Opens the database for a command that only reads: it must exist, and where it cannot be written to it is read as it is.
pub(crate) fn open_to_read(path: &Path) -> Result<Database, CliError> {
    check_existing(path)?;
    when_free(path, || Database::open(path, to_read(path)))
}

pub(super) fn to_read(path: &Path) -> DatabaseConfig {
    let read_only = !Database::is_writable(path);
    if read_only {
        note(&format!("{} cannot be written to: it is read as it is", path.display()));
    }
    DatabaseConfig { create: false, read_only, ..DatabaseConfig::default() }
}

/// That there is a database: a mistyped name must not make an empty one, and be taken for it.
pub(crate) fn check_existing(path: &Path) -> Result<(), CliError> {
    if Database::exists(path) {
        return Ok(());
    }
    if let Err(error) = std::fs::read_dir(path)
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return Err(open_failed(path, DatabaseError::Io { action: "open", source: error }));
    }
    Err(CliError::new(Exit::Database, format!("there is no database in {}", path.display())).help(
        "check the name after --db, or in GATTWAY_DB; `db create`, `db put`, `db import`, `serve`, `sync`, `pair` and `id` make a new one",
    ))
}

/// Tells of a database that was made because there was none.
pub(crate) fn tell_if_new(db: &Database, events: &Events) {
    if db.is_new() {
        events.say(&new_text(db.path()));
        events.emit(&Event::Created { path: db.path().display().to_string() });
    }
}

pub(super) fn new_text(path: &Path) -> String {
    format!("made a new, empty database in {}", path.display())
}

/// The directory of a database, made with an empty database if there is none yet: for commands that change what lies beside
/// the documents (identity, group, trust list), which they can while another process has the database open.
pub(crate) fn private_directory(path: &Path) -> Result<PathBuf, CliError> {
    if !Database::exists(path) {
        open_or_make(path)?;
    }
    Ok(path.to_owned())
}

/// The directory of a database that there is, for commands that look at what lies beside the documents.
pub(crate) fn existing_directory(path: &Path) -> Result<PathBuf, CliError> {
    check_existing(path).map(|()| path.to_owned())
}

/// A failure to open or to make a database: it names the directory, which the store's own errors do not.
pub(super) fn open_failed(path: &Path, error: DatabaseError) -> CliError {
    let DatabaseError::Io { action, source } = &error else { return failed(error) };
    let cannot = match *action {
        "create" => "made".to_owned(),
        "open" => "opened".to_owned(),
        action => format!("used ({action})"),
    };
    let help = match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "it, or the directory around it, belongs to somebody else: `ls -ld` shows to whom"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only: reading works (`db get`, `ls`, `export`, `verify`, `backup` to elsewhere)"
        }
        _ => "check the directory after --db, its owner and its medium",
    };
    CliError::new(Exit::Database, format!("the database {} cannot be {cannot}: {source}", path.display()))
        .help(help)
}

/// Does something with a database that nobody else may have open, waiting for a short command of another process to end.
pub(crate) fn when_free<T>(
    path: &Path,
    mut act: impl FnMut() -> Result<T, DatabaseError>,
) -> Result<T, CliError> {
    let until = Instant::now() + IN_USE_WAIT;
    loop {
        match act() {
            Err(DatabaseError::InUse { .. }) if Instant::now() < until => thread::sleep(IN_USE_RETRY),
            done => return done.map_err(|error| open_failed(path, error)),
        }
    }
}

/// A collection that exists.
pub(crate) fn collection(db: &Database, name: &str) -> Result<Collection, CliError> {
    if let Some(collection) = db.collection(name) {
        return Ok(collection);
    }
    let known = db.collections().join(", ");
    Err(CliError::new(Exit::NotFound, format!("no collection {name:?} in this database; it has: {known}"))
        .help(format!("create it with `gattway db collections --create {name}`")))
}

/// A collection, made if it does not exist.
pub(crate) fn create_collection(db: &Database, name: &str) -> Result<Collection, CliError> {
    db.create_collection(name).map_err(failed)
}

/// The collections a replication is about.
pub(crate) struct Chosen {
    /// Full names, each once.
    pub(crate) names: Vec<String>,
    /// Those that this command has made.
    created: Vec<String>,
}

/// The collections a replication is about: those that were named, else all there are. With `create`, those that do not
/// exist are made, all or none.
pub(crate) fn choose_collections(db: &Database, named: &[String], create: bool) -> Result<Chosen, CliError> {
    if named.is_empty() {
        return Ok(Chosen { names: db.collections(), created: Vec::new() });
    }
    let mut names = Vec::with_capacity(named.len());
    for name in named {
        let full = canonical_collection_name(name).map_err(failed)?;
        if !create {
            collection(db, name)?;
        }
        if !names.contains(&full) {
            names.push(full);
        }
    }
    let mut chosen = Chosen { names, created: Vec::new() };
    for name in &chosen.names {
        if db.collection(name).is_some() {
            continue;
        }
        if let Err(error) = create_collection(db, name) {
            chosen.take_back(db);
            return Err(error);
        }
        chosen.created.push(name.clone());
    }
    Ok(chosen)
}

impl Chosen {
    /// The command has failed: the collections that it made and nobody has used are taken away again.
    pub(crate) fn take_back(&self, db: &Database) {
        for name in &self.created {
            let is_unused = ReplicaStore::collection(db, name).is_some_and(|id| db.last_sequence(id) == 0);
            if is_unused && let Err(error) = db.delete_collection(name) {
                tracing::warn!(%error, collection = name, "cannot take back a collection that was made for nothing");
            }
        }
    }
}

/// A document that exists.
pub(crate) fn get(collection: &Collection, id: &str) -> Result<Document, CliError> {
    collection.get(id).map_err(failed)?.ok_or_else(|| no_document(collection, id))
}

/// Saves one document; gives its revision and sequence. `if_revision`: only if this is the stored one (`none`: only if
/// there is none).
pub(crate) fn put(
    collection: &Collection,
    id: &str,
    body: Map<String, Value>,
    if_revision: Option<&str>,
) -> Result<(String, u64), CliError> {
    check_document_id(id).map_err(failed)?;
    let stored = collection.get(id).map_err(failed)?;
    let current = stored.as_ref().and_then(revision_of);
    if let Some(expected) = if_revision
        && expected != current.as_deref().unwrap_or("none")
    {
        let current = current
            .map_or("there is none".to_owned(), |revision| format!("the stored revision is {revision}"));
        return Err(CliError::new(
            Exit::Input,
            format!("document {id:?} is not at revision {expected}: {current}"),
        )
        .help("read it again, apply the change, and save with the new revision"));
    }
    let mut document = match stored {
        Some(mut document) => {
            *document.body_mut() = body;
            document
        }
        None => Document::new(id, body),
    };
    collection.save(&mut document).map_err(|error| match error {
        DatabaseError::BadBody { .. } | DatabaseError::TooLarge { .. } => {
            failed(error).context(&format!("document {id:?} was not saved: "), "")
        }
        other => failed(other),
    })?;
    let revision = revision_of(&document).unwrap_or_default();
    Ok((revision, document.sequence()))
}

/// Deletes one document that exists.
pub(crate) fn delete(collection: &Collection, id: &str) -> Result<(), CliError> {
    if collection.delete(id).map_err(failed)? { Ok(()) } else { Err(no_document(collection, id)) }
}

/// Removes one document here alone.
pub(crate) fn purge(collection: &Collection, id: &str) -> Result<(), CliError> {
    if collection.purge(id).map_err(failed)? { Ok(()) } else { Err(no_document(collection, id)) }
}

/// What names a revision in output: its current version or its tree ID, which no other revision has. What it descends from may be known
/// better on one side than on the other.
pub(crate) fn revision_of(document: &Document) -> Option<String> {
    document.revision().map(|vector| vector.id().to_string())
}

/// A document as it is printed: `_id` first, `_rev` if wanted, then the body.
pub(crate) fn with_meta(document: Document, revision: bool) -> Value {
    let mut fields = Map::new();
    fields.insert("_id".to_owned(), document.id().into());
    if revision && let Some(revision) = revision_of(&document) {
        fields.insert("_rev".to_owned(), revision.into());
    }
    fields.extend(document.into_body());
    Value::Object(fields)
}

/// The current revision of a document as text; empty if it is deleted.
pub(crate) fn revision(collection: &Collection, id: &str) -> Result<String, CliError> {
    let document = collection.get(id).map_err(failed)?;
    Ok(document.as_ref().and_then(revision_of).unwrap_or_default())
}

/// There is no such document.
pub(crate) fn no_document(collection: &Collection, id: &str) -> CliError {
    CliError::new(Exit::NotFound, format!("no document {id:?} in collection {}", collection.name()))
        .help("`gattway db ls` lists what is there")
}

/// Names who has the database, and what can be done meanwhile.
pub(super) fn in_use(path: &Path) -> CliError {
    let by = holder(path).unwrap_or_else(|| "another process".to_owned());
    CliError::new(Exit::Database, format!("database {} is in use by {by}", path.display())).help(
        "this needs the database for itself, or that process does not answer: end it first. Beside a `run`, `serve` or `sync` \
         everything else works: `db get`, `put`, `rm`, `import`, `export`, `changes`, `backup`, `peers`, `group`",
    )
}

/// The store could not be read.
pub(crate) fn unreadable(error: ReplicaStoreError) -> CliError {
    CliError::new(Exit::Database, error.to_string())
}

/// A failure of the database, with the exit code it has.
pub(crate) fn failed(error: DatabaseError) -> CliError {
    let exit = match &error {
        DatabaseError::Conflict { .. }
        | DatabaseError::InvalidId { .. }
        | DatabaseError::InvalidCollectionName { .. }
        | DatabaseError::BadBody { .. }
        | DatabaseError::BadBackup { .. }
        | DatabaseError::TooLarge { .. }
        | DatabaseError::MissingBlob { .. }
        | DatabaseError::BlobTooLarge { .. }
        | DatabaseError::BadQuery { .. }
        | DatabaseError::BadIndex { .. }
        | DatabaseError::IndexExists { .. }
        | DatabaseError::QueryTooLarge { .. } => Exit::Input,
        DatabaseError::NotFound { .. } | DatabaseError::UnknownCollection { .. } => Exit::NotFound,
        _ => Exit::Database,
    };
    let told = CliError::new(exit, error.to_string());
    match error {
        DatabaseError::ReadOnly { .. } => {
            told.help("reading works: `db get`, `ls`, `export`, `backup`, `verify`, `repair --to ELSEWHERE`")
        }
        DatabaseError::InUse { path } => in_use(&path),
        DatabaseError::Full { .. } => {
            told.help("free some space; what was acknowledged is there, and reading works meanwhile")
        }
        DatabaseError::Damaged { .. } => {
            told.help("`gattway db verify` says what is damaged, `gattway db repair` saves what is whole")
        }
        _ => told,
    }
}
