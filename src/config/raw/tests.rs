use super::*;
use crate::config::secret::{Bearer, Secret};
use crate::config::{
    AfterLoss, AudioSource, Proxy, Server, Status, Transport, Trickle, Trust, WowzaDialect, pin,
};

const MINIMAL: &str = r#"[feed.a]
video = { source = "testcard" }
[publisher.p]
feed = "a"
to = "ome"
url = "wss://host/app/stream"
"#;

fn read(text: &str) -> Result<Config, Vec<Fault>> {
    let env = Env {
        base: Path::new("/etc/onair"),
        fetch: &|source| match source {
            SecretSource::Credential(name) => Ok(Some(format!("wss://credential.example/{name}"))),
            SecretSource::Env(_) => Err("the environment has no such variable".to_owned()),
            SecretSource::File(path) => Ok(Some(path.display().to_string())),
        },
        open: &|path| match path.ends_with("gone") {
            true => Err("it is gone".to_owned()),
            false => Ok(()),
        },
    };
    parse(text, &env)
}

/// The faults as they are printed, one a line.
fn faults(text: &str) -> String {
    let faults = read(text).expect_err("this text has faults");
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

#[test]
fn minimal_file_gets_the_defaults() {
    let config = read(MINIMAL).unwrap();
    let video = config.feeds["a"].video.as_ref().unwrap();
    assert_eq!(video.size, SIZE);
    assert_eq!((video.fps, video.bitrate), (FPS, VIDEO_BITRATE));
    assert_eq!(config.feeds["a"].audio, None);
    let publisher = &config.publishers["p"];
    assert_eq!(publisher.transport, Transport::Auto);
    let server = Server::Ome {
        url: Secret::new("wss://host/app/stream"),
    };
    assert_eq!(publisher, &Publisher::new("a", server));
}

#[test]
fn every_fault_is_reported_at_once_with_its_place() {
    let text = r#"[feed.front]
video = { source = "camera", devise = "/dev/video0", size = "1281x720", fps = 0, bitrate = "2500" }
audio = { source = "micropone" }

[publisher.main]
feed = "fornt"
to = "wowza"
url = "https://engine.example/webrtc-session.json?token=planted"
stream = { env = "STREAM" }
transprot = "tcp"

[publishers.backup]
"#;
    let expected = r#"2:30: feed.front.video.devise: is no known key; allowed: source, size, fps, bitrate, key_frame_interval, device, frozen_after, black_after (did you mean `device`?)
2:61: feed.front.video.size: found "1281x720", allowed: WIDTHxHEIGHT, both even and from 64 to 4096, such as "1280x720"
2:79: feed.front.video.fps: found 0, allowed: a whole number from 1 to 60
2:92: feed.front.video.bitrate: found "2500", allowed: a bitrate with its unit, 50 kbit/s to 50 Mbit/s, such as "64 kbit/s" or "2.5 Mbit/s"
3:20: feed.front.audio.source: found "micropone", allowed: file, microphone, silence, tone (did you mean `microphone`?)
5:12: publisher.main.application: is missing; it must be a text
6:8: publisher.main.feed: names the feed "fornt", which is not in this file (did you mean `front`?)
8:7: publisher.main.url: is no ws:// or wss:// URL with a host
9:10: publisher.main.stream: the environment has no such variable
10:1: publisher.main.transprot: is no known key; allowed: feed, to, transport, ice_servers, proxy, ca_file, pins, insecure_tls, on_air, time_zone, url, application, stream, dialect (did you mean `transport`?)
12:2: publishers: is no known key; allowed: feed, publisher, daemon (did you mean `publisher`?)
"#;
    assert_eq!(faults(text), expected);
}

#[test]
fn a_key_of_another_kind_means_nothing_here() {
    let text = MINIMAL.replace("\"testcard\"", "\"testcard\", device = \"x\"");
    assert!(faults(&text).contains("feed.a.video.device: means nothing here"));
    let text = format!("{MINIMAL}application = \"live\"\n");
    assert!(faults(&text).contains("publisher.p.application: means nothing here"));
}

#[test]
fn one_camera_serves_one_feed() {
    let camera = |name: &str, device: &str| {
        format!("[feed.{name}]\nvideo = {{ source = \"camera\", device = \"{device}\" }}\n")
    };
    let other = camera("b", "/dev/video0") + &camera("c", "/dev/video2") + MINIMAL;
    assert!(read(&other).is_ok());
    let same = camera("b", "/dev/video0") + &camera("c", "/dev/video0") + MINIMAL;
    assert!(faults(&same).contains("feed.c.video.device: has the same camera as feed.b"));
}

#[test]
fn what_is_watched_for_is_a_time_or_off_and_only_a_device_is_watched() {
    let with = |keys: &str| MINIMAL.replace("\"testcard\"", &format!("\"camera\"{keys}"));
    let watch = |text: &str| match &read(text).unwrap().feeds["a"]
        .video
        .as_ref()
        .unwrap()
        .source
    {
        VideoSource::Camera { watch, .. } => *watch,
        other @ (VideoSource::File { .. } | VideoSource::TestCard) => panic!("{other:?}"),
    };
    assert_eq!(watch(&with("")), PictureWatch::default());
    let set = watch(&with(", frozen_after = \"off\", black_after = \"1 min\""));
    assert_eq!(set.frozen_after, None);
    assert_eq!(set.black_after, Some(Duration::from_secs(60)));
    for bad in ["0s", "25h", "never", "10"] {
        let found = faults(&with(&format!(", frozen_after = \"{bad}\"")));
        assert!(
            found.contains("1 s to 24 h, such as \"10s\", or \"off\""),
            "{found}"
        );
    }
    let card = MINIMAL.replace("\"testcard\"", "\"testcard\", black_after = \"off\"");
    assert!(faults(&card).contains("black_after: means nothing here"));
}

#[test]
fn a_lost_microphone_resumes_unless_silence_is_asked_for() {
    let with = |audio: &str| format!("{MINIMAL}[feed.b]\naudio = {{ {audio} }}\n");
    let after = |audio: &str| match &read(&with(audio)).unwrap().feeds["b"]
        .audio
        .as_ref()
        .unwrap()
        .source
    {
        AudioSource::Microphone { after_loss, .. } => *after_loss,
        other @ (AudioSource::File { .. } | AudioSource::Silence | AudioSource::Tone) => {
            panic!("{other:?}")
        }
    };
    assert_eq!(after("source = \"microphone\""), AfterLoss::Resume);
    for (word, meant) in [
        ("resume", AfterLoss::Resume),
        ("silence", AfterLoss::Silence),
    ] {
        let audio = format!("source = \"microphone\", after_loss = \"{word}\"");
        assert_eq!(after(&audio), meant);
    }
    let found = faults(&with("source = \"microphone\", after_loss = \"silent\""));
    assert!(
        found.contains("feed.b.audio.after_loss: found \"silent\", allowed: resume, silence"),
        "{found}"
    );
    assert!(found.contains("did you mean `silence`?"), "{found}");
    let tone = faults(&with("source = \"tone\", after_loss = \"resume\""));
    assert!(tone.contains("after_loss: means nothing here"), "{tone}");
}

#[test]
fn one_stream_has_one_publisher() {
    let twice = format!(
        "{MINIMAL}[publisher.q]\nfeed = \"a\"\nto = \"ome\"\nurl = \"wss://host/app/stream\"\n"
    );
    assert!(faults(&twice).contains("publisher.q: publishes to the same stream as publisher.p"));
}

#[test]
fn a_feed_has_a_track_and_a_file_has_a_feed_and_a_publisher() {
    assert!(faults(&format!("{MINIMAL}[feed.empty]\n")).contains("has neither video nor audio"));
    let nothing = faults("");
    assert!(nothing.contains("feed: is missing"), "{nothing}");
    assert!(nothing.contains("publisher: is missing"), "{nothing}");
}

#[test]
fn wrong_types_are_faults_everywhere() {
    let text = "feed = 3\npublisher = [1]\n";
    let found = faults(text);
    assert!(
        found.contains("1:8: feed: found integer, allowed: a table"),
        "{found}"
    );
    assert!(
        found.contains("2:13: publisher: found array, allowed: a table"),
        "{found}"
    );
    let text = MINIMAL.replace("\"wss://host/app/stream\"", "7");
    assert!(faults(&text).contains("publisher.p.url: found integer, allowed: a text, or {"));
}

#[test]
fn a_secret_comes_from_one_place() {
    let with = |value: &str| MINIMAL.replace("\"wss://host/app/stream\"", value);
    let config = read(&with("{ credential = \"url\" }")).unwrap();
    let Server::Ome { url } = &config.publishers["p"].server else {
        panic!("{config:?}");
    };
    assert_eq!(url.expose(), "wss://credential.example/url");
    for bad in ["{}", "{ credential = \"a\", env = \"b\" }"] {
        let found = faults(&with(bad));
        assert!(
            found.contains("publisher.p.url: must be a text, or {"),
            "{found}"
        );
    }
    for pasted in ["eyJ.planted+token/with=signs", &"planted".repeat(10)] {
        for key in ["credential", "env"] {
            let found = faults(&with(&format!("{{ {key} = \"{pasted}\" }}")));
            assert!(
                found.contains("no such name") && !found.contains("planted"),
                "{found}"
            );
        }
    }
    assert!(faults(&with("{ credentail = \"a\" }")).contains("did you mean `credential`?"));
    assert!(faults(&with("\" \"")).contains("publisher.p.url: is empty"));
}

#[test]
fn faults_never_repeat_a_secret() {
    for text in [
        MINIMAL.replace("wss://host/app/stream", "planted"),
        MINIMAL.replace("\"wss://host/app/stream\"", "\"planted"),
        MINIMAL.replace("wss://host/app/stream", "http://host/planted"),
    ] {
        let found = faults(&text);
        assert!(!found.contains("planted"), "{found}");
    }
}

#[test]
fn broken_toml_is_placed() {
    let found = faults("[feed.a\nvideo = 3\n");
    assert!(found.starts_with("1:8: this is not TOML: "), "{found}");
    let twice = faults(&format!("{MINIMAL}url = \"wss://b/c\"\n"));
    assert!(
        twice.contains("7:1: this is not TOML: duplicate key"),
        "{twice}"
    );
}

#[test]
fn paths_start_at_the_folder_of_the_file() {
    let text =
        MINIMAL.replace("\"testcard\"", "\"file\", path = \"a.y4m\"") + "ca_file = \"/ca.pem\"\n";
    let config = read(&text).unwrap();
    let source = &config.feeds["a"].video.as_ref().unwrap().source;
    let path = PathBuf::from("/etc/onair/a.y4m");
    assert_eq!(source, &VideoSource::File { path });
    assert_eq!(
        config.publishers["p"].trust.ca_file,
        Some(PathBuf::from("/ca.pem"))
    );
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let text =
        MINIMAL.replace("\"testcard\"", "\"file\", path = \"gone\"") + "ca_file = \"/gone\"\n";
    let found = faults(&text);
    let film = "2:35: feed.a.video.path: /etc/onair/gone cannot be opened: it is gone\n";
    let authority = "7:11: publisher.p.ca_file: /gone cannot be opened: it is gone\n";
    assert_eq!(found, format!("{film}{authority}"));
}

#[test]
fn shortest_files_per_server_are_valid() {
    for text in [
        include_str!("../../../config/demo.toml"),
        include_str!("../../../config/ome.toml"),
        include_str!("../../../config/qencode.toml"),
        include_str!("../../../config/qencode-api.toml"),
        include_str!("../../../config/whip.toml"),
        include_str!("../../../config/wowza-video.toml"),
        include_str!("../../../config/wowza.toml"),
    ] {
        assert!(read(text).is_ok(), "{}", faults(text));
    }
}

/// The file of all keys states the defaults: without any one optional key it means the same, and each key of the
/// program is in it.
#[test]
fn file_of_all_keys_states_the_defaults() {
    let full = include_str!("../../../config/onair.toml");
    let config = read(full).unwrap_or_else(|_| panic!("{}", faults(full)));

    let lines: Vec<&str> = full.lines().collect();
    let mut optional = std::collections::BTreeSet::new();
    for (n, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let without: String = lines
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != n)
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        match read(&without) {
            Ok(same) => {
                assert_eq!(same, config, "line {}: {line}", n + 1);
                optional.insert(key);
            }
            Err(faults) => {
                let missing = |f: &Fault| f.message.starts_with("is missing");
                assert!(faults.iter().any(missing), "line {}: {line}", n + 1);
            }
        }
    }
    let expected = [
        "after_loss",
        "api",
        "billing_mode",
        "bitrate",
        "black_after",
        "channels",
        "clipped_after",
        "device",
        "dialect",
        "fps",
        "frozen_after",
        "ice_servers",
        "insecure_tls",
        "key_frame_interval",
        "listen",
        "low_latency",
        "on_exit",
        "picture",
        "pins",
        "proxy",
        "recording",
        "silent_after",
        "size",
        "time_zone",
        "transcoder_type",
        "transport",
        "trickle",
    ];
    assert_eq!(optional.into_iter().collect::<Vec<_>>(), expected);

    // The examples behind a # are valid too; a second line of a key is a second example of it.
    let mut shown = std::collections::BTreeSet::new();
    for line in full.lines() {
        let example = line.strip_prefix("# ").and_then(|l| l.split_once(" = "));
        let Some((key, _)) = example.filter(|(key, _)| !key.contains(' ')) else {
            continue;
        };
        let plain = format!("\n{key} = ");
        let at = full.find(line).unwrap();
        let table = full[..at].rfind("\n[").unwrap();
        let end = full[at..].find("\n[").map_or(full.len(), |n| at + n);
        let mut text = full[table..end].to_owned();
        if let Some(stated) = text.find(&plain) {
            let end = stated + 1 + text[stated + 1..].find('\n').unwrap();
            text.replace_range(stated..end, "");
        }
        let text = format!(
            "{}{}{}",
            &full[..table],
            text.replacen(line, &line[2..], 1),
            &full[end..]
        );
        let changed = read(&text).unwrap_or_else(|_| panic!("{line}\n{}", faults(&text)));
        assert_ne!(changed, config, "{line}");
        shown.insert(key);
    }
    let expected = [
        "bearer",
        "ca_file",
        "callback_url",
        "daily_minutes",
        "ice_servers",
        "on_air",
        "pins",
        "proxy",
        "reference_id",
        "state_dir",
        "token",
    ];
    assert_eq!(shown.into_iter().collect::<Vec<_>>(), expected);

    // What a table allows is listed when it holds an unknown key; each of these must be shown in the file.
    let tables = [
        "[feed.front.video]",
        "[feed.film.video]",
        "[feed.front.audio]",
        "[feed.film.audio]",
        "[daemon.status]",
    ];
    let more = [
        "[publisher.engine]",
        "[publisher.oven]",
        "[publisher.any]",
        "[publisher.qencode]",
        "[publisher.video]",
        "[publisher.video.create]",
        "[daemon]",
    ];
    for header in tables.iter().chain(&more) {
        let found = faults(&full.replace(header, &format!("{header}\nqqqqqq = 1")));
        let (_, allowed) = found.trim().split_once("allowed: ").unwrap();
        for key in allowed.split(", ") {
            assert!(
                full.contains(&format!("\n{key} = "))
                    || full.contains(&format!("\n# {key} = "))
                    || full.contains(&format!(".{key}]\n")),
                "{key}"
            );
        }
    }
}

