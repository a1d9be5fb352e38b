//! The keys of a stream at a vendor's control plane, and the hours on air.

use super::*;
use crate::config::platform::{Create, OnExit, Platform, StreamRef, Vendor};

fn file(lines: &str) -> String {
    format!("[feed.a]\nvideo = {{ source = \"testcard\" }}\n[publisher.p]\nfeed = \"a\"\n{lines}\n")
}

fn platform_of(lines: &str) -> Platform {
    let text = file(lines);
    let config = read(&text).unwrap_or_else(|_| panic!("{}", faults(&text)));
    let Server::Platform(platform) = &config.publishers["p"].server else {
        panic!("{config:?}");
    };
    (**platform).clone()
}

#[test]
fn the_shortest_platforms_get_the_defaults() {
    let video = platform_of("to = \"wowza-video\"\ntoken = \"planted\"\nstream_id = \"abc\"");
    let vendor = Vendor::WowzaVideo {
        dialect: WowzaDialect::Auto,
        create: None,
    };
    assert_eq!(video.vendor, vendor);
    assert_eq!(video.api.expose(), "https://api.video.wowza.com/api/v2.0");
    assert_eq!(video.stream, StreamRef::Id("abc".to_owned()));
    assert_eq!((video.on_exit, video.daily_minutes), (OnExit::Stop, None));
    assert_eq!(video.credential.token.expose(), "planted");

    let qencode = platform_of("to = \"qencode\"\napi_key = \"planted\"\nstream_name = \"x y\"");
    assert_eq!(qencode.vendor, Vendor::Qencode { callback_url: None });
    assert_eq!(qencode.api.expose(), "https://api-live.qencode.com/v1");
    assert_eq!(qencode.stream, StreamRef::Name("x y".to_owned()));
}

#[test]
fn every_key_of_a_platform_is_read() {
    let video = platform_of(
        "to = \"wowza-video\"\ntoken = { credential = \"t\" }\nstream_name = \"n\"\n\
         api = \"http://127.0.0.1:1/api/\"\ndialect = \"v1\"\non_exit = \"leave\"\ndaily_minutes = 60\n\
         create = { broadcast_location = \"eu_ireland\", recording = true, reference_id = \"k\" }",
    );
    assert_eq!(
        video.api.expose(),
        "http://127.0.0.1:1/api",
        "no slash at its end"
    );
    assert_eq!(
        (video.on_exit, video.daily_minutes),
        (OnExit::Leave, Some(60))
    );
    let source = SecretSource::Credential("t".to_owned());
    assert_eq!(video.credential.source, Some(source), "to be read again");
    let create = Create {
        recording: true,
        reference_id: Some("k".to_owned()),
        ..Create::at("eu_ireland")
    };
    let vendor = Vendor::WowzaVideo {
        dialect: WowzaDialect::V1,
        create: Some(create),
    };
    assert_eq!(video.vendor, vendor);
    let qencode = platform_of(
        "to = \"qencode\"\napi_key = \"k\"\nstream_id = \"x\"\ncallback_url = \"https://h/cb?t=1\"",
    );
    let callback_url = Some(Secret::new("https://h/cb?t=1"));
    assert_eq!(qencode.vendor, Vendor::Qencode { callback_url });
}

