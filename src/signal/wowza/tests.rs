//! The automatic choice against scripted servers on loopback, which note what each client asked for.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::super::testing::{OUR_OFFER, dialer, wowza_answer, wowza_v2_answer};
use super::*;

const V1: Dialect = Dialect::WowzaV1;
const V2: Dialect = Dialect::WowzaV2;

/// What a connection meets.
enum Meets {
    /// Its offer is answered so.
    Reply(Value),
    /// Its offer is met with a closed connection.
    HangUp,
    /// Its upgrade is refused with 404.
    TurnedAway,
}

/// Serves each connection with one of `script`; returns what each asked for: the query of its URL and the words of
/// its offer.
async fn serve(listener: TcpListener, script: Vec<Meets>) -> Vec<(String, Option<Dialect>)> {
    let mut seen = Vec::new();
    // Kept open to the end: a session may go on.
    let mut open = Vec::new();
    for meets in script {
        let (stream, _) = listener.accept().await.unwrap();
        let mut query = String::new();
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let upgrade = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            request
                .uri()
                .query()
                .unwrap_or_default()
                .clone_into(&mut query);
            if matches!(meets, Meets::TurnedAway) {
                let mut refusal = ErrorResponse::new(None);
                *refusal.status_mut() = 404.try_into().unwrap();
                return Err(refusal);
            }
            Ok(response)
        };
        let Ok(mut far) = tokio_tungstenite::accept_hdr_async(stream, upgrade).await else {
            seen.push((query, None));
            continue;
        };
        let Some(Ok(Message::Text(offer))) = far.next().await else {
            panic!("no offer")
        };
        let offer: Value = serde_json::from_str(&offer).unwrap();
        let dialect = match (&offer["command"], &offer["messageType"]) {
            (Value::String(_), Value::Null) => V1,
            (Value::Null, Value::String(_)) => V2,
            _ => panic!("{offer}"),
        };
        seen.push((query, Some(dialect)));
        if let Meets::Reply(reply) = meets {
            far.send(Message::text(reply.to_string())).await.unwrap();
            open.push(far);
        }
    }
    seen
}

/// Lets `count` sessions run against `script`. Returns what was asked for, and each session's dialect and result.
async fn sessions(
    query: &str,
    count: usize,
    script: Vec<Meets>,
) -> (
    Vec<(String, Option<Dialect>)>,
    Vec<(Dialect, Result<bool, Error>)>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let url = Secret::new(format!("ws://{host}/webrtc-session.json{query}"));
    let mut wowza = Wowza::new(&url, "live", &Secret::new("planted"), dialer());
    let run = async {
        let mut ended = Vec::new();
        for _ in 0..count {
            let foretold = wowza.dialect();
            let result = async {
                let opening = wowza.open(0).await;
                assert_eq!(wowza.dialect(), foretold);
                opening?;
                Ok(wowza.exchange(OUR_OFFER).await?.is_some())
            };
            let result = result.await;
            ended.push((wowza.dialect(), result));
            wowza.close(Parting::Abandon).await;
        }
        ended
    };
    let both = async { tokio::join!(serve(listener, script), run) };
    timeout(Duration::from_secs(20), both)
        .await
        .expect("no end")
}

fn v1_answer() -> Meets {
    Meets::Reply(wowza_answer())
}

fn v2_answer() -> Meets {
    Meets::Reply(wowza_v2_answer())
}

#[test]
fn the_older_dialect_is_asked_for_without_the_flag_of_the_newer() {
    for (url, older) in [
        ("wss://h/p", "wss://h/p"),
        ("wss://h/p?webrtcImplementation=v2", "wss://h/p"),
        (
            "wss://h/p?k=a%2Fb&webrtcImplementation=v2&l",
            "wss://h/p?k=a%2Fb&l",
        ),
        ("wss://h/p?k=1#x", "wss://h/p?k=1"),
    ] {
        assert_eq!(without_flag(&Secret::new(url)).expose(), older);
    }
}