#[test]
fn what_other_hosts_can_reach_needs_a_token() {
    let status = |lines: &str| format!("{MINIMAL}[daemon.status]\n{lines}\n");
    let read = |lines: &str| read(&status(lines)).map(|config| config.daemon.status);
    assert_eq!(read("").unwrap(), Status::default());
    assert_eq!(read("listen = \"off\"").unwrap().listen, None);
    for address in ["127.0.0.1:1", "127.8.8.8:0", "[::1]:9810"] {
        let read = read(&format!("listen = \"{address}\"")).unwrap();
        assert_eq!(read.listen, Some(address.parse().unwrap()));
    }
    for address in ["0.0.0.0:9810", "[::]:9810", "192.0.2.1:80"] {
        let listen = format!("listen = \"{address}\"");
        let fault = faults(&status(&listen));
        assert!(fault.contains("give a `token` too"), "{fault}");
        let both = format!("{listen}\ntoken = \"planted-and-long-enough\"");
        let status = read(&both).unwrap();
        assert_eq!(status.token, Some(Secret::new("planted-and-long-enough")));
        assert!(status.picture, "whoever has the token may look");
        let blind = format!("{both}\npicture = false");
        assert!(!read(&blind).unwrap().picture);
    }
    assert!(!read("").unwrap().picture && read("picture = true").unwrap().picture);
    for (lines, words) in [
        ("listen = \"localhost:9810\"", "an IP address with its port"),
        ("listen = 9810", "an IP address with its port"),
        ("token = \"planted\"", "at least 16 characters"),
        (
            "token = \"planted planted planted\"",
            "a character that no token has",
        ),
        ("token = { env = \"NONE\" }", "no such variable"),
        ("picture = 1", "true, false"),
        ("tokn = 1", "did you mean `token`?"),
    ] {
        let fault = faults(&status(lines));
        assert!(
            fault.contains(words) && !fault.contains("planted"),
            "{fault}"
        );
    }
}

