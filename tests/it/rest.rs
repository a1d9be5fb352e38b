//! The lab's control planes from outside, by a plain HTTP client: the whole life of a stream at both vendors with a real
//! publisher, each fault, and who may publish when. The vendors' clocks themselves are tested on virtual time, next to
//! them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use onair::config::secret::Secret;
use onair::lab::hub::State;
use onair::lab::rest::{Again, Bill, Errors, Place};
use onair::lab::tls::Identity;
use onair::lab::{Fault, Lab, LabConfig, Profile, RestCall, RestConfig, RestFault, Vendor};
use onair::media::time::MediaClock;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::rehearsal::{Habits, Publisher, Socket, connect, hear};
use crate::support::{SOON, clock};

const TOKEN: &str = "wowza-token";
const KEY: &str = "qencode-key";

/// A hundred seconds of a vendor's in one.
const FAST: f64 = 0.01;

async fn lab(change: impl FnOnce(&mut RestConfig)) -> (Lab, MediaClock) {
    let clock = clock();
    let mut rest = RestConfig::new(Secret::new(TOKEN), Secret::new(KEY));
    rest.time_scale = Some(FAST);
    change(&mut rest);
    let mut config = LabConfig::new(vec![Profile::Qencode, Profile::WowzaCloud], clock);
    config.rest = Some(rest);
    (Lab::start(config).await.expect("a lab"), clock)
}

/// An answer, or what came of it.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<u64>,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// Asks `url`; `None` if the connection ends without an answer.
async fn ask(method: &str, url: &str, bearer: Option<&str>, body: &Value) -> Option<Answer> {
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let (address, path) = address.split_once('/').expect("a path");
    let stream = TcpStream::connect(address).await.expect("the lab listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a connection");
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/{path}"))
        .header("host", address)
        .header("content-type", "application/json");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let body = if body.is_null() {
        Bytes::new()
    } else {
        Bytes::from(body.to_string())
    };
    let request = request.body(Full::new(body)).expect("a request");
    let answered = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let text = response.into_body().collect().await.ok()?.to_bytes();
        Some(Answer {
            status,
            retry_after,
            text: String::from_utf8(text.to_vec()).expect("text"),
        })
    };
    let answer = answered.await;
    connection.abort();
    answer
}

/// One vendor's API, with what opens it.
struct Api<'a> {
    lab: &'a Lab,
    vendor: Vendor,
    bearer: String,
}

impl<'a> Api<'a> {
    fn wowza(lab: &'a Lab) -> Self {
        Self {
            lab,
            vendor: Vendor::Wowza,
            bearer: TOKEN.to_owned(),
        }
    }

    async fn qencode(lab: &'a Lab) -> Self {
        let mut api = Self {
            lab,
            vendor: Vendor::Qencode,
            bearer: String::new(),
        };
        let reply = api.ask("POST", &format!("/access_token/{KEY}")).await;
        let token = reply.json()["access_token"].as_str().map(str::to_owned);
        api.bearer = token.expect("a token");
        api
    }

    fn url(&self, path: &str) -> String {
        let root = self.lab.rest(self.vendor).expect("this vendor");
        format!("{root}{path}")
    }

    async fn try_with(&self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        ask(method, &self.url(path), Some(&self.bearer), body).await
    }

    async fn ask_with(&self, method: &str, path: &str, body: &Value) -> Answer {
        let answer = self.try_with(method, path, body).await;
        answer.expect("an answer")
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        self.ask_with(method, path, &Value::Null).await
    }

    /// Reads `path` until what it says at `pointer` is `wanted`.
    async fn until(&self, path: &str, pointer: &str, wanted: &str) -> Value {
        let mut last = Value::Null;
        let reached = async {
            let mut every = tokio::time::interval(Duration::from_millis(20));
            loop {
                every.tick().await;
                last = self.ask("GET", path).await.json();
                if last.pointer(pointer).and_then(Value::as_str) == Some(wanted) {
                    return;
                }
            }
        };
        if tokio::time::timeout(SOON, reached).await.is_err() {
            panic!("{path} never says {wanted}: {last}");
        }
        last
    }

