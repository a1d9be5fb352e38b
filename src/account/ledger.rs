//! What onair has started and what it cost, as a value: told the time, it changes and answers. Kept in a file by
//! [`Account`](super::Account).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::hours::by_day;
use crate::net;

/// The form of the file.
pub const SCHEMA: &str = "onair.streams/2";
/// The form before, which held the whole address of an interface.
const FORMER: &str = "onair.streams/1";
/// Most streams kept; one kiosk has a handful in its life.
const STREAMS_MAX: usize = 256;
/// Most days of minutes kept of a stream.
pub(super) const DAYS_MAX: usize = 62;
/// How far back starts count as one series.
const SERIES: Duration = Duration::from_secs(3_600);
/// Longest unattended time that is added to the minutes when a stream is found running again: beyond it a clock is
/// wrong rather than a bill that long.
const GAP_MAX: Duration = Duration::from_secs(86_400);

/// A stream, by whose it is, where its vendor is asked, and the vendor's identifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// `wowza-video` or `qencode`.
    pub vendor: String,
    /// The interface, as [`net::masked`] writes its address: its path may be as good as a password.
    pub api: String,
    /// The vendor's identifier.
    pub id: String,
}

/// Everything kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// [`SCHEMA`].
    schema: String,
    streams: Vec<Entry>,
}

/// What is kept of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    #[serde(flatten)]
    pub key: Key,
    /// The publisher that used it last.
    pub publisher: String,
    /// onair asked for its start, and has not seen it stopped since.
    pub ours: bool,
    /// The configuration wanted it to go on when onair ended.
    pub left: bool,
    /// When a start was asked for of which it is not known yet whether it took place; seconds since 1970.
    #[serde(default)]
    asked: Option<i64>,
    /// Up to when its minutes are counted, if it was running then; seconds since 1970.
    seen_running: Option<i64>,
    /// When onair started it lately, but for starts that ended in order; seconds since 1970.
    starts: Vec<i64>,
    /// When others stopped it lately; seconds since 1970.
    taken: Vec<i64>,
    /// Milliseconds that it ran, by day of the publisher's time zone.
    ran_ms: BTreeMap<String, u64>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            streams: Vec::new(),
        }
    }
}

impl Entry {
    /// Time since it was last seen running; `None` if it was not, or if a clock was set since.
    fn unseen(&self, now: Timestamp) -> Option<Duration> {
        let gap = now.as_second().checked_sub(self.seen_running?)?;
        u64::try_from(gap).ok().map(Duration::from_secs)
    }
}

