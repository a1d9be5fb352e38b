//! What OvenMediaEngine's refusals mean (protocols.md 5.3).

use std::time::Duration;

use super::{Refusal, Verdict, operator};

/// A ghost of ours holds the name for OvenMediaEngine's default `Timeout` of 30 s; half as long again for slow servers.
pub(super) const GHOST_PERIOD: Duration = Duration::from_secs(2);
const GHOST_FOR: Duration = Duration::from_secs(45);

pub(super) fn refused(refusal: &Refusal<'_>) -> Verdict {
    let text = refusal.text;
    match refusal.status {
        403 | 404 if refusal.age < GHOST_FOR => Verdict::RetryEvery(GHOST_PERIOD),
        404 => operator(
            "OvenMediaEngine has one answer, 404, for all of these: another publisher holds the stream name; no such \
             application or host; WebRTC ingest is off for the application; the signed policy is wrong or expired; the \
             admission webhook refused. Check them in this order"
                .to_owned(),
        ),
        403 => operator(format!(
            "the server refuses our answer ({text}): another publisher took the name meanwhile, a webhook or policy \
             forbids it, the URL lacks a stream name, or it cannot read our SDP"
        )),
        400 => operator(format!(
            "the server did not understand us ({text}); this server version needs a fix in onair"
        )),
        _ => Verdict::Backoff,
    }
}
