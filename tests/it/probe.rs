//! `onair probe` against each server of the lab, with a live publisher under the very name that is probed.

use futures_util::StreamExt as _;
use onair::config::secret::Secret;
use onair::config::{Publisher, WowzaDialect};
use onair::lab::faults::Fault;
use onair::lab::hub::State;
use onair::lab::{Lab, LabConfig, Profile};
use onair::peer::Rung;
use onair::probe::{Findings, probe};
use onair::signal::Dialect;
use tokio::net::TcpListener;

use crate::support::{Pair, clock};

fn chance() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

async fn probed(lab: &Lab, profile: Profile) -> Findings {
    let server = lab.server(profile).expect("the lab has the profile");
    probe(&Publisher::new("feed", server), Some(&mut chance())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_publisher_of_that_name_is_not_disturbed() {
    for profile in [
        Profile::Ome021,
        Profile::WowzaSe,
        Profile::WowzaV2,
        Profile::WhipOme,
    ] {
        let pair = Pair::start(profile, |_| {}).await;
        pair.until("on air", |p| p.is_on_air()).await;
        for _ in 0..3 {
            let findings = probed(&pair.lab, profile).await;
            assert!(findings.dialect.is_some(), "{profile}: {findings:?}");
        }
        let before = pair.publisher.borrow().frames_sent();
        pair.until("further pictures", |p| p.frames_sent() > before + 15)
            .await;
        let on_air = |s: &onair::lab::hub::Snapshot| s.state == State::OnAir;
        let sessions = pair.lab.hub().sessions();
        assert_eq!(
            sessions.iter().filter(|s| on_air(s)).count(),
            1,
            "{profile}"
        );
        pair.agent.drain().await;
        let hub = pair.lab.hub().clone();
        pair.lab.stop().await;
        let sessions = pair.publisher.borrow().sessions;
        assert_eq!(sessions, 1, "{profile}: in the same session");
        for report in hub.report() {
            assert_eq!(report.violations, [], "{profile}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_offers_is_told() {
    let profiles = Profile::ALL.to_vec();
    let lab = Lab::start(LabConfig::new(profiles, clock())).await;
    let lab = lab.expect("the lab starts");
    for profile in Profile::ALL {
        let findings = probed(&lab, profile).await;
        assert!(findings.is_publishable(), "{profile}: {findings:?}");
        let dialect = match profile {
            Profile::Ome016 | Profile::Ome020 | Profile::Ome021 | Profile::Qencode => Dialect::Ome,
            Profile::Whip | Profile::WhipOme | Profile::WhipWowza => Dialect::Whip,
            Profile::WowzaCloud | Profile::WowzaSe => Dialect::WowzaV1,
            Profile::WowzaV2 => Dialect::WowzaV2,
        };
        assert_eq!(findings.dialect, Some(dialect), "{profile}: {findings:?}");
        assert!(findings.round_trip.is_some(), "{profile}");
        let works = |rung: Rung| {
            let way = findings.ways.iter().find(|way| way.rung == rung);
            way.expect("every way is told of").works
        };
        let (tcp, turn) = (works(Rung::Tcp), works(Rung::TurnTcp));
        let wanted = match profile {
            Profile::Ome016 | Profile::Ome020 => (Some(false), Some(true)),
            Profile::Ome021 | Profile::Qencode => (Some(true), Some(true)),
            // These name their addresses only to publishers.
            Profile::Whip
            | Profile::WhipOme
            | Profile::WhipWowza
            | Profile::WowzaCloud
            | Profile::WowzaSe
            | Profile::WowzaV2 => (None, Some(false)),
        };
        assert_eq!((tcp, turn), wanted, "{profile}: {findings:?}");
        assert_eq!(works(Rung::TurnTls), Some(false), "{profile}");
    }
    assert!(
        lab.hub().sessions().iter().all(|s| s.state != State::OnAir),
        "nothing was published"
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_application_and_a_dead_server_speak_against_publishing() {
    let lab = Lab::start(LabConfig::new(vec![Profile::Ome021], clock())).await;
    let lab = lab.expect("the lab starts");
    let endpoint = lab.endpoint(Profile::Ome021).expect("the lab has it");
    let wrong = endpoint.url.replace("/app/", "/planted-app/");
    let server = onair::config::Server::Ome {
        url: Secret::new(wrong),
    };
    let publisher = Publisher::new("feed", server);
    let refused = probe(&publisher, Some(&mut chance())).await;
    assert!(!refused.is_publishable());
    let said = format!("{:?}", refused.unclear);
    assert!(said.contains("404") && !said.contains("planted"), "{said}");
    assert!(said.contains("--this-name"), "{said}");
    let refused = probe(&publisher, None).await;
    let said = format!("{:?}", refused.against);
    assert!(said.contains("404") && !said.contains("planted"), "{said}");
    lab.stop().await;
    let gone = probe(&publisher, Some(&mut chance())).await;
    assert!(!gone.is_publishable() && gone.ways.is_empty(), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_other_names_is_never_asked_under_the_real_one() {
    let lab = Lab::start(LabConfig::new(vec![Profile::Ome021], clock())).await;
    let lab = lab.expect("the lab starts");
    let refuse = Fault::Refuse {
        status: 404,
        times: 1,
    };
    lab.faults().commit(None, refuse);
    let findings = probed(&lab, Profile::Ome021).await;
    assert!(!findings.is_publishable() && findings.against.is_empty());
    assert!(!findings.unclear.is_empty(), "{findings:?}");
    let names: Vec<String> = (lab.hub().sessions().into_iter()).map(|s| s.name).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].contains("onair-probe-"), "{names:?}");
    lab.stop().await;
}

/// A Wowza whose `enableQuery` is off, on which one can publish all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_wowza_that_tells_nothing_of_its_streams_does_not_speak_against_publishing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has an address");
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The first connection only looks whether there is a server.
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
                continue;
            };
            tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
        }
    });
    let wowza = onair::config::Server::Wowza {
        url: Secret::new(format!("ws://{address}/webrtc-session.json")),
        application: "live".to_owned(),
        stream: Secret::new("front"),
        dialect: WowzaDialect::Auto,
    };
    let findings = probe(&Publisher::new("feed", wowza), Some(&mut chance())).await;
    assert!(findings.is_publishable(), "{findings:?}");
    let said = format!("{:?}", findings.notes);
    assert!(said.contains("only while publishing"), "{said}");
    server.abort();
}
