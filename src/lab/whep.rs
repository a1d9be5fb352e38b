//! WHEP viewers: a browser asks for a session's media and gets it live, as it was received.
//!
//! Nothing is encoded anew, so the page shows the publisher's own pictures. A viewer is a guest: it lags, it
//! loses media and waits for the next key frame, but never holds up the session it watches. The number of
//! viewers, the media that waits for one and the size of an offer are bounded; a viewer that falls silent is
//! dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use str0m::Candidate;
use str0m::Event;
use str0m::IceConnectionState;
use str0m::Input;
use str0m::Output;
use str0m::Rtc;
use str0m::RtcError;
use str0m::change::SdpOffer;
use str0m::format::Codec;
use str0m::format::PayloadParams;
use str0m::media::Frequency;
use str0m::media::MediaTime;
use str0m::media::Mid;
use str0m::media::Pt;
use str0m::net::Protocol;
use str0m::net::Receive;
use tokio::net::UdpSocket;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::media::access_unit::Track;

use super::hub::Hub;
use super::hub::Received;
use super::hub::SessionId;

/// Viewers at once, over all sessions: a person's browser tabs, not an audience.
const VIEWERS: usize = 8;
/// A viewer from whom nothing was heard for so long is gone; a browser checks consent every few seconds.
const SILENCE: Duration = Duration::from_secs(15);
/// Between two requests for a key frame on behalf of one viewer.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(500);
/// Larger than any datagram a browser sends.
const DATAGRAM_BYTES: usize = 2048;

/// Why an offer was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// The offer cannot be read, or has nothing that the lab could send.
    #[error("the offer cannot be answered: {0}")]
    Offer(String),
    /// Every place is taken.
    #[error("{VIEWERS} viewers are connected already")]
    Full,
    /// No socket could be opened.
    #[error("no socket for the media: {0}")]
    Socket(#[from] std::io::Error),
    /// No such session, or it is over.
    #[error("no such session is running")]
    UnknownSession,
}

/// A viewer that was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its number, for [`Viewers::leave`].
    pub(super) viewer: u64,
    /// The answer to its offer.
    pub(super) answer: String,
}

/// All viewers of a lab. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Viewers {
    hub: Hub,
    media_ip: IpAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
    places: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    last: u64,
    taken: HashMap<u64, (SessionId, CancellationToken)>,
}

/// A place among the viewers; given back when dropped.
#[derive(Debug)]
struct Place {
    viewers: Viewers,
    viewer: u64,
    leave: CancellationToken,
}

