//! What makes a process one that nobody has to look after: the service manager, the judgement of its own health and
//! what follows from it, the configuration as it changes, and the machine it runs on.
//!
//! Three tasks. One looks at everything about once a second and never waits for anything: it judges (`health`), tells
//! the service manager (`announce`, `notify`), beats for the `watchdog`, and decides what is done about the stuck
//! (`escalation`). The other, [`Daemon::tend`], has the supervisor and carries out: it reads the configuration again
//! (`reload`) and begins publishers anew. A third asks less of the feeds while the machine is short of something
//! (`relief`, `pressure`). If the second hangs, the first notices; if the first hangs, the watchdog
//! and the service manager do, and if it has vanished, the second ends the process.

mod announce;
mod escalation;
pub mod notify;
pub mod pressure;
mod reader;
mod relapse;
mod relief;
pub mod reload;
mod watchdog;

use std::path::Path;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::load;
use crate::feed;
use crate::health::{self, Health, Judge, Part};
use crate::supervisor::{
    AGAIN_EVERY, CHANGE_WITHIN, DRAIN_WITHIN, Overview, Supervisor, View, chain,
};

pub use announce::READY_WITHIN;
pub use relapse::Relapse;

use announce::Announcer;
use escalation::{Escalation, Remedy};
use notify::{Manager, Untold, Word};
use pressure::sensors;
use reader::{Reader, Unread};
use reload::{Files, POLL, Reading};
use watchdog::{Beats, Watchdog};

/// Exit code of a process that was stuck: `EX_TEMPFAIL`, for another one may do better at once.
pub const STUCK: u8 = 75;

/// Time without a sign of life of the runtime after which the process ends. An orderly end fits in, also one that is
/// decided on while a change is under way, for which it waits.
const RUNTIME_WITHIN: Duration = CHANGE_WITHIN
    .saturating_add(DRAIN_WITHIN)
    .saturating_add(Duration::from_secs(10));

/// Commands and remedies that may wait; more are refused.
const QUEUE: usize = 8;

/// What can be asked of a running daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the configuration again.
    Reload,
    /// Begin the publisher of this name anew. Like [`Command::Start`], if a person asks for it, it also opens a lost
    /// microphone that stays silent by its configuration.
    Restart(String),
    /// Put the publisher of this name on air again after [`Command::Stop`].
    Start(String),
    /// Take the publisher of this name off air until [`Command::Start`] or the end of the process.
    Stop(String),
}

/// A [`Command`] and where its outcome goes: in words for people, `Err` if it was not carried out.
#[derive(Debug)]
pub struct Request {
    /// What is wanted.
    pub command: Command,
    /// Told what came of it; nobody need listen.
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// What is said to the service manager, by whoever has something to say.
#[derive(Debug)]
struct Voice {
    manager: Manager,
    says: Mutex<(Announcer, Untold)>,
}

impl Voice {
    fn say(&self, words: impl FnOnce(&mut Announcer) -> Vec<Word>) {
        let mut says: MutexGuard<'_, _> = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        let (announcer, untold) = &mut *says;
        // Told under the lock, so that words come in the order in which they were decided.
        untold.tell(&self.manager, words(announcer));
    }
}

/// A running daemon. Dropping it ends its tasks.
#[derive(Debug)]
#[must_use]
pub struct Daemon {
    voice: Arc<Voice>,
    health: watch::Receiver<Health>,
    remedies: mpsc::Receiver<Remedy>,
    requests: (mpsc::Sender<Request>, mpsc::Receiver<Request>),
    watchman: AbortOnDropHandle<()>,
    tasks: JoinSet<()>,
    _watchdog: Watchdog,
}

impl Daemon {
    /// Begins to look after what `look` shows, where the stages of the feeds have the times of `budget`, and to tell
    /// `manager`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the system gives no thread for the watchdog.
    pub fn start(
        look: impl Fn() -> Overview + Send + 'static,
        manager: Manager,
        budget: &feed::Budget,
    ) -> std::io::Result<Self> {
        Self::start_after(0, look, manager, budget)
    }

