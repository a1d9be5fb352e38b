//! Whether a publisher should be off the air on purpose, and until when. Pure: told the time and the minutes.

use std::fmt;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::ledger::DAYS_MAX;
use crate::config::schedule::{Hours, Schedule};

/// Why a publisher is off the air on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The stream has run for as long as `daily_minutes` allows.
    DailyLimit,
    /// It is outside the hours of `on_air`.
    Schedule,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DailyLimit => "the minutes of today are used up (daily_minutes)",
            Self::Schedule => "these are not its hours (on_air)",
        })
    }
}

/// Off the air on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Off {
    /// Why.
    pub why: Why,
    /// When it goes on, by the wall clock; `None` if that is not known.
    pub until: Option<Timestamp>,
}

/// What a publisher should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Off the air.
    Off(Off),
    /// On air; its hours end then, if they do.
    On(Option<Timestamp>),
}

/// What a publisher should be at `now`: off the air outside its hours, and when its stream `ran` for as long today as
/// `limit` allows.
pub fn duty(
    now: Timestamp,
    zone: &TimeZone,
    schedule: Option<&Schedule>,
    ran: Duration,
    limit: Option<Duration>,
) -> Duty {
    let end = match schedule.map(|schedule| schedule.at(now, zone)) {
        Some(Hours::Off(until)) => {
            let why = Why::Schedule;
            return Duty::Off(Off { why, until });
        }
        Some(Hours::On(until)) => until,
        None => None,
    };
    if limit.is_some_and(|limit| ran >= limit) {
        let tomorrow = zone.to_datetime(now).date().checked_add(1.day()).ok();
        let until = tomorrow.and_then(|day| midnight(day, zone));
        let why = Why::DailyLimit;
        return Duty::Off(Off { why, until });
    }
    Duty::On(end)
}

/// The beginning of a day; where midnight does not exist, the instant that stands for it.
fn midnight(day: Date, zone: &TimeZone) -> Option<Timestamp> {
    let midnight = zone.to_ambiguous_timestamp(day.at(0, 0, 0, 0));
    midnight.compatible().ok()
}

/// `time` that has passed up to `end`, by day of `zone`, the last day first.
pub(super) fn by_day(time: Duration, end: Timestamp, zone: &TimeZone) -> Vec<(Date, Duration)> {
    let mut days = Vec::new();
    let (mut left, mut end) = (time, end);
    let mut day = zone.to_datetime(end).date();
    while !left.is_zero() {
        let (begin, before) = (midnight(day, zone), day.yesterday());
        let (Some(begin), Ok(before), true) = (begin, before, days.len() < DAYS_MAX) else {
            // The far end of the calendar.
            days.push((day, left));
            break;
        };
        let of_day = Duration::try_from(end.duration_since(begin)).unwrap_or_default();
        let part = left.min(of_day);
        days.push((day, part));
        left -= part;
        (day, end) = (before, begin);
    }
    days
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_is_split_at_midnight_and_the_odd_days_have_their_own_length() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let split = |hours: u64, end: &str| -> Vec<(String, u64)> {
            let end: Timestamp = end.parse().unwrap();
            let days = by_day(Duration::from_secs(hours * 3_600), end, &berlin);
            let said = |(day, time): (Date, Duration)| (day.to_string(), time.as_secs() / 3_600);
            days.into_iter().map(said).collect()
        };
        let of = |days: &[(&str, u64)]| -> Vec<(String, u64)> {
            days.iter()
                .map(|(day, hours)| ((*day).to_owned(), *hours))
                .collect()
        };
        // 08:00 in Berlin.
        let morning = "2026-11-23T07:00:00Z";
        assert_eq!(split(3, morning), of(&[("2026-11-23", 3)]));
        let night = [("2026-11-23", 8), ("2026-11-22", 2)];
        assert_eq!(split(10, morning), of(&night));
        let midnight = "2026-11-22T23:00:00Z";
        assert_eq!(
            split(1, midnight),
            of(&[("2026-11-23", 0), ("2026-11-22", 1)])
        );
        // The days of 23 and of 25 hours.
        for (end, day, hours, before) in [
            ("2026-03-29T23:00:00Z", "2026-03-29", 23, "2026-03-28"),
            ("2026-10-26T00:00:00Z", "2026-10-25", 25, "2026-10-24"),
        ] {
            let all = split(hours + 2, end);
            let found = all.iter().find(|(found, _)| found == day);
            assert_eq!(found.map(|(_, hours)| *hours), Some(hours), "{all:?}");
            assert!(all.iter().any(|(found, _)| found == before), "{all:?}");
        }
        assert!(by_day(Duration::ZERO, Timestamp::UNIX_EPOCH, &berlin).is_empty());
        let eternity = by_day(Duration::MAX, Timestamp::MAX, &berlin);
        assert!(eternity.len() <= DAYS_MAX + 1);
    }

    #[test]
    fn hours_and_minutes_put_it_off_the_air_until_they_are_back() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let office = Schedule::read(["Mon-Fri 08:00-18:00"]).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let minute = Duration::from_secs(60);
        // A Monday, 09:00 in Berlin.
        let now = at("2026-11-23T08:00:00Z");
        let ask = |ran, limit| duty(now, &berlin, Some(&office), ran, limit);
        let end = Duty::On(Some(at("2026-11-23T17:00:00Z")));
        assert_eq!(ask(minute, None), end);
        assert_eq!(ask(minute, Some(2 * minute)), end);
        let off = Off {
            why: Why::DailyLimit,
            until: Some(at("2026-11-23T23:00:00Z")),
        };
        let spent = ask(2 * minute, Some(2 * minute));
        assert_eq!(spent, Duty::Off(off), "until midnight in Berlin");

        let evening = at("2026-11-23T17:00:00Z");
        let off = Off {
            why: Why::Schedule,
            until: Some(at("2026-11-24T07:00:00Z")),
        };
        let closed = duty(evening, &berlin, Some(&office), 9 * minute, Some(minute));
        assert_eq!(closed, Duty::Off(off));
        assert_eq!(duty(evening, &berlin, None, minute, None), Duty::On(None));
    }
}
