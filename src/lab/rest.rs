//! The REST control planes of Wowza Video and of Qencode, by their documents: accounts, streams, states, delays, errors and
//! bills.
//!
//! Each vendor has a listener of its own (`serve`). What it says and when is pure (`account`, `wowza`, `qencode`,
//! `billing`); the `Plane` around it reads the clock, looks at the hub for what arrives, and tells the ingest server
//! of its profile through `doors` under which names one may publish now. All times of the vendors are multiplied by one
//! factor.

mod account;
mod billing;
mod doors;
mod qencode;
mod serve;
mod webhook;
mod wowza;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::secret::Secret;
use crate::media::time::MediaClock;

use super::faults::Faults;
use super::hub::Hub;
use super::now;
use super::profile::Profile;

pub use self::account::RestCall;
pub use self::billing::Bill;

pub(in crate::lab) use self::account::Input;
pub(in crate::lab) use self::doors::Doors;
pub(in crate::lab) use self::serve::serve;

use self::account::Account;
use self::account::Body;
use self::account::Call;
use self::account::Limit;
use self::account::Moment;
use self::account::Reply;
use self::account::Request;
use self::qencode::Qencode;
use self::wowza::Wowza;

/// Requests that are remembered, to be looked at.
const ASKED: usize = 1_024;
/// Webhooks that wait; more are dropped.
const CALLS: usize = 64;
/// What limits on requests are counted over.
const MINUTE: Duration = Duration::from_secs(60);

/// A vendor with a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    /// Qencode, live streaming API, version 1.
    Qencode,
    /// Wowza Video, REST API 2.0.
    Wowza,
}

/// A name that is no [`Vendor`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown vendor {0:?}: qencode or wowza")]
pub struct UnknownVendor(String);

impl Vendor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Qencode, Self::Wowza];

    /// The server that publishers of its streams meet.
    pub const fn profile(self) -> Profile {
        match self {
            Self::Qencode => Profile::Qencode,
            Self::Wowza => Profile::WowzaCloud,
        }
    }

    /// Where the root of its API is on its host.
    pub const fn root(self) -> &'static str {
        match self {
            Self::Qencode => "/v1",
            Self::Wowza => "/api/v2.0",
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qencode => "qencode",
            Self::Wowza => "wowza",
        })
    }
}

impl FromStr for Vendor {
    type Err = UnknownVendor;

    fn from_str(name: &str) -> Result<Self, UnknownVendor> {
        Self::ALL
            .into_iter()
            .find(|vendor| vendor.to_string() == name)
            .ok_or_else(|| UnknownVendor(name.to_owned()))
    }
}

/// How the control planes of a lab are set up. A vendor is there if the lab is its profile too.
#[derive(Clone, Debug, PartialEq)]
pub struct RestConfig {
    /// Ports; a vendor that is not named gets a free one.
    pub ports: BTreeMap<Vendor, u16>,
    /// The token (JWT) that Wowza takes.
    pub wowza_token: Secret,
    /// A token that Wowza takes too, of somebody who may not see the account's streams.
    pub wowza_stranger: Option<Secret>,
    /// The key that Qencode gives access tokens for.
    pub qencode_key: Secret,
    /// Names of streams that exist from the start, at both.
    pub streams: Vec<String>,
    /// Requests that are answered in any minute of the vendor's; more get 429.
    pub requests_per_minute: u32,
    /// Whether nobody can connect to an ingest server while none of its streams is started: otherwise publishers are
    /// refused in the words of the dialect.
    pub unreachable: bool,
    /// Seed of ids, names and delays.
    pub seed: u64,
    /// Factor on the vendors' times; that of the lab without it. Pings and ghosts need not run as fast as bills.
    pub time_scale: Option<f64>,
    /// What is left open at Wowza.
    pub wowza: WowzaWays,
    /// What is left open at Qencode.
    pub qencode: QencodeWays,
}

impl RestConfig {
    /// Control planes that take these credentials and are true to the documents.
    pub const fn new(wowza_token: Secret, qencode_key: Secret) -> Self {
        Self {
            ports: BTreeMap::new(),
            wowza_token,
            wowza_stranger: None,
            qencode_key,
            streams: Vec::new(),
            // Wowza's own SDK keeps to five a second.
            requests_per_minute: 300,
            unreachable: false,
            seed: 1,
            time_scale: None,
            wowza: WowzaWays::DOCUMENTED,
            qencode: QencodeWays::DOCUMENTED,
        }
    }
}

