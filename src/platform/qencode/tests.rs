use super::*;
use crate::config::Server;
use crate::config::platform::Vendor;
use crate::config::secret::SecretSource;
use crate::platform::testing::{Said, Scripted};

const TOKEN: Said = (200, "", r#"{"access_token":"planted-jwt"}"#);
const URL: &str = "wss://live-df66.qencode.com:3334/qlive/planted-stream-key";
const STARTED: &str = r#"{"id":"s1","status":"Idle","server_urls":{"rtmp":"rtmp://x/qlive",
    "webrtc":"wss://live-df66.qencode.com:3334/qlive/planted-stream-key"}}"#;
const STOPPED: &str = r#"{"id":"s1","status":"Stopped","stream_key":"planted-stream-key"}"#;

fn at() -> Ingest {
    Ingest::At(Server::Qencode {
        url: Secret::new(URL),
    })
}

fn known(state: State, ingest: Ingest) -> Stream {
    Stream {
        id: "s1".to_owned(),
        name: String::new(),
        state,
        ingest,
    }
}

fn resting() -> Stream {
    known(State::Stopped, Ingest::Unsaid)
}

const fn rest(obeyed: bool) -> Rest {
    Rest {
        state: State::Stopped,
        obeyed,
    }
}

#[tokio::test]
async fn one_token_serves_all_calls() {
    let script: &[Said] = &[
        TOKEN,
        (200, "", STOPPED),
        (200, "", STARTED),
        (200, "", r#"{"error":0}"#),
    ];
    let vendor = Scripted::new(script).await;
    let mut platform = vendor.qencode();
    let shown = platform.show("s1").await.unwrap();
    assert_eq!(shown, resting());
    let started = platform.start(&shown).await.unwrap();
    assert_eq!(started, known(State::Ready, at()));
    assert_eq!(platform.stop("s1").await.unwrap(), rest(true));
    let heard = vendor.heard().await;
    let lines: Vec<&str> = heard.iter().map(|h| h.line.as_str()).collect();
    let expected = [
        "POST /api/access_token/planted-key",
        "GET /api/live-streams/s1",
        "POST /api/live-streams/s1/start",
        "POST /api/live-streams/s1/stop",
    ];
    assert_eq!(lines, expected);
    assert_eq!(heard[0].authorization, "");
    assert!(
        heard[1..]
            .iter()
            .all(|h| h.authorization == "Bearer planted-jwt")
    );
}

#[tokio::test]
async fn the_token_is_renewed_before_24_hours() {
    let script: &[Said] = &[
        TOKEN,
        (200, "", STOPPED),
        (200, "", r#"{"access_token":"second"}"#),
        (200, "", STOPPED),
    ];
    let vendor = Scripted::new(script).await;
    let mut platform = vendor.qencode();
    platform.show("s1").await.unwrap();
    tokio::time::pause();
    tokio::time::advance(TOKEN_FOR).await;
    tokio::time::resume();
    platform.show("s1").await.unwrap();
    assert_eq!(vendor.heard().await[3].authorization, "Bearer second");
}

#[tokio::test]
async fn errors_401_and_403_renew_the_token_once() {
    for status in [401, 403] {
        let script: &[Said] = &[
            TOKEN,
            (status, "", ""),
            (200, "", r#"{"access_token":"second"}"#),
            (200, "", STOPPED),
        ];
        let vendor = Scripted::new(script).await;
        vendor.qencode().show("s1").await.unwrap();
        assert_eq!(vendor.heard().await[3].authorization, "Bearer second");

        let script: &[Said] = &[TOKEN, (status, "", ""), TOKEN, (status, "", "")];
        let vendor = Scripted::new(script).await;
        let error = vendor.qencode().show("s1").await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::Credential));
        assert_eq!(vendor.heard().await.len(), 4);
    }
}

#[tokio::test]
async fn a_key_whose_fresh_tokens_are_refused_is_shown_again_only_when_it_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "first").unwrap();
    let refused: Said = (403, "", "");
    let (stopped, done): (Said, Said) = ((200, "", STOPPED), (200, "", r#"{"error":0}"#));
    for changes in [true, false] {
        std::fs::write(&path, "first").unwrap();
        let last = if changes { stopped } else { done };
        let vendor = Scripted::new(&[TOKEN, refused, TOKEN, refused, TOKEN, last]).await;
        let source = Some(SecretSource::File(path.clone()));
        let qencode = Vendor::Qencode { callback_url: None };
        let mut platform = vendor.platform(qencode, "first", source);
        for _ in 0..5 {
            let error = platform.show("s1").await.unwrap_err();
            assert_eq!(error.refusal(), Some(Refusal::Credential));
        }
        if changes {
            std::fs::write(&path, "second").unwrap();
            platform.show("s1").await.unwrap();
        } else {
            // What costs as long as it is not said is said all the same.
            assert_eq!(platform.stop("s1").await.unwrap(), rest(true));
        }
        let lines = vendor.lines().await;
        let shown = if changes { "second" } else { "first" };
        assert_eq!(lines[4], format!("POST /api/access_token/{shown}"));
    }
}

#[tokio::test]
async fn a_callback_that_may_not_be_set_is_no_verdict_on_the_key() {
    let callback_url = Some(Secret::new("https://studio.example/planted-callback"));
    let refused: Said = (403, "", "");
    let script: &[Said] = &[TOKEN, refused, TOKEN, refused, (200, "", STARTED)];
    let vendor = Scripted::new(script).await;
    let mut platform = vendor.platform(Vendor::Qencode { callback_url }, "key", None);
    platform.start(&resting()).await.unwrap();
    assert_eq!(vendor.lines().await.len(), 5);
}

#[tokio::test]
async fn a_refused_key_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "second").unwrap();
    let script: &[Said] = &[(401, "", ""), TOKEN, (200, "", STOPPED)];
    let vendor = Scripted::new(script).await;
    let qencode = Vendor::Qencode { callback_url: None };
    let mut platform = vendor.platform(qencode, "first", Some(SecretSource::File(path)));
    platform.show("s1").await.unwrap();
    let lines = vendor.lines().await;
    assert_eq!(
        lines[..2],
        [
            "POST /api/access_token/first",
            "POST /api/access_token/second"
        ]
    );
}

