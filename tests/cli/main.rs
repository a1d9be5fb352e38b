//! Drives the built binary as a user does: exit codes, help, faults, interrupts.

mod daemon;
mod recorder;

use std::path::Path;
use std::process::{Command, Output, Stdio};

const MINIMAL: &str = "[feed.a]\nvideo = { source = \"testcard\" }\n\
    [publisher.p]\nfeed = \"a\"\nto = \"ome\"\nurl = \"ws://127.0.0.1:1/app/planted\"\n";

fn onair(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_onair"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the built binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("onair prints UTF-8")
}

fn check(config: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let path = config.to_str().expect("a path of this test is UTF-8");
    let output = onair(&[&["check", "--config", path], flags].concat());
    (output.status.code(), text(&output.stdout).to_owned())
}

#[test]
fn help_of_each_verb_ends_with_two_examples() {
    for verb in [
        "demo", "run", "check", "devices", "lab", "probe", "stream", "bundle",
    ] {
        let output = onair(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        let help = text(&output.stdout);
        let (_, examples) = help.split_once("\nExamples:\n").expect(verb);
        let examples: Vec<&str> = examples.lines().map(str::trim).collect();
        assert_eq!(examples.len(), 2, "{verb}: {examples:?}");
        for example in examples {
            assert!(example.starts_with(&format!("onair {verb}")), "{example}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_possible() {
    for args in [
        &["demmo"][..],
        &[],
        &["run", "--for", "20"],
        &["lab", "--profile", "wowza"],
        &["lab", "--listen", "here"],
        &["demo", "--video", "screen"],
        &["check", "--colour"],
        &["run", "--log-format", "xml"],
        &["probe"],
        &["stream"],
        &["stream", "begin"],
    ] {
        let output = onair(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    let output = onair(&["lab", "--profile", "wowza"]);
    assert!(text(&output.stderr).contains("wowza-cloud"));
}

#[test]
fn a_good_configuration_ends_with_0() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("onair.toml");
    std::fs::write(&config, MINIMAL).expect("written");
    let (code, said) = check(&config, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("no faults; feeds: a; publishers: p"),
        "{said}"
    );
    assert!(!said.contains("planted"), "{said}");
}

#[test]
fn a_server_without_an_address_is_said_and_is_no_fault() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("onair.toml");
    let unknown = MINIMAL.replace("127.0.0.1:1", "onair.invalid");
    std::fs::write(&config, unknown).expect("written");
    let (code, said) = check(&config, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("publisher.p: onair.invalid has no address now"),
        "{said}"
    );
    let (_, said) = check(&config, &["--offline"]);
    assert!(!said.contains("no address"), "{said}");
}

#[test]
fn every_fault_ends_with_78_and_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("onair.toml");
    let bad = MINIMAL.replace("\"testcard\"", "\"testcrad\", fps = 99");
    std::fs::write(&config, format!("{bad}ca_file = \"no-such.pem\"\n")).expect("written");
    let path = config.display();

    let (code, said) = check(&config, &[]);
    assert_eq!(code, Some(78), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with(&format!("{path}:2:20: feed.a.video.source: ")),
        "{said}"
    );
    assert!(lines[0].ends_with("(did you mean `testcard`?)"), "{said}");
    assert!(
        lines[1].starts_with(&format!("{path}:2:38: feed.a.video.fps: ")),
        "{said}"
    );
    assert!(
        lines[2].starts_with(&format!("{path}:7:11: publisher.p.ca_file: ")),
        "{said}"
    );

    let (code, said) = check(&config, &["--offline", "--json"]);
    assert_eq!(code, Some(78), "{said}");
    let document: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(document["ok"], false);
    assert_eq!(document["faults"].as_array().map(Vec::len), Some(2));
    assert_eq!(document["faults"][0]["line"], 2);
    assert_eq!(document["faults"][0]["suggestion"], "testcard");
}

#[test]
fn a_missing_configuration_ends_with_78() {
    let (code, said) = check(Path::new("/no/such/onair.toml"), &[]);
    assert_eq!(code, Some(78));
    assert!(
        said.contains("/no/such/onair.toml cannot be read: No such file"),
        "{said}"
    );
    let output = onair(&["run", "--config", "/no/such/onair.toml"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
}

#[test]
fn a_credential_that_is_missing_is_said_with_the_place_where_it_belongs() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("onair.toml");
    let text_of_it = MINIMAL.replace(
        "\"ws://127.0.0.1:1/app/planted\"",
        "{ credential = \"ome-url\" }",
    );
    std::fs::write(&config, text_of_it).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_onair"))
        .arg("check")
        .arg("--config")
        .arg(&config)
        .env("CREDENTIALS_DIRECTORY", folder.path())
        .output()
        .expect("the built binary runs");
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stdout);
    assert!(
        said.contains("/etc/credstore/ome-url") && said.contains("LoadCredential="),
        "{said}"
    );
}

#[test]
fn every_shipped_configuration_passes_the_check() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut n_checked = 0;
    for entry in std::fs::read_dir(folder).expect("the folder config") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "toml") {
            let (code, said) = check(&path, &["--offline"]);
            assert_eq!(code, Some(0), "{said}");
            n_checked += 1;
        }
    }
    assert!(n_checked >= 5, "{n_checked}");
}