/// What Wowza's documents leave open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WowzaWays {
    /// How long a start takes, at least and at most.
    pub starting: (Duration, Duration),
    /// A stop is answered with `stopping`, as it is, not with `stopped`.
    pub stop_says_stopping: bool,
}

impl WowzaWays {
    /// As documented, or as is likely.
    pub const DOCUMENTED: Self = Self {
        starting: (Duration::from_secs(20), Duration::from_secs(60)),
        stop_says_stopping: false,
    };
}

/// What Qencode's documents leave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QencodeWays {
    /// How long an encoder boots, after which publishers can connect.
    pub boot: Duration,
    /// What changes a stream.
    pub update: UpdateVerb,
    /// What a start of a stream says that is started.
    pub again: Again,
    /// Where a stream stands in a reply.
    pub place: Place,
    /// How errors are worded.
    pub errors: Errors,
    /// How statuses are worded.
    pub words: Words,
}

impl QencodeWays {
    /// As documented, or as is likely.
    pub const DOCUMENTED: Self = Self {
        boot: Duration::from_secs(5),
        update: UpdateVerb::Patch,
        again: Again::SameUrls,
        place: Place::Top,
        errors: Errors::Message,
        words: Words::Documented,
    };
}

/// The verb that changes a stream; others are answered with 405.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateVerb {
    /// PATCH.
    Patch,
    /// POST.
    Post,
    /// PUT.
    Put,
}

/// What is said to a start of a stream that is started, and with [`Self::Conflict`] to a stop of a stopped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// An error, 409.
    Conflict,
    /// The stream, without `server_urls`.
    NoUrls,
    /// The stream, as the first time.
    SameUrls,
}

/// Where a stream, and a list of them, stands in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Under `data`.
    Data,
    /// Under `live_stream` and `live_streams`.
    LiveStream,
    /// Under `stream` and `streams`.
    Stream,
    /// It is the reply.
    Top,
}

/// How errors are worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// With an HTTP status and a `message`.
    Message,
    /// With HTTP status 200, a number under `error`, and a `message`.
    NumberIn200,
    /// With an HTTP status and plain text.
    Text,
}

/// How statuses are worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Idle, Live, Stopped.
    Documented,
    /// Others in other spellings too: `created`, `allocating_encoder`, `IDLE`, `live`, `stopped`.
    Undocumented,
}

/// A request that a control plane has answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// Milliseconds since the lab's clock began.
    pub at_ms: u64,
    /// The HTTP method.
    pub method: String,
    /// Its path without query; an API key in it is not shown.
    pub path: String,
    /// What it was for, if for anything that exists.
    pub call: Option<RestCall>,
    /// The status it was answered with; `None` if the connection was cut or left silent.
    pub status: Option<u16>,
}

/// One vendor's control plane at work.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) vendor: Vendor,
    clock: MediaClock,
    account: Mutex<Box<dyn Account>>,
    limit: Mutex<Limit>,
    asked: Mutex<VecDeque<Asked>>,
    doors: Doors,
    hub: Hub,
    faults: Faults,
    woken: Notify,
    calls: mpsc::Sender<Call>,
}

/// What a [`Plane`] needs of the lab that it is in.
pub(super) struct Surroundings {
    pub(super) hub: Hub,
    pub(super) faults: Faults,
    pub(super) clock: MediaClock,
    pub(super) time_scale: f64,
    /// The signalling of the vendor's profile, and whether it is secured.
    pub(super) signalling: SocketAddr,
    pub(super) secured: bool,
}

