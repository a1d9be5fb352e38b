//! Answers to a publisher's offer: of a server that keeps to RFC 9725, of OvenMediaEngine's WHIP (line for line after
//! a recorded one) and of Wowza's second dialect.
//!
//! Pure; shares nothing with the agent's own reading and writing.

use std::net::SocketAddr;

use crate::media::access_unit::Track;

use super::faults::RefusedVideo;
use super::offer::payload_type;
use super::sdp::Description;
use super::sdp::Engine;
use super::sdp::Media;
use super::sdp::line;

/// Codecs that OvenMediaEngine keeps.
const OME_CODECS: [&str; 5] = ["av1", "h264", "h265", "opus", "vp8"];
/// Header extensions that OvenMediaEngine keeps where it sends nothing again.
const OME_EXTENSIONS: [&str; 5] = [
    "transport-wide-cc-extensions",
    "sdes:mid",
    "sdes:rtp-stream-id",
    "video:CompositionTime",
    "dependency-descriptor",
];
/// Feedback that OvenMediaEngine keeps, in its order.
const OME_FEEDBACK: [&str; 3] = ["transport-cc", "ccm fir", "nack pli"];
/// Feedback that the other servers keep.
const FEEDBACK: [&str; 4] = ["transport-cc", "ccm fir", "nack", "nack pli"];

/// What an answer says besides what it takes from the offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) engine: &'a Engine,
    pub(super) session: u32,
    /// As after `a=`, complete.
    pub(super) candidates: &'a [String],
    /// The engine only answers checks.
    pub(super) lite: bool,
    /// How video is refused, if it is.
    pub(super) refused: Option<RefusedVideo>,
}

/// Candidates of the two sockets, as after `a=`.
pub(super) fn candidates(udp: Option<SocketAddr>, tcp: Option<SocketAddr>) -> Vec<String> {
    let host = |foundation, protocol, priority, at: SocketAddr| {
        let (ip, port) = (at.ip(), at.port());
        format!("candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host")
    };
    let udp = udp.map(|at| host(1, "udp", 2_130_706_431, at));
    let tcp = tcp.map(|at| host(2, "tcp", 1_671_430_143, at) + " tcptype passive");
    udp.into_iter().chain(tcp).collect()
}

/// The same as OvenMediaEngine writes them; `foundations` are of up to twenty digits.
pub(super) fn ome_candidates(
    udp: Option<SocketAddr>,
    tcp: Option<SocketAddr>,
    foundations: (u64, u64),
) -> Vec<String> {
    let host = |foundation, protocol, priority, at: SocketAddr| {
        let (ip, port) = (at.ip(), at.port());
        format!("candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host")
    };
    let tcp = tcp.map(|at| host(foundations.0, "TCP", 1_275_068_415, at) + " tcptype passive");
    let udp = udp.map(|at| host(foundations.1, "UDP", 2_130_706_431, at));
    tcp.into_iter().chain(udp).collect()
}

/// The answer of a server that takes one codec of each kind: RFC 9725's, and Wowza's second dialect's.
pub(super) fn plain(offer: &Description, owner: &str, facts: Facts<'_>) -> String {
    let kept =
        |media: &&Media| media.kind != "video" || facts.refused != Some(RefusedVideo::Missing);
    let media: Vec<&Media> = offer.media.iter().filter(kept).collect();
    let refused = |media: &Media| match facts.refused {
        Some(how) if media.kind == "video" => Some(how),
        _ if chosen(media).is_none() => Some(RefusedVideo::PortZero),
        _ => None,
    };
    let bundled: Vec<&str> = media
        .iter()
        .filter(|media| refused(media) != Some(RefusedVideo::PortZero))
        .filter_map(|media| media.value("mid"))
        .collect();
    let mut sdp = format!(
        "v=0\r\no={owner} {} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n",
        facts.session,
        bundled.join(" ")
    );
    if facts.lite {
        line(&mut sdp, "a=ice-lite");
    }
    line(&mut sdp, "a=ice-options:trickle");
    line(&mut sdp, "a=msid-semantic:WMS *");
    for media in media {
        plain_section(&mut sdp, media, refused(media), facts);
    }
    sdp
}

