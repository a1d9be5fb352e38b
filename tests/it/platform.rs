//! The whole life at both vendors, against the lab's control planes whose clocks run twenty times as fast: made,
//! started, published, dropped, resumed, lapsed, stopped, crashed, adopted; hours, minutes and credentials.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use onair::account::{self, Account, Release, Wall, Why};
use onair::config::platform::{Create, OnExit, Platform, StreamRef, Vendor};
use onair::config::schedule::Schedule;
use onair::config::secret::{Bearer, Secret, SecretSource};
use onair::config::{Publisher as Config, Server, WowzaDialect};
use onair::feed::Feed;
use onair::lab::rest::Bill;
use onair::lab::{Fault, Lab, LabConfig, Profile, RestCall, RestConfig, RestFault};
use onair::media::time::MediaClock;
use onair::network::Network;
use onair::platform::Pace;
use onair::publisher::{Cause, Publisher, Snapshot, State, Verdict};
use onair::supervisor::Supervisor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{SOON, clock, small_feed};

pub(crate) const TOKEN: &str = "planted-token";
pub(crate) const KEY: &str = "planted-key";
/// By which the vendors' clocks are fast.
const SPEED: u32 = 20;

/// A vendor's account with the stream `front`, and an agent's host.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) clock: MediaClock,
    pub(crate) feed: Feed,
    pub(crate) network: watch::Sender<Network>,
    pub(crate) state: tempfile::TempDir,
    /// By how many seconds the host's wall clock was set.
    set: Arc<AtomicI64>,
}

impl World {
    pub(crate) async fn new(change: impl FnOnce(&mut RestConfig)) -> Self {
        let clock = clock();
        let mut rest = RestConfig::new(Secret::new(TOKEN), Secret::new(KEY));
        rest.time_scale = Some(1.0 / f64::from(SPEED));
        rest.streams = vec!["front".to_owned()];
        change(&mut rest);
        let mut config = LabConfig::new(vec![Profile::Qencode, Profile::WowzaCloud], clock);
        config.rest = Some(rest);
        let lab = Lab::start(config).await.expect("a lab");
        Self {
            lab,
            clock,
            feed: Feed::start("feed", &small_feed(), clock).expect("a feed"),
            network: watch::Sender::new(Network::default()),
            state: tempfile::tempdir().expect("a folder"),
            set: Arc::default(),
        }
    }

    fn platform(&self, vendor: Vendor) -> Platform {
        let (at, credential) = match &vendor {
            Vendor::Qencode { .. } => (onair::lab::Vendor::Qencode, KEY),
            Vendor::WowzaVideo { .. } => (onair::lab::Vendor::Wowza, TOKEN),
        };
        Platform {
            vendor,
            credential: Bearer {
                token: Secret::new(credential),
                source: None,
            },
            api: Secret::new(self.lab.rest(at).expect("control planes")),
            stream: StreamRef::Name("front".to_owned()),
            on_exit: OnExit::Stop,
            daily_minutes: None,
        }
    }

    pub(crate) fn qencode(&self) -> Platform {
        self.platform(Vendor::Qencode { callback_url: None })
    }

    pub(crate) fn wowza(&self) -> Platform {
        self.platform(Vendor::WowzaVideo {
            dialect: WowzaDialect::V1,
            create: Some(Create::at("eu_germany")),
        })
    }

    /// The guard of this host's account, once the one before has let go of it.
    pub(crate) async fn account(&self) -> Account {
        let freed = async {
            let mut every = tokio::time::interval(Duration::from_millis(10));
            loop {
                every.tick().await;
                if let Ok(account) = self.open() {
                    return account;
                }
            }
        };
        tokio::time::timeout(SOON, freed).await.expect("it lets go")
    }

    fn open(&self) -> Result<Account, account::Error> {
        self.open_at(self.state.path())
    }

    /// The guard of the account on a host whose folder of state is `place`.
    pub(crate) fn open_at(&self, place: &Path) -> Result<Account, account::Error> {
        let set = Arc::clone(&self.set);
        let wall: Wall = Box::new(move || {
            let now = Timestamp::now().as_second() + set.load(Ordering::Relaxed);
            Timestamp::from_second(now).expect("within the calendar")
        });
        Account::in_lab(Some(place), wall, SPEED)
    }

