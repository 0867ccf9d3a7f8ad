//! sled's files read without sled, and without changing a byte of them.
//!
//! sled takes what it cannot read for the torn end of a write: when it opens a log it skips the rest of a segment with a
//! damaged message and overwrites what it believes to be torn. After a power cut that is right. After damage it would
//! serve old content as new, and destroy what could still be saved. So the log is surveyed before sled sees it
//! ([`Survey`]), and what a damaged one still holds is read here ([`Salvage`]).
//!
//! The survey follows the recovery of sled step by step, so that it knows the table of pages sled will have.

mod format;
mod frozen;
mod salvage;
mod survey;
mod tip;

pub(in crate::database::store) use self::frozen::Frozen;
pub(in crate::database::store) use self::salvage::{Lost, Salvage};
pub(in crate::database::store) use self::survey::{Finding, Survey, read_if_there};
pub(in crate::database::store) use self::tip::Tip;

#[cfg(test)]
pub(in crate::database::store) mod tests;