/// A publisher with `lines` to a server of that kind.
fn publisher(to: &str, url: &str, lines: &str) -> String {
    format!(
        "[feed.a]\nvideo = {{ source = \"testcard\" }}\n[publisher.p]\nfeed = \"a\"\nto = \"{to}\"\nurl = \"{url}\"\n{lines}\n"
    )
}

fn whip(lines: &str) -> String {
    publisher("whip", "https://host/whip", lines)
}

fn read_one(text: &str) -> Publisher {
    let config = read(text).unwrap_or_else(|_| panic!("{}", faults(text)));
    config.publishers["p"].clone()
}

#[test]
fn a_whip_server_is_read() {
    let server = |lines: &str| read_one(&whip(lines)).server;
    let url = Secret::new("https://host/whip");
    assert_eq!(
        server(""),
        Server::Whip {
            url: url.clone(),
            bearer: None,
            trickle: Trickle::Sdpfrag,
        }
    );
    for (word, trickle) in [
        ("sdpfrag", Trickle::Sdpfrag),
        ("bare", Trickle::Bare),
        ("off", Trickle::Off),
    ] {
        let lines = format!("bearer = \"a.b-c_d=\"\ntrickle = \"{word}\"");
        let bearer = Some(Bearer {
            token: Secret::new("a.b-c_d="),
            source: None,
        });
        let url = url.clone();
        assert_eq!(
            server(&lines),
            Server::Whip {
                url,
                bearer,
                trickle
            }
        );
    }
    let Server::Whip { bearer, .. } = server("bearer = { credential = \"token\" }") else {
        panic!("no WHIP server")
    };
    let source = Some(SecretSource::Credential("token".to_owned()));
    assert_eq!(bearer.unwrap().source, source);
    assert!(read(&publisher("whip", "http://host/whip", "")).is_ok());

    let one = |text: &str, fault: &str| assert_eq!(faults(text), format!("{fault}\n"));
    one(
        &publisher("whip", "wss://planted/whip", ""),
        "6:7: publisher.p.url: is no http:// or https:// URL with a host",
    );
    one(
        &publisher("ome", "https://planted/whip", ""),
        "6:7: publisher.p.url: is no ws:// or wss:// URL with a host",
    );
    for user in ["planted", "planted:planted", ":planted"] {
        one(
            &publisher("whip", &format!("https://{user}@host/whip"), ""),
            "6:7: publisher.p.url: holds a user name or a password, which have no place in it",
        );
    }
    one(
        &whip("bearer = \"planted planted\""),
        "7:10: publisher.p.bearer: holds a character that no token has",
    );
    one(
        &whip("bearer = 1"),
        "7:10: publisher.p.bearer: found integer, allowed: a text, or { credential = \"NAME\" }, { file = \"PATH\" } or { env = \"NAME\" }",
    );
    one(
        &whip("trickle = \"barr\""),
        "7:11: publisher.p.trickle: found \"barr\", allowed: bare, off, sdpfrag (did you mean `bare`?)",
    );
    assert!(faults(&whip("stream = \"x\"")).contains("publisher.p.stream: means nothing here"));
    assert!(faults(&whip("dialect = \"v1\"")).contains("publisher.p.dialect: means nothing here"));
    let ome = publisher("ome", "wss://host/a/b", "bearer = \"x\"\ntrickle = \"off\"");
    assert!(faults(&ome).contains("publisher.p.bearer: means nothing here"));
    assert!(faults(&ome).contains("publisher.p.trickle: means nothing here"));
    assert!(
        faults(&publisher("whep", "https://host/whip", "")).contains(
            "found \"whep\", allowed: ome, qencode, whip, wowza, wowza-video (did you mean `whip`?)"
        )
    );
}

