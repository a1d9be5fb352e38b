//! ICE_RESTART: each of its replies, with its time.

use super::*;

/// What `restart` makes of a server that replies with each of `replies` in turn, and how long it takes.
async fn restart(replies: &[Value]) -> (Result<RemoteDescription, Error>, Duration, WowzaV2) {
    let (mut wowza, mut far) = answered().await;
    assert!(wowza.can_restart());
    let begin = Instant::now();
    let (result, ()) = tokio::join!(wowza.restart(OUR_OFFER), async {
        for reply in replies {
            assert_eq!(far.hear().await["messageType"], "ICE_RESTART");
            far.say(reply).await;
        }
    });
    (result, begin.elapsed(), wowza)
}

async fn not_restarted(replies: &[Value]) -> Duration {
    let (result, took, wowza) = restart(replies).await;
    assert!(matches!(result, Err(Error::NoRestart)), "{result:?}");
    assert!(!wowza.can_restart());
    took
}

#[tokio::test(start_paused = true)]
async fn there_is_nothing_to_restart_before_the_answer() {
    let (mut wowza, _far) = connected().await;
    assert!(!wowza.can_restart());
    let result = wowza.restart(OUR_OFFER).await;
    assert!(matches!(result, Err(Error::NoRestart)), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn restart_200_goes_on_with_the_new_answer_and_may_happen_again() {
    let (mut wowza, mut far) = answered().await;
    wowza.trickle(&[], true).await.unwrap();
    assert_eq!(far.hear().await, our_candidate(""));
    for _ in 0..2 {
        let reply =
            json!({ "statusCode": 200, "message": { "sdp": wowza_answer()["sdp"]["sdp"] } });
        let (result, heard) = tokio::join!(wowza.restart(OUR_OFFER), async {
            let heard = far.hear().await;
            far.say(&candidate(THEIRS)).await;
            far.say(&reply).await;
            heard
        });
        let sdp = heard["sdp"].as_str().unwrap().to_owned();
        assert_eq!(
            heard,
            json!({
                "messageType": "ICE_RESTART", "action": "PUBLISH", "applicationName": "live",
                "streamName": STREAM, "connectionId": "b4f0c2", "sdp": sdp,
            })
        );
        assert!(sdp.starts_with("v=0\r\n") && !sdp.contains("candidate"));
        let remote = result.unwrap();
        assert!(has_candidates(&remote, &[("udp", 10000)]), "not lost");
        // Our candidates of the new generation follow, and its end.
        let ours = our_candidate("candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host");
        assert_eq!(far.hear().await, ours);
        wowza.trickle(&[], true).await.unwrap();
        assert_eq!(far.hear().await, our_candidate(""));
        assert!(wowza.can_restart());
    }
}

#[tokio::test(start_paused = true)]
async fn restart_425_is_asked_again_after_two_seconds() {
    let busy = status(425, "busy");
    let (result, took, _) = restart(&[busy.clone(), busy, wowza_v2_answer()]).await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(took, 2 * RESTART_AGAIN);
}

#[tokio::test(start_paused = true)]
async fn restart_425_is_given_up_within_eight_seconds() {
    let busy = status("425", "busy");
    let took = not_restarted(&[busy.clone(), busy.clone(), busy.clone(), busy]).await;
    assert_eq!(took, 3 * RESTART_AGAIN);
}

#[tokio::test(start_paused = true)]
async fn restart_400_404_409_410_and_others_end_at_once() {
    for number in [400, 404, 409, 410, 401, 500, 503] {
        let took = not_restarted(&[status(number, "no session")]).await;
        assert_eq!(took, Duration::ZERO, "{number}");
    }
    not_restarted(&[json!({ "statusCode": 400 })]).await;
}

#[tokio::test(start_paused = true)]
async fn restart_silence_ends_after_eight_seconds() {
    let (mut wowza, mut far) = answered().await;
    let begin = Instant::now();
    let (result, ()) = tokio::join!(wowza.restart(OUR_OFFER), async {
        far.hear().await;
        far.say(&candidate(THEIRS)).await;
        far.say(&status(504, "wait")).await;
    });
    assert!(matches!(result, Err(Error::NoRestart)), "{result:?}");
    assert_eq!(begin.elapsed(), RESTART_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn restart_on_a_socket_that_closes_ends_with_the_code() {
    let (mut wowza, mut far) = answered().await;
    let (result, ()) = tokio::join!(wowza.restart(OUR_OFFER), async {
        far.hear().await;
        far.hang_up(4404, "").await;
    });
    let Err(Error::Refused {
        status: 404,
        step: Step::Live,
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
}

#[tokio::test(start_paused = true)]
async fn only_one_restart_is_outstanding() {
    let (mut wowza, mut far) = answered().await;
    // Asked for, and given up before the reply.
    let asked = timeout(Duration::from_secs(1), wowza.restart(OUR_OFFER)).await;
    assert!(asked.is_err());
    assert!(!wowza.can_restart());
    let result = wowza.restart(OUR_OFFER).await;
    assert!(matches!(result, Err(Error::NoRestart)), "{result:?}");
    assert_eq!(far.hear().await["messageType"], "ICE_RESTART");
    // Its late reply is nobody's.
    far.say(&wowza_v2_answer()).await;
    far.say(&candidate(THEIRS)).await;
    let Ok(Event::Candidates(list)) = wowza.next().await else {
        panic!("no candidates")
    };
    assert_eq!(list.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_whose_answer_cannot_work_ends_the_session() {
    let mut reply = wowza_v2_answer();
    reply["message"]["sdp"] = json!("v=0\r\n");
    let (result, ..) = restart(&[reply]).await;
    assert!(matches!(result, Err(Error::Sdp { .. })), "{result:?}");
}
