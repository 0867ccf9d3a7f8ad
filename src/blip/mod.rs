//! blip
