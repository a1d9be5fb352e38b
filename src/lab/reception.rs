//! The media half of a session: RTP and sender reports in; judge, tally, viewers and decoder fed.
//!
//! Knows nothing of ICE, DTLS or sockets; told the time of everything.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use crate::media::access_unit::Track;
use crate::media::time::AUDIO_CLOCK_HZ;
use crate::media::time::MediaClock;
use crate::media::time::VIDEO_CLOCK_HZ;

use super::decode::Decoded;
use super::decode::Decoder;
use super::decode::Job;
use super::depacketize::Depacketizer;
use super::depacketize::Output;
use super::depacketize::Packet;
use super::depacketize::Unit;
use super::hub::Received;
use super::hub::Record;
use super::hub::State;
use super::judge::Judge;
use super::judge::Rules;
use super::sync::Pairing;
use super::sync::Sync;

/// Length of the Opus packets that are expected, in RTP ticks.
const AUDIO_PACKET: u64 = AUDIO_CLOCK_HZ as u64 / 50;

/// Receives the media of one session.
#[derive(Debug)]
pub(super) struct Reception {
    record: Record,
    pub(super) judge: Judge,
    depacketizer: Depacketizer,
    sync: Arc<Mutex<Sync>>,
    decoder: Decoder,
    audio: Option<(u64, u64)>,
    started_apart: Option<()>,
    first_video: Option<Instant>,
    /// How long sender reports of both tracks are waited for, if they are.
    patience: Option<Duration>,
    second: Second,
}

/// What was counted since the last reading for the plots.
#[derive(Debug)]
struct Second {
    since: Instant,
    frames: u32,
    bytes: u64,
}

impl Reception {
    /// Starts the decoding thread of the session behind `record`.
    pub(super) fn start(
        record: Record,
        rules: Rules,
        clock: MediaClock,
        now: Instant,
    ) -> std::io::Result<Self> {
        let sync = Arc::new(Mutex::new(Sync::new(VIDEO_CLOCK_HZ, AUDIO_CLOCK_HZ)));
        let name = format!("lab:{}:decode", record.id());
        let (shown, heard) = (record.clone(), Arc::clone(&sync));
        let decoder = Decoder::start(name, move |decoded| note(&shown, &heard, &clock, decoded))?;
        Ok(Self {
            record,
            judge: Judge::new(rules),
            depacketizer: Depacketizer::default(),
            sync,
            decoder,
            audio: None,
            started_apart: None,
            first_video: None,
            patience: None,
            second: Second {
                since: now,
                frames: 0,
                bytes: 0,
            },
        })
    }

    /// Shows nothing before sender reports of both tracks have come, or this long after the first picture.
    pub(super) fn wait_for_reports(&mut self, patience: Duration) {
        self.patience = Some(patience);
        self.waiting(true);
    }

    fn waiting(&self, waiting: bool) {
        let mut sync = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        sync.waiting = waiting;
    }

    /// An RTP packet of `track` arrived.
    pub(super) fn packet(&mut self, track: Track, packet: Packet) {
        let Packet {
            sequence,
            time,
            arrived,
            ..
        } = packet;
        self.judge.packet(arrived, track, sequence, time);
        self.second.bytes += packet.payload.len() as u64;
        {
            let mut sync = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
            match track {
                Track::Audio => sync.audio.packet(time),
                Track::Video => sync.video.packet(time),
            }
        }
        match track {
            Track::Audio => self.sound(&packet),
            Track::Video => {
                self.first_video.get_or_insert(arrived);
                self.depacketizer.push(packet);
                self.video();
            }
        }
        self.findings();
    }

    /// A sender report of `track` arrived.
    pub(super) fn report(&mut self, track: Track, pairing: Pairing) {
        self.judge.report(track, pairing);
        let apart = {
            let mut sync = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
            match track {
                Track::Audio => sync.audio.report(pairing),
                Track::Video => sync.video.report(pairing),
            }
            sync.started_apart()
        };
        if let Some(seconds) = apart
            && self.started_apart.replace(()).is_none()
        {
            self.patience = None;
            self.waiting(false);
            self.judge.started_apart(seconds);
        }
        self.findings();
    }

    /// The lab threw the video packet `sequence` (its low half) away, to see it sent again.
    pub(super) fn withheld(&mut self, now: Instant, sequence: u16) {
        self.judge.withheld(now, sequence);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.depacketizer.tick(now);
        self.video();
        self.judge.tick(now);
        self.findings();
        if let Some((patience, first)) = self.patience.zip(self.first_video)
            && now.saturating_duration_since(first) > patience
        {
            self.patience = None;
            self.waiting(false);
            let what = "no sender reports of both tracks: shown unsynchronised";
            self.record
                .tally(|tally| tally.violation("unsynchronised", what.to_owned()));
        }
        let elapsed = now.saturating_duration_since(self.second.since);
        if elapsed >= Duration::from_secs(1) {
            let (fps, bits) = (
                f64::from(self.second.frames) / elapsed.as_secs_f64(),
                self.second.bytes as f64 * 8.0 / elapsed.as_secs_f64(),
            );
            self.record.live(|live| {
                live.fps = fps;
                live.bitrate_bps = bits as u64;
            });
            self.second = Second {
                since: now,
                frames: 0,
                bytes: 0,
            };
        }
    }

