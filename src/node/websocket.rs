//! Nodes that are reached, and reach others, over WebSocket.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use blake2::{Blake2s256, Digest as _};
use subtle::ConstantTimeEq as _;

use super::listen::Sealed;
use super::{Accept, Arrival, Connect, Listen, Local};
use crate::transport::secure::Carrier;
use crate::transport::websocket::{
    Admission, NotAdmitted, PasswordCheck, WebSocketClient, WebSocketListener, WebSocketListenerConfig,
};

/// Makes places of WebSocket; the way to another node is a [`WebSocketClient`].
#[derive(Debug)]
pub struct WebSocket;

impl WebSocket {
    /// Listens on `HOST:PORT`; port 0: any. An IPv6 host stands in brackets.
    pub fn bind(host_and_port: impl Into<String>, config: WebSocketListenerConfig) -> WebSocketPlace {
        WebSocketPlace { host_and_port: host_and_port.into(), config }
    }
}

impl Sealed for WebSocketClient {}

impl Connect for WebSocketClient {
    fn address(&self) -> String {
        self.url().to_string()
    }

    fn connect(&self, _: &Local) -> Carrier {
        Carrier::Stream(Arc::new(self.connection()))
    }
}

/// A database that is served over WebSocket.
pub struct WebSocketPlace {
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

    async fn open(&self, _: &Local) -> io::Result<Box<dyn Accept>> {
        Ok(Box::new(WebSocketListener::bind(&self.host_and_port, self.config.clone()).await?))
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

/// Users and their passwords, of which hashes are kept.
#[derive(Default)]
pub struct Users(BTreeMap<String, [u8; 32]>);

impl Users {
    /// Reads lines of the form `NAME:PASSWORD`; empty ones and those that begin with `#` are left out.
    ///
    /// # Errors
    /// The number of the first line that is wrong, and what is wrong with it; 0 if there is no user at all.
    pub fn parse(text: &str) -> Result<Users, (usize, &'static str)> {
        let mut users = BTreeMap::new();
        for (n, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, password) = line.split_once(':').ok_or((n, "NAME:PASSWORD is expected"))?;
            if name.is_empty() || password.is_empty() {
                return Err((n, "the name or the password is empty"));
            }
            if users.insert(name.to_owned(), hash(password)).is_some() {
                return Err((n, "this user was there before"));
            }
        }
        if users.is_empty() {
            return Err((0, "there is no user in it"));
        }
        Ok(Users(users))
    }

    /// Lets in these users, each with all that the node allows.
    pub fn admission(self) -> Admission {
        let check: PasswordCheck = Arc::new(move |user, password| {
            // An unknown user takes as long as a wrong password.
            let expected = self.0.get(user).copied().unwrap_or_default();
            match bool::from(expected.ct_eq(&hash(password))) {
                true => Ok(None),
                false => Err(NotAdmitted),
            }
        });
        Admission::Passwords(check)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn hash(password: &str) -> [u8; 32] {
    Blake2s256::digest(password).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_admitted_by_their_own_password() {
        let users = Users::parse("# who\n\npump:a:b\nweir: c \n").expect("users");
        let Admission::Passwords(check) = users.admission() else { panic!("passwords") };
        for (user, password, admitted) in [
            ("pump", "a:b", true),
            ("weir", " c ", true),
            ("weir", "c", false),
            ("pump", " c ", false),
            ("x", "", false),
        ] {
            assert_eq!(check(user, password).is_ok(), admitted, "{user} {password:?}");
        }
        for (text, line) in
            [("", 0), ("# a:b\n", 0), ("a:b\nc\n", 2), ("a:\n", 1), (":a\n", 1), ("a:b\na:c\n", 2)]
        {
            assert_eq!(Users::parse(text).expect_err(text).0, line, "{text:?}");
        }
    }
}
