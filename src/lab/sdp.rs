//! Session descriptions as the lab's servers write them, and a strict reading of what publishers write.
//!
//! Pure. Written after real offers of OvenMediaEngine 0.21 and real descriptions of Wowza, line for line; shares
//! nothing with the agent's own reading and writing.

use std::fmt::Write;

use crate::media::access_unit::Track;

use super::ingest::PayloadTypes;

/// OvenMediaEngine's payload types: H.264, (VP8,) Opus.
pub(super) const OME_TYPES: PayloadTypes = PayloadTypes {
    h264: 100,
    opus: 102,
    transport_cc: Some(3),
};

/// What a description of the lab's says about its engine.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    /// As after `a=fingerprint:`; `None` leaves the line out.
    pub(super) fingerprint: Option<String>,
}

/// A session's random parts in OvenMediaEngine's offer.
#[derive(Clone, Debug)]
pub(super) struct OmeNames {
    pub(super) session: u32,
    pub(super) mids: [String; 2],
    pub(super) msid: String,
    pub(super) tracks: [String; 2],
}

/// OvenMediaEngine's offer over WebSocket: video first, ICE and fingerprint for the whole session, no candidates.
pub(super) fn ome_offer(engine: &Engine, names: &OmeNames) -> String {
    let [video, audio] = &names.mids;
    let mut sdp = format!(
        "v=0\r\no=OvenMediaEngine {} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
         a=group:BUNDLE {video} {audio}\r\na=group:LS {video} {audio}\r\na=msid-semantic:WMS {}\r\n\
         a=extmap-allow-mixed\r\n",
        names.session, names.msid
    );
    if let Some(fingerprint) = &engine.fingerprint {
        line(&mut sdp, &format!("a=fingerprint:{fingerprint}"));
    }
    line(&mut sdp, "a=ice-options:trickle");
    line(&mut sdp, &format!("a=ice-ufrag:{}", engine.ufrag));
    line(&mut sdp, &format!("a=ice-pwd:{}", engine.pwd));
    let twcc =
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    let media = |kind: &str, mid: &str, track: &str| {
        format!(
            "m={kind}\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\na=mid:{mid}\r\na=setup:actpass\r\na=rtcp-mux\r\n\
             a=msid:{} {track}\r\n{twcc}",
            names.msid
        )
    };
    let [video_track, audio_track] = &names.tracks;
    line(
        &mut sdp,
        &media("video 9 UDP/TLS/RTP/SAVPF 100 101", video, video_track),
    );
    line(
        &mut sdp,
        "a=extmap:5 uri:ietf:rtc:rtp-hdrext:video:CompositionTime",
    );
    line(&mut sdp, "a=rtpmap:100 H264/90000");
    line(
        &mut sdp,
        "a=fmtp:100 packetization-mode=1;profile-level-id=42e01f;level-asymmetry-allowed=1",
    );
    for (payload_type, codec) in [(100, None), (101, Some("a=rtpmap:101 VP8/90000"))] {
        if let Some(codec) = codec {
            line(&mut sdp, codec);
        }
        for feedback in ["transport-cc", "ccm fir", "nack pli"] {
            line(&mut sdp, &format!("a=rtcp-fb:{payload_type} {feedback}"));
        }
    }
    line(
        &mut sdp,
        &media("audio 9 UDP/TLS/RTP/SAVPF 102", audio, audio_track),
    );
    line(&mut sdp, "a=rtpmap:102 OPUS/48000/2");
    line(
        &mut sdp,
        "a=fmtp:102 sprop-stereo=1;stereo=1;minptime=10;useinbandfec=1",
    );
    line(&mut sdp, "a=rtcp-fb:102 transport-cc");
    sdp
}

