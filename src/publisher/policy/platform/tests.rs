use super::super::tests::{refusal as server_refusal, unreachable};
use super::super::{History, Hold};
use super::*;
use crate::config::platform::StreamRef;
use crate::platform::Call;
use crate::session::Progress;
use crate::signal::Dialect;

const S: Duration = Duration::from_secs(1);

fn refused(refusal: Refusal, retry_after: Option<Duration>) -> Error {
    Error::Refused {
        vendor: "wowza-video",
        call: Call::Start,
        refusal,
        status: 400,
        code: "ERR".to_owned(),
        text: "words".to_owned(),
        retry_after,
    }
}

fn connect() -> Error {
    let source = crate::net::Error::Timeout {
        endpoint: "https://api".to_owned(),
        step: crate::net::Step::Tcp,
        after: 10 * S,
    };
    Error::Connect {
        vendor: "qencode",
        call: Call::Show,
        source: source.into(),
    }
}

/// The verdicts on the same words, heard again and again every `period`.
fn verdicts(error: &Error, period: Duration, times: u32) -> Vec<Verdict> {
    (0..times)
        .map(|n| verdict(error, n + 1, period * n))
        .collect()
}

fn is_operator(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Operator { .. })
}

#[test]
fn rows_401_403_404_410_and_422_invalid_wait_for_the_operator_and_say_what_to_do() {
    for refusal in [
        Refusal::Credential,
        Refusal::Forbidden,
        Refusal::NotFound,
        Refusal::Deleted,
        Refusal::Invalid,
    ] {
        let Verdict::Operator { advice, every } =
            verdict(&refused(refusal, None), 1, Duration::ZERO)
        else {
            panic!("{refusal:?}");
        };
        assert!(advice.contains("words; "), "{advice}");
        assert!(
            every <= 60 * S,
            "a changed credential is found within a minute"
        );
    }
}

#[test]
fn row_409_limit_does_not_loop_on_create() {
    let seen = verdicts(&refused(Refusal::TooMany, None), 600 * S, 20);
    assert!(seen.iter().all(|v| *v == Verdict::RetryEvery(600 * S)));
}

#[test]
fn row_429_keeps_quiet_for_a_minute_or_as_long_as_the_vendor_says() {
    let wait = |after| {
        let seen = verdict(&refused(Refusal::TooOften, after), 1, Duration::ZERO);
        let Verdict::RetryEvery(period) = seen else {
            panic!("{seen:?}");
        };
        // The least that the jitter leaves of it.
        period.mul_f64(0.8)
    };
    assert!(wait(None) >= 60 * S && wait(Some(S)) >= 60 * S);
    assert!(wait(Some(90 * S)) >= 90 * S);
}

#[test]
fn row_422_state_is_asked_again_steadily_and_then_told() {
    let seen = verdicts(&refused(Refusal::WrongState, None), 5 * S, 70);
    assert!(seen[..60].iter().all(|v| *v == Verdict::RetryEvery(5 * S)));
    assert!(seen[60..].iter().all(is_operator));
}

#[test]
fn rows_5xx_back_off() {
    let seen = verdicts(&refused(Refusal::Trouble, None), S, 100);
    assert!(seen.iter().all(|v| *v == Verdict::Backoff));
    let said = verdict(&refused(Refusal::Trouble, Some(8 * S)), 1, Duration::ZERO);
    assert_eq!(said, Verdict::RetryEvery(10 * S));
}

#[test]
fn an_interface_out_of_reach_is_asked_for_ever() {
    let seen = verdicts(&connect(), 5 * S, 100);
    assert!(seen[..24].iter().all(|v| *v == Verdict::RetryEvery(5 * S)));
    assert!(seen[24..].iter().all(|v| *v == Verdict::RetryEvery(15 * S)));
}

#[test]
fn what_cannot_be_understood_is_told_at_the_third_time() {
    let odd = Error::Reply {
        vendor: "qencode",
        call: Call::Start,
        why: "it is not JSON".to_owned(),
    };
    for error in [odd, refused(Refusal::Unexpected, None)] {
        let seen = verdicts(&error, S, 5);
        assert_eq!(seen.iter().position(is_operator), Some(2), "{error}");
    }
    let slow = Error::StartTimeout {
        vendor: "wowza-video",
        state: "starting".to_owned(),
        after: 300 * S,
    };
    assert_eq!(verdicts(&slow, S, 3).iter().position(is_operator), Some(1));
}

#[test]
fn what_only_a_person_can_mend_is_told_at_once() {
    let stream = StreamRef::Name("x".to_owned());
    let vendor = "wowza-video";
    for error in [
        Error::Ambiguous {
            vendor,
            stream: stream.clone(),
            ids: Vec::new(),
        },
        Error::NoSuchStream { vendor, stream },
        Error::NotWebrtc {
            vendor,
            encoder: "other_rtmp".to_owned(),
        },
        Error::StartsTooOften {
            starts: 9,
            stops: 0,
        },
    ] {
        assert!(is_operator(&verdict(&error, 1, Duration::ZERO)), "{error}");
    }
}

/// A publisher at Qencode that goes off the air at 0 and then fails for `reason` every `period`.
fn after_loss(
    hold: Hold,
    reason: impl Fn() -> EndReason,
    period: Duration,
    times: u32,
) -> Vec<Verdict> {
    let start = Instant::now() + 100 * S;
    let mut history = History::default();
    let on_air = Progress::OnAir {
        since: start - 5 * S,
        confirmed: true,
    };
    let mut judge = |at, reason: &EndReason, progress: &Progress| {
        super::super::verdict(
            start + at,
            reason,
            progress,
            Dialect::Ome,
            hold,
            &mut history,
        )
    };
    judge(Duration::ZERO, &EndReason::Lost, &on_air);
    (1..=times)
        .map(|n| judge(period * n, &reason(), &Progress::Signalling))
        .collect()
}

#[test]
fn qencode_is_tried_at_the_same_url_for_110_seconds_after_a_loss() {
    for reason in [
        || server_refusal(404),
        || unreachable(None),
        || unreachable(Some(403)),
    ] {
        let seen = after_loss(Hold::Qencode, reason, 3 * S, 50);
        assert!(
            seen[..36]
                .iter()
                .all(|v| *v == Verdict::RetryEvery(RESUME_PERIOD)),
            "{seen:?}"
        );
        assert_ne!(
            seen[36],
            Verdict::RetryEvery(RESUME_PERIOD),
            "110 s are over"
        );
    }
    let elsewhere = after_loss(Hold::Server, || unreachable(Some(403)), 3 * S, 1);
    assert!(is_operator(&elsewhere[0]));
}

#[test]
fn what_the_platform_itself_says_is_not_overruled_by_the_resume() {
    let seen = after_loss(
        Hold::Qencode,
        || EndReason::Platform(refused(Refusal::Credential, None)),
        S,
        1,
    );
    assert!(is_operator(&seen[0]));
}
