//! What follows from the end of a session: one pure table from (fact, dialect, history) to a [`Verdict`].
//!
//! Errors state facts; only this file says what to do about them. The right answer depends on the dialect and
//! on what went before: OvenMediaEngine's 404 half a minute after our own crash is our own ghost; the same 404 after a minute
//! is an operator's mistake. Nothing here ever ends a publisher: a refusal that only a person can lift
//! is said once, loudly, and then tried again at a slow, steady rate, for the person who lifts it may not know of us.
//!
//! | dialect | fact | verdict |
//! |---|---|---|
//! | any | session lost after 30 s on air, or for the first time | at once |
//! | any | ICE never connected | every second for 10 min (an attempt takes up to 25 s by itself), then backoff |
//! | any | silence, 5xx, lost again soon after start | backoff 1..15 s |
//! | any | server not reachable | every 0.8 s for 2 min, then every 15 s |
//! | any | not a WebSocket (HTTP 2xx, 3xx, 4xx), unusable SDP | operator |
//! | wowza | 400 | backoff; the second one in a row: operator |
//! | wowza | 401, 403 | operator |
//! | wowza-v1 | 404 | backoff; the third in a row: operator |
//! | wowza-v2 | 404 | operator |
//! | wowza | 503 (name in use) | every 2 s for 2 min, then operator |
//! | wowza-v1 | 502 (not running) | every 5 s for 2 min, then operator |
//! | wowza-v2 | 502, 514 (not running) | every 15 s for 2 min, then operator |
//! | wowza | an answer in the other dialect, though one is configured | operator |
//! | ome | 404 before the offer, 403 after the answer | every 2 s for 45 s (a ghost lives 30 s), then operator |
//! | ome | 400 | operator: our message was not understood |
//! | whip | any status | see `policy/whip.rs` |
//! | qencode, by its interface | any failure at the server within 110 s after media was lost | every 3 s at the same URL; then its interface is asked |
//! | any platform | what its interface said | see `policy/platform.rs` |

mod ome;
mod platform;
mod whip;
mod wowza;

use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use crate::net;
use crate::platform as platforms;
use crate::session::{EndReason, Progress};
use crate::signal::Dialect;
use crate::signal::{self, Step};

/// Time on air after which a session counts as good and history starts afresh (protocols.md 1.6).
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(30);

/// Interval at which a refusal that needs a person is tried again. With its jitter it stays below the minute within
/// which OvenMediaEngine wants to hear from a refused socket that must not be closed (see `signal::ome`).
const OPERATOR_RECHECK: Duration = Duration::from_secs(45);

/// A server just restarted must have our media within two seconds of being reachable, of which its first receiver
/// reports take one.
const UNREACHABLE_PERIOD: Duration = Duration::from_millis(800);
const UNREACHABLE_FOR: Duration = Duration::from_secs(120);
const UNREACHABLE_LATER: Duration = Duration::from_secs(15);

/// While media is shut out, an attempt waits for it up to 25 s by itself: a longer pause in between would only miss the
/// moment at which it is let through again.
const PATHLESS_PERIOD: Duration = Duration::from_secs(1);
const PATHLESS_FOR: Duration = Duration::from_secs(600);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exponential backoff, by the number of failures in a row.
    Backoff,
    /// Only a person can mend this; say what must be done, keep trying slowly.
    Operator {
        /// What the person must do.
        advice: String,
        /// When to try again all the same.
        every: Duration,
    },
    /// Try again in the server's own rhythm.
    RetryEvery(Duration),
    /// Try again at once.
    RetryNow,
}

/// Who holds the stream that is published to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Qencode, whose interface onair asks.
    Qencode,
    /// The server alone.
    Server,
    /// Wowza Video, whose interface onair asks.
    WowzaVideo,
}

/// What went before, as far as the table needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Failed sessions since the last stable time on air.
    pub(super) failures: u32,
    /// The run of equal failures that the last one belongs to: what, how many, since when.
    run: Option<(Kind, u32, Instant)>,
    /// When media was lost last.
    lost: Option<Instant>,
}

/// Facts that share a clock. Two failures of one kind in a row belong to one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Platform(Discriminant<platforms::Error>, Option<platforms::Refusal>),
    Refused(u16, Step),
    Unreachable,
    Other,
}

