//! What Wowza's refusals mean, in both dialects (protocols.md 2.3 and 3.3).

use std::time::Duration;

use super::{Refusal, Verdict, operator};

/// Name in use and not yet running are waited out for two minutes.
pub(super) const WAIT_PERIOD: Duration = Duration::from_secs(5);
const WAIT_FOR: Duration = Duration::from_secs(120);

pub(super) fn refused(refusal: &Refusal<'_>) -> Verdict {
    let text = refusal.text;
    match refusal.status {
        400 if refusal.ordinal >= 2 => operator(format!(
            "the server calls our offer malformed ({text}): check application and stream name"
        )),
        401 | 403 => operator(format!(
            "the server does not let us publish ({text}): check that WebRTC publishing is on for the application, and \
             the credentials in the stream name"
        )),
        404 if refusal.ordinal >= 3 => operator(format!(
            "the server does not know the application ({text}): check its name, and that it runs"
        )),
        502 | 503 if refusal.age < WAIT_FOR => Verdict::RetryEvery(WAIT_PERIOD),
        502 => operator(format!(
            "the live stream does not run ({text}): start it at the platform"
        )),
        503 => operator(format!(
            "another publisher is live under this stream name ({text}): stop it or choose another"
        )),
        _ => Verdict::Backoff,
    }
}
