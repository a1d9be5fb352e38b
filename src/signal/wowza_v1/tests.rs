//! The dialect on a pipe under a paused clock: the happy path, each row of the status table, silence, closing
//! and nonsense.

use std::time::Duration;

use super::super::testing::{Far, OUR_OFFER, dialer, has_candidates, pipe, wowza_answer};
use super::*;

const STREAM: &str = "planted-stream?token=planted-token";

async fn connected() -> (WowzaV1, Far) {
    let (socket, far) = pipe().await;
    let url = Secret::new("wss://wowza.example/webrtc-session.json");
    let mut wowza = WowzaV1::new(&url, "live", &Secret::new(STREAM), dialer());
    wowza.socket = Some(socket);
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

async fn answered() -> (WowzaV1, Far) {
    let (mut wowza, mut far) = connected().await;
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        far.say(&wowza_answer()).await;
    });
    result.unwrap();
    (wowza, far)
}

fn status(status: impl Into<Value>, text: &str) -> Value {
    json!({ "status": status.into(), "statusDescription": text, "direction": "publish", "command": "sendOffer" })
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
        assert_eq!(endpoint, "wss://wowza.example:443");
    }
}

// --- the happy path ----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_offer_is_what_the_official_page_sends() {
    let (mut wowza, mut far) = connected().await;
    let (_, heard) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        let heard = far.hear().await;
        far.say(&wowza_answer()).await;
        heard
    });
    let sdp = heard["sdp"]["sdp"].as_str().unwrap().to_owned();
    assert_eq!(
        heard,
        json!({
            "direction": "publish",
            "command": "sendOffer",
            "streamInfo": { "applicationName": "live", "streamName": STREAM, "sessionId": "[empty]" },
            "sdp": { "type": "offer", "sdp": sdp },
            "userData": {},
        })
    );
    assert!(sdp.starts_with("v=0\r\n") && sdp.contains("a=sendonly\r\n"));
    assert!(!sdp.contains("candidate"));
}