impl History {
    /// Adds a failure at `now` and returns its place in the run of its kind: (ordinal from 1, age of the run).
    fn note(&mut self, now: Instant, kind: Kind) -> (u32, Duration) {
        let (ordinal, since) = match self.run {
            Some((same, n, since)) if same == kind => (n.saturating_add(1), since),
            _ => (1, now),
        };
        self.run = Some((kind, ordinal, since));
        (ordinal, now.saturating_duration_since(since))
    }
}

/// The verdict on a session that ended at `now` after coming as far as `progress`.
pub(super) fn verdict(
    now: Instant,
    reason: &EndReason,
    progress: &Progress,
    dialect: Dialect,
    hold: Hold,
    history: &mut History,
) -> Verdict {
    let on_air_for = match progress {
        Progress::OnAir { since, .. } => Some(now.saturating_duration_since(*since)),
        Progress::Signalling | Progress::Connecting | Progress::Sending => None,
    };
    let was_stable = on_air_for.is_some_and(|time| time >= STABLE_AFTER);
    if was_stable {
        *history = History::default();
    }
    if matches!(progress, Progress::OnAir { .. }) {
        history.lost = Some(now);
    }
    let kind = kind(reason);
    let (ordinal, age) = history.note(now, kind);
    let verdict = match reason {
        EndReason::Signal(signal::Error::Refused {
            status,
            text,
            retry_after,
            ..
        }) => refused(
            dialect,
            &Refusal {
                status: *status,
                text,
                retry_after: *retry_after,
                ordinal,
                age,
            },
        ),
        EndReason::Signal(signal::Error::Connect(error)) => match error {
            net::Error::Status { status, .. } if *status < 500 => {
                operator(format!("{error}: check the URL's host, port and path"))
            }
            net::Error::CaFile { .. } | net::Error::Url { .. } => operator(error.to_string()),
            net::Error::Proxy {
                status: 300..=407, ..
            } => operator(error.to_string()),
            net::Error::Failed { .. }
            | net::Error::Proxy { .. }
            | net::Error::Status { .. }
            | net::Error::Timeout { .. } => {
                let later = age >= UNREACHABLE_FOR;
                Verdict::RetryEvery(if later {
                    UNREACHABLE_LATER
                } else {
                    UNREACHABLE_PERIOD
                })
            }
        },
        EndReason::Signal(signal::Error::Sdp { why, .. }) => operator(why.clone()),
        EndReason::Signal(error @ signal::Error::OtherDialect { .. }) => {
            operator(error.to_string())
        }
        EndReason::Signal(
            signal::Error::Closed { .. }
            | signal::Error::NoRestart
            | signal::Error::Protocol { .. }
            | signal::Error::StreamGone { .. }
            | signal::Error::Timeout { .. },
        )
        | EndReason::Engine(_)
        | EndReason::Lost
        | EndReason::NotAccepted
        | EndReason::Panicked(_) => {
            // Only the first time in a row: a session that never lasts must not become a hot loop.
            if on_air_for.is_some() && history.failures == 0 {
                Verdict::RetryNow
            } else {
                Verdict::Backoff
            }
        }
        EndReason::Platform(error) => platform::verdict(error, ordinal, age),
        EndReason::NeverConnected { .. } if age < PATHLESS_FOR => {
            Verdict::RetryEvery(PATHLESS_PERIOD)
        }
        EndReason::NeverConnected { .. } => Verdict::Backoff,
        // Not our fault and not the server's: what is there now may be better at once.
        EndReason::NetworkChanged { .. } | EndReason::Stopped => Verdict::RetryNow,
        // Whoever ends a feed ends its publishers too; one that was forgotten must not knock without a pause.
        EndReason::FeedEnded => Verdict::Backoff,
    };
    history.failures = history.failures.saturating_add(1);
    match hold {
        Hold::Qencode => platform::resumed(now, history.lost, reason, verdict),
        Hold::Server | Hold::WowzaVideo => verdict,
    }
}

fn kind(reason: &EndReason) -> Kind {
    match reason {
        EndReason::Signal(signal::Error::Refused { status, step, .. }) => {
            Kind::Refused(*status, *step)
        }
        EndReason::Signal(signal::Error::Connect(_)) => Kind::Unreachable,
        EndReason::Platform(error) => Kind::Platform(discriminant(error), error.refusal()),
        EndReason::Signal(
            signal::Error::Closed { .. }
            | signal::Error::NoRestart
            | signal::Error::OtherDialect { .. }
            | signal::Error::Protocol { .. }
            | signal::Error::StreamGone { .. }
            | signal::Error::Sdp { .. }
            | signal::Error::Timeout { .. },
        )
        | EndReason::Engine(_)
        | EndReason::FeedEnded
        | EndReason::Lost
        | EndReason::NetworkChanged { .. }
        | EndReason::NeverConnected { .. }
        | EndReason::NotAccepted
        | EndReason::Panicked(_)
        | EndReason::Stopped => Kind::Other,
    }
}

