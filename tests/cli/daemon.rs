//! `onair run` as a service manager sees it: the real binary, a lab to publish to, and the words it is told.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use onair::config::Server;
use onair::lab::hub::{Snapshot, State};
use onair::lab::{Lab, LabConfig, Profile};
use onair::media::time::MediaClock;
use tokio::net::UnixDatagram;

/// Longest wait for anything that should come soon. Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// A lab, and a daemon in a process of its own that publishes to it.
struct World {
    folder: tempfile::TempDir,
    lab: Lab,
    manager: UnixDatagram,
    /// What the manager was told, in order; each word once taken.
    heard: Vec<String>,
    daemon: Ended,
}

/// A process that does not outlive a test that fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests' one reading of both clocks"
)]
fn clock() -> MediaClock {
    MediaClock::new(Instant::now(), SystemTime::now())
}

/// The configuration: one publisher, `main`, to the stream `stream` of the lab; `bitrate` in kbit/s.
fn configuration(lab: &Lab, stream: &str, bitrate: u32) -> String {
    let Some(Server::Ome { url }) = lab.server(Profile::Ome021) else {
        panic!("the lab is such a server");
    };
    let (server, _) = url.expose().rsplit_once('/').expect("a stream");
    format!(
        "[feed.a]\nvideo = {{ source = \"testcard\", size = \"320x180\", fps = 10, bitrate = \"{bitrate} kbit/s\" }}\n\
         audio = {{ source = \"tone\" }}\n\
         [publisher.main]\nfeed = \"a\"\nto = \"ome\"\nurl = \"{server}/{stream}\"\n"
    )
}

impl World {
    async fn start(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let lab = Lab::start(LabConfig::new(vec![Profile::Ome021], clock()));
        let lab = lab.await.expect("the lab starts");
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).expect("a socket");
        let config = folder.path().join("onair.toml");
        std::fs::write(&config, configuration(&lab, "one", 400)).expect("written");
        let daemon = Command::new(env!("CARGO_BIN_EXE_onair"))
            .arg("run")
            .arg("--config")
            .arg(&config)
            .args(flags)
            .env("NOTIFY_SOCKET", &socket)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect("the built binary runs");
        Self {
            folder,
            lab,
            manager,
            heard: Vec::new(),
            daemon: Ended(daemon),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("onair.toml")
    }

    fn write(&self, text: &str) {
        // As editors do it: there is never half a file.
        let new = self.folder.path().join("onair.toml.new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.config()).expect("renamed");
    }

    fn signal(&self, name: &str) {
        let told = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.daemon.0.id().to_string())
            .status();
        assert!(told.expect("kill runs").success());
    }

    /// Waits for a line that begins so, and forgets it and all that came before.
    async fn told(&mut self, beginning: &str) -> String {
        let heard = tokio::time::timeout(SOON, async {
            let mut buffer = [0; 4096];
            loop {
                let at = self.heard.iter().position(|w| w.starts_with(beginning));
                if let Some(at) = at {
                    return self.heard.drain(..=at).next_back().expect("it is there");
                }
                let n_bytes = self.manager.recv(&mut buffer).await.expect("a message");
                let text = std::str::from_utf8(&buffer[..n_bytes]).expect("UTF-8");
                self.heard.extend(text.lines().map(str::to_owned));
            }
        });
        let heard = heard.await;
        heard.unwrap_or_else(|_| {
            panic!(
                "{beginning:?} was not said; {:?}\n{}",
                self.heard,
                self.log()
            )
        })
    }

    /// Waits until the lab shows what is wanted.
    async fn seen(&self, what: &str, wanted: impl Fn(&[Snapshot]) -> bool) {
        let mut changed = self.lab.hub().changed();
        let seen = async {
            while !wanted(&self.lab.hub().sessions()) {
                changed.changed().await.expect("the lab runs");
            }
        };
        if tokio::time::timeout(SOON, seen).await.is_err() {
            panic!("{what}: {:#?}\n{}", self.lab.hub().sessions(), self.log());
        }
    }

