//! The vocabulary of the media half: time, raw frames, encoded access units.
//!
//! Nothing here performs I/O, reads a clock or spawns anything; whoever needs the time is told it.

pub mod access_unit;
pub mod clock_code;
pub mod convert;
pub mod frame;
pub mod payload_types;
pub mod pool;
pub mod time;