#[test]
fn each_fault_of_a_platform_has_its_place() {
    let qencode = |lines: &str| faults(&file(&format!("to = \"qencode\"\n{lines}")));
    let video = |lines: &str| faults(&file(&format!("to = \"wowza-video\"\n{lines}")));
    for (found, says) in [
        (
            qencode("stream_id = \"x\""),
            "publisher.p.api_key: is missing",
        ),
        (
            qencode("api_key = \"k\""),
            "publisher.p.stream_id: is missing",
        ),
        (
            qencode("api_key = \"k\"\nstream_id = \"x\"\nstream_name = \"y\""),
            "is given beside stream_name",
        ),
        (
            qencode("api_key = \"k\"\nstream_id = \"x\"\nurl = \"wss://h/p\""),
            "publisher.p.api_key: is no known key",
        ),
        (
            qencode("api_key = \"k\"\nstream_id = \"../x\""),
            "allowed: letters, digits",
        ),
        (
            qencode("api_key = \"k\"\nstream_id = \"x\"\ndaily_minutes = 1441"),
            "allowed: a whole number from 1 to 1440",
        ),
        (
            qencode("api_key = \"planted key\"\nstream_id = \"x\""),
            "api_key: holds a character that no token has",
        ),
        (
            qencode("api_key = \"k\"\nstream_id = \"x\"\ncallback_url = \"ftp://planted\""),
            "callback_url: is no http:// or https:// URL",
        ),
        (video("stream_id = \"x\""), "publisher.p.token: is missing"),
        (
            video(
                "token = \"t\"\nstream_id = \"x\"\ncreate = { broadcast_location = \"eu_germany\" }",
            ),
            "give stream_name instead",
        ),
        (
            video(
                "token = \"t\"\nstream_name = \"x\"\ncreate = { broadcast_location = \"eu_germani\" }",
            ),
            "did you mean `eu_germany`",
        ),
        (
            video("token = \"t\"\nstream_name = \"x\"\ncreate = {}"),
            "publisher.p.create.broadcast_location: is missing",
        ),
        (
            video("token = \"t\"\nstream_id = \"x\"\napi = \"wowza\""),
            "publisher.p.api: is no http:// or https:// URL",
        ),
        (
            video("token = \"t\"\nstream_id = \"x\"\non_exit = \"stay\""),
            "publisher.p.on_exit: found \"stay\", allowed: leave, stop",
        ),
        (
            video("token = \"t\"\nstream_id = \"x\"\nurl = \"wss://h/p\""),
            "publisher.p.url: is no known key",
        ),
    ] {
        assert!(found.contains(says), "{says}: {found}");
        assert!(!found.contains("planted"), "{found}");
    }
}

#[test]
fn one_stream_of_a_platform_has_one_publisher() {
    let one = "to = \"qencode\"\napi_key = \"k\"\nstream_id = \"x\"\n";
    let two = |id: &str| {
        let first = file(one);
        format!(
            "{first}[publisher.q]\nfeed = \"a\"\n{}",
            one.replace("\"x\"", id)
        )
    };
    assert!(faults(&two("\"x\"")).contains("publishes to the same stream as publisher.p"));
    assert!(read(&two("\"y\"")).is_ok());
}

#[test]
fn hours_and_zone_are_read_and_each_fault_has_its_place() {
    let ome = |lines: &str| file(&format!("to = \"ome\"\nurl = \"wss://h/a/s\"\n{lines}"));
    for hours in [
        "\"Mon-Fri 08:00-18:00\"",
        "[\"08:00-12:00\", \"Sat 10:00-14:00\"]",
    ] {
        let text = ome(&format!("on_air = {hours}\ntime_zone = \"Europe/Berlin\""));
        let config = read(&text).unwrap_or_else(|_| panic!("{}", faults(&text)));
        let publisher = &config.publishers["p"];
        assert!(publisher.on_air.is_some());
        assert_eq!(publisher.time_zone.iana_name(), Some("Europe/Berlin"));
    }
    for hours in [
        "\"8-18\"",
        "\"Mo-Fr 08:00-18:00\"",
        "[]",
        "7",
        "[\"08:00-12:00\", 3]",
    ] {
        let found = faults(&ome(&format!("on_air = {hours}")));
        assert!(found.contains("publisher.p.on_air: found "), "{found}");
        assert!(found.contains("Mon-Fri 08:00-18:00"), "{found}");
        assert!(!found.contains("did you mean"), "{found}");
    }
    let found = faults(&ome("time_zone = \"Europe/Berlinn\""));
    assert!(found.contains("publisher.p.time_zone: found "), "{found}");
}

#[test]
fn the_folder_of_state_is_read() {
    let text = file("to = \"ome\"\nurl = \"wss://h/a/s\"\n[daemon]\nstate_dir = \"state\"");
    let state_dir = read(&text).unwrap().daemon.state_dir;
    assert_eq!(state_dir, Some(PathBuf::from("/etc/onair/state")));
    let found = faults(&text.replace("state_dir", "statedir"));
    assert!(
        found.contains("daemon.statedir: is no known key; allowed: state_dir"),
        "{found}"
    );
}
