//! The hub: what every session of a lab shows to the page, to viewers and to tests.
//!
//! A session writes through its `Record`; readers take snapshots, follow the received media, or ask for a
//! key frame. Nothing a reader does can delay a session: snapshots are short locks, media goes through a
//! bounded broadcast that drops the oldest for a reader who is late. Secrets in messages are kept as they
//! are: the lab is local and its sessions are rehearsals.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Instant;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::media::access_unit::Track;
use crate::media::time::MediaClock;
use crate::report;
use crate::report::Verdict;

use super::profile::Profile;
use super::rest::Input;
use super::tally::Tally;

/// Access units a late reader may lie behind before it loses the oldest: about two seconds of both tracks.
const MEDIA_BACKLOG: usize = 256;
/// Messages kept per session; the oldest go first.
const MESSAGES: usize = 256;
/// Bytes kept of one message.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Ended sessions kept for the page; the oldest go first. The report keeps their numbers.
const ENDED_SESSIONS: usize = 64;

/// Number of a session, counted from 1 over the life of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

/// Who sent a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The lab.
    Lab,
    /// The publisher.
    Publisher,
}

/// One signalling message, or one remark of the lab about the connection that carries them.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// Milliseconds since the session began.
    pub at_ms: u64,
    /// Who sent it; `None` for a remark.
    pub from: Option<Side>,
    /// The text as it was on the wire.
    pub text: String,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The signalling connection is open.
    Signalling,
    /// Descriptions are exchanged; ICE and DTLS run.
    Connecting,
    /// DTLS is up; no picture has been decoded yet.
    Connected,
    /// Pictures are being decoded.
    OnAir,
    /// Over.
    Ended,
}

/// The newest readings of a session, for plots.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Live {
    /// Pictures completed in the last second.
    pub fps: f64,
    /// RTP payload of both tracks in the last second.
    pub bitrate_bps: u64,
    /// From the burnt-in clock to the decoded picture.
    pub latency_ms: Option<f64>,
    /// Sound ahead of (positive) or behind the picture, as sender reports place it.
    pub av_offset_ms: Option<f64>,
}

/// A session as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Its number.
    pub id: SessionId,
    /// The server it was published to.
    pub profile: Profile,
    /// `application/stream`; empty until the publisher has named it.
    pub name: String,
    /// Address of the publisher's signalling connection.
    pub remote: String,
    /// What the publisher calls itself (`User-Agent`); empty if it does not say.
    pub user_agent: String,
    /// How far it is.
    pub state: State,
    /// Unix time of its start, milliseconds.
    pub started_ms: u64,
    /// Unix time of its end, milliseconds.
    pub ended_ms: Option<u64>,
    /// Newest readings.
    pub live: Live,
    /// How it stands now: fail if a rule is broken, if too few pictures are decoded, or if it ended without any.
    pub verdict: Verdict,
    /// Why not pass, one sentence each.
    pub reasons: Vec<String>,
    /// The same numbers as the report gives.
    pub report: report::Session,
    /// How many messages there have been.
    pub messages: u64,
}

/// Received media for one instant: a complete H.264 access unit or one Opus packet.
#[derive(Clone, Debug)]
pub struct Received {
    /// The track it came on.
    pub track: Track,
    /// RTP timestamp as it was on the wire (90 kHz or 48 kHz).
    pub rtp_time: u32,
    /// An IDR picture with its parameter sets; every Opus packet.
    pub key: bool,
    /// Annex B byte stream, or the Opus packet.
    pub data: Bytes,
}

/// What a reader or a fault may ask of a running session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Close the signalling connection with this code, and this status in the reason.
    Close {
        /// Of the Close frame.
        code: u16,
        /// In its reason.
        status: u16,
    },
    /// Close the signalling connection without a word.
    DropSocket,
    /// End the session as a server that shuts down does.
    End,
    /// Ask the publisher for a key frame.
    KeyFrame,
}

