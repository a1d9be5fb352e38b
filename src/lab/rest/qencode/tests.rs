//! The account at Qencode by its documents, in each of the ways that they leave open, on virtual time.

use std::time::SystemTime;

use super::*;

const KEY: &str = "the-key";

struct Bench {
    account: Qencode,
    epoch: Instant,
    now: Duration,
    token: String,
}

impl Bench {
    fn new(ways: QencodeWays) -> Self {
        let account = Qencode::new(Opening {
            base: "ws://127.0.0.1:3334".to_owned(),
            key: KEY.to_owned(),
            ways,
            time_scale: 1.0,
            chance: fastrand::Rng::with_seed(7),
        });
        let mut bench = Self {
            account,
            epoch: Instant::now(),
            now: Duration::ZERO,
            token: String::new(),
        };
        bench.renew();
        bench
    }

    fn renew(&mut self) {
        let reply = self.ask("POST", &format!("/access_token/{KEY}"), &Value::Null);
        assert_eq!(reply.status, 200);
        self.token = reply.value()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
    }

    fn moment(&self) -> Moment {
        Moment {
            at: self.epoch + self.now,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.now,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.account.advance(self.moment());
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            bearer: (!self.token.is_empty()).then(|| self.token.clone()),
            body: body.into_bytes(),
            ..Request::default()
        };
        self.account.answer(self.moment(), &request)
    }

    fn created(&mut self) -> String {
        self.account.made_by_hand(self.moment(), "front")
    }

    fn start(&mut self, id: &str) -> Reply {
        self.ask("POST", &format!("/live-streams/{id}/start"), &Value::Null)
    }

    fn stop(&mut self, id: &str) -> Reply {
        self.ask("POST", &format!("/live-streams/{id}/stop"), &Value::Null)
    }

    fn get(&mut self, id: &str) -> Value {
        self.ask("GET", &format!("/live-streams/{id}"), &Value::Null)
            .value()
    }

    fn input(&mut self, there: bool) {
        let doors = self.account.doors();
        let name = doors.into_keys().next().filter(|_| there);
        let inputs = name
            .map(|name| (name, Input::default()))
            .into_iter()
            .collect();
        let moment = self.moment();
        self.account.inputs(moment, &inputs);
    }
}

const fn documented() -> QencodeWays {
    QencodeWays::DOCUMENTED
}

#[test]
fn a_token_is_good_for_a_day_and_says_so() {
    let mut bench = Bench::new(documented());
    let id = bench.created();
    let claims = bench
        .token
        .split('.')
        .nth(1)
        .expect("three parts")
        .to_owned();
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    let (iat, exp) = (claims["iat"].as_f64(), claims["exp"].as_f64());
    assert_eq!((iat, exp), (Some(1_700_000_000.0), Some(1_700_086_400.0)));
    let path = format!("/live-streams/{id}");
    bench.pass(86_399);
    assert_eq!(bench.ask("GET", &path, &Value::Null).status, 200);
    bench.pass(1);
    assert_eq!(bench.ask("GET", &path, &Value::Null).status, 401);
    bench.renew();
    assert_eq!(bench.ask("GET", &path, &Value::Null).status, 200);
    bench.account.renew("another".to_owned());
    assert_eq!(bench.ask("GET", &path, &Value::Null).status, 401);
    let old = format!("/access_token/{KEY}");
    assert_eq!(bench.ask("POST", &old, &Value::Null).status, 401);
    bench.token.clear();
    assert_eq!(bench.ask("GET", &path, &Value::Null).status, 401);
}