    /// [`Self::start`] after so many processes in a row that ended because they were stuck (see [`Relapse`]).
    ///
    /// # Errors
    /// The same.
    pub fn start_after(
        ends: u32,
        look: impl Fn() -> Overview + Send + 'static,
        manager: Manager,
        budget: &feed::Budget,
    ) -> std::io::Result<Self> {
        let watchdog = Watchdog::start(RUNTIME_WITHIN, bite)?;
        let every = manager.watchdog();
        let voice = Arc::new(Voice {
            manager,
            says: Mutex::new((Announcer::new(now(), every), Untold::default())),
        });
        let nothing_seen = Health {
            at: now(),
            stuck: Vec::new(),
        };
        let (healths, health) = watch::channel(nothing_seen);
        let (remedy, remedies) = mpsc::channel(QUEUE);
        let watchman = Watchman {
            look: Box::new(look),
            judge: Judge::new(budget).after_ends(ends),
            escalation: Escalation::new(every),
            voice: Arc::clone(&voice),
            beats: watchdog.beats(),
            healths,
            remedies: remedy,
        };
        let period = every.map_or(health::LOOK_EVERY, |every| {
            (every / 8).clamp(Duration::from_millis(50), health::LOOK_EVERY)
        });
        Ok(Self {
            voice,
            health,
            remedies,
            requests: mpsc::channel(QUEUE),
            watchman: AbortOnDropHandle::new(tokio::spawn(watchman.run(period))),
            tasks: JoinSet::new(),
            _watchdog: watchdog,
        })
    }

    /// Begins to ask less of the feeds that `view` shows while the machine is short of something.
    pub fn relieve(&mut self, view: View) {
        let read = || sensors::read(Path::new("/"));
        self.tasks.spawn(relief::run(view, read));
    }

    /// The judgement, as it is renewed about each second.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Where commands go. They are carried out one after the other while [`Self::tend`] runs.
    pub fn requests(&self) -> mpsc::Sender<Request> {
        self.requests.0.clone()
    }

    /// Carries out what has to be done to `supervisor` until `stop`; also what `hangup` asks for and, if `watch` says
    /// so, a change of `files`. What was begun is finished, within [`CHANGE_WITHIN`], so that nobody is cut off while
    /// parting. Returns why the process must end by itself, if that came first.
    pub async fn tend(
        &mut self,
        supervisor: &mut Supervisor,
        files: Files,
        watch: bool,
        mut hangup: Signal,
        stop: &CancellationToken,
    ) -> Option<String> {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again = tokio::time::interval(AGAIN_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        again.reset();
        let mut reader = Reader::new(files);
        loop {
            let request = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                vanished = &mut self.watchman => return Some(gone(vanished)),
                Some(remedy) = self.remedies.recv() => match remedy {
                    Remedy::End(why) => return Some(why),
                    Remedy::Restart(name) => Some((Command::Restart(name), None)),
                },
                Some(()) = hangup.recv() => Some((Command::Reload, None)),
                Some(request) = self.requests.1.recv() => Some((request.command, Some(request.reply))),
                _ = again.tick() => {
                    supervisor.start_absent();
                    continue;
                }
                _ = poll.tick(), if watch => None,
            };
            let (command, reply) = match request {
                Some(request) => request,
                None => match unless(stop, reader.run(Files::changed)).await? {
                    Ok(true) => (Command::Reload, None),
                    Err(Unread::Hangs) => {
                        tracing::error!("{}", Unread::Hangs);
                        continue;
                    }
                    // A panic is in the log, and so is what still hangs.
                    Ok(false) | Err(Unread::Panicked | Unread::StillHangs) => continue,
                },
            };
            // By a person, and not by a remedy.
            if let (Command::Restart(name) | Command::Start(name), Some(_)) = (&command, &reply) {
                supervisor.want_sound(name);
            }
            let outcome = match command {
                Command::Reload => {
                    self.voice.say(|announcer| announcer.reloading());
                    let outcome = match unless(stop, reader.run(Files::read)).await? {
                        Ok(reading) => reload(supervisor, reading).await,
                        Err(unread) => Err(unread.to_string()),
                    };
                    let note = outcome.as_ref().err().cloned();
                    supervisor.refuse(note.clone());
                    self.voice.say(|announcer| announcer.reloaded(note));
                    outcome
                }
                Command::Restart(name) => done(
                    &name,
                    supervisor.restart_publisher(&name).await,
                    "began anew",
                ),
                Command::Start(name) => {
                    done(&name, supervisor.resume_publisher(&name), "began again")
                }
                Command::Stop(name) => {
                    done(&name, Ok(supervisor.hold_publisher(&name).await), "ended")
                }
            };
            match &outcome {
                Ok(said) => tracing::info!("{said}"),
                Err(said) => tracing::error!("{said}"),
            }
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                drop(reply.send(outcome));
            }
        }
    }

    /// Says that the end has begun, and why. To be called before the drain, whose time the manager is asked for.
    pub fn stopping(&self, why: &str) {
        self.voice.say(|announcer| announcer.stopping(why));
    }
}

