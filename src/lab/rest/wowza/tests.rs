//! The account at Wowza Video by its documents, on virtual time.

use std::time::SystemTime;

use super::*;

const TOKEN: &str = "the-token";
const STRANGER: &str = "the-stranger";

struct Bench {
    account: Wowza,
    epoch: Instant,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        let account = Wowza::new(Opening {
            sdp_url: "ws://127.0.0.1:1/webrtc-session.json".to_owned(),
            token: TOKEN.to_owned(),
            stranger: Some(STRANGER.to_owned()),
            ways: WowzaWays::DOCUMENTED,
            time_scale: 1.0,
            chance: fastrand::Rng::with_seed(7),
        });
        Self {
            account,
            epoch: Instant::now(),
            now: Duration::ZERO,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            at: self.epoch + self.now,
            wall: SystemTime::UNIX_EPOCH + self.now,
        }
    }

    /// Lets so many seconds pass.
    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.account.advance(self.moment());
    }

    fn ask(&mut self, method: &str, path: &str) -> (u16, Value) {
        self.ask_as(Some(TOKEN), method, path, &Value::Null)
    }

    fn ask_as(
        &mut self,
        bearer: Option<&str>,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            bearer: bearer.map(str::to_owned),
            body: body.to_string().into_bytes(),
            ..Request::default()
        };
        let reply = self.account.answer(self.moment(), &request);
        (reply.status, reply.value())
    }

    fn create(&mut self, name: &str) -> (u16, Value) {
        let body = json!({"live_stream": {
            "name": name, "broadcast_location": "eu_germany", "encoder": "other_webrtc",
        }});
        self.ask_as(Some(TOKEN), "POST", "/live_streams", &body)
    }

    fn created(&mut self, name: &str) -> String {
        let (status, stream) = self.create(name);
        assert_eq!(status, 201, "{stream}");
        let id = stream["live_stream"]["id"].as_str().expect("an id");
        id.to_owned()
    }

    fn state(&mut self, id: &str) -> String {
        let (_, reply) = self.ask("GET", &format!("/live_streams/{id}/state"));
        reply["live_stream"]["state"]
            .as_str()
            .expect("a state")
            .to_owned()
    }

    /// A stream that is started.
    fn started(&mut self) -> String {
        let id = self.created("front");
        let (status, reply) = self.ask("PUT", &format!("/live_streams/{id}/start"));
        assert_eq!(
            (status, &reply["live_stream"]["state"]),
            (200, &json!("starting"))
        );
        self.pass(60);
        assert_eq!(self.state(&id), "started");
        id
    }

    fn name(&self, id: &str) -> String {
        self.account.streams[id].full_name()
    }

    fn input(&mut self, name: Option<&str>) {
        let input = Input {
            size: Some((1280, 720)),
            fps: 29.97,
            bitrate_bps: 2_000_000,
        };
        let inputs = name.map(|name| (name.to_owned(), input));
        let moment = self.moment();
        self.account.inputs(moment, &inputs.into_iter().collect());
    }
}

fn code(reply: &Value) -> &str {
    reply["meta"]["code"].as_str().unwrap_or("")
}

#[test]
fn a_created_stream_is_shown_as_documented() {
    let mut bench = Bench::new();
    let (status, shown) = bench.create("My Live Stream");
    let stream = &shown["live_stream"];
    assert_eq!((status, &stream["state"]), (201, &json!("stopped")));
    assert_eq!(stream["delivery_method"], "push");
    assert_eq!(stream["created_at"], "1970-01-01T00:00:00.000Z");
    let source = &stream["source_connection_information"];
    assert_eq!(source["sdp_url"], "ws://127.0.0.1:1/webrtc-session.json");
    let application = source["application_name"].as_str().expect("a name");
    assert!(application.starts_with("app-"));
    let play = &stream["direct_playback_urls"]["webrtc"];
    assert_eq!(play[0]["stream_name"], source["stream_name"]);
    let id = stream["id"].as_str().expect("an id");
    let (status, again) = bench.ask("GET", &format!("/live_streams/{id}"));
    assert_eq!((status, &again), (200, &shown));
}