impl Viewers {
    /// No viewers yet. They will receive from a UDP port on `media_ip`, and end when `stop` is cancelled.
    pub(super) fn new(
        hub: Hub,
        media_ip: IpAddr,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            hub,
            media_ip,
            tasks,
            stop,
            places: Arc::default(),
        }
    }

    /// Answers the offer of a browser that wants to see `session`, and serves it until it leaves.
    pub(super) async fn admit(&self, session: SessionId, offer: &str) -> Result<Admitted, Refused> {
        let media = self.hub.subscribe(session).ok_or(Refused::UnknownSession)?;
        let place = self.place(session)?;
        let socket = UdpSocket::bind((self.media_ip, 0)).await?;
        let (viewer, answer) = Viewer::new(self.hub.clone(), session, socket, offer)?;
        let number = place.viewer;
        self.tasks.spawn(async move {
            if let Err(error) = Box::pin(viewer.serve(media, &place.leave)).await {
                tracing::debug!(viewer = place.viewer, %session, %error, "viewer lost");
            }
        });
        Ok(Admitted {
            viewer: number,
            answer,
        })
    }

    /// Sends a viewer of `session` away; `false` if there is none of that number.
    pub(super) fn leave(&self, session: SessionId, viewer: u64) -> bool {
        match self.lock().taken.get(&viewer) {
            Some((watched, leave)) if *watched == session => {
                leave.cancel();
                true
            }
            _ => false,
        }
    }

    fn place(&self, session: SessionId) -> Result<Place, Refused> {
        let leave = self.stop.child_token();
        let mut places = self.lock();
        if places.taken.len() >= VIEWERS {
            return Err(Refused::Full);
        }
        places.last += 1;
        let viewer = places.last;
        places.taken.insert(viewer, (session, leave.clone()));
        drop(places);
        Ok(Place {
            viewers: self.clone(),
            viewer,
            leave,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.viewers.lock().taken.remove(&self.viewer);
    }
}

/// One track on its way to a viewer.
#[derive(Debug)]
struct Line {
    mid: Mid,
    pt: Pt,
    clock: Frequency,
    last: Option<u64>,
}

impl Line {
    /// The wire's 32-bit timestamp without its wraps.
    fn unwrapped(&mut self, rtp_time: u32) -> u64 {
        let time = match self.last {
            // Started high enough for a first step back to stay above zero.
            None => (1 << 32) | u64::from(rtp_time),
            Some(last) => {
                let step = rtp_time.wrapping_sub(last as u32).cast_signed();
                last.saturating_add_signed(i64::from(step))
            }
        };
        self.last = Some(time);
        time
    }
}

/// One browser that watches.
struct Viewer {
    hub: Hub,
    session: SessionId,
    socket: UdpSocket,
    local: SocketAddr,
    rtc: Rtc,
    audio: Option<Line>,
    video: Option<Line>,
    connected: bool,
    /// Pictures are useless to it until the next key frame.
    needs_key_frame: bool,
    asked: Option<Instant>,
    heard: Instant,
}

impl Viewer {
    fn new(
        hub: Hub,
        session: SessionId,
        socket: UdpSocket,
        offer: &str,
    ) -> Result<(Self, String), Refused> {
        let unusable = |error: &dyn std::fmt::Display| Refused::Offer(error.to_string());
        let now = now();
        let local = socket.local_addr()?;
        let mut rtc = Rtc::builder()
            .set_ice_lite(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_h264(true)
            .build(now);
        let candidate = Candidate::host(local, "udp").map_err(|error| unusable(&error))?;
        rtc.add_local_candidate(candidate);
        // The browser finds us, never the reverse, so its candidates (often names under .local) are not wanted.
        let offer: String = offer
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("a=candidate:"))
            .collect();
        let offer = SdpOffer::from_sdp_string(&offer).map_err(|error| unusable(&error))?;
        let answer = rtc
            .sdp_api()
            .accept_offer(offer)
            .map_err(|error| unusable(&error))?;
        let mut viewer = Self {
            hub,
            session,
            socket,
            local,
            rtc,
            audio: None,
            video: None,
            connected: false,
            needs_key_frame: true,
            asked: None,
            heard: now,
        };
        for media in &answer.media_lines {
            viewer.add_line(media.mid());
        }
        if viewer.video.is_none() {
            return Err(Refused::Offer("it takes no H.264".to_owned()));
        }
        Ok((viewer, answer.to_sdp_string()))
    }

    /// Carries media to the browser until it leaves, falls silent, or the session ends.
    async fn serve(
        mut self,
        mut media: broadcast::Receiver<Received>,
        leave: &CancellationToken,
    ) -> Result<(), RtcError> {
        let mut datagram = vec![0; DATAGRAM_BYTES];
        let mut look = tokio::time::interval(KEY_FRAME_EVERY);
        while self.rtc.is_alive() {
            let wake = self.flush().await?;
            tokio::select! {
                () = leave.cancelled() => break,
                received = self.socket.recv_from(&mut datagram) => {
                    // An error here tells of an earlier datagram that nobody took; silence is judged below.
                    if let Ok((length, source)) = received {
                        self.hear(source, &datagram[..length])?;
                    }
                }
                received = media.recv() => match received {
                    Ok(received) => self.write(&received)?,
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        tracing::debug!(session = %self.session, lost, "viewer too slow");
                        self.needs_key_frame = true;
                    }
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                () = tokio::time::sleep_until(wake.into()) => {
                    self.rtc.handle_input(Input::Timeout(now()))?;
                }
                _ = look.tick() => {
                    let now = now();
                    let silent = now.saturating_duration_since(self.heard) > SILENCE;
                    if silent || self.hub.subscribe(self.session).is_none() {
                        break;
                    }
                    if self.connected && self.needs_key_frame {
                        self.ask_for_key_frame(now);
                    }
                }
            }
        }
        self.rtc.close()?;
        self.flush().await?;
        Ok(())
    }

    /// Sends what is due; returns when to look again.
    async fn flush(&mut self) -> Result<Instant, RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(packet) => {
                    // What cannot be sent is lost, as anywhere on a network; silence is judged by the caller.
                    drop(
                        self.socket
                            .send_to(&packet.contents, packet.destination)
                            .await,
                    );
                }
                Output::Event(event) => self.react(&event),
            }
            if !self.rtc.is_alive() {
                return Ok(now());
            }
        }
    }

    fn hear(&mut self, source: SocketAddr, datagram: &[u8]) -> Result<(), RtcError> {
        let Ok(contents) = datagram.try_into() else {
            return Ok(());
        };
        let now = now();
        let input = Input::Receive(
            now,
            Receive {
                proto: Protocol::Udp,
                source,
                destination: self.local,
                contents,
            },
        );
        if self.rtc.accepts(&input) {
            self.heard = now;
            self.rtc.handle_input(input)?;
        }
        Ok(())
    }

    fn react(&mut self, event: &Event) {
        if matches!(event, Event::Connected) {
            self.connected = true;
        }
        if matches!(event, Event::Connected | Event::KeyframeRequest(_)) {
            self.ask_for_key_frame(now());
        }
        let lost = IceConnectionState::Disconnected;
        if matches!(event, Event::IceConnectionStateChange(state) if *state == lost) {
            self.rtc.disconnect();
        }
    }

    fn add_line(&mut self, mid: Mid) {
        let Some(writer) = self.rtc.writer(mid) else {
            return;
        };
        let mut usable: Vec<&PayloadParams> = writer
            .payload_params()
            .filter(|params| carries(params).is_some())
            .collect();
        // Any H.264 decoder of a browser takes any of its profiles; constrained baseline is the nearest.
        usable.sort_by_key(|params| params.spec().format.profile_level_id != Some(0x42_e01f));
        let Some(params) = usable.first() else {
            return;
        };
        let line = Line {
            mid,
            pt: params.pt(),
            clock: params.spec().clock_rate,
            last: None,
        };
        match carries(params) {
            Some(Track::Audio) => self.audio = Some(line),
            Some(Track::Video) => self.video = Some(line),
            None => {}
        }
    }

    fn write(&mut self, received: &Received) -> Result<(), RtcError> {
        if !self.connected {
            return Ok(());
        }
        let line = match received.track {
            Track::Audio => self.audio.as_mut(),
            Track::Video if self.needs_key_frame && !received.key => None,
            Track::Video => {
                self.needs_key_frame = false;
                self.video.as_mut()
            }
        };
        let Some(line) = line else { return Ok(()) };
        let time = MediaTime::new(line.unwrapped(received.rtp_time), line.clock);
        match self.rtc.writer(line.mid) {
            Some(writer) => writer.write(line.pt, now(), time, received.data.as_ref()),
            None => Ok(()),
        }
    }

    fn ask_for_key_frame(&mut self, now: Instant) {
        let soon = self
            .asked
            .is_some_and(|asked| now.saturating_duration_since(asked) < KEY_FRAME_EVERY);
        if !soon && self.hub.request_key_frame(self.session) {
            self.asked = Some(now);
        }
    }
}