    pub(crate) fn start(&self, config: &Config, account: &Account) -> Publisher {
        let (feed, network) = (self.feed.handle(), self.network.subscribe());
        Publisher::start("main", config, feed, self.clock, network, account, 1).expect("it starts")
    }

    /// The configuration of a daemon at both vendors, and its log.
    fn write_config(&self) -> (PathBuf, PathBuf) {
        let url = |vendor| self.lab.rest(vendor).expect("control planes");
        let (wowza, qencode) = (
            url(onair::lab::Vendor::Wowza),
            url(onair::lab::Vendor::Qencode),
        );
        let folder = self.state.path();
        let (config, log) = (folder.join("onair.toml"), folder.join("log"));
        let text = format!(
            r#"[daemon]
state_dir = "kept"
[feed.a]
video = {{ source = "testcard", size = "640x360", fps = 15 }}
[publisher.wowza-video]
feed = "a"
to = "wowza-video"
token = "{TOKEN}"
stream_name = "front"
api = "{wowza}"
[publisher.qencode]
feed = "a"
to = "qencode"
api_key = "{KEY}"
stream_name = "front"
api = "{qencode}"
"#
        );
        std::fs::write(&config, text).expect("written");
        (config, log)
    }

    /// The bill of the one stream that was ever started.
    pub(crate) fn bill(&self) -> Bill {
        let mut bills = self.lab.bills();
        bills.retain(|bill| bill.starts > 0);
        assert_eq!(bills.len(), 1, "{bills:?}");
        bills.remove(0)
    }

    /// Waits until nothing costs any more: Wowza says `stopped` before it is.
    pub(crate) async fn rests(&self) {
        let rest = async {
            let mut every = tokio::time::interval(Duration::from_millis(20));
            while self.lab.bills().iter().any(|bill| bill.running) {
                every.tick().await;
            }
        };
        let rested = tokio::time::timeout(SOON, rest).await;
        assert!(rested.is_ok(), "{:?}", self.lab.bills());
    }

    /// What the file of state says of the one stream, as JSON.
    pub(crate) fn written(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.state.path().join("streams.json"));
        let json: serde_json::Value =
            serde_json::from_str(&text.expect("it is there")).expect("it is JSON");
        json["streams"][0].clone()
    }
}

pub(crate) fn config(platform: Platform) -> Config {
    Config::new("feed", Server::Platform(Box::new(platform)))
}

pub(crate) async fn until(
    publisher: &Publisher,
    what: &str,
    wanted: impl FnMut(&Snapshot) -> bool,
) -> Snapshot {
    let mut watch = publisher.watch();
    let reached = tokio::time::timeout(SOON * 2, watch.wait_for(wanted)).await;
    let reached = reached.ok().and_then(Result::ok).map(|s| s.clone());
    reached.unwrap_or_else(|| panic!("{what}: not in time; {:?}", publisher.watch().borrow()))
}

