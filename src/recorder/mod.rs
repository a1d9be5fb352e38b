//! The flight recorder: what happened in the last hours, in files of bounded size that outlive a crash.
//!
//! It records every change of a state of feeds and publishers, their counts once a second (receiver reports and
//! requests of the servers among them), what the process uses, the log from INFO on, and the session descriptions
//! without their secrets. One thread writes; whoever has something to record leaves it in a bounded queue and never
//! waits. A killed process loses what waits in that queue, a power cut at most five seconds (one after a fault).
//!
//! # The files
//!
//! `STATE_DIR/recorder/NNNNNNNNNN.rec`, numbered upwards, at most four, each a quarter of the configured size. Each is
//! a row of records (see [`frame`]) of one JSON object each:
//!
//! | key | meaning |
//! |---|---|
//! | `at` | wall time, RFC 3339 |
//! | `up_s` | seconds since the process began, by the monotonic clock |
//! | `k` | `start`, `state`, `stats`, `log`, `sdp`, `lost` (so many entries were not recorded), `end` |
//! | others | by kind; `publisher` or `feed` names whose state or counts they are |
//!
//! A process that ended in order wrote `end`; `start` without `end` before it tells of one that did not.

mod account;
pub mod frame;
mod queue;
pub mod scrub;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::{FutureExt as _, select_all};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Level;

use crate::config::Daemon;
use crate::config::secret::Secret;
use crate::process;
use crate::publisher::Snapshot;
use crate::supervisor::View;
use crate::telemetry::{self, Said};

use account::Account;
use queue::{Entry, Pen};
use writer::Task;

/// Distance of counts.
const STATS_EVERY: Duration = Duration::from_secs(1);
/// Looks at the process are worth less, and cost more: one in so many.
const USAGE_EVERY: u32 = 10;
/// Least distance of looks at the states, however fast they change.
const LOOK_AFTER: Duration = Duration::from_millis(50);
/// Longest wait for the thread at the end; one that hangs in a disk is left behind.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// Where descriptions are told of.
const DESCRIPTIONS: &str = "onair::sdp";

/// Both clocks at one instant.
type Clocks = (Instant, SystemTime);

/// A running recorder, or none where the configuration wants none. Dropped, it ends without waiting.
#[must_use]
pub struct Recorder {
    running: Option<Running>,
}

struct Running {
    pen: Pen,
    thread: JoinHandle<()>,
    /// Cancels on drop.
    stop: DropGuard,
    follower: Option<tokio::task::JoinHandle<()>>,
    _listening: telemetry::Listening,
}

impl Recorder {
    /// Begins to record the log, if `config` names a folder for it and does not switch it off. Nothing that `secrets`
    /// has ever named will be in the files; it is asked before anything is written, may block for a moment, and
    /// returns all that holds now if any of it has changed since. Never fails: a disk that cannot be written is said in
    /// the log and tried again.
    pub fn start(
        config: &Daemon,
        secrets: impl FnMut() -> Option<Vec<Secret>> + Send + 'static,
    ) -> Self {
        let (Some(state_dir), Some(size)) = (&config.state_dir, config.recorder.size) else {
            return Self { running: None };
        };
        let began = clocks();
        let (pen, queue, dropped) = queue::queue(began.0);
        let task = Task {
            queue,
            dropped,
            secrets: Box::new(secrets),
            folder: store::folder(state_dir),
            size,
            began: began.0,
        };
        let thread = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || writer::run(task));
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                tracing::warn!(%error, "no thread for the flight recorder; nothing is recorded");
                return Self { running: None };
            }
        };
        pen.note(began, "start", start());
        let ear = pen.clone();
        let listening = telemetry::listen(move |said| {
            let now = clocks();
            ear.say(now.0, heard(now, said));
        });
        Self {
            running: Some(Running {
                pen,
                thread,
                stop: CancellationToken::new().drop_guard(),
                follower: None,
                _listening: listening,
            }),
        }
    }

    /// Records states and counts of all that `view` shows, from now on. Must be called within a tokio runtime.
    pub fn follow(&mut self, view: View) {
        if let Some(running) = &mut self.running {
            let stop = CancellationToken::new();
            let work = follow(view, running.pen.clone(), stop.clone());
            running.stop = stop.drop_guard();
            running.follower = Some(tokio::spawn(work));
        }
    }

    /// Records the end and waits until all is on the disk, at most two seconds.
    pub async fn finish(self) {
        let Some(running) = self.running else { return };
        drop(running.stop);
        if let Some(follower) = running.follower {
            // It ends at once, and a panic in it is in the log.
            drop(follower.await);
        }
        running.pen.note(clocks(), "end", Map::new());
        let thread = running.thread;
        // The thread ends when nobody holds the queue.
        drop(running._listening);
        drop(running.pen);
        let ended = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(FINISH_WITHIN, ended).await.is_err() {
            tracing::warn!("the flight recorder hangs in its disk and is left behind");
        }
    }
}

