//! The one integration binary: agent against lab over loopback, and rules of the source tree itself.
mod publish;
mod reconnect;
mod support;
//! The integration tests: one binary, one module per subject.

mod peer;
mod receiver;

mod layering;
