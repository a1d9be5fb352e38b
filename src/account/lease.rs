//! One publisher's stream at its vendor: made ready before a session, looked at during it, stopped at the end.
//!
//! | vendor | the server that was handed out is good without asking |
//! |---|---|
//! | Qencode | for 110 s after media was lost (the vendor keeps the stream for 120 s), and for 60 s after a start, while its encoder may still boot |
//! | Wowza Video | for 10 s after the last look at the stream's state |
//!
//! After that the vendor is asked, and a stream that has stopped is started again. Meanwhile it is looked at now and
//! then, for a stream that somebody stopped need not be waited for. While a vendor cannot tell (out of
//! reach, in trouble, our credential refused), the last known server is tried all the same: media needs no REST.

mod release;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::watch;

pub use release::{RELEASE_WITHIN, Release};

use super::claims::Claim;
use super::hours::{is_used_up, left_of};
use super::ledger::Key;
use super::{Account, STALE_FOR};
use crate::config::platform::{Platform as Config, StreamRef, Vendor};
use crate::config::{self, Server};
use crate::net;
use crate::platform::{self, Error, Ingest, Platform, Refusal, State, Stream};

/// Longest time that a stream may take to come up (protocols.md 8.1.3).
const START_WITHIN: Duration = Duration::from_secs(300);
/// Longest time for a look at a stream whose server should still be good.
const GLANCE_WITHIN: Duration = Duration::from_secs(2);
/// Starts of one stream within an hour after which something must be wrong.
const STARTS_MAX: usize = 8;
/// Stops by others within an hour after which somebody else must want the stream.
const TAKEN_MAX: usize = 3;
/// Interval at which minutes are counted and written down while a session runs.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// The shortest such interval, near the end of the minutes of the day.
const LEAST_LEFT: Duration = Duration::from_secs(1);
/// Interval at which the vendor is asked what it sees.
const WITNESS_EVERY: Duration = Duration::from_secs(60);
/// Time on air before the vendor's witness counts; Wowza's figures are ten seconds old.
const WITNESS_AFTER: Duration = Duration::from_secs(20);
/// Time after a loss of media, and interval, at which a stream is looked at whose server should still be good.
const GLANCE_AFTER: Duration = Duration::from_secs(10);
const GLANCE_EVERY: Duration = Duration::from_secs(20);

/// The vendor's clocks.
struct Clocks {
    /// Between two looks at a stream that comes up.
    poll: Duration,
    /// How long a server is good after the stream has come up.
    after_start: Duration,
    /// How long it is good after media was lost.
    after_loss: Duration,
    /// A stream without media rests by itself after this.
    idle_stop: Duration,
}

impl Clocks {
    const fn of(vendor: &Vendor) -> Self {
        match vendor {
            Vendor::Qencode { .. } => Self {
                poll: Duration::from_secs(2),
                after_start: Duration::from_secs(60),
                after_loss: Duration::from_secs(110),
                idle_stop: Duration::from_secs(120),
            },
            Vendor::WowzaVideo { .. } => Self {
                poll: Duration::from_secs(5),
                after_start: Duration::from_secs(10),
                after_loss: Duration::ZERO,
                idle_stop: Duration::from_secs(1_200),
            },
        }
    }
}

/// Where a session may go.
#[derive(Debug)]
pub struct Ready {
    /// The server that takes the stream.
    pub server: Server,
    /// What the vendor said instead of vouching for it.
    pub doubt: Option<Error>,
}

/// What is known of a publisher's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `wowza-video` or `qencode`.
    pub vendor: &'static str,
    /// The vendor's identifier, once it is known.
    pub stream_id: Option<String>,
    /// Where it stood when it was looked at last.
    pub state: Option<State>,
    /// onair started it, and will stop it.
    pub ours: bool,
    /// The day that is counted, in the publisher's time zone.
    pub day: Date,
    /// Time that it ran on that day while it was used here: what the vendor bills, as far as onair can tell.
    pub ran: Duration,
    /// The most that it may run in a day.
    pub daily_limit: Option<Duration>,
    /// Starts that were asked for by this process.
    pub starts: u64,
    /// Whether the vendor sees our media, as its own figures say; `None` if it does not say.
    pub connected: Option<bool>,
    /// What the vendor finds wrong with our media.
    pub warnings: Vec<String>,
}

