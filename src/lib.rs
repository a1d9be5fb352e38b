//! onair puts a camera and a microphone on air over WebRTC and keeps them there with nobody in the room.

pub mod capture;
pub mod cli;
pub mod commands;
pub mod config;
pub mod feed;
pub mod encode;
pub mod lab;

pub mod media;
pub mod net;
pub mod peer;
pub mod process;
pub mod publisher;
pub mod report;
pub mod session;
pub mod supervisor;
pub mod signal;
pub mod telemetry;
