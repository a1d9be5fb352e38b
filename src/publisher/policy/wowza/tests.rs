//! Each row of the status tables of both dialects, and of what else ends a session at Wowza, with its verdict and
//! its time. What a signaller does by itself, such as waiting on at a 504, is tested there.

use super::super::tests::{S, calls_operator_at, refusal, unreachable, verdicts};
use super::super::{History, Hold, STABLE_AFTER, UNREACHABLE_LATER, UNREACHABLE_PERIOD, verdict};
use super::*;
use crate::session::{EndReason, Progress};
use crate::signal::{self, Dialect, Step};

use std::time::Instant;

const V1: Dialect = Dialect::WowzaV1;
const V2: Dialect = Dialect::WowzaV2;
const BOTH: [Dialect; 2] = [V1, V2];

/// The verdict on `reason` after so long on air.
fn after_on_air(dialect: Dialect, reason: &EndReason, on_air: Duration) -> Verdict {
    after_on_air_again(dialect, reason, on_air, 0)
}

/// The same after so many failures in a row before.
fn after_on_air_again(
    dialect: Dialect,
    reason: &EndReason,
    on_air: Duration,
    failures: u32,
) -> Verdict {
    let since = Instant::now();
    let progress = Progress::OnAir {
        since,
        confirmed: true,
    };
    let mut history = History {
        failures,
        ..History::default()
    };
    verdict(
        since + on_air,
        reason,
        &progress,
        dialect,
        Hold::Server,
        &mut history,
    )
}

/// `reason` in each session: only ever a backoff.
fn backs_off(dialect: Dialect, reason: impl Fn() -> EndReason) {
    let seen = verdicts(dialect, reason, 20 * S, 10);
    assert_eq!(seen, [const { Verdict::Backoff }; 10], "{dialect}");
}

/// `reason` met again and again: asked for every `period`, then by a person after two minutes.
fn waited_out(dialect: Dialect, status: u16, period: Duration) {
    let seen = verdicts(dialect, || refusal(status), period, 90);
    let tries = (WAIT_FOR.as_secs() / period.as_secs()) as usize;
    assert_eq!(seen[0], Verdict::RetryEvery(period), "{dialect} {status}");
    assert_eq!(calls_operator_at(&seen), Some(tries), "{dialect} {status}");
}

/// `reason` is for a person at the `n`th time in a row, and a backoff until then.
fn for_the_operator_at(dialect: Dialect, status: u16, n: usize) {
    let seen = verdicts(dialect, || refusal(status), S, 4);
    assert_eq!(calls_operator_at(&seen), Some(n - 1), "{dialect} {status}");
    assert!(seen[..n - 1].iter().all(|v| *v == Verdict::Backoff));
}

fn signal_error(make: impl Fn(String) -> signal::Error) -> impl Fn() -> EndReason {
    move || EndReason::Signal(make("wss://server".to_owned()))
}

// --- statuses ------------------------------------------------------------------------------------------------

#[test]
fn status_400_twice_is_for_the_operator() {
    for dialect in BOTH {
        for_the_operator_at(dialect, 400, 2);
    }
}

#[test]
fn status_401_and_403_are_for_the_operator_at_once() {
    for dialect in BOTH {
        for_the_operator_at(dialect, 401, 1);
        for_the_operator_at(dialect, 403, 1);
    }
}

#[test]
fn status_404_is_for_the_operator_after_three_spaced_tries_in_v1() {
    for_the_operator_at(V1, 404, 3);
}

#[test]
fn status_404_is_for_the_operator_at_once_in_v2() {
    for_the_operator_at(V2, 404, 1);
}

#[test]
fn status_425_outside_a_restart_backs_off() {
    for dialect in BOTH {
        backs_off(dialect, || refusal(425));
    }
}

#[test]
fn status_500_backs_off() {
    for dialect in BOTH {
        backs_off(dialect, || refusal(500));
    }
}

#[test]
fn status_502_not_running_is_waited_out_for_two_minutes() {
    waited_out(V1, 502, 5 * S);
    waited_out(V2, 502, 15 * S);
}

#[test]
fn status_503_name_in_use_is_waited_out_for_two_minutes() {
    for dialect in BOTH {
        waited_out(dialect, 503, 2 * S);
    }
}

#[test]
fn status_503_after_a_lost_session_is_our_own_ghost_and_waited_out_afresh() {
    for dialect in BOTH {
        let start = Instant::now();
        let mut history = History::default();
        let mut judge = |at, reason: &EndReason| {
            let now = start + at;
            verdict(
                now,
                reason,
                &Progress::Signalling,
                dialect,
                Hold::Server,
                &mut history,
            )
        };
        judge(Duration::ZERO, &refusal(503));
        judge(100 * S, &EndReason::Lost);
        let again = judge(150 * S, &refusal(503));
        assert_eq!(again, Verdict::RetryEvery(GHOST_PERIOD));
    }
}

#[test]
fn status_504_after_the_wait_for_an_answer_backs_off() {
    for dialect in BOTH {
        backs_off(dialect, || refusal(504));
    }
}

#[test]
fn status_514_after_the_wait_for_an_answer_means_not_running_in_v2() {
    backs_off(V1, || refusal(514));
    waited_out(V2, 514, 15 * S);
}

#[test]
fn any_other_status_backs_off() {
    for dialect in BOTH {
        for status in [0, 418, 599, 999] {
            backs_off(dialect, || refusal(status));
        }
    }
}

