//! onair puts a camera and a microphone on air over WebRTC and keeps them there with nobody in the room.

pub mod capture;
pub mod config;
pub mod encode;
pub mod lab;

pub mod media;
pub mod report;
