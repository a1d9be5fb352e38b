//! A reading as Prometheus and OpenMetrics text. Names are stable, units are base units, and every label has few
//! values: names of feeds and publishers come from the configuration, all others are words of this program.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::counts::COUNTS;
use super::reading::{Feed, Publisher, Reading, Reception, Recovery, State, Stream, Track};

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What may keep a picture below its configuration.
const LIMITS: [&str; 4] = ["cpu", "network", "thermal", "undervoltage"];
/// What may be wrong with what a source delivers.
const CONDITIONS: [(&str, [&str; 2]); 2] = [
    ("audio", ["clipped", "silent"]),
    ("video", ["black", "frozen"]),
];
/// What may become of a way to the server.
const RUNG_OUTCOMES: [&str; 5] = ["absent", "chosen", "failed", "idle", "unanswered"];
/// States of a track's source.
const SOURCE_STATES: [&str; 3] = ["live", "opening", "slate"];

/// One metric: what it is called between `onair_` and the unit, and what it says.
struct Metric<T> {
    name: &'static str,
    unit: &'static str,
    kind: MetricType,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
}

const fn gauge<T>(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
) -> Metric<T> {
    Metric {
        name,
        unit,
        kind: MetricType::Gauge,
        help,
        value,
    }
}

const fn counter<T>(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
) -> Metric<T> {
    Metric {
        name,
        unit,
        kind: MetricType::Counter,
        help,
        value,
    }
}

/// Of the process.
const WHOLE: [Metric<Reading>; 11] = [
    gauge("uptime", "seconds", "Time since the start", |r| {
        Some(r.uptime_s)
    }),
    gauge(
        "reading_age",
        "seconds",
        "How long ago all of this was read; more than a few seconds mean that the process hangs",
        |r| Some(r.age_s),
    ),
    gauge("healthy", "", "1 unless something is stuck", |r| {
        flag(r.healthy)
    }),
    gauge(
        "ready",
        "",
        "1 if every publisher that is to be on air is",
        |r| flag(r.ready),
    ),
    gauge(
        "state_written",
        "",
        "0 while what the next process must know of streams at platforms cannot be written down",
        |r| flag(r.state_written),
    ),
    gauge(
        "reload_failed",
        "",
        "1 while the configuration as it was read last is not at work, or not all of it",
        |r| flag(r.reload_failed),
    ),
    gauge(
        "streams_orphaned",
        "",
        "Streams at platforms that onair started, that nobody wants any more and that it could not stop",
        |r| Some(r.streams_orphaned as f64),
    ),
    counter(
        "process_cpu",
        "seconds",
        "CPU time of user and system",
        |r| Some(r.process.cpu_s),
    ),
    gauge("process_resident_memory", "bytes", "Resident memory", |r| {
        Some(r.process.rss_bytes as f64)
    }),
    gauge("process_open_fds", "", "Open file descriptors", |r| {
        Some(r.process.fds as f64)
    }),
    gauge("process_threads", "", "Threads", |r| {
        Some(r.process.threads as f64)
    }),
];

/// Of each publisher.
const PUBLISHER: [Metric<Publisher>; 8] = [
    counter(
        "publisher_on_air",
        "seconds",
        "Time on air in all sessions",
        |p| Some(p.on_air_total_s),
    ),
    gauge(
        "publisher_confirmed",
        "",
        "On air: 1 if the server's receiver reports say so, 0 if only its transport is alive",
        |p| p.confirmed.and_then(flag),
    ),
    gauge(
        "publisher_attempt",
        "",
        "Connecting: ordinal of the session since the last stable time on air",
        |p| p.attempt.map(f64::from),
    ),
    gauge(
        "publisher_next_session",
        "seconds",
        "Waiting, or off the air on purpose: time until the next session",
        |p| p.due_in_s,
    ),
    gauge(
        "publisher_held",
        "",
        "1 while it is off the air because somebody stopped it",
        |p| flag(p.held),
    ),
    gauge(
        "publisher_needs_person",
        "",
        "1 while the server refuses for a reason that only a person can mend",
        |p| flag(p.advice.is_some()),
    ),
    gauge(
        "publisher_time_to_on_air",
        "seconds",
        "From the start, or from the loss of the last session, to media accepted; of the last time",
        |p| p.time_to_on_air_s,
    ),
    gauge(
        "publisher_round_trip",
        "seconds",
        "Round-trip time by the latest receiver report",
        |p| p.round_trip_s,
    ),
];

