//! What a record becomes: a document to be saved or deleted. Which fields give its ID, which are meta-data.

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::records::Record;
use crate::database::{DatabaseError, check_document_id};
use crate::gateway::record::{Meta, id_text};
use crate::replica::revision::SourceId;
use crate::replica::validate::check_body;

/// Digits of a numbered ID, so that a million records sort in their order.
pub(crate) const NUMBER_DIGITS: usize = 6;

/// Signs of the database in a numbered ID: 30 bits, so that two of a thousand devices have the same once in 2,000 such groups.
pub(crate) const SIGNS: usize = 6;

/// What stands between the parts of an ID that several fields make.
const ID_SEPARATOR: &str = "::";

/// How records become documents.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EntryArgs {
    /// The field that holds each document's ID, or several that make it together (`sensor,time` gives `s1::12:00`); they
    /// stay in the document. Without it, each record needs an `_id`
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    pub(crate) id_from: Vec<String>,

    /// Number the records: IDs are TEXT, six signs of this database and a number (`r-k7q2mx-000001`), which goes on after the
    /// highest in the collection. No two devices make the same, whatever TEXT they have
    #[arg(long, value_name = "TEXT", conflicts_with = "id_from")]
    pub(crate) id_prefix: Option<String>,

    /// Leave this database's signs out of numbered IDs (`r-000001`): only where no other device uses the same TEXT, or the
    /// documents of both get into conflict
    #[arg(long, requires = "id_prefix")]
    pub(crate) short_ids: bool,

    /// Overwrite documents that are there with other content; otherwise they are kept, counted and reported
    #[arg(long)]
    pub(crate) replace: bool,
}

impl EntryArgs {
    /// Checks what can be checked without a record.
    ///
    /// # Errors
    /// A prefix that no ID may have, a field without a name.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        if self.id_from.iter().any(String::is_empty) {
            return Err(CliError::new(Exit::Usage, "--id-from names a field without a name"));
        }
        let Some(prefix) = &self.id_prefix else { return Ok(()) };
        check_document_id(&format!("{prefix}{:-<SIGNS$}-{}", "", u64::MAX))
            .map_err(|error| CliError::new(Exit::Usage, format!("--id-prefix {prefix:?}: {error}")))
    }
}

/// What a numbered ID has of the database that makes it.
pub(crate) fn signs_of(source: SourceId) -> String {
    /// The alphabet of RFC 4648 base32, in small letters.
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = u128::from_be_bytes(source.0);
    (0..SIGNS).map(|n| char::from(ALPHABET[(bits >> (128 - 5 * (n + 1))) as usize & 31])).collect()
}

/// One document to be saved or deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The line of the input it came from.
    pub(crate) line: u64,
    /// The document's ID; `None`: the next number.
    pub(crate) id: Option<String>,
    /// The new body, without meta-data; `None` deletes the document.
    pub(crate) body: Option<Map<String, Value>>,
}

impl Entry {
    /// Checks what can be checked without the database; gives the size of its body in bytes.
    ///
    /// # Errors
    /// Why it cannot be a document, with its line.
    pub(crate) fn check(&self) -> Result<usize, CliError> {
        let at_line = |error: DatabaseError| {
            crate::cli::support::store::failed(error).context(&format!("line {}: ", self.line), "")
        };
        let id = self.id.as_deref().unwrap_or("numbered");
        check_document_id(id).map_err(at_line)?;
        let Some(body) = &self.body else { return Ok(0) };
        let of_document = |error: CliError| match &self.id {
            Some(id) => error.context("", &format!(" (document {id:?})")),
            None => error,
        };
        check_body(body).map_err(|invalid| of_document(at_line(invalid.into())))
    }
}

/// Makes what a record asks for.
///
/// # Errors
/// No ID, one that is neither text nor a whole number, or two that differ; with the line.
pub(crate) fn entry_of(record: Record, args: &EntryArgs) -> Result<Entry, CliError> {
    let Record { line, fields } = record;
    let at_line = |reason: String| CliError::new(Exit::Input, format!("line {line}: {reason}"));
    let meta = Meta::take(fields).map_err(at_line)?;
    let id = match (&args.id_prefix, args.id_from.as_slice()) {
        (Some(_), _) if meta.id.is_some() => {
            return Err(at_line(
                "it has an `_id`, and is to be numbered; take `_id` out, or use it".to_owned(),
            ));
        }
        (Some(_), _) => None,
        (None, []) => Some(part_of_id(&meta, "_id", line)?),
        (None, [field]) => Some(part_of_id(&meta, field, line)?),
        (None, fields) => Some(composite_id(&meta, fields, line)?),
    };
    if let Some(id) = &id {
        meta.check_id(id).map_err(at_line)?;
    }
    Ok(Entry { line, id, body: (!meta.deleted).then_some(meta.body) })
}

fn part_of_id(meta: &Meta, field: &str, line: u64) -> Result<String, CliError> {
    let value = if field == "_id" { meta.id.as_ref() } else { meta.body.get(field) };
    id_text(value.ok_or_else(|| no_id(line, field))?).ok_or_else(|| {
        let message =
            format!("line {line}: `{field}` is neither text nor a whole number, so it can be no ID");
        CliError::new(Exit::Input, message)
    })
}

