//! Packets that go into the engine together: all of a burst but the last wait here, and the interceptor takes them out
//! when the last one comes by.
//!
//! To the engine each packet handed to it is an event of its own, after which it asks every layer for timers and
//! output anew. Measured side by side at eight publishers of 2 Mbit/s, each further one took 6.7 ms of CPU a second with
//! this and 7.3 ms without, on a busy machine; in an unoptimised build 3.8 and 11 ms.

use std::collections::VecDeque;
use std::sync::Mutex;

use rtc::rtp;

use super::wires::locked;

/// Packets kept for an engine that takes none. A burst is shorter, and the next one comes after its last packet.
const MOST: usize = 64;

/// Packets on their way into the engine, in order.
#[derive(Debug, Default)]
pub(super) struct Burst(Mutex<VecDeque<rtp::Packet>>);

impl Burst {
    /// `packet` waits for the one that is handed to the engine next. Of too many the oldest is dropped.
    pub(super) fn push(&self, packet: rtp::Packet) {
        let mut waiting = locked(&self.0);
        if waiting.len() == MOST {
            waiting.pop_front();
        }
        waiting.push_back(packet);
    }

    /// All that wait.
    pub(super) fn take(&self) -> VecDeque<rtp::Packet> {
        std::mem::take(&mut locked(&self.0))
    }
}
