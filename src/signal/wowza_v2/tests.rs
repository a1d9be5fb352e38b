//! The dialect on a pipe under a paused clock: the happy path, each row of the status table, candidates in both
//! directions, silence, closing and nonsense. Restarts and the looks at the list of streams have files of their own.

mod live;
mod restart;

use super::super::testing::{
    Far, OUR_OFFER, dialer, has_candidates, pipe, wowza_answer, wowza_v2_answer,
};
use super::*;

const STREAM: &str = "planted-stream?token=planted-token";
/// What a candidate of the server looks like.
const THEIRS: &str =
    "candidate:1 1 UDP 2130706431 203.0.113.7 10000 typ host generation 0 ufrag EsAw";

/// Nobody listens at this address, so that looks at the list of streams see nothing.
fn signaller(url: &str) -> WowzaV2 {
    WowzaV2::new(&Secret::new(url), "live", &Secret::new(STREAM), dialer())
}

async fn connected() -> (WowzaV2, Far) {
    let (socket, far) = pipe().await;
    let mut wowza = signaller("wss://127.0.0.1:1/webrtc-session.json");
    wowza.session = Some(Session::new(socket));
    (wowza, far)
}

/// What `exchange` makes of a server that says `said`, one after another, and then is silent.
async fn exchange(said: &[Value]) -> Result<RemoteDescription, Error> {
    let (mut wowza, mut far) = connected().await;
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        for message in said {
            far.say(message).await;
        }
    });
    result.map(Option::unwrap)
}

/// A session that is answered, with our candidates already heard.
async fn answered() -> (WowzaV2, Far) {
    let (mut wowza, mut far) = connected().await;
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        far.say(&wowza_v2_answer()).await;
        far.hear().await;
    });
    result.unwrap();
    (wowza, far)
}

fn status(status: impl Into<Value>, text: &str) -> Value {
    json!({ "statusCode": status.into(), "statusDescription": text })
}

fn candidate(line: &str) -> Value {
    json!({ "messageType": "CANDIDATE", "action": "PUBLISH", "connectionId": "b4f0c2", "candidate": line })
}

/// Our message about `line`.
fn our_candidate(line: &str) -> Value {
    json!({
        "messageType": "CANDIDATE", "action": "PUBLISH", "applicationName": "live", "streamName": STREAM,
        "connectionId": "b4f0c2", "candidate": line,
    })
}

async fn refused(number: u16, text: &str) {
    for said in [status(number, text), status(number.to_string(), text)] {
        let result = exchange(&[said]).await;
        let Err(Error::Refused {
            status,
            text: got,
            step,
            endpoint,
            ..
        }) = result
        else {
            panic!("{result:?}")
        };
        assert_eq!((status, step), (number, Step::Answered));
        assert_eq!(got, text);
        assert_eq!(endpoint, "wss://127.0.0.1:1");
    }
}

// --- the happy path ----------------------------------------------------------------------------------------

