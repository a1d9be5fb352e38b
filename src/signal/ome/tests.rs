//! The dialect on a pipe under a paused clock: recorded sessions replayed, each row of the error table, each
//! way of being silent, closing and talking nonsense.

mod sockets;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::super::testing::{
    Far, dialer, error, has_candidates, ome_answer, ome_offer, pipe, recorded,
};
use super::*;

const URL: &str =
    "wss://ome.example:3334/app/planted-stream?policy=planted%2Dpolicy&signature=planted-signature";

fn ome() -> Ome {
    Ome::new(&Secret::new(URL), &[], dialer())
}

/// A signaller whose socket is open on a pipe.
async fn connected() -> (Ome, Far) {
    let (socket, far) = pipe().await;
    let mut ome = ome();
    ome.link = Some(Link {
        socket,
        phase: Phase::Fresh,
        tainted: false,
    });
    (ome, far)
}

/// Plays the server up to the offer, and answers it.
async fn answered() -> (Ome, Far) {
    let (mut ome, mut far) = connected().await;
    let (opening, ()) = tokio::join!(ome.request(), async {
        far.hear().await;
        far.say(&ome_offer()).await;
    });
    opening.unwrap();
    let (sent, heard) = tokio::join!(ome.exchange(ome_answer()), far.hear());
    assert!(sent.unwrap().is_none());
    assert_eq!(heard["command"], "answer");
    (ome, far)
}

/// What `request` makes of a server that says `said`.
async fn opening(said: Value) -> Result<Opening, Error> {
    let (mut ome, mut far) = connected().await;
    let (opening, ()) = tokio::join!(ome.request(), async {
        far.hear().await;
        far.say(&said).await;
    });
    opening
}

/// What `next` makes of a server that says `said` after our answer.
async fn after_answer(said: Value) -> Result<Event, Error> {
    let (mut ome, mut far) = answered().await;
    far.say(&said).await;
    ome.next().await
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String, Step) {
    match result {
        Err(Error::Refused {
            status, text, step, ..
        }) => (status, text, step),
        other => panic!("not refused but {other:?}"),
    }
}

// --- recorded sessions -------------------------------------------------------------------------------------

/// Replays a recorded publish session; returns what the signaller learnt.
async fn replay(file: &str) -> RemoteDescription {
    let file = recorded(&format!("ome/{file}"));
    let messages = file["signalling"].as_array().unwrap();
    let (mut ome, mut far) = connected().await;
    let mut learnt = None;
    let mut answers = 0;
    for message in messages {
        let msg = &message["msg"];
        match (
            message["dir"].as_str().unwrap(),
            msg["command"].as_str().unwrap(),
        ) {
            ("client->server", "request_offer") => {
                let offer = &messages[1]["msg"];
                let (opening, heard) = tokio::join!(ome.request(), async {
                    let heard = far.hear().await;
                    far.say(offer).await;
                    heard
                });
                assert_eq!(&heard, msg);
                let Opening::Offered(remote) = opening.unwrap() else {
                    panic!("no offer")
                };
                learnt = Some(remote);
            }
            ("client->server", "answer") => {
                let sdp = msg["sdp"]["sdp"].as_str().unwrap();
                let (sent, heard) = tokio::join!(ome.exchange(sdp), far.hear());
                sent.unwrap();
                assert_eq!(heard["id"], msg["id"]);
                assert_eq!(heard["peer_id"], msg["peer_id"]);
                assert_eq!(heard["sdp"]["type"], "answer");
                assert_eq!(heard["sdp"]["sdp"], sdp::without_candidates(sdp));
                answers += 1;
            }
            // A browser trickles; we need not.
            ("client->server", "candidate") | ("server->client", "offer") => {}
            other => panic!("unforeseen {other:?}"),
        }
    }
    assert_eq!(answers, 1);
    // Each recorded session ends with a bare TCP close.
    drop(far);
    assert!(matches!(
        ome.next().await,
        Err(Error::Closed { code: None, .. })
    ));
    learnt.unwrap()
}

