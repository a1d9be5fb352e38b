//! Rules of the source tree: who may import what, one door per crate, purity, and the form of files.

use std::fs;
use std::path::{Path, PathBuf};

/// Which of our modules each module may import. A module that is not named here may not exist.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("account", &["config", "net", "platform"]),
    ("capture", &["config", "media"]),
    ("cli", &["config"]),
    ("config", &[]),
    (
        "daemon",
        &["config", "feed", "health", "publisher", "supervisor"],
    ),
    ("encode", &["capture", "config", "media"]),
    ("feed", &["capture", "config", "encode", "media"]),
    ("health", &["feed", "publisher", "session", "supervisor"]),
    ("lab", &["config", "media", "report"]),
    ("media", &["config"]),
    ("net", &["config"]),
    ("peer", &["config", "feed", "media", "net", "network"]),
    (
        "publisher",
        &[
            "account", "config", "feed", "media", "net", "network", "peer", "platform", "report",
            "session", "signal",
        ],
    ),
    ("network", &[]),
    ("platform", &["config", "net"]),
    ("probe", &["config", "net", "peer", "signal"]),
    ("process", &["report"]),
    (
        "recorder",
        &[
            "config",
            "feed",
            "peer",
            "process",
            "publisher",
            "supervisor",
            "telemetry",
        ],
    ),
    ("report", &[]),
    (
        "session",
        &[
            "config", "feed", "media", "net", "network", "peer", "platform", "signal",
        ],
    ),
    ("signal", &["config", "media", "net"]),
    (
        "status",
        &[
            "config",
            "daemon",
            "feed",
            "health",
            "peer",
            "process",
            "publisher",
            "supervisor",
        ],
    ),
    (
        "supervisor",
        &[
            "account",
            "config",
            "feed",
            "media",
            "net",
            "network",
            "publisher",
        ],
    ),
    ("telemetry", &["cli"]),
];

/// Modules that may import anything; nothing but the program itself imports them.
const TOP: &[&str] = &["commands", "fuzz", "lib", "main"];

/// The only places where a crate may be named.
const DOORS: &[(&str, &[&str])] = &[
    ("alsa", &["capture/microphone"]),
    ("anyhow", &["commands/", "main.rs"]),
    ("axum", &["lab/", "status/"]),
    ("base64", &["config/pin.rs", "lab/rest"]),
    ("clap", &["cli.rs", "main.rs"]),
    ("clap_complete", &["commands/generate.rs"]),
    ("clap_mangen", &["commands/generate.rs"]),
    ("cpal", &["capture/microphone"]),
    ("fast_image_resize", &["media/convert.rs"]),
    ("font8x8", &["capture/draw.rs"]),
    ("hound", &["capture/file/read.rs"]),
    ("flate2", &["commands/bundle", "recorder/frame.rs"]),
    (
        "humantime",
        &["commands/", "lab/rest", "net/tls.rs", "recorder/"],
    ),
    ("jiff", &["account/", "config/", "publisher/"]),
    ("http_body_util", &["lab/", "net/http.rs"]),
    ("httpdate", &["net/http.rs"]),
    ("hyper", &["lab/", "net/", "status/"]),
    ("hyper_util", &["lab/", "net/", "status/"]),
    ("libc", &["capture/camera"]),
    ("nokhwa", &["capture/camera"]),
    (
        "openh264",
        &["encode/h264", "lab/decode", "status/picture.rs"],
    ),
    ("openh264_sys2", &["encode/h264"]),
    ("opus", &["encode/", "lab/decode"]),
    ("procfs", &["process.rs"]),
    ("prometheus_client", &["status/metrics.rs"]),
    ("rcgen", &["lab/tls.rs"]),
    ("rtc", &["peer/"]),
    ("rtnetlink", &["network/"]),
    ("rubato", &["capture/microphone"]),
    (
        "rustix",
        &["account/file.rs", "capture/camera", "capture/usb.rs"],
    ),
    ("rustls", &["lab/tls.rs", "net/"]),
    ("rustls_native_certs", &["net/tls.rs"]),
    ("sd_notify", &["daemon/notify.rs"]),
    ("secrecy", &["config/secret.rs"]),
    ("socket2", &["lab/framing.rs", "net/tcp.rs"]),
    ("str0m", &["lab/"]),
    ("strsim", &["config/"]),
    ("stun_types", &["lab/turn"]),
    ("tar", &["commands/bundle"]),
    ("tokio_rustls", &["lab/tls.rs", "net/tls.rs"]),
    ("tokio_tungstenite", &["lab/", "net/"]),
    ("toml", &["config/"]),
    ("tracing_subscriber", &["telemetry"]),
    ("turn_server_proto", &["lab/turn"]),
    ("turn_types", &["lab/turn"]),
    (
        "url",
        &[
            "commands/check.rs",
            "config/raw",
            "config/redact.rs",
            "net/",
        ],
    ),
    ("webpki_roots", &["net/tls.rs"]),
    ("v4l", &["capture/camera"]),
    ("webrtc", &["peer/"]),
    ("y4m", &["capture/file/read.rs"]),
    ("yuv", &["media/convert.rs"]),
    ("zune_jpeg", &["media/convert.rs"]),
];

