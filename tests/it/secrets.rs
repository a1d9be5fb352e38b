//! The program as an operator runs it, asked to log everything: no secret of its configuration is ever said.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use onair::config::secret::Secret;
use onair::lab::proxy::{Proxy, ProxyConfig};
use onair::lab::turn::TurnConfig;
use onair::lab::{Lab, LabConfig, Profile};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::status::{self, Answer};
use crate::support::{Pair, SOON, clock};

/// In the URL's query, the URL's path and the stream's name; of a WHIP server, a TURN server, a proxy and the status
/// server; and in what is remembered of a platform.
const PLANTED: [&str; 10] = [
    "planted-api-key",
    "planted-bearer",
    "planted-key",
    "planted-policy",
    "planted-proxy",
    "planted-relay",
    "planted-session",
    "planted-status-token",
    "planted-stream",
    "planted-token",
];

fn configuration(lab: &Lab, proxy: &Proxy) -> String {
    let whip = lab.endpoint(Profile::Whip).expect("the lab has it");
    let whip_url = whip.url.replace(&whip.stream, "planted-key");
    let turn = lab.turn().expect("the lab has it").urls();
    let turn = turn.iter().find(|url| url.ends_with("tcp")).expect("TCP");
    let proxy = proxy.url().replace("//", "//user:planted-proxy@");
    let ome = lab.endpoint(Profile::Ome021).expect("the lab has it");
    let wowza = lab.endpoint(Profile::WowzaSe).expect("the lab has it");
    let ome_url = ome.url.replace(&ome.stream, "planted-key");
    format!(
        r#"
[daemon]
state_dir = "state"

[daemon.status]
listen = "127.0.0.1:0"
token = "planted-status-token"

[feed.small]
video = {{ source = "testcard", size = "640x360", fps = 15 }}
audio = {{ source = "tone" }}

[publisher.ome]
feed = "small"
to = "ome"
url = "{ome_url}?policy=planted-policy&signature=planted-token"

[publisher.wowza]
feed = "small"
to = "wowza"
url = "{}?key=planted-key"
application = "{}"
stream = "planted-stream?token=planted-token"

[publisher.whip]
feed = "small"
to = "whip"
url = "{whip_url}"
bearer = "planted-bearer"
transport = "relay"
proxy = "{proxy}"
ice_servers = [{{ url = "{turn}", username = "lab", credential = "planted-relay" }}]
"#,
        wowza.url, wowza.application
    )
}

/// A started program, which is killed if the test gives up.
struct Running(Child);

impl Running {
    /// Interrupts it as Ctrl-C does.
    fn interrupt(&self) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Its status, once it has closed its output.
    fn status(&mut self) -> ExitStatus {
        self.0.wait().expect("its status")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended, as it should.
        drop(self.0.kill());
    }
}

/// What a program's words tell while it runs.
#[derive(Default)]
struct Told {
    /// Publishers on air.
    on_air: usize,
    /// Where the status server listens.
    status: Option<SocketAddr>,
}

/// Reads all of `pipe` on a thread of its own.
fn heard(pipe: impl Read + Send + 'static) -> (JoinHandle<String>, watch::Receiver<Told>) {
    let (told, watch) = watch::channel(Told::default());
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        for line in BufReader::new(pipe).lines() {
            let line = line.expect("UTF-8");
            if line.contains("media accepted after") {
                told.send_modify(|told| told.on_air += 1);
            }
            if let Some((_, at)) = line.split_once("status at http://") {
                let at = at.split('/').next().and_then(|at| at.parse().ok());
                told.send_modify(|told| told.status = at);
            }
            text += &line;
            text.push('\n');
        }
        text
    });
    (reading, watch)
}