#[tokio::test]
async fn a_start_of_a_started_stream_and_a_stop_of_a_stopped_one_are_successes() {
    for (status, body) in [
        (409, ""),
        (422, ""),
        (400, r#"{"message":"already"}"#),
        (200, r#"{"error":5,"message":"already started"}"#),
    ] {
        let vendor = Scripted::new(&[TOKEN, (status, "", body), (200, "", STARTED)]).await;
        let started = vendor.qencode().start(&resting()).await.unwrap();
        assert_eq!(started, known(State::Ready, at()), "{status} {body}");
        let vendor = Scripted::new(&[TOKEN, (status, "", body), (200, "", STOPPED)]).await;
        assert_eq!(vendor.qencode().stop("s1").await.unwrap(), rest(false));
        let vendor = Scripted::new(&[TOKEN, (status, "", body), (200, "", STOPPED)]).await;
        let error = vendor.qencode().start(&resting()).await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::WrongState));
    }
}

#[tokio::test]
async fn a_start_that_wants_another_verb_gets_it() {
    let vendor = Scripted::new(&[TOKEN, (405, "", ""), (200, "", STARTED)]).await;
    vendor.qencode().start(&resting()).await.unwrap();
    let lines = vendor.lines().await;
    assert_eq!(lines[2], "PUT /api/live-streams/s1/start");
}