impl Status {
    /// Time that it ran on `day`.
    pub fn ran_on(&self, day: Date) -> Duration {
        if self.day == day {
            self.ran
        } else {
            Duration::ZERO
        }
    }
}

/// A start that was asked for.
#[derive(Clone, Copy)]
struct Asked {
    /// When; or when it failed in a way that leaves open whether it was heard.
    at: Instant,
    /// Whether the vendor says that it took place.
    took_place: bool,
}

/// One publisher's stream.
pub struct Lease {
    platform: Box<dyn Platform>,
    account: Account,
    config: Config,
    clocks: Clocks,
    publisher: String,
    zone: TimeZone,
    status: watch::Sender<Status>,
    /// As it was seen last.
    stream: Option<Stream>,
    /// That no other publisher here uses it.
    claim: Option<Claim>,
    /// Up to when its server is good without asking.
    good_until: Option<Instant>,
    /// When to look whether it was stopped, while its server is good.
    glance: Option<Instant>,
    /// Up to when its minutes are counted; `None` while it does not run.
    counted: Option<Instant>,
    /// When it was last known to run: asked to start, shown so, or taking our media.
    runs: Option<Instant>,
    /// When media was last accepted there, by this process.
    media: Option<Instant>,
    /// The last start that was asked for.
    asked: Option<Asked>,
    /// Until when the vendor wants no stop, and in which words.
    quiet: Option<(Instant, Error)>,
    /// Whether the witness has contradicted, so that it is said once.
    contradicted: bool,
    /// Whether the credential is refused while on air, so that it is said once.
    locked_out: bool,
}

impl Lease {
    /// The stream that `config` names, for the publisher called `name`. Nothing is asked yet. Reads certificate
    /// authorities, so it may block for some milliseconds.
    pub fn new(
        name: &str,
        config: &Config,
        publisher: &config::Publisher,
        account: &Account,
    ) -> Result<Self, net::Error> {
        let zone = publisher.time_zone.clone();
        let limit = config.daily_minutes.map(minutes);
        let (status, _) = watch::channel(Status {
            vendor: config.vendor.name(),
            stream_id: None,
            state: None,
            ours: false,
            day: zone.to_datetime(account.wall()).date(),
            ran: Duration::ZERO,
            daily_limit: limit,
            starts: 0,
            connected: None,
            warnings: Vec::new(),
        });
        Ok(Self {
            platform: platform::connect(config, publisher, account.pace())?,
            account: account.clone(),
            clocks: Clocks::of(&config.vendor),
            config: config.clone(),
            publisher: name.to_owned(),
            zone,
            status,
            stream: None,
            claim: None,
            good_until: None,
            glance: None,
            counted: None,
            runs: None,
            media: None,
            asked: None,
            quiet: None,
            contradicted: false,
            locked_out: false,
        })
    }

    /// What is known of the stream, now and as it changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Whether onair started it and has not seen it stopped since.
    pub fn is_ours(&self) -> bool {
        self.held().is_some()
    }

    /// The stream that has to be given back: before the first look at it, as the ledger knows it from a former onair.
    fn held(&self) -> Option<Key> {
        let vendor = self.config.vendor.name();
        self.account
            .read(|ledger| match self.key() {
                Some(key) => ledger.is_ours(&key).then_some(key),
                None => (ledger.held(&self.publisher, vendor, &api(&self.config))).cloned(),
            })
            // Another publisher may have gone on with what was this one's.
            .filter(|key| !self.account.shared.claims.is_anothers(key, &self.publisher))
    }

    /// Claims the stream for this publisher.
    fn claim(&mut self, stream: &Stream) -> Result<(), Error> {
        let key = self.key_of(stream);
        if self.claim.as_ref().is_some_and(|claim| claim.is_of(&key)) {
            return Ok(());
        }
        self.claim = None;
        let claimed = self.account.shared.claims.claim(&key, &self.publisher);
        self.claim = Some(claimed.map_err(|publisher| Error::InUse {
            vendor: self.config.vendor.name(),
            publisher,
        })?);
        Ok(())
    }

