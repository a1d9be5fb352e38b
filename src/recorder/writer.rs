//! The thread that writes: takes what waits, makes records of it without secrets, and keeps the disk's troubles away
//! from everybody else.
//!
//! Secrets are taken out before anything is written: every value that any of them has had since the process began is
//! known, for a server may speak of a token that was renewed three times since. So whoever reads the files needs to
//! know none of them.
//!
//! A disk that is full or cannot be written is said once, and tried again every minute; until then entries are
//! counted and thrown away.

#![expect(
    clippy::disallowed_methods,
    reason = "a plain thread reads the clock for its own deadlines"
)]

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::frame;
use super::queue::Entry;
use super::scrub::Scrubber;
use super::store::Store;
use crate::config::secret::Secret;

/// Longest time that what is written may be lost by a power cut; a disk is not asked more often, for a memory card
/// lives by the number of its writes.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// The same after a fault.
const SYNC_FAULT: Duration = Duration::from_secs(1);
/// Distance of attempts at a disk that cannot be written.
const RETRY: Duration = Duration::from_secs(60);
/// Most bytes of former secrets that stay known, those renewed last: a token of usual length that is renewed every hour
/// stays so for a month.
const KNOWN_MAX: usize = 1 << 20;
/// Entries written at once.
const BATCH: usize = 128;

/// What the thread is given.
pub(super) struct Task {
    pub(super) queue: Receiver<Entry>,
    /// Entries that found no place in the queue, since the beginning.
    pub(super) dropped: Arc<AtomicU64>,
    /// What must not be in the files, if it has changed since the call before.
    pub(super) secrets: Box<dyn FnMut() -> Option<Vec<Secret>> + Send>,
    pub(super) folder: PathBuf,
    /// Of all files, in bytes.
    pub(super) size: u64,
    /// When the process began.
    pub(super) began: Instant,
}

/// How it stands with the disk.
enum Disk {
    /// Not to be tried before.
    Away(Instant),
    Open(Store),
}

struct Writer {
    task: Task,
    scrubber: Scrubber,
    /// Every secret that the scrubber knows, the latest last.
    known: Vec<Secret>,
    disk: Disk,
    /// The trouble with the disk has been said.
    said_away: bool,
    /// Entries that were not written, and are not yet said to be lost.
    lost: u64,
    /// Of those dropped, how many are in `lost`, or were said.
    dropped: u64,
    /// When the disk last had everything.
    synced: Instant,
    /// It has not everything now.
    dirty: bool,
    /// Something went wrong since.
    fault: bool,
}