#[tokio::test]
async fn the_server_is_found_wherever_a_reply_holds_it() {
    for reply in [
        format!(r#"{{"server_urls":{{"webrtc":"{URL}"}}}}"#),
        format!(
            r#"{{"live_stream":{{"id":"s1","status":"starting","server_urls":{{"webrtc":"{URL}"}}}}}}"#
        ),
        format!(r#"{{"stream":{{"server_urls":{{"webrtc":"{URL}"}},"status":"created"}}}}"#),
        format!(r#"{{"error":0,"data":{{"stream":{{"server_urls":{{"webrtc":"{URL}"}}}}}}}}"#),
    ] {
        let vendor = Scripted::new(&[TOKEN, (200, "", reply.clone().leak())]).await;
        let started = vendor.qencode().start(&resting()).await.unwrap();
        assert_eq!(started.ingest, at(), "{reply}");
        assert!(
            matches!(started.state, State::Ready | State::Starting),
            "{reply}"
        );
    }
}

#[tokio::test]
async fn a_start_that_names_no_server_is_looked_after() {
    let script: &[Said] = &[
        TOKEN,
        (200, "", r#"{"status":"ok"}"#),
        (200, "", r#"{"data":{"id":7,"status":"PROVISIONING"}}"#),
        (200, "", STARTED),
    ];
    let vendor = Scripted::new(script).await;
    let mut platform = vendor.qencode();
    let started = platform.start(&resting()).await.unwrap();
    assert!(matches!(started.state, State::Other(_)) && started.ingest == Ingest::Unsaid);
    let unknown = platform.refresh(&started).await.unwrap();
    assert_eq!(unknown.state, State::Other("PROVISIONING".to_owned()));
    assert_eq!(
        platform.refresh(&started).await.unwrap(),
        known(State::Ready, at())
    );
}

#[tokio::test]
async fn the_words_of_a_state_are_compared_without_regard_to_case() {
    for (word, state) in [
        ("Idle", State::Ready),
        ("LIVE", State::Live),
        ("stopped", State::Stopped),
        ("Created", State::Stopped),
        ("Starting", State::Starting),
        ("Zombie", State::Other("Zombie".to_owned())),
    ] {
        let read = words::stream(&json!({ "id": "a", "status": word })).unwrap();
        assert_eq!(read.state, state);
    }
}

#[tokio::test]
async fn lists_stand_at_the_top_or_in_a_table() {
    for (reply, n) in [
        (
            json!([{ "id": "a", "name": "x" }, { "id": "b" }, { "no": 1 }]),
            2,
        ),
        (json!({ "live_streams": [{ "id": "a" }] }), 1),
        (json!({ "data": { "streams": [{ "stream_id": "a" }] } }), 1),
        (json!({ "data": [] }), 0),
    ] {
        assert_eq!(words::streams(&reply).unwrap().len(), n, "{reply}");
    }
    assert!(words::streams(&json!({ "x": 1 })).is_none());
}

#[tokio::test]
async fn each_other_error_has_its_meaning() {
    for (status, body, refusal) in [
        (404, "", Refusal::NotFound),
        (410, "", Refusal::Deleted),
        (409, "", Refusal::WrongState),
        (422, "", Refusal::Invalid),
        (429, "", Refusal::TooOften),
        (500, "", Refusal::Trouble),
        (302, "", Refusal::Unexpected),
        (200, r#"{"error":9,"message":"odd"}"#, Refusal::Unexpected),
        (
            200,
            r#"{"error":"bad","message":"odd"}"#,
            Refusal::Unexpected,
        ),
        (200, r#"{"error":{"message":"odd"}}"#, Refusal::Unexpected),
    ] {
        let vendor = Scripted::new(&[TOKEN, (status, "", body)]).await;
        let error = vendor.qencode().show("s1").await.unwrap_err();
        assert_eq!(error.refusal(), Some(refusal), "{status} {body}");
    }
    // An error number with HTTP 200 that speaks of the token is the token.
    let stale = (200, "", r#"{"error":2,"message":"Token has expired"}"#);
    let vendor = Scripted::new(&[TOKEN, stale, TOKEN, (200, "", STOPPED)]).await;
    vendor.qencode().show("s1").await.unwrap();
    // Whatever refuses a login refuses the key.
    for (status, body) in [
        (404, ""),
        (400, ""),
        (403, ""),
        (200, r#"{"error":1,"message":"no"}"#),
    ] {
        let vendor = Scripted::new(&[(status, "", body)]).await;
        let error = vendor.qencode().show("s1").await.unwrap_err();
        assert_eq!(
            error.refusal(),
            Some(Refusal::Credential),
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn the_callback_is_told_once_with_the_verb_that_is_taken() {
    let callback_url = Some(Secret::new("https://studio.example/planted-callback"));
    let script: &[Said] = &[
        TOKEN,
        (405, "", ""),
        (200, "", STOPPED),
        (200, "", STARTED),
        (200, "", STARTED),
    ];
    let vendor = Scripted::new(script).await;
    let mut platform = vendor.platform(Vendor::Qencode { callback_url }, "key", None);
    platform.start(&resting()).await.unwrap();
    platform.start(&resting()).await.unwrap();
    let heard = vendor.heard().await;
    let lines: Vec<&str> = heard[1..].iter().map(|h| h.line.as_str()).collect();
    let expected = [
        "PATCH /api/live-streams/s1",
        "PUT /api/live-streams/s1",
        "POST /api/live-streams/s1/start",
        "POST /api/live-streams/s1/start",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        heard[2].body,
        r#"{"callback_url":"https://studio.example/planted-callback"}"#
    );
}

#[tokio::test]
async fn a_stream_is_made_with_its_name_or_without() {
    let script: &[Said] = &[TOKEN, (422, "", ""), (201, "", STOPPED), (204, "", "")];
    let vendor = Scripted::new(script).await;
    let mut platform = vendor.qencode();
    assert_eq!(platform.create("front").await.unwrap().id, "s1");
    platform.delete("s1").await.unwrap();
    let heard = vendor.heard().await;
    assert_eq!(
        (heard[1].body.as_str(), heard[2].body.as_str()),
        (r#"{"name":"front"}"#, "{}")
    );
    assert_eq!(heard[3].line, "DELETE /api/live-streams/s1");
}

#[tokio::test]
async fn errors_repeat_neither_key_nor_token() {
    let echo = r#"{"message":"planted-key planted-jwt are wrong"}"#;
    let vendor = Scripted::new(&[TOKEN, (500, "", echo)]).await;
    let error = vendor.qencode().show("s1").await.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("*** *** are wrong") && !said.contains("planted"),
        "{said}"
    );
    // Not even where nobody answers, for the key stands in the path.
    let vendor = Scripted::new(&[]).await;
    let mut platform = vendor.qencode();
    vendor.heard().await;
    let error = platform.show("s1").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }));
    assert!(
        !format!("{error} {error:?}").contains("planted"),
        "{error:?}"
    );
}
