//! When a device advertises, how fast, and what its advert says: the policy that a user sets, and the sans-IO core that follows it.
//! What carries it out on BlueZ is `ble.rs` with `transport/bluez/listener.rs`; `gattway bench energy` counts with the same core.

mod machine;
mod policy;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::machine::Advert;
pub(crate) use self::machine::{Advertiser, Pace, Summary};
pub use self::policy::{AdvertPolicy, AdvertPolicyError};
