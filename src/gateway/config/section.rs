//! One section of a configuration as it is read: each key by its kind, and whatever is wrong is noted.

use std::path::PathBuf;
use std::time::Duration;

use super::keys::{Kind, Without, nearest};
use super::problem::Problems;
use super::source::At;
use super::tree::{Entry, Table, Value, value_of};

/// Longest name of a section.
const NAME_CHARS_MAX: usize = 64;

/// One section.
pub(super) struct Section<'a> {
    /// As in `upstreams.central`.
    path: String,
    kind: &'static Kind,
    table: &'a Table,
    at: At,
    problems: &'a Problems<'a>,
}

impl<'a> Section<'a> {
    /// All sections of a kind, with their names; an empty name where the kind has one section alone.
    pub(super) fn all(
        kind: &'static Kind,
        root: &'a Table,
        problems: &'a Problems<'a>,
    ) -> Vec<(String, Section<'a>)> {
        let Some(entry) = root.0.get(kind.name) else { return Vec::new() };
        let Some(table) = table_of(kind.name, kind, entry, problems) else { return Vec::new() };
        let section = |path: String, entry: &'a Entry, table| {
            Section { path, kind, table, at: entry.key_at, problems }.checked()
        };
        if kind.example.is_none() {
            return vec![(String::new(), section(kind.name.to_owned(), entry, table))];
        }
        let named = table.0.iter().filter_map(|(name, entry)| {
            let path = format!("{}.{name}", kind.name);
            check_name(name, &path, entry, problems);
            Some((name.clone(), section(path.clone(), entry, table_of(&path, kind, entry, problems)?)))
        });
        named.collect()
    }

    /// Notes the keys that nothing knows.
    fn checked(self) -> Section<'a> {
        for (name, entry) in &self.table.0 {
            let known = || self.kind.keys.iter().map(|key| key.name);
            if known().any(|known| known == name) {
                continue;
            }
            let right = match name.as_str() {
                "password" | "session" | "users" | "group" => {
                    format!(
                        "a secret has no place in this file: {name}-file names a file, {name}-credential a credential"
                    )
                }
                _ => match nearest(name, known()) {
                    Some(meant) => format!("perhaps {meant} is meant"),
                    None => format!("known here are {}", known().collect::<Vec<_>>().join(", ")),
                },
            };
            self.problems.add(entry.key_at, Some(self.key(name)), "there is no such key", right);
        }
        self
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// Where a key stands, or the section if it does not.
    pub(super) fn at(&self, name: &str) -> At {
        self.table.0.get(name).map_or(self.at, |entry| entry.held.at)
    }

    /// Whether a key is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.0.contains_key(name)
    }

    /// Notes that what a key holds cannot be used.
    pub(super) fn wrong(&self, name: &str, what: impl Into<String>, right: impl Into<String>) {
        self.problems.add(self.at(name), Some(self.key(name)), what, right);
    }

    /// What a key holds, else its default, as `read` takes it; `expected` is what would be right. `None`: neither, or wrong.
    fn read<T>(&self, name: &str, expected: &str, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let key = self.kind.keys.iter().find(|key| key.name == name)?;
        let Some(entry) = self.table.0.get(name) else {
            return match key.without {
                Without::Default(value) => value_of(value).and_then(|value| read(&value).ok()),
                Without::Else(_) => None,
                Without::Required(example) => {
                    let right = format!("write {name} = {example}");
                    self.problems.add(self.at, Some(self.path.clone()), format!("{name} is missing"), right);
                    None
                }
            };
        };
        match read(&entry.held.value) {
            Ok(value) => Some(value),
            Err(what) => {
                self.problems.add(entry.held.at, Some(self.key(name)), what, expected);
                None
            }
        }
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.read(name, "a text in quotes", text_of)
    }

    /// A text that something else reads.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.read(name, expected, |value| parse(&text_of(value)?))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> bool {
        let flag = self.read(name, "true or false, without quotes", |value| match value {
            Value::Flag(flag) => Ok(*flag),
            other => Err(is_not("true or false", other)),
        });
        flag.unwrap_or_default()
    }

    /// A number within limits.
    pub(super) fn number(&self, name: &str, min: u64, max: u64) -> u64 {
        let expected = match max {
            u64::MAX => format!("a number from {min}, without quotes"),
            _ => format!("a number from {min} to {max}, without quotes"),
        };
        let number = self.read(name, &expected, |value| match value {
            Value::Integer(number) => u64::try_from(*number)
                .ok()
                .filter(|number| (min..=max).contains(number))
                .ok_or_else(|| format!("{number} cannot be used")),
            other => Err(is_not("a number", other)),
        });
        number.unwrap_or(min)
    }

    /// Bytes, as `"64M"`.
    pub(super) fn size(&self, name: &str) -> u64 {
        self.try_size(name).unwrap_or_default()
    }

    /// As [`size`](Self::size); `None` if it is wrong, which is noted, or not there.
    pub(super) fn try_size(&self, name: &str) -> Option<u64> {
        let expected = "a number of bytes, as 4096, \"500K\", \"64M\" or \"2G\"";
        self.read(name, expected, |value| match value {
            Value::Integer(number) => u64::try_from(*number).map_err(|_| format!("{number} cannot be used")),
            value => parse_size(&text_of(value)?).map_err(|_| format!("{} is no size", shown(value))),
        })
    }

    /// A time, as `"15m"`.
    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        self.read(name, "a time of a second or more, as \"30s\", \"15m\", \"2h\" or \"1d\"", |value| {
            let duration = humantime::parse_duration(&text_of(value)?);
            let long = duration.ok().filter(|duration| *duration >= Duration::from_secs(1));
            long.ok_or_else(|| format!("{} is no such time", shown(value)))
        })
    }

    /// A time up to `max`, as `"500ms"`; none without the key.
    pub(super) fn delay(&self, name: &str, max: Duration) -> Duration {
        self.try_delay(name, max).unwrap_or_default()
    }

    /// As [`delay`](Self::delay); `None` if it is wrong, which is noted, or not there.
    pub(super) fn try_delay(&self, name: &str, max: Duration) -> Option<Duration> {
        let expected =
            format!("a time up to {}, as \"500ms\" or \"2s\", or \"0s\"", humantime::format_duration(max));
        self.read(name, &expected, |value| {
            let delay = humantime::parse_duration(&text_of(value)?);
            let short = delay.ok().filter(|delay| *delay <= max);
            short.ok_or_else(|| format!("{} is no such time", shown(value)))
        })
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let expected = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        self.read(name, &format!("one of {expected}"), |value| one_of(value, words))
    }

    /// Some of some words.
    pub(super) fn choices<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Vec<T> {
        let expected = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let chosen = self.read(name, &format!("a list of some of {expected}"), |value| match value {
            Value::List(list) if !list.is_empty() => {
                list.iter().map(|one| one_of(&one.value, words)).collect()
            }
            Value::List(_) => Err("the list is empty".into()),
            other => Err(is_not("a list", other)),
        });
        chosen.unwrap_or_default()
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.read(name, "a list of texts, as [\"one\", \"another\"]", |value| match value {
            Value::List(list) => list.iter().map(|one| text_of(&one.value)).collect(),
            other => Err(is_not("a list", other)),
        });
        texts.unwrap_or_default()
    }

    /// A path; what is not absolute is beside the file that names it.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let path = self.text(name)?;
        if path.is_empty() {
            self.wrong(name, "it is empty", "the name of a file");
            return None;
        }
        Some(self.problems.directory(self.at(name)).join(path))
    }

    /// Paths, as [`path`](Self::path).
    pub(super) fn paths(&self, name: &str) -> Vec<PathBuf> {
        let directory = self.problems.directory(self.at(name));
        self.texts(name).into_iter().map(|path| directory.join(path)).collect()
    }

    /// Names with texts, which are not shown.
    pub(super) fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let pairs = self.read(name, "a table of texts, as { X-Plant = \"7\" }", |value| match value {
            Value::Table(table) => {
                let pair = |(name, entry): (&String, &Entry)| match &entry.held.value {
                    Value::Text(text) => Ok((name.clone(), text.clone())),
                    other => Err(format!("{name} is {}, not a text", other.kind())),
                };
                table.0.iter().map(pair).collect()
            }
            other => Err(is_not("a table", other)),
        });
        pairs.unwrap_or_default()
    }
}

