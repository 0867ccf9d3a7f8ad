//! HTTP: documents, changes and the gateway for every program on the machine.
//!
//! A [`Server`](serve::Server) answers on a Unix socket (`socket`), whose mode says who may, or on TCP with a token (`guard`).
//! What is answered stands in one table (`routes`), with its description in OpenAPI; what a document may be is the database's
//! matter. Bodies come and go in pieces (`body`), within limits that all requests share (`api`).
//!
//! Source: `firmware-notes/http.md`.

mod answered;
pub(crate) mod api;
mod attachments;
pub(crate) mod body;
mod bulk;
pub(crate) mod changes;
mod condition;
pub(crate) mod databases;
mod documents;
pub(crate) mod error;
mod events;
mod expiry;
pub(crate) mod guard;
mod index;
mod list;
pub(crate) mod listener;
mod metrics;
mod page;
mod pair;
mod places;
mod query;
mod routes;
pub(crate) mod serve;
pub(crate) mod server;
pub(crate) mod socket;
#[cfg(test)]
mod tests;
mod trust;