impl Plane {
    /// Opens the account, and tells `doors` what it decides, until `stop`.
    pub(super) fn open(
        vendor: Vendor,
        config: &RestConfig,
        doors: Doors,
        around: Surroundings,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let scheme = if around.secured { "wss" } else { "ws" };
        let base = format!("{scheme}://{}", around.signalling);
        let time_scale = config.time_scale.unwrap_or(around.time_scale);
        let chance = fastrand::Rng::with_seed(config.seed);
        let moment = moment(around.clock);
        let account: Box<dyn Account> = match vendor {
            Vendor::Qencode => {
                let mut account = Qencode::new(qencode::Opening {
                    base,
                    key: config.qencode_key.expose().to_owned(),
                    ways: config.qencode,
                    time_scale,
                    chance,
                });
                for name in &config.streams {
                    account.made_by_hand(moment, name);
                }
                Box::new(account)
            }
            Vendor::Wowza => {
                let stranger = config.wowza_stranger.as_ref();
                let mut account = Wowza::new(wowza::Opening {
                    sdp_url: format!("{base}/webrtc-session.json"),
                    token: config.wowza_token.expose().to_owned(),
                    stranger: stranger.map(|token| token.expose().to_owned()),
                    ways: config.wowza,
                    time_scale,
                    chance,
                });
                for name in &config.streams {
                    account.made_by_hand(moment, name);
                }
                Box::new(account)
            }
        };
        let minute = MINUTE.mul_f64(time_scale);
        let (calls, called) = mpsc::channel(CALLS);
        let plane = Self {
            vendor,
            clock: around.clock,
            account: Mutex::new(account),
            limit: Mutex::new(Limit::new(config.requests_per_minute, minute)),
            asked: Mutex::default(),
            doors,
            hub: around.hub,
            faults: around.faults,
            woken: Notify::new(),
            calls,
        };
        plane.with(|_, _| ());
        let plane = Arc::new(plane);
        tasks.spawn(Arc::clone(&plane).run(stop.clone()));
        tasks.spawn(webhook::deliver(called, stop.clone()));
        plane
    }

    /// Lets time pass and looks at what arrives, until `stop`.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let profile = self.vendor.profile();
        let mut changed = self.hub.changed();
        let mut stops = self.faults.rest_stops(profile);
        loop {
            let deadline = self.with(|account, now| {
                account.inputs(now, &self.hub.inputs(profile));
                account.deadline()
            });
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = due => {}
                () = self.woken.notified() => {}
                Ok(()) = changed.changed() => {}
                Ok(()) = stops.changed() => self.with(|account, now| account.stop_all(now)),
            }
        }
    }

    /// What each stream has cost so far.
    pub(super) fn bills(&self) -> Vec<Bill> {
        self.with(|account, now| account.bills(now.at))
    }

    /// From now on only this credential is good.
    pub(super) fn renew(&self, credential: &Secret) {
        self.with(|account, _| account.renew(credential.expose().to_owned()));
    }

    /// The requests so far, as far as they are kept.
    pub(super) fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).iter().cloned().collect()
    }

    /// What `request` is for.
    fn call(&self, request: &Request) -> Option<RestCall> {
        lock(&self.account).call(request)
    }

    /// Answers `request`, if there is room for one more in this minute.
    fn answer(&self, request: &Request) -> Reply {
        if let Err(wait) = lock(&self.limit).take(now()) {
            let mut reply = self.refusal(429);
            let seconds = wait.as_secs_f64().ceil().max(1.0);
            // Below a minute.
            reply.retry_after = Some(seconds as u32);
            return reply;
        }
        let reply = self.with(|account, now| account.answer(now, request));
        self.woken.notify_one();
        reply
    }

    fn refusal(&self, status: u16) -> Reply {
        lock(&self.account).refusal(status)
    }

    /// Notes a request and how it was answered.
    fn note(&self, request: &Request, call: Option<RestCall>, status: Option<u16>) {
        let path = match request.elements()[..] {
            ["access_token", _] => "/access_token/***".to_owned(),
            _ => request.path.clone(),
        };
        let at = self.clock.at(now()).since_epoch().as_millis();
        let mut asked = lock(&self.asked);
        if asked.len() == ASKED {
            asked.pop_front();
        }
        asked.push_back(Asked {
            at_ms: u64::try_from(at).unwrap_or(u64::MAX),
            method: request.method.clone(),
            path,
            call,
            status,
        });
    }

    /// Does something to the account as it is now, and lets its surroundings follow.
    fn with<T>(&self, what: impl FnOnce(&mut dyn Account, Moment) -> T) -> T {
        let now = moment(self.clock);
        let mut account = lock(&self.account);
        account.advance(now);
        let done = what(&mut **account, now);
        for call in account.calls() {
            if self.calls.try_send(call).is_err() {
                tracing::warn!(vendor = %self.vendor, "a webhook was dropped: too many wait");
            }
        }
        // Under the lock: of two changes, the later one has to be told last.
        let closed = self.doors.set(account.doors());
        drop(account);
        for name in closed {
            self.hub.end(self.vendor.profile(), &name);
        }
        done
    }
}

/// The instant on the runtime's clock, and what the wall clock shows by the process's own.
fn moment(clock: MediaClock) -> Moment {
    let at: Instant = now();
    Moment {
        at,
        wall: clock.wall(clock.at(at)),
    }
}

fn lock<T: ?Sized>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is complete in itself, so a panic elsewhere leaves nothing half done.
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