#[test]
fn a_probe_of_a_dead_server_ends_with_1_and_repeats_nothing_of_the_url() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("onair.toml");
    std::fs::write(&path, MINIMAL).expect("written");
    let config = path.to_str().expect("a path of this test is UTF-8");
    let url = "ws://127.0.0.1:1/app/planted";
    for args in [
        &["probe", url][..],
        &["probe", url, "--json"],
        &["probe", "--config", config],
        &["probe", "p", "--config", config, "--json"],
    ] {
        let output = onair(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = text(&output.stdout);
        assert!(said.contains("ws://127.0.0.1:1"), "{said}");
        assert!(said.contains("connecting over TCP failed"), "{said}");
        assert!(!said.contains("planted"), "{said}");
        assert!(!text(&output.stderr).contains("planted"), "{args:?}");
    }
    let unknown = onair(&["probe", "q", "--config", config]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("no publisher of that name"));
}

#[test]
fn a_probe_takes_no_secret_from_the_command_line() {
    let url = "ws://127.0.0.1:1/webrtc-session.json";
    for (args, advice) in [
        (
            ["--proxy", "http://user:planted@127.0.0.1:1"],
            "HTTPS_PROXY",
        ),
        (["--proxy", "user:planted@127.0.0.1:1"], "HTTPS_PROXY"),
        (["--stream", "front?token=planted"], "configuration file"),
    ] {
        let output = onair(&["probe", url, args[0], args[1]]);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains(args[0]) && said.contains(advice), "{said}");
        assert!(!said.contains("planted"), "{said}");
    }
}

#[test]
fn devices_lists_what_is_there_even_if_nothing_is() {
    let output = onair(&["devices", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(document["cameras"].is_array() && document["microphones"].is_array());
}

#[test]
fn the_lab_says_where_its_relays_and_its_proxy_are_and_what_is_to_be_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let output = onair(&[
        "lab",
        "--profile",
        "ome-0.20",
        "--turn",
        "--turn-tls",
        "0",
        "--self-signed",
        path,
        "--proxy",
        "0",
        "--for",
        "100ms",
    ]);
    let said = text(&output.stdout);
    for line in [
        "lab ome-0.20 wss://127.0.0.1:",
        "turn turn:127.0.0.1:",
        "turn turns:127.0.0.1:",
        "turn-user lab ",
        "proxy http://127.0.0.1:",
        "page http://127.0.0.1:",
        &format!("ca {path}/ca.pem"),
    ] {
        assert!(
            said.lines().any(|said| said.starts_with(line)),
            "{line}: {said}"
        );
    }
    let certificate = std::fs::read_to_string(folder.path().join("ca.pem")).expect("a file");
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!certificate.contains("KEY"));
    let wildcard = onair(&["lab", "--listen", "0.0.0.0:0", "--for", "100ms"]);
    assert_eq!(wildcard.status.code(), Some(1));
    assert!(text(&wildcard.stderr).contains("--media-ip"));
}

#[test]
fn the_same_seed_gives_the_labs_platforms_the_same_streams() {
    let streams = |seed| {
        let output = onair(&["lab", "--rest", "--seed", seed, "--for", "1ms"]);
        let said = text(&output.stdout).lines();
        said.filter(|line| line.starts_with("stream "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let first = streams("7");
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(streams("7"), first);
    assert_ne!(streams("8"), first);
}

#[test]
fn a_stream_is_looked_after_at_a_platform_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("onair.toml");
    std::fs::write(&config, MINIMAL).expect("written");
    let path = config.to_str().expect("a path of this test is UTF-8");
    let output = onair(&["stream", "list", "--config", path]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("wowza-video"), "{said}");
    assert!(!said.contains("planted"), "{said}");
}
