//! Receiving single revisions: from a `rev` request to what the store takes.

#![deny(clippy::disallowed_methods)]

use super::config::FilterInput;
use super::context::{RequestError, SessionContext};
use super::deltas::DELTA_SOURCE;
use super::messages::{id_error, refuse, rejection_error, trees};
use crate::blip::{ErrorReply, IncomingRequest};
use crate::replica::delta;
use crate::replica::revision::{RevId, VersionVector, Versioning};
use crate::replica::store::{IncomingRevision, Rejection, ReplicaStore};

/// Reads a `rev` request.
///
/// # Errors
/// The error reply that is due; the revision is not stored.
pub(super) fn parse_rev(
    context: &SessionContext,
    collection: usize,
    request: &IncomingRequest,
    store: &dyn ReplicaStore,
) -> Result<IncomingRevision, RequestError> {
    let property = |name| request.properties.get(name).unwrap_or_default();
    let id = property("id");
    if id.is_empty() {
        return Err(ErrorReply::http(400, "no document ID").into());
    }
    let vector = match context.versioning {
        Versioning::RevisionTrees => trees::parse_revision(&request.properties)?,
        _ => parse_vector(property("rev"), property("history"))?,
    };
    if let Some(error) = id_error(id) {
        return Err(error.into());
    }
    if request.body.is_empty() {
        return Err(rejection_error(&Rejection::BadBody("empty".into())).into());
    }
    let deleted = request.properties.get_bool("deleted");
    let collection = context.collections[collection].id;
    let body = match request.properties.get(DELTA_SOURCE) {
        None => request.body.clone(),
        Some(_) if !context.deltas.enabled => return Err(refuse::delta().into()),
        Some(base) => {
            let base = base.parse().map_err(|_| refuse::delta())?;
            let base = store.body_at(collection, id, base)?.ok_or_else(refuse::delta)?;
            delta::applied(&base, &request.body).map_err(|_| refuse::delta())?.into()
        }
    };
    Ok(IncomingRevision { collection, id: id.to_owned(), vector, deleted, body })
}

/// Whether the filter of this side lets a revision in.
pub(super) fn passes(context: &SessionContext, collection: usize, revision: &IncomingRevision) -> bool {
    let target = &context.collections[collection];
    let IncomingRevision { id, deleted, body, .. } = revision;
    target
        .incoming_filter
        .as_ref()
        .is_none_or(|filter| filter(&FilterInput { collection: &target.name, id, deleted: *deleted, body }))
}

fn parse_vector(rev: &str, history: &str) -> Result<VersionVector, ErrorReply> {
    // A malformed revision and a malformed history are two errors.
    let front = rev.split([',', ';']).next().unwrap_or_default();
    front.trim().parse::<RevId>().map_err(|_| ErrorReply::http(400, "malformed revision ID"))?;
    VersionVector::from_rev_and_history(rev, history).map_err(refuse::versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_bad_revision_from_a_bad_history() {
        let good = "18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ";
        assert_eq!(parse_vector("zzz", "").expect_err("bad").code, 400);
        assert_eq!(parse_vector("", "").expect_err("bad").code, 400);
        assert_eq!(parse_vector(good, "garbage").expect_err("bad").code, 4);
        assert_eq!(parse_vector(good, "").expect("good").to_string(), good);
    }
}