/// The track that a payload type can carry.
fn carries(params: &PayloadParams) -> Option<Track> {
    let spec = params.spec();
    if spec.codec == Codec::Opus {
        Some(Track::Audio)
    } else if spec.codec == Codec::H264 && spec.format.packetization_mode == Some(1) {
        Some(Track::Video)
    } else {
        None
    }
}

/// The clock that tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::SystemTime;

    use bytes::Bytes;
    use str0m::change::SdpAnswer;
    use str0m::media::Direction;
    use str0m::media::MediaKind;
    use tokio::sync::mpsc;

    use crate::lab::hub::Ask;
    use crate::lab::hub::Record;
    use crate::lab::profile::Profile;
    use crate::media::time::MediaClock;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn session() -> (Hub, Record, mpsc::Receiver<Ask>) {
        let hub = Hub::new(MediaClock::new(now(), SystemTime::UNIX_EPOCH));
        let (record, asks) = hub.open(Profile::Qencode, String::new(), String::new(), now());
        (hub, record, asks)
    }

    fn viewers(hub: &Hub) -> Viewers {
        Viewers::new(
            hub.clone(),
            Ipv4Addr::LOCALHOST.into(),
            TaskTracker::new(),
            CancellationToken::new(),
        )
    }

    /// A browser's part, by the engine in its other role.
    struct Browser {
        rtc: Rtc,
        socket: UdpSocket,
        events: Vec<Event>,
    }

    impl Browser {
        async fn watch(viewers: &Viewers, session: SessionId) -> Result<(Self, u64), Refused> {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let mut rtc = Rtc::builder().build(now());
            let local = socket.local_addr()?;
            rtc.add_local_candidate(Candidate::host(local, "udp").expect("a plain address"));
            let mut change = rtc.sdp_api();
            change.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
            change.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
            let (offer, pending) = change.apply().expect("media was added");
            // A candidate as Chromium writes it, which nobody can resolve.
            let hidden =
                "a=candidate:1 1 udp 2113937151 0e1b-mdns.local 50000 typ host generation 0\r\n";
            let offer = offer.to_sdp_string() + hidden;
            let admitted = viewers.admit(session, &offer).await?;
            let answer = SdpAnswer::from_sdp_string(&admitted.answer).expect("an answer");
            rtc.sdp_api()
                .accept_answer(pending, answer)
                .expect("an answer to this offer");
            let browser = Self {
                rtc,
                socket,
                events: Vec::new(),
            };
            Ok((browser, admitted.viewer))
        }

        /// Runs until `done` says so of an event; the deadline fails the test.
        async fn until(&mut self, mut done: impl FnMut(&Event) -> bool) {
            let deadline = tokio::time::Instant::now() + DEADLINE;
            let mut datagram = vec![0; DATAGRAM_BYTES];
            let local = self.socket.local_addr().expect("bound");
            loop {
                let wake = match self.rtc.poll_output().expect("a healthy engine") {
                    Output::Timeout(at) => at,
                    Output::Transmit(packet) => {
                        drop(
                            self.socket
                                .send_to(&packet.contents, packet.destination)
                                .await,
                        );
                        continue;
                    }
                    Output::Event(event) => {
                        let found = done(&event);
                        self.events.push(event);
                        if found {
                            return;
                        }
                        continue;
                    }
                };
                tokio::select! {
                    received = self.socket.recv_from(&mut datagram) => {
                        let (length, source) = received.expect("loopback");
                        let Ok(contents) = datagram[..length].try_into() else { continue };
                        let receive = Receive { proto: Protocol::Udp, source, destination: local, contents };
                        self.rtc.handle_input(Input::Receive(now(), receive)).expect("accepted");
                    }
                    () = tokio::time::sleep_until(wake.into()) => {
                        self.rtc.handle_input(Input::Timeout(now())).expect("accepted");
                    }
                    () = tokio::time::sleep_until(deadline) => {
                        panic!("nothing of the kind within {DEADLINE:?}; seen: {:?}", self.events);
                    }
                }
            }
        }
    }

    async fn asked(asks: &mut mpsc::Receiver<Ask>) -> Ask {
        tokio::time::timeout(DEADLINE, asks.recv())
            .await
            .expect("an ask in time")
            .expect("a hub")
    }

    async fn all_gone(viewers: &Viewers) {
        tokio::time::timeout(DEADLINE, async {
            while !viewers.lock().taken.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("places given back in time");
    }

    fn picture(rtp_time: u32, key: bool, fill: u8) -> Received {
        let nal: &[u8] = if key { &[0x65] } else { &[0x41] };
        let mut data = Vec::new();
        if key {
            data.extend([
                0, 0, 0, 1, 0x67, 0x42, 0xE0, 0x1F, 0xA0, 0, 0, 0, 1, 0x68, 0xCE,
            ]);
        }
        data.extend([0, 0, 0, 1]);
        data.extend(nal);
        data.resize(data.len() + 5_000, fill);
        Received {
            track: Track::Video,
            rtp_time,
            key,
            data: Bytes::from(data),
        }
    }

    #[tokio::test]
    async fn a_viewer_gets_the_media_as_it_came_from_a_key_frame_on() {
        let (hub, record, mut asks) = session();
        let viewers = viewers(&hub);
        let (mut browser, viewer) = Browser::watch(&viewers, record.id()).await.expect("room");
        browser
            .until(|event| matches!(event, Event::Connected))
            .await;
        let mut watched = Box::pin(async {
            assert_eq!(asked(&mut asks).await, Ask::KeyFrame);
        });
        // The ask needs the browser's last handshake message on its way.
        tokio::select! {
            () = &mut watched => {}
            () = browser.until(|_| false) => {}
        }
        drop(watched);

        let (stale, key, next) = (
            picture(u32::MAX - 2_999, false, 1),
            picture(u32::MAX - 100, true, 2),
            picture(2_899, false, 3),
        );
        let sound = Received {
            track: Track::Audio,
            rtp_time: 960,
            key: true,
            data: Bytes::from_static(&[0xFC, 1, 2, 3]),
        };
        for received in [&stale, &sound, &key, &next] {
            record.media(received.clone());
        }
        let mut pictures = Vec::new();
        let mut sounds = Vec::new();
        browser
            .until(|event| {
                if let Event::MediaData(data) = event {
                    if data.params.spec().codec == Codec::H264 {
                        pictures.push((data.time.numer(), data.data.to_vec()));
                    } else {
                        sounds.push(data.data.to_vec());
                    }
                }
                pictures.len() == 2 && sounds.len() == 1
            })
            .await;
        assert_eq!(pictures[0].1, key.data);
        assert_eq!(pictures[1].1, next.data);
        assert_eq!(pictures[1].0 - pictures[0].0, 3_000, "across the wrap");
        assert_eq!(sounds[0], sound.data);

        assert!(!viewers.leave(SessionId(99), viewer));
        assert!(viewers.leave(record.id(), viewer));
        all_gone(&viewers).await;
    }

    #[tokio::test]
    async fn viewers_are_bounded_and_end_with_the_session() {
        let (hub, record, _asks) = session();
        let viewers = viewers(&hub);
        for _ in 0..VIEWERS {
            Browser::watch(&viewers, record.id()).await.expect("room");
        }
        let refused = Browser::watch(&viewers, record.id()).await.map(|_| ());
        assert!(matches!(refused, Err(Refused::Full)), "{refused:?}");
        record.end(now(), "test");
        all_gone(&viewers).await;
        let refused = Browser::watch(&viewers, record.id()).await.map(|_| ());
        assert!(
            matches!(refused, Err(Refused::UnknownSession)),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn an_offer_that_cannot_be_served_leaves_no_viewer() {
        let (hub, record, _asks) = session();
        let viewers = viewers(&hub);
        let mut vp8 = Rtc::builder().clear_codecs().enable_vp8(true).build(now());
        let mut change = vp8.sdp_api();
        change.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let (vp8, _) = change.apply().expect("media was added");
        for offer in ["", "v=0\r\n", "garbage", &vp8.to_sdp_string()] {
            let refused = viewers.admit(record.id(), offer).await.map(|_| ());
            assert!(matches!(refused, Err(Refused::Offer(_))), "{refused:?}");
        }
        assert!(viewers.lock().taken.is_empty());
    }
}