/// Everything that the status server at `at` shows, with all three publishers in it.
async fn seen(at: SocketAddr) -> String {
    let token = "Authorization: Bearer planted-status-token\r\n";
    let all = |answer: &Answer| {
        answer.code == 200 && answer.body.matches("\"state\":\"on_air\"").count() == 3
    };
    let status = status::until(at, "/v1/status", token, all).await;
    let mut shown = format!("{status:?}");
    for path in ["/", "/healthz", "/metrics", "/readyz", "/v1/history"] {
        for headers in ["", token, "Authorization: Bearer planted\r\n"] {
            let answer = status::ask(at, "GET", path, headers).await;
            shown += &format!("\n{path}: {answer:?}");
        }
    }
    assert!(shown.contains("onair_publisher_state"), "{shown}");
    let reload = status::ask(at, "POST", "/v1/reload", token).await;
    let restart = status::ask(at, "POST", "/v1/publishers/wowza/restart", token).await;
    assert_eq!(
        (reload.code, restart.code),
        (200, 200),
        "{reload:?} {restart:?}"
    );
    let again = |answer: &Answer| {
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        all(answer) && json["publishers"]["wowza"]["counts"]["sessions"] == 2
    };
    let again = status::until(at, "/v1/status", token, again).await;
    format!("{shown}\n{reload:?}\n{restart:?}\n{again:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_no_report_no_status_no_record_and_no_bundle_shows_a_secret() {
    let profiles = vec![Profile::Ome021, Profile::Whip, Profile::WowzaSe];
    let mut lab = LabConfig::new(profiles, clock());
    lab.bearer = Some("planted-bearer".to_owned());
    lab.turn = Some(TurnConfig {
        password: Secret::new("planted-relay"),
        ..TurnConfig::loopback(None)
    });
    let lab = Lab::start(lab).await.expect("the lab starts");
    let credentials = Some(("user".to_owned(), Secret::new("planted-proxy")));
    let proxy = Proxy::start(ProxyConfig {
        credentials,
        ..ProxyConfig::loopback()
    });
    let proxy = proxy.await.expect("a proxy");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("onair.toml");
    let report = folder.path().join("report.json");
    let state = folder.path().join("state");
    std::fs::create_dir(&state).expect("a new folder");
    std::fs::write(state.join("platform.json"), PLATFORM).expect("written");
    std::fs::write(&config, configuration(&lab, &proxy)).expect("written");
    // More specific than any level that a list of ours could name.
    let filter = "trace,tungstenite=trace,tungstenite::handshake::client=trace,\
                  tungstenite::protocol=trace,rtc_ice=trace";
    let child = Command::new(env!("CARGO_BIN_EXE_onair"))
        .arg("run")
        .arg("--config")
        .arg(&config)
        .arg("--report")
        .arg(&report)
        .args(["--log", filter, "--log-format", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut onair = Running(child.expect("the built binary runs"));
    let (said, _) = heard(onair.0.stdout.take().expect("piped"));
    let (logged, mut told) = heard(onair.0.stderr.take().expect("piped"));
    let up = told.wait_for(|told| told.on_air == 3 && told.status.is_some());
    let up = tokio::time::timeout(SOON * 2, up).await;
    let at = up.expect("on air in time").expect("it runs").status;
    let at = at.expect("it was told");
    let shown = seen(at).await;
    let while_it_runs = bundle(&config, &folder.path().join("1.tar.gz"));
    onair.interrupt();
    let all = tokio::time::timeout(SOON, async { tokio::join!(said, logged) });
    let (said, logged) = all.await.expect("it ends in time");
    let (said, logged) = (said.expect("no panic"), logged.expect("no panic"));
    assert_eq!(onair.status().code(), Some(0), "{said}");
    let received = format!("{:?}", lab.hub().sessions());
    // To the WHIP server, and to the TURN server.
    assert!(
        proxy.counts().borrow().opened >= 2,
        "nothing went through the proxy"
    );
    lab.stop().await;
    assert!(
        received.contains("planted-key") && received.contains("planted-stream"),
        "the lab was not told the secrets: {received}"
    );
    let report = std::fs::read_to_string(report).expect("a report");
    assert!(report.contains("\"verdict\": \"pass\""), "{report}");
    assert!(
        logged.contains("\"level\":\"DEBUG\"") && logged.contains("on air"),
        "nothing was logged in detail: {logged}"
    );
    let recorded = recorded(&state);
    let afterwards = bundle(&config, &folder.path().join("2.tar.gz"));
    for secret in PLANTED {
        for (place, text) in [
            ("log", &logged),
            ("output", &said),
            ("report", &report),
            ("recorder", &recorded),
            ("bundle of a running daemon", &while_it_runs),
            ("bundle", &afterwards),
            ("status", &shown),
        ] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "the {place} says {secret}");
        }
    }
    // They were looked for where there is something to find.
    for (text, runs) in [(&while_it_runs, true), (&afterwards, false)] {
        for found in [
            "the server's answer",
            "a=fingerprint:",
            "a=ice-pwd:***",
            "media accepted after",
            "\"stream_id\": \"kept-id\"",
            "[publisher.whip]",
        ] {
            assert!(text.contains(found), "no {found} in the bundle: {text}");
        }
        assert_eq!(text.contains("a daemon was recording meanwhile"), runs);
        let credentials = text.matches("a=ice-pwd:").count();
        assert_eq!(text.matches("a=ice-pwd:***").count(), credentials);
        let users = text.matches("a=ice-ufrag:").count();
        assert_eq!(text.matches("a=ice-ufrag:***").count(), users);
    }
    for found in ["\"on_air\"", "\"video_report\":{", "\"k\":\"end\""] {
        assert!(afterwards.contains(found), "no {found}: {afterwards}");
    }
}

/// What a platform's part could remember, had it no discretion of its own.
const PLATFORM: &str = r#"{
    "stream_id": "kept-id",
    "api_key": "planted-api-key",
    "url": "wss://ingest.example/app/planted-key?token=planted-token",
    "said": "Authorization: Bearer planted-session-1",
    "session": "eyJhbGciOiJIUzI1NiJ9.planted-session.planted-token"
}"#;

/// Makes a bundle and returns all its texts in one.
fn bundle(config: &Path, output: &Path) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_onair"))
        .arg("bundle")
        .arg("--config")
        .arg(config)
        .arg("--output")
        .arg(output)
        .output()
        .expect("the built binary runs");
    assert!(made.status.success(), "{made:?}");
    let file = std::fs::File::open(output).expect("a bundle");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut all = String::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        writeln!(all, "== {path}").expect("a string takes all");
        entry.read_to_string(&mut all).expect("text");
    }
    all
}

/// The recorder's files, byte for byte.
fn recorded(state: &Path) -> String {
    let files = std::fs::read_dir(state.join("recorder")).expect("a folder");
    let bytes = files.map(|file| std::fs::read(file.expect("an entry").path()));
    let all: Vec<u8> = bytes.flat_map(|bytes| bytes.expect("readable")).collect();
    assert!(all.len() > 10_000, "hardly anything was recorded");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_publisher_shows_of_itself_holds_no_address_and_no_name() {
    let pair = Pair::start(Profile::Qencode, |_| {}).await;
    let on_air = pair.until("on air", |p| p.is_on_air()).await;
    let endpoint = pair.lab.endpoint(Profile::Qencode).expect("the lab has it");
    let (_, ended) = pair.end().await;
    let shown = format!("{on_air:?} {ended:?}");
    assert!(!shown.contains(&endpoint.stream), "{shown}");
    assert!(!shown.contains(&endpoint.url), "{shown}");
}
