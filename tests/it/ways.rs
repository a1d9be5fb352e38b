//! The agent's ways to the lab, each taken in earnest: direct, through OvenMediaEngine's own relay, through a TURN
//! server of ours over UDP, TCP and TLS. Which way media took is said alike by the agent and by the lab.

use onair::config::ice_server::IceServer;
use onair::config::secret::Secret;
use onair::config::{Publisher, Transport};
use onair::lab::tls::Identity;
use onair::lab::turn::{TurnConfig, TurnFault};
use onair::lab::{Lab, OmeTurn, Profile};
use onair::peer::{Outcome, Rung};
use onair::publisher::Snapshot;

use crate::support::{Pair, SOON};

/// The lab's TURN server as an operator configures it, by its URLs that begin with `scheme`.
fn ours(lab: &Lab, scheme: &str) -> Vec<IceServer> {
    let turn = lab.turn().expect("the lab has a TURN server");
    let urls = turn
        .urls()
        .into_iter()
        .filter(|url| url.starts_with(scheme));
    let server = |url: String| IceServer {
        url: url.parse().expect("a URL that we read"),
        username: "lab".to_owned(),
        credential: Secret::new("relayed"),
    };
    urls.map(server).collect()
}

fn on_air_over(snapshot: &Snapshot) -> Rung {
    let peer = snapshot.session.peer.as_ref().expect("a connection");
    peer.pair.expect("a path").rung
}

/// What became of `rung` by the agent's account.
fn outcome(snapshot: &Snapshot, rung: Rung) -> Option<Outcome> {
    let climbs = &snapshot.session.climbs;
    let climb = climbs.iter().find(|climb| climb.rung == rung);
    climb.map(|climb| climb.outcome.clone())
}

