//! Faults of server and network while on air, over the real engine: back on air each time.
//!
//! How long each takes is not asserted here (a busy machine would make it a lie); the waits themselves are tested on
//! virtual time in `publisher::lifecycle`.

use onair::lab::faults::Step;
use onair::lab::{Fault, Lab, Mutation, Profile};
use onair::publisher::{State, Verdict};

use crate::support::Pair;

/// Commits `fault` while on air and waits until a later session is on air.
async fn comes_back_after(profile: Profile, fault: Fault) -> Pair {
    let pair = Pair::start(profile, |_| {}).await;
    pair.until("on air", |p| p.is_on_air()).await;
    pair.lab.faults().commit(None, fault);
    pair.until("back on air", |p| p.is_on_air() && p.sessions > 1)
        .await;
    pair.until_decoded(15).await;
    pair
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again() {
    for profile in [Profile::Ome021, Profile::WowzaSe] {
        let pair = Pair::start(profile, |_| {}).await;
        pair.until("on air", |p| p.is_on_air()).await;
        let Pair {
            lab,
            lab_config,
            agent,
            publisher,
            network,
        } = pair;
        lab.stop().await;
        let mut watch = publisher.clone();
        watch
            .wait_for(|p| matches!(p.state, State::Waiting { .. }))
            .await
            .expect("the publisher runs");
        let lab = Lab::start(lab_config.clone())
            .await
            .expect("the lab starts again on its ports");
        let pair = Pair {
            lab,
            lab_config,
            agent,
            publisher,
            network,
        };
        pair.until("back on air", |p| p.is_on_air() && p.sessions > 1)
            .await;
        pair.until_decoded(15).await;
        let (report, _) = pair.end().await;
        assert_eq!(report.violations, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_ome_socket_is_the_end_of_the_session_and_not_of_the_publisher() {
    let pair = comes_back_after(Profile::Ome021, Fault::DropSocket).await;
    let (_, agent) = pair.end().await;
    assert_eq!(agent.sessions, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_wowza_socket_leaves_the_media_alone() {
    let pair = Pair::start(Profile::WowzaSe, |_| {}).await;
    pair.until("on air", |p| p.is_on_air()).await;
    pair.until_decoded(10).await;
    pair.lab.faults().commit(None, Fault::DropSocket);
    pair.until_decoded(60).await;
    let (_, agent) = pair.end().await;
    assert_eq!(agent.sessions, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_of_ten_seconds_is_survived_over_udp() {
    let pair = comes_back_after(Profile::Ome021, Fault::BlackHole { ms: 10_000 }).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_of_seventeen_seconds_is_outlived_where_nothing_would_free_the_name() {
    for profile in [Profile::WowzaCloud, Profile::WowzaSe] {
        let pair = Pair::start(profile, |_| {}).await;
        pair.until("on air", |p| p.is_on_air()).await;
        pair.until_decoded(15).await;
        let decoded = |pair: &Pair| {
            let sessions = pair.lab.hub().sessions();
            sessions
                .iter()
                .filter_map(|s| s.report.video.frames_decoded)
                .max()
        };
        let hole = Fault::BlackHole { ms: 17_000 };
        pair.lab.faults().commit(None, hole);
        let before = decoded(&pair).expect("pictures");
        // More than can have been on their way.
        pair.until_decoded(before + 30).await;
        let (_, snapshot) = pair.end().await;
        assert_eq!(snapshot.sessions, 1, "{profile}: in the same session");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_the_session_is_published_to_again() {
    let pair = comes_back_after(Profile::WowzaCloud, Fault::End).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_held_by_a_ghost_is_waited_for() {
    for profile in [Profile::Ome021, Profile::WowzaSe] {
        let pair = Pair::start(profile, |_| {}).await;
        pair.until("on air", |p| p.is_on_air()).await;
        pair.lab
            .faults()
            .commit(None, Fault::HoldName { ms: 4_000 });
        pair.lab.faults().commit(None, Fault::End);
        let waiting = |p: &onair::publisher::Snapshot| {
            matches!(
                &p.state,
                State::Waiting {
                    verdict: Verdict::RetryEvery(_),
                    ..
                }
            )
        };
        pair.until("refused for the ghost", waiting).await;
        pair.until("back on air", |p| p.is_on_air()).await;
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_credential_calls_for_a_person_and_is_tried_on() {
    let pair = Pair::start(Profile::WowzaSe, |_| {}).await;
    pair.until("on air", |p| p.is_on_air()).await;
    pair.lab.faults().commit(
        None,
        Fault::Refuse {
            status: 403,
            times: 1,
        },
    );
    pair.lab.faults().commit(None, Fault::End);
    let waiting = |p: &onair::publisher::Snapshot| {
        matches!(
            &p.state,
            State::Waiting {
                verdict: Verdict::Operator { .. },
                ..
            }
        )
    };
    pair.until("waiting for a person", waiting).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_at_any_step_ends_in_another_session() {
    for step in [Step::Description, Step::Media] {
        let pair = Pair::start(Profile::Ome021, |_| {}).await;
        pair.until("on air", |p| p.is_on_air()).await;
        pair.lab
            .faults()
            .commit(None, Fault::Silent { step, times: 1 });
        pair.lab.faults().commit(None, Fault::End);
        pair.until("past the silence", |p| p.is_on_air() && p.sessions >= 3)
            .await;
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_certificate_than_it_says_gets_no_media() {
    let pair = Pair::start(Profile::Ome021, |lab| {
        lab.mutation = Some(Mutation::WrongFingerprint)
    })
    .await;
    let waiting = |p: &onair::publisher::Snapshot| matches!(&p.state, State::Waiting { .. });
    let state = pair.until("refused by us", waiting).await.state;
    let State::Waiting { cause, .. } = state else {
        unreachable!()
    };
    assert!(cause.contains("dtls"), "{cause}");
    pair.lab
        .faults()
        .commit(None, Fault::Mutate { mutation: None });
    pair.until("on air with the right one", |p| p.is_on_air())
        .await;
    pair.end().await;
}