#[test]
fn wowza_has_two_dialects() {
    let wowza = |dialect: &str| {
        let lines = format!("application = \"live\"\nstream = \"s\"\n{dialect}");
        publisher("wowza", "wss://host/webrtc-session.json", &lines)
    };
    for (line, expected) in [
        ("", WowzaDialect::Auto),
        ("dialect = \"auto\"", WowzaDialect::Auto),
        ("dialect = \"v1\"", WowzaDialect::V1),
        ("dialect = \"v2\"", WowzaDialect::V2),
    ] {
        let Server::Wowza { dialect, .. } = read_one(&wowza(line)).server else {
            panic!("no Wowza server")
        };
        assert_eq!(dialect, expected);
    }
    assert!(faults(&wowza("dialect = \"v3\"")).contains("found \"v3\", allowed: auto, v1, v2"));
}

#[test]
fn every_transport_has_its_word() {
    for (word, expected) in [
        ("auto", Transport::Auto),
        ("relay", Transport::Relay),
        ("tcp", Transport::Tcp),
        ("udp", Transport::Udp),
    ] {
        let text = whip(&format!("transport = \"{word}\""));
        assert_eq!(read_one(&text).transport, expected);
    }
    assert!(
        faults(&whip("transport = \"TCP\""))
            .contains("publisher.p.transport: found \"TCP\", allowed: auto, relay, tcp, udp")
    );
}