fn refused(dialect: Dialect, refusal: &Refusal<'_>) -> Verdict {
    match dialect {
        Dialect::Ome => ome::refused(refusal),
        Dialect::Whip => whip::refused(refusal),
        Dialect::WowzaV1 => wowza::refused_v1(refusal),
        Dialect::WowzaV2 => wowza::refused_v2(refusal),
    }
}

/// A refusal and its place in the run of its kind.
struct Refusal<'a> {
    status: u16,
    /// The server's words.
    text: &'a str,
    /// When the server wants to be asked again, if it said so.
    retry_after: Option<Duration>,
    /// From 1.
    ordinal: u32,
    /// Time since the first of the run.
    age: Duration,
}

const fn operator(advice: String) -> Verdict {
    Verdict::Operator {
        advice,
        every: OPERATOR_RECHECK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const S: Duration = Duration::from_secs(1);

    pub(super) fn refusal(status: u16) -> EndReason {
        EndReason::Signal(signal::Error::Refused {
            endpoint: "wss://server".to_owned(),
            status,
            text: "words".to_owned(),
            step: Step::Opening,
            retry_after: None,
        })
    }

    /// The verdicts on the same fact, met again and again every `period`.
    pub(super) fn verdicts(
        dialect: Dialect,
        reason: impl Fn() -> EndReason,
        period: Duration,
        times: u32,
    ) -> Vec<Verdict> {
        let start = Instant::now();
        let mut history = History::default();
        let one = |n| {
            verdict(
                start + period * n,
                &reason(),
                &Progress::Signalling,
                dialect,
                Hold::Server,
                &mut history,
            )
        };
        (0..times).map(one).collect()
    }

    fn is_operator(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Operator { .. })
    }

    /// Index of the first verdict that calls for a person.
    pub(super) fn calls_operator_at(verdicts: &[Verdict]) -> Option<usize> {
        verdicts.iter().position(is_operator)
    }

    #[test]
    fn ome_404_is_taken_for_our_ghost_for_45_seconds_at_a_steady_pace() {
        let seen = verdicts(Dialect::Ome, || refusal(404), ome::GHOST_PERIOD, 25);
        assert!(
            seen[..23]
                .iter()
                .all(|v| *v == Verdict::RetryEvery(ome::GHOST_PERIOD)),
            "{seen:?}"
        );
        assert_eq!(calls_operator_at(&seen), Some(23), "23 x 2 s");
        assert!(seen[23..].iter().all(is_operator));
    }

    #[test]
    fn ome_403_may_be_a_name_clash_before_it_is_our_answer() {
        let seen = verdicts(Dialect::Ome, || refusal(403), ome::GHOST_PERIOD, 25);
        assert_eq!(seen[0], Verdict::RetryEvery(ome::GHOST_PERIOD));
        assert_eq!(calls_operator_at(&seen), Some(23));
    }

    #[test]
    fn ome_400_is_for_the_operator_and_500_backs_off() {
        assert_eq!(
            calls_operator_at(&verdicts(Dialect::Ome, || refusal(400), S, 1)),
            Some(0)
        );
        assert_eq!(
            verdicts(Dialect::Ome, || refusal(500), S, 1),
            [Verdict::Backoff]
        );
    }

    #[test]
    fn another_fact_in_between_starts_the_ghost_clock_afresh() {
        let start = Instant::now();
        let mut history = History::default();
        let mut judge = |at, reason: &EndReason| {
            verdict(
                start + at,
                reason,
                &Progress::Signalling,
                Dialect::Ome,
                Hold::Server,
                &mut history,
            )
        };
        assert_eq!(
            judge(Duration::ZERO, &refusal(404)),
            Verdict::RetryEvery(ome::GHOST_PERIOD)
        );
        assert_eq!(judge(40 * S, &EndReason::Lost), Verdict::Backoff);
        assert_eq!(
            judge(50 * S, &refusal(404)),
            Verdict::RetryEvery(ome::GHOST_PERIOD)
        );
        assert!(is_operator(&judge(96 * S, &refusal(404))));
    }

    #[test]
    fn a_session_lost_after_a_stable_time_on_air_is_resumed_at_once() {
        let start = Instant::now();
        let mut history = History {
            failures: 9,
            run: Some((Kind::Other, 9, start)),
            lost: None,
        };
        let on_air = Progress::OnAir {
            since: start,
            confirmed: true,
        };
        let late = verdict(
            start + 31 * S,
            &EndReason::Lost,
            &on_air,
            Dialect::Ome,
            Hold::Server,
            &mut history,
        );
        assert_eq!(late, Verdict::RetryNow);
        assert_eq!(history.failures, 1);
        let soon = verdict(
            start + 29 * S,
            &EndReason::Lost,
            &on_air,
            Dialect::Ome,
            Hold::Server,
            &mut history,
        );
        assert_eq!(
            soon,
            Verdict::Backoff,
            "a session that never lasts must not become a hot loop"
        );
    }

    #[test]
    fn a_publisher_whose_feed_is_gone_is_no_hot_loop() {
        let seen = verdicts(Dialect::Ome, || EndReason::FeedEnded, S, 10);
        assert!(seen.iter().all(|v| *v == Verdict::Backoff), "{seen:?}");
    }

    #[test]
    fn an_unusable_sdp_is_for_the_operator_with_the_signallers_words() {
        let why = "video refused: put H.264 into PreferredCodecsVideo".to_owned();
        let sdp = || {
            EndReason::Signal(signal::Error::Sdp {
                endpoint: String::new(),
                why: why.clone(),
            })
        };
        let Verdict::Operator { advice, .. } = &verdicts(Dialect::WowzaV1, sdp, S, 1)[0] else {
            panic!("not for the operator")
        };
        assert_eq!(*advice, why);
    }

    pub(super) fn unreachable(status: Option<u16>) -> EndReason {
        let endpoint = "wss://server".to_owned();
        EndReason::Signal(signal::Error::Connect(match status {
            Some(status) => net::Error::Status { endpoint, status },
            None => net::Error::Timeout {
                endpoint,
                step: net::Step::Tcp,
                after: 10 * S,
            },
        }))
    }

    #[test]
    fn an_unreachable_server_is_tried_often_for_two_minutes_and_then_every_15_seconds() {
        for dialect in [Dialect::Ome, Dialect::WowzaV1, Dialect::WowzaV2] {
            let seen = verdicts(dialect, || unreachable(None), UNREACHABLE_PERIOD, 200);
            assert!(
                seen[..150]
                    .iter()
                    .all(|v| *v == Verdict::RetryEvery(UNREACHABLE_PERIOD))
            );
            assert!(
                seen[150..]
                    .iter()
                    .all(|v| *v == Verdict::RetryEvery(UNREACHABLE_LATER))
            );
        }
    }

    #[test]
    fn a_proxy_that_refuses_is_for_the_operator_and_one_in_trouble_is_tried_again() {
        let verdict = |status| {
            let refused = || {
                EndReason::Signal(signal::Error::Connect(net::Error::Proxy {
                    endpoint: "wss://server:443".to_owned(),
                    proxy: "http://proxy:3128".to_owned(),
                    status,
                }))
            };
            verdicts(Dialect::WowzaV1, refused, S, 1).remove(0)
        };
        for (status, says) in [(403, "forbids"), (407, "credentials"), (405, "CONNECT")] {
            let Verdict::Operator { advice, .. } = verdict(status) else {
                panic!("{status} is not for the operator")
            };
            assert!(
                advice.contains("http://proxy:3128") && advice.contains(says),
                "{advice}"
            );
        }
        for status in [429, 502, 504] {
            assert_eq!(verdict(status), Verdict::RetryEvery(UNREACHABLE_PERIOD));
        }
    }

    #[test]
    fn something_that_is_no_websocket_is_for_the_operator_but_a_sick_proxy_is_not() {
        for status in [200, 301, 401, 403, 404, 426] {
            let seen = verdicts(Dialect::WowzaV1, || unreachable(Some(status)), S, 1);
            assert_eq!(calls_operator_at(&seen), Some(0), "HTTP {status}");
        }
        let seen = verdicts(Dialect::Ome, || unreachable(Some(502)), S, 1);
        assert_eq!(seen, [Verdict::RetryEvery(UNREACHABLE_PERIOD)]);
    }
}