    /// Makes the stream ready and says where it takes media. Bounded by some minutes; may be dropped at any time, for
    /// what was asked for is written down.
    pub async fn ready(&mut self) -> Result<Ready, Error> {
        self.count().await;
        let known = self
            .stream
            .as_ref()
            .and_then(|stream| match &stream.ingest {
                Ingest::At(server) if stream.state.takes_media() => Some(server.clone()),
                Ingest::At(_) | Ingest::Foreign(_) | Ingest::Unsaid => None,
            });
        if let Some(server) = &known
            && self.good_until.is_some_and(|until| now() < until)
            && !self.was_stopped().await
        {
            self.within_limit()?;
            return Ok(Ready {
                server: server.clone(),
                doubt: None,
            });
        }
        match (self.bring_up().await, known) {
            (Ok(server), _) => {
                let good_for = self.account.scaled(self.clocks.after_start);
                self.good_until = Some(now() + good_for);
                self.glance = None;
                Ok(Ready {
                    server,
                    doubt: None,
                })
            }
            (Err(error), Some(server)) if cannot_tell(&error) => {
                tracing::warn!("trying the last known server, for {error}");
                Ok(Ready {
                    server,
                    doubt: Some(error),
                })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Takes note of the end of a session, and whether media was accepted in it.
    pub fn session_ended(&mut self, was_on_air: bool) {
        let now = now();
        if was_on_air {
            self.media = Some(now);
            self.runs = self.media;
            let good_for = self.account.scaled(self.clocks.after_loss);
            self.good_until = Some(now + good_for);
            self.glance = Some(now + self.account.scaled(GLANCE_AFTER));
        }
        self.status.send_modify(|status| {
            status.connected = None;
            status.warnings.clear();
        });
    }

    /// Counts minutes and asks for the vendor's witness while a session runs; never ends. May be dropped at any time.
    pub async fn attend(&mut self, on_air_for: impl Fn() -> Option<Duration> + Send) -> Infallible {
        let every = self.account.scaled(COUNT_EVERY);
        let witness_every = self.account.scaled(WITNESS_EVERY);
        let mut witnessed: Option<Instant> = None;
        loop {
            let left = self.left_today().unwrap_or(every);
            tokio::time::sleep(every.min(left)).await;
            self.count().await;
            let settled = self.account.scaled(WITNESS_AFTER);
            if on_air_for().is_none_or(|time| time < settled) {
                continue;
            }
            self.media = Some(now());
            self.runs = self.media;
            if witnessed.is_none_or(|at| now().saturating_duration_since(at) >= witness_every) {
                witnessed = Some(now());
                self.witness().await;
            }
        }
    }

    /// Asks until the stream takes media, starting it where it rests.
    async fn bring_up(&mut self) -> Result<Server, Error> {
        let mut stream = self.look().await?;
        self.claim(&stream)?;
        let deadline = now() + self.account.scaled(START_WITHIN);
        let mut asked: Option<Instant> = None;
        loop {
            if asked.is_none() {
                self.seen(&stream).await;
            } else {
                self.know(&stream);
            }
            self.within_limit()?;
            let since_start = asked.map(|at| now().saturating_duration_since(at));
            let stale = since_start.is_some_and(|time| time < self.account.scaled(STALE_FOR));
            match (&stream.state, &stream.ingest) {
                (_, Ingest::Foreign(encoder)) => {
                    return Err(Error::NotWebrtc {
                        vendor: self.config.vendor.name(),
                        encoder: encoder.clone(),
                    });
                }
                (State::Live | State::Ready, Ingest::At(server)) => return Ok(server.clone()),
                // It says where, under a name for its state that is not known here.
                (State::Other(_), Ingest::At(server)) if asked.is_some() && self.is_qencode() => {
                    return Ok(server.clone());
                }
                // It runs, but does not say where: a start of a started stream may.
                (State::Live | State::Ready | State::Other(_) | State::Stopped, _)
                    if asked.is_none() =>
                {
                    asked = Some(now());
                    stream = self.start(&stream).await?;
                    // A start that says all is answered at once; nothing is known of it before the next look.
                    continue;
                }
                (State::Stopped, _) if !stale => {
                    self.seen(&stream).await;
                    return Err(self.not_up(&stream, since_start));
                }
                (
                    State::Live
                    | State::Ready
                    | State::Other(_)
                    | State::Starting
                    | State::Stopped
                    | State::Stopping,
                    _,
                ) => {}
            }
            if now() >= deadline {
                return Err(self.not_up(&stream, since_start));
            }
            tokio::time::sleep(self.account.scaled(self.clocks.poll)).await;
            self.count().await;
            stream = self.platform.refresh(&stream).await?;
        }
    }

    const fn is_qencode(&self) -> bool {
        matches!(self.config.vendor, Vendor::Qencode { .. })
    }

    /// Whether a look at a stream whose server should still be good shows that it was stopped; looks are far between.
    async fn was_stopped(&mut self) -> bool {
        let (Some(due), Some(stream)) = (self.glance, self.stream.clone()) else {
            return false;
        };
        if now() < due {
            return false;
        }
        self.glance = Some(now() + self.account.scaled(GLANCE_EVERY));
        // The URL is good all the while, so a slow answer must not keep us from it.
        let shown = tokio::time::timeout(GLANCE_WITHIN, self.platform.refresh(&stream)).await;
        shown.is_ok_and(|shown| shown.is_ok_and(|shown| shown.state == State::Stopped))
    }

    fn not_up(&self, stream: &Stream, since_start: Option<Duration>) -> Error {
        Error::StartTimeout {
            vendor: self.config.vendor.name(),
            state: stream.state.to_string(),
            after: since_start.unwrap_or(START_WITHIN),
        }
    }

    /// The stream as the vendor shows it now; made if there is none and the configuration says how.
    async fn look(&mut self) -> Result<Stream, Error> {
        if let Some(known) = &self.stream {
            match self.platform.refresh(known).await {
                Err(error) if error.is_gone() => {
                    let key = self.key();
                    self.stream = None;
                    if let Some(key) = key {
                        self.rests(&key, State::Stopped, false).await;
                    }
                }
                got => return got,
            }
        }
        let (creates, name) = match (&self.config.vendor, &self.config.stream) {
            (Vendor::WowzaVideo { create, .. }, StreamRef::Name(name)) => {
                (create.is_some(), name.clone())
            }
            (Vendor::Qencode { .. } | Vendor::WowzaVideo { .. }, _) => (false, String::new()),
        };
        match platform::find(self.platform.as_mut(), &self.config.stream).await {
            Err(error) if error.is_gone() && creates => {
                let made = self.platform.create(&name).await?;
                tracing::info!(
                    "there was no stream {name:?}; it is made, with the id {}",
                    made.id
                );
                Ok(made)
            }
            got => got,
        }
    }

    /// Starts the stream, once it is written down that it will be.
    async fn start(&mut self, stream: &Stream) -> Result<Stream, Error> {
        let key = self.key_of(stream);
        let wall = self.account.wall();
        let (starts, stops) = self.account.read(|ledger| ledger.series(&key, wall));
        if starts >= STARTS_MAX || stops >= TAKEN_MAX {
            return Err(Error::StartsTooOften { starts, stops });
        }
        let runs = stream.state.takes_media();
        if !runs {
            let publisher = self.publisher.clone();
            self.account
                .write(|ledger| ledger.asking(&key, &publisher, wall))
                .await;
            self.status.send_modify(|status| {
                status.ours = true;
                status.starts += 1;
            });
            self.counted = Some(now());
            self.runs = self.counted;
            self.asked(false);
            tracing::info!("starting the stream at {}", key.vendor);
        }
        match self.platform.start(stream).await {
            Ok(started) => {
                if !runs {
                    self.asked(true);
                    self.account.change(|ledger| ledger.came_up(&key));
                }
                Ok(started)
            }
            Err(error) => {
                // Where the vendor may have heard it all the same, it stays written down.
                let surely_not = !matches!(
                    error.refusal(),
                    None | Some(Refusal::Trouble | Refusal::Unexpected)
                );
                if surely_not && !runs {
                    self.account.write(|ledger| ledger.not_started(&key)).await;
                    self.status.send_modify(|status| status.ours = false);
                    self.counted = None;
                    self.asked = None;
                } else if !runs {
                    self.asked(false);
                    let wall = self.account.wall();
                    // A vendor in trouble is not one that others fight us for.
                    self.account
                        .write(|ledger| ledger.start_in_doubt(&key, wall))
                        .await;
                }
                Err(error)
            }
        }
    }

    fn asked(&mut self, took_place: bool) {
        self.asked = Some(Asked {
            at: now(),
            took_place,
        });
    }

    /// Takes note of a stream as it was found, before anything was asked for.
    async fn seen(&mut self, stream: &Stream) {
        let key = self.key_of(stream);
        let was_ours = self.account.read(|ledger| ledger.is_ours(&key));
        if stream.state == State::Stopped {
            if was_ours && !self.may_come_up(&key) {
                let idle_stop = self.account.scaled(self.clocks.idle_stop).mul_f64(0.8);
                let taken =
                    (self.media).is_some_and(|at| now().saturating_duration_since(at) < idle_stop);
                if taken {
                    tracing::warn!("somebody else stopped the stream that onair had started");
                }
                // Once for each time that media flowed: what fails after that is no new stop by others.
                self.media = None;
                if self.counted.is_none() {
                    let (wall, zone) = (self.account.wall(), self.zone.clone());
                    let most = self.clocks.idle_stop;
                    self.account
                        .change(|ledger| ledger.lapsed(&key, most, wall, &zone));
                }
                self.rests(&key, State::Stopped, taken).await;
            }
            self.counted = None;
        } else if self.counted.is_none() {
            if self.stream.is_none() && was_ours {
                tracing::info!("the stream runs, which onair had started; going on with it");
            } else if stream.state == State::Stopping {
                tracing::info!("the stream is just stopping; it is started again once it rests");
            } else if !was_ours && stream.state.is_charged() {
                tracing::info!(
                    "the stream runs already; onair did not start it and will not stop it"
                );
            }
            let (publisher, wall) = (self.publisher.clone(), self.account.wall());
            let zone = self.zone.clone();
            self.account
                .write(|ledger| ledger.adopted(&key, &publisher, wall, &zone))
                .await;
            self.counted = Some(now());
        }
        self.know(stream);
    }

    async fn rests(&mut self, key: &Key, state: State, taken: bool) {
        let wall = self.account.wall();
        self.account
            .write(|ledger| ledger.stopped(key, taken, wall))
            .await;
        self.counted = None;
        self.asked = None;
        if let Some(stream) = &mut self.stream {
            stream.state = state.clone();
        }
        self.status.send_modify(|status| {
            status.ours = false;
            status.state = Some(state);
        });
    }

    fn know(&mut self, stream: &Stream) {
        self.stream = Some(stream.clone());
        if stream.state.is_charged() {
            self.runs = Some(now());
        }
        let key = self.key_of(stream);
        if matches!(stream.state, State::Live | State::Ready | State::Starting) {
            if let Some(asked) = &mut self.asked {
                asked.took_place = true;
            }
            self.account.change(|ledger| ledger.came_up(&key));
        }
        let day = self.today();
        let (ours, ran) =
            (self.account).read(|ledger| (ledger.is_ours(&key), ledger.ran_on(&key, day)));
        self.status.send_if_modified(|status| {
            let before = status.clone();
            status.stream_id = Some(stream.id.clone());
            status.state = Some(stream.state.clone());
            status.ours = ours;
            (status.day, status.ran) = (day, ran);
            *status != before
        });
    }

    /// Adds the time since the last count, if the stream runs, and writes it down. What the vendor would have stopped
    /// meanwhile is not taken to run on, unless it is seen to.
    async fn count(&mut self) {
        let (Some(since), Some(key)) = (self.counted, self.key()) else {
            return;
        };
        let now = now();
        let idle_stop = self.account.scaled(self.clocks.idle_stop);
        let until = self.runs.map_or(now, |seen| now.min(seen + idle_stop));
        let time = until.saturating_duration_since(since) * self.account.shared.speed;
        if time.is_zero() {
            return;
        }
        self.counted = Some(until);
        let ago = SignedDuration::try_from(now - until).unwrap_or_default();
        let wall = self.account.wall();
        let (end, day) = (wall.checked_sub(ago).unwrap_or(wall), self.today());
        let zone = self.zone.clone();
        self.account
            .write(|ledger| ledger.ran(&key, time, end, &zone))
            .await;
        let ran = self.account.read(|ledger| ledger.ran_on(&key, day));
        self.status
            .send_modify(|status| (status.day, status.ran) = (day, ran));
    }

    async fn witness(&mut self) {
        let Some(stream) = self.stream.clone() else {
            return;
        };
        // Whatever a vendor cannot say now it may say in a minute; media does not wait for it.
        match self.platform.refresh(&stream).await {
            Ok(shown) => {
                self.locked_out = false;
                self.seen(&shown).await;
            }
            Err(error)
                if matches!(
                    error.refusal(),
                    Some(Refusal::Credential | Refusal::Forbidden)
                ) && !self.locked_out =>
            {
                self.locked_out = true;
                tracing::error!(
                    "{error}. Media goes on, but until then onair can neither stop the stream nor start it again"
                );
            }
            Err(error) => tracing::debug!("no state of the stream: {error}"),
        }
        let seen = match self.platform.witness(&stream.id).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!("no witness of the stream: {error}");
                return;
            }
        };
        let contradicts = seen.connected == Some(false);
        if contradicts && !self.contradicted {
            tracing::warn!(
                "the server accepts our media, but {} says that no source is connected; \
                 look whether the stream's viewers see it",
                self.config.vendor.name()
            );
        }
        self.contradicted = contradicts;
        self.status.send_modify(|status| {
            status.connected = seen.connected;
            status.warnings = seen.warnings;
        });
    }

    fn within_limit(&self) -> Result<(), Error> {
        let Some(limit_minutes) = self.config.daily_minutes else {
            return Ok(());
        };
        let ran = self.status.borrow().ran_on(self.today());
        match is_used_up(ran, minutes(limit_minutes)) {
            true => Err(Error::DailyLimit {
                ran_minutes: (ran.as_secs() + 30) / 60,
                limit_minutes,
            }),
            false => Ok(()),
        }
    }

    /// How long it may go on today, as long as that takes here; with a limit only. Never quite nothing, for whoever
    /// waits for it.
    fn left_today(&self) -> Option<Duration> {
        let limit = minutes(self.config.daily_minutes?);
        let uncounted = self.counted.map_or(Duration::ZERO, |since| {
            now().saturating_duration_since(since) * self.account.shared.speed
        });
        let ran = self.status.borrow().ran_on(self.today());
        let left = left_of(ran.saturating_add(uncounted), limit);
        Some(self.account.scaled(left.max(LEAST_LEFT)))
    }

    fn today(&self) -> Date {
        self.zone.to_datetime(self.account.wall()).date()
    }

    fn key(&self) -> Option<Key> {
        self.stream.as_ref().map(|stream| self.key_of(stream))
    }

    fn key_of(&self, stream: &Stream) -> Key {
        key(&self.config, &stream.id)
    }
}

fn minutes(n: u32) -> Duration {
    Duration::from_secs(60 * u64::from(n))
}

/// The ledger's word for a stream of `config` with the identifier `id`.
pub(super) fn key(config: &Config, id: &str) -> Key {
    Key {
        vendor: config.vendor.name().to_owned(),
        api: api(config),
        id: id.to_owned(),
    }
}

fn api(config: &Config) -> String {
    net::masked(config.api.expose())
}

/// Whether an error says nothing about the stream itself.
pub(super) const fn cannot_tell(error: &Error) -> bool {
    matches!(error, Error::Connect { .. } | Error::Reply { .. })
        || matches!(
            error.refusal(),
            Some(
                Refusal::Credential
                    | Refusal::Forbidden
                    | Refusal::TooOften
                    | Refusal::Trouble
                    | Refusal::Unexpected
            )
        )
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
