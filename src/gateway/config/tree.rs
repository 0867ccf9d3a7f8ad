//! The files of a configuration, read whole and merged: a later one replaces single keys of those before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::source::{At, Source};

/// The folder beside the file, whose files are read after it.
pub(crate) const FOLDER: &str = "conf.d";

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most files of the folder.
const FILES_MAX: usize = 256;

/// What a key holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    List(Vec<Located>),
    Table(Table),
    /// Nothing that any key takes, by its kind.
    Other(&'static str),
}

impl Value {
    /// Its kind, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Integer(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) value: Value,
    pub(super) at: At,
}

/// A key with what it holds.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key_at: At,
    pub(super) held: Located,
}

/// Keys by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, Entry>);

impl Table {
    /// Takes over all keys of a later file; tables are merged.
    fn merge(&mut self, later: Table) {
        for (name, entry) in later.0 {
            match (self.0.get_mut(&name).map(|entry| &mut entry.held.value), entry) {
                (
                    Some(Value::Table(mine)),
                    Entry { held: Located { value: Value::Table(theirs), .. }, .. },
                ) => {
                    mine.merge(theirs);
                }
                (_, entry) => drop(self.0.insert(name, entry)),
            }
        }
    }

    fn of(table: &DeTable<'_>, file: usize) -> Table {
        let entries = table.iter().map(|(key, value)| {
            let key_at = At { file, offset: key.span().start };
            (key.get_ref().to_string(), Entry { key_at, held: Located::of(value, file) })
        });
        Table(entries.collect())
    }
}

impl Located {
    fn of(value: &Spanned<DeValue<'_>>, file: usize) -> Located {
        let at = At { file, offset: value.span().start };
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number that is too large"), Value::Integer),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Array(list) => Value::List(list.iter().map(|value| Located::of(value, file)).collect()),
            DeValue::Table(table) => Value::Table(Table::of(table, file)),
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Datetime(_) => Value::Other("a time"),
        };
        Located { value, at }
    }
}

/// The value of a text that is known to be right, as a default is.
pub(super) fn value_of(text: &str) -> Option<Value> {
    let table = format!("v = {text}");
    let table = DeTable::parse(&table).ok()?;
    table.get_ref().iter().next().map(|(_, value)| Located::of(value, 0).value)
}

/// All files, merged, and what is wrong with them as files.
pub(super) struct Tree {
    pub(super) sources: Vec<Source>,
    pub(super) table: Table,
    pub(super) problems: Vec<Problem>,
}

impl Tree {
    /// Reads the file at `path`, and after it those in the folder beside it, by their names.
    pub(super) fn read(path: &Path) -> Tree {
        let mut problems = Vec::new();
        let extra = extra_files(path).unwrap_or_else(|problem| {
            problems.push(*problem);
            Vec::new()
        });
        let mut sources = Vec::new();
        for file in std::iter::once(path).chain(extra.iter().map(PathBuf::as_path)) {
            match read_text(file) {
                Ok(text) => sources.push(Source::new(file, text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && file == path => {
                    if extra.is_empty() {
                        let none = Problem::of_file(path, "there is no configuration");
                        problems.push(
                            none.right("`gattway config init` writes one; --config names another file"),
                        );
                    }
                }
                Err(error) => problems.push(unreadable(file, &error)),
            }
        }
        Tree::parse(sources, problems)
    }

    /// Merges what is there already.
    pub(super) fn parse(sources: Vec<Source>, mut problems: Vec<Problem>) -> Tree {
        let mut table = Table::default();
        for (file, source) in sources.iter().enumerate() {
            let (parsed, errors) = DeTable::parse_recoverable(&source.text);
            for error in errors {
                let place = error.span().map(|span| source.line_and_column(span.start));
                problems.push(Problem::of_syntax(&source.path, place, error.message()));
            }
            table.merge(Table::of(parsed.get_ref(), file));
        }
        Tree { sources, table, problems }
    }
}

fn extra_files(path: &Path) -> Result<Vec<PathBuf>, Box<Problem>> {
    let folder = path.parent().unwrap_or(Path::new(".")).join(FOLDER);
    let listed = match std::fs::read_dir(&folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&folder, &error).into()),
    };
    let is_config = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let files: Result<Vec<PathBuf>, io::Error> =
        listed.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files: Vec<PathBuf> = files.map_err(|error| unreadable(&folder, &error))?;
    files.retain(is_config);
    files.sort();
    if files.len() > FILES_MAX {
        return Err(Problem::of_file(folder, format!("there are more than {FILES_MAX} files in it")).into());
    }
    Ok(files)
}

fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let opened = File::open(file)?;
    if opened.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let problem = Problem::of_file(path, format!("it cannot be read: {error}"));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            problem.right("the user that runs the gateway must be able to read it")
        }
        io::ErrorKind::InvalidData => problem.right("write it in UTF-8"),
        _ => problem,
    }
}