/// Ends a process in which nothing runs any more. A log that takes nothing may be why: it is not waited for.
fn bite() {
    let say = || {
        tracing::error!(
            "nothing has run for {} s; the process ends with code {STUCK}, to be started anew",
            RUNTIME_WITHIN.as_secs()
        );
        process::exit(STUCK.into());
    };
    // Without a thread it goes unsaid, and so it does if the log takes nothing for a second.
    drop(std::thread::Builder::new().spawn(say));
    std::thread::park_timeout(Duration::from_secs(1));
    process::exit(STUCK.into());
}

/// The task that looks at everything.
struct Watchman {
    look: Box<dyn Fn() -> Overview + Send>,
    judge: Judge,
    escalation: Escalation,
    voice: Arc<Voice>,
    beats: Beats,
    healths: watch::Sender<Health>,
    remedies: mpsc::Sender<Remedy>,
}

impl Watchman {
    async fn run(mut self, period: Duration) {
        let mut looks = tokio::time::interval(period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ending = false;
        loop {
            looks.tick().await;
            // After the decision to end, the watchdog sees to it.
            if !ending {
                self.beats.beat();
            }
            let (at, overview) = (now(), (self.look)());
            let health = self.judge.look(at, &overview);
            self.voice
                .say(|announcer| announcer.look(at, &overview, &health));
            let remedy = match ending {
                true => None,
                false => self.escalation.on(at, &health),
            };
            match &remedy {
                Some(Remedy::End(why)) => {
                    ending = true;
                    tracing::error!(
                        "{why}; the process ends with code {STUCK}, to be started anew"
                    );
                    // It hears no more that all is well, and must not lose patience before a change that is under way
                    // is over, for which the end waits.
                    self.voice.say(|announcer| announcer.stopping(why));
                }
                Some(Remedy::Restart(name)) => {
                    self.judge.forget(&Part::Publisher(name.clone()));
                    tracing::error!("{}; publisher {name} begins anew", health.words(at));
                }
                None => {}
            }
            self.healths.send_replace(health);
            if let Some(remedy) = remedy
                && self.remedies.try_send(remedy).is_err()
            {
                tracing::warn!("what is done about the stuck is stuck itself");
            }
        }
    }
}

/// Why the process ends when nobody looks at it any more.
fn gone(vanished: Result<(), JoinError>) -> String {
    let how = match vanished {
        Err(error) if error.is_panic() => "it panicked, see the log",
        Ok(()) | Err(_) => "it ended",
    };
    let why = format!("nobody judges the health of this process any more: {how}");
    tracing::error!("{why}; the process ends with code {STUCK}, to be started anew");
    why
}

/// What `work` comes to; `None` if `stop` came first.
async fn unless<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = stop.cancelled() => None,
        done = work => Some(done),
    }
}

/// Puts what was read to work; says what came of it. Each fault is logged.
async fn reload(supervisor: &mut Supervisor, reading: Reading) -> Result<String, String> {
    let config = match reading.config {
        Ok(config) => config,
        Err(load::Error::Faults { path, faults }) => {
            for fault in &faults {
                tracing::error!("{}:{fault}", path.display());
            }
            return Err(format!(
                "the configuration file has faults ({}, see the log); what it said before runs on",
                faults.len()
            ));
        }
        Err(unreadable @ load::Error::Unreadable { .. }) => {
            return Err(format!("{unreadable}; what it said before runs on"));
        }
    };
    let restart = match config.daemon == supervisor.config().daemon {
        true => "",
        false => "; what [daemon] says otherwise than at the start needs a restart of onair",
    };
    let reloaded = supervisor.reload(&config, &reading.touched).await;
    for error in &reloaded.failed {
        tracing::error!("{}", chain(error));
    }
    match reloaded.failed.first() {
        None => Ok(format!(
            "the configuration was read: {}{restart}",
            reloaded.plan
        )),
        Some(error) => Err(format!(
            "the configuration was taken in part: {}; what could not begin anew goes on as it was, if it can{restart}",
            chain(error)
        )),
    }
}