#[test]
fn the_url_selects_the_implementation_and_keeps_its_query() {
    for (url, asked, probed) in [
        (
            "wss://h/webrtc-session.json",
            "wss://h/webrtc-session.json?webrtcImplementation=v2",
            "wss://h/webrtc-session.json?webrtcImplementation=v2&wzProbe=liveness",
        ),
        (
            "wss://h/x/webrtc-session.json?key=a%2Fb",
            "wss://h/x/webrtc-session.json?key=a%2Fb&webrtcImplementation=v2",
            "wss://h/x/webrtc-session.json?key=a%2Fb&webrtcImplementation=v2&wzProbe=liveness",
        ),
        (
            "wss://h/s.json?webrtcImplementation=modern&k=1",
            "wss://h/s.json?webrtcImplementation=modern&k=1",
            "wss://h/s.json?webrtcImplementation=modern&k=1&wzProbe=liveness",
        ),
    ] {
        let wowza = signaller(url);
        assert_eq!(wowza.server.url(), Some(asked.to_owned()));
        assert_eq!(wowza.probed.url(), Some(probed.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_offer_is_flat_and_its_sdp_a_string_without_candidates() {
    let (mut wowza, mut far) = connected().await;
    let (_, heard) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        let heard = far.hear().await;
        far.say(&wowza_v2_answer()).await;
        heard
    });
    let sdp = heard["sdp"].as_str().unwrap().to_owned();
    assert_eq!(
        heard,
        json!({
            "messageType": "OFFER", "action": "PUBLISH", "applicationName": "live", "streamName": STREAM,
            "connectionId": "[empty]", "sdp": sdp,
        })
    );
    assert!(sdp.starts_with("v=0\r\n") && sdp.contains("a=sendonly\r\n"));
    assert!(
        sdp.contains("transport-cc"),
        "nothing is munged for this one"
    );
    assert!(!sdp.contains("candidate"));
}

#[tokio::test(start_paused = true)]
async fn status_200_brings_the_answer() {
    for code in [json!(200), json!("200"), json!(201)] {
        let mut answer = wowza_v2_answer();
        answer["statusCode"] = code;
        let remote = exchange(&[answer]).await.unwrap();
        assert!(remote.sdp.contains("a=recvonly"));
        assert!(remote.candidates.is_empty());
        assert_eq!(remote.payload_types, PayloadTypes::OFFERED);
        assert!(remote.ice_servers.is_empty());
    }
}

// --- our candidates ----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn our_candidates_wait_for_the_connection_id_and_the_end_is_said_once() {
    let (mut wowza, mut far) = connected().await;
    let late = ["candidate:9 1 udp 5 198.51.100.1 3478 typ relay".to_owned()];
    wowza.trickle(&late, false).await.unwrap();
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        assert_eq!(far.hear().await["messageType"], "OFFER");
        // Nothing else may have come by now.
        let early = timeout(Duration::from_secs(5), far.hear()).await;
        assert!(early.is_err(), "{early:?}");
        far.say(&wowza_v2_answer()).await;
    });
    result.unwrap();
    let ours = our_candidate("candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host");
    assert_eq!(far.hear().await, ours);
    assert_eq!(far.hear().await, our_candidate(&late[0]));

    let another = ["a=candidate:8 1 udp 4 198.51.100.2 3478 typ relay".to_owned()];
    wowza.trickle(&another, true).await.unwrap();
    wowza.trickle(&late, true).await.unwrap();
    assert_eq!(far.hear().await, our_candidate(&another[0][2..]));
    assert_eq!(far.hear().await, our_candidate(""));
    let more = timeout(Duration::from_secs(5), far.hear()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_id_no_candidate_and_no_close_is_sent() {
    for id in [
        json!(null),
        json!(""),
        json!("[empty]"),
        json!({}),
        json!("x".repeat(300)),
    ] {
        let (mut wowza, mut far) = connected().await;
        let mut answer = wowza_v2_answer();
        answer["message"]["connectionId"] = id;
        let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
            far.hear().await;
            far.say(&answer).await;
        });
        result.unwrap();
        wowza.trickle(&[], true).await.unwrap();
        assert!(!wowza.can_restart());
        wowza.close(Parting::Stop).await;
        assert!(far.hear_goodbye().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_id_goes_back_as_it_came() {
    let (mut wowza, mut far) = connected().await;
    let mut answer = wowza_v2_answer();
    answer["message"]["connectionId"] = json!(18_446_744_073_709_551_615_u64);
    let (result, heard) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        far.say(&answer).await;
        far.hear().await
    });
    result.unwrap();
    assert_eq!(heard["connectionId"], answer["message"]["connectionId"]);
}

#[tokio::test(start_paused = true)]
async fn candidates_of_ours_are_bounded() {
    let (mut wowza, _far) = connected().await;
    let lines: Vec<_> = (1..=1000).map(|n| format!("candidate:{n}")).collect();
    wowza.trickle(&lines, true).await.unwrap();
    let held = &wowza.session.as_ref().unwrap().ours.held;
    assert_eq!(held.len(), HELD_MAX + 1);
    assert_eq!(held.back().map(String::as_str), Some(""));
}

// --- the server's candidates ---------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn candidates_before_the_answer_come_with_it_in_any_spelling() {
    let mut lower = candidate("candidate:2 1 TCP 50 203.0.113.7 1935 typ host");
    lower["messageType"] = json!("candidate");
    let said = [candidate(THEIRS), candidate(""), lower, wowza_v2_answer()];
    let remote = exchange(&said).await.unwrap();
    assert!(has_candidates(&remote, &[("udp", 10000), ("tcp", 1935)]));
}

#[tokio::test(start_paused = true)]
async fn candidates_may_stand_in_the_answer() {
    let mut answer = wowza_v2_answer();
    let sdp = answer["message"]["sdp"].as_str().unwrap().to_owned();
    answer["message"]["sdp"] = json!(format!("{sdp}a={THEIRS}\r\n"));
    let remote = exchange(&[candidate(THEIRS), answer]).await.unwrap();
    assert!(has_candidates(&remote, &[("udp", 10000)]), "once");
}

