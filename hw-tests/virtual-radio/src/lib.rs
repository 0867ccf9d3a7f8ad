//! Virtual Bluetooth LE controllers joined by the project's radio model, for real host stacks (kernel and BlueZ, Bumble).
//!
//! | module | responsible for |
//! |---|---|
//! | [`hci`] | wire facts of the host controller interface |
//! | [`controller`] | one controller: commands of its host in, answers out |
//! | [`world`] | all controllers on one radio; sans-IO: packets and time in, packets out |
//! | [`control`] | faults and questions as JSON lines |
//! | [`btsnoop`] | a log that Wireshark opens |
//!
//! `main.rs` is the program: serial lines, sockets, clock.

pub mod btsnoop;
pub mod control;
pub mod controller;
pub mod hci;
pub mod world;