/// All sessions of a lab. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: MediaClock,
    sessions: Mutex<Sessions>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Sessions {
    last_id: u64,
    by_id: BTreeMap<SessionId, Entry>,
    /// Ended sessions, merged per endpoint.
    ended: BTreeMap<(Profile, String), Tally>,
}

#[derive(Debug)]
struct Entry {
    profile: Profile,
    name: String,
    remote: String,
    user_agent: String,
    state: State,
    started: Instant,
    ended: Option<Instant>,
    live: Live,
    tally: Tally,
    messages: VecDeque<Message>,
    n_messages: u64,
    media: broadcast::Sender<Received>,
    asks: mpsc::Sender<Ask>,
}

impl Hub {
    pub(super) fn new(clock: MediaClock) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                sessions: Mutex::default(),
                changed: watch::Sender::new(0),
            }),
        }
    }

    /// Every session that is kept, oldest first.
    pub fn sessions(&self) -> Vec<Snapshot> {
        let sessions = self.lock();
        sessions
            .by_id
            .iter()
            .map(|(id, entry)| entry.snapshot(*id, &self.shared.clock))
            .collect()
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<Snapshot> {
        let sessions = self.lock();
        let entry = sessions.by_id.get(&id)?;
        Some(entry.snapshot(id, &self.shared.clock))
    }

    /// Messages of a session from number `from` on (counted from 0), as far as they are still kept.
    pub fn messages(&self, id: SessionId, from: u64) -> Option<Vec<Message>> {
        let sessions = self.lock();
        let entry = sessions.by_id.get(&id)?;
        let first = entry.n_messages - entry.messages.len() as u64;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        Some(entry.messages.iter().skip(skip).cloned().collect())
    }

    /// Follows the media of a session from now on. A reader that falls behind loses the oldest.
    pub fn subscribe(&self, id: SessionId) -> Option<broadcast::Receiver<Received>> {
        let sessions = self.lock();
        let entry = sessions.by_id.get(&id)?;
        entry.ended.is_none().then(|| entry.media.subscribe())
    }

    /// Asks the publisher of a session for a key frame; `false` if there is no such session any more.
    pub fn request_key_frame(&self, id: SessionId) -> bool {
        self.ask(id, Ask::KeyFrame)
    }

    /// Who publishes to `profile` over a media connection that is up: their names, and what they send.
    pub(super) fn inputs(&self, profile: Profile) -> BTreeMap<String, Input> {
        let sessions = self.lock();
        let live = sessions.by_id.values().filter(|entry| {
            entry.profile == profile && matches!(entry.state, State::Connected | State::OnAir)
        });
        live.map(|entry| {
            let input = Input {
                size: entry.tally.video.size,
                fps: entry.live.fps,
                bitrate_bps: entry.live.bitrate_bps,
            };
            (entry.name.clone(), input)
        })
        .collect()
    }

    /// Ends whoever publishes to `profile` as `name`, as a server does that shuts down.
    pub(super) fn end(&self, profile: Profile, name: &str) {
        let ids: Vec<SessionId> = {
            let sessions = self.lock();
            let named = sessions
                .by_id
                .iter()
                .filter(|(_, entry)| entry.profile == profile && entry.name == name);
            named.map(|(id, _)| *id).collect()
        };
        for id in ids {
            self.ask(id, Ask::End);
        }
    }

    /// A counter that moves with every change of state, decoded picture or message of any session.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// One entry per endpoint: its sessions in succession, merged.
    pub fn report(&self) -> Vec<report::Session> {
        self.tallies().values().map(Tally::report).collect()
    }

    /// Why the endpoints are no pass, one sentence each.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for ((profile, name), tally) in &self.tallies() {
            for reason in tally.reasons() {
                reasons.push(format!("{profile} {name}: {reason}"));
            }
        }
        reasons
    }

    fn tallies(&self) -> BTreeMap<(Profile, String), Tally> {
        let sessions = self.lock();
        let mut all = sessions.ended.clone();
        for entry in sessions.by_id.values() {
            if entry.ended.is_none() && !entry.name.is_empty() {
                all.entry((entry.profile, entry.name.clone()))
                    .or_insert_with(|| Tally::new(entry.profile))
                    .absorb(&entry.tally);
            }
        }
        all
    }

    pub(super) fn ask(&self, id: SessionId, ask: Ask) -> bool {
        let asks = {
            let sessions = self.lock();
            match sessions.by_id.get(&id) {
                Some(entry) if entry.ended.is_none() => entry.asks.clone(),
                _ => return false,
            }
        };
        // A full queue holds requests that say the same.
        !matches!(
            asks.try_send(ask),
            Err(mpsc::error::TrySendError::Closed(_))
        )
    }

    /// Opens a session; its asks come out of the receiver.
    pub(super) fn open(
        &self,
        profile: Profile,
        remote: String,
        user_agent: String,
        now: Instant,
    ) -> (Record, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(8);
        let (media, _) = broadcast::channel(MEDIA_BACKLOG);
        let mut sessions = self.lock();
        sessions.last_id += 1;
        let id = SessionId(sessions.last_id);
        let entry = Entry {
            profile,
            name: String::new(),
            remote,
            user_agent,
            state: State::Signalling,
            started: now,
            ended: None,
            live: Live::default(),
            tally: Tally::new(profile),
            messages: VecDeque::new(),
            n_messages: 0,
            media: media.clone(),
            asks,
        };
        sessions.by_id.insert(id, entry);
        drop(sessions);
        let record = Record {
            hub: self.clone(),
            id,
            started: now,
            media,
        };
        self.touch();
        (record, asked)
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.shared
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.shared.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl Entry {
    fn snapshot(&self, id: SessionId, clock: &MediaClock) -> Snapshot {
        let unix_ms = |at: Instant| {
            let since = clock.wall(clock.at(at)).duration_since(UNIX_EPOCH);
            u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
        };
        let mut reasons = self.tally.reasons();
        if self.state < State::OnAir && self.tally.report().violations.is_empty() {
            reasons.clear();
        }
        Snapshot {
            id,
            profile: self.profile,
            name: self.name.clone(),
            remote: self.remote.clone(),
            user_agent: self.user_agent.clone(),
            state: self.state,
            started_ms: unix_ms(self.started),
            ended_ms: self.ended.map(unix_ms),
            live: self.live,
            verdict: if reasons.is_empty() {
                Verdict::Pass
            } else {
                Verdict::Fail
            },
            reasons,
            report: self.tally.report(),
            messages: self.n_messages,
        }
    }
}

/// A session's own end of the hub. Shared between the session's task and its decoding thread; the session
/// counts as ended when [`Record::end`] is called.
#[derive(Clone, Debug)]
pub(super) struct Record {
    hub: Hub,
    id: SessionId,
    started: Instant,
    media: broadcast::Sender<Received>,
}

impl Record {
    pub(super) const fn id(&self) -> SessionId {
        self.id
    }

    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn named(&self, name: &str) {
        self.edit(|entry| name.clone_into(&mut entry.name));
        self.hub.touch();
    }

    pub(super) fn state(&self, state: State) {
        self.edit(|entry| entry.state = entry.state.max(state));
        self.hub.touch();
    }

    /// Notes a message, or a remark if `from` is `None`.
    pub(super) fn message(&self, now: Instant, from: Option<Side>, text: &str) {
        let mut end = text.len().min(MESSAGE_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let at = now.saturating_duration_since(self.started);
        let message = Message {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            from,
            text: text[..end].to_owned(),
        };
        self.edit(|entry| {
            if entry.messages.len() == MESSAGES {
                entry.messages.pop_front();
            }
            entry.messages.push_back(message);
            entry.n_messages += 1;
        });
        self.hub.touch();
    }

    pub(super) fn tally(&self, change: impl FnOnce(&mut Tally)) {
        self.edit(|entry| change(&mut entry.tally));
    }

    pub(super) fn live(&self, change: impl FnOnce(&mut Live)) {
        self.edit(|entry| change(&mut entry.live));
        self.hub.touch();
    }

    /// Hands received media to whoever follows.
    pub(super) fn media(&self, received: Received) {
        // No reader is not an error.
        self.media.send(received).ok();
    }

    /// The session is over. Later calls change nothing.
    pub(super) fn end(&self, now: Instant, reason: &str) {
        let mut sessions = self.hub.lock();
        let Some(entry) = sessions.by_id.get_mut(&self.id) else {
            return;
        };
        if entry.ended.is_some() {
            return;
        }
        entry.ended = Some(now);
        entry.state = State::Ended;
        entry.live = Live::default();
        entry.tally.end_reason = Some(reason.to_owned());
        let (key, tally) = ((entry.profile, entry.name.clone()), entry.tally.clone());
        if !key.1.is_empty() {
            let profile = key.0;
            sessions
                .ended
                .entry(key)
                .or_insert_with(|| Tally::new(profile))
                .absorb(&tally);
        }
        let ended: Vec<SessionId> = sessions
            .by_id
            .iter()
            .filter(|(_, entry)| entry.ended.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in ended.iter().rev().skip(ENDED_SESSIONS) {
            sessions.by_id.remove(id);
        }
        drop(sessions);
        self.hub.touch();
    }

    fn edit(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.hub.lock().by_id.get_mut(&self.id)
            && entry.ended.is_none()
        {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::SystemTime;

    use super::*;

    fn hub(now: Instant) -> Hub {
        Hub::new(MediaClock::new(now, SystemTime::now()))
    }

    #[test]
    fn messages_are_bounded_and_numbered() {
        let now = Instant::now();
        let hub = hub(now);
        let (record, _asks) = hub.open(Profile::Ome021, String::new(), String::new(), now);
        for n in 0..MESSAGES + 10 {
            record.message(now, Some(Side::Lab), &n.to_string());
        }
        let id = record.id();
        let all = hub.messages(id, 0).expect("known");
        assert_eq!(all.len(), MESSAGES);
        assert_eq!(all[0].text, "10");
        let last = hub.messages(id, (MESSAGES + 9) as u64).expect("known");
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].text, (MESSAGES + 9).to_string());
        record.message(now, None, &"ä".repeat(MESSAGE_BYTES));
        let long = hub.messages(id, (MESSAGES + 10) as u64).expect("known");
        assert_eq!(long[0].text.len(), MESSAGE_BYTES);
    }

    #[test]
    fn ended_sessions_are_bounded_and_stay_in_the_report() {
        let now = Instant::now();
        let hub = hub(now);
        for _ in 0..ENDED_SESSIONS + 5 {
            let (record, _asks) = hub.open(Profile::Qencode, String::new(), String::new(), now);
            record.named("qlive/key");
            record.tally(|tally| {
                tally.picture(Duration::from_millis(5), 16, 16);
                tally.video.frames_received += 1;
            });
            record.end(now, "stop");
            record.end(now, "again");
            record.tally(|tally| tally.picture(Duration::from_millis(5), 16, 16));
        }
        assert_eq!(hub.sessions().len(), ENDED_SESSIONS);
        let report = hub.report();
        assert_eq!(report.len(), 1);
        let sessions = ENDED_SESSIONS as u64 + 5;
        assert_eq!(report[0].reconnects, sessions - 1);
        assert_eq!(report[0].video.frames_decoded, Some(sessions));
        assert!(hub.reasons().is_empty());
    }

    #[test]
    fn an_ended_session_cannot_be_asked_or_followed() {
        let now = Instant::now();
        let hub = hub(now);
        let (record, mut asks) = hub.open(Profile::WowzaSe, String::new(), String::new(), now);
        assert!(hub.subscribe(record.id()).is_some());
        assert!(hub.request_key_frame(record.id()));
        assert_eq!(asks.try_recv(), Ok(Ask::KeyFrame));
        record.end(now, "gone");
        assert!(hub.subscribe(record.id()).is_none());
        assert!(!hub.request_key_frame(record.id()));
        assert!(!hub.request_key_frame(SessionId(99)));
    }
}