#[test]
fn every_start_has_another_url_and_only_while_it_runs() {
    let mut bench = Bench::new(documented());
    let id = bench.created();
    assert!(bench.get(&id)["server_urls"].is_null());
    let url = |value: &Value| value["server_urls"]["webrtc"].as_str().map(str::to_owned);
    let first = url(&bench.start(&id).value()).expect("a URL");
    assert!(first.starts_with("ws://127.0.0.1:3334/qlive/"), "{first}");
    let name = first
        .strip_prefix("ws://127.0.0.1:3334/")
        .expect("a path")
        .to_owned();
    assert!(!bench.account.doors()[&name], "it boots");
    bench.pass(5);
    assert!(bench.account.doors()[&name]);
    assert_eq!(url(&bench.get(&id)).as_ref(), Some(&first));
    assert_eq!(url(&bench.start(&id).value()).as_ref(), Some(&first));
    assert_eq!(bench.stop(&id).status, 200);
    assert!(bench.account.doors().is_empty());
    assert!(bench.get(&id)["server_urls"].is_null());
    assert_eq!(bench.stop(&id).status, 200);
    let second = url(&bench.start(&id).value()).expect("a URL");
    assert_ne!(first, second);
}

#[test]
fn input_is_waited_for_and_may_be_away_for_two_minutes() {
    let mut bench = Bench::new(documented());
    let id = bench.created();
    let status = |bench: &mut Bench| bench.get(&id)["status"].as_str().unwrap_or("").to_owned();
    bench.start(&id);
    bench.pass(119);
    assert_eq!(status(&mut bench), "Idle");
    bench.pass(1);
    assert_eq!(status(&mut bench), "Stopped");
    bench.start(&id);
    bench.pass(100);
    for away in [110, 110, 130] {
        bench.input(true);
        bench.pass(10_000);
        assert_eq!(status(&mut bench), "Live");
        bench.input(false);
        assert_eq!(status(&mut bench), "Idle");
        bench.pass(away);
    }
    assert_eq!(status(&mut bench), "Stopped");
    let moment = bench.moment();
    let bill = bench.account.bills(moment.at).remove(0);
    assert!((bill.billed_s - f64::from(120 + 100 + 3 * 10_000 + 2 * 110 + 120)).abs() < 1e-6);
    assert_eq!((bill.running, bill.starts), (false, 2));
}

#[test]
fn a_stream_stands_where_it_was_chosen_to() {
    for (place, one, many) in [
        (Place::Data, "/data", "/data"),
        (Place::LiveStream, "/live_stream", "/live_streams"),
        (Place::Stream, "/stream", "/streams"),
        (Place::Top, "", ""),
    ] {
        let mut bench = Bench::new(QencodeWays {
            place,
            ..documented()
        });
        let made = bench.ask("POST", "/live-streams", &json!({"name": "front"}));
        assert_eq!(made.status, 200);
        let made = made.value();
        let stream = made.pointer(one).expect("a stream");
        for field in ["id", "stream_key", "playback_id", "status"] {
            assert!(stream[field].is_string(), "{field}: {stream}");
        }
        let list = bench.ask("GET", "/live-streams", &Value::Null).value();
        let list = list
            .pointer(many)
            .and_then(Value::as_array)
            .expect("a list");
        assert_eq!(list.len(), 1);
        assert_eq!(list[0]["name"], "front");
    }
}

#[test]
fn a_second_start_is_answered_as_chosen() {
    let again = |again| {
        let mut bench = Bench::new(QencodeWays {
            again,
            ..documented()
        });
        let id = bench.created();
        bench.start(&id);
        let second = bench.start(&id);
        bench.stop(&id);
        (
            second.status,
            second.value()["server_urls"].is_object(),
            bench.stop(&id).status,
        )
    };
    assert_eq!(again(Again::SameUrls), (200, true, 200));
    assert_eq!(again(Again::NoUrls), (200, false, 200));
    assert_eq!(again(Again::Conflict), (409, false, 409));
}

#[test]
fn errors_have_the_chosen_form() {
    let of = |errors| {
        let mut bench = Bench::new(QencodeWays {
            errors,
            ..documented()
        });
        bench.ask("GET", "/live-streams/unknown", &Value::Null)
    };
    let message = of(Errors::Message);
    assert_eq!(
        (message.status, message.value()["message"].is_string()),
        (404, true)
    );
    let number = of(Errors::NumberIn200);
    assert_eq!(
        (number.status, number.value()["error"].clone()),
        (200, json!(404))
    );
    let text = of(Errors::Text);
    assert_eq!((text.status, text.value()), (404, Value::Null));
}

