//! Blobs: those that revisions of the peer name, and those that it asks for.

#![deny(clippy::disallowed_methods)]

use super::super::blobs::asked::{Next, WantedBlob};
use super::super::blobs::given::{self, Answer, Readable};
use super::super::context::{RequestError, Response, SessionCollection};
use super::super::error::SessionError;
use super::super::in_flight::Awaiting;
use super::super::inbox::Batch;
use super::super::messages::refuse;
use super::Session;
use crate::blip::{ErrorReply, IncomingReply, IncomingRequest};
use crate::replica::blobs::{BlobDigest, BlobState, blobs_in};
use crate::replica::store::{CommitOutcome, ReplicaStore};

/// Blobs that may have come without being durable before others are asked for.
const UNDURABLE_MAX: usize = 32;

impl Session {
    /// Gives revisions to the store, after the blobs that they name and the store lacks have come.
    pub(super) fn store_or_fetch(
        &mut self,
        collection: usize,
        batch: Batch,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        let mut missing = Vec::new();
        if self.context.inbox.may_park() {
            for revision in batch.revisions.iter().filter(|revision| !revision.deleted) {
                for name in blobs_in(&revision.body) {
                    if !matches!(store.blob(&name.digest)?, BlobState::Whole(_)) {
                        missing.push(name.digest);
                        let id = revision.id.clone();
                        self.context.asked.want(WantedBlob { collection, id, name });
                    }
                }
            }
        }
        if missing.is_empty() {
            self.context.inbox.push(batch);
            return Ok(());
        }
        self.context.inbox.park(batch, missing);
        self.ask_for_blobs(store)
    }

    /// Asks for more, unless many have come and are not durable yet: a store keeps a bounded number of those.
    fn ask_for_blobs(&mut self, store: &dyn ReplicaStore) -> Result<(), SessionError> {
        while self.context.inbox.blobs_undurable() < UNDURABLE_MAX
            && let Some(next) = self.context.asked.next(store)?
        {
            match next {
                Next::IsHere(digest) => self.context.inbox.blob_over(&digest, false),
                Next::Ask(message, collection, digest) => {
                    let message = self.context.of_collection(message, collection);
                    self.context.request(message, Awaiting::Blob { digest })?;
                }
            }
        }
        Ok(())
    }

    /// The answer to a request for a blob is over.
    pub(super) fn handle_blob(
        &mut self,
        digest: &BlobDigest,
        result: Result<IncomingReply, ErrorReply>,
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        if let Ok(reply) = result {
            let properties = Some(&reply.properties).filter(|_| !self.context.asked.has_begun(digest));
            self.context.asked.came(digest, properties, &reply.body, store)?;
            self.context.asked.over(digest);
            self.context.inbox.blob_came(*digest);
        } else if !self.context.asked.refused(digest) {
            self.context.inbox.blob_over(digest, false);
        }
        self.ask_for_blobs(store)
    }

    /// Blobs are durable, or were something else: whoever waited for them alone goes to the store.
    pub(super) fn blobs_durable(
        &mut self,
        blobs: &[BlobDigest],
        outcomes: &[CommitOutcome],
        store: &dyn ReplicaStore,
    ) -> Result<(), SessionError> {
        for (digest, outcome) in blobs.iter().zip(outcomes) {
            self.context.inbox.blob_over(digest, matches!(outcome, CommitOutcome::Rejected(_)));
        }
        self.ask_for_blobs(store)
    }

    /// Answers `getAttachment`.
    pub(super) fn handle_get_attachment(
        &mut self,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let collection = self.collection_to_read(request)?;
        let collection = readable(&self.context.collections[collection]);
        if request.no_reply {
            // Nobody would take what is read for it.
            return Ok(Response::Later);
        }
        match self.context.given.begin(request, &collection, store)?? {
            Answer::Whole(message) => Ok(Response::Now(message)),
            Answer::Begins(message, rest) => {
                let begun = self.context.blip.reply_in_parts(request.number, message, rest);
                begun.map_err(SessionError::from)?;
                Ok(Response::Later)
            }
        }
    }

    /// Answers `proveAttachment`.
    pub(super) fn handle_prove_attachment(
        &mut self,
        request: &IncomingRequest,
        store: &dyn ReplicaStore,
    ) -> Result<Response, RequestError> {
        let collection = self.collection_to_read(request)?;
        let collection = readable(&self.context.collections[collection]);
        Ok(Response::Now(given::prove(request, &collection, store)??))
    }

    /// The collection of a request, if the peer may read it.
    fn collection_to_read(&self, request: &IncomingRequest) -> Result<usize, ErrorReply> {
        let collection = self.context.collection_of(request)?;
        if self.may_read(collection) { Ok(collection) } else { Err(refuse::no_blob()) }
    }
}

fn readable(collection: &SessionCollection) -> Readable<'_> {
    let filter = collection.outgoing_filter.as_ref();
    Readable { id: collection.id, name: &collection.name, filter }
}
