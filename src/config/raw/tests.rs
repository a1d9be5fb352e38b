use super::*;

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
            SecretSource::Credential(name) => Ok(format!("wss://credential.example/{name}")),
            SecretSource::Env(_) => Err("the environment has no such variable".to_owned()),
            SecretSource::File(path) => Ok(path.display().to_string()),
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
    assert_eq!(publisher.trust.ca_file, None);
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
    let expected = r#"2:30: feed.front.video.devise: is no known key; allowed: source, size, fps, bitrate, key_frame_interval, device (did you mean `device`?)
2:61: feed.front.video.size: found "1281x720", allowed: WIDTHxHEIGHT, both even and from 64 to 4096, such as "1280x720"
2:79: feed.front.video.fps: found 0, allowed: a whole number from 1 to 60
2:92: feed.front.video.bitrate: found "2500", allowed: a bitrate with its unit, 50 kbit/s to 50 Mbit/s, such as "64 kbit/s" or "2.5 Mbit/s"
3:20: feed.front.audio.source: found "micropone", allowed: file, microphone, silence, tone (did you mean `microphone`?)
5:12: publisher.main.application: is missing; it must be a text
6:8: publisher.main.feed: names the feed "fornt", which is not in this file (did you mean `front`?)
8:7: publisher.main.url: is no ws:// or wss:// URL with a host
9:10: publisher.main.stream: the environment has no such variable
10:1: publisher.main.transprot: is no known key; allowed: feed, to, url, transport, ca_file, application, stream (did you mean `transport`?)
12:2: publishers: is no known key; allowed: feed, publisher (did you mean `publisher`?)
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
        "bitrate",
        "channels",
        "device",
        "fps",
        "key_frame_interval",
        "size",
        "transport",
    ];
    assert_eq!(optional.into_iter().collect::<Vec<_>>(), expected);

    let uncommented = full.replace("# ca_file", "ca_file");
    let config = read(&uncommented).unwrap();
    assert!(config.publishers["engine"].trust.ca_file.is_some());

    // What a table allows is listed when it holds an unknown key; each of these must be shown in the file.
    let tables = [
        "[feed.front.video]",
        "[feed.film.video]",
        "[feed.front.audio]",
        "[feed.film.audio]",
    ];
    for header in tables
        .iter()
        .chain(&["[publisher.engine]", "[publisher.oven]"])
    {
        let found = faults(&full.replace(header, &format!("{header}\nqqqqqq = 1")));
        let (_, allowed) = found.trim().split_once("allowed: ").unwrap();
        for key in allowed.split(", ") {
            assert!(
                full.contains(&format!("\n{key} = ")) || full.contains(&format!("\n# {key} = ")),
                "{key}"
            );
        }
    }
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
