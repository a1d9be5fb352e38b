//! What Wowza Video shows of a stream: all of it, a line in a list, and what arrives.
//!
//! Pure.

use serde_json::Value;
use serde_json::json;

use super::Stream;

/// The full object. Publishers connect to `sdp_url`.
pub(super) fn shown(sdp_url: &str, id: &str, stream: &Stream) -> Value {
    let mut object = stream.settings.fields();
    let source = if stream.is_webrtc() {
        json!({
            "sdp_url": sdp_url,
            "application_name": stream.application,
            "stream_name": stream.name,
        })
    } else {
        json!({
            "primary_server": format!("rtmp://{id}.entrypoint.video.wowza.com/{}", stream.application),
            "host_port": 1935,
            "stream_name": stream.name,
            "disable_authentication": true,
            "username": null,
            "password": null,
        })
    };
    let playback = |name: &str, suffix: &str| {
        json!({
            "name": name,
            "url": sdp_url,
            "application_name": stream.application,
            "stream_name": format!("{}{suffix}", stream.name),
        })
    };
    for (field, value) in [
        ("id", json!(id)),
        ("state", json!(stream.life.state())),
        ("source_connection_information", source),
        ("playback_stream_name", json!(format!("{id}_playback"))),
        (
            "hls_playback_url",
            json!(format!(
                "https://cdn.video.wowza.com/1/{id}/hls/live/playlist.m3u8"
            )),
        ),
        (
            "direct_playback_urls",
            json!({"webrtc": [playback("source", ""), playback("webrtc", "_stream1")]}),
        ),
        ("created_at", json!(stream.created_at)),
        ("updated_at", json!(stream.updated_at)),
    ] {
        object.insert(field.to_owned(), value);
    }
    json!({ "live_stream": object })
}

/// What a list shows of a stream.
pub(super) fn brief(id: &str, stream: &Stream) -> Value {
    json!({
        "id": id,
        "name": stream.settings.text("name"),
        "state": stream.life.state(),
        "created_at": stream.created_at,
        "updated_at": stream.updated_at,
    })
}

/// What arrives, metric by metric.
pub(super) fn analytics(id: &str, stream: &Stream) -> Value {
    let metric = |status: &str, units: &str, value: Value| json!({"status": status, "text": "", "units": units, "value": value});
    let input = stream.input.filter(|_| stream.life.is_started());
    let known = |units: &str, value: Option<Value>| match value {
        Some(value) => metric("normal", units, value),
        None => metric("no_data", units, json!("")),
    };
    let size = input.and_then(|input| input.size);
    let bits = input.map(|input| input.bitrate_bps);
    let connected = match (stream.life.is_started(), input.is_some()) {
        (true, true) => metric("normal", "", json!("Yes")),
        (true, false) => metric("warning", "", json!("No")),
        (false, _) => metric("no_data", "", json!("")),
    };
    json!({ "live_stream": {
        "id": id,
        "connected": connected,
        "audio_codec": known("", input.map(|_| json!("opus"))),
        "video_codec": known("", size.map(|_| json!("h264"))),
        "bits_in_rate": known("Kbps", bits.map(|bits| json!(bits / 1_000))),
        "bytes_in_rate": known("bps", bits.map(|bits| json!(bits / 8))),
        "frame_size": known("", size.map(|(width, height)| json!(format!("{width}x{height}")))),
        "frame_rate": known("FPS", input.map(|input| json!(input.fps.round()))),
        "width": known("px", size.map(|(width, _)| json!(width))),
        "height": known("px", size.map(|(_, height)| json!(height))),
        "keyframe_interval": known("GOP", None),
        "stream_target_status": [],
    }})
}
