//! The lab: a strict ingest server that imitates Wowza and OvenMediaEngine/Qencode, decodes what it receives
//! and judges the publisher.

pub mod hub;
pub mod profile;
mod tally;