/// Files and folders that are told the time and touch nothing outside themselves.
const PURE: &[&str] = &[
    "account/hours.rs",
    "account/ledger.rs",
    "capture/drift.rs",
    "capture/draw.rs",
    "capture/file/read.rs",
    "capture/microphone/align.rs",
    "config/ice_server.rs",
    "config/mod.rs",
    "config/pin.rs",
    "config/platform.rs",
    "config/raw.rs",
    "config/raw/",
    "config/redact.rs",
    "config/schedule.rs",
    "config/secret.rs",
    "config/units.rs",
    "daemon/announce.rs",
    "daemon/escalation.rs",
    "daemon/pressure.rs",
    "encode/",
    "feed/budget.rs",
    "feed/condition.rs",
    "feed/limit.rs",
    "feed/thin.rs",
    "feed/track.rs",
    "feed/watch.rs",
    "health.rs",
    "lab/answer.rs",
    "lab/beep.rs",
    "lab/depacketize.rs",
    "lab/judge.rs",
    "lab/offer.rs",
    "lab/paths.rs",
    "lab/profile.rs",
    "lab/reception.rs",
    "lab/rest/account.rs",
    "lab/rest/billing.rs",
    "lab/rest/qencode.rs",
    "lab/rest/qencode/",
    "lab/rest/wowza.rs",
    "lab/rest/wowza/",
    "lab/sdp.rs",
    "lab/sync.rs",
    "lab/tally.rs",
    "lab/turn/faults.rs",
    "lab/turn/words.rs",
    "lab/whip/place.rs",
    "lab/whip/sdpfrag.rs",
    "media/",
    "network/bursts.rs",
    "network/tables.rs",
    "peer/candidate.rs",
    "peer/counters.rs",
    "peer/feedback.rs",
    "peer/ladder.rs",
    "peer/packetizer.rs",
    "peer/race.rs",
    "peer/reports.rs",
    "peer/retransmit.rs",
    "peer/sdp.rs",
    "peer/turn/allocation.rs",
    "peer/turn/frames.rs",
    "platform/bucket.rs",
    "platform/error.rs",
    "platform/qencode/words.rs",
    "platform/wowza_video/words.rs",
    "publisher/backoff.rs",
    "publisher/cause.rs",
    "publisher/lifecycle.rs",
    "publisher/policy.rs",
    "publisher/policy/",
    "recorder/account.rs",
    "recorder/frame.rs",
    "recorder/scrub.rs",
    "report.rs",
    "session/acceptance.rs",
    "session/gate.rs",
    "session/ground.rs",
    "session/outage.rs",
    "session/rate.rs",
    "signal/candidate.rs",
    "signal/sdp.rs",
    "signal/whip/link.rs",
    "signal/whip/redirect.rs",
    "signal/whip/reply.rs",
    "signal/whip/sdpfrag.rs",
    "signal/wowza/choice.rs",
    "signal/wowza_v2/liveness.rs",
    "signal/wowza_v2/message.rs",
    "status/counts.rs",
    "status/guard.rs",
    "status/history.rs",
    "status/metrics.rs",
    "status/reading.rs",
    "supervisor/plan.rs",
];

/// What a pure file does not name. A generator of chance may be handed in, but not made or drawn from nowhere.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Rng::new(",
    "fastrand::bool",
    "fastrand::u",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "tokio::",
];

/// Where the wall clock may be read: once at the start, and where people, bills or other machines go by it. Nothing
/// else can be harmed by a step of it.
const WALL: &[&str] = &["account/", "commands/mod.rs", "lab/", "recorder/"];

/// The ways to read it.
const READS_WALL: &[&str] = &[
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "ClockId::Realtime",
];

/// Longest file, in lines.
const MAX_LINES: usize = 800;

