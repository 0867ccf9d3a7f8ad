//! Nodes that are reached, and reach others, over WebSocket.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use super::listen::Sealed;
use super::{Accept, Arrival, Connect, Listen, Local};
use crate::replica::revision::Versioning;
use crate::transport::secure::Carrier;
use crate::transport::websocket::{
    SUB_PROTOCOL, SUB_PROTOCOL_OF_TREES, WebSocketClient, WebSocketListener, WebSocketListenerConfig,
};

/// Makes places of WebSocket; the way to another node is a [`WebSocketClient`].
#[derive(Debug)]
pub struct WebSocket;

impl WebSocket {
    /// Listens on `HOST:PORT`; port 0: any. An IPv6 host stands in brackets.
    pub fn bind(host_and_port: impl Into<String>, config: WebSocketListenerConfig) -> impl Listen {
        WebSocketPlace { host_and_port: host_and_port.into(), config }
    }
}

/// What a database speaks.
fn sub_protocol(local: &Local) -> &'static str {
    match local.versioning {
        Versioning::RevisionTrees => SUB_PROTOCOL_OF_TREES,
        _ => SUB_PROTOCOL,
    }
}

impl Sealed for WebSocketClient {}

impl Connect for WebSocketClient {
    fn address(&self) -> String {
        self.url().to_string()
    }

    fn connect(&self, local: &Local) -> Carrier {
        Carrier::Stream(Arc::new(self.connection(sub_protocol(local))))
    }
}

/// A database that is served over WebSocket.
struct WebSocketPlace {
    host_and_port: String,
    config: WebSocketListenerConfig,
}

impl Sealed for WebSocketPlace {}

#[async_trait]
impl Listen for WebSocketPlace {
    fn address(&self) -> String {
        let scheme = if self.config.identity.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}/{}", self.host_and_port, self.config.database)
    }

    async fn open(&self, local: &Local) -> io::Result<Box<dyn Accept>> {
        let (address, config) = (&self.host_and_port, self.config.clone());
        Ok(Box::new(WebSocketListener::bind_to_speak(address, config, sub_protocol(local)).await?))
    }
}

#[async_trait]
impl Accept for WebSocketListener {
    fn address(&self) -> String {
        self.url().to_owned()
    }

    async fn accept(&mut self) -> io::Result<Option<Arrival>> {
        let connection = WebSocketListener::accept(self).await?;
        let label = connection.peer().to_owned();
        Ok(Some(Arrival { carrier: Carrier::Stream(Arc::new(connection)), label }))
    }
}
