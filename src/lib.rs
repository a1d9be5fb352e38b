//! onair puts a camera and a microphone on air over WebRTC and keeps them there with nobody in the room.
//!
//! # The map
//!
//! The folders in order are a frame's road: [`capture`] (devices and their stand-ins) → [`encode`] (H.264, Opus) →
//! [`feed`] (owns both, hands encoded media to any number of takers) → [`session`] (one attempt at one server) →
//! [`peer`] (the WebRTC engine). [`signal`] is the conversation that a session holds meanwhile, over [`net`];
//! [`network`] tells when the machine's own network has changed.
//! Above stand the two long-lived owners: a [`publisher`] keeps one feed on air at one server and owns all
//! retrying towards it; the feed owns its devices and all reopening of them. [`supervisor`] owns both kinds;
//! [`daemon`] looks after it where nobody else does, by the judgement of [`health`].
//! A [`platform`] is a vendor's control plane, which must be told to start and stop the stream that is published to, and
//! [`account`] guards what that costs. [`status`] shows all of it over HTTP, and the [`recorder`] keeps it for later.
//! [`lab`] stands opposite: a strict ingest server that judges, and shares no protocol code with the agent.
//! [`media`] is everybody's vocabulary.
//!
//! # Two journeys
//!
//! *A picture*: the capture thread stamps it with media time and posts it, unconverted, into a mailbox that drops the
//! oldest; the encoder thread takes the newest, makes an access unit and offers it to every subscription, each a
//! bounded lane that drops the oldest; the session's gate lets both tracks start at one instant; the peer
//! makes RTP whose timestamps are capture time.
//!
//! *A key-frame request*: the engine's tap sees the PLI or FIR and posts an event; the session tells its
//! subscription; the feed coalesces the wishes of all; the next picture is an IDR.
//!
//! # Invariants
//!
//! - Nothing upstream ever waits for anything downstream. Every queue is bounded, drops the oldest and counts it.
//! - A lost server never closes the camera; a lost camera never closes the session.
//! - *On air* means that the server's receiver reports advance, never that a socket is open.
//! - Exactly one owner retries each thing. Errors state facts; one table turns them into verdicts.
//! - Pure parts are told the time and the chance; clocks are read at the top of the loops around them.
//! - Each third-party crate that could have to be replaced is imported by one file or folder; a test holds this.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests make their own instants")
)]

pub mod account;
pub mod capture;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod encode;
pub mod feed;
#[doc(hidden)]
pub mod fuzz;
pub mod health;
pub mod lab;
pub mod media;
pub mod net;
pub mod network;
pub mod peer;
pub mod platform;
pub mod probe;
pub mod process;
pub mod publisher;
pub mod recorder;
pub mod report;
pub mod session;
pub mod signal;
pub mod status;
pub mod supervisor;
pub mod telemetry;
