//! A name for one connection, by which the logs of both sides can be put together.

/// Eight hexadecimal digits. Couchbase Lite has a UUID there, which nobody reads as one, and each byte goes over the air.
pub(super) fn correlation_id() -> String {
    format!("{:08x}", fastrand::u32(..))
}
