//! Places that are made anew from the configuration each time that they are opened: a certificate or a list of users that was
//! put right is taken without a restart, and how each attempt ends is known by the place's name.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

use super::address::PlaceAddress;
use super::board::Board;
use super::config::ListenerConfig;
use crate::node::listen::Sealed;
use crate::node::{Accept, Arrival, Listen, Local};

/// A certificate that was made here, for those who are to tell of it.
pub(super) type OwnCertificate = Box<dyn Fn(&str) + Send + Sync>;

/// What is listened on.
pub(super) enum Kind {
    /// As a section `listeners` says.
    Configured(Box<ListenerConfig>),
    /// An adapter.
    #[cfg(feature = "bluetooth")]
    Bluetooth(Box<crate::node::BlePlace>),
}

/// A listener of a gateway.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The database's directory, where an identity of our own is.
    pub(super) directory: PathBuf,
    pub(super) board: Board,
    pub(super) own_certificate: OwnCertificate,
}

impl Place {
    async fn try_open(&self, local: &Local) -> io::Result<Box<dyn Accept>> {
        match &self.kind {
            Kind::Configured(config) => match &config.address {
                PlaceAddress::Stream(address) => address.open(local).await,
                #[cfg(feature = "websocket")]
                PlaceAddress::WebSocket(url) => {
                    let made = super::web_files::place_of(&config.web, url, &self.directory);
                    let (place, own) = made.map_err(|error| {
                        let advice = error.advice().map_or_else(String::new, |advice| format!("; {advice}"));
                        io::Error::other(format!("{error}{advice}"))
                    })?;
                    let opened = place.open(local).await?;
                    if let Some(own) = own {
                        (self.own_certificate)(&own.0);
                    }
                    Ok(opened)
                }
                PlaceAddress::Ble(_) => Err(io::Error::other("an adapter is no such listener")),
            },
            #[cfg(feature = "bluetooth")]
            Kind::Bluetooth(place) => place.open(local).await,
        }
    }
}

impl Sealed for Place {}

#[async_trait]
impl Listen for Place {
    fn address(&self) -> String {
        match &self.kind {
            Kind::Configured(config) => config.address.to_string(),
            #[cfg(feature = "bluetooth")]
            Kind::Bluetooth(place) => place.address(),
        }
    }

    async fn open(&self, local: &Local) -> io::Result<Box<dyn Accept>> {
        match self.try_open(local).await {
            Ok(opened) => {
                self.board.listens(&self.name, Ok(opened.address()));
                Ok(Box::new(Opened { name: self.name.clone(), opened, board: self.board.clone() }))
            }
            Err(error) => {
                self.board.listens(&self.name, Err(error.to_string()));
                Err(error)
            }
        }
    }
}

/// The same while it listens.
struct Opened {
    name: String,
    opened: Box<dyn Accept>,
    board: Board,
}

#[async_trait]
impl Accept for Opened {
    fn address(&self) -> String {
        self.opened.address()
    }

    async fn accept(&mut self) -> io::Result<Option<Arrival>> {
        let accepted = self.opened.accept().await;
        match &accepted {
            Err(error) => self.board.listens(&self.name, Err(error.to_string())),
            Ok(None) => self.board.listens(&self.name, Err("nobody can come in any more".into())),
            Ok(Some(_)) => {}
        }
        accepted
    }
}