/// Publishes until pictures are decoded; the agent takes `rung`, and the lab calls it `seen`.
async fn takes(pair: Pair, rung: Rung, seen: &str) -> Snapshot {
    let snapshot = pair.until("on air", Snapshot::is_on_air).await;
    assert_eq!(on_air_over(&snapshot), rung);
    pair.until_decoded(20).await;
    let (session, _) = pair.end().await;
    assert_eq!(session.transport.as_deref(), Some(seen));
    assert_eq!(session.violations, [], "{rung}");
    snapshot
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_of_every_ome_is_found_whatever_its_word_for_it() {
    for profile in [Profile::Ome020, Profile::Ome021] {
        let relay = |publisher: &mut Publisher, _: &Lab| publisher.transport = Transport::Relay;
        let pair = Pair::start_with(profile, |_| {}, relay).await;
        let snapshot = takes(pair, Rung::TurnTcp, "turn-tcp").await;
        assert_eq!(
            outcome(&snapshot, Rung::Udp),
            None,
            "not allowed, not told of"
        );
        assert!(matches!(
            outcome(&snapshot, Rung::TurnUdp),
            Some(Outcome::Absent(_))
        ));
        assert_eq!(outcome(&snapshot, Rung::TurnTcp), Some(Outcome::Chosen));
        assert_eq!(snapshot.sessions, 1, "{profile}: in the first session");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_names_an_inner_address_is_found_at_the_host_we_dialled() {
    let inner = |config: &mut onair::lab::LabConfig| {
        config.ome_turn = OmeTurn {
            // Nobody answers there.
            advertised: "127.255.255.1".parse().ok(),
            ..OmeTurn::default()
        };
    };
    let relay = |publisher: &mut Publisher, _: &Lab| publisher.transport = Transport::Relay;
    let pair = Pair::start_with(Profile::Ome021, inner, relay).await;
    takes(pair, Rung::TurnTcp, "turn-tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_udp_leaves_where_only_tcp_is_allowed() {
    let tcp = |publisher: &mut Publisher, _: &Lab| publisher.transport = Transport::Tcp;
    let pair = Pair::start_with(Profile::Ome021, |_| {}, tcp).await;
    takes(pair, Rung::Tcp, "tcp").await;
    // An older version means its relay by the same word.
    let pair = Pair::start_with(Profile::Ome020, |_| {}, tcp).await;
    takes(pair, Rung::TurnTcp, "turn-tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_server_of_ours_is_used_over_udp_tcp_and_tls() {
    for (scheme, kind, rung) in [
        ("turn:", "transport=udp", Rung::TurnUdp),
        ("turn:", "transport=tcp", Rung::TurnTcp),
        ("turns:", "", Rung::TurnTls),
    ] {
        let identity = Identity::self_signed(&["127.0.0.1".to_owned()]).expect("an identity");
        let turn = |config: &mut onair::lab::LabConfig| {
            config.turn = Some(TurnConfig::loopback(Some(identity)));
        };
        let publish = |publisher: &mut Publisher, lab: &Lab| {
            publisher.transport = Transport::Relay;
            publisher.trust.insecure = true;
            let mut servers = ours(lab, scheme);
            servers.retain(|server| server.url.to_string().contains(kind));
            assert_eq!(servers.len(), 1, "{kind}");
            publisher.ice_servers = servers;
        };
        // A server that only listens for UDP and hands no relay over.
        let pair = Pair::start_with(Profile::WowzaSe, turn, publish).await;
        takes(pair, rung, "turn").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_for_the_only_relay_are_said_and_end_the_attempt_early() {
    let turn = |config: &mut onair::lab::LabConfig| {
        config.turn = Some(TurnConfig::loopback(None));
    };
    let publish = |publisher: &mut Publisher, lab: &Lab| {
        publisher.transport = Transport::Relay;
        let mut servers = ours(lab, "turn:");
        for server in &mut servers {
            server.credential = Secret::new("planted-wrong-password");
        }
        publisher.ice_servers = servers;
    };
    let pair = Pair::start_with(Profile::WowzaSe, turn, publish).await;
    let snapshot = pair
        .until("a failed attempt", |s| s.end_reason.is_some())
        .await;
    let reason = snapshot.end_reason.clone().unwrap_or_default();
    assert!(
        reason.contains("turn-udp: ") && reason.contains("401"),
        "{reason}"
    );
    assert!(!reason.contains("planted"), "{reason}");
    pair.agent.drain().await;
    pair.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_answers_nobody_is_passed_over_for_the_next_rung() {
    let turn = |config: &mut onair::lab::LabConfig| {
        let mut turn = TurnConfig::loopback(None);
        turn.fault = Some(TurnFault::Silent);
        config.turn = Some(turn);
    };
    // OvenMediaEngine's own relay is the third rung here, ours the first two.
    let publish = |publisher: &mut Publisher, lab: &Lab| {
        publisher.transport = Transport::Relay;
        publisher.ice_servers = ours(lab, "turn:");
        (publisher.ice_servers).retain(|server| server.url.to_string().ends_with("udp"));
    };
    let pair = Pair::start_with(Profile::Ome021, turn, publish).await;
    let snapshot = takes(pair, Rung::TurnTcp, "turn-tcp").await;
    let silent = outcome(&snapshot, Rung::TurnUdp);
    assert!(
        matches!(
            silent,
            Some(Outcome::Unanswered | Outcome::Idle | Outcome::Failed(_))
        ),
        "{silent:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_breaks_is_replaced_in_the_same_session() {
    let turn = |config: &mut onair::lab::LabConfig| {
        config.turn = Some(TurnConfig::loopback(None));
    };
    let publish = |publisher: &mut Publisher, lab: &Lab| {
        publisher.transport = Transport::Relay;
        publisher.ice_servers = ours(lab, "turn:");
        (publisher.ice_servers).retain(|server| server.url.to_string().ends_with("tcp"));
    };
    let pair = Pair::start_with(Profile::Whip, turn, publish).await;
    pair.until("on air", Snapshot::is_on_air).await;
    pair.until_decoded(30).await;
    let turn = pair.lab.turn().expect("the lab has a TURN server");
    let mut counts = turn.counts();
    // More than this one has relayed; less than the next one will before the fault is taken back.
    let after_bytes = 60_000;
    turn.commit(Some(TurnFault::Drop { after_bytes }));
    let gone = counts.wait_for(|counts| counts.allocations == 0);
    let gone = tokio::time::timeout(SOON, gone).await;
    assert!(gone.is_ok_and(|counts| counts.is_ok()), "it is dropped");
    turn.commit(None);
    let sessions = pair.lab.hub().sessions();
    let seen = sessions[0].report.video.frames_decoded.unwrap_or_default();
    pair.until_decoded(seen + 30).await;
    let (_, snapshot) = pair.end().await;
    assert_eq!(snapshot.sessions, 1);
}
