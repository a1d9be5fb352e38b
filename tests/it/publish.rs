//! One publisher to each profile over loopback: accepted, decoded, judged.

use onair::lab::Profile;

use crate::support::{Pair, SOON};

async fn publishes(profile: Profile, transport: &str) {
    let pair = Pair::start(profile, |_| {}).await;
    pair.until("on air", |p| p.is_on_air()).await;
    pair.until_decoded(60).await;
    let (lab, agent) = pair.end().await;
    assert_eq!(lab.violations, [], "{lab:#?}");
    assert_eq!(lab.transport.as_deref(), Some(transport));
    assert_eq!(lab.reconnects, 0);
    let (sent, decoded) = (
        agent.frames_sent(),
        lab.video.frames_decoded.expect("counted"),
    );
    assert!(
        decoded * 100 >= sent * 97,
        "{decoded} of {sent} pictures were decoded"
    );
    let offset = lab
        .av_offset_ms
        .expect("beeps were heard and clocks were read");
    assert!(offset.p95 <= 40.0, "{offset:?}");
    assert!(agent.time_to_on_air.is_some_and(|took| took < SOON));
    assert_eq!(agent.end_reason.as_deref(), Some("stopped"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_wowza_cloud_over_tcp() {
    publishes(Profile::WowzaCloud, "tcp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_wowza_streaming_engine_over_udp() {
    publishes(Profile::WowzaSe, "udp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_wowza_in_its_newer_dialect_over_udp() {
    publishes(Profile::WowzaV2, "udp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_ovenmediaengine_over_udp() {
    publishes(Profile::Ome021, "udp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_qencode_over_tcp() {
    publishes(Profile::Qencode, "tcp").await;
}