#[tokio::test(start_paused = true)]
async fn recorded_publish_over_udp() {
    for file in ["v0.21.0-publish-udp.json", "v0.21.0-publish-wss.json"] {
        let remote = replay(file).await;
        assert_eq!(remote.candidates.len(), 2, "{file}");
        assert!(remote.ice_servers.is_empty());
        assert_eq!(
            remote.payload_types,
            PayloadTypes {
                h264: 100,
                opus: 102
            }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn recorded_publish_over_ice_tcp() {
    let remote = replay("v0.21.0-publish-tcp.json").await;
    assert!(
        has_candidates(&remote, &[("tcp", 3479)]),
        "{:?}",
        remote.candidates
    );
    assert!(remote.candidates[0].ends_with(" tcptype passive"));
    assert!(remote.ice_servers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn recorded_publish_through_the_relay() {
    let remote = replay("v0.21.0-publish-relay.json").await;
    assert!(
        has_candidates(&remote, &[("udp", 1518)]),
        "{:?}",
        remote.candidates
    );
    // The copy is at the host we dialled.
    let [copy, server] = remote.ice_servers.as_slice() else {
        panic!("one server and its copy")
    };
    assert_eq!(copy.url.host, "ome.example");
    assert_eq!(server.url.to_string(), "turn:127.0.0.1:3478?transport=tcp");
    assert_eq!(server.username, "ome");
    assert_eq!(server.credential.expose(), "airen");
    assert_eq!(
        replay("v0.21.0-publish-all.json").await.ice_servers.len(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn recorded_publish_to_the_version_where_tcp_meant_the_relay() {
    let remote = replay("v0.20.5-publish-tcp.json").await;
    assert!(
        has_candidates(&remote, &[("udp", 10013)]),
        "{:?}",
        remote.candidates
    );
    assert_eq!(
        remote.ice_servers[1].url.to_string(),
        "turn:127.0.0.1:3488?transport=tcp"
    );
    let remote = replay("v0.20.5-publish-udp.json").await;
    assert!(has_candidates(&remote, &[("udp", 10014)]));
}

#[tokio::test(start_paused = true)]
async fn recorded_offer_with_rtx_has_other_payload_types() {
    let remote = replay("v0.21.0-publish-rtx.json").await;
    assert_eq!(
        remote.payload_types,
        PayloadTypes {
            h264: 100,
            opus: 104
        }
    );
    assert!(!remote.sdp.contains("rtx"));
}

#[tokio::test(start_paused = true)]
async fn recorded_black_hole_is_not_walked_into() {
    let file = recorded("ome/v0.21.0-answer-without-ssrc.json");
    let offer = &file["signalling"][1]["msg"];
    let answer = &file["signalling"][2]["msg"];
    assert_eq!(answer["command"], "answer");
    let (mut ome, mut far) = connected().await;
    let (opening, ()) = tokio::join!(ome.request(), async {
        far.hear().await;
        far.say(offer).await;
    });
    opening.unwrap();
    let refused = ome.exchange(answer["sdp"]["sdp"].as_str().unwrap()).await;
    assert!(
        matches!(&refused, Err(Error::Sdp { why, .. }) if why.contains("SSRC")),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn recorded_probes_end_as_the_server_meant() {
    let file = recorded("ome/v0.21.0-probes.json");
    let mut seen = (0, 0);
    for probe in file["probes"].as_array().unwrap() {
        let log = probe["log"].as_array().unwrap();
        if log[0]["msg"]["command"] != "request_offer" {
            continue;
        }
        let said = log[1]["msg"].clone();
        let result = opening(said.clone()).await;
        if said["code"] == 200 {
            assert!(
                matches!(result, Ok(Opening::Offered(_))),
                "{}",
                probe["name"]
            );
            seen.0 += 1;
        } else {
            assert_eq!(
                refusal(result),
                (404, "Cannot create offer".to_owned(), Step::Opening)
            );
            seen.1 += 1;
        }
    }
    assert_eq!(seen, (22, 6));
}

// --- rows of the error table -------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn error_404_cannot_create_offer() {
    let file = recorded("ome/v0.21.0-duplicate-name.json");
    let said = file["signalling"][1]["msg"].clone();
    assert_eq!(
        refusal(opening(said).await),
        (404, "Cannot create offer".to_owned(), Step::Opening)
    );
}

#[tokio::test(start_paused = true)]
async fn error_403_forbidden() {
    let result = after_answer(error(403, "Forbidden")).await;
    assert_eq!(
        refusal(result),
        (403, "Forbidden".to_owned(), Step::Answered)
    );
}

#[tokio::test(start_paused = true)]
async fn error_400_bad_answer() {
    for text in [
        "Invalid ID",
        "There is no SDP",
        "Invalid SDP type",
        "SDP must be a string",
        "Could not parse SDP",
        "Could not find peer id: 7",
        "Unknown command: answer",
    ] {
        let result = after_answer(error(400, text)).await;
        assert_eq!(refusal(result), (400, text.to_owned(), Step::Answered));
    }
}

#[tokio::test(start_paused = true)]
async fn error_400_before_the_answer() {
    let result = opening(error(400, "Invalid ID")).await;
    assert_eq!(
        refusal(result),
        (400, "Invalid ID".to_owned(), Step::Opening)
    );
}

#[tokio::test(start_paused = true)]
async fn error_500_cannot_dispatch_stop_command() {
    let result = after_answer(error(500, "Cannot dispatch stop command")).await;
    assert_eq!(
        refusal(result),
        (500, "Cannot dispatch stop command".to_owned(), Step::Live)
    );
}

#[tokio::test(start_paused = true)]
async fn error_500_cannot_parse_peer_info() {
    let text = "Cannot parse peer info from user agent: onair";
    let result = opening(error(500, text)).await;
    assert_eq!(refusal(result), (500, text.to_owned(), Step::Opening));
}

#[tokio::test(start_paused = true)]
async fn an_error_without_a_number_or_with_a_number_as_text_is_an_error_too() {
    let result = opening(json!({ "code": "404", "error": "no" })).await;
    assert_eq!(refusal(result).0, 404);
    let result = opening(json!({ "error": { "deep": true } })).await;
    assert_eq!(refusal(result).0, 0);
    let result = opening(json!({ "code": 503 })).await;
    assert_eq!(refusal(result).0, 503);
}

// --- silence and closing at each step ----------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn silence_instead_of_the_offer_ends_after_ten_seconds() {
    let (mut ome, _far) = connected().await;
    let begin = Instant::now();
    let result = ome.request().await;
    assert!(
        matches!(
            result,
            Err(Error::Timeout {
                after: OFFER_DEADLINE,
                ..
            })
        ),
        "{result:?}"
    );
    assert_eq!(begin.elapsed(), OFFER_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn chatter_does_not_stretch_the_wait_for_the_offer() {
    let (mut ome, mut far) = connected().await;
    let chatter = async {
        loop {
            far.say(&json!({ "command": "notification" })).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let begin = Instant::now();
    tokio::select! {
        result = ome.request() => assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}"),
        () = chatter => {}
    }
    assert_eq!(begin.elapsed(), OFFER_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_cannot_hold_our_answer() {
    let (near, far) = tokio::io::duplex(512);
    let target = Target::parse("wss://server.example/path", &[]).unwrap();
    let (socket, far) = tokio::join!(
        Socket::upgrade(Box::new(near), &target),
        tokio_tungstenite::accept_async(far)
    );
    let (mut ome, mut far) = (ome(), Far(far.unwrap()));
    ome.link = Some(Link {
        socket: socket.unwrap(),
        phase: Phase::Fresh,
        tainted: false,
    });
    let (opening, ()) = tokio::join!(ome.request(), async {
        far.hear().await;
        far.say(&ome_offer()).await;
    });
    opening.unwrap();
    let begin = Instant::now();
    let result = ome.exchange(ome_answer()).await;
    assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
    ome.close(Parting::Stop).await;
    assert!(begin.elapsed() <= Duration::from_secs(5 + 2));
}

#[tokio::test(start_paused = true)]
async fn success_is_silence_for_as_long_as_it_lasts() {
    let (mut ome, mut far) = answered().await;
    let day = Duration::from_secs(86_400);
    tokio::select! {
        event = ome.next() => panic!("{event:?}"),
        () = async { loop { far.0.next().await; } } => {}
        () = tokio::time::sleep(day) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_at_each_step_names_the_step() {
    let waiting = |result: Result<(), Error>| match result {
        Err(Error::Closed {
            waiting_for, code, ..
        }) => (waiting_for, code),
        other => panic!("{other:?}"),
    };
    let (mut ome, far) = connected().await;
    drop(far);
    assert_eq!(
        waiting(ome.request().await.map(drop)),
        ("its offer was awaited", None)
    );

    let (mut ome, mut far) = connected().await;
    let close = async {
        far.hear().await;
        far.0.close(None).await.unwrap();
    };
    let (result, ()) = tokio::join!(ome.request(), close);
    assert_eq!(waiting(result.map(drop)).0, "its offer was awaited");

    let (mut ome, mut far) = answered().await;
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: 1011.into(),
        reason: "planted-stream went away".into(),
    };
    far.0.close(Some(frame)).await.unwrap();
    let result = ome.next().await;
    assert!(
        matches!(&result, Err(Error::Closed { code: Some(1011), reason, .. }) if reason == "*** went away")
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_socket_nothing_is_exchanged() {
    let mut ome = ome();
    assert!(matches!(
        ome.exchange("v=0").await,
        Err(Error::Closed { .. })
    ));
    assert!(matches!(ome.next().await, Err(Error::Closed { .. })));
    ome.close(Parting::Stop).await;
}

// --- nonsense ----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn nonsense_instead_of_the_offer_is_named() {
    for (text, got) in [
        ("hello planted-stream", "text that is no JSON: hello ***"),
        ("{\"command\":", "text that is no JSON"),
        ("[1,2]", "a JSON array of 2"),
        ("null", "a JSON null"),
        ("\"offer\"", "a JSON string"),
    ] {
        let (mut ome, mut far) = connected().await;
        let (result, ()) = tokio::join!(ome.request(), async {
            far.hear().await;
            far.say_text(text).await;
        });
        let Err(Error::Protocol {
            got: said,
            endpoint,
            ..
        }) = result
        else {
            panic!("{result:?}")
        };
        assert!(said.starts_with(got), "{said}");
        assert_eq!(endpoint, "wss://ome.example:3334");
    }
}

#[tokio::test(start_paused = true)]
async fn a_binary_message_instead_of_the_offer_is_named() {
    let (mut ome, mut far) = connected().await;
    let (result, ()) = tokio::join!(ome.request(), async {
        far.hear().await;
        far.say_binary(&[0, 159, 146, 150]).await;
    });
    assert!(
        matches!(&result, Err(Error::Protocol { got, .. }) if got == "a binary message of 4 bytes"),
        "{result:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_oversized_message_is_refused_without_reading_it_all() {
    let (mut ome, mut far) = connected().await;
    let flood = async {
        far.hear().await;
        let big = Frame::text("x".repeat((1 << 20) + 1));
        // The pipe breaks when the other side has seen enough.
        drop(far.0.send(big).await);
    };
    tokio::select! {
        result = ome.request() => {
            assert!(matches!(&result, Err(Error::Protocol { got, .. }) if got.contains("1048577 bytes")), "{result:?}");
        }
        () = async { flood.await; std::future::pending::<()>().await } => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_fragmented_offer_is_put_together() {
    let (mut ome, mut far) = connected().await;
    let (result, ()) = tokio::join!(ome.request(), async {
        far.hear().await;
        far.say_fragmented(&ome_offer().to_string(), 100).await;
    });
    assert!(matches!(result, Ok(Opening::Offered(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn fragments_beyond_the_limit_are_refused() {
    let (mut ome, mut far) = connected().await;
    let flood = async {
        far.hear().await;
        let text = "x".repeat(2 << 20);
        far.say_fragmented(&text, 64 << 10).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = ome.request() => assert!(matches!(result, Err(Error::Protocol { .. })), "{result:?}"),
        () = flood => {}
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_types_in_an_offer_are_named() {
    for (pointer, wrong) in [
        ("/id", json!([1])),
        ("/id", json!(null)),
        ("/peer_id", json!({})),
        ("/sdp", json!("v=0")),
        ("/sdp", json!(null)),
        ("/sdp/sdp", json!(5)),
        ("/sdp/type", json!("answer")),
    ] {
        let mut offer = ome_offer();
        *offer.pointer_mut(pointer).unwrap() = wrong;
        let result = opening(offer).await;
        assert!(
            matches!(result, Err(Error::Protocol { .. })),
            "{pointer}: {result:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_types_beside_the_description_are_passed_over() {
    let mut offer = ome_offer();
    offer["candidates"] = json!([1, null, {}, { "candidate": 7 }, { "candidate": "garbage" }, "candidate:1 1 udp 5 192.0.2.1 9 typ host"]);
    offer["iceServers"] = json!("none");
    offer["ice_servers"] =
        json!([{ "urls": "turn:a" , "user_name": "u" }, { "urls": [7] }, 5, { "urls": [] }]);
    let Ok(Opening::Offered(remote)) = opening(offer).await else {
        panic!("no offer")
    };
    assert_eq!(
        remote.candidates,
        ["candidate:1 1 udp 5 192.0.2.1 9 typ host"]
    );
    assert_eq!(remote.ice_servers.len(), 2, "one, and its copy at our host");
    assert_eq!(remote.ice_servers[0].username, "u");
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_cannot_work_is_named() {
    for (from, to, why) in [
        ("v=0", "x=0", "v=0"),
        ("a=fingerprint", "a=finger", "fingerprint"),
        ("a=rtpmap:100 H264", "a=rtpmap:100 H265", "codec"),
        ("a=rtpmap:102 OPUS", "a=rtpmap:102 PCMU", "audio"),
    ] {
        let mut offer = ome_offer();
        let sdp = offer["sdp"]["sdp"].as_str().unwrap().replace(from, to);
        offer["sdp"]["sdp"] = json!(sdp);
        let result = opening(offer).await;
        assert!(
            matches!(&result, Err(Error::Sdp { why: said, .. }) if said.contains(why)),
            "{result:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nonsense_while_media_flows_does_not_end_the_stream() {
    let (mut ome, mut far) = answered().await;
    far.say_text("hello").await;
    far.say_binary(b"hello").await;
    far.say(&json!({ "command": "offer", "id": [] })).await;
    far.say(&json!({ "command": 5 })).await;
    far.say(&ome_offer()).await;
    far.say(&json!({ "command": "candidate", "candidates": [] }))
        .await;
    let candidate = "candidate:1 1 UDP 5 192.0.2.1 10000 typ host generation 0";
    far.say(&json!({ "command": "candidate", "candidates": [{ "candidate": candidate }] }))
        .await;
    let Ok(Event::Candidates(list)) = ome.next().await else {
        panic!("no candidates")
    };
    assert_eq!(list, ["candidate:1 1 udp 5 192.0.2.1 10000 typ host"]);
}

// --- the id, keep-alive and parting ------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_id_goes_back_as_it_came() {
    for id in [
        json!(506_764_844),
        json!(-1),
        json!(2_147_483_647_u32),
        json!("text"),
    ] {
        let (mut ome, mut far) = connected().await;
        let mut offer = ome_offer();
        offer["id"] = id.clone();
        let (opening, ()) = tokio::join!(ome.request(), async {
            far.hear().await;
            far.say(&offer).await;
        });
        opening.unwrap();
        let (_, answer) = tokio::join!(ome.exchange(ome_answer()), far.hear());
        assert_eq!(answer["id"], id);
        assert_eq!(answer["peer_id"], json!(0));
        let ((), stop) = tokio::join!(ome.close(Parting::Stop), far.hear());
        assert_eq!(stop, json!({ "id": id, "peer_id": 0, "command": "stop" }));
    }
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_media_flows() {
    let (mut ome, mut far) = answered().await;
    let pinging = async {
        far.0
            .send(Frame::Ping("OvenMediaEngine".into()))
            .await
            .unwrap();
        loop {
            if let Frame::Pong(payload) = far.0.next().await.unwrap().unwrap() {
                break payload;
            }
        }
    };
    tokio::select! {
        event = ome.next() => panic!("{event:?}"),
        payload = pinging => assert_eq!(payload.as_ref(), b"OvenMediaEngine"),
    }
}

#[tokio::test(start_paused = true)]
async fn stop_says_so_and_closes() {
    let (mut ome, mut far) = answered().await;
    let ((), stop) = tokio::join!(ome.close(Parting::Stop), far.hear());
    assert_eq!(stop["command"], "stop");
    assert!(far.hear_goodbye().await);
    assert!(ome.link.is_none());
}

#[tokio::test(start_paused = true)]
async fn abandoning_closes_without_stop() {
    let (mut ome, mut far) = answered().await;
    ome.close(Parting::Abandon).await;
    assert!(far.hear_goodbye().await);
}

#[tokio::test(start_paused = true)]
async fn parting_takes_two_seconds_at_most() {
    let (mut ome, far) = answered().await;
    let begin = Instant::now();
    ome.close(Parting::Stop).await;
    assert!(begin.elapsed() <= Duration::from_secs(2));
    drop(far);
}
