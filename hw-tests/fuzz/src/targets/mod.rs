//! The bodies.

pub mod blip;
pub mod blocks;
pub mod deflate;
pub mod delta;
pub mod folded;
pub mod framing;
pub mod handshake;
pub mod link;
pub mod messages;
pub mod pairing;
pub mod records;
pub mod revs;
pub mod secure;
pub mod session;
pub mod text;
pub mod trust;
