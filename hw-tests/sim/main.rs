//! Deterministic simulation of whole systems.