#[test]
fn ice_servers_are_read_and_each_fault_has_its_place() {
    let text = whip(
        r#"ice_servers = [
    { url = "stun:stun.example" },
    { url = "turns:turn.example:443", username = "u", credential = { credential = "turn" } },
]"#,
    );
    let servers = read_one(&text).ice_servers;
    let urls: Vec<String> = servers
        .iter()
        .map(|server| server.url.to_string())
        .collect();
    assert_eq!(
        urls,
        [
            "stun:stun.example:3478",
            "turns:turn.example:443?transport=tcp"
        ]
    );
    assert_eq!(
        (servers[0].username.as_str(), servers[0].credential.expose()),
        ("", "")
    );
    assert_eq!(servers[1].username, "u");
    assert_eq!(
        servers[1].credential.expose(),
        "wss://credential.example/turn"
    );

    let tables = whip("[[publisher.p.ice_servers]]\nurl = \"stun:stun.example\"");
    assert_eq!(read_one(&tables).ice_servers.len(), 1);

    let text = whip(
        r#"ice_servers = [
    { url = "stun:stun.example", username = "u" },
    { url = "turn:turn.example", username = "u" },
    { url = "turn:turn.example", credential = "planted" },
    { url = "turn:planted:planted@turn.example", username = "u", credential = "c" },
    { urls = ["turn:turn.example"], username = "u", credential = "c" },
    "turn:turn.example",
]"#,
    );
    let expected = r#"8:34: publisher.p.ice_servers[0].username: means nothing here; allowed: url
