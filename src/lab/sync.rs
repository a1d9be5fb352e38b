//! When a picture or a sound was captured, according to the sender reports, and how far the two are apart.
//!
//! Pure. Times are seconds since the Unix epoch, as `f64` (microseconds are exact until the year 2255).

/// One sender report's pairing of the sender's wall clock with a track's RTP clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pairing {
    /// The sender's wall clock.
    pub(super) wall: f64,
    /// RTP time, extended.
    pub(super) rtp: u64,
}

/// A track's clock as its receiver sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackClock {
    hz: f64,
    first: Option<u64>,
    newest: Option<Pairing>,
}

impl TrackClock {
    /// A clock of `hz` ticks a second that has seen nothing.
    pub(super) const fn new(hz: u32) -> Self {
        Self {
            hz: hz as f64,
            first: None,
            newest: None,
        }
    }

    /// A packet arrived; the first one is time zero of a receiver without sender reports.
    pub(super) fn packet(&mut self, rtp: u64) {
        self.first.get_or_insert(rtp);
    }

    /// A sender report arrived.
    pub(super) const fn report(&mut self, pairing: Pairing) {
        self.newest = Some(pairing);
    }

    /// Wall time of `rtp` by the newest sender report.
    pub(super) fn wall(&self, rtp: u64) -> Option<f64> {
        let pairing = self.newest?;
        Some(pairing.wall + (rtp as f64 - pairing.rtp as f64) / self.hz)
    }

    /// Seconds from the track's first packet to `rtp`.
    pub(super) fn since_first(&self, rtp: u64) -> Option<f64> {
        Some((rtp as f64 - self.first? as f64) / self.hz)
    }
}

/// Offset of sound against picture, both ways of reading it, in seconds; positive is sound ahead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Offset {
    /// As a receiver plays it that trusts sender reports; `None` without reports of both tracks.
    pub(super) by_reports: Option<f64>,
    /// As a receiver plays it that puts the first packet of each track at zero (OvenMediaEngine).
    pub(super) zero_based: Option<f64>,
}

impl Offset {
    /// The worse reading.
    pub(super) fn worse(self) -> Option<f64> {
        [self.by_reports, self.zero_based]
            .into_iter()
            .flatten()
            .max_by(|a, b| a.abs().total_cmp(&b.abs()))
    }
}

/// Puts the clock that is burnt into the picture and the beep at each full second side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sync {
    /// The video track's clock.
    pub(super) video: TrackClock,
    /// The audio track's clock.
    pub(super) audio: TrackClock,
    /// Nothing is shown as long as the reports of a track are waited for.
    pub(super) waiting: bool,
    picture: Option<(u64, f64)>,
}

impl Sync {
    /// Neither track has been seen.
    pub(super) const fn new(video_hz: u32, audio_hz: u32) -> Self {
        Self {
            video: TrackClock::new(video_hz),
            audio: TrackClock::new(audio_hz),
            waiting: false,
            picture: None,
        }
    }

    /// Seconds between the capture of the audio track's first packet and the video track's, by their reports.
    pub(super) fn started_apart(&self) -> Option<f64> {
        let first = |track: &TrackClock| track.wall(track.first?);
        Some(first(&self.video)? - first(&self.audio)?)
    }

    /// The picture of RTP time `rtp` says that it was captured at `captured`.
    pub(super) const fn picture(&mut self, rtp: u64, captured: f64) {
        self.picture = Some((rtp, captured));
    }

    /// A beep, captured at some full second, begins at RTP time `rtp`. `None` before the first readable picture.
    pub(super) fn beep(&self, rtp: u64) -> Option<Offset> {
        let (picture, captured) = self.picture?;
        let offset = |video: Option<f64>, audio: Option<f64>| {
            // What is played at `video` was captured at `captured`; so what is played at `audio`, if in step,
            // was captured at the full second. The rest is the sound's delay.
            let delay = audio? - video? + captured;
            Some(-(delay - delay.round()))
        };
        Some(Offset {
            by_reports: offset(self.video.wall(picture), self.audio.wall(rtp)),
            zero_based: offset(self.video.since_first(picture), self.audio.since_first(rtp)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: f64 = 1_795_262_400.0;

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-4)
    }

    #[test]
    fn tracks_in_step_are_in_step_both_ways() {
        let mut sync = Sync::new(90_000, 48_000);
        sync.video.packet(1_000);
        sync.audio.packet(7_000);
        sync.video.report(Pairing {
            wall: NOON,
            rtp: 1_000,
        });
        sync.audio.report(Pairing {
            wall: NOON,
            rtp: 7_000,
        });
        sync.picture(1_000 + 9_000, NOON + 0.1);
        let offset = sync.beep(7_000 + 48_000).expect("a picture");
        assert!(close(offset.by_reports, 0.0) && close(offset.zero_based, 0.0));
    }

    #[test]
    fn a_late_start_shows_only_where_reports_are_not_read() {
        let mut sync = Sync::new(90_000, 48_000);
        // The audio track starts 80 ms after the video track and says so in its reports.
        sync.video.packet(1_000);
        sync.audio.packet(7_000);
        sync.video.report(Pairing {
            wall: NOON,
            rtp: 1_000,
        });
        sync.audio.report(Pairing {
            wall: NOON + 0.08,
            rtp: 7_000,
        });
        sync.picture(1_000, NOON);
        let offset = sync.beep(7_000 + 44_160).expect("a picture");
        assert!(close(offset.by_reports, 0.0));
        assert!(close(offset.zero_based, 0.08), "played 80 ms early");
        assert!(close(offset.worse(), 0.08));
    }

    #[test]
    fn reports_that_lie_show_and_missing_ones_leave_no_figure() {
        let mut sync = Sync::new(90_000, 48_000);
        assert_eq!(sync.beep(1), None);
        sync.video.packet(0);
        sync.audio.packet(0);
        sync.picture(0, NOON);
        let offset = sync.beep(48_000).expect("a picture");
        assert_eq!(offset.by_reports, None);
        assert!(close(offset.zero_based, 0.0));
        sync.video.report(Pairing { wall: NOON, rtp: 0 });
        sync.audio.report(Pairing {
            wall: NOON + 0.05,
            rtp: 0,
        });
        let offset = sync.beep(48_000).expect("a picture");
        assert!(close(offset.by_reports, -0.05), "played 50 ms late");
    }
}