/// Of each cause that put a publisher off the air.
const RECOVERY: [Metric<Recovery>; 4] = [
    counter(
        "publisher_recoveries",
        "",
        "How often it came to be on air, by what had put it off the air",
        |r| Some(r.times as f64),
    ),
    counter(
        "publisher_recovery",
        "seconds",
        "Time that it took to be on air, all times together",
        |r| Some(r.total_s),
    ),
    gauge(
        "publisher_recovery_last",
        "seconds",
        "Time that it took to be on air, the last time",
        |r| Some(r.last_s),
    ),
    gauge(
        "publisher_recovery_longest",
        "seconds",
        "Time that it took to be on air, the longest time",
        |r| Some(r.longest_s),
    ),
];

/// Of each stream at a platform.
const STREAM: [Metric<Stream>; 5] = [
    gauge(
        "publisher_stream_ours",
        "",
        "1 while the stream at the platform runs because onair started it",
        |s| flag(s.ours),
    ),
    gauge(
        "publisher_stream_ran_today",
        "seconds",
        "Time that the stream at the platform ran today: what is billed, as far as onair can tell",
        |s| Some(s.ran_s),
    ),
    gauge(
        "publisher_stream_daily_limit",
        "seconds",
        "The most that the stream at the platform may run in a day",
        |s| s.daily_limit_s,
    ),
    counter(
        "publisher_stream_starts",
        "",
        "Starts of the stream that were asked for by this process",
        |s| Some(s.starts as f64),
    ),
    gauge(
        "publisher_stream_connected",
        "",
        "1 if the platform sees our media, by its own figures",
        |s| s.connected.and_then(flag),
    ),
];

/// Of each track that a server reports about.
const RECEPTION: [Metric<Reception>; 3] = [
    gauge(
        "publisher_lost",
        "ratio",
        "Part of the packets lost on the way to the server, by its latest report",
        |r| r.lost_part.map(f64::from),
    ),
    gauge(
        "publisher_packets_lost",
        "",
        "Packets lost on the way to the server in this session, by its latest report",
        |r| Some(f64::from(r.lost)),
    ),
    gauge(
        "publisher_jitter",
        "seconds",
        "Interarrival jitter at the server, by its latest report",
        |r| Some(r.jitter_s),
    ),
];

/// Of each track of a feed.
const TRACK: [Metric<Track>; 10] = [
    gauge(
        "feed_stuck",
        "",
        "1 while the device or the encoder does not answer and only a new process can help",
        |t| flag(t.stuck.is_some()),
    ),
    counter(
        "feed_source_openings",
        "",
        "How often the source was opened",
        |t| Some(t.opened as f64),
    ),
    gauge(
        "feed_threads_left_behind",
        "",
        "Capture threads that hang in a device",
        |t| Some(t.left_behind as f64),
    ),
    counter(
        "feed_frames_captured",
        "",
        "Frames that came from the source",
        |t| Some(t.captured as f64),
    ),
    counter(
        "feed_frames_filled",
        "",
        "Frames made in place of missing ones: slates and blocks of silence",
        |t| Some(t.filled as f64),
    ),
    counter(
        "feed_frames_encoded",
        "",
        "Frames taken by the encoder",
        |t| Some(t.encoded as f64),
    ),
    gauge(
        "feed_frames_in_flight",
        "",
        "Frames on their way to the encoder",
        |t| Some(t.in_flight as f64),
    ),
    counter(
        "feed_access_units",
        "",
        "Access units that came out of the encoder",
        |t| Some(t.units as f64),
    ),
    counter(
        "feed_overruns",
        "",
        "How often the device's own buffer ran over",
        |t| Some(t.overruns as f64),
    ),
    counter(
        "feed_samples_lost",
        "",
        "Samples per channel that the device lost",
        |t| Some(t.samples_lost as f64),
    ),
];

