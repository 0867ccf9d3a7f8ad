//! The handles that an application holds: [`Replicator`] for the active side, [`MessageEndpointListener`] for the passive
//! one. Each runs sessions on the driver, tells their status and decides when to try again.

mod config;
mod connections;
mod correlation;
mod listener;
mod listener_config;
mod listener_event;
mod pending;
mod quota;
mod refusals;
mod replicator;
mod retry;
mod status;
#[cfg(test)]
mod tests;

pub use self::config::ReplicatorConfiguration;
pub use self::listener::MessageEndpointListener;
pub(crate) use self::listener_config::CONNECTIONS_MAX;
#[cfg(test)]
pub(crate) use self::listener_config::PEER_CONNECTIONS_MAX;
pub use self::listener_config::{
    MessageEndpointListenerConfiguration, REASSEMBLY_BYTES_MAX, REASSEMBLY_BYTES_SHARED_MAX,
};
pub use self::listener_event::{ListenerError, MessageEndpointListenerChange};
pub use self::quota::PeerQuota;
pub(crate) use self::quota::Quotas;
pub use self::refusals::Refusals;
pub use self::replicator::{ConflictReport, Replicator};
pub use self::retry::ONE_SHOT_ATTEMPTS_MAX;
pub(crate) use self::retry::RetryPolicy;
pub use self::status::{
    ListenerToken, ReplicatorActivity, ReplicatorProgress, ReplicatorStatus, StatusStream,
};