#[test]
fn a_stream_of_another_encoder_is_connected_to_otherwise() {
    let mut bench = Bench::new();
    let body = json!({"live_stream": {
        "name": "rtmp", "broadcast_location": "eu_germany", "encoder": "other_rtmp",
    }});
    let (_, shown) = bench.ask_as(Some(TOKEN), "POST", "/live_streams", &body);
    let source = &shown["live_stream"]["source_connection_information"];
    assert!(source["primary_server"].is_string());
    assert!(source["sdp_url"].is_null() && source["application_name"].is_null());
    assert!(bench.account.doors().is_empty());
}

#[test]
fn ten_streams_can_be_created_in_three_hours() {
    let mut bench = Bench::new();
    for n in 0..10 {
        bench.created(&format!("n{n}"));
        bench.pass(60);
    }
    assert_eq!(bench.create("one more").0, 409);
    let invalid = json!({"live_stream": {}});
    let (status, reply) = bench.ask_as(Some(TOKEN), "POST", "/live_streams", &invalid);
    assert_eq!((status, code(&reply)), (422, "ERR-422-RecordInvalid"));
    bench.pass(3 * 3_600 - 600);
    bench.created("the first has left the count");
    assert_eq!(bench.create("the second has not").0, 409);
}

#[test]
fn lists_are_filtered_and_come_in_pages() {
    let mut bench = Bench::new();
    let started = bench.started();
    for n in 0..4 {
        bench.created(&format!("n{n}"));
    }
    let names = |reply: &Value| -> Vec<String> {
        let streams = reply["live_streams"].as_array().expect("a list");
        streams
            .iter()
            .map(|s| s["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let (_, all) = bench.ask("GET", "/live_streams");
    assert_eq!(names(&all), ["front", "n0", "n1", "n2", "n3"]);
    assert_eq!(
        all["live_streams"][0].as_object().expect("an object").len(),
        5
    );
    let (_, page) = bench.ask("GET", "/live_streams?page=2&per_page=2");
    assert_eq!(names(&page), ["n1", "n2"]);
    let (_, beyond) = bench.ask("GET", "/live_streams?page=99999999999&per_page=1000");
    assert!(names(&beyond).is_empty());
    let filter = |field: &str, operator: &str, value: &str| {
        format!("/live_streams?filter%5B0%5D%5Bfield%5D={field}&filter[0][{operator}]={value}")
    };
    let (_, filtered) = bench.ask("GET", &filter("state", "eq", "started"));
    assert_eq!(filtered["live_streams"][0]["id"], json!(started));
    assert_eq!(names(&filtered), ["front"]);
    let (_, named) = bench.ask("GET", &filter("name", "eq", "n3"));
    assert_eq!(names(&named), ["n3"]);
    let (_, unknown) = bench.ask("GET", &filter("nothing", "eq", "n3"));
    assert!(names(&unknown).is_empty());
}

#[test]
fn whoever_may_not_is_told_why() {
    let mut bench = Bench::new();
    let id = bench.created("front");
    let path = format!("/live_streams/{id}");
    let mut asked = |bearer: Option<&str>| {
        let (status, reply) = bench.ask_as(bearer, "GET", &path, &Value::Null);
        (status, code(&reply).to_owned())
    };
    assert_eq!(asked(None), (401, "ERR-401-NoApiKey".to_owned()));
    assert_eq!(
        asked(Some("other")),
        (401, "ERR-401-InvalidToken".to_owned())
    );
    assert_eq!(
        asked(Some(STRANGER)),
        (403, "ERR-403-RecordUnaccessible".to_owned())
    );
    let expired = Request {
        method: "GET".to_owned(),
        path: path.clone(),
        bearer: Some(TOKEN.to_owned()),
        expired: true,
        ..Request::default()
    };
    let moment = bench.moment();
    let reply = bench.account.answer(moment, &expired).value();
    assert_eq!(code(&reply), "ERR-401-ExpiredToken");
    bench.account.renew("new".to_owned());
    assert_eq!(bench.ask("GET", &path).0, 401);
    let (status, _) = bench.ask_as(Some("new"), "GET", &path, &Value::Null);
    assert_eq!(status, 200);
}

#[test]
fn what_is_not_there_and_what_was_deleted_are_told_apart() {
    let mut bench = Bench::new();
    let id = bench.created("front");
    let path = format!("/live_streams/{id}");
    for (method, path) in [
        ("GET", "/live_streams/unknown"),
        ("PUT", "/live_streams/unknown/start"),
        ("GET", "/nothing"),
        ("POST", "/live_streams/a/b/c"),
    ] {
        assert_eq!(bench.ask(method, path).0, 404, "{method} {path}");
    }
    assert_eq!(bench.ask("DELETE", &path), (204, Value::Null));
    for (method, rest) in [
        ("GET", ""),
        ("PUT", "/start"),
        ("GET", "/state"),
        ("DELETE", ""),
    ] {
        let (status, reply) = bench.ask(method, &format!("{path}{rest}"));
        assert_eq!((status, code(&reply)), (410, "ERR-410-RecordDeleted"));
    }
    let (_, list) = bench.ask("GET", "/live_streams");
    assert_eq!(list["live_streams"], json!([]));
}

#[test]
fn what_the_state_does_not_allow_is_refused_with_the_state() {
    let mut bench = Bench::new();
    let id = bench.created("front");
    let refused = |bench: &mut Bench, method: &str, what: &str, state: &str| {
        let (status, reply) = bench.ask(method, &format!("/live_streams/{id}{what}"));
        assert_eq!((status, code(&reply)), (422, "ERR-422-InvalidStateChange"));
        let message = reply["meta"]["message"].as_str().expect("a message");
        assert!(
            message.ends_with(&format!("Transcoder is in {state} state.")),
            "{message}"
        );
    };
    refused(&mut bench, "PUT", "/stop", "stopped");
    refused(&mut bench, "PUT", "/reset", "stopped");
    assert_eq!(
        bench.ask("PUT", &format!("/live_streams/{id}/start")).0,
        200
    );
    refused(&mut bench, "PUT", "/start", "starting");
    refused(&mut bench, "DELETE", "", "starting");
    bench.pass(60);
    refused(&mut bench, "PUT", "/start", "started");
    refused(&mut bench, "DELETE", "", "started");
    let (_, reply) = bench.ask("PUT", &format!("/live_streams/{id}/stop"));
    assert_eq!(
        reply["live_stream"]["state"], "stopped",
        "as documented, though it still stops"
    );
    refused(&mut bench, "PUT", "/stop", "stopping");
    bench.pass(5);
    assert_eq!(bench.ask("DELETE", &format!("/live_streams/{id}")).0, 204);
}

#[test]
fn a_start_takes_twenty_seconds_to_a_minute_and_only_then_one_may_publish() {
    for seed in 0..20 {
        let mut bench = Bench::new();
        bench.account.chance.seed(seed);
        let id = bench.created("front");
        let name = bench.name(&id);
        assert!(!bench.account.doors()[&name]);
        bench.ask("PUT", &format!("/live_streams/{id}/start"));
        bench.pass(19);
        assert_eq!(bench.state(&id), "starting");
        assert!(!bench.account.doors()[&name]);
        bench.pass(41);
        assert_eq!(bench.state(&id), "started");
        assert!(bench.account.doors()[&name]);
        let (_, reply) = bench.ask("GET", &format!("/live_streams/{id}/state"));
        assert_ne!(reply["live_stream"]["ip_address"], "0.0.0.0");
    }
}

#[test]
fn idle_time_is_billed_and_ends_after_twenty_minutes() {
    let mut bench = Bench::new();
    let id = bench.started();
    let name = bench.name(&id);
    bench.input(Some(&name));
    bench.pass(7_200);
    assert_eq!(bench.state(&id), "started");
    bench.input(None);
    bench.pass(1_199);
    assert_eq!(bench.state(&id), "started");
    bench.pass(1);
    assert_eq!(bench.state(&id), "stopping");
    bench.pass(5);
    assert_eq!(bench.state(&id), "stopped");
    bench.pass(10_000);
    let moment = bench.moment();
    let bill = bench.account.bills(moment.at).remove(0);
    // What the start took above its least is chance, and is not billed.
    let most = f64::from(7_200 + 1_200 + 5 + 40);
    assert!((most - 40.0..=most).contains(&bill.billed_s), "{bill:?}");
    assert!(!bill.running);
    assert_eq!((bill.starts, &*bill.state), (1, "stopped"));
}

#[test]
fn analytics_witness_what_arrives_ten_seconds_late_at_most() {
    let mut bench = Bench::new();
    let id = bench.started();
    let name = bench.name(&id);
    let path = format!("/analytics/ingest/live_streams/{id}");
    let connected = |bench: &mut Bench| {
        let (status, reply) = bench.ask("GET", &path);
        assert_eq!(status, 200);
        reply["live_stream"].clone()
    };
    assert_eq!(connected(&mut bench)["connected"]["value"], "No");
    bench.input(Some(&name));
    bench.pass(9);
    assert_eq!(connected(&mut bench)["connected"]["value"], "No", "cached");
    bench.pass(1);
    let metrics = connected(&mut bench);
    assert_eq!(
        metrics["connected"],
        json!({"status": "normal", "text": "", "units": "", "value": "Yes"})
    );
    assert_eq!(metrics["width"]["value"], 1280);
    assert_eq!(metrics["frame_rate"]["value"], 30.0);
    assert_eq!(metrics["bytes_in_rate"]["value"], 250_000);
    assert_eq!(metrics["video_codec"]["value"], "h264");
}

#[test]
fn a_range_of_times_has_to_be_one() {
    let mut bench = Bench::new();
    let id = bench.started();
    let path = format!("/analytics/ingest/live_streams/{id}");
    let mut asked = |query: &str| bench.ask("GET", &format!("{path}?{query}")).0;
    assert_eq!(
        asked("from=2026-03-14T10:31:54Z&to=2026-03-14T10:32:54Z"),
        200
    );
    assert_eq!(asked("from=yesterday"), 422);
}

#[test]
fn what_publishers_by_webrtc_do_not_need_is_there_too() {
    let mut bench = Bench::new();
    let id = bench.started();
    let mut told = |method: &str, path: &str| {
        let (status, reply) = bench.ask(method, path);
        assert_eq!(status, 200, "{path}");
        reply
    };
    let transcoder = told("GET", &format!("/transcoders/{id}/state"));
    assert_eq!(transcoder["transcoder"]["state"], "started");
    assert!(transcoder["transcoder"]["uptime_id"].is_string());
    let thumbnail = told("GET", &format!("/live_streams/{id}/thumbnail_url"));
    assert!(thumbnail["live_stream"]["thumbnail_url"].is_string());
    let code = told(
        "PUT",
        &format!("/live_streams/{id}/regenerate_connection_code"),
    );
    assert!(code["live_stream"]["connection_code"].is_string());
    // Gone with version 1.10, and never there.
    for path in ["stats", "actions", "errors"] {
        assert_eq!(
            bench.ask("GET", &format!("/live_streams/{id}/{path}")).0,
            404
        );
    }
}

#[test]
fn a_vendor_that_stops_everything_stops_what_runs() {
    let mut bench = Bench::new();
    let id = bench.started();
    let idle = bench.created("idle");
    let moment = bench.moment();
    bench.account.stop_all(moment);
    bench.pass(5);
    assert_eq!(
        (&*bench.state(&id), &*bench.state(&idle)),
        ("stopped", "stopped")
    );
}

#[test]
fn every_documented_refusal_has_its_form() {
    for status in [401, 403, 404, 409, 410, 422, 423, 429, 500] {
        let reply = refusal(status);
        assert_eq!(reply.status, status);
        assert_eq!(reply.value()["meta"]["status"], status);
        assert!(code(&reply.value()).starts_with(&format!("ERR-{status}-")));
    }
    assert_eq!(refusal(503).value(), Value::Null, "a proxy speaks HTML");
}
