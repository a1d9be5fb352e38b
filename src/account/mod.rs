//! The guard of the account: what onair started it stops, and what it costs is counted.
//!
//! Before a start is asked for, it is written down; what is written down and not wanted any more is stopped: when a
//! publisher ends, when its hours end, and at the next start after a crash or a power cut. Minutes are counted per
//! stream and day while a stream runs, whoever started it, as long as a publisher here uses it. Two agents on one
//! host cannot use one folder of state; two agents on two hosts that fight over one stream are found out by the
//! starts and foreign stops of the last hour, which are written down too.
//!
//! A disk that is full or read-only never keeps anything off the air: it is said, and the guard goes on in memory.

mod file;
mod hours;
mod lease;
pub mod ledger;
mod orphans;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

pub use file::Error;
pub use hours::{Duty, Off, Why, duty};
pub use lease::{Lease, Ready, Release, Status};
pub use orphans::stop_orphans;

use crate::platform::Pace;
use file::Folder;
use ledger::{Key, Ledger};

/// The account's guard, shared by all publishers of the process. Cheap to clone.
#[derive(Clone)]
pub struct Account {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Mutex<Ledger>,
    /// Where the ledger is kept, if anywhere; also orders the writes.
    folder: Mutex<Option<Folder>>,
    /// Whether the last write failed, so that it is said once.
    failing: Mutex<bool>,
    pace: Pace,
    wall: Wall,
    /// By which the vendors' clocks are faster than the real ones.
    speed: u32,
}

/// The wall clock, where people and bills see it.
pub type Wall = Box<dyn Fn() -> Timestamp + Send + Sync>;

impl Account {
    /// The guard with its ledger in `state_dir`, which is made and locked; without one it lasts as long as the
    /// process. Reads and writes files, so it may block for a moment. Fails only if another process holds the folder.
    pub fn open(state_dir: Option<&Path>) -> Result<Self, Error> {
        let folder = match state_dir.map(Folder::open).transpose() {
            Err(error @ Error::Io { .. }) => {
                tracing::error!("{error}. Until then a crash leaves streams running");
                None
            }
            folder => folder?,
        };
        Ok(Self::with(folder, Box::new(Timestamp::now), 1))
    }

    /// For a lab whose vendors' clocks are `speed` times as fast as real ones, and whose wall clock is `wall`.
    pub fn in_lab(state_dir: Option<&Path>, wall: Wall, speed: u32) -> Result<Self, Error> {
        let folder = state_dir.map(Folder::open).transpose()?;
        Ok(Self::with(folder, wall, speed.max(1)))
    }

    fn with(folder: Option<Folder>, wall: Wall, speed: u32) -> Self {
        let ledger = folder.as_ref().map(Folder::read).unwrap_or_default();
        Self {
            shared: Arc::new(Shared {
                ledger: Mutex::new(ledger),
                folder: Mutex::new(folder),
                failing: Mutex::new(false),
                pace: Pace::default(),
                wall,
                speed,
            }),
        }
    }

    /// Whether what is written down outlives the process.
    pub fn is_kept(&self) -> bool {
        locked(&self.shared.folder).is_some()
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
        let written = tokio::task::spawn_blocking(move || shared.write()).await;
        if let Err(error) = written {
            tracing::error!("writing the state failed: {error}");
        }
    }
}

impl Shared {
    fn write(&self) {
        let folder = locked(&self.folder);
        let Some(folder) = folder.as_ref() else {
            return;
        };
        let ledger = locked(&self.ledger).clone();
        let written = folder.write(&ledger);
        let mut failing = locked(&self.failing);
        match (&written, *failing) {
            (Err(error), false) => tracing::error!(
                "the state cannot be written: {error}; make room on the disk. Until then a crash leaves streams running"
            ),
            (Ok(()), true) => tracing::info!("the state is written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        *failing = written.is_err();
    }
}

/// What is guarded is whole after any panic: each change is one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
