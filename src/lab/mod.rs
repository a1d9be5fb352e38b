//! The lab: a strict ingest server that imitates Wowza and OvenMediaEngine/Qencode, decodes what it receives
//! and judges the publisher.

mod beep;
mod decode;
mod depacketize;
pub mod hub;
mod judge;
pub mod page;
pub mod profile;
mod strip;
mod sync;
mod tally;
mod whep;
