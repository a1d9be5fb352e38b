use super::*;
use crate::config::Server;
use crate::config::platform::StreamRef;
use crate::config::secret::{Secret, SecretSource};
use crate::platform::find;
use crate::platform::testing::{Said, Scripted};

const SHOWN: &str = r#"{ "live_stream": { "id": "1234abcd", "name": "Front", "state": "stopped",
    "encoder": "other_webrtc", "delivery_method": "push", "source_connection_information": {
        "sdp_url": "wss://sub.entrypoint.video.wowza.com/webrtc-session.json",
        "application_name": "app-30zl5349", "stream_name": "32a5814b" }, "unknown": [1] } }"#;
const STARTING: &str = r#"{"live_stream":{"state":"starting"}}"#;
const STARTED: &str = r#"{"live_stream":{"ip_address":"1.2.3.4","state":"started"}}"#;
const STOPPED: &str = r#"{"live_stream":{"ip_address":"0.0.0.0","state":"stopped"}}"#;
const WRONG_STATE: &str = r#"{ "meta": { "status": 422, "code": "ERR-422-InvalidStateChange",
    "title": "Invalid State Change Error", "message": "Stopping is not allowed! Transcoder is in stopped state." } }"#;

fn known() -> Stream {
    Stream {
        id: "1234abcd".to_owned(),
        name: "Front".to_owned(),
        state: State::Stopped,
        ingest: Ingest::At(Server::Wowza {
            url: Secret::new("wss://sub.entrypoint.video.wowza.com/webrtc-session.json"),
            application: "app-30zl5349".to_owned(),
            stream: Secret::new("32a5814b"),
            dialect: WowzaDialect::V1,
        }),
    }
}

const fn rest(obeyed: bool) -> Rest {
    Rest {
        state: State::Stopped,
        obeyed,
    }
}

#[tokio::test]
async fn a_stream_is_shown_with_its_server() {
    let vendor = Scripted::new(&[(200, "", SHOWN)]).await;
    let mut platform = vendor.wowza();
    assert_eq!(platform.show("1234abcd").await.unwrap(), known());
    let heard = vendor.heard().await.remove(0);
    assert_eq!(heard.line, "GET /api/live_streams/1234abcd");
    assert_eq!(heard.authorization, "Bearer planted-token");
}

