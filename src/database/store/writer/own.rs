//! What revisions of peers say of this database's own versions.

use super::super::keys::{self, CollectionKey};
use super::super::twin::Twin;
use super::{OwnVersions, Writer};
use crate::database::clock;
use crate::replica::revision::{Version, VersionVector};

impl Writer<'_> {
    /// Looks at the versions of a revision from a peer. `known` is what there is of the document.
    pub(crate) fn observe(&mut self, vector: &VersionVector, known: Option<&VersionVector>) -> OwnVersions {
        for version in vector.versions().filter(|version| clock::is_ahead(version.time, self.wall)) {
            self.store.note_ahead(version);
        }
        let own = self.store.source;
        let claimed = vector.time_of(own).unwrap_or(0);
        let given = known.and_then(|known| known.time_of(own));
        if claimed <= given.unwrap_or(0) || given.is_none() && self.state.clock.has_given(claimed) {
            return OwnVersions::Known;
        }
        if clock::is_ahead(claimed, self.wall) && !self.state.clock.has_given(claimed) {
            return OwnVersions::Impossible;
        }
        // What this database gives a document is never taken back: it is in the document's vector, or the document is gone.
        OwnVersions::OfATwin
    }

    /// Notes, once, that another device uses this database's source ID.
    pub(crate) fn note_twin(&mut self, key: CollectionKey, id: &str, version: Version) {
        if self.state.twin.is_some() {
            return;
        }
        let collection = self.store.collection(key).map(|state| state.name.clone()).unwrap_or_default();
        let twin = Twin { collection, id: id.to_owned(), version, noticed_ns: self.wall };
        tracing::warn!(%version, id, "another device goes on with a copy of this database: edits of one can replace the \
            other's; give one of the two a new source ID (`gattway db renew --identity`)");
        self.others.push((keys::TWIN.to_vec(), Some(twin.to_bytes())));
        self.state.twin = Some(twin);
    }
}