#[test]
fn the_cloud_and_other_hosts_begin_with_v1_and_a_url_that_says_v2_with_v2() {
    for (url, dialect) in [
        (
            "wss://abc.entrypoint.video.wowza.com/webrtc-session.json",
            V1,
        ),
        (
            "wss://abc.entrypoint.cloud.wowza.com/webrtc-session.json",
            V1,
        ),
        ("wss://engine.example/webrtc-session.json", V1),
        (
            "wss://engine.example/webrtc-session.json?webrtcImplementation=v2",
            V2,
        ),
        ("no url", V1),
    ] {
        let wowza = Wowza::new(&Secret::new(url), "live", &Secret::new("s"), dialer());
        assert_eq!(wowza.dialect(), dialect, "{url}");
    }
}

#[tokio::test]
async fn a_server_of_the_dialect_tried_first_is_asked_once_per_session() {
    let (asked, ended) = sessions("?k=1", 2, vec![v1_answer(), v1_answer()]).await;
    assert_eq!(asked, vec![("k=1".to_owned(), Some(V1)); 2]);
    assert!(
        ended.iter().all(|e| matches!(e, (V1, Ok(true)))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_reply_in_the_newer_dialect_turns_the_same_session_and_is_remembered() {
    let unknown = json!({ "statusCode": 400, "statusDescription": "unknown messageType" });
    let script = vec![Meets::Reply(unknown), v2_answer(), v2_answer()];
    let (asked, ended) = sessions("", 2, script).await;
    let v2 = ("webrtcImplementation=v2".to_owned(), Some(V2));
    assert_eq!(asked, [(String::new(), Some(V1)), v2.clone(), v2]);
    assert!(
        ended.iter().all(|e| matches!(e, (V2, Ok(true)))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_reply_in_the_older_dialect_turns_the_same_session_and_is_remembered() {
    let script = vec![v1_answer(), v1_answer(), v1_answer()];
    let (asked, ended) = sessions("?webrtcImplementation=v2", 2, script).await;
    let v1 = (String::new(), Some(V1));
    let v2 = ("webrtcImplementation=v2".to_owned(), Some(V2));
    assert_eq!(asked, [v2, v1.clone(), v1]);
    assert!(
        ended.iter().all(|e| matches!(e, (V1, Ok(true)))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn no_answer_turns_the_next_session() {
    let script = vec![Meets::HangUp, Meets::HangUp, v1_answer()];
    let (asked, ended) = sessions("", 3, script).await;
    let dialects: Vec<_> = asked.iter().map(|(_, dialect)| *dialect).collect();
    assert_eq!(dialects, [Some(V1), Some(V2), Some(V1)]);
    assert!(
        matches!(ended[0], (V1, Err(Error::Closed { .. }))),
        "{ended:?}"
    );
    assert!(
        matches!(ended[1], (V2, Err(Error::Closed { .. }))),
        "{ended:?}"
    );
    assert!(matches!(ended[2], (V1, Ok(true))), "{ended:?}");
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_survives_two_silences_but_not_three() {
    let busy = json!({ "status": 503, "statusDescription": "in use" });
    let script = vec![
        Meets::Reply(busy),
        Meets::HangUp,
        Meets::HangUp,
        Meets::HangUp,
        v2_answer(),
    ];
    let (asked, ended) = sessions("", 5, script).await;
    let dialects: Vec<_> = asked.iter().map(|(_, dialect)| *dialect).collect();
    assert_eq!(dialects, [Some(V1), Some(V1), Some(V1), Some(V1), Some(V2)]);
    assert!(
        matches!(ended[0], (V1, Err(Error::Refused { status: 503, .. }))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_url_at_which_only_one_dialect_is_let_in_is_found() {
    let script = vec![Meets::HangUp, Meets::TurnedAway, v1_answer()];
    let (asked, ended) = sessions("", 3, script).await;
    assert_eq!(asked[1], ("webrtcImplementation=v2".to_owned(), None));
    assert!(
        matches!(ended[1], (V2, Err(Error::Connect(_)))),
        "{ended:?}"
    );
    assert!(matches!(ended[2], (V1, Ok(true))), "{ended:?}");
}

#[tokio::test]
async fn a_server_that_contradicts_both_is_not_asked_for_ever() {
    let script = vec![v2_answer(), v1_answer()];
    let (asked, ended) = sessions("", 1, script).await;
    assert_eq!(asked.len(), 2);
    assert!(
        matches!(ended[0], (V2, Err(Error::OtherDialect { .. }))),
        "{ended:?}"
    );
}
