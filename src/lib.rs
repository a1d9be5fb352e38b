//! onair puts a camera and a microphone on air over WebRTC and keeps them there with nobody in the room.

pub mod cli;
pub mod commands;
pub mod config;
pub mod media;
pub mod report;
pub mod telemetry;
