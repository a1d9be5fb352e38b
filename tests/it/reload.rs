//! A configuration that changes under a running agent: what differs begins anew, and nothing else notices.

use std::collections::BTreeSet;

use onair::lab::Profile;
use onair::lab::tls::Identity;
use onair::publisher::State;

use onair::supervisor::Supervisor;

use crate::support::{self, Pair, SOON};

/// Waits until the view shows the publisher `name` on air, and says how many sessions it needed.
async fn on_air(pair: &Pair, name: &str) -> u64 {
    let mut watch = pair.agent.view().publishers().remove(name).expect(name);
    let snapshot = tokio::time::timeout(SOON * 2, watch.wait_for(|p| p.is_on_air())).await;
    let sessions = snapshot.ok().and_then(Result::ok).map(|p| p.sessions);
    sessions.unwrap_or_else(|| panic!("{name} is not on air in time"))
}

/// Why the publisher `name` is shown not to be on air.
fn waits(pair: &Pair, name: &str) -> String {
    let shown = pair.agent.view().overview().publishers;
    match shown.get(name).map(|snapshot| &snapshot.state) {
        Some(State::Waiting { cause, .. }) => cause.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

/// A file of no use as certificate authorities.
const USELESS: &str = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n";

/// One of use.
fn authorities() -> String {
    let made = Identity::self_signed(&["localhost".to_owned()]).expect("a certificate");
    made.certificate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_frame_rate_begins_the_feed_and_its_publisher_anew_and_the_view_follows() {
    let mut pair = Pair::start(Profile::Ome021, |_| {}).await;
    let view = pair.agent.view();
    pair.until("on air", |p| p.is_on_air()).await;
    pair.until_decoded(10).await;
    let mut config = pair.agent.config().clone();
    let feed = config.feeds.get_mut("feed").expect("the feed");
    feed.video.as_mut().expect("a picture").fps = 10;
    let reloaded = pair.agent.reload(&config, &BTreeSet::new()).await;
    assert!(reloaded.failed.is_empty(), "{reloaded:?}");
    assert_eq!(
        reloaded.plan.to_string(),
        "feed feed begins anew, publisher ome-0.21 begins anew"
    );
    assert_eq!(on_air(&pair, "ome-0.21").await, 1, "the name was free");
    let fps = view.feeds().remove("feed").expect("the feed").tracks();
    assert_eq!(fps.video.map(|video| video.fps), Some(10));

    // The same once more changes nothing.
    let reloaded = pair.agent.reload(&config, &BTreeSet::new()).await;
    assert!(reloaded.plan.is_empty() && reloaded.failed.is_empty());
    assert_eq!(on_air(&pair, "ome-0.21").await, 1);
    let (report, _) = pair.end().await;
    assert_eq!(report.violations, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_begin_as_it_is_configured_now_goes_on_as_it_was() {
    let mut pair = Pair::start(Profile::Ome021, |_| {}).await;
    pair.until("on air", |p| p.is_on_air()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let authorities = folder.path().join("ca.pem");
    std::fs::write(&authorities, USELESS).expect("written");
    let before = pair.agent.config().clone();
    let mut config = before.clone();
    let publisher = config.publishers.get_mut("ome-0.21").expect("it is there");
    publisher.trust.ca_file = Some(authorities);
    let beside = before.publishers["ome-0.21"].clone();
    config.publishers.insert("lost".to_owned(), {
        let mut lost = beside;
        lost.feed = "no-such-feed".to_owned();
        lost
    });
    let reloaded = pair.agent.reload(&config, &BTreeSet::new()).await;
    let failed: Vec<String> = reloaded.failed.iter().map(ToString::to_string).collect();
    assert_eq!(
        failed,
        [
            "publisher ome-0.21 cannot start",
            "publisher lost cannot start: its feed no-such-feed does not run",
        ]
    );
    assert_eq!(
        pair.agent.config().publishers["ome-0.21"],
        before.publishers["ome-0.21"]
    );
    assert_eq!(
        waits(&pair, "lost"),
        "cannot start: its feed no-such-feed does not run"
    );
    let seen = pair.publisher.borrow().clone();
    assert!(seen.is_on_air(), "nobody parted it: {:?}", seen.state);
    assert_eq!(on_air(&pair, "ome-0.21").await, 1);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_is_held_stays_off_air_until_it_is_let_go() {
    let mut pair = Pair::start(Profile::WhipOme, |_| {}).await;
    let name = Profile::WhipOme.to_string();
    pair.until("on air", |p| p.is_on_air()).await;
    assert!(pair.agent.hold_publisher(&name).await);
    assert!(!pair.agent.hold_publisher(&name).await, "once is enough");
    // Not even another configuration brings it back, and it is still seen.
    let mut config = pair.agent.config().clone();
    let feed = config.feeds.get_mut("feed").expect("the feed");
    feed.video.as_mut().expect("a picture").fps = 10;
    let reloaded = pair.agent.reload(&config, &BTreeSet::new()).await;
    assert!(reloaded.failed.is_empty(), "{reloaded:?}");
    let seen = pair.agent.view().overview().publishers;
    assert!(seen.get(&name).is_some_and(|p| !p.is_on_air()), "{seen:?}");
    assert!(matches!(
        pair.agent.restart_publisher(&name).await,
        Ok(false)
    ));

    assert!(matches!(pair.agent.resume_publisher(&name), Ok(true)));
    assert!(matches!(pair.agent.resume_publisher(&name), Ok(false)));
    on_air(&pair, &name).await;
    assert!(matches!(
        pair.agent.restart_publisher(&name).await,
        Ok(true)
    ));
    assert!(matches!(
        pair.agent.restart_publisher("nobody").await,
        Ok(false)
    ));
    on_air(&pair, &name).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_is_shown_and_starts_once_it_can_while_the_others_are_on_air() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, USELESS).expect("written");
    let mut pair = Pair::start(Profile::WhipOme, |_| {}).await;
    let name = Profile::WhipOme.to_string();
    let mut config = pair.agent.config().clone();
    let mut second = config.publishers[&name].clone();
    second.trust.ca_file = Some(file.clone());
    config.publishers.insert("second".to_owned(), second);

    // A process that begins with that configuration.
    pair.agent.drain().await;
    let network = pair.network.subscribe();
    pair.agent =
        Supervisor::start(&config, support::clock(), &network, 1).expect("the other starts");
    on_air(&pair, &name).await;
    assert!(waits(&pair, "second").contains("ca.pem"));
    assert!(pair.agent.hold_publisher("second").await, "it is to run");
    assert!(pair.agent.resume_publisher("second").is_err());
    assert!(!pair.agent.hold_publisher("second").await, "it is held yet");
    pair.agent.start_absent();

    // Nobody is on air under the name that the server knows, so that it is free.
    assert!(pair.agent.hold_publisher(&name).await);
    std::fs::write(&file, authorities()).expect("written");
    assert!(matches!(pair.agent.resume_publisher("second"), Ok(true)));
    on_air(&pair, "second").await;

    // The file is cut short while it is on air, and its feed begins anew.
    std::fs::write(&file, USELESS).expect("written");
    let feed = config.feeds.get_mut("feed").expect("the feed");
    feed.video.as_mut().expect("a picture").fps = 10;
    let reloaded = pair.agent.reload(&config, &BTreeSet::new()).await;
    assert_eq!(reloaded.failed.len(), 1, "{reloaded:?}");
    assert!(waits(&pair, "second").contains("ca.pem"));
    pair.agent.start_absent();
    assert!(waits(&pair, "second").contains("ca.pem"));
    // The same once more is no success.
    let reloaded = pair.agent.reload(&config, &BTreeSet::new()).await;
    assert_eq!(reloaded.failed.len(), 1, "{reloaded:?}");
    std::fs::write(&file, authorities()).expect("written");
    pair.agent.start_absent();
    on_air(&pair, "second").await;
    pair.agent.drain().await;
    pair.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_kept_on_a_feed_that_ends() {
    let mut pair = Pair::start(Profile::WhipOme, |_| {}).await;
    let name = Profile::WhipOme.to_string();
    pair.until("on air", |p| p.is_on_air()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, USELESS).expect("written");
    let mut config = pair.agent.config().clone();
    let feed = config.feeds.remove("feed").expect("the feed");
    config.feeds.insert("lobby".to_owned(), feed);
    let publisher = config.publishers.get_mut(&name).expect("it is there");
    publisher.feed = "lobby".to_owned();
    publisher.trust.ca_file = Some(file.clone());
    let reloaded = pair.agent.reload(&config, &BTreeSet::new()).await;
    assert_eq!(reloaded.failed.len(), 1, "{reloaded:?}");
    assert!(waits(&pair, &name).contains("ca.pem"));
    std::fs::write(&file, authorities()).expect("written");
    // Not even a configuration that has not changed leaves it off the air.
    let reloaded = pair.agent.reload(&config, &BTreeSet::new()).await;
    assert!(reloaded.failed.is_empty(), "{reloaded:?}");
    on_air(&pair, &name).await;
    pair.agent.drain().await;
    pair.lab.stop().await;
}