/// Wowza's answer: `RTP/SAVPF`, the fingerprint for the whole session, `c=` after attributes, no candidates.
pub(super) fn wowza_answer(
    engine: &Engine,
    session: u32,
    offer: &Description,
    nack: bool,
) -> String {
    let mids: Vec<&str> = offer.media.iter().filter_map(|m| m.value("mid")).collect();
    let mut sdp = format!(
        "v=0\r\no=WowzaStreamingEngine-next {session} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
         a=group:BUNDLE {}\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n",
        mids.join(" ")
    );
    if let Some(fingerprint) = &engine.fingerprint {
        line(&mut sdp, &format!("a=fingerprint:{fingerprint}"));
    }
    for media in &offer.media {
        let codec = media.codec();
        let Some((payload_type, _)) = codec else {
            line(&mut sdp, &format!("m={} 0 RTP/SAVPF 0", media.kind));
            line(&mut sdp, "a=inactive");
            line(&mut sdp, "c=IN IP4 0.0.0.0");
            continue;
        };
        line(
            &mut sdp,
            &format!("m={} 9 RTP/SAVPF {payload_type}", media.kind),
        );
        if media.kind == "video" {
            line(&mut sdp, &format!("a=rtpmap:{payload_type} H264/90000"));
            line(
                &mut sdp,
                &format!("a=fmtp:{payload_type} packetization-mode=1;profile-level-id=42e01f"),
            );
        } else {
            line(&mut sdp, &format!("a=rtpmap:{payload_type} opus/48000/2"));
        }
        line(&mut sdp, "c=IN IP4 0.0.0.0");
        line(&mut sdp, "a=recvonly");
        line(&mut sdp, &format!("a=ice-pwd:{}", engine.pwd));
        line(&mut sdp, &format!("a=ice-ufrag:{}", engine.ufrag));
        if let Some(mid) = media.value("mid") {
            line(&mut sdp, &format!("a=mid:{mid}"));
        }
        if media.kind == "video" {
            for feedback in ["nack", "nack pli", "ccm fir"]
                .iter()
                .skip(usize::from(!nack))
            {
                line(&mut sdp, &format!("a=rtcp-fb:{payload_type} {feedback}"));
            }
        }
        line(&mut sdp, "a=rtcp-mux");
        line(&mut sdp, "a=setup:passive");
    }
    sdp
}

pub(super) fn line(sdp: &mut String, text: &str) {
    // Writing to a string cannot fail.
    write!(sdp, "{text}\r\n").ok();
}

/// A description as the publisher wrote it.
#[derive(Clone, Debug, Default)]
pub(super) struct Description {
    attributes: Vec<(String, String)>,
    pub(super) media: Vec<Media>,
}

/// One of its media sections.
#[derive(Clone, Debug)]
pub(super) struct Media {
    /// `audio`, `video`, `application`.
    pub(super) kind: String,
    port: u16,
    payload_types: Vec<u8>,
    attributes: Vec<(String, String)>,
}

impl Description {
    /// Reads `text`; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut description = Self::default();
        let mut lines = text.lines();
        if lines.next() != Some("v=0") {
            return Err("it does not begin with v=0".to_owned());
        }
        for line in lines.filter(|line| !line.is_empty()) {
            let Some((kind, value)) = line.split_once('=') else {
                return Err(format!("no `=` in {line:?}"));
            };
            match kind {
                "m" => description.media.push(Media::parse(value)?),
                "a" => {
                    let (name, value) = value.split_once(':').unwrap_or((value, ""));
                    let attributes = match description.media.last_mut() {
                        Some(media) => &mut media.attributes,
                        None => &mut description.attributes,
                    };
                    attributes.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        Ok(description)
    }

    /// An attribute of the session, or else of the first section that has it.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let session = self.attributes.iter();
        let media = self.media.iter().flat_map(|media| &media.attributes);
        find(session.chain(media), name)
    }

    /// The section of `track`.
    pub(super) fn track(&self, track: Track) -> Option<&Media> {
        let kind = track.to_string();
        self.media.iter().find(|media| media.kind == kind)
    }

    /// The first attribute of this name that stands for the whole session.
    pub(super) fn of_session(&self, name: &str) -> Option<&str> {
        find(self.attributes.iter(), name)
    }

    /// SSRC of each track that it sends and names.
    pub(super) fn ssrcs(&self) -> Vec<(Track, u32)> {
        [Track::Audio, Track::Video]
            .into_iter()
            .filter_map(|track| {
                let media = self.track(track).filter(|media| media.sends())?;
                Some((track, media.ssrc()?))
            })
            .collect()
    }
}

impl Media {
    fn parse(value: &str) -> Result<Self, String> {
        let mut words = value.split_ascii_whitespace();
        let (Some(kind), Some(port), Some(_protocol)) = (words.next(), words.next(), words.next())
        else {
            return Err(format!("m={value:?} is cut short"));
        };
        Ok(Self {
            kind: kind.to_owned(),
            port: port.parse().map_err(|_| format!("port {port:?}"))?,
            payload_types: words.filter_map(|word| word.parse().ok()).collect(),
            attributes: Vec::new(),
        })
    }

