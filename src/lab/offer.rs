//! What is wrong with an offer by WHIP or by Wowza's second dialect, though a lenient server would take it.
//!
//! Pure. The rules are those of RFC 9725 and of what the servers' engines need; what only onair promises is not held
//! against browsers.

use crate::media::access_unit::Track;

use super::ingest::PayloadTypes;
use super::sdp::Description;
use super::sdp::Media;

/// What tells transport-wide congestion control among header extensions.
const TRANSPORT_CC: &str = "transport-wide-cc-extensions";

/// Payload types of an offer that lacks a codec; nothing is ever received on them.
const UNUSED: (u8, u8) = (97, 96);

/// What was found: a rule's name and what was seen.
type Fault = (&'static str, String);

/// What is wrong with `offer`; `one_way` where the publisher has to say that it only sends.
pub(super) fn faults(offer: &Description, agent: bool, one_way: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    for kind in ["audio", "video"] {
        let n = offer.media.iter().filter(|m| m.kind == kind).count();
        if n > 1 {
            faults.push(("media", format!("{n} sections of {kind}")));
        }
    }
    for media in &offer.media {
        section(media, agent, one_way, &mut faults);
    }
    let group = offer.of_session("group").unwrap_or_default();
    let bundled: Vec<&str> = group.split(' ').skip(1).collect();
    let mids: Vec<&str> = offer.media.iter().filter_map(|m| m.value("mid")).collect();
    if !group.starts_with("BUNDLE") || bundled != mids || mids.len() != offer.media.len() {
        faults.push(("bundle", format!("group {group:?} for the mids {mids:?}")));
    }
    let mut streams: Vec<&str> = offer
        .media
        .iter()
        .filter_map(|m| m.value("msid")?.split(' ').next())
        .collect();
    streams.dedup();
    if agent && streams.len() > 1 {
        faults.push(("msid", format!("tracks of several streams: {streams:?}")));
    }
    match offer.value("setup") {
        Some("actpass" | "active") => {}
        other => faults.push(("setup", format!("{other:?} in an offer"))),
    }
    faults
}

fn section(media: &Media, agent: bool, one_way: bool, faults: &mut Vec<Fault>) {
    let kind = &media.kind;
    let track = match kind.as_str() {
        "audio" => Track::Audio,
        "video" => Track::Video,
        _ => {
            faults.push(("media", format!("a section {kind:?}")));
            return;
        }
    };
    if !media.sends() {
        faults.push(("direction", format!("{kind}: nothing would be sent on it")));
        return;
    }
    if one_way && agent && media.value("sendonly").is_none() {
        faults.push(("direction", format!("{kind}: not sendonly")));
    }
    if media.value("rtcp-mux").is_none() {
        faults.push(("rtcp-mux", format!("{kind}: no a=rtcp-mux")));
    }
    if media.ssrc().is_none() {
        faults.push((
            "ssrc",
            format!("{kind}: no a=ssrc; its media cannot be told apart"),
        ));
    }
    if payload_type(media, track).is_none() {
        faults.push(("codec", format!("{kind}: neither H.264 in mode 1 nor Opus")));
    }
}

/// The payload type of the track's codec that is best liked: Constrained Baseline in mode 1, or any in mode 1.
pub(super) fn payload_type(media: &Media, track: Track) -> Option<u8> {
    let named = |name| {
        let of = move |pt: &u8| media.codec_name(*pt).as_deref() == Some(name);
        media.payload_types().iter().copied().filter(of)
    };
    match track {
        Track::Audio => named("opus").next(),
        Track::Video => {
            let has = |pt: u8, text| media.parameters(pt).to_ascii_lowercase().contains(text);
            let mode_1 = || named("h264").filter(|pt| has(*pt, "packetization-mode=1"));
            mode_1()
                .find(|pt| has(*pt, "profile-level-id=42e01f"))
                .or_else(|| mode_1().next())
        }
    }
}

/// The first payload type of the track that is H.264 or Opus: the one a publisher uses at a server that takes all.
fn first_payload_type(media: &Media, track: Track) -> Option<u8> {
    let wanted = match track {
        Track::Audio => "opus",
        Track::Video => "h264",
    };
    let types = media.payload_types().iter().copied();
    types
        .into_iter()
        .find(|pt| media.codec_name(*pt).as_deref() == Some(wanted))
}

/// What media will come as; `takes_all` of a server that answers with every codec it knows.
pub(super) fn payload_types(offer: &Description, takes_all: bool) -> PayloadTypes {
    let choose = |track| {
        let media = offer.track(track)?;
        if takes_all {
            first_payload_type(media, track)
        } else {
            payload_type(media, track)
        }
    };
    PayloadTypes {
        h264: choose(Track::Video).unwrap_or(UNUSED.0),
        opus: choose(Track::Audio).unwrap_or(UNUSED.1),
        transport_cc: offer.media.iter().find_map(transport_cc),
    }
}

/// Number of the transport-cc extension that is offered.
fn transport_cc(media: &Media) -> Option<u8> {
    let mut extensions = media.values("extmap");
    let extension = extensions.find(|extension| extension.contains(TRANSPORT_CC))?;
    let id = extension.split([' ', '/']).next()?.parse().ok()?;
    // One-byte extensions are numbered so; the engine knows no others.
    (1..=14).contains(&id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:sha-256 AA\r\n\
        a=setup:actpass\r\na=mid:0\r\na=sendonly\r\na=msid:s a\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
        a=ssrc:7 cname:c\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 102 108\r\na=setup:actpass\r\na=mid:1\r\n\
        a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
        a=sendonly\r\na=msid:s v\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:102 H264/90000\r\n\
        a=fmtp:102 packetization-mode=1;profile-level-id=42001f\r\na=rtpmap:108 H264/90000\r\n\
        a=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\na=ssrc:8 cname:c\r\n";

    fn rules(offer: &str, agent: bool) -> Vec<&'static str> {
        let offer = Description::parse(offer).expect("an offer");
        faults(&offer, agent, true)
            .into_iter()
            .map(|f| f.0)
            .collect()
    }

    #[test]
    fn a_good_offer_has_no_faults_and_is_understood() {
        assert!(rules(OFFER, true).is_empty());
        let offer = Description::parse(OFFER).expect("an offer");
        let best = payload_types(&offer, false);
        assert_eq!(
            (best.h264, best.opus, best.transport_cc),
            (108, 111, Some(3))
        );
        assert_eq!(payload_types(&offer, true).h264, 102);
        let other = Description::parse(&OFFER.replace("42e01f", "640028")).expect("an offer");
        assert_eq!(payload_types(&other, false).h264, 102);
    }

    #[test]
    fn each_fault_of_an_offer_is_seen() {
        let cases = [
            ("a=group:BUNDLE 0 1\r\n", "", &["bundle"][..]),
            ("BUNDLE 0 1", "BUNDLE 0", &["bundle"]),
            ("a=rtcp-mux\r\na=rtpmap:111", "a=rtpmap:111", &["rtcp-mux"]),
            ("a=ssrc:8 cname:c\r\n", "", &["ssrc"]),
            ("a=msid:s v", "a=msid:t v", &["msid"]),
            ("setup:actpass", "setup:passive", &["setup"]),
            ("opus/48000/2", "PCMU/8000", &["codec"]),
            ("packetization-mode=1", "packetization-mode=0", &["codec"]),
            ("sendonly", "recvonly", &["direction", "direction"]),
            ("sendonly", "sendrecv", &["direction", "direction"]),
            ("m=video", "m=application", &["media"]),
            ("m=video", "m=audio", &["media", "codec"]),
        ];
        for (from, to, expected) in cases {
            let offer = OFFER.replace(from, to);
            assert_eq!(rules(&offer, true), expected, "{from:?} to {to:?}");
        }
        assert!(rules(&OFFER.replace("sendonly", "sendrecv"), false).is_empty());
        assert!(rules(&OFFER.replace("a=msid:s v", "a=msid:t v"), false).is_empty());
    }
}
