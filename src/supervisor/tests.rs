//! What of a new configuration can be put to work at all.

use std::time::{Instant, SystemTime};

use super::*;
use crate::config::secret::Secret;

/// A supervisor that runs these.
fn supervisor(config: &Config) -> Supervisor {
    let clock = MediaClock::new(Instant::now(), SystemTime::now());
    let network = watch::Sender::new(Network::default());
    Supervisor::start(config, clock, &network.subscribe(), 1).unwrap()
}

fn publisher(path: &str) -> config::Publisher {
    let url = Secret::new(format!("ws://127.0.0.1:9/app/{path}"));
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
    let silence = config::Feed {
        video: None,
        audio: Some(config::Audio {
            source: config::AudioSource::Silence,
            channels: 1,
            bitrate: config::Bitrate(24_000),
        }),
    };
    Config {
        feeds: BTreeMap::from([("feed".to_owned(), silence)]),
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
    assert_eq!(failed, ["publisher a cannot start"]);
    assert_eq!(config.publishers["a"], old.publishers["a"]);
    assert_eq!(config.publishers["b"], new.publishers["b"]);
    assert_eq!(plan.publishers["a"], Change::Keep);
    assert_eq!(plan.publishers["b"], Change::Replace);
    assert_eq!(plan.publishers["c"], Change::End);
    assert_eq!(
        plan.publishers["d"],
        Change::Start,
        "it is tried, and tried again"
    );
}

#[tokio::test]
async fn what_does_not_change_is_not_tried() {
    // Its file may be gone by now; whoever is on air does not need it again.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::default().self_signed(&key);
    std::fs::write(&file, authority.unwrap().pem()).unwrap();
    let mut trusting = publisher("1");
    trusting.trust.ca_file = Some(file.clone());
    let old = config(&[("a", trusting)]);
    let supervisor = supervisor(&old);
    std::fs::remove_file(&file).unwrap();
    let mut plan = Plan::new(&old, &old, &BTreeSet::new());
    let (config, failed) = supervisor.startable(&old, &mut plan);
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
