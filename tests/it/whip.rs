//! WHIP from end to end: the agent against the lab's three servers.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many states only some matter"
)]

use std::fs;

use onair::config::Server;
use onair::config::secret::{Bearer, Secret, SecretSource};
use onair::lab::hub::Side;
use onair::lab::{Fault, Lab, Profile};
use onair::publisher::{State, Verdict};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::support::{Pair, SOON};

const PROFILES: [Profile; 3] = [Profile::Whip, Profile::WhipOme, Profile::WhipWowza];

/// What the publisher asked for in all sessions, a request each, from the method to the body.
fn requests(lab: &Lab) -> Vec<String> {
    let sessions = lab.hub().sessions().into_iter();
    let messages = sessions.flat_map(|s| lab.hub().messages(s.id, 0).unwrap_or_default());
    let asked = messages.filter(|message| message.from == Some(Side::Publisher));
    asked.map(|message| message.text).collect()
}

/// How often the publisher used `method`.
fn count(lab: &Lab, method: &str) -> usize {
    let requests = requests(lab).into_iter();
    requests.filter(|text| text.starts_with(method)).count()
}

fn set_bearer(
    publisher: &mut onair::config::Publisher,
    token: &str,
    file: Option<&std::path::Path>,
) {
    let Server::Whip { bearer, .. } = &mut publisher.server else {
        panic!("not by WHIP")
    };
    *bearer = Some(Bearer {
        token: Secret::new(token),
        source: file.map(|path| SecretSource::File(path.to_owned())),
    });
}

/// Ends `pair` while the lab is still there to be asked what it heard, and demands that no rule was broken.
async fn end_in_order(pair: Pair, deletes: usize) {
    end(pair, deletes, &[]).await;
}

/// What a black hole itself breaks: a farewell is lost in it.
const OF_BLACK_HOLES: [&str; 1] = ["goodbye"];