    /// The session is over: the last word is spoken, what waits is decoded.
    pub(super) async fn finish(mut self, now: Instant) {
        self.judge.close(now);
        self.findings();
        self.decoder.finish().await;
    }

    fn sound(&mut self, packet: &Packet) {
        let (sequence, time) = (packet.sequence, packet.time);
        let last = self.audio;
        if last.is_some_and(|(last, _)| sequence <= last) {
            return;
        }
        self.audio = Some((sequence, time));
        self.record.tally(|tally| {
            tally.audio.packets += 1;
            if let Some((last, last_time)) = last
                && sequence > last + 1
            {
                let hole = time.saturating_sub(last_time + AUDIO_PACKET);
                let hole = Duration::from_secs_f64(hole as f64 / f64::from(AUDIO_CLOCK_HZ));
                tally.audio.gaps += 1;
                tally.audio.gap_max = tally.audio.gap_max.max(hole);
            }
        });
        let data = Bytes::copy_from_slice(&packet.payload);
        self.pass_on(Track::Audio, time, true, data);
    }

    fn video(&mut self) {
        for output in self.depacketizer.drain() {
            match output {
                Output::Broken(rule, seen) => self.record.tally(|t| t.violation(rule, seen)),
                Output::Lost => {
                    self.judge.lost();
                    self.record.tally(|tally| tally.video.frames_lost += 1);
                }
                Output::Unit(unit) => self.unit(unit),
            }
        }
    }

    fn unit(&mut self, unit: Unit) {
        let sets = unit.sps && unit.pps;
        let answered = self.judge.unit(unit.arrived, unit.idr, sets, unit.b_slice);
        self.second.frames += 1;
        let span = self.first_video.map_or(Duration::ZERO, |first| {
            unit.arrived.saturating_duration_since(first)
        });
        self.record.tally(|tally| {
            let video = &mut tally.video;
            video.frames_received += 1;
            video.payload_bytes += unit.payload_bytes;
            video.span = span;
            video.idrs += u64::from(unit.idr);
            if let Some(after) = answered {
                video.idr_after_request_ms.add(after.as_secs_f64() * 1e3);
            }
        });
        self.pass_on(Track::Video, unit.time, unit.idr && sets, unit.data.into());
    }

    fn pass_on(&self, track: Track, time: u64, key: bool, data: Bytes) {
        self.record.media(Received {
            track,
            // RTP timestamps wrap.
            rtp_time: time as u32,
            key,
            data: data.clone(),
        });
        let taken = self.decoder.decode(match track {
            Track::Audio => Job::Audio { time, data },
            Track::Video => Job::Video { time, data },
        });
        if !taken {
            tracing::warn!(session = %self.record.id(), %track, "the lab decodes too slowly: not decoded");
        }
    }

    fn findings(&mut self) {
        for (rule, detail) in self.judge.drain() {
            self.record.tally(|tally| tally.violation(rule, detail));
        }
    }
}

/// Enters what the decoding thread found.
fn note(record: &Record, sync: &Mutex<Sync>, clock: &MediaClock, decoded: Decoded) {
    let lock = || sync.lock().unwrap_or_else(PoisonError::into_inner);
    match decoded {
        Decoded::Picture {
            time,
            width,
            height,
            clock: burnt_in,
            at,
        } => {
            if let Some(captured) = burnt_in {
                lock().picture(time, captured.as_secs_f64());
            }
            let wall = clock.wall(clock.at(at)).duration_since(UNIX_EPOCH);
            let latency = burnt_in
                .zip(wall.ok())
                .map(|(captured, wall)| (wall.as_secs_f64() - captured.as_secs_f64()) * 1e3);
            record.tally(|tally| {
                tally.picture(
                    at.saturating_duration_since(record.started()),
                    width,
                    height,
                );
                if let Some(ms) = latency {
                    tally.latency_ms.add(ms);
                }
            });
            record.live(|live| live.latency_ms = latency.or(live.latency_ms));
            if !lock().waiting {
                record.state(State::OnAir);
            }
        }
        Decoded::Beep { time } => {
            let Some(offset) = lock().beep(time) else {
                return;
            };
            if let Some(worse) = offset.worse() {
                record.tally(|tally| tally.av_offset_ms.add(worse.abs() * 1e3));
            }
            let shown = offset.by_reports.or(offset.zero_based);
            record.live(|live| live.av_offset_ms = shown.map(|s| s * 1e3).or(live.av_offset_ms));
        }
        Decoded::Sound { samples } => {
            record.tally(|tally| tally.audio.samples_decoded += samples);
        }
        Decoded::Undecodable { what, why } => {
            tracing::debug!(session = %record.id(), what, why, "not decodable");
        }
    }
}