9:5: publisher.p.ice_servers[1].credential: is missing; it must be a text, or { credential = "NAME" }, { file = "PATH" } or { env = "NAME" }
10:5: publisher.p.ice_servers[2].username: is missing; it must be a text
11:13: publisher.p.ice_servers[3].url: is no STUN or TURN URL, such as "turn:host:3478?transport=tcp" or "turns:host:443"
12:5: publisher.p.ice_servers[4].url: is missing; it must be a text
13:5: publisher.p.ice_servers[5]: found string, allowed: a table
"#;
    assert_eq!(faults(&text), expected);

    let found = faults(&whip("ice_servers = \"planted\""));
    assert!(
        found.contains("publisher.p.ice_servers: found string, allowed: a list of {"),
        "{found}"
    );
    assert!(!found.contains("planted"), "{found}");
    let nine = "{ url = \"stun:a\" },".repeat(9);
    let found = faults(&whip(&format!("ice_servers = [{nine}]")));
    assert!(
        found.contains("has 9 servers, allowed: at most 8"),
        "{found}"
    );
    let relay = whip("transport = \"relay\"");
    assert_eq!(read_one(&relay).transport, Transport::Relay);
}

#[test]
fn a_proxy_is_a_word_or_a_secret() {
    let proxy = |value: &str| read_one(&whip(&format!("proxy = {value}"))).proxy;
    assert_eq!(proxy("\"environment\""), Proxy::Environment);
    assert_eq!(proxy("\"none\""), Proxy::None);
    for url in [
        "http://u:p@proxy.example:3128",
        "https://proxy.example/",
        "http://[::1]:3128",
    ] {
        assert_eq!(proxy(&format!("\"{url}\"")), Proxy::Url(Secret::new(url)));
    }
    for bad in [
        "planted",
        "socks5://planted",
        "http://",
        "http://h/planted",
        "http://h?planted",
        "wss://planted",
    ] {
        let found = faults(&whip(&format!("proxy = \"{bad}\"")));
        assert_eq!(
            found,
            "7:9: publisher.p.proxy: is neither \"environment\" nor \"none\" nor the URL of a proxy, \
             such as \"http://user:password@proxy.example:3128\"\n"
        );
    }
    assert!(faults(&whip("proxy = { env = \"P\" }")).contains("has no such variable"));
    assert!(faults(&whip("proxy = true")).contains("found boolean, allowed: a text, or {"));
}

