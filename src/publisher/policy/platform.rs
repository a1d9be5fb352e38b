//! What follows from a platform's words: one row for each row of protocols.md 8.1.4 and 8.2.
//!
//! | fact | verdict |
//! |---|---|
//! | the interface is out of reach | every 5 s for 2 min, then every 15 s |
//! | credential refused (401; at Qencode 403 too) | operator; the credential is read again every 15 s, and shown again when it has changed, else each 5 min |
//! | no right to the stream (403), no such stream (404), deleted (410) and not to be made again, invalid (422) | operator |
//! | too many streams made (409) | every 10 min |
//! | too many requests (429) | after 60 s, or when the vendor says |
//! | wrong state (409, 422, 423) | every 5 s for 5 min, then operator |
//! | trouble of its own (5xx) | backoff, or when the vendor says |
//! | anything else, or a reply of no use | backoff; the third in a row: operator |
//! | started, but not up within 5 min | backoff; the second in a row: operator |
//! | started by us too often, or stopped by others, within an hour | operator, looked at every 5 min |
//! | made for another encoder, several of one name, in use by another publisher here | operator |

use std::time::{Duration, Instant};

use super::{Verdict, operator};
use crate::platform::{Error, Refusal};
use crate::session::EndReason;

const UNREACHABLE_PERIOD: Duration = Duration::from_secs(5);
const UNREACHABLE_FOR: Duration = Duration::from_secs(120);
const UNREACHABLE_LATER: Duration = Duration::from_secs(15);
const CREDENTIAL_PERIOD: Duration = Duration::from_secs(15);
/// A vendor in trouble that says "at once" does not mean it.
const TROUBLE_MIN: Duration = Duration::from_secs(2);
const TOO_MANY_PERIOD: Duration = Duration::from_secs(600);
/// Waits are jittered by a fifth, and shall not end before what a vendor asked for.
const QUIET: Duration = Duration::from_secs(60);
const WRONG_STATE_PERIOD: Duration = Duration::from_secs(5);
const WRONG_STATE_FOR: Duration = Duration::from_secs(300);
const FOUGHT_OVER_PERIOD: Duration = Duration::from_secs(300);

/// Time after a loss of media for which Qencode keeps the stream at its URL, less a margin (protocols.md 6.3).
const RESUME_FOR: Duration = Duration::from_secs(110);
const RESUME_PERIOD: Duration = Duration::from_secs(3);

/// The verdict on what a platform said for the `ordinal`th time in a row, `age` after the first.
pub(super) fn verdict(error: &Error, ordinal: u32, age: Duration) -> Verdict {
    let backoff_until = |n| match ordinal < n {
        true => Verdict::Backoff,
        false => operator(error.to_string()),
    };
    match error {
        Error::Connect { .. } => Verdict::RetryEvery(match age < UNREACHABLE_FOR {
            true => UNREACHABLE_PERIOD,
            false => UNREACHABLE_LATER,
        }),
        Error::Refused {
            refusal,
            retry_after,
            ..
        } => match refusal {
            // Each look reads the credential alone; it is shown again when it has changed.
            Refusal::Credential => Verdict::Operator {
                advice: error.to_string(),
                every: CREDENTIAL_PERIOD,
            },
            Refusal::Deleted | Refusal::Forbidden | Refusal::Invalid | Refusal::NotFound => {
                operator(error.to_string())
            }
            Refusal::TooMany => Verdict::RetryEvery(TOO_MANY_PERIOD),
            Refusal::TooOften => {
                Verdict::RetryEvery(retry_after.unwrap_or(QUIET).max(QUIET).mul_f64(1.25))
            }
            Refusal::Trouble => match retry_after {
                Some(after) => Verdict::RetryEvery((*after).max(TROUBLE_MIN).mul_f64(1.25)),
                None => Verdict::Backoff,
            },
            Refusal::Unexpected => backoff_until(3),
            Refusal::WrongState => match age < WRONG_STATE_FOR {
                true => Verdict::RetryEvery(WRONG_STATE_PERIOD),
                false => operator(error.to_string()),
            },
        },
        Error::Reply { .. } => backoff_until(3),
        Error::StartTimeout { .. } => backoff_until(2),
        Error::StartsTooOften { .. } => Verdict::Operator {
            advice: error.to_string(),
            every: FOUGHT_OVER_PERIOD,
        },
        Error::Ambiguous { .. }
        | Error::DailyLimit { .. }
        | Error::InUse { .. }
        | Error::NoSuchStream { .. }
        | Error::NotWebrtc { .. } => operator(error.to_string()),
    }
}

/// While Qencode keeps the stream for us, its URL is tried steadily, whatever the server says there.
pub(super) fn resumed(
    now: Instant,
    lost: Option<Instant>,
    reason: &EndReason,
    verdict: Verdict,
) -> Verdict {
    let kept = lost.is_some_and(|lost| now.saturating_duration_since(lost) < RESUME_FOR);
    let at_the_server = match reason {
        EndReason::Engine(_)
        | EndReason::Lost
        | EndReason::NeverConnected { .. }
        | EndReason::NotAccepted
        | EndReason::Signal(_) => true,
        EndReason::FeedEnded
        | EndReason::NetworkChanged { .. }
        | EndReason::Panicked(_)
        | EndReason::Platform(_)
        | EndReason::Stopped => false,
    };
    if kept && at_the_server && verdict != Verdict::RetryNow {
        return Verdict::RetryEvery(RESUME_PERIOD);
    }
    verdict
}

#[cfg(test)]
mod tests;
