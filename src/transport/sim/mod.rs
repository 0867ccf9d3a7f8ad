//! A Bluetooth LE connection without Bluetooth: the radio model and what runs on it.

pub mod radio;
