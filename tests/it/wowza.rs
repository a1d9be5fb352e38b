//! Wowza's dialects over the real engine: which of the two is spoken, and what only the newer one can do.
//!
//! Each status and each time is tested on virtual time in `signal` and `publisher::policy`.

use onair::config::secret::Secret;
use onair::config::{Publisher, Server, WowzaDialect};
use onair::lab::faults::RefusedVideo;
use onair::lab::{Fault, Foreign, Lab, LabConfig, Profile};
use onair::publisher::{Snapshot, State, Verdict};

use tokio::time::timeout;

use crate::support::{Pair, SOON};

/// An agent that finds out the dialect by itself, at a URL that says v2 or does not.
async fn automatic(profile: Profile, says_v2: bool, change: impl FnOnce(&mut LabConfig)) -> Pair {
    let publish = |publisher: &mut Publisher, _: &Lab| {
        let Server::Wowza { url, dialect, .. } = &mut publisher.server else {
            panic!("the profile is no Wowza")
        };
        *dialect = WowzaDialect::Auto;
        let plain = url.expose().split('?').next().unwrap_or_default();
        let flag = if says_v2 {
            "?webrtcImplementation=v2"
        } else {
            ""
        };
        *url = Secret::new(format!("{plain}{flag}"));
    };
    Pair::start_with(profile, change, publish).await
}

/// Whether the publisher said `word` in any session of the lab.
fn was_said(pair: &Pair, word: &str) -> bool {
    let hub = pair.lab.hub();
    let said = |message: &onair::lab::hub::Message| message.text.contains(word);
    let sessions = hub.sessions();
    let mut messages = (sessions.iter()).filter_map(|session| hub.messages(session.id, 0));
    messages.any(|messages| messages.iter().any(said))
}

fn waits_for_a_person(publisher: &Snapshot) -> bool {
    matches!(
        &publisher.state,
        State::Waiting {
            verdict: Verdict::Operator { .. },
            ..
        }
    )
}

/// Ends the running session so that the next one meets `fault`.
async fn meets(fault: Fault, wanted: impl FnMut(&Snapshot) -> bool) -> Snapshot {
    let pair = Pair::start(Profile::WowzaV2, |_| {}).await;
    pair.until("on air", Snapshot::is_on_air).await;
    pair.lab.faults().commit(None, fault);
    pair.lab.faults().commit(None, Fault::End);
    let state = pair.until("as the fault wants it", wanted).await;
    pair.end().await;
    state
}

// --- which dialect -------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_server_is_found_in_the_first_session_though_the_url_says_v2() {
    let pair = automatic(Profile::WowzaSe, true, |_| {}).await;
    pair.until("on air", Snapshot::is_on_air).await;
    pair.until_decoded(15).await;
    assert!(was_said(&pair, "\"OFFER\"") && was_said(&pair, "sendOffer"));
    pair.agent.drain().await;
    assert_eq!(pair.publisher.borrow().sessions, 1);
    pair.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_server_that_is_silent_to_the_older_words_is_found_in_the_second_session() {
    let silent = |lab: &mut LabConfig| lab.foreign = Foreign::Silent;
    let pair = automatic(Profile::WowzaV2, false, silent).await;
    pair.until("on air", Snapshot::is_on_air).await;
    pair.until_decoded(15).await;
    pair.agent.drain().await;
    assert_eq!(pair.publisher.borrow().sessions, 2);
    pair.lab.stop().await;
}

// --- the newer dialect ---------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_is_survived_in_the_same_session_by_restarting_ice() {
    let pair = Pair::start(Profile::WowzaV2, |_| {}).await;
    pair.until("on air", Snapshot::is_on_air).await;
    pair.until_decoded(15).await;
    let hole = Fault::BlackHole { ms: 12_000 };
    pair.lab.faults().commit(None, hole);
    let mut changed = pair.lab.hub().changed();
    let asked = async {
        while !was_said(&pair, "ICE_RESTART") {
            changed.changed().await.expect("the lab runs");
        }
    };
    timeout(SOON, asked).await.expect("ICE is restarted");
    let before = decoded(&pair);
    pair.until_decoded(before + 30).await;
    let (lab, agent) = pair.end().await;
    assert_eq!(agent.sessions, 1);
    assert_eq!(lab.violations, [], "{lab:#?}");
}

