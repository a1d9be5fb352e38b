//! The flight recorder of a process that is killed, and the bundle that is made of it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onair::recorder::{self, frame};
use serde_json::Value;

use super::{onair, text};

/// Kills of one run of the test.
const KILLS: u64 = 30;

/// Several publishers that nobody answers: each has much to tell at once.
fn configuration(folder: &Path) -> PathBuf {
    let mut text = "[daemon]\nstate_dir = \"state\"\n[daemon.status]\nlisten = \"off\"\n\
                    [feed.a]\nvideo = { source = \"testcard\" }\n"
        .to_owned();
    for n in 0..8 {
        text += &format!(
            "[publisher.p{n}]\nfeed = \"a\"\nto = \"ome\"\nurl = \"ws://127.0.0.1:1/app/planted-{n}\"\n"
        );
    }
    let path = folder.join("onair.toml");
    std::fs::write(&path, text).expect("written");
    path
}

fn start(config: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_onair"))
        .args(["run", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary runs")
}

/// Waits until the program has said something that holds `word`.
fn until_said(child: &mut Child, word: &str) {
    let log = child.stderr.as_mut().expect("piped");
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(word)), "never said {word}");
}

fn raw(folder: &Path) -> Vec<u8> {
    let path = folder.join("state/recorder/0000000001.rec");
    std::fs::read(path).unwrap_or_default()
}

/// The records, and how many places are damaged.
fn records(folder: &Path) -> (Vec<Value>, usize) {
    let contents = recorder::read(&folder.join("state")).expect("readable");
    let mut torn = 0;
    let mut records = Vec::new();
    for line in contents.lines() {
        match line {
            Ok(line) => records.push(serde_json::from_str(line).expect("JSON")),
            Err(_) => torn += 1,
        }
    }
    (records, torn)
}

#[test]
fn a_killed_process_leaves_a_readable_record_and_the_next_one_writes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let config = configuration(folder);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut before = Vec::new();
    let mut n_records = 0;
    for n in 0..KILLS {
        let mut child = start(&config);
        until_said(&mut child, "session ended");
        let instant = Duration::from_micros(rng.u64(0..400_000));
        #[expect(
            clippy::disallowed_methods,
            reason = "the instant of the kill is random"
        )]
        std::thread::sleep(instant);
        // `kill` of the standard library is SIGKILL.
        child.kill().expect("it runs");
        child.wait().expect("its status");

        let after = raw(folder);
        assert!(
            after.starts_with(&before),
            "kill {n} changed what was there"
        );
        let (records, torn) = records(folder);
        assert!(records.len() >= n_records, "kill {n} at {instant:?}");
        assert!(torn as u64 <= n + 1, "kill {n} at {instant:?}: {torn}");
        assert!(records.iter().all(|record| record["k"].is_string()));
        (before, n_records) = (after, records.len());
    }
    // Wherever a power cut had ended the file, every record that is whole would be read.
    let file = &before[..before.len().min(8_000)];
    let lines = |data: &[u8]| {
        let found = frame::Reader::new(data);
        let lines = found.filter(|found| matches!(found, frame::Found::Line(_)));
        lines.count()
    };
    let mut ends = vec![];
    let mut at = 0;
    for found in frame::Reader::new(file) {
        at += match found {
            frame::Found::Line(line) => frame::HEADER + line.len() + 1,
            frame::Found::Torn(n_bytes) => n_bytes,
        };
        if matches!(found, frame::Found::Line(_)) {
            ends.push(at);
        }
    }
    assert!(ends.len() > 20, "{}", ends.len());
    for cut in 0..=file.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(lines(&file[..cut]), whole, "cut at {cut}");
    }

    let (records_before, _) = records(folder);
    let n_of = |kind: &str, records: &[Value]| records.iter().filter(|r| r["k"] == kind).count();
    assert!(n_of("start", &records_before) as u64 > KILLS / 2);
    assert_eq!(n_of("end", &records_before), 0);
    assert!(n_of("state", &records_before) > 100, "{n_records}");

    let mut child = start(&config);
    until_said(&mut child, "session ended");
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status();
    assert!(sent.expect("kill runs").success());
    child.wait().expect("its status");
    let (records, _) = records(folder);
    assert_eq!(n_of("end", &records), 1);
    assert_eq!(
        records.last().map(|record| &record["k"]),
        Some(&"end".into())
    );
    let all = String::from_utf8_lossy(&raw(folder)).into_owned();
    assert!(!all.contains("planted"), "a stream's name is recorded");
}

