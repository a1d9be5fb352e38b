//! onair puts a camera and a microphone on air over WebRTC and keeps them there with nobody in the room.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests make their own instants")
)]

pub mod capture;
pub mod config;
pub mod encode;
pub mod feed;

pub mod media;
pub mod report;
