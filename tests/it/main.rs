//! The one integration binary: agent against lab over loopback, and rules of the source tree itself.

mod corpus;
mod dialects;
mod lab;
mod layering;
mod peer;
mod publish;
mod receiver;
mod reconnect;
mod rehearsal;
mod secrets;
mod simd;
mod support;