#[test]
fn one_verb_alone_changes_a_stream() {
    for (update, verb) in [
        (UpdateVerb::Patch, "PATCH"),
        (UpdateVerb::Post, "POST"),
        (UpdateVerb::Put, "PUT"),
    ] {
        let mut bench = Bench::new(QencodeWays {
            update,
            ..documented()
        });
        let id = bench.created();
        let body = json!({"callback_url": "http://127.0.0.1:1/hook"});
        for tried in ["PATCH", "POST", "PUT"] {
            let reply = bench.ask(tried, &format!("/live-streams/{id}"), &body);
            assert_eq!(
                reply.status,
                if tried == verb { 200 } else { 405 },
                "{tried}"
            );
        }
        assert_eq!(bench.get(&id)["callback_url"], "http://127.0.0.1:1/hook");
        let path = format!("/live-streams/{id}");
        for wrong in [json!({"callback_url": 5}), json!([1])] {
            assert_eq!(bench.ask(verb, &path, &wrong).status, 422);
        }
        let gone = bench.ask(verb, &path, &json!({"callback_url": null}));
        assert!(gone.value()["callback_url"].is_null());
    }
}

#[test]
fn statuses_can_have_other_words() {
    let words = Words::Undocumented;
    let mut bench = Bench::new(QencodeWays {
        words,
        ..documented()
    });
    let id = bench.created();
    let status = |bench: &mut Bench| bench.get(&id)["status"].as_str().unwrap_or("").to_owned();
    assert_eq!(status(&mut bench), "created");
    bench.start(&id);
    assert_eq!(status(&mut bench), "allocating_encoder");
    bench.pass(5);
    assert_eq!(status(&mut bench), "IDLE");
    bench.input(true);
    assert_eq!(status(&mut bench), "live");
    bench.stop(&id);
    assert_eq!(status(&mut bench), "stopped");
}

#[test]
fn every_change_of_status_calls_the_webhook_once() {
    let mut bench = Bench::new(documented());
    let id = bench.created();
    let body = json!({"callback_url": "http://127.0.0.1:1/hook"});
    bench.ask("PATCH", &format!("/live-streams/{id}"), &body);
    assert_eq!(bench.account.calls(), []);
    bench.start(&id);
    bench.pass(5);
    bench.input(true);
    bench.input(true);
    bench.input(false);
    bench.pass(120);
    let told: Vec<String> = bench
        .account
        .calls()
        .iter()
        .map(|call| call.body["status"].as_str().unwrap_or("").to_owned())
        .collect();
    assert_eq!(told, ["Idle", "Live", "Idle", "Stopped"]);
    assert_eq!(bench.account.calls(), []);
}

#[test]
fn what_is_deleted_is_stopped_and_stays_on_the_bill() {
    let mut bench = Bench::new(documented());
    let id = bench.created();
    bench.start(&id);
    bench.pass(30);
    let path = format!("/live-streams/{id}");
    assert_eq!(bench.ask("DELETE", &path, &Value::Null).status, 204);
    assert_eq!(bench.ask("DELETE", &path, &Value::Null).status, 404);
    bench.pass(30);
    let moment = bench.moment();
    let bill = bench.account.bills(moment.at).remove(0);
    assert!((bill.billed_s - 30.0).abs() < 1e-6, "{bill:?}");
    assert_eq!((&*bill.state, bill.running), ("deleted", false));
    assert!(bench.account.doors().is_empty());
}

#[test]
fn what_cannot_be_read_makes_no_stream() {
    let mut bench = Bench::new(documented());
    for body in [
        json!([]),
        json!({"name": 5}),
        json!({"name": "n".repeat(5_000)}),
    ] {
        assert_eq!(
            bench.ask("POST", "/live-streams", &body).status,
            422,
            "{body}"
        );
    }
    let list = bench.ask("GET", "/live-streams", &Value::Null).value();
    assert_eq!(list, json!([]));
}