impl Ledger {
    /// Reads the file; the second value says that it was of the former form, and should be written again. An error says
    /// why it cannot be understood, without a word of what stands there.
    pub fn read(text: &str) -> Result<(Self, bool), String> {
        // The parser's own words repeat what stands there.
        let read: Self = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("it is damaged at line {line}, column {column}")
        })?;
        let is_former = read.schema == FORMER;
        if !(is_former || read.schema == SCHEMA) || read.streams.len() > STREAMS_MAX {
            return Err("it is of another version of onair".to_owned());
        }
        let mut ledger = read;
        if is_former {
            SCHEMA.clone_into(&mut ledger.schema);
            for entry in &mut ledger.streams {
                entry.key.api = net::masked(&entry.key.api);
            }
        }
        Ok((ledger, is_former))
    }

    /// Takes over what `other` knows of streams that are not known here.
    pub fn add(&mut self, other: Self) {
        for entry in other.streams {
            if self.entry(&entry.key).is_none() {
                let key = entry.key.clone();
                *self.entry_mut(&key) = entry;
            }
        }
    }

    /// What is kept of a stream.
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.streams.iter().find(|entry| entry.key == *key)
    }

    /// Whether onair started it and has not seen it stopped since.
    pub fn is_ours(&self, key: &Key) -> bool {
        self.entry(key).is_some_and(|entry| entry.ours)
    }

    /// Time that it ran on `day`.
    pub fn ran_on(&self, key: &Key, day: Date) -> Duration {
        let ms = (self.entry(key)).and_then(|entry| entry.ran_ms.get(&day.to_string()));
        Duration::from_millis(ms.copied().unwrap_or(0))
    }

    /// Starts by onair whose stream did not end by onair, and stops by others, within the last hour.
    pub fn series(&self, key: &Key, now: Timestamp) -> (usize, usize) {
        let count = |times: &[i64]| times.iter().filter(|at| is_recent(**at, now)).count();
        self.entry(key)
            .map_or((0, 0), |entry| (count(&entry.starts), count(&entry.taken)))
    }

    /// The stream that `publisher` started at this vendor and that was not seen stopped since.
    pub fn held(&self, publisher: &str, vendor: &str, api: &str) -> Option<&Key> {
        let here = |entry: &&Entry| {
            let key = &entry.key;
            entry.ours && entry.publisher == publisher && key.vendor == vendor && key.api == api
        };
        self.streams.iter().find(here).map(|entry| &entry.key)
    }

    /// Streams that onair started and should stop, for `wanted` does not name them and nobody wanted them left.
    pub fn orphans(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        let orphan = |entry: &&Entry| entry.ours && !entry.left && !wanted(&entry.key);
        (self.streams.iter().filter(orphan))
            .map(|entry| entry.key.clone())
            .collect()
    }

    /// A start is about to be asked for.
    pub fn asking(&mut self, key: &Key, publisher: &str, now: Timestamp) {
        let entry = self.entry_mut(key);
        publisher.clone_into(&mut entry.publisher);
        entry.ours = true;
        entry.left = false;
        entry.asked = Some(now.as_second());
        entry.seen_running = Some(now.as_second());
        entry.starts.retain(|at| is_recent(*at, now));
        entry.starts.push(now.as_second());
    }

    /// The start just asked for was refused, so it did not take place.
    pub fn not_started(&mut self, key: &Key) {
        let entry = self.entry_mut(key);
        entry.ours = false;
        entry.asked = None;
        entry.seen_running = None;
        entry.starts.pop();
    }

    /// The start just asked for may not have taken place. It stays ours, for it may have or may still do so, and does
    /// not count.
    pub fn start_in_doubt(&mut self, key: &Key, now: Timestamp) {
        let entry = self.entry_mut(key);
        entry.asked = Some(now.as_second());
        entry.starts.pop();
    }

    /// The start that was asked for took place, as the vendor says.
    pub fn came_up(&mut self, key: &Key) {
        let entry = self.streams.iter_mut().find(|entry| entry.key == *key);
        if let Some(entry) = entry {
            entry.asked = None;
        }
    }

    /// How long ago a start was asked for of which it is not known yet whether it took place. `None` too if a clock
    /// was set since.
    pub fn in_doubt_for(&self, key: &Key, now: Timestamp) -> Option<Duration> {
        let asked = self.entry(key)?.asked?;
        let ago = u64::try_from(now.as_second() - asked).ok()?;
        Some(Duration::from_secs(ago))
    }

    /// onair stops what it started last: that start is over in order, and no part of a series.
    pub fn ends_in_order(&mut self, key: &Key) {
        self.entry_mut(key).starts.pop();
    }

    /// It was seen to rest; `taken` if others stopped it under us.
    pub fn stopped(&mut self, key: &Key, taken: bool, now: Timestamp) {
        let entry = self.entry_mut(key);
        entry.ours = false;
        entry.left = false;
        entry.asked = None;
        entry.seen_running = None;
        entry.taken.retain(|at| is_recent(*at, now));
        if taken {
            entry.taken.push(now.as_second());
        }
    }

    /// onair ends and leaves it running.
    pub fn leave(&mut self, key: &Key) {
        self.entry_mut(key).left = true;
    }

    /// It was found running at the start of onair: it is used again, and the time since it was last seen counts, by
    /// the days of `zone`.
    pub fn adopted(&mut self, key: &Key, publisher: &str, now: Timestamp, zone: &TimeZone) {
        let entry = self.entry_mut(key);
        publisher.clone_into(&mut entry.publisher);
        entry.left = false;
        let gap = entry.unseen(now).filter(|gap| *gap <= GAP_MAX);
        let counted = gap.filter(|_| entry.ours).unwrap_or_default();
        entry.seen_running = Some(now.as_second());
        self.ran(key, counted, now, zone);
    }

    /// It was found at rest, and nobody looked since it was last seen running: it ran on for as long as its vendor lets
    /// it without media, which is `idle_stop`, or until somebody stopped it, which cannot be told from that.
    pub fn lapsed(&mut self, key: &Key, idle_stop: Duration, now: Timestamp, zone: &TimeZone) {
        let entry = self.entry_mut(key);
        let (Some(gap), Some(seen)) = (entry.unseen(now), entry.seen_running.take()) else {
            return;
        };
        let time = gap.min(idle_stop);
        let end = i64::try_from(time.as_secs()).ok();
        let end = end.and_then(|time| Timestamp::from_second(seen.checked_add(time)?).ok());
        self.ran(key, time, end.unwrap_or(now), zone);
        self.entry_mut(key).seen_running = None;
    }

    /// It ran for `time` up to `end`, by the days of `zone`.
    pub fn ran(&mut self, key: &Key, time: Duration, end: Timestamp, zone: &TimeZone) {
        for (day, time) in by_day(time, end, zone) {
            self.ran_for(key, time, end, day);
        }
    }

    /// It ran for `time` up to `now`, on `day`.
    fn ran_for(&mut self, key: &Key, time: Duration, now: Timestamp, day: Date) {
        let entry = self.entry_mut(key);
        entry.seen_running = Some(now.as_second());
        let ms = entry.ran_ms.entry(day.to_string()).or_default();
        *ms = ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        while entry.ran_ms.len() > DAYS_MAX {
            entry.ran_ms.pop_first();
        }
    }

    fn entry_mut(&mut self, key: &Key) -> &mut Entry {
        let found = self.streams.iter().position(|entry| entry.key == *key);
        let at = found.unwrap_or_else(|| {
            if self.streams.len() >= STREAMS_MAX {
                // One that is no concern any more; all of them running is beyond any account.
                let idle = self.streams.iter().position(|entry| !entry.ours);
                self.streams.remove(idle.unwrap_or(0));
            }
            self.streams.push(Entry {
                key: key.clone(),
                publisher: String::new(),
                ours: false,
                left: false,
                asked: None,
                seen_running: None,
                starts: Vec::new(),
                taken: Vec::new(),
                ran_ms: BTreeMap::new(),
            });
            self.streams.len() - 1
        });
        &mut self.streams[at]
    }
}

