//! The service's unit and the files that are installed with it fit the program: its time limits, and the credentials
//! that the configurations name.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use onair::config::load::{self, Scope};
use onair::feed::Budget;
use onair::supervisor::DRAIN_WITHIN;

const UNIT: &str = include_str!("../../config/onair.service");

/// The values of a key of the unit, in order.
fn values(key: &str) -> Vec<&'static str> {
    let settings = UNIT.lines().filter_map(|line| line.split_once('='));
    settings
        .filter_map(|(name, value)| (name == key).then_some(value))
        .collect()
}

fn time(key: &str) -> Duration {
    let [value] = values(key)[..] else {
        panic!("{key} is not given once");
    };
    let seconds = value.strip_suffix('s').and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.expect("seconds"))
}

#[test]
fn the_programs_time_limits_fit_those_of_the_unit() {
    let watchdog = time("WatchdogSec");
    let budget = Budget::within(watchdog).expect("stages fit the watchdog");
    assert!(budget.total() < watchdog);
    assert!(time("TimeoutStopSec") > DRAIN_WITHIN + Duration::from_secs(3));
    assert_eq!(values("StartLimitIntervalSec"), ["0"], "never given up");
    assert_eq!(values("Restart"), ["always"]);
}

#[test]
fn the_unit_hands_over_each_credential_that_a_configuration_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let installed = folder.join("debian/onair.toml");
    load::load(&installed, Scope::Text).expect("what the package installs has no faults");

    let files = std::fs::read_dir(&folder).expect("the folder is there");
    let paths = files.map(|file| file.expect("readable").path());
    let examples = paths.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let mut named = BTreeSet::new();
    for path in examples.chain([installed]) {
        let text = std::fs::read_to_string(path).expect("readable");
        let names = text.split("credential = \"").skip(1);
        let names = names.filter_map(|rest| rest.split_once('"'));
        named.extend(names.map(|(name, _)| name.to_owned()));
    }
    // Of the comment that explains the form.
    assert!(named.remove("NAME"));
    assert!(named.contains("qencode-url"), "{named:?}");
    let loaded: BTreeSet<_> = values("LoadCredential").into_iter().collect();
    for name in named {
        assert!(loaded.contains(name.as_str()), "LoadCredential={name}");
    }
}