/// Of each feed.
const FEED: [Metric<Feed>; 6] = [
    gauge(
        "feed_target_frames_per_second",
        "",
        "Pictures per second as they are encoded now",
        |f| f.target.map(|target| f64::from(target.fps)),
    ),
    gauge(
        "feed_target_height_pixels",
        "",
        "Rows of the picture as it is encoded now",
        |f| f.target.map(|target| f64::from(target.height)),
    ),
    gauge(
        "feed_subscriptions",
        "",
        "Sessions that take the feed",
        |f| Some(f.subscriptions as f64),
    ),
    counter(
        "feed_key_frames_requested",
        "",
        "Key frames asked for by servers and by sessions that fell behind",
        |f| Some(f.key_frames_requested as f64),
    ),
    counter("feed_key_frames_made", "", "Key frames made", |f| {
        Some(f.key_frames_made as f64)
    }),
    gauge(
        "feed_bitrate_bits_per_second",
        "",
        "Video bitrate that all sessions can carry",
        |f| Some(f64::from(f.bitrate_bps)),
    ),
];

fn flag(flag: bool) -> Option<f64> {
    Some(f64::from(u8::from(flag)))
}

/// The reading as text.
///
/// # Errors
/// None that is known: writing into memory does not fail.
pub(super) fn text(reading: Reading) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("onair");
    registry.register_collector(Box::new(Shown(reading)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Shown(Reading);

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(reading) = self;
        let mut sheet = Sheet(encoder);
        sheet.build(reading.version)?;
        sheet.put(&WHOLE, &[(Vec::new(), reading)])?;
        sheet.publishers(reading)?;
        sheet.feeds(reading)
    }
}

/// Names of labels with their values; none for what there is only one of.
type Labels<'a> = Vec<(&'static str, &'a str)>;

struct Sheet<'e>(DescriptorEncoder<'e>);

