//! `onair stream`, as a person uses it at both vendors' interfaces in a lab.

use std::path::Path;

use crate::platform::{KEY, TOKEN, World};

/// Runs `onair stream` with these arguments; its exit code and what it printed.
async fn stream(config: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_onair"));
    command.arg("stream").args(args).arg("--config").arg(config);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output
        .await
        .expect("no panic")
        .expect("the built binary runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("onair prints UTF-8");
    assert!(!said.contains("planted"), "{args:?}: {said}");
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_looks_after_the_streams_of_both_vendors() {
    let world = World::new(|_| {}).await;
    let url = |vendor| world.lab.rest(vendor).expect("control planes");
    let (wowza, qencode) = (
        url(onair::lab::Vendor::Wowza),
        url(onair::lab::Vendor::Qencode),
    );
    let path = world.state.path().join("onair.toml");
    let text = format!(
        r#"[feed.a]
video = {{ source = "testcard" }}
[publisher.wowza-video]
feed = "a"
to = "wowza-video"
token = "{TOKEN}"
stream_name = "desk"
create = {{ broadcast_location = "eu_germany" }}
api = "{wowza}"
[publisher.qencode]
feed = "a"
to = "qencode"
api_key = "{KEY}"
stream_name = "desk"
api = "{qencode}"
"#
    );
    std::fs::write(&path, text).expect("written");
    let (code, said) = stream(&path, &["list"]).await;
    assert!(
        code == Some(1) && said.contains("name one of them"),
        "{said}"
    );
    for vendor in ["wowza-video", "qencode"] {
        let run = async |action: &str, more: &[&str]| {
            let (code, said) = stream(&path, &[&[action, vendor], more].concat()).await;
            assert_eq!(code, Some(0), "{vendor} {action}: {said}");
            said
        };
        let listed = run("list", &[]).await;
        assert!(
            listed.contains("front") && listed.contains("stopped"),
            "{listed}"
        );
        let (code, said) = stream(&path, &["status", vendor]).await;
        assert!(code == Some(1) && said.contains("has no stream"), "{said}");
        run("create", &["--json"]).await;
        let (code, said) = stream(&path, &["create", vendor]).await;
        assert!(
            code == Some(1) && said.contains("there is a stream \"desk\" already"),
            "{said}"
        );
        let other = run("status", &["--name", "front"]).await;
        assert!(
            other.contains("front") && !other.contains("desk"),
            "{other}"
        );
        let started = run("start", &["--json"]).await;
        assert!(started.contains("\"takes_media\": true"), "{started}");
        assert!(
            started.contains("\"server\": \"ws://127.0.0.1"),
            "{started}"
        );
        assert!(run("status", &[]).await.contains("ready"));
        let (code, said) = stream(&path, &["delete", vendor, "--yes"]).await;
        assert!(code == Some(1) && said.contains("stop it first"), "{said}");
        run("stop", &[]).await;
        run("stop", &[]).await;
        world.rests().await;
        let (code, said) = stream(&path, &["delete", vendor]).await;
        assert!(code == Some(1) && said.contains("--yes"), "{said}");
        run("delete", &["--yes"]).await;
        let listed = run("list", &["--json"]).await;
        assert!(!listed.contains("desk"), "{listed}");
    }
}