/// Records until told to stop; the last states too.
async fn follow(view: View, pen: Pen, stop: CancellationToken) {
    let mut account = Account::default();
    let mut watches = view.publishers();
    let mut tick = tokio::time::interval(STATS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut n_ticks: u32 = 0;
    loop {
        let stats = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            _ = tick.tick() => true,
            () = any_changed(&mut watches) => false,
        };
        let overview = view.overview();
        let now = clocks();
        for (kind, said) in account.states(now.0, &overview) {
            pen.note(now, kind, said);
        }
        if stats {
            for (kind, said) in account.stats(&overview) {
                pen.note(now, kind, said);
            }
            if n_ticks.is_multiple_of(USAGE_EVERY)
                && let Some(sample) = process::read()
            {
                let (kind, said) = account::usage(sample);
                pen.note(now, kind, said);
            }
            n_ticks = n_ticks.wrapping_add(1);
            renew(&mut watches, view.publishers());
        }
        if stop.is_cancelled() {
            return;
        }
        tokio::time::sleep(LOOK_AFTER).await;
    }
}

/// Waits until one of the publishers says something new; for ever if there is none left that could.
async fn any_changed(watches: &mut BTreeMap<String, watch::Receiver<Snapshot>>) {
    // One that has ended is silent.
    watches.retain(|_, watch| watch.has_changed().is_ok());
    if watches.is_empty() {
        return std::future::pending().await;
    }
    let changes = watches.values_mut().map(|watch| watch.changed().boxed());
    drop(select_all(changes).await);
}

/// Takes what has been added, and what was started anew under its old name.
fn renew(
    watches: &mut BTreeMap<String, watch::Receiver<Snapshot>>,
    latest: BTreeMap<String, watch::Receiver<Snapshot>>,
) {
    watches.retain(|name, _| latest.contains_key(name));
    for (name, watch) in latest {
        let known = watches.get(&name);
        if !known.is_some_and(|known| known.same_channel(&watch)) && watch.has_changed().is_ok() {
            watches.insert(name, watch);
        }
    }
}

/// What is recorded of the beginning.
fn start() -> Map<String, Value> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    Map::from_iter([
        ("version".to_owned(), env!("CARGO_PKG_VERSION").into()),
        ("pid".to_owned(), std::process::id().into()),
        (
            "boot".to_owned(),
            boot.map_or(Value::Null, |boot| boot.trim().into()),
        ),
    ])
}

/// What is recorded of something that was said.
fn heard(at: Clocks, said: Said) -> Entry {
    let (kind, level) = match said.target {
        DESCRIPTIONS => ("sdp", Value::Null),
        _ => ("log", said.level.as_str().into()),
    };
    let entry = [
        ("in", said.spans.into()),
        ("level", level),
        ("target", said.target.into()),
        ("message", said.message.into()),
        ("fields", Value::Object(said.fields)),
    ];
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => false,
    };
    Entry {
        at,
        kind,
        said: (entry.into_iter())
            .filter(|(_, value)| !is_empty(value))
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        is_fault: said.level <= Level::WARN,
    }
}

/// What the recorder's files hold.
#[derive(Debug)]
pub struct Contents {
    segments: Vec<Vec<u8>>,
    /// A process records there now.
    pub is_recording: bool,
}

impl Contents {
    /// The records in order, each a line of JSON; `Err` with the number of bytes where something is damaged, as the
    /// end of what a killed process wrote may be.
    pub fn lines(&self) -> impl Iterator<Item = Result<&str, usize>> {
        let readers = self.segments.iter();
        let readers = readers.flat_map(|data| frame::Reader::new(data));
        readers.map(|found| match found {
            frame::Found::Line(line) => Ok(line),
            frame::Found::Torn(n_bytes) => Err(n_bytes),
        })
    }
}

/// Reads what was recorded in `state_dir`, whether a process records there now or not. Takes as much memory as the
/// files, which is bounded; nothing recorded is no error.
pub fn read(state_dir: &Path) -> io::Result<Contents> {
    let folder = store::folder(state_dir);
    Ok(Contents {
        is_recording: store::is_locked(&folder),
        segments: store::read(&folder)?,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "records carry the time at which they were made, by both clocks"
)]
fn clocks() -> Clocks {
    (tokio::time::Instant::now().into_std(), SystemTime::now())
}
