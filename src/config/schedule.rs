//! Hours on air as people write them (`Mon-Fri 08:00-18:00`), and what they mean at an instant.
//!
//! Windows are wall-clock hours in one time zone: on the two odd days of the year they are an hour longer or shorter,
//! and a window that begins in the hour that does not exist begins right after it. Told the time; reads no clock.

use std::fmt;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan as _};

/// More windows than any timetable has.
const WINDOWS_MAX: usize = 32;
/// A week and both its edges: any window that matters now or begins next starts within these days.
const DAYS_BACK: i64 = 1;
const DAYS_AHEAD: i64 = 8;
/// Minutes of a day; also written `24:00`.
const DAY: u16 = 24 * 60;

/// When a publisher is on air. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    windows: Vec<Window>,
}

/// Some days of the week, from one time of the day to another; past midnight if the end is not after the start.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// From Monday.
    days: [bool; 7],
    /// Minutes from midnight.
    from: u16,
    /// Minutes from midnight of the first day, up to two days.
    until: u16,
}

/// What a schedule says of an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hours {
    /// Off air; on again at that instant. `None` only at the far end of the calendar.
    Off(Option<Timestamp>),
    /// On air; off at that instant. `None` means around the clock.
    On(Option<Timestamp>),
}

impl Schedule {
    /// Reads windows: each `[DAYS] HH:MM-HH:MM`, where days are `Mon-Fri`, `Sat,Sun`, `daily` or nothing. `00:00-00:00` is
    /// the whole day.
    pub fn read<'t>(windows: impl IntoIterator<Item = &'t str>) -> Option<Self> {
        let windows: Option<Vec<Window>> = windows.into_iter().map(Window::read).collect();
        windows
            .filter(|w| (1..=WINDOWS_MAX).contains(&w.len()))
            .map(|windows| Self { windows })
    }

    /// What holds at `now` in `zone`.
    pub fn at(&self, now: Timestamp, zone: &TimeZone) -> Hours {
        let today = zone.to_datetime(now).date();
        let mut spans: Vec<(Timestamp, Timestamp)> = (-DAYS_BACK..=DAYS_AHEAD)
            .filter_map(|n| today.checked_add(Span::new().try_days(n).ok()?).ok())
            .flat_map(|date| self.windows.iter().filter_map(move |w| w.on(date, zone)))
            .collect();
        spans.sort();
        let mut on_until = None;
        for (from, until) in spans {
            let reached = on_until.unwrap_or(now);
            if from <= reached && until > reached {
                on_until = Some(until);
            } else if from > reached {
                return match on_until {
                    Some(end) => Hours::On(Some(end)),
                    None => Hours::Off(Some(from)),
                };
            }
        }
        match on_until {
            // Every window of the coming week follows on another: there is no end to it.
            Some(_) => Hours::On(None),
            None => Hours::Off(None),
        }
    }
}

impl Window {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let (days, hours) = match text.rsplit_once(char::is_whitespace) {
            Some((days, hours)) => (days_of(days)?, hours),
            None => ([true; 7], text),
        };
        let (from, until) = hours.split_once('-')?;
        let (from, until) = (minutes(from)?, minutes(until)?);
        // Around the clock is what nobody means by an hour that is also the end, but midnight.
        if from == until && from != 0 {
            return None;
        }
        let until = if until > from { until } else { until + DAY };
        (from < DAY).then_some(Self { days, from, until })
    }

    /// The window that begins on `date`, if one does.
    fn on(&self, date: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).ok()?;
        self.days[weekday].then_some(())?;
        let instant = |minute: u16| -> Option<Timestamp> {
            let midnight: DateTime = date.at(0, 0, 0, 0);
            let civil = midnight.checked_add(i64::from(minute).minutes()).ok()?;
            zone.to_ambiguous_timestamp(civil).compatible().ok()
        };
        let (from, until) = (instant(self.from)?, instant(self.until)?);
        (from < until).then_some((from, until))
    }
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, least: usize| -> Option<u16> {
        let plain = (least..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let (hours, minutes) = (number(hours, 1)?, number(minutes, 2)?);
    (minutes < 60 && hours * 60 + minutes <= DAY).then_some(hours * 60 + minutes)
}

fn days_of(text: &str) -> Option<[bool; 7]> {
    if text.trim().eq_ignore_ascii_case("daily") {
        return Some([true; 7]);
    }
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        let mut at = first;
        loop {
            days[at] = true;
            if at == last {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Some(days)
}

/// From Monday.
fn day(text: &str) -> Option<usize> {
    const DAYS: [(&str, Weekday); 7] = [
        ("mon", Weekday::Monday),
        ("tue", Weekday::Tuesday),
        ("wed", Weekday::Wednesday),
        ("thu", Weekday::Thursday),
        ("fri", Weekday::Friday),
        ("sat", Weekday::Saturday),
        ("sun", Weekday::Sunday),
    ];
    let text = text.trim();
    DAYS.iter()
        .position(|(name, _)| text.eq_ignore_ascii_case(name))
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, until) = match self {
            Self::Off(until) => ("off", until),
            Self::On(until) => ("on", until),
        };
        match until {
            Some(until) => write!(f, "{word} until {until}"),
            None => f.write_str(word),
        }
    }
}

#[cfg(test)]
mod tests;
