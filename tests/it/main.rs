//! The one integration binary: agent against lab over loopback, and rules of the source tree itself.

mod clock;
mod contract;
mod corpus;
mod devices;
mod dialects;
mod lab;
mod ladder;
mod layering;
mod network;
mod peer;
mod probe;
mod proxy;
mod publish;
mod receiver;
mod reconnect;
mod rehearsal;
mod relay;
mod relayed;
mod rest;
mod secrets;
mod simd;
mod support;
mod turn;
mod ways;
mod whip;
mod wowza;