#[test]
fn trust_is_read_and_each_fault_has_its_place() {
    let pin = "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let text = whip(&format!("pins = [\"{pin}\"]\ninsecure_tls = true"));
    let trust = read_one(&text).trust;
    assert_eq!(trust.pins.len(), 1);
    assert_eq!(pin::written(&trust.pins[0]), pin);
    assert!(trust.insecure);
    assert_eq!(
        read_one(&whip("pins = []\ninsecure_tls = false")).trust,
        Trust::default()
    );
    for bad in ["\"x\"", "[\"x\"]", "[1]", "[\"sha256:AAAA\"]"] {
        let found = faults(&whip(&format!("pins = {bad}")));
        assert!(found.contains("publisher.p.pins: found "), "{found}");
        assert!(
            found.contains("allowed: a list of pins such as \"sha256:"),
            "{found}"
        );
    }
    for bad in ["\"yes\"", "1"] {
        let found = faults(&whip(&format!("insecure_tls = {bad}")));
        assert!(
            found.contains("publisher.p.insecure_tls: found "),
            "{found}"
        );
        assert!(found.contains("allowed: true, false"), "{found}");
    }
}

#[test]
fn a_stream_is_the_same_whatever_the_token_and_the_language() {
    let twice = |one: &str, more: &str, other: &str| {
        let first = format!(
            "[feed.a]\nvideo = {{ source = \"testcard\" }}\n[publisher.p]\nfeed = \"a\"\n{one}\n{more}\n"
        );
        faults(&format!(
            "{first}[publisher.q]\nfeed = \"a\"\n{one}\n{other}\n"
        ))
    };
    let whip = "to = \"whip\"\nurl = \"https://host/whip\"";
    let wowza = "to = \"wowza\"\nurl = \"wss://host/w\"\napplication = \"a\"\nstream = \"s\"";
    for found in [
        twice(whip, "bearer = \"a\"", "trickle = \"off\""),
        twice(wowza, "dialect = \"v1\"", "dialect = \"v2\""),
    ] {
        assert!(
            found.contains("publisher.q: publishes to the same stream as publisher.p"),
            "{found}"
        );
    }
}

/// `onair check --offline` has no secrets: their form is not judged, and they are not taken for one another.
#[test]
fn secrets_that_are_not_fetched_are_no_faults() {
    let env = Env {
        base: Path::new("/etc/onair"),
        fetch: &|_| Ok(None),
        open: &|_| Ok(()),
    };
    let text = whip("bearer = { env = \"B\" }\nproxy = { env = \"P\" }\nice_servers = [{ url = \"turn:a\", username = \"u\", credential = { env = \"C\" } }]")
        .replace("\"https://host/whip\"", "{ env = \"U\" }");
    let other = text.replace(".p]", ".q]").replace("\"U\"", "\"V\"");
    let (_, other) = other.split_once("[publisher").unwrap();
    assert!(parse(&format!("{text}[publisher{other}"), &env).is_ok());
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
        if let Err(faults) = read(&text) {
            proptest::prop_assert!(!faults.is_empty());
        }
    }

    /// Damage inside a valid file reaches deeper than random text does.
    #[test]
    fn damaged_file_is_read_or_refused(at in 0..1500_usize, n in 0..20_usize, put in "[\\PC\n]{0,8}") {
        let mut chars: Vec<char> = include_str!("../../../config/onair.toml")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(|line| line.chars().chain(['\n']))
            .collect();
        let start = at.min(chars.len());
        let end = (at + n).min(chars.len());
        chars.splice(start..end, put.chars());
        if let Err(faults) = read(&chars.into_iter().collect::<String>()) {
            proptest::prop_assert!(faults.iter().all(|fault| fault.line > 0 && fault.column > 0));
        }
    }
}

#[path = "platform_tests.rs"]
mod platform;
