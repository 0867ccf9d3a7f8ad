//! What stands beside a document in JSON that a person or a program gives: `_id`, `_rev` and `_deleted` are no part of the body.
//! One rule for imports, the command and HTTP.

use serde_json::{Map, Value};

/// What stands beside a document in a record, as `db get` and `db export` print it: those members are no part of the body.
/// One rule for all that a person or a program gives as JSON.
#[derive(Debug)]
pub(crate) struct Meta {
    /// `_id`.
    pub(crate) id: Option<Value>,
    /// `_rev`: what was stored when it was read.
    pub(crate) revision: Option<Value>,
    /// `"_deleted": true`.
    pub(crate) deleted: bool,
    /// The rest.
    pub(crate) body: Map<String, Value>,
}

impl Meta {
    /// Takes a record apart.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn take(mut fields: Map<String, Value>) -> Result<Meta, String> {
        let id = fields.remove("_id");
        let revision = fields.remove("_rev");
        let deleted = match fields.remove("_deleted") {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(_) => return Err("`_deleted` is neither true nor false".to_owned()),
        };
        Ok(Meta { id, revision, deleted, body: fields })
    }

    /// Checks that the record does not say it is another document.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn check_id(&self, id: &str) -> Result<(), String> {
        match &self.id {
            Some(own) if id_text(own).as_deref() != Some(id) => {
                Err(format!("its `_id` is {own}, and it would be saved as {id:?}; take `_id` out, or use it"))
            }
            _ => Ok(()),
        }
    }
}

/// A value as an ID: text, or a whole number.
pub(crate) fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}
