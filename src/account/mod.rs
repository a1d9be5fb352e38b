//! The guard of the account: what onair started it stops, and what it costs is counted.
//!
//! Before a start is asked for, it is written down; what is written down and not wanted any more is stopped: when a
//! publisher ends, when its hours end, and at the next start after a crash or a power cut. Minutes are counted per
//! stream and day while a stream runs, whoever started it, as long as a publisher here uses it. Two agents on one
//! host cannot use one folder of state; two agents on two hosts that fight over one stream are found out by the
//! starts and foreign stops of the last hour, which are written down too.
//!
//! A disk that hangs, is full or read-only keeps nothing off the air. Being on air is what onair is there for; what is at
//! stake otherwise is the cost of one stream, and only if the process is killed before the disk takes state again: in
//! memory the guard goes on as ever, an end in order stops what was started, and a stream without media is stopped by its
//! vendor after two minutes (Qencode) or twenty (Wowza). So a start is asked for all the same, the failure is said for as
//! long as it lasts, and each later change is a new try. Against a disk that fills up later, the file keeps room for its
//! next version. What a folder that cannot be written says of a former onair is read all the same.
//!
//! A start of which it is not known whether it took place may do so for another fifteen seconds: until then no vendor's
//! word that the stream rests ends its being ours.

mod claims;
mod file;
mod hours;
mod lease;
pub mod ledger;
mod orphans;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

pub use file::Error;
pub use hours::{Duty, Off, Why, duty};
pub use lease::{Lease, RELEASE_WITHIN, Ready, Release, Status};
pub use orphans::stop_orphans;

use crate::platform::Pace;
use claims::Claims;
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
    /// That folder, once it can be used. Whoever holds this lock writes; nobody waits for it.
    folder: Mutex<Option<Folder>>,
    /// Changes that are to be written, and how many of them were: in vain or not.
    wanted: watch::Sender<u64>,
    settled: watch::Sender<u64>,
    /// Why what is changed is not written down, while that is so.
    trouble: watch::Sender<Option<String>>,
    orphaned: watch::Sender<Orphaned>,
    claims: Arc<Claims>,
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
        let (folder, ledger, trouble) = match state_dir.map(|path| (path, Folder::open(path))) {
            None => (None, Ledger::default(), None),
            Some((_, Ok(folder))) => {
                let ledger = folder.read();
                (Some(folder), ledger, None)
            }
            Some((path, Err(error @ Error::Io { .. }))) => {
                say_failing(&error);
                (None, file::glimpsed(path), Some(untold(&error)))
            }
            Some((_, Err(error @ Error::InUse { .. }))) => return Err(error),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                ledger: Mutex::new(ledger),
                path: state_dir.map(Path::to_owned),
                folder: Mutex::new(folder),
                wanted: watch::Sender::new(0),
                settled: watch::Sender::new(0),
                trouble: watch::Sender::new(trouble),
                orphaned: watch::Sender::default(),
                claims: Arc::default(),
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
        if self.shared.path.is_none() {
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
        if self.shared.path.is_some() && self.shared.trouble.borrow().is_some() {
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
        let Some(path) = &self.path else {
            return;
        };
        // Looked at again without the lock: who found it taken has left its change to the one that had it.
        while *self.wanted.borrow() != *self.settled.borrow() {
            let mut folder = match self.folder.try_lock() {
                Ok(folder) => folder,
                Err(TryLockError::Poisoned(folder)) => folder.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let wanted = *self.wanted.borrow();
            let written = self.folder(&mut folder, path).and_then(|folder| {
                let ledger = locked(&self.ledger).clone();
                folder.write(&ledger)
            });
            match written {
                Ok(()) => {
                    if self.say(None) {
                        tracing::info!("the state is written again");
                    }
                }
                Err(error) => {
                    if self.say(Some(untold(&error))) {
                        say_failing(&error);
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

/// Why nothing is written down, for people.
fn untold(error: &Error) -> String {
    format!("no state is kept: {error}")
}

fn say_failing(error: &Error) {
    tracing::error!(
        "{}. Streams are started all the same; until it is kept again, what runs when onair \
         is killed goes on costing",
        untold(error)
    );
}

/// What is guarded is whole after any panic: each change is one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