async fn end(pair: Pair, deletes: usize, borne: &[&str]) {
    let Pair { lab, agent, .. } = pair;
    agent.drain().await;
    assert_eq!(count(&lab, "DELETE"), deletes, "{:#?}", requests(&lab));
    let report = lab.hub().report();
    lab.stop().await;
    for mut session in report {
        session.violations.retain(|v| !borne.contains(&&*v.rule));
        assert_eq!(session.violations, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_takes_our_media_and_the_session_is_deleted() {
    for profile in PROFILES {
        let pair = Pair::start(profile, |_| {}).await;
        pair.until("on air", |p| p.is_on_air()).await;
        pair.until_decoded(30).await;
        assert_eq!(count(&pair.lab, "POST"), 1);
        let offer = requests(&pair.lab).remove(0);
        assert!(offer.contains("oven-capabilities: max_width=640, max_height=360, max_fps=15"));
        assert!(offer.contains("a=rtcp-mux-only"), "{offer}");
        end_in_order(pair, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_to_another_origin_is_followed_without_the_token() {
    let redirect = Fault::Redirect {
        status: 307,
        elsewhere: true,
        times: 1,
    };
    let pair = Pair::start_with(
        Profile::Whip,
        |lab| lab.bearer = Some("the-token".to_owned()),
        |publisher, lab| {
            set_bearer(publisher, "the-token", None);
            lab.faults().commit(None, redirect);
        },
    )
    .await;
    pair.until("on air", |p| p.is_on_air()).await;
    pair.until_decoded(15).await;
    let asked = requests(&pair.lab);
    assert_eq!(count(&pair.lab, "POST"), 2);
    assert!(asked[0].contains("authorization: "), "{asked:#?}");
    assert!(!asked[1].contains("authorization: "), "{asked:#?}");
    end_in_order(pair, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_token_is_read_from_its_file_when_the_old_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, "fresh-token\n").expect("a file");
    let pair = Pair::start_with(
        Profile::Whip,
        |lab| lab.bearer = Some("fresh-token".to_owned()),
        |publisher, _| set_bearer(publisher, "stale-token", Some(&file)),
    )
    .await;
    let snapshot = pair.until("on air", |p| p.is_on_air()).await;
    assert_eq!(snapshot.sessions, 1, "tried at once, in the same session");
    end_in_order(pair, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_calls_for_a_person() {
    let pair = Pair::start_with(
        Profile::Whip,
        |lab| lab.bearer = Some("the-token".to_owned()),
        |publisher, _| set_bearer(publisher, "stale-token", None),
    )
    .await;
    let says = |p: &onair::publisher::Snapshot| match &p.state {
        State::Waiting {
            verdict: Verdict::Operator { advice, .. },
            ..
        } => advice.contains("bearer token"),
        _ => false,
    };
    let snapshot = pair.until("a person is called", says).await;
    let why = snapshot.end_reason.expect("it ended");
    assert!(why.contains("refused with 403: Forbidden"), "{why}");
    end_in_order(pair, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ghost_that_holds_the_name_is_outlived() {
    let ghost = Fault::HoldName { ms: 4_000 };
    let pair = Pair::start_with(
        Profile::WhipOme,
        |_| {},
        |_, lab| {
            lab.faults().commit(None, ghost);
        },
    )
    .await;
    let waits = |p: &onair::publisher::Snapshot| match &p.state {
        State::Waiting { verdict, .. } => matches!(verdict, Verdict::RetryEvery(_)),
        _ => false,
    };
    let snapshot = pair.until("the name is taken", waits).await;
    let why = snapshot.end_reason.expect("it ended");
    assert!(
        why.contains("refused with 409: Stream is already exist"),
        "{why}"
    );
    pair.until("on air", |p| p.is_on_air()).await;
    end_in_order(pair, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_asked_again_when_it_says() {
    let busy = Fault::RetryLater {
        status: 503,
        seconds: 2,
        times: 1,
    };
    let pair = Pair::start_with(
        Profile::Whip,
        |_| {},
        |_, lab| {
            lab.faults().commit(None, busy);
        },
    )
    .await;
    let waits = |p: &onair::publisher::Snapshot| match &p.state {
        State::Waiting { verdict, .. } => {
            *verdict == Verdict::RetryEvery(std::time::Duration::from_millis(2_500))
        }
        _ => false,
    };
    pair.until("it waits as long as asked", waits).await;
    pair.until("on air", |p| p.is_on_air()).await;
    end_in_order(pair, 1).await;
}

/// The path is lost for longer than a session bears it, and comes back within what a restart may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_path_is_found_again_by_restarting_ice_in_place() {
    for profile in [Profile::Whip, Profile::WhipWowza] {
        let pair = Pair::start(profile, |_| {}).await;
        pair.until("on air", |p| p.is_on_air()).await;
        pair.until_decoded(15).await;
        pair.lab
            .faults()
            .commit(None, Fault::BlackHole { ms: 9_000 });
        let mut changed = pair.lab.hub().changed();
        let restarted = async {
            while count(&pair.lab, "PATCH") == 0 {
                changed.changed().await.expect("the lab runs");
            }
        };
        let soon = tokio::time::timeout(SOON, restarted).await;
        soon.expect("a restart is asked for");
        let seen = pair.lab.hub().sessions()[0].report.video.frames_decoded;
        pair.until_decoded(seen.unwrap_or_default() + 30).await;
        assert_eq!(pair.publisher.borrow().sessions, 1, "{profile}");
        assert_eq!(count(&pair.lab, "POST"), 1, "{profile}");
        end(pair, 1, &OF_BLACK_HOLES).await;
    }
}

/// OvenMediaEngine takes every `PATCH` and does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_restarts_gets_a_new_session_and_is_not_asked_again() {
    let pair = Pair::start(Profile::WhipOme, |_| {}).await;
    for sessions in [2, 3] {
        pair.until("on air", |p| p.is_on_air()).await;
        pair.lab
            .faults()
            .commit(None, Fault::BlackHole { ms: 9_000 });
        pair.until("back on air", |p| p.is_on_air() && p.sessions == sessions)
            .await;
    }
    assert_eq!(count(&pair.lab, "PATCH"), 1, "{:#?}", requests(&pair.lab));
    end(pair, 3, &OF_BLACK_HOLES).await;
}

/// Takes one request and replies with `reply`; returns the request's method and path.
async fn serve(listener: &TcpListener, reply: &str) -> String {
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("a line");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(said) = line.strip_prefix("content-length: ") {
            length = said.parse().expect("a number");
        }
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("the body");
    stream.write_all(reply.as_bytes()).await.expect("taken");
    let asked = lines.first().expect("a request").clone();
    asked.trim_end_matches(" http/1.1").to_owned()
}

/// The session holds the name at the server, and nobody else can end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_between_two_sessions_ends_what_the_last_one_could_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has an address");
    let server = tokio::spawn(async move {
        let unusable = "HTTP/1.1 201 x\r\nlocation: /session/1\r\ncontent-length: 5\r\n\r\nv=0\r\n";
        let mut asked = Vec::new();
        for reply in [
            unusable,
            "HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n",
        ] {
            asked.push(serve(&listener, reply).await);
        }
        asked
    });
    let pair = Pair::start_with(
        Profile::Whip,
        |_| {},
        |publisher, _| {
            let Server::Whip { url, .. } = &mut publisher.server else {
                panic!("not by WHIP")
            };
            *url = Secret::new(format!("http://{address}/whip"));
        },
    )
    .await;
    let waits = |p: &onair::publisher::Snapshot| matches!(p.state, State::Waiting { .. });
    pair.until("it waits", waits).await;
    pair.agent.drain().await;
    let asked = tokio::time::timeout(SOON, server).await.expect("in time");
    let asked = asked.expect("the server has seen all");
    assert_eq!(
        asked,
        ["post /whip", "delete /session/1", "delete /session/1"]
    );
    pair.lab.stop().await;
}