#[tokio::test]
async fn a_stream_is_made_for_webrtc() {
    let vendor = Scripted::new(&[(201, "", SHOWN)]).await;
    let made = vendor.wowza().create("Front").await.unwrap();
    assert_eq!(made, known());
    let heard = vendor.heard().await.remove(0);
    assert_eq!(heard.line, "POST /api/live_streams");
    let body: Value = serde_json::from_str(&heard.body).unwrap();
    let expected = json!({ "live_stream": {
        "name": "Front", "broadcast_location": "eu_germany", "encoder": "other_webrtc",
        "delivery_method": "push", "aspect_ratio_width": 1280, "aspect_ratio_height": 720,
        "transcoder_type": "transcoded", "billing_mode": "pay_as_you_go",
        "low_latency": false, "recording": false,
    } });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_stream_is_started_looked_at_and_stopped() {
    let script: &[Said] = &[(200, "", STARTING), (200, "", STARTED), (200, "", STOPPED)];
    let vendor = Scripted::new(script).await;
    let mut platform = vendor.wowza();
    let started = platform.start(&known()).await.unwrap();
    assert_eq!(started.state, State::Starting);
    let up = platform.refresh(&started).await.unwrap();
    assert_eq!((up.state, up.ingest), (State::Ready, known().ingest));
    assert_eq!(platform.stop("1234abcd").await.unwrap(), rest(true));
    let expected = [
        "PUT /api/live_streams/1234abcd/start",
        "GET /api/live_streams/1234abcd/state",
        "PUT /api/live_streams/1234abcd/stop",
    ];
    assert_eq!(vendor.lines().await, expected);
}

#[tokio::test]
async fn row_422_state_a_start_of_a_started_stream_and_a_stop_of_a_stopped_one_are_successes() {
    let vendor = Scripted::new(&[(422, "", WRONG_STATE), (200, "", STARTED)]).await;
    assert_eq!(
        vendor.wowza().start(&known()).await.unwrap().state,
        State::Ready
    );
    let vendor = Scripted::new(&[(422, "", WRONG_STATE), (200, "", STARTING)]).await;
    assert_eq!(
        vendor.wowza().start(&known()).await.unwrap().state,
        State::Starting
    );
    let vendor = Scripted::new(&[(422, "", WRONG_STATE), (200, "", STOPPED)]).await;
    assert_eq!(vendor.wowza().stop("a").await.unwrap(), rest(false));
    for (start, state) in [(true, STOPPED), (false, STARTED)] {
        let vendor = Scripted::new(&[(422, "", WRONG_STATE), (200, "", state)]).await;
        let refused = match start {
            true => vendor.wowza().start(&known()).await.map(drop),
            false => vendor.wowza().stop("a").await.map(drop),
        };
        let error = refused.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::WrongState));
        assert!(
            error.to_string().contains("Transcoder is in stopped state"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn row_423_a_stream_already_stopped_is_stopped() {
    let already = r#"{"meta":{"code":"ERR-423-StreamAlreadyStopped"}}"#;
    let vendor = Scripted::new(&[(423, "", already), (200, "", STOPPED)]).await;
    assert_eq!(vendor.wowza().stop("a").await.unwrap(), rest(false));
}

async fn refused(status: u16, headers: &'static str, code: &str) -> Error {
    let body = format!(r#"{{"meta":{{"status":{status},"code":"{code}","message":"the words"}}}}"#);
    let vendor = Scripted::new(&[(status, headers, body.leak())]).await;
    vendor.wowza().show("a").await.unwrap_err()
}

/// The rows of protocols.md 8.1.4 that mean one thing whatever was asked; what follows from each is in the
/// publisher's table.
#[tokio::test]
async fn each_other_row_of_the_errors_has_its_meaning() {
    for (status, code, refusal) in [
        (401, "ERR-401-NoApiKey", Refusal::Credential),
        (401, "ERR-401-ExpiredToken", Refusal::Credential),
        (401, "ERR-401-TrialExceeded", Refusal::Credential),
        (403, "ERR-403-RecordUnaccessible", Refusal::Forbidden),
        (404, "ERR-404-RecordNotFound", Refusal::NotFound),
        (409, "ERR-409-LimitReached", Refusal::TooMany),
        (410, "ERR-410-RecordDeleted", Refusal::Deleted),
        (422, "ERR-422-RecordInvalid", Refusal::Invalid),
        (500, "", Refusal::Trouble),
        (503, "", Refusal::Trouble),
        (302, "", Refusal::Unexpected),
    ] {
        let error = refused(status, "", code).await;
        assert_eq!(error.refusal(), Some(refusal), "{status} {code}");
        let said = error.to_string();
        assert!(said.contains("the words") && said.contains(code), "{said}");
    }
    assert!(refused(404, "", "").await.is_gone() && refused(410, "", "").await.is_gone());
}

#[tokio::test]
async fn row_429_is_told_with_the_wait_and_keeps_the_next_request_back() {
    let vendor = Scripted::new(&[(429, "Retry-After: 90\r\n", ""), (200, "", SHOWN)]).await;
    let mut platform = vendor.wowza();
    let Err(Error::Refused {
        refusal,
        retry_after,
        ..
    }) = platform.show("a").await
    else {
        panic!("429 is a refusal");
    };
    assert_eq!(refusal, Refusal::TooOften);
    assert_eq!(retry_after, Some(std::time::Duration::from_secs(90)));
    // Whoever asks all the same is told at once how long that holds: it may have something better to do than to wait.
    let early = platform.show("a").await.unwrap_err();
    assert_eq!(early.refusal(), Some(Refusal::TooOften));
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(91)).await;
    platform.show("a").await.unwrap();
}

#[tokio::test]
async fn row_401_a_refused_token_is_read_again_and_shown_again_only_if_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "old").unwrap();
    let vendor = Scripted::new(&[(401, "", ""), (401, "", ""), (200, "", SHOWN)]).await;
    let config = crate::config::platform::Vendor::WowzaVideo {
        dialect: WowzaDialect::V1,
        create: None,
    };
    let mut platform = vendor.platform(config, "old", Some(SecretSource::File(path.clone())));
    let refusal = platform.show("a").await.unwrap_err().refusal();
    assert_eq!(refusal, Some(Refusal::Credential));
    // The same is not shown again so soon: the script would be one reply short.
    let refusal = platform.show("a").await.unwrap_err().refusal();
    assert_eq!(refusal, Some(Refusal::Credential));
    std::fs::write(&path, "newer").unwrap();
    let refusal = platform.show("a").await.unwrap_err().refusal();
    assert_eq!(refusal, Some(Refusal::Credential));
    std::fs::write(&path, "newest").unwrap();
    platform.show("a").await.unwrap();
    let heard: Vec<String> = vendor
        .heard()
        .await
        .into_iter()
        .map(|h| h.authorization)
        .collect();
    assert_eq!(heard, ["Bearer old", "Bearer newer", "Bearer newest"]);
}

#[tokio::test]
async fn a_stream_for_another_encoder_is_told_apart_from_a_broken_reply() {
    let rtmp = r#"{"live_stream":{"id":"a","state":"started","encoder":"other_rtmp",
        "source_connection_information":{"primary_server":"rtmp://x","stream_name":"y"}}}"#;
    let vendor = Scripted::new(&[(200, "", rtmp)]).await;
    let shown = vendor.wowza().show("a").await.unwrap();
    assert_eq!(shown.ingest, Ingest::Foreign("other_rtmp".to_owned()));
    for broken in [
        r#"{"live_stream":{"id":"a","encoder":"other_webrtc","source_connection_information":{}}}"#,
        r#"{"live_stream":{"id":"../a","encoder":"other_webrtc"}}"#,
        r#"{"live_stream":7}"#,
        "[]",
        "",
        "<html>",
    ] {
        let vendor = Scripted::new(&[(200, "", broken)]).await;
        let error = vendor.wowza().show("a").await.unwrap_err();
        assert!(matches!(error, Error::Reply { .. }), "{broken}: {error}");
    }
}

