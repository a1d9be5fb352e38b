//! Counts of a publisher that outlive what they are counted in: a session's counters begin anew with each session,
//! and a publisher's with each restart, but what is shown never falls.

use crate::peer::Counters;
use crate::publisher::Snapshot;

/// One count of a publisher.
pub(super) struct Count {
    /// Its name in the status; in the metrics it stands between `onair_publisher_` and `_total`.
    pub(super) name: &'static str,
    /// The base unit that its name ends in; empty for plain counts.
    pub(super) unit: &'static str,
    /// What it counts.
    pub(super) help: &'static str,
    read: fn(&Snapshot) -> u64,
}

/// How many there are.
pub(super) const N: usize = 15;

/// All of them.
pub(super) const COUNTS: [Count; N] = [
    count("sessions", "", "Sessions begun", |s| s.sessions),
    count(
        "frames_sent",
        "",
        "Pictures handed to the media engine",
        Snapshot::frames_sent,
    ),
    count(
        "packets_sent",
        "",
        "RTP packets sent, retransmissions not counted",
        |s| of(s, |p| p.packets),
    ),
    count("payload_sent_bytes", "bytes", "RTP payload sent", |s| {
        of(s, |p| p.bytes)
    }),
    count(
        "packets_resent",
        "",
        "RTP packets sent again in answer to NACKs",
        |s| of(s, |p| p.retransmissions),
    ),
    count("nacks", "", "RTP packets that NACKs asked for", |s| {
        of(s, |p| p.nacks)
    }),
    count(
        "nacks_refused",
        "",
        "RTP packets asked for and not sent again: too old, asked for too often, or beyond the budget",
        |s| of(s, |p| p.nacks_refused),
    ),
    count("plis", "", "Picture loss indications received", |s| {
        of(s, |p| p.plis)
    }),
    count("firs", "", "Full intra requests received", |s| {
        of(s, |p| p.firs)
    }),
    count("goodbyes", "", "RTCP goodbyes received", |s| {
        of(s, |p| p.goodbyes)
    }),
    count(
        "receiver_reports",
        "",
        "Receiver reports about our tracks",
        |s| of(s, |p| p.receiver_reports),
    ),
    count(
        "events_dropped",
        "",
        "Words of the media engine that found their queue full",
        |s| of(s, |p| p.events_dropped),
    ),
    count(
        "strangers",
        "",
        "UDP packets thrown away because they came from nobody we talk to",
        |s| of(s, |p| p.strangers),
    ),
    count(
        "packets_unsent",
        "",
        "UDP packets that the operating system refused to send",
        |s| of(s, |p| p.packets_unsent),
    ),
    count(
        "frames_refused",
        "",
        "Frames thrown away because a TCP connection would not take them",
        |s| of(s, |p| p.frames_refused),
    ),
];

const fn count(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    read: fn(&Snapshot) -> u64,
) -> Count {
    Count {
        name,
        unit,
        help,
        read,
    }
}

fn of(snapshot: &Snapshot, read: fn(&Counters) -> u64) -> u64 {
    snapshot.session.peer.as_ref().map_or(0, read)
}

/// The counts of one publisher over all its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    last: [u64; N],
    total: [u64; N],
}

impl Counts {
    /// Adds what was counted since the last look; says how much that was, in the order of [`COUNTS`]. A count that
    /// has fallen has begun anew.
    pub(super) fn look(&mut self, snapshot: &Snapshot) -> [u64; N] {
        let mut more = [0; N];
        for (n, count) in COUNTS.iter().enumerate() {
            let now = (count.read)(snapshot);
            more[n] = now.checked_sub(self.last[n]).unwrap_or(now);
            self.last[n] = now;
            self.total[n] = self.total[n].saturating_add(more[n]);
        }
        more
    }

    /// All of them begin anew, whatever they show next.
    pub(super) const fn begin_anew(&mut self) {
        self.last = [0; N];
    }

    /// Each count with its total.
    pub(super) fn totals(&self) -> impl Iterator<Item = (&'static Count, u64)> {
        COUNTS.iter().zip(self.total)
    }
}
