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

/// Makes the edit that a record asks for. `number` counts the records, from 1.
///
/// `_id`, `_rev` and `_deleted` are taken out of the body; `"_deleted": true` deletes the document.
///
/// # Errors
/// No ID, or one that is neither text nor a whole number.
pub(super) fn edit_of(record: Record, number: u64, ids: &IdArgs) -> Result<Edit, CliError> {
    let Record { line, mut fields } = record;
    let own_id = fields.remove("_id");
    let id = if let Some(prefix) = &ids.id_prefix {
        format!("{prefix}{number:0NUMBER_DIGITS$}")
    } else if let Some(field) = &ids.id_from {
        let value = if field == "_id" { own_id.as_ref() } else { fields.get(field) };
        id_text(value.ok_or_else(|| no_id(line, field))?, line, field)?
    } else {
        id_text(&own_id.ok_or_else(|| no_id(line, "_id"))?, line, "_id")?
    };
    fields.remove("_rev");
    let body = match fields.remove("_deleted") {
        None | Some(Value::Bool(false)) => Some(fields),
        Some(Value::Bool(true)) => None,
        Some(_) => {
            return Err(CliError::new(
                Exit::Input,
                format!("line {line}: `_deleted` is neither true nor false"),
            ));
        }
    };
    Ok(Edit { line, id, body })
}

fn id_text(value: &Value, line: u64, field: &str) -> Result<String, CliError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        _ => Err(CliError::new(
            Exit::Input,
            format!("line {line}: `{field}` is neither text nor a whole number"),
        )),
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
        assert_eq!(edit(doc.clone(), &from("n")), Ok(("7".into(), body.clone())));
        assert_eq!(edit(doc.clone(), &from("_id")), Ok(("x".into(), body.clone())));
        assert_eq!(edit(doc.clone(), &prefix), Ok(("p-000041".into(), body)));
        assert_eq!(edit(doc, &from("t")), Err("line 9: `t` is neither text nor a whole number".into()));
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
