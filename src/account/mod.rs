//! The guard of the account: what onair started it stops, and what it costs is counted.
//!
//! Before a start is asked for, it is written down; what is written down and not wanted any more is stopped: when a
//! publisher ends, when its hours end, and at the next start after a crash or a power cut. Minutes are counted per
//! stream and day while a stream runs, whoever started it, as long as a publisher here uses it. Two agents on one
//! host cannot use one folder of state; two agents on two hosts that fight over one stream are found out by the
//! starts and foreign stops of the last hour, which are written down too.
//!
//! A disk that is full or read-only keeps nothing off the air. Being on air is what onair is there for; what is at
//! stake otherwise is the cost of one stream, and only if the process is killed before the disk takes state again: in
//! memory the guard goes on as ever, an end in order stops what was started, and a stream without media is stopped by its
//! vendor after two minutes (Qencode) or twenty (Wowza). So a start is asked for all the same, the failure is said once
//! with what to do, and each later change is a new try. What a folder that cannot be written says of a former onair is
//! read all the same.
//!
//! A start of which it is not known whether it took place may do so for another fifteen seconds: until then no vendor's
//! word that the stream rests ends its being ours.

mod file;
mod hours;
mod lease;
pub mod ledger;
mod orphans;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

pub use file::Error;
pub use hours::{Duty, Off, Why, duty};
pub use lease::{Lease, RELEASE_WITHIN, Ready, Release, Status};
pub use orphans::stop_orphans;

use crate::platform::Pace;
use file::Folder;
use ledger::{Key, Ledger};

/// Time for which a stream just started may still be shown as stopped, and for which a request to start it that was cut
/// off may still be carried out.
const STALE_FOR: Duration = Duration::from_secs(15);

/// Longest wait for the disk: one that hangs must neither keep anything off the air nor a stream from being stopped.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// The account's guard, shared by all publishers of the process. Cheap to clone.
#[derive(Clone)]
pub struct Account {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Mutex<Ledger>,
    /// Where the ledger is to be kept, if anywhere.
    path: Option<PathBuf>,
    /// That folder, once it can be used; also orders the writes.
    folder: Mutex<Option<Folder>>,
    /// Whether the last write failed, so that it is said once.
    failing: Mutex<bool>,
    orphaned: watch::Sender<Orphaned>,
    pace: Pace,
    wall: Wall,
    /// By which the vendors' clocks are faster than the real ones.
    speed: u32,
}

/// Streams that onair started, that nobody wants any more and that it could not stop, each with why; for people.
pub type Orphaned = BTreeMap<String, String>;

/// The wall clock, where people and bills see it.
pub type Wall = Box<dyn Fn() -> Timestamp + Send + Sync>;

impl Account {
    /// The guard with its ledger in `state_dir`, which is made and locked; without one it lasts as long as the
    /// process. Reads and writes files, so it may block for a moment. Fails only if another process holds the folder;
    /// one that cannot be used for any other reason is tried again at each change.
    pub fn open(state_dir: Option<&Path>) -> Result<Self, Error> {
        Self::with(state_dir, Box::new(Timestamp::now), 1)
    }

    /// For a lab whose vendors' clocks are `speed` times as fast as real ones, and whose wall clock is `wall`.
    pub fn in_lab(state_dir: Option<&Path>, wall: Wall, speed: u32) -> Result<Self, Error> {
        Self::with(state_dir, wall, speed.max(1))
    }

    fn with(state_dir: Option<&Path>, wall: Wall, speed: u32) -> Result<Self, Error> {
        let (folder, ledger, failing) = match state_dir.map(|path| (path, Folder::open(path))) {
            None => (None, Ledger::default(), false),
            Some((_, Ok(folder))) => {
                let ledger = folder.read();
                (Some(folder), ledger, false)
            }
            Some((path, Err(error @ Error::Io { .. }))) => {
                say_failing(&error);
                (None, file::glimpsed(path), true)
            }
            Some((_, Err(error @ Error::InUse { .. }))) => return Err(error),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                ledger: Mutex::new(ledger),
                path: state_dir.map(Path::to_owned),
                folder: Mutex::new(folder),
                failing: Mutex::new(failing),
                orphaned: watch::Sender::default(),
                pace: Pace::default(),
                wall,
                speed,
            }),
        })
    }

    /// Whether what is written down is meant to outlive the process.
    pub fn is_kept(&self) -> bool {
        self.shared.path.is_some()
    }

    /// How fast each vendor may be asked.
    pub fn pace(&self) -> &Pace {
        &self.shared.pace
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        (self.shared.wall)()
    }

    /// Streams that onair started and should stop, for `wanted` does not name them.
    pub fn orphans(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        locked(&self.shared.ledger).orphans(wanted)
    }

    /// Those of them that could not be stopped so far, now and as it changes.
    pub fn orphaned(&self) -> watch::Receiver<Orphaned> {
        self.shared.orphaned.subscribe()
    }

    /// A vendor's time, as long as it takes here.
    fn scaled(&self, time: Duration) -> Duration {
        time / self.shared.speed
    }

    /// Looks something up in the ledger.
    fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&locked(&self.shared.ledger))
    }

    /// Changes the ledger in memory; the next [`write`](Self::write) keeps it.
    fn change(&self, change: impl FnOnce(&mut Ledger)) {
        change(&mut locked(&self.shared.ledger));
    }

    /// Changes the ledger and waits until the disk has it, or until it is clear that the disk will not.
    async fn write(&self, change: impl FnOnce(&mut Ledger)) {
        self.change(change);
        let shared = Arc::clone(&self.shared);
        // What is dropped here goes on there: a change that was made is written.
        let written = tokio::task::spawn_blocking(move || shared.write());
        match tokio::time::timeout(WRITE_WITHIN, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("writing the state failed: {error}"),
            Err(_) => tracing::error!(
                "the disk takes no state within {} s; going on without it",
                WRITE_WITHIN.as_secs()
            ),
        }
    }
}

impl Shared {
    fn write(&self) {
        let Some(path) = &self.path else {
            return;
        };
        let mut folder = locked(&self.folder);
        let written = self.folder(&mut folder, path).and_then(|folder| {
            let ledger = locked(&self.ledger).clone();
            folder.write(&ledger)
        });
        let mut failing = locked(&self.failing);
        match (&written, *failing) {
            (Err(error), false) => say_failing(error),
            (Ok(()), true) => tracing::info!("the state is written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        *failing = written.is_err();
    }

    /// The folder, opened now if it could not be used before.
    fn folder<'f>(&self, folder: &'f mut Option<Folder>, path: &Path) -> Result<&'f Folder, Error> {
        Ok(match folder {
            Some(folder) => folder,
            none => {
                let opened = Folder::open(path)?;
                locked(&self.ledger).add(opened.read());
                none.insert(opened)
            }
        })
    }
}

fn say_failing(error: &Error) {
    tracing::error!(
        "no state is kept: {error}. Streams are started all the same; until it is kept again, what runs when onair \
         is killed goes on costing"
    );
}

/// What is guarded is whole after any panic: each change is one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
