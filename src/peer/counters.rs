//! What a connection has done, in plain numbers: written by the engine's task and the interceptor, read by anyone.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::feedback::ReceiverReport;
use super::wires::{SelectedPair, locked};

/// A snapshot of one connection's figures; all counts are since its beginning.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// RTP packets sent, retransmissions not counted.
    pub packets: u64,
    /// Bytes of RTP payload in them.
    pub bytes: u64,
    /// Packets sent again in answer to NACKs.
    pub retransmissions: u64,
    /// Sequence numbers that NACKs asked for.
    pub nacks: u64,
    /// Of these, the ones refused: too old, asked too often, or beyond the budget.
    pub nacks_refused: u64,
    /// Picture loss indications.
    pub plis: u64,
    /// Full intra requests, repetitions of one number not counted.
    pub firs: u64,
    /// Goodbyes received.
    pub goodbyes: u64,
    /// Receiver reports about our tracks.
    pub receiver_reports: u64,
    /// Events that found their queue full and were dropped.
    pub events_dropped: u64,
    /// UDP packets thrown away because they came from nobody we talk to.
    pub strangers: u64,
    /// UDP packets that the operating system refused to send.
    pub packets_unsent: u64,
    /// Frames thrown away because a TCP connection would not take them.
    pub frames_refused: u64,
    /// The latest round-trip time that a receiver report gave.
    pub round_trip: Option<Duration>,
    /// The latest receiver report about the sound.
    pub audio_report: Option<ReceiverReport>,
    /// The latest receiver report about the picture.
    pub video_report: Option<ReceiverReport>,
    /// Where media flows; `None` before the first DTLS packet.
    pub pair: Option<SelectedPair>,
    /// From the capture of a picture to its last packet's way into the socket.
    pub capture_to_wire: Latency,
}

/// A distribution of times in steps of a millisecond up to half a second.
#[derive(Clone)]
pub struct Latency {
    steps: Box<[u32; Self::STEPS]>,
    count: u64,
    longest: Duration,
}

impl Latency {
    const STEPS: usize = 501;

    /// Adds a sample.
    pub(crate) fn add(&mut self, sample: Duration) {
        let step = usize::try_from(sample.as_micros().div_ceil(1_000)).unwrap_or(usize::MAX);
        let step = &mut self.steps[step.min(Self::STEPS - 1)];
        *step = step.saturating_add(1);
        self.count += 1;
        self.longest = self.longest.max(sample);
    }

    /// Samples taken.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest sample.
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// The time that a share `part` (0 to 1) of the samples does not exceed, rounded up to a millisecond; half a
    /// second for anything longer; `None` without samples.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let step = self.steps.iter().position(|&n| {
            seen += u64::from(n);
            seen >= rank
        })?;
        Some(Duration::from_millis(step as u64))
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            steps: Box::new([0; Self::STEPS]),
            count: 0,
            longest: Duration::ZERO,
        }
    }
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latency")
            .field("count", &self.count)
            .field("p95", &self.quantile(0.95))
            .field("longest", &self.longest)
            .finish()
    }
}

/// The counters, shared.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Counters>);

impl Shared {
    /// The counters for a short while.
    pub(super) fn lock(&self) -> MutexGuard<'_, Counters> {
        locked(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_round_up_and_stop_at_half_a_second() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        for us in [200, 1_000, 1_001, 7_000] {
            latency.add(Duration::from_micros(us));
        }
        assert_eq!(latency.quantile(0.5), Some(Duration::from_millis(1)));
        assert_eq!(latency.quantile(0.75), Some(Duration::from_millis(2)));
        assert_eq!(latency.quantile(1.0), Some(Duration::from_millis(7)));
        latency.add(Duration::from_secs(3));
        assert_eq!(latency.quantile(1.0), Some(Duration::from_millis(500)));
        assert_eq!(latency.longest(), Duration::from_secs(3));
    }
}