fn decoded(pair: &Pair) -> u64 {
    let sessions = pair.lab.hub().sessions();
    let counts = sessions.iter().map(|s| s.report.video.frames_decoded);
    counts.flatten().max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_the_server_refuses_is_followed_by_another_session() {
    for status in [404, 425] {
        let pair = Pair::start(Profile::WowzaV2, |_| {}).await;
        pair.until("on air", Snapshot::is_on_air).await;
        let times = 10;
        pair.lab
            .faults()
            .commit(None, Fault::RefuseRestart { status, times });
        pair.lab
            .faults()
            .commit(None, Fault::BlackHole { ms: 12_000 });
        let again = |p: &Snapshot| p.is_on_air() && p.sessions > 1;
        pair.until("on air again", again).await;
        assert!(was_said(&pair, "ICE_RESTART"));
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_the_server_forgot_while_media_flows_is_published_again() {
    let pair = Pair::start(Profile::WowzaV2, |_| {}).await;
    pair.until("on air", Snapshot::is_on_air).await;
    pair.lab.faults().commit(None, Fault::Unlist { ms: 22_000 });
    let again = |p: &Snapshot| p.is_on_air() && p.sessions > 1;
    let state = pair.until("on air again", again).await;
    let reason = state.end_reason.expect("the first session ended");
    assert!(reason.contains("no longer lists the stream"), "{reason}");
    pair.agent.drain().await;
    pair.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_codec_calls_for_a_person() {
    for how in [
        RefusedVideo::PortZero,
        RefusedVideo::Inactive,
        RefusedVideo::Missing,
    ] {
        let fault = Fault::RefuseVideo { how, times: 1 };
        let state = meets(fault, waits_for_a_person).await.state;
        let State::Waiting { cause, .. } = state else {
            unreachable!()
        };
        assert!(cause.contains("PreferredCodecsVideo"), "{how:?}: {cause}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_in_use_is_waited_for_and_a_stream_that_is_still_connecting_is_no_refusal() {
    let waits = |p: &Snapshot| {
        matches!(
            &p.state,
            State::Waiting {
                verdict: Verdict::RetryEvery(_),
                cause,
                ..
            } if cause.contains("503")
        )
    };
    let (status, times) = (503, 1);
    meets(Fault::Refuse { status, times }, waits).await;
    let status = 504;
    let again = |p: &Snapshot| p.is_on_air() && p.sessions > 1;
    let state = meets(Fault::Refuse { status, times }, again).await;
    assert_eq!(state.sessions, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_closes_is_the_end_of_the_session_and_its_code_is_read() {
    for (code, status, person) in [(4403, 403, true), (1011, 503, false)] {
        let pair = Pair::start(Profile::WowzaV2, |_| {}).await;
        pair.until("on air", Snapshot::is_on_air).await;
        let close = Fault::CloseSocket { code, status };
        pair.lab.faults().commit(None, close);
        let waiting = |p: &Snapshot| matches!(p.state, State::Waiting { .. });
        let state = pair.until("waiting", waiting).await;
        assert_eq!(waits_for_a_person(&state), person, "{state:?}");
        let reason = state.end_reason.expect("the session ended");
        assert!(reason.contains(&status.to_string()), "{reason}");
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_socket_is_the_end_of_the_session_and_not_of_the_publisher() {
    let pair = Pair::start(Profile::WowzaV2, |_| {}).await;
    pair.until("on air", Snapshot::is_on_air).await;
    pair.lab.faults().commit(None, Fault::DropSocket);
    let again = |p: &Snapshot| p.is_on_air() && p.sessions > 1;
    pair.until("on air again", again).await;
    pair.end().await;
}