/// Runs as `prepared` leaves the folder until much has been said, and returns that.
fn said_by_one_that_cannot_record(prepared: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let config = configuration(folder);
    prepared(&folder.join("state"));
    let mut child = start(&config);
    let log = child.stderr.take().expect("piped");
    let mut said = String::new();
    for line in BufReader::new(log).lines() {
        let line = line.expect("UTF-8");
        said += &format!("{line}\n");
        // The third session of a publisher: what it has said meanwhile had to be written somewhere.
        if line.contains("session{n=3}") || said.matches("session ended").count() == 20 {
            break;
        }
    }
    child.kill().expect("it runs");
    child.wait().expect("its status");
    let warnings = said.matches("the flight recorder cannot write to").count();
    assert_eq!(warnings, 1, "{said}");
    assert!(said.contains("in [daemon.recorder]"), "{said}");
    said
}

#[test]
fn a_folder_that_cannot_be_written_is_said_once_and_harms_nothing_else() {
    // In the place of the folder: as good as a read-only disk, also for root.
    said_by_one_that_cannot_record(|state| std::fs::write(state, "in the way").expect("written"));
}

#[test]
fn a_full_disk_is_said_once_and_harms_nothing_else() {
    let said = said_by_one_that_cannot_record(|state| {
        let folder = state.join("recorder");
        std::fs::create_dir_all(&folder).expect("made");
        let segment = folder.join("0000000001.rec");
        std::os::unix::fs::symlink("/dev/full", segment).expect("linked");
    });
    assert!(said.contains("No space left on device"), "{said}");
}

/// The files of a bundle by name.
fn unpacked(bundle: &Path) -> BTreeMap<String, String> {
    let file = std::fs::File::open(bundle).expect("a bundle");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let entries = archive.entries().expect("a tar");
    let file = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        let name = path.strip_prefix("onair-bundle/").expect("in one folder");
        (name.to_owned(), text)
    };
    entries.map(file).collect()
}

#[test]
fn a_bundle_needs_no_daemon_and_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let config = configuration(folder);
    let output = folder.join("bundle.tar.gz");
    let (config, target) = (config.display().to_string(), output.display().to_string());
    let ran = onair(&["bundle", "--config", &config, "--output", &target]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert!(text(&ran.stdout).starts_with(&target));
    let files = unpacked(&output);
    for name in [
        "MANIFEST",
        "build.json",
        "config-check.txt",
        "config.toml",
        "network.json",
        "recorder.jsonl",
        "system.json",
        "time.json",
    ] {
        assert!(files.contains_key(name), "{name}: {:?}", files.keys());
    }
    assert_eq!(files["config-check.txt"], "no faults\n");
    assert!(files["config.toml"].contains("url = \"ws://127.0.0.1:1/***\""));
    let manifest = &files["MANIFEST"];
    assert!(manifest.contains("- config.toml ("), "{manifest}");
    assert!(manifest.contains("nothing was recorded in"), "{manifest}");
    for (name, text) in &files {
        assert!(!text.contains("planted"), "{name} holds a stream's name");
    }
    // What is there is not overwritten.
    let again = onair(&["bundle", "--config", &config, "--output", &target]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is it there already?"));
}

#[test]
fn a_bundle_for_which_there_is_no_room_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = configuration(folder.path());
    let output = folder.path().join("bundle.tar.gz");
    // No file may be longer than half a kilobyte, as if the disk were full then.
    let ran = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_onair"))
        .args(["bundle", "--config"])
        .arg(&config)
        .arg("--output")
        .arg(&output)
        .output()
        .expect("sh runs");
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran.stderr));
    let said = text(&ran.stderr);
    assert!(said.contains("give an --output elsewhere"), "{said}");
    let left = std::fs::read_dir(folder.path()).expect("a folder");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(left, [config]);
}

#[test]
fn a_bundle_is_made_of_a_broken_configuration_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("onair.toml");
    for (n, (broken, left_out)) in [
        ("url = \"planted", "it is no TOML"),
        (
            "[publisher.p]\nurl = \"ws://h/app/planted\"\nulr = 1\n",
            "secrets: ",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(&config, broken).expect("written");
        let output = folder.path().join(format!("{n}.tar.gz"));
        let ran = Command::new(env!("CARGO_BIN_EXE_onair"))
            .args(["bundle", "--config"])
            .arg(&config)
            .arg("--output")
            .arg(&output)
            .output()
            .expect("the built binary runs");
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        let files = unpacked(&output);
        assert!(
            files["MANIFEST"].contains(left_out),
            "{}",
            files["MANIFEST"]
        );
        assert!(files["config-check.txt"].contains("onair.toml:"));
        for (name, text) in &files {
            assert!(!text.contains("planted"), "{name}: {text}");
        }
    }
    std::fs::remove_file(&config).expect("it was there");
    let output = folder.path().join("none.tar.gz").display().to_string();
    let config = config.display().to_string();
    let ran = onair(&["bundle", "--config", &config, "--output", &output]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let nowhere = onair(&[
        "bundle",
        "--config",
        &config,
        "--output",
        "/no/such/folder/x",
    ]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("give an --output elsewhere"));
}
