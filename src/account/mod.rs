//! The guard of the account: what onair started it stops, and what it costs is counted.
//!
//! Before a start is asked for, it is written down; what is written down and not wanted any more is stopped: when a
//! publisher ends, when its hours end, and at the next start after a crash or a power cut. Minutes are counted per
//! stream and day while a stream runs, whoever started it, as long as a publisher here uses it. Two agents on one
//! host cannot use one folder of state; two agents on two hosts that fight over one stream are found out by the
//! starts and foreign stops of the last hour, which are written down too.
//!
//! A disk that hangs, is full or read-only never keeps anything off the air: it is said for as long as it lasts, and
//! the guard goes on in memory. Against a disk that fills up later, the file keeps room for its next version.

mod claims;
mod file;
mod hours;
mod lease;
pub mod ledger;
mod orphans;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

pub use file::Error;
pub use hours::{Duty, Off, Why, duty};
pub use lease::{Lease, Ready, Release, Status};
pub use orphans::stop_orphans;

use crate::platform::Pace;
use claims::Claims;
use file::Folder;
use ledger::{Key, Ledger};

/// Longest wait for the disk: one that hangs must neither keep anything off the air nor a stream from being stopped.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// The account's guard, shared by all publishers of the process. Cheap to clone.
#[derive(Clone)]
pub struct Account {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Mutex<Ledger>,
    /// Where the ledger is kept, if anywhere. Whoever holds this lock writes; nobody waits for it.
    folder: Mutex<Option<Folder>>,
    /// Whether there is a folder.
    kept: bool,
    /// Changes that are to be written, and how many of them were: in vain or not.
    wanted: watch::Sender<u64>,
    settled: watch::Sender<u64>,
    /// Why what is changed is not written down, while that is so.
    trouble: watch::Sender<Option<String>>,
    claims: Arc<Claims>,
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
        match state_dir.map(Folder::open).transpose() {
            Err(error @ Error::Io { .. }) => {
                tracing::error!("{error}. Until then a crash leaves streams running");
                let account = Self::with(None, Box::new(Timestamp::now), 1);
                account.shared.say(Some(error.to_string()));
                Ok(account)
            }
            folder => Ok(Self::with(folder?, Box::new(Timestamp::now), 1)),
        }
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
                kept: folder.is_some(),
                folder: Mutex::new(folder),
                wanted: watch::Sender::new(0),
                settled: watch::Sender::new(0),
                trouble: watch::Sender::new(None),
                claims: Arc::default(),
                pace: Pace::default(),
                wall,
                speed,
            }),
        }
    }

    /// Whether what is written down outlives the process.
    pub fn is_kept(&self) -> bool {
        self.shared.kept
    }

    /// Why what the next process should know is not written down, while that is so; for people. Nothing is wrong with
    /// an account that was given no folder.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared.trouble.subscribe()
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
        if !self.shared.kept {
            return;
        }
        let mine = self.begin_write();
        let mut settled = self.shared.settled.subscribe();
        let seen_to = settled.wait_for(|settled| *settled >= mine);
        if tokio::time::timeout(WRITE_WITHIN, seen_to).await.is_err() {
            let hangs = format!(
                "the disk takes no state within {} s",
                WRITE_WITHIN.as_secs()
            );
            if self.shared.say(Some(hangs.clone())) {
                tracing::error!(
                    "{hangs}; going on without it. Until then a crash leaves streams running"
                );
            }
        }
    }

    /// Writes what could not be written, if there is such. Returns at once.
    pub fn write_again(&self) {
        if self.shared.kept && self.shared.trouble.borrow().is_some() {
            self.begin_write();
        }
    }

    /// Sees to it that the ledger is written as it is now; the number under which that is settled.
    fn begin_write(&self) -> u64 {
        let mut mine = 0;
        self.shared.wanted.send_modify(|wanted| {
            *wanted += 1;
            mine = *wanted;
        });
        // While a write is under way there is no second one, for each would keep a thread as long as the disk hangs:
        // that one sees to this change too.
        if !self.shared.is_writing() {
            let shared = Arc::clone(&self.shared);
            // What is dropped here goes on there: a change that was made is written.
            drop(tokio::task::spawn_blocking(move || shared.write()));
        }
        mine
    }
}

impl Shared {
    fn is_writing(&self) -> bool {
        matches!(self.folder.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Writes until every change was seen to, unless somebody does so already.
    fn write(&self) {
        // Looked at again without the lock: who found it taken has left its change to the one that had it.
        while *self.wanted.borrow() != *self.settled.borrow() {
            let folder = match self.folder.try_lock() {
                Ok(folder) => folder,
                Err(TryLockError::Poisoned(folder)) => folder.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let Some(folder) = folder.as_ref() else {
                return;
            };
            let wanted = *self.wanted.borrow();
            let ledger = locked(&self.ledger).clone();
            match folder.write(&ledger) {
                Ok(()) => {
                    if self.say(None) {
                        tracing::info!("the state is written again");
                    }
                }
                Err(error) => {
                    let what = format!(
                        "the state cannot be written: {error}; make room on the disk, and look whether it is read-only"
                    );
                    if self.say(Some(what.clone())) {
                        tracing::error!("{what}. Until then a crash leaves streams running");
                    }
                }
            }
            self.settled.send_replace(wanted);
        }
    }

    /// Says why nothing is written down, or that it is; whether that is news.
    fn say(&self, trouble: Option<String>) -> bool {
        let mut is_news = false;
        self.trouble.send_if_modified(|known| {
            is_news = known.is_some() != trouble.is_some();
            let differs = *known != trouble;
            *known = trouble;
            differs
        });
        is_news
    }
}

/// What is guarded is whole after any panic: each change is one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