#[tokio::test(start_paused = true)]
async fn status_200_brings_answer_and_candidate() {
    for code in [json!(200), json!("200"), json!(201)] {
        let mut answer = wowza_answer();
        answer["status"] = code;
        let remote = exchange(&[answer]).await.unwrap();
        assert_eq!(
            remote.candidates,
            ["candidate:0 1 tcp 50 35.236.28.45 1935 typ host tcptype passive"]
        );
        assert_eq!(remote.payload_types, PayloadTypes::OFFERED);
        assert!(remote.ice_servers.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn candidates_may_come_in_a_message_of_their_own() {
    let mut answer = wowza_answer();
    let candidates = answer["iceCandidates"].take();
    let alone = json!({ "status": 200, "iceCandidates": candidates });
    let remote = exchange(&[alone.clone(), answer.clone()]).await.unwrap();
    assert!(has_candidates(&remote, &[("tcp", 1935)]));

    let (mut wowza, mut far) = connected().await;
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        far.say(&answer).await;
        far.say(&alone).await;
    });
    assert!(result.unwrap().unwrap().candidates.is_empty());
    let Ok(Event::Candidates(list)) = wowza.next().await else {
        panic!("no candidates")
    };
    assert_eq!(list.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn candidates_may_stand_in_the_answer() {
    let mut answer = wowza_answer();
    answer["iceCandidates"] = json!(null);
    let sdp = answer["sdp"]["sdp"].as_str().unwrap().to_owned();
    answer["sdp"]["sdp"] =
        json!(sdp + "a=candidate:1 1 UDP 5 203.0.113.1 10000 typ host generation 0\r\n");
    let remote = exchange(&[answer]).await.unwrap();
    assert!(has_candidates(&remote, &[("udp", 10000)]));
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
async fn status_502_not_running() {
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
        assert!(
            exchange(&[wait.clone(), wait, wowza_answer()])
                .await
                .is_ok()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn status_504_until_the_deadline_is_a_refusal() {
    let begin = Instant::now();
    let result = exchange(&[status(504, "New stream connecting")]).await;
    assert!(
        matches!(
            result,
            Err(Error::Refused {
                status: 504,
                step: Step::Answered,
                ..
            })
        ),
        "{result:?}"
    );
    assert_eq!(begin.elapsed(), ANSWER_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn any_other_status_is_shown() {
    refused(418, "teapot").await;
    refused(0, "nothing").await;
}

#[tokio::test(start_paused = true)]
async fn no_answer_ends_after_twenty_seconds() {
    let begin = Instant::now();
    let result = exchange(&[]).await;
    assert!(
        matches!(
            result,
            Err(Error::Timeout {
                after: ANSWER_DEADLINE,
                ..
            })
        ),
        "{result:?}"
    );
    assert_eq!(begin.elapsed(), ANSWER_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn the_newer_dialect_is_recognized_and_the_key_to_change_named() {
    for said in [
        json!({ "statusCode": 200, "message": {} }),
        json!({ "messageType": "OFFER" }),
    ] {
        let error = exchange(&[said]).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::OtherDialect {
                    spoken: Dialect::WowzaV2,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains("dialect = \"v2\""), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_video_track_is_named() {
    let mut answer = wowza_answer();
    let sdp = answer["sdp"]["sdp"]
        .as_str()
        .unwrap()
        .replace("m=video 9", "m=video 0");
    answer["sdp"]["sdp"] = json!(sdp);
    let result = exchange(&[answer]).await;
    assert!(
        matches!(&result, Err(Error::Sdp { why, .. }) if why.contains("PreferredCodecsVideo")),
        "{result:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_work_is_named() {
    for sdp in [
        "",
        "garbage",
        "v=0\r\n",
        "v=0\r\nm=video 9 RTP/SAVPF 108\r\n",
    ] {
        let mut answer = wowza_answer();
        answer["sdp"]["sdp"] = json!(sdp);
        let result = exchange(&[answer]).await;
        assert!(matches!(result, Err(Error::Sdp { .. })), "{result:?}");
    }
}

// --- nonsense ----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn frames_that_are_no_json_are_passed_over() {
    let (mut wowza, mut far) = connected().await;
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        far.say_text("undefined").await;
        far.say_text("{\"status\":200,\"userData\":undefined}")
            .await;
        far.say_text("[200]").await;
        far.say_binary(&[1, 2, 3]).await;
        far.say(&json!({ "hello": true })).await;
        far.say(&json!({ "status": 200, "availableStreams": null }))
            .await;
        far.say_fragmented(&wowza_answer().to_string(), 64).await;
    });
    assert!(result.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn wrong_types_are_named() {
    for (pointer, wrong) in [
        ("/status", json!(null)),
        ("/status", json!([200])),
        ("/status", json!("OK")),
        ("/status", json!(-1)),
        ("/status", json!(1e300)),
        ("/sdp", json!("v=0")),
        ("/sdp", json!(7)),
        ("/sdp/sdp", json!({})),
        ("/sdp/type", json!("offer")),
    ] {
        let mut answer = wowza_answer();
        *answer.pointer_mut(pointer).unwrap() = wrong;
        let result = exchange(&[answer]).await;
        assert!(
            matches!(result, Err(Error::Protocol { .. })),
            "{pointer}: {result:?}"
        );
    }
    let mut answer = wowza_answer();
    answer["iceCandidates"] = json!({ "candidate": 5 });
    assert!(exchange(&[answer]).await.unwrap().candidates.is_empty());
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

// --- closing -----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_close_before_the_answer_is_the_end() {
    let (mut wowza, mut far) = connected().await;
    let (result, ()) = tokio::join!(wowza.exchange(OUR_OFFER), async {
        far.hear().await;
        far.0.close(None).await.unwrap();
    });
    assert!(
        matches!(
            &result,
            Err(Error::Closed {
                waiting_for: "its answer was awaited",
                ..
            })
        ),
        "{result:?}"
    );

    let (mut wowza, far) = connected().await;
    drop(far);
    assert!(matches!(
        wowza.exchange(OUR_OFFER).await,
        Err(Error::Closed { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_close_while_media_flows_changes_nothing() {
    let (mut wowza, far) = answered().await;
    drop(far);
    for _ in 0..2 {
        let day = Duration::from_secs(86_400);
        let waited = tokio::time::timeout(day, wowza.next()).await;
        assert!(waited.is_err(), "{waited:?}");
    }
    wowza.close(Parting::Stop).await;
}

#[tokio::test(start_paused = true)]
async fn a_status_while_media_flows_is_the_end() {
    let (mut wowza, mut far) = answered().await;
    far.say_text("hello").await;
    far.say(&status(504, "New stream connecting")).await;
    far.say(&status(502, "gone")).await;
    let result = wowza.next().await;
    assert!(
        matches!(
            result,
            Err(Error::Refused {
                status: 502,
                step: Step::Live,
                ..
            })
        ),
        "{result:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn parting_is_a_close_frame() {
    for parting in [Parting::Stop, Parting::Abandon] {
        let (mut wowza, mut far) = answered().await;
        wowza.close(parting).await;
        assert!(far.hear_goodbye().await);
        wowza.close(parting).await;
    }
}
