//! The committed fuzz corpus, replayed on every run of the tests: what once broke a parser stays mended.

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use onair::fuzz;

/// Runs `target` on each file of its corpus; the folder must hold at least `least` files.
fn replay(name: &str, target: fn(&[u8]), least: usize) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    files.sort();
    assert!(
        files.len() >= least,
        "{name} has only {} files",
        files.len()
    );
    for file in files {
        let data = fs::read(&file).expect("a readable seed");
        if catch_unwind(|| target(&data)).is_err() {
            panic!("{name}: broken by {}", file.display());
        }
    }
}

#[test]
fn annex_b() {
    replay("annex_b", fuzz::annex_b, 8);
}

#[test]
fn candidate() {
    replay("candidate", fuzz::candidate, 12);
}

#[test]
fn config() {
    replay("config", fuzz::config, 8);
}

#[test]
fn link_header() {
    replay("link_header", fuzz::link_header, 8);
}

#[test]
fn ome_message() {
    replay("ome_message", fuzz::ome_message, 15);
}

#[test]
fn recorder() {
    replay("recorder", fuzz::recorder, 10);
}

#[test]
fn sdp() {
    replay("sdp", fuzz::sdp, 15);
}

#[test]
fn sdpfrag() {
    replay("sdpfrag", fuzz::sdpfrag, 8);
}

#[test]
fn turn() {
    replay("turn", fuzz::turn, 7);
}

#[test]
fn wav() {
    replay("wav", fuzz::wav, 8);
}

#[test]
fn whip_reply() {
    replay("whip_reply", fuzz::whip_reply, 12);
}

#[test]
fn wowza_message() {
    replay("wowza_message", fuzz::wowza_message, 12);
}

#[test]
fn wowza_v2_message() {
    replay("wowza_v2_message", fuzz::wowza_v2_message, 25);
}

#[test]
fn y4m() {
    replay("y4m", fuzz::y4m, 8);
}

/// Every target has its replay above and a seed or more of its own.
#[test]
fn no_target_is_forgotten() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(root.join(folder))
            .expect("a readable folder")
            .map(|entry| {
                let path = entry.expect("a readable entry").path();
                let stem = path.file_stem().expect("a name");
                stem.to_string_lossy().into_owned()
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("targets"), names("corpus"));
    assert_eq!(
        names("targets"),
        [
            "annex_b",
            "candidate",
            "config",
            "link_header",
            "ome_message",
            "recorder",
            "sdp",
            "sdpfrag",
            "turn",
            "wav",
            "whip_reply",
            "wowza_message",
            "wowza_v2_message",
            "y4m"
        ]
    );
}
