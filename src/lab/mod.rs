//! The lab: a strict ingest server that imitates Wowza and OvenMediaEngine/Qencode, decodes what it receives
//! and judges the publisher.

mod beep;
mod decode;
mod depacketize;
mod engine;
pub mod faults;
mod framing;
pub mod hub;
mod ingest;
mod judge;
pub mod profile;
mod reception;
mod sdp;
mod strip;
mod sync;
mod tally;
