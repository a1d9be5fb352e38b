//! Whether a publisher should be off the air on purpose, and until when. Pure: told the time and the minutes.

use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

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
        let until = tomorrow.and_then(|day| {
            let midnight = zone.to_ambiguous_timestamp(day.at(0, 0, 0, 0));
            midnight.compatible().ok()
        });
        let why = Why::DailyLimit;
        return Duty::Off(Off { why, until });
    }
    Duty::On(end)
}

#[cfg(test)]
mod tests {
    use super::*;

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