/// A Rust file under `src`.
struct Source {
    /// Its path from `src`, such as `config/raw.rs`.
    path: String,
    /// All of it.
    text: String,
    /// What ships: no comments, no tests.
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &Path, wanted: &impl Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if !wanted(&path) {
            continue;
        }
        if path.is_dir() {
            files_under(&path, wanted, found);
        } else {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    let rust = |path: &Path| path.is_dir() || path.extension().is_some_and(|e| e == "rs");
    files_under(&src, &rust, &mut paths);
    assert!(paths.len() > 10, "the sources were not found");
    paths.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable file");
        let path = path
            .strip_prefix(&src)
            .expect("under src")
            .display()
            .to_string();
        let only_tests = ["/tests.rs", "/testing.rs", "/tests/"]
            .iter()
            .any(|part| path.contains(part));
        // What is for tests stands last in a file.
        let tests = text.find("\n#[cfg(test)]\nmod tests {");
        let shipped = match tests {
            _ if only_tests => "",
            Some(at) => &text[..at],
            None => &text,
        };
        let lines = shipped
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        Source { path, text, code }
    };
    paths.into_iter().map(source).collect()
}

/// Whether `code` holds `name` followed by `::`, and not as a part of a longer path or word.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
    })
}

/// The modules that follow `crate::`, alone or in braces.
fn imported(code: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut modules = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.push(word(rest));
            continue;
        };
        let mut depth = 0_u32;
        let mut expected = true;
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => expected = true,
                c if expected && depth == 0 && c.is_ascii_alphabetic() => {
                    modules.push(word(&group[at..]));
                    expected = false;
                }
                _ => {}
            }
        }
    }
    modules
}

#[test]
fn imports_go_down_the_road_only() {
    let mut broken = Vec::new();
    for source in sources() {
        let module = source.module();
        if TOP.contains(&module) {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            broken.push(format!("{}: no rule for the module {module}", source.path));
            continue;
        };
        for import in imported(&source.code) {
            if import != module && !allowed.contains(&import.as_str()) {
                broken.push(format!(
                    "{}: imports {import}; {module} may import {allowed:?}",
                    source.path
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_crate_has_one_door() {
    let mut broken = Vec::new();
    for source in sources() {
        for (name, doors) in DOORS {
            let allowed = doors.iter().any(|door| source.path.starts_with(door));
            if !allowed && names_crate(&source.code, name) {
                broken.push(format!(
                    "{}: names {name}, whose doors are {doors:?}",
                    source.path
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn pure_files_are_pure() {
    let sources = sources();
    let mut broken = Vec::new();
    for rule in PURE {
        let mut n_files = 0;
        for source in sources.iter().filter(|s| s.path.starts_with(rule)) {
            n_files += 1;
            for impure in IMPURE
                .iter()
                .filter(|impure| source.code.contains(**impure))
            {
                broken.push(format!("{}: is pure and names {impure}", source.path));
            }
        }
        if n_files == 0 {
            broken.push(format!("{rule}: there is no such file; mend the list"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_wall_clock_is_read_in_few_places() {
    let mut n_reads = 0;
    for source in sources() {
        let allowed = WALL.iter().any(|place| source.path.starts_with(place));
        for read in READS_WALL {
            let reads = source.code.contains(read);
            n_reads += u32::from(reads);
            assert!(!reads || allowed, "{}: names {read}", source.path);
        }
    }
    assert!(n_reads > 0, "the readings were not found");
}

#[test]
fn each_file_says_its_purpose_and_is_of_readable_length() {
    let mut broken = Vec::new();
    for source in sources() {
        let only_tests = source.code.is_empty();
        if !only_tests && !source.text.starts_with("//! ") {
            broken.push(format!("{}: does not open with its purpose", source.path));
        }
        let n_lines = source.text.lines().count();
        if n_lines > MAX_LINES {
            broken.push(format!("{}: has {n_lines} lines", source.path));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What is true on one machine only has no place in the tree.
#[test]
fn no_file_names_a_path_of_the_machine_that_it_was_written_on() {
    let place = root().display().to_string();
    let mut places = vec![place.clone()];
    // The folder above too, unless it is as common a word as `/src`.
    if let Some(parent) = root().parent().filter(|p| p.components().count() > 2) {
        places.push(format!("{}/", parent.display()));
    }
    let skipped = ["target", "node_modules", ".git", "out", "artifacts"];
    let wanted = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| !skipped.contains(&name))
    };
    let mut files = Vec::new();
    files_under(root(), &wanted, &mut files);
    let mut n_read = 0;
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        n_read += 1;
        for place in &places {
            assert!(!text.contains(place), "{} names {place}", path.display());
        }
    }
    assert!(n_read > 20, "the tree was not found");
}

#[test]
fn the_rules_notice_what_they_forbid() {
    assert_eq!(
        imported("use crate::media::time;\nuse crate::{feed::{Feed, crate_x}, peer};"),
        ["media", "feed", "peer"]
    );
    assert!(imported("$crate::media").is_empty());
    assert!(names_crate("use opus::Encoder;", "opus"));
    assert!(names_crate("(opus::Encoder)", "opus"));
    assert!(!names_crate("encode::opus::Opus", "opus"));
    assert!(!names_crate("my_opus::Opus", "opus"));
}
