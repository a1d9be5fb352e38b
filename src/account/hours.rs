//! Whether a publisher should be off the air on purpose, and until when. Pure: told the time and the minutes.

use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};

use super::ledger::DAYS_MAX;
use crate::config::schedule::{Hours, Schedule};

/// What is kept of a day's minutes for parting from the server and stopping the stream, which costs until it rests.
const ENDING: Duration = Duration::from_secs(5);

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Off {
    /// Why.
    pub why: Why,
    /// When it goes on, by the wall clock in the publisher's time zone; `None` if that is not known.
    pub until: Option<Zoned>,
}

impl Off {
    /// When it goes on, as RFC 3339 has it.
    pub fn until(&self) -> Option<String> {
        let until = self.until.as_ref()?;
        let timestamp = until.timestamp();
        Some(timestamp.display_with_offset(until.offset()).to_string())
    }

    /// How long that is from `wall` on.
    pub fn left(&self, wall: SystemTime) -> Option<Duration> {
        let until = SystemTime::from(self.until.as_ref()?.timestamp());
        Some(until.duration_since(wall).unwrap_or_default())
    }
}

/// Why, and until when.
impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        match self.until() {
            Some(until) => write!(f, ", until {until}"),
            None => Ok(()),
        }
    }
}

/// What a publisher should be.
#[derive(Clone, Debug, PartialEq, Eq)]
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
            return off(Why::Schedule, until, zone);
        }
        Some(Hours::On(until)) => until,
        None => None,
    };
    if limit.is_some_and(|limit| is_used_up(ran, limit)) {
        let tomorrow = zone.to_datetime(now).date().checked_add(1.day()).ok();
        let until = tomorrow.and_then(|day| midnight(day, zone));
        return off(Why::DailyLimit, until, zone);
    }
    Duty::On(end)
}

fn off(why: Why, until: Option<Timestamp>, zone: &TimeZone) -> Duty {
    let until = until.map(|until| until.to_zoned(zone.clone()));
    Duty::Off(Off { why, until })
}

/// Whether a stream that `ran` must end, so that it will not have run for longer than `limit` once it has.
pub(super) fn is_used_up(ran: Duration, limit: Duration) -> bool {
    ran.saturating_add(ENDING) >= limit
}

/// How long a stream that `ran` may run on before [`is_used_up`].
pub(super) fn left_of(ran: Duration, limit: Duration) -> Duration {
    limit.saturating_sub(ran.saturating_add(ENDING))
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
        let second = Duration::from_secs(1);
        assert_eq!(ask(114 * second, Some(2 * minute)), end);
        assert_eq!(left_of(114 * second, 2 * minute), second);
        let early = ask(115 * second, Some(2 * minute));
        assert!(matches!(early, Duty::Off(_)), "its end takes time too");
        assert_eq!(left_of(115 * second, 2 * minute), Duration::ZERO);
        let off = Off {
            why: Why::DailyLimit,
            until: Some(at("2026-11-23T23:00:00Z").to_zoned(berlin.clone())),
        };
        assert_eq!(
            off.to_string(),
            "the minutes of today are used up (daily_minutes), until 2026-11-24T00:00:00+01:00"
        );
        assert_eq!(off.left(now.into()), Some(Duration::from_secs(15 * 3_600)));
        let late = SystemTime::from(now) + Duration::from_secs(86_400);
        assert_eq!(off.left(late), Some(Duration::ZERO));
        let spent = ask(2 * minute, Some(2 * minute));
        assert_eq!(spent, Duty::Off(off), "until midnight in Berlin");

        let evening = at("2026-11-23T17:00:00Z");
        let off = Off {
            why: Why::Schedule,
            until: Some(at("2026-11-24T07:00:00Z").to_zoned(berlin.clone())),
        };
        let closed = duty(evening, &berlin, Some(&office), 9 * minute, Some(minute));
        assert_eq!(closed, Duty::Off(off));
        assert_eq!(duty(evening, &berlin, None, minute, None), Duty::On(None));
    }
}
