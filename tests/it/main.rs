//! The one integration binary: agent against lab over loopback, and rules of the source tree itself.

mod lab;
mod rehearsal;
