//! What is set on a replicator or a listener reaches the session, and what an error is to the peer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::scripted::EmptyStore;
use crate::blip::BlipConfig;
use crate::endpoint::ProtocolType::ByteStream;
use crate::endpoint::{MessageEndpoint, MessageEndpointConnection};
use crate::replicator::config::{CollectionConfig, FilterInput, ReplicationFilter, ReplicatorType};
use crate::replicator::error::SessionError;
use crate::replicator::resolver::DefaultResolver;
use crate::replicator::{MessageEndpointListenerConfiguration, ReplicatorConfiguration, ReplicatorError};

fn blip() -> BlipConfig {
    BlipConfig { message_size_max: 4_321, ..BlipConfig::default() }
}

#[test]
fn every_setting_of_a_replicator_reaches_its_session() {
    let delegate =
        |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> { panic!("it does not connect") };
    let endpoint = MessageEndpoint::new("peer", Arc::new(()), ByteStream, Arc::new(delegate));
    let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(EmptyStore::default()));
    for (is_set, direction) in [(true, ReplicatorType::Push), (false, ReplicatorType::Pull)] {
        config.collections = vec![CollectionConfig::new("c.d")];
        config.replicator_type = direction;
        (config.continuous, config.retry_unsynced, config.extension) = (is_set, is_set, is_set);
        config.blip = blip();
        config.confirmed_as = is_set.then(|| "up".to_owned());
        let resolver = Arc::new(DefaultResolver);
        config.resolver = resolver.clone();
        let session = config.session(is_set, is_set, "id");
        assert_eq!(session.collections[0].name, "c.d");
        assert_eq!(session.direction, direction);
        assert_eq!(session.confirmed_as, config.confirmed_as);
        let set = [
            session.continuous,
            session.retry_unsynced,
            session.extension,
            session.reset,
            session.report_documents,
        ];
        assert_eq!(set, [is_set; 5]);
        assert_eq!(session.peer_uid, config.endpoint.uid());
        assert_eq!(session.blip.message_size_max, 4_321);
        assert_eq!(Arc::strong_count(&resolver), 3, "it decides in the session too");
        // By its marks a run is told from one in another past.
        assert_ne!(config.session(is_set, is_set, "id").mark_seed, session.mark_seed);
        config.peer_quota = is_set.then(crate::replicator::PeerQuota::default);
        assert_eq!(config.quotas().is_some(), is_set);
    }
}

#[test]
fn every_setting_of_a_listener_reaches_its_sessions() {
    let mut config = MessageEndpointListenerConfiguration::new(Arc::new(EmptyStore::default()), ByteStream);
    let passes =
        |id: &'static str| -> ReplicationFilter { Arc::new(move |input: &FilterInput<'_>| input.id == id) };
    let body = Bytes::from_static(b"{}");
    let input = |id| FilterInput { collection: "c.d", id, deleted: false, body: &body };
    for is_set in [true, false] {
        config.collections = vec!["c.d".into()];
        (config.accept_push, config.accept_pull) = (is_set, !is_set);
        (config.extension, config.report_documents) = (is_set, is_set);
        (config.incoming_filter, config.outgoing_filter) = (Some(passes("in")), Some(passes("out")));
        config.blip = blip();
        let session = config.session();
        assert_eq!(session.collections, ["c.d"]);
        assert_eq!((session.accept_push, session.accept_pull), (is_set, !is_set));
        assert_eq!((session.extension, session.report_documents), (is_set, is_set));
        assert_eq!(session.blip.message_size_max, 4_321);
        for (filter, passes) in [(session.incoming_filter, "in"), (session.outgoing_filter, "out")] {
            let filter = filter.expect("it is set");
            assert!(filter(&input(passes)) && !filter(&input("other")), "{passes}");
        }
    }
}

/// A peer that is told `permanent` does not come again: not for what another time may go well.
#[test]
fn the_peer_is_told_whether_to_come_again() {
    let code = |error| ReplicatorError::Session(error).close_code();
    let late = code(SessionError::TimedOut { waited: Duration::from_secs(1) });
    assert!(late.is_some());
    assert_eq!(ReplicatorError::HandshakeTimeout { limit: Duration::ZERO }.close_code(), late);
    let broken = code(SessionError::Malformed { what: "changes" });
    assert!(broken.is_some() && broken != late);
    assert_eq!(code(SessionError::TooMany { what: "lists", max: 1, actual: 2 }), broken);
    let never = code(SessionError::Versioning);
    assert!(never.is_some() && never != late && never != broken);
    assert_eq!(code(SessionError::Configuration { reason: "no collections" }), never);
    assert_eq!(ReplicatorError::Lost.close_code(), None);
}