fn chosen(media: &Media) -> Option<u8> {
    match media.kind.as_str() {
        "audio" => payload_type(media, Track::Audio),
        "video" => payload_type(media, Track::Video),
        _ => None,
    }
}

fn plain_section(sdp: &mut String, media: &Media, refused: Option<RefusedVideo>, facts: Facts<'_>) {
    let (kind, mid) = (&media.kind, media.value("mid").unwrap_or_default());
    let payload_type = chosen(media).unwrap_or_default();
    let port = match refused {
        Some(RefusedVideo::PortZero) => 0,
        Some(_) | None => 9,
    };
    line(
        sdp,
        &format!("m={kind} {port} UDP/TLS/RTP/SAVPF {payload_type}"),
    );
    line(sdp, "c=IN IP4 0.0.0.0");
    line(sdp, &format!("a=mid:{mid}"));
    if refused.is_some() {
        line(sdp, "a=inactive");
    } else {
        line(sdp, "a=recvonly");
    }
    if refused == Some(RefusedVideo::PortZero) {
        return;
    }
    credentials(sdp, facts);
    line(sdp, "a=setup:passive");
    line(sdp, "a=rtcp-mux");
    for extension in media.values("extmap") {
        if extension.contains("transport-wide-cc-extensions") {
            line(sdp, &format!("a=extmap:{extension}"));
        }
    }
    format(sdp, media, payload_type, &FEEDBACK);
    for candidate in facts.candidates {
        line(sdp, &format!("a={candidate}"));
    }
}

fn credentials(sdp: &mut String, facts: Facts<'_>) {
    if let Some(fingerprint) = &facts.engine.fingerprint {
        line(sdp, &format!("a=fingerprint:{fingerprint}"));
    }
    line(sdp, &format!("a=ice-ufrag:{}", facts.engine.ufrag));
    line(sdp, &format!("a=ice-pwd:{}", facts.engine.pwd));
}

/// A payload type as it was offered, with what of its feedback is kept.
fn format(sdp: &mut String, media: &Media, payload_type: u8, feedback: &[&str]) {
    let prefix = format!("{payload_type} ");
    for map in media.values("rtpmap").filter(|v| v.starts_with(&prefix)) {
        line(sdp, &format!("a=rtpmap:{map}"));
    }
    for parameters in media.values("fmtp").filter(|v| v.starts_with(&prefix)) {
        line(sdp, &format!("a=fmtp:{parameters}"));
    }
    for kept in feedback {
        let offered = media.values("rtcp-fb").any(|v| {
            let (of, what) = v.split_once(' ').unwrap_or_default();
            (of == "*" || of == prefix.trim_end()) && what == *kept
        });
        if offered {
            line(sdp, &format!("a=rtcp-fb:{payload_type} {kept}"));
        }
    }
}

/// The answer with the end of its candidates marked in each section, as RFC 9725 has it.
pub(super) fn complete(answer: &str) -> String {
    let mut marked = String::with_capacity(answer.len() + 64);
    let mut lines = answer.split_inclusive("\r\n").peekable();
    while let Some(text) = lines.next() {
        marked.push_str(text);
        let more = lines
            .peek()
            .is_some_and(|next| next.starts_with("a=candidate:"));
        if text.starts_with("a=candidate:") && !more {
            line(&mut marked, "a=end-of-candidates");
        }
    }
    marked
}

