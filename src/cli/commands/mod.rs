//! One file, or one folder, for each command.

pub(super) mod bench;
pub(super) mod config;
pub(super) mod control;
pub(super) mod db;
pub(super) mod demo;
#[cfg(feature = "bluetooth")]
pub(super) mod doctor;
pub(super) mod documents;
pub(super) mod group;
pub(super) mod id;
pub(super) mod pair;
pub(super) mod peers;
pub(super) mod run;
#[cfg(feature = "bluetooth")]
pub(super) mod scan;
pub(super) mod serve;
pub(super) mod status;
pub(super) mod sync;
pub(super) mod top;
