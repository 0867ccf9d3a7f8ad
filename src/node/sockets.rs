//! TCP and Unix sockets as places and ways.

use std::path::PathBuf;

use crate::transport::stream::Address;

/// Makes places and ways of TCP.
/// ```
/// use gattway::Tcp;
///
/// assert_eq!(Tcp::connect("gateway.local:4985").to_string(), "tcp:gateway.local:4985");
/// ```
#[derive(Debug)]
pub struct Tcp;

impl Tcp {
    /// Listens on `HOST:PORT`; port 0: any. An IPv6 host stands in brackets.
    pub fn bind(host_and_port: impl Into<String>) -> Address {
        Address::Tcp(host_and_port.into())
    }

    /// Reaches `HOST:PORT`.
    pub fn connect(host_and_port: impl Into<String>) -> Address {
        Address::Tcp(host_and_port.into())
    }
}

/// Makes places and ways of Unix sockets.
#[derive(Debug)]
pub struct Unix;

impl Unix {
    /// Listens on a socket that is made with mode 0600: its owner alone can connect.
    pub fn bind(path: impl Into<PathBuf>) -> Address {
        Address::Unix(path.into())
    }

    /// Reaches the socket of another process.
    pub fn connect(path: impl Into<PathBuf>) -> Address {
        Address::Unix(path.into())
    }
}