/// An ID of several fields. No two records with different values get the same one.
fn composite_id(meta: &Meta, fields: &[String], line: u64) -> Result<String, CliError> {
    let mut parts = Vec::with_capacity(fields.len());
    for field in fields {
        let part = part_of_id(meta, field, line)?;
        // A colon at an edge would make `a:` + `b` the same as `a` + `:b`.
        let is_ambiguous = part.contains(ID_SEPARATOR) || part.starts_with(':') || part.ends_with(':');
        if part.is_empty() || is_ambiguous {
            let what = if part.is_empty() { "is empty".to_owned() } else { format!("is {part:?}") };
            let message = format!("line {line}: `{field}` {what}, so it can be no part of an ID");
            return Err(CliError::new(Exit::Input, message)
                .help("the parts are joined by `::`; none may hold it, or begin or end with a colon"));
        }
        parts.push(part);
    }
    Ok(parts.join(ID_SEPARATOR))
}

fn no_id(line: u64, field: &str) -> CliError {
    CliError::new(Exit::Input, format!("line {line}: no `{field}`, so the document has no ID")).help(
        "name the field that holds it with --id-from FIELD, or number the records with --id-prefix TEXT",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(fields: Value, args: &EntryArgs) -> Result<(Option<String>, Option<Value>), String> {
        let Value::Object(fields) = fields else { panic!("a test gives objects") };
        entry_of(Record { line: 9, fields }, args)
            .map(|entry| (entry.id, entry.body.map(Value::Object)))
            .map_err(|error| error.to_string())
    }

    fn from(fields: &[&str]) -> EntryArgs {
        EntryArgs { id_from: fields.iter().map(|&field| field.into()).collect(), ..EntryArgs::default() }
    }

    #[test]
    fn ids_come_from_the_meta_field_named_fields_or_the_number() {
        let none = EntryArgs::default();
        let prefix = EntryArgs { id_prefix: Some("p-".into()), ..EntryArgs::default() };
        let doc = json!({"_id": "x", "_rev": "1@a", "n": 7, "t": 1.5});
        let bare = json!({"_rev": "1@a", "n": 7, "t": 1.5});
        let body = Some(json!({"n": 7, "t": 1.5}));
        let id = |id: &str| Some(id.to_owned());
        assert_eq!(entry(doc.clone(), &none), Ok((id("x"), body.clone())));
        assert_eq!(entry(bare.clone(), &from(&["n"])), Ok((id("7"), body.clone())));
        assert_eq!(entry(doc.clone(), &from(&["_id"])), Ok((id("x"), body.clone())));
        assert_eq!(entry(bare.clone(), &prefix), Ok((None, body)));
        for (args, refused) in [
            (
                from(&["n"]),
                "line 9: its `_id` is \"x\", and it would be saved as \"7\"; take `_id` out, or use it",
            ),
            (prefix, "line 9: it has an `_id`, and is to be numbered; take `_id` out, or use it"),
        ] {
            assert_eq!(entry(doc.clone(), &args), Err(refused.into()));
        }
        let refused = "line 9: `t` is neither text nor a whole number, so it can be no ID";
        assert_eq!(entry(bare, &from(&["t"])), Err(refused.into()));
        assert_eq!(entry(json!({"n": 7}), &none), Err("line 9: no `_id`, so the document has no ID".into()));
    }

    #[test]
    fn ids_of_several_fields_are_one_to_one() {
        let args = from(&["sensor", "time"]);
        let made = |sensor: Value, time: Value| entry(json!({"sensor": sensor, "time": time}), &args);
        let (id, body) = made(json!("s1"), json!("2010-01-01T01:00")).expect("two parts");
        assert_eq!(id.as_deref(), Some("s1::2010-01-01T01:00"));
        assert_eq!(body, Some(json!({"sensor": "s1", "time": "2010-01-01T01:00"})));
        assert_eq!(made(json!(4), json!(5)).expect("numbers").0.as_deref(), Some("4::5"));
        for (sensor, time) in [("a:", "b"), ("a", ":b"), ("a::b", "c"), ("", "b"), ("a", "")] {
            let refused = made(json!(sensor), json!(time)).expect_err("ambiguous");
            assert!(refused.contains("so it can be no part of an ID"), "{refused}");
        }
        let refused = entry(json!({"sensor": "a"}), &args).expect_err("a part is missing");
        assert_eq!(refused, "line 9: no `time`, so the document has no ID");
    }

    #[test]
    fn deletions_are_marked() {
        let none = EntryArgs::default();
        let id = Some("x".to_owned());
        assert_eq!(entry(json!({"_id": "x", "_deleted": true, "a": 1}), &none), Ok((id.clone(), None)));
        assert_eq!(entry(json!({"_id": "x", "_deleted": false}), &none), Ok((id, Some(json!({})))));
        assert!(entry(json!({"_id": "x", "_deleted": 1}), &none).is_err());
    }
}
