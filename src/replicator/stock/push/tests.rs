use std::time::Duration;

use super::*;
use crate::blip::BlipConfig;
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::CollectionId;
use crate::replicator::feed::Feed;
use crate::replicator::memory_store::MemoryStore;
use crate::replicator::sequences::SequenceSet;

fn pushing(continuous: bool) -> (SessionContext, PushState) {
    let context = SessionContext::new(BlipConfig::default(), false, true, Duration::from_secs(60));
    let feed = Feed::new(CollectionId(0), "_default", 0, None);
    (context, PushState::new(0, feed, SequenceSet::new(), true, continuous))
}

#[test]
fn so_many_documents_are_tried_again_each_so_often() {
    let mut push = ListPush::default();
    assert_eq!([push.may_retry(0, 2), push.may_retry(0, 2), push.may_retry(0, 2)], [true, true, false]);
    let others = 1..RETRIED_DOCUMENTS_MAX as u64;
    assert!(others.clone().all(|sequence| push.may_retry(sequence, 2)));
    assert!(!push.may_retry(others.end, 2), "no other");
    assert_eq!([push.may_retry(1, 2), push.may_retry(1, 2)], [true, false]);
}

/// The result of a conflict goes out a little later, and of a sync that is done once with the next.
#[test]
fn what_a_conflict_came_to_waits() {
    for continuous in [false, true] {
        let (mut context, mut state) = pushing(continuous);
        context.now = context.now + Duration::from_secs(7);
        ListPush::default().resolution_made(&mut state, &context, 5);
        let due = continuous.then(|| context.now + RESOLUTION_PUSH_DELAY);
        assert_eq!(state.delayed_until, due);
    }
}

/// The peer's revision may name ours: then its feed brings it once more, and the run does not tell of a conflict before that.
#[test]
fn of_a_conflict_that_the_peer_lists_again_nothing_is_told_yet() {
    let store = MemoryStore::new(1);
    store.put("d", "{}");
    let change = store.revision(CollectionId(0), "d").expect("readable").expect("there");
    let theirs = VersionVector::new(Version { time: 1, source: SourceId([9; 16]) });
    let above = VersionVector { history: vec![change.vector.current], ..theirs.clone() };
    for (rev, told) in [(theirs, 1), (above, 0)] {
        let (mut context, mut state) = pushing(false);
        let (mut push, changes) = (ListPush::default(), vec![change.clone()]);
        let answers = vec![ListAnswer::Conflict { rev: Some(rev.clone()) }];
        let taken = push.proposals_answered(&mut state, &mut context, changes, answers, &store);
        taken.expect("an answer");
        assert_eq!(state.conflicts.tell(false).len(), told, "{rev:?}");
    }
}
