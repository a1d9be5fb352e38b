//! What the statuses of a WHIP server mean (protocols.md 7.1).

use super::{Refusal, Verdict};

pub(super) fn refused(refusal: &Refusal<'_>) -> Verdict {
    match refusal.retry_after {
        Some(wait) => Verdict::RetryEvery(wait),
        None => Verdict::Backoff,
    }
}
