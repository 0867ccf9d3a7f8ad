//! What a record becomes: an edit of one document. Which field gives the ID, which fields are meta-data.

use clap::Args;
use serde_json::{Map, Value};

use super::records::Record;
use super::{CliError, Exit};

/// Digits of a numbered ID, so that a million records sort in their order.
const NUMBER_DIGITS: usize = 6;

/// Where the IDs of imported documents come from.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct IdArgs {
    /// The field that holds each document's ID; it stays in the document. Without it, each record needs an `_id`
    #[arg(long, value_name = "FIELD")]
    pub(super) id_from: Option<String>,

    /// Number the records: IDs are TEXT and a six-digit number, from 1
    #[arg(long, value_name = "TEXT", conflicts_with = "id_from")]
    pub(super) id_prefix: Option<String>,
}

/// One document to be saved or deleted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edit {
    /// The line of the input it came from.
    pub(super) line: u64,
    /// The document's ID.
    pub(super) id: String,
    /// The new body, without meta-data; `None` deletes the document.
    pub(super) body: Option<Map<String, Value>>,
}

/// What stands beside a document in a record, as `db get` and `db export` print it: those members are no part of the body.
/// One rule for all that a person or a program gives as JSON.
#[derive(Debug)]
pub(super) struct Meta {
    /// `_id`.
    pub(super) id: Option<Value>,
    /// `"_deleted": true`.
    pub(super) deleted: bool,
    /// The rest. `_rev` is left out: it says what was stored when it was printed.
    pub(super) body: Map<String, Value>,
}

impl Meta {
    /// Takes a record apart.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn take(mut fields: Map<String, Value>) -> Result<Meta, String> {
        let id = fields.remove("_id");
        fields.remove("_rev");
        let deleted = match fields.remove("_deleted") {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(_) => return Err("`_deleted` is neither true nor false".to_owned()),
        };
        Ok(Meta { id, deleted, body: fields })
    }

    /// Checks that the record does not say it is another document.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn check_id(&self, id: &str) -> Result<(), String> {
        match &self.id {
            Some(own) if id_text(own).as_deref() != Some(id) => {
                Err(format!("its `_id` is {own}, and it would be saved as {id:?}; take `_id` out, or use it"))
            }
            _ => Ok(()),
        }
    }
}

/// Makes the edit that a record asks for. `number` counts the records, from 1.
///
/// # Errors
/// No ID, one that is neither text nor a whole number, or two that differ.
pub(super) fn edit_of(record: Record, number: u64, ids: &IdArgs) -> Result<Edit, CliError> {
    let Record { line, fields } = record;
    let at_line = |reason: String| CliError::new(Exit::Input, format!("line {line}: {reason}"));
    let meta = Meta::take(fields).map_err(at_line)?;
    let id_of = |value: Option<&Value>, field: &str| {
        let value = value.ok_or_else(|| no_id(line, field))?;
        id_text(value).ok_or_else(|| at_line(format!("`{field}` is neither text nor a whole number")))
    };
    let id = match (&ids.id_prefix, ids.id_from.as_deref()) {
        (Some(prefix), _) => format!("{prefix}{number:0NUMBER_DIGITS$}"),
        (None, Some("_id") | None) => id_of(meta.id.as_ref(), "_id")?,
        (None, Some(field)) => id_of(meta.body.get(field), field)?,
    };
    meta.check_id(&id).map_err(at_line)?;
    Ok(Edit { line, id, body: (!meta.deleted).then_some(meta.body) })
}

/// A value as an ID: text, or a whole number.
fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
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

    fn edit(fields: Value, ids: &IdArgs) -> Result<(String, Option<Value>), String> {
        let Value::Object(fields) = fields else { panic!("a test gives objects") };
        edit_of(Record { line: 9, fields }, 41, ids)
            .map(|edit| (edit.id, edit.body.map(Value::Object)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn ids_come_from_the_meta_field_a_named_field_or_the_number() {
        let none = IdArgs::default();
        let from = |field: &str| IdArgs { id_from: Some(field.into()), id_prefix: None };
        let prefix = IdArgs { id_from: None, id_prefix: Some("p-".into()) };
        let doc = json!({"_id": "x", "_rev": "1@a", "n": 7, "t": 1.5});
        let body = Some(json!({"n": 7, "t": 1.5}));
        assert_eq!(edit(doc.clone(), &none), Ok(("x".into(), body.clone())));
        let bare = json!({"_rev": "1@a", "n": 7, "t": 1.5});
        assert_eq!(edit(bare.clone(), &from("n")), Ok(("7".into(), body.clone())));
        assert_eq!(edit(doc.clone(), &from("_id")), Ok(("x".into(), body.clone())));
        assert_eq!(edit(bare.clone(), &prefix), Ok(("p-000041".into(), body)));
        let two = "line 9: its `_id` is \"x\", and it would be saved as ";
        for (ids, id) in [(from("n"), "7"), (prefix, "p-000041")] {
            let refused = edit(doc.clone(), &ids).expect_err("two IDs");
            assert_eq!(refused, format!("{two}{id:?}; take `_id` out, or use it"));
        }
        assert_eq!(edit(bare, &from("t")), Err("line 9: `t` is neither text nor a whole number".into()));
        assert_eq!(edit(json!({"n": 7}), &none), Err("line 9: no `_id`, so the document has no ID".into()));
    }

    #[test]
    fn deletions_are_marked() {
        let none = IdArgs::default();
        assert_eq!(edit(json!({"_id": "x", "_deleted": true, "a": 1}), &none), Ok(("x".into(), None)));
        assert_eq!(edit(json!({"_id": "x", "_deleted": false}), &none), Ok(("x".into(), Some(json!({})))));
        assert!(edit(json!({"_id": "x", "_deleted": 1}), &none).is_err());
    }
}
