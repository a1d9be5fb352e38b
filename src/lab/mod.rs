//! The lab: a strict ingest server that imitates Wowza and OvenMediaEngine/Qencode, decodes what it receives
//! and judges the publisher.

mod beep;
mod depacketize;
pub mod hub;
pub mod profile;
mod sync;
mod tally;