    /// The first attribute of this name.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        find(self.attributes.iter(), name)
    }

    /// All attributes of this name.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.attributes
            .iter()
            .filter(move |(of, _)| of == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether media may come on it.
    pub(super) fn sends(&self) -> bool {
        let stopped = ["inactive", "recvonly"];
        self.port != 0 && !stopped.iter().any(|name| self.value(name).is_some())
    }

    /// Its first SSRC: the media itself, where a second one would be retransmissions.
    pub(super) fn ssrc(&self) -> Option<u32> {
        self.value("ssrc")?.split(' ').next()?.parse().ok()
    }

    /// Payload type and name of its first payload type that is H.264 or Opus.
    pub(super) fn codec(&self) -> Option<(u8, String)> {
        self.payload_types.iter().find_map(|payload_type| {
            let name = self.codec_name(*payload_type)?;
            (matches!(name.as_str(), "h264" | "opus") && self.is_usable(*payload_type))
                .then_some((*payload_type, name))
        })
    }

    /// Payload types in the order of the `m=` line.
    pub(super) fn payload_types(&self) -> &[u8] {
        &self.payload_types
    }

    /// Format parameters of a payload type, all lines together.
    pub(super) fn parameters(&self, payload_type: u8) -> String {
        let prefix = format!("{payload_type} ");
        let lines = self.values("fmtp").filter_map(|v| v.strip_prefix(&prefix));
        lines.collect::<Vec<_>>().join(";")
    }

    fn is_usable(&self, payload_type: u8) -> bool {
        let parameters = self.parameters(payload_type).to_ascii_lowercase();
        self.kind != "video"
            || (parameters.contains("packetization-mode=1") && parameters.contains("42e01f"))
    }

    /// Name of a payload type's codec, in lower case.
    pub(super) fn codec_name(&self, payload_type: u8) -> Option<String> {
        let prefix = format!("{payload_type} ");
        let map = self
            .values("rtpmap")
            .find_map(|v| v.strip_prefix(&prefix))?;
        Some(map.split('/').next()?.to_ascii_lowercase())
    }
}

fn find<'a>(
    mut attributes: impl Iterator<Item = &'a (String, String)>,
    name: &str,
) -> Option<&'a str> {
    attributes
        .find(|(of, _)| of == name)
        .map(|(_, value)| value.as_str())
}

/// What is wrong with an answer to OvenMediaEngine's offer, though the server would take it.
///
/// `agent` holds it against what onair promises, not only against what browsers do.
pub(super) fn ome_faults(
    answer: &Description,
    mids: &[String; 2],
    agent: bool,
) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    for (media, mid) in answer.media.iter().zip(mids) {
        let kind = &media.kind;
        if media.value("mid") != Some(mid) {
            faults.push(("mid", format!("{kind}: not the mid {mid:?} of the offer")));
        }
        if !media.sends() {
            continue;
        }
        if media.ssrc().is_none() {
            faults.push((
                "ssrc",
                format!("{kind}: no a=ssrc; its media cannot be told apart"),
            ));
        }
        if media
            .values("extmap")
            .any(|e| e.contains("CompositionTime"))
        {
            faults.push((
                "composition-time",
                format!("{kind}: CompositionTime accepted"),
            ));
        }
        let types = media.payload_types();
        let wanted = if kind == "video" {
            OME_TYPES.h264
        } else {
            OME_TYPES.opus
        };
        if types.first() != Some(&wanted) || (agent && types.len() != 1) {
            faults.push(("payload-types", format!("{kind}: {types:?}, not {wanted}")));
        }
    }
    let setup = answer.value("setup");
    if setup != Some("active") {
        faults.push((
            "setup",
            format!("{setup:?}; the server only ever is passive"),
        ));
    }
    faults
}

