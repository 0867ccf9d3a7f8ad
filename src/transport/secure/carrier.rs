//! What a secure session runs over.

use std::sync::Arc;

use crate::endpoint::MessageEndpointConnection;
use crate::transport::session::LinkConnection;

/// What a secure session runs over.
#[derive(Clone)]
pub enum Carrier {
    /// Any byte stream.
    Stream(Arc<dyn MessageEndpointConnection>),
    /// A link, whose resumes the session's key then proves.
    Link(Arc<LinkConnection>),
}

impl Carrier {
    pub(super) fn connection(&self) -> &dyn MessageEndpointConnection {
        match self {
            Carrier::Stream(connection) => &**connection,
            Carrier::Link(connection) => &**connection,
        }
    }

    /// The connection itself, where nothing is to be encrypted.
    pub fn into_connection(self) -> Arc<dyn MessageEndpointConnection> {
        match self {
            Carrier::Stream(connection) => connection,
            Carrier::Link(connection) => connection,
        }
    }
}
