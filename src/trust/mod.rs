//! Who is known and who may come in: the files of a database that say so, and the answers that come of them.
//!
//! | module | responsible for |
//! |---|---|
//! | [`files`] | files that are the owner's alone |
//! | `identity` | the file of the [`Identity`](crate::secure::Identity) |
//! | [`group`] | the group as a device keeps it: its secret, its name here, its epochs |
//! | [`list`] | the trust list |
//! | [`presence`] | which of these files a database has had, so that a loss is noticed |
//! | [`problems`] | what is wrong with them, and what their owner can do |
//! | `guesses` | [`Guesses`]: pairing codes that were tried in vain |
//! | `answers` | [`Trust`]: group and list, kept up to date, as the [`PeerPolicy`](crate::secure::PeerPolicy) of sessions |
//! | `news` | [`GroupNews`]: what a running node tells of its group |
//! | `resolver` | [`AdvertResolver`]: whose sealed adverts are heard |
//!
//! Knows the protocol in [`crate::secure`] and no other layer. The files are described in `firmware-notes/trust.md`.

mod answers;
mod entry;
pub mod files;
pub mod group;
mod guesses;
pub(crate) mod identity;
pub mod list;
mod news;
pub mod presence;
pub mod problems;
mod resolver;

pub use answers::{FORMER_TIME, LOOK_INTERVAL, Trust, TrustOpenError};
pub use guesses::Guesses;
pub use identity::{IDENTITY_FILE, IdentityError};
pub use news::GroupNews;
pub use resolver::{AdvertResolver, Resolved};