#[tokio::test(start_paused = true)]
async fn candidates_after_the_answer_are_events() {
    let (mut wowza, mut far) = answered().await;
    far.say(&candidate("")).await;
    far.say(&candidate("candidate:1 1 udp 5 host.local 9 typ host"))
        .await;
    far.say(&json!({ "messageType": "CANDIDATE", "candidate": null }))
        .await;
    far.say(&candidate(THEIRS)).await;
    let Ok(Event::Candidates(list)) = wowza.next().await else {
        panic!("no candidates")
    };
    assert_eq!(
        list,
        ["candidate:1 1 udp 2130706431 203.0.113.7 10000 typ host"]
    );
}

// --- rows of the status table ------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn status_400_bad_request() {
    refused(400, "Bad request").await;
}

#[tokio::test(start_paused = true)]
async fn status_401_and_403_not_authorized() {
    refused(401, "Unauthorized").await;
    refused(403, "Publishing is switched off").await;
}

#[tokio::test(start_paused = true)]
async fn status_404_application_not_found() {
    refused(404, "Application not found").await;
}

#[tokio::test(start_paused = true)]
async fn status_500_internal() {
    refused(500, "Internal error").await;
}

#[tokio::test(start_paused = true)]
async fn status_502_not_running_and_the_name_is_not_repeated() {
    let result = exchange(&[status(502, "Live stream is not running: planted-stream")]).await;
    let Err(Error::Refused {
        status: 502, text, ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert_eq!(text, "Live stream is not running: ***");
}

#[tokio::test(start_paused = true)]
async fn status_503_name_in_use() {
    refused(503, "Stream name is already in use").await;
}

#[tokio::test(start_paused = true)]
async fn status_504_and_514_mean_wait() {
    for code in [json!(504), json!("514")] {
        let wait = status(code, "New stream connecting");
        let said = [wait.clone(), wait, wowza_v2_answer()];
        assert!(exchange(&said).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn status_504_until_the_deadline_is_a_refusal() {
    let begin = Instant::now();
    let result = exchange(&[status(504, "New stream connecting")]).await;
    let Err(Error::Refused {
        status: 504,
        step: Step::Answered,
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert_eq!(begin.elapsed(), ANSWER_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn status_425_and_any_other_are_shown() {
    refused(425, "busy").await;
    refused(418, "teapot").await;
    refused(0, "nothing").await;
}

#[tokio::test(start_paused = true)]
async fn no_answer_ends_after_twenty_seconds() {
    let begin = Instant::now();
    let result = exchange(&[]).await;
    let Err(Error::Timeout {
        after: ANSWER_DEADLINE,
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert_eq!(begin.elapsed(), ANSWER_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn the_older_dialect_is_recognized_and_the_key_to_change_named() {
    for said in [
        wowza_answer(),
        json!({ "status": 504, "statusDescription": "New stream connecting" }),
        json!({ "status": "400" }),
    ] {
        let error = exchange(&[said]).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::OtherDialect {
                    spoken: Dialect::WowzaV1,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains("dialect = \"v1\""), "{error}");
    }
}

// --- a refused codec ---------------------------------------------------------------------------------------

/// The answer with its video section changed; returns what is said of it.
async fn with_video(change: impl Fn(&str) -> String) -> Result<RemoteDescription, Error> {
    let mut answer = wowza_v2_answer();
    let sdp = answer["message"]["sdp"].as_str().unwrap().to_owned();
    let (audio, video) = sdp.split_once("m=video").unwrap();
    answer["message"]["sdp"] = json!(format!("{audio}{}", change(&format!("m=video{video}"))));
    exchange(&[answer]).await
}

#[tokio::test(start_paused = true)]
async fn a_refused_video_track_is_named_in_each_of_its_forms() {
    let forms = [
        (
            "port 0",
            with_video(|v| v.replace("m=video 9", "m=video 0")).await,
        ),
        (
            "inactive",
            with_video(|v| v.replace("a=recvonly", "a=inactive")).await,
        ),
        ("no section", with_video(|_| String::new()).await),
    ];
    for (form, result) in forms {
        let Err(Error::Sdp { why, .. }) = &result else {
            panic!("{form}: {result:?}")
        };
        assert!(why.contains("PreferredCodecsVideo"), "{form}: {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundled_video_track_is_not_refused() {
    for (old, new) in [("m=video 9", "m=video 0"), ("a=recvonly", "a=inactive")] {
        let result = with_video(|v| v.replace(old, new) + "a=bundle-only\r\n").await;
        assert!(result.is_ok(), "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_with_a_refused_codec_is_closed_by_its_id() {
    let (mut wowza, mut far) = connected().await;
    let mut answer = wowza_v2_answer();
    let sdp = answer["message"]["sdp"].as_str().unwrap().to_owned();
    answer["message"]["sdp"] = json!(sdp.replace("m=video 9", "m=video 0"));
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        far.say(&answer).await;
    });
    assert!(matches!(result, Err(Error::Sdp { .. })), "{result:?}");
    wowza.close(Parting::Abandon).await;
    assert_eq!(far.hear().await["messageType"], "CLOSE");
    assert!(far.hear_goodbye().await);
}

// --- nonsense ----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn frames_that_say_nothing_to_us_are_passed_over() {
    let (mut wowza, mut far) = connected().await;
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        far.say_text("undefined").await;
        far.say_text("[200]").await;
        far.say_binary(&[1, 2, 3]).await;
        far.say(&json!({ "hello": true })).await;
        far.say(&json!({ "messageType": "OFFER" })).await;
        far.say(&json!({ "statusCode": 200 })).await;
        far.say(&json!({ "statusCode": 200, "message": { "connectionId": "early" } }))
            .await;
        far.say_fragmented(&wowza_v2_answer().to_string(), 64).await;
    });
    assert!(result.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn wrong_types_are_named() {
    for (pointer, wrong) in [
        ("/statusCode", json!(null)),
        ("/statusCode", json!([200])),
        ("/statusCode", json!("OK")),
        ("/statusCode", json!(-1)),
        ("/message/sdp", json!({ "type": "answer", "sdp": "v=0" })),
        ("/message/sdp", json!(7)),
    ] {
        let mut answer = wowza_v2_answer();
        *answer.pointer_mut(pointer).unwrap() = wrong;
        let result = exchange(&[answer]).await;
        assert!(
            matches!(result, Err(Error::Protocol { .. })),
            "{pointer}: {result:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_oversized_message_is_refused() {
    let (mut wowza, mut far) = connected().await;
    let flood = async {
        far.hear().await;
        let text = "x".repeat(2 << 20);
        far.say_fragmented(&text, 64 << 10).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = wowza.exchange(OUR_OFFER) => assert!(matches!(result, Err(Error::Protocol { .. })), "{result:?}"),
        () = flood => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_candidates_is_cut_off_and_does_not_move_the_deadline() {
    let (mut wowza, mut far) = connected().await;
    let begin = Instant::now();
    let flood = async {
        far.hear().await;
        for n in 1.. {
            let port = n % 60_000 + 1;
            far.say(&candidate(&format!(
                "candidate:1 1 udp 5 203.0.113.7 {port} typ host"
            )))
            .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        result = wowza.exchange(OUR_OFFER) => assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}"),
        () = flood => {}
    }
    assert_eq!(begin.elapsed(), ANSWER_DEADLINE);
}

// --- closing before the answer -------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_close_before_the_answer_is_the_end_with_its_code_read() {
    let close = |code: u16, reason: &str| {
        let reason = reason.to_owned();
        async move {
            let (mut wowza, mut far) = connected().await;
            let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
                far.hear().await;
                far.hang_up(code, &reason).await;
            });
            result.unwrap_err()
        }
    };
    assert!(matches!(
        close(1011, "planted-stream").await,
        Error::Closed { code: Some(1011), reason, .. } if reason == "***"
    ));
    assert!(matches!(
        close(4403, "no").await,
        Error::Refused {
            status: 403,
            step: Step::Answered,
            ..
        }
    ));
    let (mut wowza, far) = connected().await;
    drop(far);
    assert!(matches!(
        wowza.exchange(OUR_OFFER).await,
        Err(Error::Closed { .. })
    ));
}

#[test]
fn a_status_is_read_from_code_or_reason() {
    assert_eq!(close_status(4401, ""), Some(401));
    assert_eq!(close_status(4403, ""), Some(403));
    assert_eq!(close_status(4404, "gone"), Some(404));
    let reason = "the Engine ended the session (status 503)";
    assert_eq!(close_status(1000, reason), Some(503));
    assert_eq!(close_status(4000, "(status  410 ) bye"), Some(410));
    for (code, reason) in [
        (1000, ""),
        (1006, "(status 200)"),
        (1001, "(status 99999)"),
        (4402, "status 403"),
        (4499, "(status x)"),
        (1011, "(status 403"),
    ] {
        assert_eq!(close_status(code, reason), None, "{code} {reason}");
    }
}