/// Writes until nobody can record any more.
pub(super) fn run(task: Task) {
    let now = Instant::now();
    let mut writer = Writer {
        task,
        scrubber: Scrubber::default(),
        known: Vec::new(),
        disk: Disk::Away(now),
        said_away: false,
        lost: 0,
        dropped: 0,
        synced: now,
        dirty: false,
        fault: false,
    };
    loop {
        let first = match writer.task.queue.recv_timeout(SYNC_FAULT) {
            Ok(entry) => Some(entry),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut entries: Vec<Entry> = first.into_iter().collect();
        entries.extend(writer.task.queue.try_iter().take(BATCH));
        if let Err(error) = writer.write(Instant::now(), &entries) {
            writer.away(&error);
        }
    }
    if let Disk::Open(store) = writer.disk
        && let Err(error) = store.sync()
    {
        tracing::debug!(%error, "the flight recorder's last records are perhaps not on the disk");
    }
}

impl Writer {
    fn write(&mut self, now: Instant, entries: &[Entry]) -> io::Result<()> {
        let dropped = self.task.dropped.load(Ordering::Relaxed);
        self.lost += dropped.wrapping_sub(self.dropped);
        self.dropped = dropped;
        // Also while there is no disk: none may be missed.
        self.renew_secrets();
        // Until it is seen to be written, everything here is lost.
        let lost_before = self.lost;
        self.lost += entries.len() as u64;
        if !entries.is_empty() && matches!(self.disk, Disk::Away(until) if now >= until) {
            self.disk = Disk::Open(Store::open(self.task.folder.clone(), self.task.size)?);
        }
        if matches!(self.disk, Disk::Away(_)) {
            return Ok(());
        }
        let mut records = Vec::with_capacity(entries.len() + 1);
        if let Some(entry) = entries.first()
            && lost_before > 0
        {
            let said = Map::from_iter([("entries".to_owned(), lost_before.into())]);
            records.extend(self.record(entry.at, "lost", &said));
        }
        let mut too_long = 0;
        for entry in entries {
            let record = self.record(entry.at, entry.kind, &entry.said);
            too_long += u64::from(record.is_none());
            records.extend(record);
        }
        let Disk::Open(store) = &mut self.disk else {
            return Ok(());
        };
        if !records.is_empty() {
            store.append(&records)?;
            if self.said_away {
                // One that is full may open and take something, and fail only then.
                store.sync()?;
                tracing::info!(lost = lost_before, "the flight recorder records again");
                self.said_away = false;
            }
            self.lost = too_long;
            self.dirty = true;
            self.fault |= entries.iter().any(|entry| entry.is_fault);
        }
        let wait = if self.fault { SYNC_FAULT } else { SYNC_EVERY };
        if self.dirty && now.saturating_duration_since(self.synced) >= wait {
            store.sync()?;
            (self.synced, self.dirty, self.fault) = (now, false, false);
        }
        Ok(())
    }

    fn renew_secrets(&mut self) {
        let Some(latest) = (self.task.secrets)() else {
            return;
        };
        let n_latest = latest.len();
        self.known.retain(|secret| !latest.contains(secret));
        self.known.extend(latest);
        let mut room = KNOWN_MAX;
        let newest = self.known.iter().rev().take_while(|secret| {
            let left = room.checked_sub(secret.expose().len());
            room = left.unwrap_or_default();
            left.is_some()
        });
        let n_kept = newest.count().max(n_latest);
        self.known.drain(..self.known.len() - n_kept);
        self.scrubber = Scrubber::new(self.known.clone());
    }

    fn away(&mut self, error: &io::Error) {
        if !self.said_away {
            tracing::warn!(
                "the flight recorder cannot write to {}: {error}; nothing is recorded until it can, which is tried \
                 every minute: see to the disk, or set size = \"off\" in [daemon.recorder]",
                self.task.folder.display()
            );
        }
        self.said_away = true;
        self.dirty = false;
        self.disk = Disk::Away(Instant::now() + RETRY);
    }

    /// A record without secrets; `None` if it is too long.
    fn record(
        &self,
        (now, wall): super::Clocks,
        kind: &'static str,
        said: &Map<String, Value>,
    ) -> Option<Vec<u8>> {
        let mut line = said.clone();
        let at = humantime::format_rfc3339_millis(wall).to_string();
        let up = now.saturating_duration_since(self.task.began).as_millis() as f64 / 1_000.0;
        line.insert("at".to_owned(), at.into());
        line.insert("up_s".to_owned(), up.into());
        line.insert("k".to_owned(), kind.into());
        let mut line = Value::Object(line);
        self.scrubber.value(&mut line);
        let mut record = Vec::new();
        frame::write(&line.to_string(), &mut record).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;
    use crate::recorder::queue::queue;
    use crate::recorder::read;

    fn writer(folder: &Path) -> Writer {
        let now = Instant::now();
        let (_, queue, dropped) = queue(now);
        Writer {
            task: Task {
                queue,
                dropped,
                secrets: Box::new(|| Some(vec![Secret::new("planted")])),
                folder: folder.to_owned(),
                size: 1 << 20,
                began: now,
            },
            scrubber: Scrubber::default(),
            known: Vec::new(),
            disk: Disk::Away(now),
            said_away: false,
            lost: 0,
            dropped: 0,
            synced: now,
            dirty: false,
            fault: false,
        }
    }

    fn entry(n: u64) -> Entry {
        Entry {
            at: (Instant::now(), SystemTime::UNIX_EPOCH),
            kind: "log",
            said: Map::from_iter([
                ("n".to_owned(), n.into()),
                ("message".to_owned(), "says planted".into()),
            ]),
            is_fault: false,
        }
    }

    fn lines(state: &Path) -> Vec<Value> {
        let contents = read(state).unwrap();
        let lines = contents.lines().map(|line| line.unwrap().to_owned());
        lines
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect()
    }

    #[test]
    fn what_is_written_has_its_times_and_no_secret() {
        let state = tempfile::tempdir().unwrap();
        let mut writer = writer(&crate::recorder::store::folder(state.path()));
        let now = Instant::now();
        writer.write(now, &[entry(1), entry(2)]).unwrap();
        let lines = lines(state.path());
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["message"], "says ***");
        assert_eq!(lines[1]["at"], "1970-01-01T00:00:00.000Z");
        assert_eq!((&lines[1]["k"], &lines[1]["n"]), (&"log".into(), &2.into()));
        assert_eq!(writer.lost, 0);
    }

    #[test]
    fn every_value_that_a_secret_ever_had_is_kept_out() {
        let state = tempfile::tempdir().unwrap();
        let mut writer = writer(&crate::recorder::store::folder(state.path()));
        let secret = Arc::new(std::sync::Mutex::new(None));
        let renewed = Arc::clone(&secret);
        writer.task.secrets = Box::new(move || {
            let token: Option<String> = renewed.lock().unwrap().take();
            token.map(|token| vec![Secret::new(token)])
        });
        let now = Instant::now();
        let mut said = String::new();
        for n in 0..6 {
            // Said at once by whoever was handed it, and later on by whoever remembers it.
            *secret.lock().unwrap() = Some(format!("token-number-{n}"));
            said += &format!("token-number-{n} ");
            let entry = Entry {
                said: Map::from_iter([("message".to_owned(), said.clone().into())]),
                ..entry(n)
            };
            writer.write(now, &[entry]).unwrap();
        }
        let lines = lines(state.path());
        assert_eq!(lines.len(), 6);
        for (line, n) in lines.iter().zip(1..) {
            assert_eq!(line["message"], "*** ".repeat(n), "{n}");
        }
    }

    #[test]
    fn what_is_known_of_former_secrets_is_bounded_and_the_latest_stay() {
        let state = tempfile::tempdir().unwrap();
        let mut writer = writer(state.path());
        let mut n = 0;
        writer.task.secrets = Box::new(move || {
            n += 1;
            let long = |what: char| Secret::new(format!("{n}{what}").repeat(20_000));
            Some(vec![long('a'), long('b')])
        });
        for _ in 0..50 {
            writer.renew_secrets();
            let bytes: usize = writer.known.iter().map(|s| s.expose().len()).sum();
            assert!(bytes <= KNOWN_MAX && writer.known.len() >= 2, "{bytes}");
        }
        let latest = writer.known.last().map(|s| s.expose()[..3].to_owned());
        assert_eq!(latest.as_deref(), Some("50b"));
        assert!(writer.known.len() > 10);

        writer.task.secrets = Box::new(|| {
            let long = |n: u8| Secret::new(char::from(n).to_string().repeat(KNOWN_MAX / 2));
            Some((b'a'..b'e').map(long).collect())
        });
        writer.renew_secrets();
        assert_eq!(writer.known.len(), 4, "what holds now is known at any rate");
    }

    #[test]
    fn a_full_disk_is_said_once_however_long_it_is_full() {
        let state = tempfile::tempdir().unwrap();
        let folder = crate::recorder::store::folder(state.path());
        std::fs::create_dir(&folder).unwrap();
        // It opens, and takes nothing.
        let segment = folder.join("0000000001.rec");
        std::os::unix::fs::symlink("/dev/full", &segment).unwrap();
        let mut writer = writer(&folder);
        let mut now = Instant::now();
        for n in 0..3 {
            let error = writer.write(now, &[entry(n)]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(writer.said_away, n > 0, "it is not said to be over");
            writer.away(&error);
            now = Instant::now() + RETRY;
        }
        std::fs::remove_file(&segment).unwrap();
        writer.write(now, &[entry(3)]).unwrap();
        assert!(!writer.said_away);
        let lines = lines(state.path());
        assert_eq!(
            (&lines[0]["k"], &lines[0]["entries"]),
            (&"lost".into(), &3.into())
        );
        assert_eq!(lines[1]["n"], 3);
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_left_alone_for_a_minute_and_the_loss_is_said() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        // A file where the folder should be: as good as a read-only disk, also for root.
        std::fs::write(&state, "in the way").unwrap();
        let mut writer = writer(&crate::recorder::store::folder(&state));
        let now = Instant::now();
        let error = writer.write(now, &[entry(1)]).unwrap_err();
        writer.away(&error);
        std::fs::remove_file(&state).unwrap();
        assert!(writer.write(now, &[entry(2), entry(3)]).is_ok());
        assert_eq!(writer.lost, 3);
        assert!(lines(&state).is_empty());
        let later = Instant::now() + RETRY;
        writer.write(later, &[entry(4)]).unwrap();
        let lines = lines(&state);
        assert_eq!(lines[0]["k"], "lost");
        assert_eq!(lines[0]["entries"], 3);
        assert_eq!(lines[1]["n"], 4);
        assert_eq!((writer.lost, writer.said_away), (0, false));
    }

    #[test]
    fn the_disk_is_asked_every_few_seconds_and_sooner_after_a_fault() {
        let state = tempfile::tempdir().unwrap();
        let mut writer = writer(&crate::recorder::store::folder(state.path()));
        let start = writer.synced;
        let mut look = |after_ms: u64, entries: &[Entry]| {
            let now = start + Duration::from_millis(after_ms);
            writer.write(now, entries).unwrap();
            (writer.synced - start).as_millis()
        };
        assert_eq!(look(500, &[entry(1)]), 0);
        assert_eq!(look(4_900, &[entry(2)]), 0);
        assert_eq!(look(5_000, &[]), 5_000);
        assert_eq!(look(20_000, &[]), 5_000, "there is nothing new");
        assert_eq!(look(20_100, &[entry(3)]), 20_100);
        let fault = Entry {
            is_fault: true,
            ..entry(4)
        };
        assert_eq!(look(20_200, &[fault]), 20_100);
        assert_eq!(look(21_100, &[]), 21_100);
    }
}