/// What is wrong with an offer to Wowza, though the server may take it.
pub(super) fn wowza_faults(offer: &Description, agent: bool) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    for media in &offer.media {
        let kind = &media.kind;
        if kind != "audio" && kind != "video" {
            faults.push(("media", format!("a section {kind:?}")));
            continue;
        }
        if media.codec().is_none() {
            faults.push((
                "codec",
                format!("{kind}: neither H.264 42e01f in mode 1 nor Opus"),
            ));
        }
        if agent && media.payload_types().len() != 1 {
            let types = media.payload_types();
            faults.push((
                "payload-types",
                format!("{kind}: {types:?}, old servers want one"),
            ));
        }
        if agent && media.values("rtcp-fb").any(|f| f.contains("transport-cc")) {
            faults.push((
                "transport-cc",
                format!("{kind}: offered; old servers break on it"),
            ));
        }
        if media.sends() && media.ssrc().is_none() {
            faults.push(("ssrc", format!("{kind}: no a=ssrc")));
        }
    }
    match offer.value("setup") {
        Some("actpass" | "active") => {}
        other => faults.push(("setup", format!("{other:?} in an offer"))),
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        Engine {
            ufrag: "tAjMZP".to_owned(),
            pwd: "G05y3KFxrSzJuZm7OcA4b9qlfYngX1Nk".to_owned(),
            fingerprint: Some("sha-256 5E:6C".to_owned()),
        }
    }

    const ANSWER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a b\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 100\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:sha-256 AA\r\n\
        a=setup:active\r\na=mid:a\r\na=sendonly\r\na=rtpmap:100 H264/90000\r\n\
        a=fmtp:100 packetization-mode=1\r\na=fmtp:100 profile-level-id=42E01F\r\na=ssrc:7 cname:c\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 102\r\na=setup:active\r\na=mid:b\r\na=sendonly\r\n\
        a=rtpmap:102 OPUS/48000/2\r\na=ssrc:8 cname:c\r\n";

    fn mids() -> [String; 2] {
        ["a".to_owned(), "b".to_owned()]
    }

    fn rules(answer: &str, agent: bool) -> Vec<&'static str> {
        let answer = Description::parse(answer).expect("an answer");
        let faults = ome_faults(&answer, &mids(), agent);
        faults.into_iter().map(|(rule, _)| rule).collect()
    }

    #[test]
    fn the_offer_is_the_one_that_was_observed() {
        let names = OmeNames {
            session: 124,
            mids: ["oqhgXI".to_owned(), "m81o0l".to_owned()],
            msid: "AW3F".to_owned(),
            tracks: ["S63W".to_owned(), "PxaI".to_owned()],
        };
        let expected = "v=0|o=OvenMediaEngine 124 2 IN IP4 127.0.0.1|s=-|t=0 0|a=group:BUNDLE oqhgXI m81o0l|a=group:LS oqhgXI m81o0l|\
            a=msid-semantic:WMS AW3F|a=extmap-allow-mixed|a=fingerprint:sha-256 5E:6C|a=ice-options:trickle|a=ice-ufrag:tAjMZP|\
            a=ice-pwd:G05y3KFxrSzJuZm7OcA4b9qlfYngX1Nk|m=video 9 UDP/TLS/RTP/SAVPF 100 101|c=IN IP4 0.0.0.0|a=recvonly|a=mid:oqhgXI|\
            a=setup:actpass|a=rtcp-mux|a=msid:AW3F S63W|a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01|\
            a=extmap:5 uri:ietf:rtc:rtp-hdrext:video:CompositionTime|a=rtpmap:100 H264/90000|\
            a=fmtp:100 packetization-mode=1;profile-level-id=42e01f;level-asymmetry-allowed=1|a=rtcp-fb:100 transport-cc|\
            a=rtcp-fb:100 ccm fir|a=rtcp-fb:100 nack pli|a=rtpmap:101 VP8/90000|a=rtcp-fb:101 transport-cc|a=rtcp-fb:101 ccm fir|\
            a=rtcp-fb:101 nack pli|m=audio 9 UDP/TLS/RTP/SAVPF 102|c=IN IP4 0.0.0.0|a=recvonly|a=mid:m81o0l|a=setup:actpass|a=rtcp-mux|\
            a=msid:AW3F PxaI|a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01|\
            a=rtpmap:102 OPUS/48000/2|a=fmtp:102 sprop-stereo=1;stereo=1;minptime=10;useinbandfec=1|a=rtcp-fb:102 transport-cc|";
        assert_eq!(ome_offer(&engine(), &names).replace("\r\n", "|"), expected);
    }

    #[test]
    fn a_good_answer_has_no_faults_and_is_understood() {
        assert!(rules(ANSWER, true).is_empty());
        let answer = Description::parse(ANSWER).expect("an answer");
        assert_eq!(answer.ssrcs(), [(Track::Audio, 8), (Track::Video, 7)]);
        assert_eq!(answer.media[0].codec(), Some((100, "h264".to_owned())));
        assert_eq!(answer.media[1].codec(), Some((102, "opus".to_owned())));
        assert_eq!(answer.value("ice-pwd"), Some("p"));
    }

    #[test]
    fn each_fault_of_an_answer_is_seen() {
        assert_eq!(
            rules(&ANSWER.replace("a=ssrc:7 cname:c\r\n", ""), false),
            ["ssrc"]
        );
        assert_eq!(
            rules(&ANSWER.replace("setup:active", "setup:passive"), false),
            ["setup"]
        );
        assert_eq!(rules(&ANSWER.replace("a=mid:b", "a=mid:c"), false), ["mid"]);
        assert_eq!(
            rules(&ANSWER.replace("SAVPF 100", "SAVPF 101 100"), false),
            ["payload-types"]
        );
        let two = ANSWER.replace("SAVPF 100", "SAVPF 100 101");
        assert_eq!(rules(&two, true), ["payload-types"]);
        assert!(rules(&two, false).is_empty());
        let extension = "a=mid:a\r\na=extmap:5 uri:ietf:rtc:rtp-hdrext:video:CompositionTime";
        assert_eq!(
            rules(&ANSWER.replace("a=mid:a", extension), false),
            ["composition-time"]
        );
        let inactive = ANSWER
            .replace("a=mid:b\r\na=sendonly", "a=mid:b\r\na=inactive")
            .replace("a=ssrc:8 cname:c\r\n", "");
        assert!(rules(&inactive, true).is_empty());
    }

    #[test]
    fn wowza_answers_in_its_own_way_and_sees_faults() {
        let offer = ANSWER.replace("setup:active", "setup:actpass");
        let offer = Description::parse(&offer).expect("an offer");
        assert!(wowza_faults(&offer, true).is_empty());
        let answer = wowza_answer(&engine(), 7, &offer, false);
        assert!(answer.contains("m=video 9 RTP/SAVPF 100\r\n"));
        assert!(answer.starts_with("v=0\r\no=WowzaStreamingEngine-next 7 2 IN IP4 127.0.0.1\r\n"));
        let video = answer.find("m=video").expect("video");
        assert!(answer.find("a=fingerprint").expect("fingerprint") < video);
        assert!(answer[video..].find("a=rtpmap") < answer[video..].find("c=IN"));
        assert!(!answer.contains("nack\r\n"));
        assert!(wowza_answer(&engine(), 7, &offer, true).contains("a=rtcp-fb:100 nack\r\n"));

        let bad = ANSWER
            .replace("42E01F", "640028")
            .replace("a=mid:b", "a=mid:b\r\na=rtcp-fb:102 transport-cc")
            .replace("setup:active", "setup:passive");
        let bad = Description::parse(&bad).expect("an offer");
        let rules: Vec<_> = wowza_faults(&bad, true)
            .into_iter()
            .map(|(r, _)| r)
            .collect();
        assert_eq!(rules, ["codec", "transport-cc", "setup"]);
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in [
            "",
            "garbage",
            "v=0\r\nm=video",
            "v=0\r\nm=video x y",
            "v=0\r\nnonsense",
        ] {
            assert!(Description::parse(garbage).is_err(), "{garbage:?}");
        }
    }
}