// --- no answer, or none of use -------------------------------------------------------------------------------

#[test]
fn no_answer_backs_off() {
    let silence = signal_error(|endpoint| signal::Error::Timeout {
        endpoint,
        waiting_for: "the answer",
        after: 20 * S,
    });
    for dialect in BOTH {
        backs_off(dialect, &silence);
    }
}

#[test]
fn an_answer_in_the_other_dialect_than_the_configured_one_is_for_the_operator_with_the_key() {
    for (dialect, spoken, key) in [(V1, V2, "\"v2\""), (V2, V1, "\"v1\"")] {
        let other = signal_error(|endpoint| signal::Error::OtherDialect { endpoint, spoken });
        let Verdict::Operator { advice, .. } = &verdicts(dialect, other, S, 1)[0] else {
            panic!("not for the operator")
        };
        assert!(
            advice.contains("dialect = ") && advice.contains(key),
            "{advice}"
        );
    }
}

#[test]
fn an_upgrade_met_with_404_403_or_html_is_for_the_operator_at_once() {
    for dialect in BOTH {
        for status in [404, 403, 200] {
            let seen = verdicts(dialect, || unreachable(Some(status)), S, 1);
            assert_eq!(calls_operator_at(&seen), Some(0), "{dialect} {status}");
        }
    }
}

#[test]
fn a_refused_codec_is_for_the_operator_at_once_with_the_signallers_words() {
    let why = "the server refused the video track: PreferredCodecsVideo";
    let refused = signal_error(|endpoint| signal::Error::Sdp {
        endpoint,
        why: why.to_owned(),
    });
    for dialect in BOTH {
        let Verdict::Operator { advice, .. } = &verdicts(dialect, &refused, S, 1)[0] else {
            panic!("not for the operator")
        };
        assert_eq!(advice, why);
    }
}

// --- the socket and the media path ---------------------------------------------------------------------------

#[test]
fn a_server_out_of_reach_is_tried_every_15_seconds_in_the_end_and_never_given_up() {
    for dialect in BOTH {
        let seen = verdicts(dialect, || unreachable(None), 15 * S, 1000);
        assert_eq!(seen[0], Verdict::RetryEvery(UNREACHABLE_PERIOD));
        assert_eq!(seen[8..], vec![Verdict::RetryEvery(UNREACHABLE_LATER); 992]);
    }
}

#[test]
fn ice_that_never_connects_is_tried_steadily_for_ten_minutes_and_then_backs_off() {
    for dialect in BOTH {
        let pathless = || EndReason::NeverConnected {
            stage: None,
            climbs: Vec::new(),
        };
        let seen = verdicts(dialect, pathless, 20 * S, 40);
        assert_eq!(seen[..30], [const { Verdict::RetryEvery(S) }; 30]);
        assert_eq!(seen[30..], [const { Verdict::Backoff }; 10]);
    }
}

/// What ends a session that was live, with nothing said that a person would have to mend.
fn losses() -> Vec<(&'static str, EndReason)> {
    let endpoint = || "wss://server".to_owned();
    let closed = |code| {
        EndReason::Signal(signal::Error::Closed {
            endpoint: endpoint(),
            code,
            reason: String::new(),
            waiting_for: "media flowed",
        })
    };
    let stream_gone = signal::Error::StreamGone {
        endpoint: endpoint(),
    };
    vec![
        ("the media path, after ICE_RESTART failed", EndReason::Lost),
        (
            "a restart that the server refused",
            EndReason::Signal(signal::Error::NoRestart),
        ),
        ("the socket", closed(None)),
        ("the socket, orderly", closed(Some(1000))),
        ("the socket, with a code of its own", closed(Some(4000))),
        ("the stream in the list", EndReason::Signal(stream_gone)),
    ]
}

#[test]
fn what_is_lost_after_30_seconds_on_air_is_followed_at_once() {
    for dialect in BOTH {
        for (what, reason) in losses() {
            let seen = after_on_air(dialect, &reason, STABLE_AFTER);
            assert_eq!(seen, Verdict::RetryNow, "{dialect}: {what}");
        }
    }
}

#[test]
fn what_is_lost_sooner_is_followed_at_once_the_first_time_and_backs_off_the_next() {
    for dialect in BOTH {
        for (what, reason) in losses() {
            let time = STABLE_AFTER - S;
            let seen = after_on_air(dialect, &reason, time);
            assert_eq!(seen, Verdict::RetryNow, "{dialect}: {what}");
            let seen = after_on_air_again(dialect, &reason, time, 1);
            assert_eq!(seen, Verdict::Backoff, "{dialect}: {what}");
        }
    }
}

#[test]
fn a_close_code_that_forbids_is_for_the_operator_even_after_an_hour_on_air() {
    let closed = |status| {
        EndReason::Signal(signal::Error::Refused {
            endpoint: "wss://server".to_owned(),
            status,
            text: "closed".to_owned(),
            step: Step::Live,
            retry_after: None,
        })
    };
    for status in [401, 403, 404] {
        let seen = after_on_air(V2, &closed(status), 3600 * S);
        assert!(
            matches!(seen, Verdict::Operator { .. }),
            "{status}: {seen:?}"
        );
    }
    for status in [410, 500] {
        let seen = after_on_air(V2, &closed(status), 3600 * S);
        assert_eq!(seen, Verdict::Backoff, "{status}");
    }
}
