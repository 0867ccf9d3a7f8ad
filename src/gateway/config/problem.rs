//! What is wrong with a configuration: where it stands, and what would be right.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::source::{At, Source};

/// How something begins that is wrong with how a file is written.
const NOT_TOML: &str = "this is not TOML: ";

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// The file.
    pub(crate) file: PathBuf,
    /// Counted from one; none if the file itself is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// Counted from one, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<usize>,
    /// The key in full, as `upstreams.central.address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// What is wrong. Never what a key holds that is not known: it may be a secret.
    pub(crate) what: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) right: Option<String>,
}

impl Problem {
    /// Something with a whole file.
    pub(super) fn of_file(file: impl Into<PathBuf>, what: impl Into<String>) -> Problem {
        Problem { file: file.into(), line: None, column: None, key: None, what: what.into(), right: None }
    }

    /// Something with how a file is written.
    pub(super) fn of_syntax(
        file: impl Into<PathBuf>,
        place: Option<(usize, usize)>,
        message: &str,
    ) -> Problem {
        let (line, column) = place.unzip();
        // Its message alone: the text around it may hold anything.
        Problem { line, column, ..Problem::of_file(file, format!("{NOT_TOML}{message}")) }
    }

    fn is_syntax(&self) -> bool {
        self.key.is_none() && self.what.starts_with(NOT_TOML)
    }

    /// The same with what would be right.
    pub(super) fn right(mut self, right: impl Into<String>) -> Problem {
        self.right = Some(right.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}:")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}:")?;
        }
        write!(f, " {}", self.what)
    }
}

/// All that is found.
pub(super) struct Problems<'a> {
    sources: &'a [Source],
    list: RefCell<Vec<Problem>>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(sources: &'a [Source], list: Vec<Problem>) -> Problems<'a> {
        Problems { sources, list: RefCell::new(list) }
    }

    /// Notes one, which stands at `at`.
    pub(super) fn add(&self, at: At, key: Option<String>, what: impl Into<String>, right: impl Into<String>) {
        let (source, right) = (&self.sources[at.file], right.into());
        let (line, column) = source.line_and_column(at.offset);
        self.list.borrow_mut().push(Problem {
            file: source.path.clone(),
            line: Some(line),
            column: Some(column),
            key,
            what: what.into(),
            right: (!right.is_empty()).then_some(right),
        });
    }

    /// The file and the line of a place.
    pub(super) fn place(&self, at: At) -> String {
        let source = &self.sources[at.file];
        format!("{}:{}", source.path.display(), source.line_and_column(at.offset).0)
    }

    /// The directory of the file in which something stands.
    pub(super) fn directory(&self, at: At) -> PathBuf {
        self.sources[at.file].path.parent().map(PathBuf::from).unwrap_or_default()
    }

    /// All, in the order of the files. What follows from a line that is not TOML is left out.
    pub(super) fn into_list(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        let place = |problem: &Problem| (problem.file.clone(), problem.line);
        let torn: Vec<_> = list.iter().filter(|problem| problem.is_syntax()).map(place).collect();
        list.retain(|problem| problem.is_syntax() || !torn.contains(&place(problem)));
        let number = |problem: &Problem| self.sources.iter().position(|source| source.path == problem.file);
        list.sort_by_key(|problem| (number(problem), problem.line, problem.column));
        list
    }
}