fn check_name(name: &str, path: &str, entry: &Entry, problems: &Problems<'_>) {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || sign == '-' || sign == '_';
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !name.chars().all(fits) {
        let right = format!("up to {NAME_CHARS_MAX} letters, digits, - and _");
        problems.add(entry.key_at, Some(path.to_owned()), "this name cannot be used", right);
    }
}

fn table_of<'a>(path: &str, kind: &Kind, entry: &'a Entry, problems: &Problems<'_>) -> Option<&'a Table> {
    if let Value::Table(table) = &entry.held.value {
        return Some(table);
    }
    let section = match (kind.example, path.contains('.')) {
        (Some(example), false) => format!("{path}.{example}"),
        _ => path.to_owned(),
    };
    let what = is_not("a section", &entry.held.value);
    problems.add(entry.key_at, Some(path.to_owned()), what, format!("write [{section}], and its keys below"));
    None
}

fn is_not(expected: &str, value: &Value) -> String {
    format!("it is {}, not {expected}", value.kind())
}

fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(is_not("a text", other)),
    }
}

/// What was given, as errors show it.
fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        other => other.kind().to_owned(),
    }
}

fn one_of<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let text = text_of(value)?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| match nearest(&text, words.iter().map(|(word, _)| *word)) {
        Some(meant) => format!("{text:?} cannot be used; perhaps {meant:?} is meant"),
        None => format!("{text:?} cannot be used"),
    })
}

/// Reads a number of bytes: `1500`, `500K`, `64M`, `2G`, in powers of 1,024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(1),
        "K" | "KIB" => Some(1 << 10),
        "M" | "MIB" => Some(1 << 20),
        "G" | "GIB" => Some(1 << 30),
        _ => None,
    };
    let bytes =
        digits.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or_else(|| "a number of bytes, as 500K, 64M or 2G".into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("1500", 1500), ("0", 0), ("500K", 512_000), ("2m", 2 << 20), ("3GiB", 3 << 30)]
        {
            assert_eq!(super::parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "12Q", "99999999999G"] {
            assert!(super::parse_size(text).is_err(), "{text}");
        }
    }
}