    /// A stream at Wowza for publishers by WebRTC.
    async fn create(&self, name: &str) -> (String, Value) {
        let body = json!({"live_stream": {
            "name": name, "broadcast_location": "eu_germany", "encoder": "other_webrtc",
        }});
        let made = self.ask_with("POST", "/live_streams", &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        let stream = made.json()["live_stream"].clone();
        let id = stream["id"].as_str().expect("an id").to_owned();
        (id, stream)
    }

    fn bill(&self, id: &str) -> Bill {
        let bills = self.lab.bills().into_iter();
        bills
            .into_iter()
            .find(|bill| bill.id == id)
            .expect("a bill")
    }
}

/// Waits until every session of the lab has ended.
async fn all_ended(lab: &Lab) {
    let mut changed = lab.hub().changed();
    let reached = async {
        while lab.hub().sessions().iter().any(|s| s.state != State::Ended) {
            changed.changed().await.expect("the hub lives");
        }
    };
    tokio::time::timeout(SOON, reached)
        .await
        .expect("the sessions end in time");
}

/// Publishes to a stream at Wowza; the error is the refusal.
async fn to_wowza(source: &Value) -> Result<(Socket, Publisher), Value> {
    let text = |field: &str| source[field].as_str().expect("a text").to_owned();
    let (url, application, stream) = (
        text("sdp_url"),
        text("application_name"),
        text("stream_name"),
    );
    let mut socket = connect(&url).await;
    let name = (&*application, &*stream);
    let publisher = Publisher::wowza(&mut socket, name, Habits::PLAIN).await?;
    Ok((socket, publisher))
}

/// Publishes to a URL of Qencode's; the error is the refusal.
async fn to_qencode(url: &str) -> Result<(Socket, Publisher), Value> {
    let mut socket = connect(&format!("{url}?direction=send")).await;
    let publisher = Publisher::ome(&mut socket, Habits::PLAIN).await?;
    Ok((socket, publisher))
}

/// Publishes until the vendor says at `pointer` of `path` that it is `wanted`.
async fn publish_until(
    publisher: &mut Publisher,
    clock: MediaClock,
    api: &Api<'_>,
    (path, pointer, wanted): (&str, &str, &str),
) -> Value {
    tokio::select! {
        seen = api.until(path, pointer, wanted) => seen,
        _ = publisher.publish(clock, SOON) => panic!("{path} does not say {wanted}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_wowza_lives_and_is_billed_as_documented() {
    let (lab, clock) = lab(|_| {}).await;
    let api = Api::wowza(&lab);
    let (id, stream) = api.create("front").await;
    let path = format!("/live_streams/{id}");
    let source = &stream["source_connection_information"];
    let endpoint = lab.endpoint(Profile::WowzaCloud).expect("the profile");
    assert_eq!(source["sdp_url"], json!(endpoint.url));

    let refused = to_wowza(source).await.err().expect("not started");
    assert_eq!(refused["status"], 502);
    let text = refused["statusDescription"].as_str().unwrap_or("");
    assert!(text.starts_with("Live stream is not running: "), "{text}");
    let foreign = json!({
        "sdp_url": endpoint.url, "application_name": "app-other", "stream_name": "s",
    });
    let refused = to_wowza(&foreign).await.err().expect("no such application");
    assert_eq!(refused["status"], 404);
    assert!(!api.bill(&id).running);

    let started = api.ask("PUT", &format!("{path}/start")).await;
    assert_eq!(started.json()["live_stream"]["state"], "starting");
    let state = ("/live_stream/state", "started");
    api.until(&format!("{path}/state"), state.0, state.1).await;
    assert!(api.bill(&id).running);

    let (_socket, mut publisher) = to_wowza(source).await.expect("started");
    let analytics = format!("/analytics/ingest/live_streams/{id}");
    let witness = (&*analytics, "/live_stream/connected/value", "Yes");
    publish_until(&mut publisher, clock, &api, witness).await;
    let full = (&*analytics, "/live_stream/frame_size/value", "320x240");
    publish_until(&mut publisher, clock, &api, full).await;

    // The publisher is still there when the stream is stopped under it.
    let stopped = api.ask("PUT", &format!("{path}/stop")).await;
    assert_eq!(stopped.json()["live_stream"]["state"], "stopped");
    all_ended(&lab).await;
    api.until(&path, "/live_stream/state", "stopped").await;
    let bill = api.bill(&id);
    assert!(bill.billed_s > 5.0 && !bill.running, "{bill:?}");
    assert_eq!(api.bill(&id), bill, "it costs no more");
    assert!(to_wowza(source).await.is_err());

    assert_eq!(api.ask("DELETE", &path).await.status, 204);
    assert_eq!(api.ask("GET", &path).await.status, 410);
    assert_eq!(api.bill(&id).state, "deleted");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_qencode_resumes_lapses_and_has_a_new_url_with_every_start() {
    let (hook, mut told) = callback().await;
    // Fast enough for lapses, slow enough to come back before one.
    let (lab, clock) = lab(|rest| rest.time_scale = Some(0.05)).await;
    let api = Api::qencode(&lab).await;
    let made = api
        .ask_with("POST", "/live-streams", &json!({"name": "front"}))
        .await
        .json();
    let id = made["id"].as_str().expect("an id").to_owned();
    let path = format!("/live-streams/{id}");
    let body = json!({ "callback_url": hook });
    assert_eq!(api.ask_with("PATCH", &path, &body).await.status, 200);

    let start = format!("{path}/start");
    let started = api.ask("POST", &start).await.json();
    let url = started["server_urls"]["webrtc"]
        .as_str()
        .expect("a URL")
        .to_owned();
    assert_eq!(told.recv().await.expect("a call")["status"], "Idle");
    let booted = async {
        loop {
            if let Ok(publishing) = to_qencode(&url).await {
                return publishing;
            }
        }
    };
    let (socket, mut publisher) = tokio::time::timeout(SOON, booted).await.expect("it boots");
    publish_until(&mut publisher, clock, &api, (&path, "/status", "Live")).await;
    assert_eq!(told.recv().await.expect("a call")["status"], "Live");
    let again = api.ask("POST", &start).await.json();
    assert_eq!(again["server_urls"]["webrtc"], json!(url));

    drop((socket, publisher));
    api.until(&path, "/status", "Idle").await;
    let (socket, mut publisher) = to_qencode(&url).await.expect("the same URL is good");
    publish_until(&mut publisher, clock, &api, (&path, "/status", "Live")).await;

    drop((socket, publisher));
    api.until(&path, "/status", "Stopped").await;
    let bill = api.bill(&id);
    assert!(bill.billed_s > 120.0 && !bill.running, "{bill:?}");
    assert!(to_qencode(&url).await.is_err(), "lapsed");

    let restarted = api.ask("POST", &start).await.json();
    assert_ne!(restarted["server_urls"]["webrtc"], json!(url));
    assert!(to_qencode(&url).await.is_err(), "another encoder's");
    assert_eq!(
        api.ask("POST", &format!("{path}/stop")).await.json()["status"],
        "Stopped"
    );
    let mut statuses = Vec::new();
    while statuses.len() < 5 {
        let call = told.recv().await.expect("a call");
        assert_eq!(call["id"], json!(id));
        statuses.push(call["status"].as_str().expect("a status").to_owned());
    }
    assert_eq!(statuses, ["Idle", "Live", "Idle", "Stopped", "Idle"]);
    assert_eq!(told.recv().await.expect("a call")["status"], "Stopped");
    lab.stop().await;
}

/// A server for webhooks: its URL, and the bodies that come.
async fn callback() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
    let (heard, told) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heard = heard.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let heard = heard.clone();
                async move {
                    assert_eq!(
                        (request.method().as_str(), request.uri().path()),
                        ("POST", "/hook")
                    );
                    let body = request.into_body().collect().await?.to_bytes();
                    let body = serde_json::from_slice(&body).expect("JSON");
                    heard.send(body).await.expect("the test listens");
                    Ok::<_, hyper::Error>(hyper::Response::new(Full::new(Bytes::new())))
                }
            });
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        }
    });
    (url, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_may_stop_a_stream_under_its_publisher() {
    let (lab, clock) = lab(|rest| {
        rest.streams = vec!["front".to_owned()];
        // Two minutes of six seconds: nobody here is in a hurry to connect.
        rest.time_scale = Some(0.05);
    })
    .await;
    let api = Api::qencode(&lab).await;
    let id = lab
        .bills()
        .into_iter()
        .find(|b| b.vendor == Vendor::Qencode)
        .expect("one")
        .id;
    let path = format!("/live-streams/{id}");
    let url = api.ask("POST", &format!("{path}/start")).await.json();
    let url = url["server_urls"]["webrtc"]
        .as_str()
        .expect("a URL")
        .to_owned();
    let booted = async {
        loop {
            if let Ok(publishing) = to_qencode(&url).await {
                return publishing;
            }
        }
    };
    let (mut socket, mut publisher) = tokio::time::timeout(SOON, booted).await.expect("it boots");
    publish_until(&mut publisher, clock, &api, (&path, "/status", "Live")).await;
    lab.faults().commit(Some(Profile::Qencode), Fault::RestStop);
    all_ended(&lab).await;
    assert_eq!(hear(&mut socket, SOON).await, None, "the socket is cut");
    api.until(&path, "/status", "Stopped").await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_start_never_gets_to_started() {
    let (lab, _) = lab(|_| {}).await;
    let api = Api::wowza(&lab);
    let (id, _) = api.create("front").await;
    let stuck = Fault::Rest {
        how: RestFault::StuckStart,
        times: 1,
        call: Some(RestCall::Start),
    };
    lab.faults().commit(None, stuck);
    let path = format!("/live_streams/{id}");
    assert_eq!(
        api.ask("GET", &path).await.status,
        200,
        "another call is not hit"
    );
    assert_eq!(api.ask("PUT", &format!("{path}/start")).await.status, 200);
    // Another stream gets there three times meanwhile, each time after twenty seconds or more.
    let (other, _) = api.create("back").await;
    let other = format!("/live_streams/{other}");
    for _ in 0..3 {
        assert_eq!(api.ask("PUT", &format!("{other}/start")).await.status, 200);
        api.until(&other, "/live_stream/state", "started").await;
        assert_eq!(api.ask("PUT", &format!("{other}/stop")).await.status, 200);
        api.until(&other, "/live_stream/state", "stopped").await;
    }
    assert_eq!(
        api.ask("GET", &path).await.json()["live_stream"]["state"],
        "starting"
    );
    assert_eq!(api.ask("PUT", &format!("{path}/stop")).await.status, 200);
    api.until(&path, "/live_stream/state", "stopped").await;
    assert!(api.bill(&id).billed_s < 1e-9);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_request_is_seen_once_and_then_all_is_well() {
    let (lab, _) = lab(|_| {}).await;
    let api = Api::wowza(&lab);
    let commit = |how, call| {
        let times = 1;
        lab.faults()
            .commit(Some(Profile::WowzaCloud), Fault::Rest { how, times, call });
    };
    let list = || api.try_with("GET", "/live_streams", &Value::Null);
    let body = json!({"live_stream": {
        "name": "front", "broadcast_location": "eu_germany", "encoder": "other_webrtc",
    }});
    let create = || api.try_with("POST", "/live_streams", &body);
    let count = async || {
        let listed = list().await.expect("an answer").json();
        listed["live_streams"].as_array().expect("a list").len()
    };

    for (status, retry_after_s) in [(429, Some(60)), (500, None), (503, Some(5)), (409, None)] {
        commit(
            RestFault::Status {
                status,
                retry_after_s,
            },
            None,
        );
        let refused = list().await.expect("an answer");
        assert_eq!(
            (refused.status, refused.retry_after),
            (status, retry_after_s.map(u64::from))
        );
        assert_eq!(list().await.expect("an answer").status, 200);
    }

    commit(RestFault::ExpiredToken, None);
    let refused = list().await.expect("an answer");
    assert_eq!(refused.json()["meta"]["code"], "ERR-401-ExpiredToken");

    commit(RestFault::HangUp { done: false }, Some(RestCall::Create));
    assert_eq!(count().await, 0, "other calls are not hit");
    assert!(create().await.is_none());
    assert_eq!(count().await, 0);
    commit(RestFault::HangUp { done: true }, Some(RestCall::Create));
    assert!(create().await.is_none());
    assert_eq!(count().await, 1, "created, though nobody was told");

    commit(RestFault::Malformed, Some(RestCall::Create));
    let half = create().await.expect("an answer");
    assert_eq!(half.status, 201);
    assert!(serde_json::from_str::<Value>(&half.text).is_err());
    assert_eq!(count().await, 2);

    commit(RestFault::Oversized, None);
    let long = list().await.expect("an answer");
    assert!(long.text.len() > 8 * 1024 * 1024 && long.json().is_object());

    commit(RestFault::Silence, None);
    let patience = Duration::from_millis(300);
    assert!(tokio::time::timeout(patience, list()).await.is_err());

    commit(RestFault::Delay { ms: 250 }, None);
    let began = tokio::time::Instant::now();
    assert_eq!(list().await.expect("an answer").status, 200);
    assert!(began.elapsed() >= Duration::from_millis(250));

    let asked = lab.asked(Vendor::Wowza);
    let unanswered = asked.iter().filter(|a| a.status.is_none()).count();
    assert_eq!(unanswered, 3, "{asked:#?}");
    assert_eq!(
        asked
            .iter()
            .filter(|a| a.call == Some(RestCall::Create))
            .count(),
        3
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_refused_until_the_minute_is_over() {
    let (lab, _) = lab(|rest| {
        rest.requests_per_minute = 3;
        rest.streams = vec!["front".to_owned()];
        // A minute of three seconds.
        rest.time_scale = Some(0.05);
    })
    .await;
    let api = Api::wowza(&lab);
    for _ in 0..3 {
        assert_eq!(api.ask("GET", "/live_streams").await.status, 200);
    }
    let refused = api.ask("GET", "/live_streams").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["meta"]["status"], 429);
    let wait = refused.retry_after.expect("Retry-After");
    assert!((1..=3).contains(&wait), "{wait}");
    api.until("/live_streams", "/live_streams/0/name", "front")
        .await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_change_and_api_keys_are_not_shown() {
    let (lab, _) = lab(|_| {}).await;
    let wowza = Api::wowza(&lab);
    lab.renew(Vendor::Wowza, &Secret::new("renewed"));
    assert_eq!(wowza.ask("GET", "/live_streams").await.status, 401);
    let renewed = ask(
        "GET",
        &wowza.url("/live_streams"),
        Some("renewed"),
        &Value::Null,
    )
    .await;
    assert_eq!(renewed.expect("an answer").status, 200);
    let nobody = ask("GET", &wowza.url("/live_streams"), None, &Value::Null).await;
    assert_eq!(nobody.expect("an answer").status, 401);

    let qencode = Api::qencode(&lab).await;
    assert_eq!(qencode.ask("GET", "/live-streams").await.status, 200);
    lab.renew(Vendor::Qencode, &Secret::new("renewed"));
    assert_eq!(qencode.ask("GET", "/live-streams").await.status, 401);
    assert_eq!(
        qencode
            .ask("POST", &format!("/access_token/{KEY}"))
            .await
            .status,
        401
    );
    assert_eq!(
        qencode.ask("POST", "/access_token/renewed").await.status,
        200
    );
    let asked = format!("{:?}", lab.asked(Vendor::Qencode));
    assert!(asked.contains("/access_token/***"), "{asked}");
    assert!(
        !asked.contains(KEY) && !asked.contains("renewed"),
        "{asked}"
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_does_no_harm() {
    let (lab, _) = lab(|_| {}).await;
    let api = Api::wowza(&lab);
    let long = json!("x".repeat(100_000));
    assert_eq!(
        api.ask_with("POST", "/live_streams", &long).await.status,
        413
    );
    for path in [
        "/",
        "//",
        "/live_streams/%00",
        "/live_streams/../../start",
        "?page=-1",
    ] {
        assert_eq!(api.ask("GET", path).await.status, 404, "{path}");
    }
    let root = lab.rest(Vendor::Wowza).expect("a root");
    let elsewhere = root.replace("/api/v2.0", "/api/v1.7/live_streams");
    let old = ask("GET", &elsewhere, Some(TOKEN), &Value::Null).await;
    assert_eq!(old.expect("an answer").status, 404);
    let address = root
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next());
    let mut stream = TcpStream::connect(address.expect("an address"))
        .await
        .expect("it listens");
    stream.write_all(&[0xFF; 4_096]).await.expect("it reads");
    assert_eq!(api.ask("GET", "/live_streams").await.status, 200);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_planes_are_secured_with_the_lab_s_certificate() {
    let identity = Identity::self_signed(&["localhost".to_owned()]).expect("an identity");
    let mut config = LabConfig::new(vec![Profile::WowzaCloud], clock());
    config.tls = Some(identity.clone());
    config.rest = Some(RestConfig::new(Secret::new(TOKEN), Secret::new(KEY)));
    let lab = Lab::start(config).await.expect("a lab");
    let root = lab.rest(Vendor::Wowza).expect("a root");
    let address = root
        .strip_prefix("https://")
        .and_then(|rest| rest.split('/').next());
    let address = address.expect("HTTPS");
    let mut trusted = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.certificate.as_bytes()) {
        trusted
            .add(certificate.expect("PEM"))
            .expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("it listens");
    let name = "localhost".try_into().expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    let request = format!(
        "POST /api/v2.0/live_streams HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Connection: close\r\nContent-Length: 87\r\n\r\n\
         {{\"live_stream\":{{\"name\":\"n\",\"broadcast_location\":\"eu_ireland\",\"encoder\":\"other_webrtc\"}}}}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = String::new();
    // Whether it says goodbye to TLS is of no interest.
    stream.read_to_string(&mut reply).await.ok();
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    assert!(reply.contains("\"sdp_url\":\"wss://"), "{reply}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_started_stream_may_not_even_be_reached() {
    let (lab, _) = lab(|rest| rest.unreachable = true).await;
    let api = Api::wowza(&lab);
    let (id, stream) = api.create("front").await;
    let source = &stream["source_connection_information"];
    let url = source["sdp_url"].as_str().expect("a URL");
    assert!(tokio_tungstenite::connect_async(url).await.is_err());
    let path = format!("/live_streams/{id}");
    assert_eq!(api.ask("PUT", &format!("{path}/start")).await.status, 200);
    api.until(&path, "/live_stream/state", "started").await;
    assert!(to_wowza(source).await.is_ok());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_in_the_documents_can_be_chosen() {
    let (lab, _) = lab(|rest| {
        rest.qencode.place = Place::LiveStream;
        rest.qencode.errors = Errors::NumberIn200;
        rest.qencode.again = Again::Conflict;
        rest.wowza.stop_says_stopping = true;
    })
    .await;
    let api = Api::qencode(&lab).await;
    let made = api
        .ask_with("POST", "/live-streams", &json!({}))
        .await
        .json();
    let id = made["live_stream"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let start = format!("/live-streams/{id}/start");
    let started = api.ask("POST", &start).await.json();
    assert!(
        started["live_stream"]["server_urls"]["webrtc"].is_string(),
        "{started}"
    );
    let again = api.ask("POST", &start).await;
    assert_eq!(
        (again.status, again.json()["error"].clone()),
        (200, json!(409))
    );

    let api = Api::wowza(&lab);
    let (id, _) = api.create("front").await;
    let path = format!("/live_streams/{id}");
    assert_eq!(api.ask("PUT", &format!("{path}/start")).await.status, 200);
    let stopped = api.ask("PUT", &format!("{path}/stop")).await.json();
    assert_eq!(stopped["live_stream"]["state"], "stopping");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_bills_and_takes_faults() {
    let (lab, _) = lab(|rest| rest.streams = vec!["front".to_owned()]).await;
    let page = lab.page_url();
    let fault = json!({
        "fault": "rest", "profile": "wowza-cloud", "times": 1,
        "how": {"status": {"status": 418}},
    });
    let committed = ask("POST", &format!("{page}v1/faults"), None, &fault).await;
    assert_eq!(committed.expect("an answer").status, 200);
    let api = Api::wowza(&lab);
    assert_eq!(api.ask("GET", "/live_streams").await.status, 418);
    assert_eq!(api.ask("GET", "/live_streams").await.status, 200);
    let told = ask("GET", &format!("{page}v1/rest"), None, &Value::Null).await;
    let told = told.expect("an answer").json();
    let vendors: Vec<&Value> = told.as_array().expect("a list").iter().collect();
    assert_eq!(vendors.len(), 2);
    for vendor in vendors {
        let bill = &vendor["bills"][0];
        assert_eq!(
            (&bill["name"], &bill["billed_s"]),
            (&json!("front"), &json!(0.0))
        );
        assert_eq!(bill["running"], false);
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_control_planes_one_may_publish_at_any_time() {
    let mut config = LabConfig::new(vec![Profile::Qencode, Profile::WowzaCloud], clock());
    let lab = Lab::start(config.clone()).await.expect("a lab");
    assert_eq!(lab.rest(Vendor::Wowza), None);
    assert!(lab.bills().is_empty() && lab.asked(Vendor::Qencode).is_empty());
    let endpoint = lab.endpoint(Profile::Qencode).expect("the profile");
    assert!(to_qencode(&endpoint.url).await.is_ok());
    lab.stop().await;
    // With them, a vendor is there if its server is.
    config.profiles = vec![Profile::WowzaCloud, Profile::WowzaSe];
    config.rest = Some(RestConfig::new(Secret::new(TOKEN), Secret::new(KEY)));
    let lab = Lab::start(config).await.expect("a lab");
    assert!(
        lab.rest(Vendor::Wowza)
            .is_some_and(|url| url.ends_with("/api/v2.0"))
    );
    assert_eq!(lab.rest(Vendor::Qencode), None);
    let endpoint = lab.endpoint(Profile::WowzaSe).expect("the profile");
    let mut socket = connect(&endpoint.url).await;
    let name = (&*endpoint.application, &*endpoint.stream);
    assert!(
        Publisher::wowza(&mut socket, name, Habits::PLAIN)
            .await
            .is_ok()
    );
    lab.stop().await;
}
