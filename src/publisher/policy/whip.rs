//! What the statuses of a WHIP server mean (protocols.md 4, 7.1, 7.2).
//!
//! | status | verdict |
//! |---|---|
//! | 401, 403 | operator: the token, which was read again before |
//! | 404, 410 | operator, every 30 s: no such endpoint or stream, or not yet |
//! | 409 | when the server says so (`Retry-After`), else every 30..45 s, at OvenMediaEngine every 2 s; after 45 s operator |
//! | 408, 425, 429, 503 | when the server says so (`Retry-After`), else backoff |
//! | 500 | backoff; from the third in a row on, operator: Wowza means an offer that it cannot take |
//! | other 5xx | backoff |
//! | 2xx without SDP, 3xx, 400, 406, 415, 422 and other 4xx, 501 | operator |

use std::time::Duration;

use super::{OPERATOR_RECHECK, Refusal, Verdict, operator};

/// What OvenMediaEngine says with 409, and nobody else in these words.
const OME_CONFLICT: &str = "Stream is already exist";
/// Of another server nobody knows how long our ghost lives there, and it must not be asked more often than every 30 s
/// (protocols.md 7.1).
const CONFLICT_PERIOD: Duration = Duration::from_secs(30);
/// As for OvenMediaEngine's WebSocket: a ghost of ours holds the name for its default `Timeout` of 30 s.
const GHOST_PERIOD: Duration = super::ome::GHOST_PERIOD;
const GHOST_FOR: Duration = Duration::from_secs(45);
/// An endpoint or stream that is not there may still be made by somebody.
const UNKNOWN_PERIOD: Duration = Duration::from_secs(30);
/// As slow as backoff becomes.
const TROUBLE_PERIOD: Duration = Duration::from_secs(15);
/// A server that says "at once" must not be asked in a hot loop.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

pub(super) fn refused(refusal: &Refusal<'_>) -> Verdict {
    let Refusal {
        status,
        text,
        retry_after,
        ordinal,
        age,
    } = *refusal;
    match status {
        401 | 403 => operator(format!(
            "the server does not let us publish ({text}): check the bearer token, or the signature in the URL"
        )),
        404 | 410 => Verdict::Operator {
            advice: format!(
                "the server knows no such endpoint or stream ({text}): check the URL's path (OvenMediaEngine wants \
                 ?direction=whip in it) and that the application runs"
            ),
            every: UNKNOWN_PERIOD,
        },
        408 | 425 | 429 | 503 => match retry_after {
            Some(wait) => Verdict::RetryEvery(at_least(wait)),
            None => Verdict::Backoff,
        },
        409 => {
            let wait = retry_after.map(at_least);
            if age < GHOST_FOR {
                let is_ome = text.contains(OME_CONFLICT);
                let usual = if is_ome {
                    GHOST_PERIOD
                } else {
                    at_least(CONFLICT_PERIOD)
                };
                return Verdict::RetryEvery(wait.unwrap_or(usual));
            }
            Verdict::Operator {
                advice: format!(
                    "another publisher is live under this stream name ({text}): stop it or choose another"
                ),
                every: wait.unwrap_or_default().max(OPERATOR_RECHECK),
            }
        }
        500 if ordinal >= 3 => Verdict::Operator {
            advice: format!(
                "the server fails on our offer again and again ({text}): it may not take what is offered (WebRTC publishing \
                 and H.264 and Opus must be on for the application), or be in trouble itself; see its log"
            ),
            every: TROUBLE_PERIOD,
        },
        501 => operator(format!(
            "the server does not do this ({text}): check that the URL is a WHIP endpoint"
        )),
        500..=599 => Verdict::Backoff,
        300..=399 => operator(format!(
            "the server redirects to where we do not follow ({text}): use the address that it redirects to"
        )),
        400 | 406 | 415 | 422 => operator(format!(
            "the server does not take our offer ({text}): check that it takes H.264 and Opus, and the URL's path"
        )),
        405 => operator(format!(
            "one cannot publish at this URL ({text}): check that it is a WHIP endpoint"
        )),
        _ => operator(format!(
            "the server does not let us on ({text}): check the URL"
        )),
    }
}

