//! The real program as its unit runs it: a child process, a service manager that listens to it and starts it again,
//! and a lab to publish to.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use onair::config::Server;
use onair::lab::hub::Snapshot;
use onair::lab::{Lab, LabConfig, Profile};
use onair::media::time::MediaClock;
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::pair::LONGEST;

/// The unit, so that the figures are those of the service as it is installed.
const UNIT: &str = include_str!("../../config/onair.service");

/// How often it is looked whether the child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the manager knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The process that runs.
    pub(crate) process: Option<u32>,
    /// What it says of itself.
    pub(crate) status: String,
    /// How the last one ended.
    pub(crate) ended: Option<ExitStatus>,
}

pub(crate) struct Service {
    folder: tempfile::TempDir,
    lab: Lab,
    known: watch::Receiver<Known>,
    _manager: AbortOnDropHandle<()>,
}

impl Service {
    /// Starts both; the program publishes a small test card and, if `tone`, the tone.
    pub(crate) async fn start(profile: Profile, tone: bool, seed: u64) -> anyhow::Result<Self> {
        let clock = MediaClock::new(Instant::now(), SystemTime::now());
        let lab = Lab::start(LabConfig::new(vec![profile], clock)).await?;
        let Some(Server::Ome { url }) = lab.server(profile) else {
            anyhow::bail!("{profile} has no URL of that kind");
        };
        let folder = tempfile::tempdir()?;
        let tone = match tone {
            true => "audio = { source = \"tone\" }\n",
            false => "",
        };
        let config = format!(
            "[daemon]\nstate_dir = \"{}\"\n[daemon.status]\nlisten = \"127.0.0.1:0\"\n\
             [feed.a]\n\
             video = {{ source = \"testcard\", size = \"320x180\", fps = 10, bitrate = \"200 kbit/s\" }}\n\
             {tone}\
             [publisher.main]\nfeed = \"a\"\nto = \"ome\"\nurl = \"{}\"\n",
            folder.path().join("state").display(),
            url.expose()
        );
        std::fs::write(folder.path().join("onair.toml"), config)?;
        let socket = UnixDatagram::bind(folder.path().join("notify"))?;
        let unit = Unit::read()?;
        let (knows, known) = watch::channel(Known::default());
        let path = folder.path().to_owned();
        let manager = tokio::spawn(async move {
            if let Err(error) = unit.run(&path, seed, &socket, &knows).await {
                println!("the service cannot be run: {error:#}");
            }
        });
        Ok(Self {
            folder,
            lab,
            known,
            _manager: AbortOnDropHandle::new(manager),
        })
    }

    /// Waits, `longest`, until the manager knows what is `wanted`.
    pub(crate) async fn knows(
        &self,
        longest: Duration,
        wanted: impl FnMut(&Known) -> bool,
    ) -> anyhow::Result<Known> {
        let mut known = self.known.clone();
        let known = tokio::time::timeout(longest, known.wait_for(wanted)).await;
        let late = || format!("not in time; {}", self.log());
        Ok(known.ok().with_context(late)??.clone())
    }

    /// The process that runs.
    pub(crate) fn process(&self) -> Option<u32> {
        self.known.borrow().process
    }

    /// The session that began last at the lab.
    pub(crate) fn session(&self) -> Option<Snapshot> {
        self.lab.hub().sessions().into_iter().max_by_key(|s| s.id.0)
    }

    /// Waits until the lab's last session is as `wanted`.
    pub(crate) async fn sees(
        &self,
        mut wanted: impl FnMut(&Snapshot) -> bool,
    ) -> anyhow::Result<Snapshot> {
        let mut changed = self.lab.hub().changed();
        let seen = async {
            loop {
                if let Some(session) = self.session().filter(&mut wanted) {
                    return anyhow::Ok(session);
                }
                changed.changed().await?;
            }
        };
        let seen = tokio::time::timeout(LONGEST, seen).await;
        seen.ok()
            .with_context(|| format!("not in time; {}", self.log()))?
    }

    /// Ends both.
    pub(crate) async fn end(self) {
        drop(self._manager);
        self.lab.stop().await;
    }

    /// What the program has said last.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Pictures of `session` that the lab has decoded.
pub(crate) fn decoded(session: &Snapshot) -> u64 {
    session.report.video.frames_decoded.unwrap_or_default()
}

/// What the unit says that matters here.
struct Unit {
    watchdog: Duration,
    restart: Duration,
}

impl Unit {
    fn read() -> anyhow::Result<Self> {
        let setting = |name: &str| {
            let line = UNIT.lines().find_map(|line| line.strip_prefix(name));
            let time = line.with_context(|| format!("the unit has no {name}"))?;
            anyhow::Ok(humantime::parse_duration(time)?)
        };
        Ok(Self {
            watchdog: setting("WatchdogSec=")?,
            restart: setting("RestartSec=")?,
        })
    }

    /// Runs the program from `folder`, and again whenever it has ended.
    async fn run(
        &self,
        folder: &Path,
        seed: u64,
        socket: &UnixDatagram,
        knows: &watch::Sender<Known>,
    ) -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut child = self.spawn(folder, seed)?;
            knows.send_modify(|known| known.process = Some(child.0.id()));
            let (mut fed, mut stopping) = (tokio::time::Instant::now(), false);
            let mut look = tokio::time::interval(LOOK_EVERY);
            let ended = loop {
                tokio::select! {
                    _ = look.tick() => if let Some(ended) = child.0.try_wait()? {
                        break ended;
                    },
                    n_bytes = socket.recv(&mut buffer) => {
                        for word in String::from_utf8_lossy(&buffer[..n_bytes?]).lines() {
                            match word.split_once('=') {
                                Some(("WATCHDOG", _)) => fed = tokio::time::Instant::now(),
                                Some(("STATUS", status)) => {
                                    knows.send_modify(|known| status.clone_into(&mut known.status));
                                }
                                Some(("STOPPING", _)) => stopping = true,
                                _ => {}
                            }
                        }
                    }
                    () = tokio::time::sleep_until(fed + self.watchdog), if !stopping => {
                        child.0.kill()?;
                        stopping = true;
                    }
                }
            };
            knows.send_modify(|known| {
                *known = Known {
                    ended: Some(ended),
                    ..Known::default()
                };
            });
            tokio::time::sleep(self.restart).await;
        }
    }

    fn spawn(&self, folder: &Path, seed: u64) -> anyhow::Result<Ended> {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(folder.join("log"))?;
        // The system ends it too, should this process not come to that.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_onair")])
            .args(["run", "--seed", &seed.to_string(), "--config"])
            .arg(folder.join("onair.toml"))
            .env("NOTIFY_SOCKET", folder.join("notify"))
            .env("WATCHDOG_USEC", self.watchdog.as_micros().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        child.map(Ended).context("the built program does not start")
    }
}

/// A process that does not outlive whoever has it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
