use super::*;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// An instant by its civil time.
fn at(civil: &str, zone: &TimeZone) -> Timestamp {
    let civil: DateTime = civil.parse().unwrap();
    zone.to_ambiguous_timestamp(civil).compatible().unwrap()
}

fn schedule(windows: &[&str]) -> Schedule {
    Schedule::read(windows.iter().copied()).unwrap_or_else(|| panic!("{windows:?}"))
}

/// Asks at the civil time `now`; what holds, and until when in civil time.
fn ask(windows: &[&str], zone_name: &str, now: &str) -> (bool, Option<String>) {
    let zone = zone(zone_name);
    let (on, until) = match schedule(windows).at(at(now, &zone), &zone) {
        Hours::On(until) => (true, until),
        Hours::Off(until) => (false, until),
    };
    (on, until.map(|until| zone.to_datetime(until).to_string()))
}

#[test]
fn office_hours_hold_on_weekdays() {
    let windows = &["Mon-Fri 08:00-18:00"];
    let ask = |now| ask(windows, "Europe/Berlin", now);
    // 2026-11-20 is a Friday.
    for (now, on, until) in [
        ("2026-11-20T07:59:59", false, "2026-11-20T08:00:00"),
        ("2026-11-20T08:00:00", true, "2026-11-20T18:00:00"),
        ("2026-11-20T17:59:59", true, "2026-11-20T18:00:00"),
        ("2026-11-20T18:00:00", false, "2026-11-23T08:00:00"),
        ("2026-11-22T12:00:00", false, "2026-11-23T08:00:00"),
    ] {
        assert_eq!(ask(now), (on, Some(until.to_owned())), "{now}");
    }
    assert_eq!(schedule(&["Mon-Fri 8:00-18:00"]), schedule(windows));
}

#[test]
fn a_window_goes_over_midnight_and_belongs_to_the_day_it_begins() {
    let ask = |now| ask(&["Fri,Sat 22:00-02:00"], "Europe/Berlin", now);
    assert_eq!(
        ask("2026-11-21T01:00:00"),
        (true, Some("2026-11-21T02:00:00".to_owned()))
    );
    assert_eq!(
        ask("2026-11-21T03:00:00"),
        (false, Some("2026-11-21T22:00:00".to_owned()))
    );
    assert!(ask("2026-11-22T01:59:00").0, "Saturday's");
    assert!(!ask("2026-11-22T22:30:00").0, "Sunday has none");
    assert!(!ask("2026-11-20T01:00:00").0, "Thursday had none");
}

#[test]
fn windows_that_meet_or_overlap_are_one() {
    let windows = &[
        "Mon 08:00-12:00",
        "Mon 12:00-14:00",
        "Mon 13:00-24:00",
        "Tue 00:00-01:00",
    ];
    let got = ask(windows, "UTC", "2026-11-23T09:00:00");
    assert_eq!(got, (true, Some("2026-11-24T01:00:00".to_owned())));
}

#[test]
fn around_the_clock_has_no_end() {
    for windows in [&["daily 00:00-24:00"], &["00:00-00:00"]] {
        assert_eq!(
            ask(windows, "America/New_York", "2026-11-23T09:00:00"),
            (true, None)
        );
    }
}

#[test]
fn the_odd_days_of_the_year_keep_the_wall_clock() {
    // Berlin skips 02:00-03:00 on 2026-03-29 and has it twice on 2026-10-25.
    let berlin = zone("Europe/Berlin");
    let night = schedule(&["01:00-04:00"]);
    for (day, hours) in [("2026-03-29", 2), ("2026-03-30", 3), ("2026-10-25", 4)] {
        let from = at(&format!("{day}T01:00:00"), &berlin);
        let until = from + hours.hours();
        assert_eq!(night.at(from, &berlin), Hours::On(Some(until)), "{day}");
        let before = from - 1.seconds();
        assert_eq!(night.at(before, &berlin), Hours::Off(Some(from)), "{day}");
    }
    // A window that begins in the hour that does not exist begins right after it.
    let skipped = schedule(&["02:30-05:00"]);
    let begin = at("2026-03-29T03:30:00", &berlin);
    let before = at("2026-03-29T01:59:00", &berlin);
    assert_eq!(skipped.at(before, &berlin), Hours::Off(Some(begin)));
    // One that lies within it does not take place that day.
    let within = schedule(&["Sun 02:15-02:45"]);
    let Hours::On(Some(until)) = within.at(at("2026-03-29T03:20:00", &berlin), &berlin) else {
        panic!("compatible reading moves both ends by an hour");
    };
    assert_eq!(until, at("2026-03-29T03:45:00", &berlin));
}

#[test]
fn the_same_hours_mean_another_instant_in_another_zone() {
    let now: Timestamp = "2026-11-23T07:30:00Z".parse().unwrap();
    let office = schedule(&["Mon-Fri 08:00-18:00"]);
    assert!(matches!(
        office.at(now, &zone("Europe/Berlin")),
        Hours::On(_)
    ));
    assert!(matches!(
        office.at(now, &zone("Europe/London")),
        Hours::Off(_)
    ));
}

#[test]
fn days_may_wrap_around_the_week_and_letters_may_be_of_any_size() {
    let ask = |now| ask(&["sat-MON 10:00-11:00"], "UTC", now).0;
    assert!(ask("2026-11-21T10:30:00") && ask("2026-11-22T10:30:00") && ask("2026-11-23T10:30:00"));
    assert!(!ask("2026-11-24T10:30:00"));
}

#[test]
fn anything_else_is_refused() {
    for bad in [
        "",
        "Mon",
        "Mon-Fri",
        "8:0-18:00",
        ":00-18:00",
        "008:00-18:00",
        "08:00-08:00",
        "08:00",
        "08:00-25:00",
        "08:00-24:01",
        "24:00-08:00",
        "08:60-09:00",
        "Monday 08:00-18:00",
        "Mon- 08:00-18:00",
        "Mon,, 08:00-18:00",
        "Mon 08:00 - 18:00",
        "+8:00-18:00",
    ] {
        assert!(Schedule::read([bad]).is_none(), "{bad:?}");
    }
    assert!(Schedule::read([]).is_none());
    assert!(Schedule::read(vec!["08:00-18:00"; 33]).is_none());
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
        let _ = Schedule::read([text.as_str()]);
    }

    /// At every instant the answer holds until the instant that it names, and not after it.
    #[test]
    fn an_answer_changes_when_it_says(
        from in 0..1440_u16, length in 1..1440_u16, days in 1..128_u8, second in 0..400_000_000_i64,
    ) {
        let days = std::array::from_fn(|n| days & (1 << n) != 0);
        let windows = vec![Window { days, from, until: from + length }];
        let schedule = Schedule { windows };
        let zone = zone("Europe/Berlin");
        let now = Timestamp::from_second(1_750_000_000 + second).unwrap();
        let (on, until) = match schedule.at(now, &zone) {
            Hours::On(until) => (true, until),
            Hours::Off(until) => (false, until),
        };
        if let Some(until) = until {
            proptest::prop_assert!(until > now);
            let is_on = |at| matches!(schedule.at(at, &zone), Hours::On(_));
            proptest::prop_assert_eq!(is_on(until - 1.seconds()), on);
            proptest::prop_assert_eq!(is_on(until), !on);
        }
    }
}