/// What to wait so that the jitter of a fifth does not make it shorter than `wait`.
fn at_least(wait: Duration) -> Duration {
    wait.max(RETRY_AFTER_MIN) * 5 / 4
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{History, Hold, verdict};
    use super::*;
    use crate::net;
    use crate::session::{EndReason, Progress};
    use crate::signal::{self, Dialect};

    const S: Duration = Duration::from_secs(1);
    /// The interval of everything that only a person can mend.
    const RECHECK: Duration = OPERATOR_RECHECK;

    fn judge(status: u16, retry_after: Option<Duration>, ordinal: u32, age: Duration) -> Verdict {
        refused(&Refusal {
            status,
            text: "its words",
            retry_after,
            ordinal,
            age,
        })
    }

    fn first(status: u16) -> Verdict {
        judge(status, None, 1, Duration::ZERO)
    }

    /// The interval and the advice of a verdict for a person.
    fn person(verdict: &Verdict) -> (Duration, &str) {
        match verdict {
            Verdict::Operator { advice, every } => {
                assert!(advice.contains("its words"), "{advice}");
                (*every, advice)
            }
            Verdict::Backoff | Verdict::RetryEvery(_) | Verdict::RetryNow => {
                panic!("not for a person: {verdict:?}")
            }
        }
    }

    fn calls_operator(status: u16, says: &str) {
        let verdict = first(status);
        let (every, advice) = person(&verdict);
        assert_eq!(every, RECHECK, "{status}");
        assert!(advice.contains(says), "{status}: {advice}");
    }

    #[test]
    fn status_200_without_sdp_is_for_the_operator() {
        for status in [200, 201, 202, 204] {
            calls_operator(status, "URL");
        }
    }

    #[test]
    fn redirects_that_cannot_be_followed_are_for_the_operator() {
        for status in [300, 301, 302, 303, 304, 307, 308] {
            calls_operator(status, "redirect");
        }
    }

    #[test]
    fn statuses_400_406_415_and_422_are_for_the_operator_at_once() {
        for status in [400, 406, 415, 422] {
            calls_operator(status, "offer");
        }
    }

    #[test]
    fn statuses_401_and_403_are_for_the_operator_at_once() {
        for status in [401, 403] {
            calls_operator(status, "token");
        }
    }

    #[test]
    fn statuses_404_and_410_are_tried_again_every_30_seconds_with_advice() {
        for status in [404, 410] {
            for ordinal in [1, 100] {
                let verdict = judge(status, None, ordinal, S * ordinal);
                let (every, advice) = person(&verdict);
                assert_eq!(every, 30 * S);
                assert!(advice.contains("direction=whip"), "{advice}");
            }
        }
    }

    #[test]
    fn status_405_is_for_the_operator_at_once() {
        calls_operator(405, "WHIP endpoint");
    }

    fn conflict(text: &str, retry_after: Option<Duration>, age: Duration) -> Verdict {
        refused(&Refusal {
            status: 409,
            text,
            retry_after,
            ordinal: 2,
            age,
        })
    }

    #[test]
    fn status_409_of_ome_is_taken_for_our_ghost_for_45_seconds_at_a_steady_pace() {
        let pace = 2 * S;
        for n in 0..23 {
            let verdict = conflict(OME_CONFLICT, None, pace * n);
            assert_eq!(verdict, Verdict::RetryEvery(pace));
        }
        let Verdict::Operator { every, .. } = conflict(OME_CONFLICT, None, 45 * S) else {
            panic!("not for a person")
        };
        assert_eq!(every, RECHECK);
    }

    #[test]
    fn status_409_of_others_is_tried_again_no_more_often_than_every_30_seconds() {
        for age in [0, 44] {
            let Verdict::RetryEvery(period) = conflict("its words", None, age * S) else {
                panic!("not tried again")
            };
            let mut rng = fastrand::Rng::with_seed(1);
            for _ in 0..100 {
                let wait = super::super::super::backoff::jittered(period, &mut rng);
                assert!(wait >= 30 * S && wait <= 60 * S, "{wait:?}");
            }
        }
        let verdict = conflict("its words", None, 45 * S);
        assert_eq!(person(&verdict).0, RECHECK);
    }

    #[test]
    fn status_409_honours_retry_after_everywhere() {
        for text in [OME_CONFLICT, "its words"] {
            let verdict = conflict(text, Some(8 * S), S);
            assert_eq!(verdict, Verdict::RetryEvery(10 * S));
            let later = conflict(text, Some(120 * S), 45 * S);
            let Verdict::Operator { every, .. } = later else {
                panic!("not for a person")
            };
            assert_eq!(every, 150 * S);
        }
    }

    #[test]
    fn statuses_408_425_429_and_503_back_off_without_retry_after() {
        for status in [408, 425, 429, 503] {
            assert_eq!(first(status), Verdict::Backoff, "{status}");
        }
    }

    #[test]
    fn statuses_408_425_429_and_503_honour_retry_after_in_spite_of_jitter() {
        for status in [408, 425, 429, 503] {
            for asked in [2 * S, 120 * S, 3600 * S] {
                let Verdict::RetryEvery(period) = judge(status, Some(asked), 1, S) else {
                    panic!("{status} does not honour it")
                };
                let mut rng = fastrand::Rng::with_seed(1);
                for _ in 0..100 {
                    let wait = super::super::super::backoff::jittered(period, &mut rng);
                    assert!(wait >= asked && wait <= asked * 3 / 2, "{wait:?}");
                }
            }
            let hot = judge(status, Some(Duration::ZERO), 1, S);
            assert_eq!(hot, Verdict::RetryEvery(Duration::from_millis(1_250)));
        }
    }

    #[test]
    fn status_500_backs_off_and_the_third_in_a_row_advises_about_the_offer() {
        assert_eq!(first(500), Verdict::Backoff);
        assert_eq!(judge(500, None, 2, S), Verdict::Backoff);
        let verdict = judge(500, None, 3, 3 * S);
        let (every, advice) = person(&verdict);
        assert_eq!(every, 15 * S, "no slower than backoff");
        assert!(advice.contains("H.264"), "{advice}");
    }

    #[test]
    fn status_501_is_for_the_operator_at_once() {
        calls_operator(501, "WHIP endpoint");
    }

    #[test]
    fn statuses_502_504_and_other_5xx_back_off() {
        for status in [502, 504, 507, 599] {
            for ordinal in [1, 100] {
                assert_eq!(
                    judge(status, None, ordinal, S),
                    Verdict::Backoff,
                    "{status}"
                );
            }
        }
    }

    #[test]
    fn other_4xx_are_for_the_operator_as_their_class_says() {
        for status in [402, 411, 413, 418, 451, 499] {
            calls_operator(status, "URL");
        }
    }

    /// What the whole table says of `reason` at WHIP, met again and again every `period` after `progress`.
    fn verdicts(
        reason: impl Fn() -> EndReason,
        progress: &Progress,
        period: Duration,
        times: u32,
        start: Instant,
    ) -> Vec<Verdict> {
        let mut history = History::default();
        let one = |n| {
            let now = start + period * n;
            verdict(
                now,
                &reason(),
                progress,
                Dialect::Whip,
                Hold::Server,
                &mut history,
            )
        };
        (0..times).map(one).collect()
    }

    fn first_of(reason: impl Fn() -> EndReason, on_air_for: Option<Duration>) -> Verdict {
        let start = Instant::now();
        let progress = match on_air_for {
            Some(_) => Progress::OnAir {
                since: start,
                confirmed: true,
            },
            None => Progress::Connecting,
        };
        let now = start + on_air_for.unwrap_or_default();
        verdicts(reason, &progress, S, 1, now).remove(0)
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_tried_often_and_then_slowly() {
        let unreachable = || {
            EndReason::Signal(signal::Error::Connect(net::Error::Timeout {
                endpoint: "https://server:443".to_owned(),
                step: net::Step::Tcp,
                after: 10 * S,
            }))
        };
        let period = Duration::from_millis(800);
        let start = Instant::now();
        let seen = verdicts(unreachable, &Progress::Signalling, period, 200, start);
        let often = |v: &Verdict| *v == Verdict::RetryEvery(period);
        assert!(seen[..150].iter().all(often));
        assert!(
            seen[150..]
                .iter()
                .all(|v| *v == Verdict::RetryEvery(15 * S))
        );
    }

    #[test]
    fn silence_and_a_closed_connection_back_off_and_a_path_is_looked_for_steadily() {
        let endpoint = || "https://server:443".to_owned();
        let silence = || {
            EndReason::Signal(signal::Error::Timeout {
                endpoint: endpoint(),
                waiting_for: "its reply was awaited",
                after: 15 * S,
            })
        };
        let closed = || {
            EndReason::Signal(signal::Error::Protocol {
                endpoint: endpoint(),
                expected: "an HTTP reply",
                got: "nothing".to_owned(),
            })
        };
        let pathless = || EndReason::NeverConnected {
            stage: None,
            climbs: Vec::new(),
        };
        assert_eq!(first_of(silence, None), Verdict::Backoff);
        assert_eq!(first_of(closed, None), Verdict::Backoff);
        assert_eq!(first_of(pathless, None), Verdict::RetryEvery(S));
    }

    #[test]
    fn a_path_lost_or_not_restarted_is_followed_by_a_new_session_at_once_unless_it_was_lost_just_before()
     {
        let unrestarted = || EndReason::Signal(signal::Error::NoRestart);
        let lost = || EndReason::Lost;
        assert_eq!(first_of(unrestarted, Some(31 * S)), Verdict::RetryNow);
        assert_eq!(first_of(lost, Some(31 * S)), Verdict::RetryNow);
        assert_eq!(first_of(unrestarted, Some(29 * S)), Verdict::RetryNow);
        assert_eq!(first_of(lost, Some(29 * S)), Verdict::RetryNow);
        let since = Instant::now();
        let on_air = Progress::OnAir {
            since,
            confirmed: true,
        };
        let seen = verdicts(lost, &on_air, S, 3, since);
        assert_eq!(
            seen,
            [Verdict::RetryNow, Verdict::Backoff, Verdict::Backoff]
        );
    }

    #[test]
    fn a_refused_video_track_is_for_the_operator_in_the_signallers_words() {
        let refused = || {
            EndReason::Signal(signal::Error::Sdp {
                endpoint: "https://server:443".to_owned(),
                why: "its words".to_owned(),
            })
        };
        assert_eq!(person(&first_of(refused, None)), (RECHECK, "its words"));
    }
}