impl Sheet<'_> {
    fn build(&mut self, version: &str) -> fmt::Result {
        let help = "The program that runs";
        let mut info = self
            .0
            .encode_descriptor("build", help, None, MetricType::Info)?;
        info.encode_info(&[("version", version)])
    }

    fn publishers(&mut self, reading: &Reading) -> fmt::Result {
        let all: Vec<_> = reading
            .publishers
            .iter()
            .map(|(name, publisher)| (vec![("publisher", name.as_str())], publisher))
            .collect();
        self.put(&PUBLISHER, &all)?;
        for count in &COUNTS {
            let name = format!("publisher_{}", count.name);
            let name = name.trim_end_matches("_bytes");
            let totals = all.iter().filter_map(|(labels, publisher)| {
                let total = publisher.counts.get(count.name)?;
                Some((labels.clone(), *total as f64))
            });
            self.family(name, count.unit, MetricType::Counter, count.help, totals)?;
        }
        let recoveries: Vec<_> = all
            .iter()
            .flat_map(|(labels, publisher)| {
                let recoveries = publisher.recoveries.iter();
                recoveries.map(move |(cause, recovery)| (and(labels, "cause", cause), recovery))
            })
            .collect();
        self.put(&RECOVERY, &recoveries)?;
        let streams: Vec<_> = all
            .iter()
            .filter_map(|(labels, publisher)| {
                let stream = publisher.platform.as_ref()?;
                Some((and(labels, "vendor", stream.vendor), stream))
            })
            .collect();
        self.put(&STREAM, &streams)?;
        let tracks: Vec<_> = all
            .iter()
            .flat_map(|(labels, publisher)| {
                let tracks = [("audio", &publisher.audio), ("video", &publisher.video)];
                tracks.map(|(track, reception)| (and(labels, "track", track), reception.as_ref()))
            })
            .filter_map(|(labels, reception)| Some((labels, reception?)))
            .collect();
        self.put(&RECEPTION, &tracks)?;

        let states = all.iter().flat_map(|(labels, publisher)| {
            State::ALL.map(|(state, word)| (and(labels, "state", word), publisher.state == state))
        });
        self.states("publisher_state", "Where the publisher stands", states)?;
        let dialects = all
            .iter()
            .map(|(labels, publisher)| (and(labels, "dialect", &publisher.dialect), true));
        self.states("publisher_dialect", "What the server speaks", dialects)?;
        let rungs = all.iter().flat_map(|(labels, publisher)| {
            publisher.ladder.iter().flat_map(move |rung| {
                let labels = and(labels, "rung", &rung.rung);
                RUNG_OUTCOMES.map(|word| (and(&labels, "outcome", word), rung.outcome == word))
            })
        });
        self.states(
            "publisher_rung",
            "What became of each way to the server in the last attempt",
            rungs,
        )?;
        let latencies = all.iter().flat_map(|(labels, publisher)| {
            publisher.capture_to_wire_s.into_iter().flat_map(move |q| {
                [("0.5", q.p50), ("0.95", q.p95), ("1", q.max)]
                    .map(|(quantile, value)| (and(labels, "quantile", quantile), value))
            })
        });
        self.family(
            "publisher_capture_to_wire",
            "seconds",
            MetricType::Gauge,
            "From the capture of a picture to its last packet's way into the socket, in this session",
            latencies,
        )
    }

    fn feeds(&mut self, reading: &Reading) -> fmt::Result {
        let all: Vec<_> = reading
            .feeds
            .iter()
            .map(|(name, feed)| (vec![("feed", name.as_str())], feed))
            .collect();
        self.put(&FEED, &all)?;
        let tracks: Vec<_> = all
            .iter()
            .flat_map(|(labels, feed)| {
                let tracks = [("audio", &feed.audio), ("video", &feed.video)];
                tracks.map(|(track, status)| (and(labels, "track", track), status.as_ref()))
            })
            .filter_map(|(labels, status)| Some((labels, status?)))
            .collect();
        self.put(&TRACK, &tracks)?;
        let states = tracks.iter().flat_map(|(labels, track)| {
            SOURCE_STATES.map(|word| (and(labels, "state", word), track.state == word))
        });
        self.states("feed_source_state", "What the source is doing", states)?;
        let conditions = all.iter().flat_map(|(labels, feed)| {
            CONDITIONS.into_iter().flat_map(move |(track, words)| {
                let status = match track {
                    "audio" => &feed.audio,
                    _ => &feed.video,
                };
                let labels = and(labels, "track", track);
                status.iter().flat_map(move |status| {
                    let labels = labels.clone();
                    words.map(|word| {
                        let holds = status.conditions.contains(&word);
                        (and(&labels, "condition", word), holds)
                    })
                })
            })
        });
        let help = "What is wrong with what the source delivers";
        self.states("feed_condition", help, conditions)?;
        let limits = all.iter().flat_map(|(labels, feed)| {
            LIMITS.map(|word| (and(labels, "by", word), feed.limited_by == Some(word)))
        });
        let help = "What keeps the picture below its configuration";
        self.states("feed_limited", help, limits)?;
        let dropped = tracks.iter().flat_map(|(labels, track)| {
            let reasons = track.dropped.iter();
            reasons.map(move |(reason, n)| (and(labels, "reason", reason), *n as f64))
        });
        self.family(
            "feed_frames_dropped",
            "",
            MetricType::Counter,
            "Frames that were not encoded",
            dropped,
        )
    }

    /// Each of `metrics` with a sample for each of `items` that has a value.
    fn put<T>(&mut self, metrics: &[Metric<T>], items: &[(Labels<'_>, &T)]) -> fmt::Result {
        for metric in metrics {
            let samples = items
                .iter()
                .filter_map(|(labels, item)| Some((labels.clone(), (metric.value)(item)?)));
            self.family(metric.name, metric.unit, metric.kind, metric.help, samples)?;
        }
        Ok(())
    }

    /// A gauge that is 1 where what its labels say holds, and else 0.
    fn states<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (Labels<'a>, bool)>,
    ) -> fmt::Result {
        let samples = samples.map(|(labels, holds)| (labels, f64::from(u8::from(holds))));
        self.family(name, "", MetricType::Gauge, help, samples)
    }

    fn family<'a>(
        &mut self,
        name: &str,
        unit: &str,
        kind: MetricType,
        help: &str,
        samples: impl Iterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        let unit = (!unit.is_empty()).then(|| Unit::Other(unit.to_owned()));
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in samples {
            match labels.is_empty() {
                true => sample(&mut family, kind, value)?,
                false => sample(&mut family.encode_family(&labels)?, kind, value)?,
            }
        }
        Ok(())
    }
}

fn sample(encoder: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
        MetricType::Gauge | MetricType::Histogram | MetricType::Info | MetricType::Unknown => {
            encoder.encode_gauge(&value)
        }
    }
}

fn and<'a>(labels: &Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    let mut labels = labels.clone();
    labels.push((name, value));
    labels
}

#[cfg(test)]
mod tests;