#[tokio::test]
async fn a_name_is_found_page_by_page_and_must_be_unique() {
    let page = |ids: std::ops::Range<usize>| {
        let streams: Vec<Value> = ids
            .map(|n| json!({ "id": format!("s{n}"), "name": format!("n{}", n % 201), "state": "stopped" }))
            .collect();
        &*json!({ "live_streams": streams }).to_string().leak()
    };
    let pages: &[Said] = &[
        (200, "", page(0..200)),
        (200, "", page(200..203)),
        (200, "", SHOWN),
    ];
    let name = |name: &str| StreamRef::Name(name.to_owned());
    let vendor = Scripted::new(pages).await;
    assert_eq!(
        find(&mut *vendor.wowza(), &name("n200")).await.unwrap(),
        known()
    );
    let expected = [
        "GET /api/live_streams?page=1&per_page=200",
        "GET /api/live_streams?page=2&per_page=200",
        "GET /api/live_streams/s200",
    ];
    assert_eq!(vendor.lines().await, expected);
    let vendor = Scripted::new(&pages[..2]).await;
    let twice = find(&mut *vendor.wowza(), &name("n1")).await.unwrap_err();
    assert!(
        matches!(&twice, Error::Ambiguous { ids, .. } if ids.len() == 2),
        "{twice}"
    );
    assert!(twice.to_string().contains("with the ids"), "{twice}");
    let vendor = Scripted::new(&pages[..2]).await;
    let none = find(&mut *vendor.wowza(), &name("n201")).await.unwrap_err();
    assert!(
        none.is_gone() && none.to_string().contains("onair stream create"),
        "{none}"
    );
}

#[tokio::test]
async fn the_analytics_are_a_witness() {
    let metrics = r#"{"live_stream":{"connected":{"status":"normal","value":"Yes"},
        "frame_rate":{"status":"warning","text":"below 10","value":7}, "width":{"status":"no_data"}}}"#;
    let vendor = Scripted::new(&[(200, "", metrics), (200, "", "{}")]).await;
    let mut platform = vendor.wowza();
    let seen = platform.witness("a").await.unwrap();
    assert_eq!(seen.connected, Some(true));
    assert_eq!(seen.warnings, ["frame_rate: below 10"]);
    assert_eq!(platform.witness("a").await.unwrap(), Witness::default());
    assert_eq!(
        vendor.lines().await[0],
        "GET /api/analytics/ingest/live_streams/a"
    );
}

#[tokio::test]
async fn a_stream_is_deleted() {
    let vendor = Scripted::new(&[(204, "", "")]).await;
    vendor.wowza().delete("a").await.unwrap();
    assert_eq!(vendor.lines().await, ["DELETE /api/live_streams/a"]);
}

#[tokio::test]
async fn errors_repeat_no_token() {
    let echo = r#"{"meta":{"message":"planted-token is wrong\u0007"}}"#;
    let vendor = Scripted::new(&[(401, "", echo)]).await;
    let error = vendor.wowza().show("a").await.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("*** is wrong") && !said.contains("planted"),
        "{said}"
    );
}

proptest::proptest! {
    #[test]
    fn any_json_is_read_or_refused(key in "live_streams?|meta|connected|x", text in "\\PC{0,12}", n in 0..9_i64) {
        for inner in [json!(text), json!(n), json!([{ "id": text }]), json!({ "id": text, "state": n }), json!(null)] {
            let json = json!({ &key: inner });
            let read = words::stream(&json, WowzaDialect::Auto).map(|stream| stream.id);
            proptest::prop_assert!(read.is_err() || read.is_ok_and(|id| !id.contains('/')));
            let listed = words::streams(&json, 200).map_or(0, |(all, _)| all.len());
            proptest::prop_assert!(listed <= 1 && words::witness(&json).warnings.is_empty());
        }
    }
}
