//! onair puts a camera and a microphone on air over WebRTC and keeps them there with nobody in the room.

pub mod config;
pub mod feed;
#[doc(hidden)]
pub mod fuzz;
pub mod lab;
pub mod media;
pub mod net;
pub mod peer;
pub mod report;
pub mod signal;