/// Within the last hour. What lies ahead was written by a clock that was set since, and says nothing.
fn is_recent(at: i64, now: Timestamp) -> bool {
    u64::try_from(now.as_second() - at).is_ok_and(|ago| ago < SERIES.as_secs())
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    const DAY: Date = jiff::civil::date(2026, 11, 18);

    fn key(id: &str) -> Key {
        Key {
            vendor: "qencode".to_owned(),
            api: "https://api".to_owned(),
            id: id.to_owned(),
        }
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + minutes * 60).unwrap()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_was_asked_for_is_ours_until_it_is_seen_stopped() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        assert!(!ledger.is_ours(&a));
        ledger.asking(&a, "main", at(0));
        assert!(ledger.is_ours(&a));
        assert_eq!(ledger.held("main", "qencode", "https://api"), Some(&a));
        assert_eq!(ledger.held("other", "qencode", "https://api"), None);
        assert_eq!(ledger.orphans(|_| false), std::slice::from_ref(&a));
        assert_eq!(ledger.orphans(|key| *key == a), []);
        ledger.stopped(&a, false, at(1));
        assert!(!ledger.is_ours(&a) && ledger.orphans(|_| false).is_empty());
    }

    #[test]
    fn a_refused_start_is_neither_ours_nor_counted() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        ledger.asking(&a, "main", at(0));
        ledger.not_started(&a);
        assert!(!ledger.is_ours(&a));
        assert_eq!(ledger.series(&a, at(0)), (0, 0));
    }

    #[test]
    fn what_is_left_on_purpose_is_no_orphan_but_still_ours() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        ledger.asking(&a, "main", at(0));
        ledger.leave(&a);
        assert!(ledger.is_ours(&a) && ledger.orphans(|_| false).is_empty());
        ledger.adopted(&a, "main", at(1), &TimeZone::UTC);
        assert_eq!(
            ledger.orphans(|_| false).len(),
            1,
            "in use again, so no longer left"
        );
    }

    #[test]
    fn minutes_are_counted_by_day_and_by_stream() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        ledger.ran_for(&a, 3 * MINUTE, at(0), DAY);
        ledger.ran_for(&a, 4 * MINUTE, at(1), DAY);
        ledger.ran_for(&a, MINUTE, at(2), DAY + 1.day());
        ledger.ran_for(&key("b"), MINUTE, at(2), DAY);
        assert_eq!(ledger.ran_on(&a, DAY), 7 * MINUTE);
        assert_eq!(ledger.ran_on(&a, DAY + 1.day()), MINUTE);
        for n in 0..100 {
            ledger.ran_for(&a, MINUTE, at(3), DAY + (n + 2).days());
        }
        let kept = ledger.entry(&a).map(|entry| entry.ran_ms.len());
        assert_eq!(kept, Some(DAYS_MAX));
    }

    #[test]
    fn the_time_nobody_looked_counts_when_ours_is_found_running() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        ledger.asking(&a, "main", at(0));
        ledger.adopted(&a, "main", at(10), &TimeZone::UTC);
        assert_eq!(ledger.ran_on(&a, DAY), 10 * MINUTE);
        // A clock that stepped by a year, in either direction, makes no bill.
        ledger.adopted(&a, "main", at(525_600), &TimeZone::UTC);
        ledger.adopted(&a, "main", at(-525_600), &TimeZone::UTC);
        assert_eq!(ledger.ran_on(&a, DAY), 10 * MINUTE);
        // Another's time is another's bill.
        ledger.adopted(&key("b"), "main", at(0), &TimeZone::UTC);
        ledger.adopted(&key("b"), "main", at(10), &TimeZone::UTC);
        assert_eq!(ledger.ran_on(&key("b"), DAY), Duration::ZERO);
    }

    #[test]
    fn a_night_that_nobody_looked_belongs_to_both_its_days() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        // From 23:06 to 01:06.
        ledger.asking(&a, "main", at(12 * 60));
        ledger.adopted(&a, "main", at(14 * 60), &TimeZone::UTC);
        let (day, next) = (ledger.ran_on(&a, DAY), ledger.ran_on(&a, DAY + 1.day()));
        assert_eq!(day + next, 120 * MINUTE);
        assert!(day > 50 * MINUTE && next > 50 * MINUTE, "{day:?} {next:?}");
    }

    #[test]
    fn what_lapsed_while_nobody_looked_ran_for_the_vendors_time_at_most() {
        for (back_after, ran) in [(1, 1), (2, 2), (300, 2), (5_000_000, 2)] {
            let (mut ledger, a) = (Ledger::default(), key("a"));
            ledger.asking(&a, "main", at(0));
            ledger.lapsed(&a, 2 * MINUTE, at(back_after), &TimeZone::UTC);
            assert_eq!(ledger.ran_on(&a, DAY), ran * MINUTE, "{back_after}");
            ledger.lapsed(&a, 2 * MINUTE, at(back_after + 1), &TimeZone::UTC);
            assert_eq!(ledger.ran_on(&a, DAY), ran * MINUTE, "once is enough");
        }
        let (mut ledger, a) = (Ledger::default(), key("a"));
        ledger.asking(&a, "main", at(0));
        ledger.lapsed(&a, 2 * MINUTE, at(-10), &TimeZone::UTC);
        assert_eq!(ledger.ran_on(&a, DAY), Duration::ZERO, "the clock was set");
    }

    #[test]
    fn series_are_of_the_last_hour() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        for n in 0..5 {
            ledger.asking(&a, "main", at(n * 20));
            ledger.stopped(&a, n % 2 == 0, at(n * 20 + 1));
        }
        assert_eq!(ledger.series(&a, at(81)), (3, 2));
        assert_eq!(ledger.series(&a, at(1_000)), (0, 0));
        assert_eq!(
            ledger.series(&a, at(-1_000)),
            (0, 0),
            "the clock was set back"
        );
    }

    #[test]
    fn what_onair_itself_ends_is_no_series() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        ledger.asking(&a, "main", at(0));
        for n in 1..30 {
            ledger.asking(&a, "main", at(n));
            ledger.ends_in_order(&a);
            ledger.stopped(&a, false, at(n));
        }
        assert_eq!(ledger.series(&a, at(30)), (1, 0));
    }

    #[test]
    fn the_number_of_streams_is_bounded_and_what_runs_is_kept() {
        let mut ledger = Ledger::default();
        ledger.asking(&key("ours"), "main", at(0));
        for n in 0..1_000 {
            ledger.ran_for(&key(&n.to_string()), MINUTE, at(0), DAY);
        }
        assert!(ledger.streams.len() <= STREAMS_MAX && ledger.is_ours(&key("ours")));
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        ledger.asking(&a, "main", at(0));
        ledger.ran_for(&a, MINUTE, at(1), DAY);
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(Ledger::read(&text).unwrap(), (ledger, false));
        let other = text.replace("streams/2", "streams/9");
        assert!(Ledger::read(&other).unwrap_err().contains("version"));
    }

    #[test]
    fn a_file_of_the_former_form_is_read_and_the_addresses_in_it_are_masked() {
        let former = r#"{ "schema": "onair.streams/1", "streams": [{
            "vendor": "qencode", "api": "https://gate.example/planted-path/v1", "id": "a", "publisher": "main",
            "ours": true, "left": false, "seen_running": 1795000000, "starts": [1795000000], "taken": [],
            "ran_ms": { "2026-11-18": 60000 } }] }"#;
        let (ledger, is_former) = Ledger::read(former).unwrap();
        let key = Key {
            api: net::masked("https://gate.example/planted-path/v1"),
            ..key("a")
        };
        assert!(is_former && ledger.is_ours(&key));
        assert_eq!(ledger.ran_on(&key, DAY), MINUTE);
        let text = serde_json::to_string(&ledger).unwrap();
        assert!(
            !text.contains("planted") && text.contains("gate.example"),
            "{text}"
        );
        assert_eq!(Ledger::read(&text).unwrap(), (ledger, false));
    }

    #[test]
    fn a_start_is_in_doubt_until_the_vendor_says_what_became_of_it() {
        let (mut ledger, a) = (Ledger::default(), key("a"));
        assert_eq!(ledger.in_doubt_for(&a, at(0)), None);
        ledger.asking(&a, "main", at(0));
        assert_eq!(ledger.in_doubt_for(&a, at(1)), Some(MINUTE));
        assert_eq!(ledger.in_doubt_for(&a, at(-1)), None, "the clock was set");
        ledger.start_in_doubt(&a, at(2));
        assert_eq!(ledger.in_doubt_for(&a, at(3)), Some(MINUTE));
        ledger.came_up(&a);
        assert_eq!(ledger.in_doubt_for(&a, at(3)), None);
        assert!(ledger.is_ours(&a));
    }

    #[test]
    fn what_another_ledger_knows_is_added_and_what_is_known_stays() {
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        one.ran_for(&key("a"), MINUTE, at(0), DAY);
        other.asking(&key("a"), "main", at(0));
        other.asking(&key("b"), "main", at(0));
        one.add(other);
        assert!(!one.is_ours(&key("a")) && one.is_ours(&key("b")));
        assert_eq!(one.ran_on(&key("a"), DAY), MINUTE);
    }
}
