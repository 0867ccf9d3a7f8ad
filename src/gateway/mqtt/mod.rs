//! MQTT: documents of collections are published to topics, and messages of topics become documents.
//!
//! `publisher` keeps in touch with one broker by a `connection`; `window` knows what is under way and up to where all is published (no I/O, no
//! clock), `place` keeps that with the database. `payload` makes
//! messages of documents, `intake` documents of messages, `discovery` what Home Assistant is told of sensors. `options` makes what
//! rumqttc is given of the configuration.

mod connection;
mod discovery;
mod intake;
mod options;
mod payload;
mod place;
mod publisher;
mod window;

pub(crate) use self::publisher::Publishing;
