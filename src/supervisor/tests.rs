//! What of a new configuration can be put to work at all.

use std::time::{Instant, SystemTime};

use super::*;
use crate::config::secret::Secret;

/// A supervisor of nothing that believes to run these.
fn supervisor(config: &Config) -> Supervisor {
    let clock = MediaClock::new(Instant::now(), SystemTime::now());
    let network = watch::Sender::new(Network::default());
    let nothing = Config {
        feeds: BTreeMap::new(),
        publishers: BTreeMap::new(),
        daemon: config.daemon.clone(),
    };
    let started = Supervisor::start(&nothing, clock, &network.subscribe(), 1);
    let mut supervisor = started.unwrap();
    supervisor.config = config.clone();
    supervisor
}

fn publisher(path: &str) -> config::Publisher {
    let url = Secret::new(format!("wss://host/app/{path}"));
    config::Publisher::new("feed", Server::Ome { url })
}

/// One whose certificate authorities cannot be read.
fn unreadable(path: &str) -> config::Publisher {
    let mut publisher = publisher(path);
    publisher.trust.ca_file = Some(PathBuf::from("/nowhere/ca.pem"));
    publisher
}

fn config(publishers: &[(&str, config::Publisher)]) -> Config {
    let named = publishers
        .iter()
        .map(|(name, p)| ((*name).to_owned(), p.clone()));
    Config {
        feeds: BTreeMap::new(),
        publishers: named.collect(),
        daemon: config::Daemon::default(),
    }
}

/// What is put to work of `new`, what is planned, and what is said of the rest.
fn put_to_work(old: &Config, new: &Config) -> (Config, Plan, Vec<String>) {
    let mut plan = Plan::new(old, new, &BTreeSet::new());
    let (config, failed) = supervisor(old).startable(new, &mut plan);
    let failed = failed.iter().map(ToString::to_string).collect();
    (config, plan, failed)
}

#[tokio::test]
async fn what_cannot_start_stays_as_it_was_and_all_else_changes() {
    let old = config(&[
        ("a", publisher("1")),
        ("b", publisher("1")),
        ("c", publisher("1")),
    ]);
    let new = config(&[
        ("a", unreadable("2")),
        ("b", publisher("2")),
        ("d", unreadable("2")),
    ]);
    let (config, plan, failed) = put_to_work(&old, &new);
    assert_eq!(
        failed,
        ["publisher a cannot start", "publisher d cannot start"]
    );
    assert_eq!(config.publishers["a"], old.publishers["a"]);
    assert_eq!(config.publishers["b"], new.publishers["b"]);
    assert_eq!(config.publishers.len(), 2, "d never was, c is gone");
    assert_eq!(plan.publishers["a"], Change::Keep);
    assert_eq!(plan.publishers["b"], Change::Replace);
    assert_eq!(plan.publishers["c"], Change::End);
    assert_eq!(plan.publishers["d"], Change::Keep);
}

#[tokio::test]
async fn what_does_not_change_is_not_tried() {
    // Its file may be gone by now; whoever is on air does not need it again.
    let old = config(&[("a", unreadable("1"))]);
    let (config, plan, failed) = put_to_work(&old, &old);
    assert_eq!((config, failed.len()), (old, 0));
    assert!(plan.is_empty());
}

#[tokio::test]
async fn whose_feed_begins_anew_is_parted_anyway() {
    let old = config(&[("a", publisher("1"))]);
    let new = config(&[("a", unreadable("2"))]);
    let mut plan = Plan::new(&old, &new, &BTreeSet::new());
    plan.feeds.insert("feed".to_owned(), Change::Replace);
    let (config, failed) = supervisor(&old).startable(&new, &mut plan);
    assert!(failed.is_empty());
    assert_eq!(config.publishers["a"], new.publishers["a"]);
    assert_eq!(plan.publishers["a"], Change::Replace);
}

#[tokio::test]
async fn credentials_of_those_who_are_gone_are_kept_once_and_not_for_ever() {
    use crate::config::platform::{OnExit, Platform, StreamRef, Vendor};
    use crate::config::secret::Bearer;

    let at = |account: usize, stream: &str| {
        let platform = Platform {
            vendor: Vendor::Qencode { callback_url: None },
            credential: Bearer {
                token: Secret::new(format!("key {account}")),
                source: None,
            },
            api: Secret::new("https://api"),
            stream: StreamRef::Id(stream.to_owned()),
            on_exit: OnExit::Stop,
            daily_minutes: None,
        };
        config::Publisher::new("feed", Server::Platform(Box::new(platform)))
    };
    let mut supervisor = supervisor(&config(&[("kept", at(0, "x"))]));
    let former = |publishers: &[(&str, config::Publisher)]| config(publishers).publishers;
    supervisor.remember(&former(&[("kept", at(0, "y")), ("none", publisher("1"))]));
    assert_eq!(supervisor.former.len(), 0, "its credential is still there");
    for _ in 0..3 {
        supervisor.remember(&former(&[("gone", at(1, "x"))]));
    }
    assert_eq!(supervisor.former, [at(1, "x")]);
    for n in 0..100 {
        supervisor.remember(&former(&[("gone", at(n, "x"))]));
    }
    assert_eq!(supervisor.former.len(), FORMER_MAX);
    assert_eq!(supervisor.former.last(), Some(&at(99, "x")));
}