/// OvenMediaEngine's answer by WHIP: everything it knows of what was offered, in the order of the offer.
pub(super) fn ome(offer: &Description, facts: Facts<'_>) -> String {
    let mids: Vec<&str> = offer.media.iter().filter_map(|m| m.value("mid")).collect();
    let mids = mids.join(" ");
    let mut sdp = format!(
        "v=0\r\no=OvenMediaEngine {} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\na=group:LS {mids}\r\n\
         a=extmap-allow-mixed\r\n",
        facts.session
    );
    for media in &offer.media {
        let known = |pt: &u8| {
            let name = media.codec_name(*pt);
            name.is_some_and(|name| OME_CODECS.contains(&name.as_str()))
        };
        let types: Vec<u8> = media
            .payload_types()
            .iter()
            .copied()
            .filter(known)
            .collect();
        let list: Vec<String> = types.iter().map(u8::to_string).collect();
        line(
            &mut sdp,
            &format!("m={} 9 UDP/TLS/RTP/SAVPF {}", media.kind, list.join(" ")),
        );
        line(&mut sdp, "c=IN IP4 0.0.0.0");
        line(&mut sdp, "a=recvonly");
        if let Some(mid) = media.value("mid") {
            line(&mut sdp, &format!("a=mid:{mid}"));
        }
        line(&mut sdp, "a=setup:passive");
        credentials(&mut sdp, facts);
        for candidate in facts.candidates {
            line(&mut sdp, &format!("a={candidate}"));
        }
        line(&mut sdp, "a=end-of-candidates");
        line(&mut sdp, "a=rtcp-mux");
        for extension in media.values("extmap") {
            if OME_EXTENSIONS.iter().any(|uri| extension.contains(uri)) {
                line(&mut sdp, &format!("a=extmap:{extension}"));
            }
        }
        for payload_type in types {
            format(&mut sdp, media, payload_type, &OME_FEEDBACK);
        }
        // Where there is a group of them, it names none.
        let named = media.values("ssrc").find(|v| v.contains(" cname:"));
        if media.value("ssrc-group").is_none()
            && let Some(named) = named
        {
            line(&mut sdp, &format!("a=ssrc:{named}"));
        }
    }
    sdp
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\ns=-\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:0\r\na=sendonly\r\n\
        a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=rtpmap:0 PCMU/8000\r\na=ssrc:7 cname:c\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 108 109\r\na=mid:1\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtpmap:108 H264/90000\r\na=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\na=rtcp-fb:108 nack\r\n\
        a=rtcp-fb:108 nack pli\r\na=rtcp-fb:108 goog-remb\r\na=rtpmap:109 rtx/90000\r\na=fmtp:109 apt=108\r\n";

    fn answer(refused: Option<RefusedVideo>) -> String {
        let engine = Engine {
            ufrag: "ufra".to_owned(),
            pwd: "pwd".to_owned(),
            fingerprint: Some("sha-256 5E:6C".to_owned()),
        };
        let at = SocketAddr::from(([127, 0, 0, 1], 9));
        let facts = Facts {
            engine: &engine,
            session: 1,
            candidates: &candidates(Some(at), Some(at)),
            lite: true,
            refused,
        };
        let offer = Description::parse(OFFER).expect("an offer");
        complete(&plain(&offer, "lab", facts))
    }

    #[test]
    fn one_codec_of_each_kind_is_taken_with_the_feedback_that_is_known() {
        let answer = answer(None);
        assert!(answer.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"));
        assert!(answer.contains("m=video 9 UDP/TLS/RTP/SAVPF 108\r\n"));
        assert!(answer.contains("a=rtcp-fb:108 nack\r\na=rtcp-fb:108 nack pli\r\n"));
        assert!(!answer.contains("remb") && !answer.contains("rtx") && !answer.contains("PCMU"));
        assert!(answer.contains("tcptype passive\r\na=end-of-candidates\r\nm=video"));
        assert!(answer.ends_with("tcptype passive\r\na=end-of-candidates\r\n"));
        assert!(answer.contains("a=group:BUNDLE 0 1\r\na=ice-lite\r\n"));
    }

    #[test]
    fn video_is_refused_in_each_of_three_ways() {
        let port_zero = answer(Some(RefusedVideo::PortZero));
        assert!(port_zero.contains("m=video 0 ") && port_zero.contains("BUNDLE 0\r\n"));
        let inactive = answer(Some(RefusedVideo::Inactive));
        assert!(inactive.contains("m=video 9 ") && inactive.contains("a=inactive\r\n"));
        assert!(!answer(Some(RefusedVideo::Missing)).contains("m=video"));
        assert!(answer(Some(RefusedVideo::Missing)).contains("m=audio 9 "));
    }
}