pub(crate) const PART: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qencode_is_started_resumed_at_the_same_url_started_again_and_stopped() {
    let world = World::new(|_| {}).await;
    let account = world.account().await;
    let publisher = world.start(&config(world.qencode()), &account);
    let first = until(&publisher, "on air", Snapshot::is_on_air).await;
    let status = first.platform.clone().expect("it has a platform");
    assert!(status.ours && status.starts == 1, "{status:?}");
    assert_eq!(world.written()["ours"], true);
    assert_eq!(first.recoveries[&Cause::Start].times, 1);

    // Dropped: the same URL is good for two of the vendor's minutes.
    world.lab.faults().commit(None, Fault::DropSocket);
    let back = until(&publisher, "back", |p| {
        p.is_on_air() && p.sessions > first.sessions
    })
    .await;
    assert_eq!(world.bill().starts, 1, "resumed, not started again");
    assert!(back.recoveries.len() > 1, "{:?}", back.recoveries);

    // Stopped under it: after the time to resume it is started again, at another URL.
    world
        .lab
        .faults()
        .commit(Some(Profile::Qencode), Fault::RestStop);
    until(&publisher, "again", |p| {
        p.is_on_air() && p.platform.as_ref().is_some_and(|s| s.starts == 2)
    })
    .await;
    assert_eq!(world.bill().starts, 2);
    assert_eq!(world.written()["taken"].as_array().map(Vec::len), Some(1));

    let watch = publisher.watch();
    publisher.drain(PART).await;
    let bill = world.bill();
    assert!(!bill.running, "{bill:?}");
    assert_eq!(world.written()["ours"], false);
    let counted = watch.borrow().platform.clone().expect("still there").ran;
    // A start counts from when it is asked for, the bill from when it stands.
    let counted = counted.as_secs_f64();
    assert!(counted >= bill.billed_s * 0.8, "{counted} s of {bill:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_wowza_a_stream_is_made_published_adopted_after_a_crash_and_stopped() {
    let world = World::new(|rest| rest.streams.clear()).await;
    let account = world.account().await;
    let publisher = world.start(&config(world.wowza()), &account);
    until(&publisher, "on air", Snapshot::is_on_air).await;
    assert_eq!((world.bill().starts, world.bill().running), (1, true));

    // A crash leaves everything as it is, but for the process.
    drop((publisher, account));
    let account = world.account().await;
    assert!(world.bill().running);
    let publisher = world.start(&config(world.wowza()), &account);
    let adopted = until(&publisher, "on air again", Snapshot::is_on_air).await;
    let status = adopted.platform.expect("it has a platform");
    assert!(status.ours && status.starts == 0, "{status:?}");
    assert_eq!(world.bill().starts, 1);

    // Nor does a publisher that goes on with it in place of another start it again.
    publisher.part(PART, Release::HandOver).await;
    assert!(world.bill().running);
    let publisher = world.start(&config(world.wowza()), &account);
    until(&publisher, "on air in its place", Snapshot::is_on_air).await;
    assert_eq!(world.bill().starts, 1);
    publisher.drain(PART).await;
    world.rests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crashed_agent_started_and_nobody_wants_is_stopped_at_the_next_start() {
    let world = World::new(|rest| rest.streams.push("other".to_owned())).await;
    for platform in [world.qencode(), world.wowza()] {
        let account = world.account().await;
        let publisher = world.start(&config(platform.clone()), &account);
        until(&publisher, "on air", Snapshot::is_on_air).await;
        drop((publisher, account));

        let account = world.account().await;
        let other = StreamRef::Name("other".to_owned());
        let changed = Platform {
            stream: other,
            ..platform
        };
        let wanted = BTreeMap::from([("main".to_owned(), config(changed))]);
        let swept = account::stop_orphans(&account, &wanted, &[]);
        tokio::time::timeout(SOON, swept)
            .await
            .expect("it is stopped");
        world.rests().await;
        assert!(account.orphans(|_| false).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_somebody_else_started_is_used_and_left() {
    let world = World::new(|_| {}).await;
    let platform = world.wowza();
    let by_hand = config(platform.clone());
    let mut hand = onair::platform::connect(&platform, &by_hand, &Pace::default()).expect("a way");
    let front = onair::platform::find(hand.as_mut(), &platform.stream).await;
    hand.start(&front.expect("it is there"))
        .await
        .expect("started by hand");

    let account = world.account().await;
    let publisher = world.start(&by_hand, &account);
    let seen = until(&publisher, "on air", Snapshot::is_on_air).await;
    assert!(!seen.platform.expect("it has a platform").ours);
    publisher.drain(PART).await;
    assert!(world.bill().running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_exit_leave_leaves_it_and_the_next_start_goes_on_with_it() {
    let world = World::new(|_| {}).await;
    let platform = Platform {
        on_exit: OnExit::Leave,
        ..world.wowza()
    };
    for _ in 0..2 {
        let account = world.account().await;
        let publisher = world.start(&config(platform.clone()), &account);
        until(&publisher, "on air", Snapshot::is_on_air).await;
        publisher.drain(PART).await;
        assert!(world.bill().running);
        assert_eq!(world.written()["left"], true);
    }
    assert_eq!(world.bill().starts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_minutes_of_the_day_end_it_and_the_next_day_begins_it() {
    let world = World::new(|_| {}).await;
    let platform = Platform {
        daily_minutes: Some(2),
        ..world.qencode()
    };
    let account = world.account().await;
    let mut config = config(platform);
    config.time_zone = TimeZone::UTC;
    // Noon, so that the test's own time does not come near midnight.
    let noon = 43_200 - Timestamp::now().as_second().rem_euclid(86_400);
    world.set.store(noon, Ordering::Relaxed);
    let publisher = world.start(&config, &account);
    until(&publisher, "on air", Snapshot::is_on_air).await;
    let spent = until(&publisher, "off", |p| matches!(p.state, State::OffAir(_))).await;
    let State::OffAir(off) = spent.state else {
        panic!("{:?}", spent.state)
    };
    assert_eq!(off.why, Why::DailyLimit);
    let ran = spent.platform.expect("it has a platform").ran;
    assert!(ran >= Duration::from_secs(115), "{ran:?}");
    let bill = world.bill();
    assert!(!bill.running && bill.starts == 1, "{bill:?}");

    // Who begins when they are used up is off the air as well, and nothing has failed.
    publisher.drain(PART).await;
    let publisher = world.start(&config, &account);
    let spent = until(&publisher, "off", |p| matches!(p.state, State::OffAir(_))).await;
    assert_eq!((spent.end_reason, world.bill().starts), (None, 1));

    // Two seconds to midnight.
    let midnight = off.until.expect("midnight").timestamp();
    let left = midnight.duration_since(account.wall());
    world.set.fetch_add(left.as_secs() - 2, Ordering::Relaxed);
    until(&publisher, "the next day", |p| {
        p.is_on_air() && p.sessions > 1
    })
    .await;
    assert_eq!(world.bill().starts, 2);
    publisher.drain(PART).await;
    world.rests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_hours_begin_and_end_it() {
    let world = World::new(|_| {}).await;
    let account = world.account().await;
    let mut config = config(world.qencode());
    config.time_zone = TimeZone::UTC;
    config.on_air = Schedule::read(["daily 08:00-18:00"]);
    let to = |hour: i64, account: &Account| {
        let of_day = account.wall().as_second().rem_euclid(86_400);
        world
            .set
            .fetch_add(hour * 3_600 - 2 - of_day, Ordering::Relaxed);
    };
    to(8, &account);
    let publisher = world.start(&config, &account);
    let before = until(&publisher, "off", |p| matches!(p.state, State::OffAir(_))).await;
    assert_eq!(
        (
            before.sessions,
            world.lab.bills().iter().map(|b| b.starts).sum::<u32>()
        ),
        (0, 0)
    );
    let on = until(&publisher, "on air", Snapshot::is_on_air).await;
    assert_eq!(on.recoveries[&Cause::Schedule].times, 1);
    to(18, &account);
    // The wall clock was set under it, so it is found out at the next look.
    let closed = until(&publisher, "off again", |p| {
        matches!(p.state, State::OffAir(_))
    })
    .await;
    assert!(matches!(closed.state, State::OffAir(off) if off.why == Why::Schedule));
    world.rests().await;
    publisher.drain(PART).await;
}

fn refuse(how: RestFault, call: RestCall) -> Fault {
    Fault::Rest {
        how,
        times: 1,
        call: Some(call),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_credential_waits_for_another_and_takes_it() {
    let world = World::new(|_| {}).await;
    let account = world.account().await;
    let file = world.state.path().join("token");
    std::fs::write(&file, "planted-stale").expect("written");
    let mut platform = world.wowza();
    platform.credential = Bearer {
        token: Secret::new("planted-stale"),
        source: Some(SecretSource::File(file.clone())),
    };
    let publisher = world.start(&config(platform), &account);
    let waiting = |p: &Snapshot| {
        matches!(
            p.state,
            State::Waiting {
                verdict: Verdict::Operator { .. },
                ..
            }
        )
    };
    let refused = until(&publisher, "refused", waiting).await;
    let said = format!("{refused:?}");
    assert!(said.contains("401") && !said.contains("planted"), "{said}");
    std::fs::write(&file, TOKEN).expect("written");
    until(&publisher, "on air", Snapshot::is_on_air).await;
    publisher.drain(PART).await;
    world.rests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn troubles_of_a_start_are_lived_through_without_a_second_stream() {
    let world = World::new(|_| {}).await;
    for platform in [world.wowza(), world.qencode()] {
        let vendor = platform.vendor.name();
        for how in [
            RestFault::Status {
                status: 503,
                retry_after_s: None,
            },
            RestFault::HangUp { done: true },
            RestFault::Malformed,
        ] {
            let account = world.account().await;
            world
                .lab
                .faults()
                .commit(None, refuse(how, RestCall::Start));
            let publisher = world.start(&config(platform.clone()), &account);
            until(&publisher, "on air", Snapshot::is_on_air).await;
            publisher.drain(PART).await;
            world.rests().await;
            assert_eq!(world.written()["ours"], false, "{vendor} {how:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_never_share_a_folder_of_state() {
    let world = World::new(|_| {}).await;
    let first = world.account().await;
    let refused = world.open().err().expect("it is held");
    assert!(matches!(refused, account::Error::InUse { .. }), "{refused}");
    drop(first);
    assert!(world.open().is_ok());
    assert!(Path::new(world.state.path()).join("lock").exists());
}

/// A daemon as an operator runs it; killed if the test gives up.
struct Daemon(std::process::Child);

impl Daemon {
    /// Starts it at both vendors, asked to log everything into `log`.
    fn start(config: &Path, log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log);
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_onair"))
            .arg("run")
            .arg("--config")
            .arg(config)
            .args(["--log", "trace"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        Self(child.expect("the built binary runs"))
    }

    fn terminate(mut self) -> Option<i32> {
        let id = self.0.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &id])
            .status();
        assert!(sent.expect("kill runs").success());
        self.0.wait().expect("its status").code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // An error means that it has ended, as it should.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Where a vendor's interface is behind a [`gate`].
const GATE: &str = "/planted-path";

/// Hands on what is asked for below [`GATE`] to `url`, as a company's gate to the world might; nothing else gets through.
async fn gate(url: &str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let vendor = url.strip_prefix("http://").expect("plain HTTP").to_owned();
    tokio::spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            let vendor = vendor.clone();
            tokio::spawn(async move {
                let mut head = String::new();
                while !head.contains("\r\n\r\n") {
                    let mut piece = [0; 4096];
                    let n = inside.read(&mut piece).await.unwrap_or(0);
                    if n == 0 {
                        return;
                    }
                    head.push_str(&String::from_utf8_lossy(&piece[..n]));
                }
                let asked = format!(" {GATE}/");
                if let Ok(mut outside) = TcpStream::connect(vendor).await
                    && head.contains(&asked)
                {
                    let head = head.replacen(&asked, " /", 1);
                    // Whoever hangs up has what he wanted.
                    drop(outside.write_all(head.as_bytes()).await);
                    drop(tokio::io::copy_bidirectional(&mut inside, &mut outside).await);
                }
            });
        }
    });
    at
}

/// Waits until `n` lines of the log say that media is accepted.
async fn accepted(log: &Path, n: usize) {
    let seen = async {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            let text = std::fs::read_to_string(log).unwrap_or_default();
            if text.matches("media accepted after").count() >= n {
                return;
            }
        }
    };
    let seen = tokio::time::timeout(SOON * 2, seen).await;
    assert!(seen.is_ok(), "not on air in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_at_both_vendors_adopts_its_streams_and_stops_them_when_it_is_told_to_end()
{
    // The daemon keeps to the vendors' real clocks, so the lab's run only as fast as those can bear.
    let world = World::new(|rest| rest.time_scale = Some(0.25)).await;
    let (config, log) = world.write_config();
    let folder = world.state.path();
    // As of an interface behind a gate, whose address is as good as a password.
    let mut text = std::fs::read_to_string(&config).expect("it is there");
    for vendor in onair::lab::Vendor::ALL {
        let url = world.lab.rest(vendor).expect("control planes");
        let gate = gate(url.strip_suffix(vendor.root()).expect("its root")).await;
        text = text.replace(&url, &format!("http://{gate}{GATE}{}", vendor.root()));
    }
    std::fs::write(&config, text).expect("written");
    let daemon = Daemon::start(&config, &log);
    accepted(&log, 2).await;
    drop(daemon);
    let starts = |world: &World| world.lab.bills().iter().map(|b| b.starts).sum::<u32>();
    assert_eq!(starts(&world), 2);
    let daemon = Daemon::start(&config, &log);
    accepted(&log, 4).await;
    assert_eq!(starts(&world), 2, "adopted");
    assert_eq!(daemon.terminate(), Some(0));
    world.rests().await;

    let kept = std::fs::read_to_string(folder.join("kept/streams.json")).expect("it is there");
    assert_eq!(kept.matches("\"ours\": false").count(), 2, "{kept}");
    let logged = std::fs::read_to_string(&log).expect("a log");
    assert!(logged.contains("which onair had started; going on with it"));
    // What the vendors handed out is as secret as what was configured.
    let mut secrets: Vec<String> = [TOKEN, KEY, &GATE[1..]].map(str::to_owned).into();
    for session in world.lab.hub().sessions() {
        let (_, stream) = session.name.split_once('/').expect("a full name");
        secrets.push(stream.to_owned());
    }
    assert!(secrets.len() >= 6, "{secrets:?}");
    for secret in secrets {
        for (place, text) in [("log", &logged), ("state", &kept)] {
            let line = text.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "the {place} says {secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stuck_hands_its_stream_to_the_next() {
    // An agent keeps to the vendors' real clocks, so the lab's run only as fast as those can bear.
    let world = World::new(|rest| rest.time_scale = Some(0.25)).await;
    let whole = onair::config::Config {
        feeds: [("feed".to_owned(), small_feed())].into(),
        publishers: [("main".to_owned(), config(world.qencode()))].into(),
        daemon: onair::config::Daemon {
            state_dir: Some(world.state.path().to_owned()),
            ..onair::config::Daemon::default()
        },
    };
    let start = async || {
        // The one before lets go of the folder when its last task has ended.
        let begun = async {
            let mut every = tokio::time::interval(Duration::from_millis(10));
            loop {
                every.tick().await;
                let network = world.network.subscribe();
                if let Ok(agent) = Supervisor::start(&whole, world.clock, &network, 1) {
                    return agent;
                }
            }
        };
        tokio::time::timeout(SOON, begun).await.expect("it starts")
    };
    for _ in 0..2 {
        let agent = start().await;
        let mut main = agent.view().publishers().remove("main").expect("main");
        let on_air = tokio::time::timeout(SOON * 2, main.wait_for(Snapshot::is_on_air)).await;
        on_air.expect("on air in time").expect("it runs");
        agent.hand_over().await;
        let bill = world.bill();
        assert!(bill.running && bill.starts == 1, "{bill:?}");
    }
    // What ends in order stops it, though it has not yet looked at it.
    start().await.drain().await;
    world.rests().await;
    assert_eq!(world.bill().starts, 1);
}

/// How often the daemon is killed, unless `ONAIR_KILLS` says otherwise.
const KILLS: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_a_daemon_is_killed_what_runs_is_written_down_and_the_next_start_is_clean() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the two hundred kills take minutes, and are asked for by hand"
    )]
    let kills = std::env::var("ONAIR_KILLS").map_or(KILLS, |n| n.parse().expect("a number"));
    let world = World::new(|rest| {
        rest.time_scale = Some(0.25);
        rest.requests_per_minute = u32::MAX;
    })
    .await;
    let (config, log) = world.write_config();
    let kept = world.state.path().join("kept");
    let said = |word: &str| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.matches(word).count()
    };
    let ours = || {
        let text = std::fs::read_to_string(kept.join("streams.json")).unwrap_or_default();
        if !text.is_empty() {
            let whole: Result<serde_json::Value, _> = serde_json::from_str(&text);
            whole.expect("a whole file");
        }
        text.matches("\"ours\": true").count()
    };
    let mut rng = fastrand::Rng::with_seed(11);
    let mut n_records = 0;
    for n in 1..=kills {
        let daemon = Daemon::start(&config, &log);
        tokio::time::sleep(Duration::from_micros(rng.u64(0..2_500_000))).await;
        // Killed where it stands.
        drop(daemon);
        let running = world.lab.bills().iter().filter(|bill| bill.running).count();
        assert!(running <= ours(), "kill {n}: {:?}", world.lab.bills());
        let records = onair::recorder::read(&kept).map_or(0, |all| {
            let lines = all.lines();
            lines.filter(Result::is_ok).count()
        });
        assert!(
            records >= n_records,
            "kill {n}: the recorder lost what it had"
        );
        n_records = records;
        // Now and then an end in order, so that starts are met too, and not only streams that run already.
        if n % 8 == 0 {
            let on_air = said("media accepted after");
            let daemon = Daemon::start(&config, &log);
            accepted(&log, on_air + 2).await;
            assert_eq!(daemon.terminate(), Some(0));
            world.rests().await;
            assert_eq!(ours(), 0);
        }
    }
    assert!(n_records > 0);
    assert_eq!(said("panicked"), 0);
}
