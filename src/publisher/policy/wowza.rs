//! What Wowza's refusals mean, in its older dialect (protocols.md 2.3) and its newer one (3.3).

use std::time::Duration;

use super::{Refusal, Verdict, operator};

/// A name in use is asked for at this pace: most often it is our own, of a session that the server still misses, and
/// free from one moment to the next.
const GHOST_PERIOD: Duration = Duration::from_secs(2);
/// In the older dialect a stream that does not run.
const WAIT_PERIOD: Duration = Duration::from_secs(5);
/// The newer engine's own pace for a stream that does not run.
const NOT_RUNNING_PERIOD: Duration = Duration::from_secs(15);
/// Either is waited out so long: more than the server needs to notice that a session of ours is dead.
const WAIT_FOR: Duration = Duration::from_secs(120);

pub(super) fn refused_v1(refusal: &Refusal<'_>) -> Verdict {
    match refusal.status {
        // An application that is just being started is not known either.
        404 if refusal.ordinal < 3 => Verdict::Backoff,
        404 => unknown_application(refusal.text),
        502 => not_running(refusal, WAIT_PERIOD),
        _ => refused(refusal),
    }
}

pub(super) fn refused_v2(refusal: &Refusal<'_>) -> Verdict {
    match refusal.status {
        404 => unknown_application(refusal.text),
        // A 514 has been waited out for the time of an answer already.
        502 | 514 => not_running(refusal, NOT_RUNNING_PERIOD),
        _ => refused(refusal),
    }
}

/// What both dialects mean alike.
fn refused(refusal: &Refusal<'_>) -> Verdict {
    let text = refusal.text;
    match refusal.status {
        400 if refusal.ordinal >= 2 => operator(format!(
            "the server calls our offer malformed ({text}): check application and stream name"
        )),
        401 | 403 => operator(format!(
            "the server does not let us publish ({text}): check that WebRTC publishing is on for the application, and \
             the credentials in the stream name"
        )),
        503 if refusal.age < WAIT_FOR => Verdict::RetryEvery(GHOST_PERIOD),
        503 => operator(format!(
            "another publisher is live under this stream name ({text}): stop it or choose another"
        )),
        _ => Verdict::Backoff,
    }
}

fn not_running(refusal: &Refusal<'_>, period: Duration) -> Verdict {
    if refusal.age < WAIT_FOR {
        return Verdict::RetryEvery(period);
    }
    let text = refusal.text;
    operator(format!(
        "the live stream does not run ({text}): start it at the platform"
    ))
}

fn unknown_application(text: &str) -> Verdict {
    operator(format!(
        "the server does not know the application ({text}): check its name, and that it runs"
    ))
}

#[cfg(test)]
mod tests;