fn done(
    name: &str,
    outcome: Result<bool, crate::supervisor::Error>,
    what: &str,
) -> Result<String, String> {
    match outcome {
        Ok(true) => Ok(format!("publisher {name} {what}")),
        Ok(false) => Err(format!(
            "publisher {name}: there is nothing to do, or nobody of that name"
        )),
        Err(error) => Err(chain(&error)),
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::publisher::{Snapshot, State};
    use crate::session::Telemetry;
    use crate::signal::Dialect;

    /// A publisher that comes on air, and connects for ever once `stuck` is set.
    fn world(stuck: Arc<AtomicBool>) -> impl Fn() -> Overview + Send + 'static {
        move || {
            let state = match stuck.load(Ordering::Relaxed) {
                true => State::Connecting { attempt: 2 },
                false => State::Waiting {
                    due: now() + Duration::from_secs(10),
                    cause: "no answer".to_owned(),
                    verdict: crate::publisher::Verdict::Backoff,
                    unreachable: true,
                },
            };
            let main = Snapshot {
                state,
                dialect: Dialect::Ome,
                session: Telemetry::default(),
                sessions: 1,
                time_to_on_air: None,
                frames_sent_before: 0,
                end_reason: None,
                recoveries: crate::publisher::Recoveries::new(),
                platform: None,
            };
            Overview {
                publishers: [("main".to_owned(), main)].into(),
                ..Overview::default()
            }
        }
    }

    /// A supervisor of nothing.
    fn idle() -> Supervisor {
        let clock = crate::media::time::MediaClock::new(now(), std::time::UNIX_EPOCH);
        let network = watch::channel(crate::network::Network::default()).1;
        let nothing = crate::config::Config {
            feeds: std::collections::BTreeMap::new(),
            publishers: std::collections::BTreeMap::new(),
            daemon: crate::config::Daemon::default(),
        };
        Supervisor::start(&nothing, clock, &network, 1).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_nobody_looks_at_any_more_ends() {
        let looks = std::sync::atomic::AtomicU32::new(0);
        let look = move || match looks.fetch_add(1, Ordering::Relaxed) {
            0..3 => Overview::default(),
            _ => panic!("this one is meant"),
        };
        let mut daemon = Daemon::start(look, Manager::default(), &feed::Budget::default()).unwrap();
        let hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        let (mut supervisor, stop) = (idle(), CancellationToken::new());
        let files = Files::new("/no/such/file".into());
        let why = daemon.tend(&mut supervisor, files, false, hangup.unwrap(), &stop);
        let why = why.await.expect("it ends by itself");
        assert!(why.contains("it panicked"), "{why}");
    }

    #[tokio::test]
    async fn what_a_reload_cannot_change_is_said_until_the_process_begins_anew() {
        let mut supervisor = idle();
        let mut config = supervisor.config().clone();
        let touched = std::collections::BTreeSet::new();
        let read = |config: &crate::config::Config| Reading {
            config: Ok(config.clone()),
            touched: touched.clone(),
        };
        let nothing = "the configuration was read: nothing changes";
        let same = reload(&mut supervisor, read(&config)).await.unwrap();
        assert_eq!(same, nothing);
        config.daemon.state_dir = Some("/elsewhere".into());
        for _ in 0..2 {
            let said = reload(&mut supervisor, read(&config)).await.unwrap();
            let restart = "what [daemon] says otherwise than at the start needs a restart of onair";
            assert_eq!(said, format!("{nothing}; {restart}"));
        }
    }

    /// How often the manager was told that all is well, since the last time it was asked.
    fn watchdogs(socket: &UnixDatagram) -> usize {
        let mut buffer = [0; 4096];
        let mut heard = 0;
        while let Ok(n_bytes) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n_bytes]).into_owned();
            heard += text.matches("WATCHDOG=1").count();
        }
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn the_stuck_are_helped_and_if_that_is_of_no_use_the_manager_hears_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = Manager::new(path.as_os_str(), Some(Duration::from_secs(30))).unwrap();
        let stuck = Arc::new(AtomicBool::new(false));
        let mut daemon =
            Daemon::start(world(Arc::clone(&stuck)), manager, &feed::Budget::default()).unwrap();
        let health = daemon.health();

        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(health.borrow().is_good(now()));
        // Its queue is short, and nobody has read it meanwhile.
        assert!(watchdogs(&socket) > 0);

        stuck.store(true, Ordering::Relaxed);
        let began = now();
        let remedy = daemon.remedies.recv().await.unwrap();
        assert_eq!(remedy, Remedy::Restart("main".to_owned()));
        let took = now().saturating_duration_since(began);
        assert!((600..603).contains(&took.as_secs()), "{took:?}");

        // It was of no use.
        let remedy = daemon.remedies.recv().await.unwrap();
        assert!(matches!(&remedy, Remedy::End(why) if why.contains("publisher main is stuck")));
        assert!(!health.borrow().is_good(now()));
        watchdogs(&socket);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(watchdogs(&socket), 0);
        assert!(daemon.remedies.try_recv().is_err(), "said once");
    }
}
