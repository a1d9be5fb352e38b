//! Between everything that has something to record and the one thread that writes: bounded, never waits, drops the
//! newest and counts it.
//!
//! Counts and states come at a steady pace. What is logged does not, so it has an allowance: without one, an error
//! that repeats itself would push out its own beginning, and wear out a memory card.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value};

use super::Clocks;

/// Entries that wait to be written.
const DEPTH: usize = 512;
/// Entries of the log that may come at once.
const BURST: f64 = 400.0;
/// Entries of the log per second in the long run.
const STEADY: f64 = 20.0;
/// Longest text of an entry; a description is longer than all else.
const TEXT_MAX: usize = 2 << 10;
const DESCRIPTION_MAX: usize = 12 << 10;

/// One thing to record.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Clocks,
    pub(super) kind: &'static str,
    pub(super) said: Map<String, Value>,
    /// Something went wrong: it should be on the disk soon.
    pub(super) is_fault: bool,
}

/// The way into the recorder. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pen {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
    allowance: Arc<Mutex<Allowance>>,
}

/// A queue: the way in, the way out, and how many entries found no place.
pub(super) fn queue(now: Instant) -> (Pen, Receiver<Entry>, Arc<AtomicU64>) {
    let (queue, receiver) = sync_channel(DEPTH);
    let dropped = Arc::new(AtomicU64::new(0));
    let pen = Pen {
        queue,
        dropped: Arc::clone(&dropped),
        allowance: Arc::new(Mutex::new(Allowance::new(now))),
    };
    (pen, receiver, dropped)
}

impl Pen {
    /// Records something that comes at a steady pace.
    pub(super) fn note(&self, at: Clocks, kind: &'static str, said: Map<String, Value>) {
        self.put(Entry {
            at,
            kind,
            said,
            is_fault: false,
        });
    }

    /// Records something that may come in any number, as far as the allowance goes. Long texts are cut.
    pub(super) fn say(&self, now: Instant, mut entry: Entry) {
        let allowed = {
            let mut allowance = self
                .allowance
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            allowance.take(now)
        };
        if !allowed {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let most = match entry.kind {
            "sdp" => DESCRIPTION_MAX,
            _ => TEXT_MAX,
        };
        for (_, value) in &mut entry.said {
            shorten(value, most);
        }
        self.put(entry);
    }

    fn put(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn shorten(value: &mut Value, most: usize) {
    match value {
        Value::String(text) if text.len() > most => {
            let cut = text.floor_char_boundary(most);
            text.truncate(cut);
            text.push_str("...");
        }
        Value::Object(fields) => fields
            .iter_mut()
            .for_each(|(_, value)| shorten(value, most)),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}

/// How many entries may still come: refills steadily up to a burst.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.at = now.max(self.at);
        self.left = (self.left + passed.as_secs_f64() * STEADY).min(BURST);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn entry(kind: &'static str, text: &str) -> Entry {
        Entry {
            at: (Instant::now(), SystemTime::UNIX_EPOCH),
            kind,
            said: Map::from_iter([("text".to_owned(), text.into())]),
            is_fault: false,
        }
    }

    #[test]
    fn a_storm_is_cut_off_and_counted_and_forgiven_with_time() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        let taken = (0..10_000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken, BURST as usize);
        let later = now + Duration::from_secs(3);
        let taken = (0..10_000).filter(|_| allowance.take(later)).count();
        assert_eq!(taken, 3 * STEADY as usize);
        assert!(!allowance.take(now), "time does not go back");
    }

    #[test]
    fn a_full_queue_drops_and_never_waits() {
        let now = Instant::now();
        let (pen, receiver, dropped) = queue(now);
        for _ in 0..DEPTH + 10 {
            pen.note((now, SystemTime::UNIX_EPOCH), "stats", Map::new());
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 10);
        assert_eq!(receiver.try_iter().count(), DEPTH);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let now = Instant::now();
        let (pen, receiver, _) = queue(now);
        pen.say(now, entry("log", &"ä".repeat(TEXT_MAX)));
        pen.say(now, entry("sdp", &"ä".repeat(TEXT_MAX)));
        let length = |entry: &Entry| entry.said["text"].as_str().map(str::len);
        let got: Vec<Entry> = receiver.try_iter().collect();
        assert_eq!(length(&got[0]), Some(TEXT_MAX + 3));
        assert_eq!(length(&got[1]), Some(2 * TEXT_MAX));
    }
}