    /// Waits for the end of the process; its exit code.
    async fn ended(mut self) -> (Option<i32>, String) {
        let mut daemon = self.daemon;
        let ended = tokio::task::spawn_blocking(move || daemon.0.wait());
        let ended = tokio::time::timeout(SOON, ended).await;
        let status = ended.expect("in time").expect("waited").expect("a status");
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        self.heard.clear();
        self.lab.stop().await;
        (status.code(), log)
    }
}

/// Sessions by stream name: how many there were, and pictures decoded in the last.
fn streams(sessions: &[Snapshot]) -> BTreeMap<String, (usize, u64)> {
    let mut streams = BTreeMap::new();
    for session in sessions {
        let entry = streams.entry(session.name.clone()).or_insert((0, 0));
        entry.0 += 1;
        entry.1 = session.report.video.frames_decoded.unwrap_or_default();
    }
    streams
}

fn on_air(sessions: &[Snapshot], stream: &str) -> bool {
    let on_air = |s: &Snapshot| s.state == State::OnAir && s.name.ends_with(stream);
    sessions.iter().any(on_air)
}

fn last_decoded(sessions: &[Snapshot]) -> u64 {
    streams(sessions)
        .values()
        .map(|(_, decoded)| *decoded)
        .max()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_is_told_of_start_health_reload_and_end() {
    let mut world = World::start(&[], &[("WATCHDOG_USEC", "4000000")]).await;
    world.told("EXTEND_TIMEOUT_USEC=").await;
    // A start is not over, nor given up, for it.
    world.signal("HUP");
    world.told("READY=1").await;
    world.told("STATUS=main is on air").await;
    world.told("WATCHDOG=1").await;
    world.told("WATCHDOG=1").await;

    // A bad file changes nothing, and is said.
    let before = configuration(&world.lab, "one", 400);
    world.write(&before.replace("\"testcard\"", "\"testcrad\""));
    world.signal("HUP");
    world.told("RELOADING=1").await;
    world.told("MONOTONIC_USEC=").await;
    world.told("READY=1").await;
    let said = world.told("STATUS=").await;
    assert!(
        said.contains("has faults (1, see the log)") && said.contains("main is on air"),
        "{said}"
    );
    assert!(
        world
            .log()
            .contains("onair.toml:2:20: feed.a.video.source: "),
        "{}",
        world.log()
    );

    // A bitrate alone leaves the session alone.
    world.write(&configuration(&world.lab, "one", 200));
    world.signal("HUP");
    world.signal("HUP");
    world.told("RELOADING=1").await;
    world.told("READY=1").await;
    assert_eq!(world.told("STATUS=").await, "STATUS=main is on air");
    assert!(world.log().contains("feed a is retuned"), "{}", world.log());
    let decoded = last_decoded(&world.lab.hub().sessions());
    world
        .seen("the picture goes on", |s| last_decoded(s) > decoded + 20)
        .await;
    assert_eq!(world.lab.hub().sessions().len(), 1, "in the same session");

    world.signal("TERM");
    world.told("STOPPING=1").await;
    // Nothing is begun any more.
    world.signal("HUP");
    world.told("EXTEND_TIMEOUT_USEC=").await;
    let (code, log) = world.ended().await;
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_noticed_and_a_server_that_is_down_is_no_fault() {
    let mut world = World::start(&["--watch"], &[]).await;
    world.told("READY=1").await;
    world.seen("on air", |s| on_air(s, "one")).await;
    let two = configuration(&world.lab, "two", 400);
    world.write(&two);
    world.seen("on air as two", |s| on_air(s, "two")).await;
    assert!(world.log().contains("publisher main begins anew"));
    let moved = streams(&world.lab.hub().sessions());
    assert_eq!(moved.len(), 2, "{moved:?}");

    // Another publisher beside it, to a server that is not there.
    let lost =
        "[publisher.lost]\nfeed = \"a\"\nto = \"ome\"\nurl = \"ws://127.0.0.1:1/app/planted\"\n";
    world.write(&format!("{two}{lost}"));
    let said = world.told("STATUS=lost is off air and tries on (").await;
    assert!(said.ends_with("; main is on air"), "{said}");
    assert!(!said.contains("planted"), "{said}");
    world.write(&two);
    assert_eq!(world.told("STATUS=main").await, "STATUS=main is on air");
    assert_eq!(streams(&world.lab.hub().sessions()), {
        let mut same = moved.clone();
        for (name, (_, decoded)) in streams(&world.lab.hub().sessions()) {
            same.entry(name).and_modify(|entry| entry.1 = decoded);
        }
        same
    });
    world.signal("INT");
    let (code, log) = world.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("planted"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_in_which_nothing_runs_any_more_ends_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    let config = folder.path().join("onair.toml");
    let mut text = super::MINIMAL.to_owned();
    for n in 0..4 {
        text += &format!(
            "[publisher.p{n}]\nfeed = \"a\"\nto = \"ome\"\nurl = \"ws://127.0.0.1:1/app/{n}\"\n"
        );
    }
    std::fs::write(&config, text).expect("written");
    let (unread, log) = std::io::pipe().expect("a pipe");
    let mut filler = log.try_clone().expect("a pipe");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_onair"))
        .args(["run", "--log", "trace", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", &socket)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .map(Ended)
        .expect("the built binary runs");
    let heard = tokio::time::timeout(SOON, manager.recv(&mut [0; 4096])).await;
    heard.expect("in time").expect("a message");
    // From now on the log takes nothing: whoever has something to say is stuck, and each has.
    let filling = std::thread::spawn(move || {
        let block = [b'.'; 4096];
        while filler.write_all(&block).is_ok() {}
    });
    let ended = tokio::task::spawn_blocking(move || daemon.0.wait());
    let ended = tokio::time::timeout(SOON * 2, ended).await;
    let status = ended.expect("in time").expect("waited").expect("a status");
    assert_eq!(status.code(), Some(75));
    drop(unread);
    filling.join().expect("ends with the pipe");
}

#[test]
fn a_second_interrupt_ends_the_process_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    // A file that can be opened and never read: whoever reads it holds up an orderly end.
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .expect("mkfifo runs")
            .success()
    );
    let held = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe);
    let held = held.expect("a pipe");
    let config = folder.path().join("onair.toml");
    let endless = super::MINIMAL.replace("\"testcard\"", "\"file\", path = \"pipe\"");
    std::fs::write(&config, endless).expect("written");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_onair"))
        .args(["run", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary runs");
    let mut lines = BufReader::new(daemon.stderr.take().expect("piped")).lines();
    let mut said = |what: &str| {
        let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(what)));
        assert!(found.is_some(), "{what:?} was not said");
    };
    let terminate = || {
        let told = Command::new("kill").arg(daemon.id().to_string()).status();
        assert!(told.expect("kill runs").success());
    };
    said("session ended");
    terminate();
    said("draining");
    terminate();
    said("interrupted twice");
    let status = daemon.wait().expect("waited");
    assert_eq!(status.code(), Some(130));
    drop(held);
}

#[test]
fn a_manager_that_cannot_be_told_is_said_and_is_no_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("onair.toml");
    std::fs::write(&path, super::MINIMAL).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_onair"))
        .args(["run", "--for", "300ms", "--config"])
        .arg::<&Path>(&path)
        .env("NOTIFY_SOCKET", "vsock:2:1234")
        .stdin(Stdio::null())
        .output()
        .expect("the built binary runs");
    let said = super::text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("NOTIFY_SOCKET cannot be used"), "{said}");
}
