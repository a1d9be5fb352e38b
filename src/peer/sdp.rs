//! Our descriptions, as servers want them: the engine's facts in a form of our own.
//!
//! The engine's text carries what old servers stumble over (a second component, `rtcp-rsize`, loopback and listening
//! candidates) and orders it its own way. So its description is read for what only it knows (ICE credentials,
//! fingerprint, candidates, the sections and their names), and the text is written afresh. What the engine believes
//! and what is written agree in all that matters to it: sections, names, payload types, SSRCs, roles.

use std::fmt::Write as _;

use super::Error;
use super::candidate::Protocol;
use super::relay;

/// What the description says of our tracks.
#[derive(Clone, Debug)]
pub(super) struct Media {
    /// Name of the stream, and CNAME; a token without spaces.
    pub(super) name: String,
    /// The sound, if any.
    pub(super) audio: Option<Audio>,
    /// The picture, if any.
    pub(super) video: Option<Video>,
}

/// The sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audio {
    /// Its SSRC.
    pub(super) ssrc: u32,
    /// Payload type of Opus.
    pub(super) payload_type: u8,
    /// 1 or 2.
    pub(super) channels: u8,
}

/// The picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Video {
    /// Its SSRC.
    pub(super) ssrc: u32,
    /// Payload type of H.264.
    pub(super) payload_type: u8,
}

/// `fmtp` of H.264 as every server expects it: constrained baseline, level 3.1 by name, which nobody enforces.
pub(super) const H264_FMTP: &str =
    "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";

/// `fmtp` of Opus with in-band FEC, for `channels`.
pub(super) const fn opus_fmtp(channels: u8) -> &'static str {
    if channels == 2 {
        "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1"
    } else {
        "minptime=10;useinbandfec=1"
    }
}

/// `name` as a token of SDP: what is not a letter, digit, `-`, `_` or `.` becomes `-`; at most 64 characters.
pub(super) fn token(name: &str) -> String {
    let token: String = name
        .chars()
        .take(64)
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c,
            '_' | '.' => c,
            _ => '-',
        })
        .collect();
    if token.is_empty() {
        "onair".to_owned()
    } else {
        token
    }
}

/// The feedback on the picture that we act upon.
const FEEDBACK: [&str; 3] = ["ccm fir", "nack", "nack pli"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role<'a> {
    /// To this offer.
    Answer(&'a str),
    Offer,
}

/// The offer to send for the engine's offer `engine`.
pub(super) fn offer(engine: &str, media: &Media) -> Result<String, Error> {
    write(engine, media, Role::Offer)
}

/// The answer to `offer`, for the engine's answer `engine`: only our codec in each section, `sendonly` with SSRC and
/// CNAME where we have the track, `inactive` where we do not; of the feedback offered what we act upon, and no header
/// extensions.
pub(super) fn answer(engine: &str, offer: &str, media: &Media) -> Result<String, Error> {
    write(engine, media, Role::Answer(offer))
}

impl Role<'_> {
    /// Whether feedback may be named: an answer keeps to what was offered (RFC 4585, section 4.2).
    fn has(self, payload_type: u8, feedback: &str) -> bool {
        let Self::Answer(offer) = self else {
            return true;
        };
        offer.lines().any(|line| {
            line.trim_end()
                .strip_prefix("a=rtcp-fb:")
                .and_then(|line| line.split_once(' '))
                .is_some_and(|(pt, offered)| {
                    offered == feedback && (pt == "*" || pt == payload_type.to_string())
                })
        })
    }
}

/// What the engine says that nobody else knows.
struct Facts<'a> {
    origin: &'a str,
    ufrag: &'a str,
    password: &'a str,
    fingerprint: &'a str,
    candidates: Vec<String>,
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    kind: &'a str,
    /// Everything of the `m=` line after the port.
    rest: &'a str,
    mid: &'a str,
}

fn facts(engine: &str) -> Result<Facts<'_>, Error> {
    let value = |prefix: &'static str| {
        engine
            .lines()
            .find_map(|line| line.strip_prefix(prefix))
            .ok_or(Error::Description {
                why: format!("the engine's description lacks {prefix}"),
            })
    };
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in engine.lines() {
        if let Some(section) = line.strip_prefix("m=") {
            let mut words = section.splitn(3, ' ');
            sections.push(Section {
                kind: words.next().unwrap_or_default(),
                rest: words.nth(1).unwrap_or_default(),
                mid: "",
            });
        } else if let Some(mid) = line.strip_prefix("a=mid:")
            && let Some(section) = sections.last_mut()
        {
            section.mid = mid;
        }
    }
    Ok(Facts {
        origin: value("o=")?,
        ufrag: value("a=ice-ufrag:")?,
        password: value("a=ice-pwd:")?,
        fingerprint: value("a=fingerprint:")?,
        candidates: candidates(engine),
        sections,
    })
}

/// The engine's candidates worth telling, as lines of SDP: first component, not the listening TCP ones (nothing
/// listens), not the stand-ins for relays, not loopback unless there is nothing else.
pub(super) fn candidates(engine: &str) -> Vec<String> {
    let mut world = Vec::new();
    let mut loopback = Vec::new();
    for line in engine.lines() {
        let Some(candidate) = line.strip_prefix("a=candidate:") else {
            continue;
        };
        let words: Vec<&str> = candidate.split(' ').collect();
        let (Some(&"1"), Some(&protocol), Some(&address)) =
            (words.get(1), words.get(2), words.get(4))
        else {
            continue;
        };
        let tcp = protocol.eq_ignore_ascii_case(&Protocol::Tcp.to_string());
        if tcp && !candidate.contains("tcptype active") {
            continue;
        }
        let ip: Option<std::net::IpAddr> = address.parse().ok();
        if ip.is_some_and(|ip| relay::rung(ip).is_some()) {
            continue;
        }
        let is_loopback = ip.is_some_and(|ip| ip.is_loopback());
        let list = if is_loopback {
            &mut loopback
        } else {
            &mut world
        };
        let line = line.to_owned();
        if !list.contains(&line) {
            list.push(line);
        }
    }
    if world.is_empty() { loopback } else { world }
}

fn write(engine: &str, media: &Media, role: Role<'_>) -> Result<String, Error> {
    let facts = facts(engine)?;
    let mut sdp = String::with_capacity(2_048);
    sections(&mut sdp, &facts, media, role).map_err(|_| Error::Description {
        why: "a description could not be written".to_owned(),
    })?;
    Ok(sdp.replace('\n', "\r\n"))
}

fn sections(
    sdp: &mut String,
    facts: &Facts<'_>,
    media: &Media,
    role: Role<'_>,
) -> std::fmt::Result {
    let mids: Vec<&str> = facts.sections.iter().map(|s| s.mid).collect();
    writeln!(sdp, "v=0\no={}\ns=-\nt=0 0", facts.origin)?;
    writeln!(sdp, "a=group:BUNDLE {}", mids.join(" "))?;
    writeln!(sdp, "a=msid-semantic: WMS {}", media.name)?;
    let (mut audio, mut video) = (media.audio, media.video);
    for (n, section) in facts.sections.iter().enumerate() {
        // Each track is sent once, in the first section of its kind.
        let audio = (section.kind == "audio").then(|| audio.take()).flatten();
        let video = (section.kind == "video").then(|| video.take()).flatten();
        match (audio, video) {
            (Some(audio), _) => {
                writeln!(sdp, "m=audio 9 UDP/TLS/RTP/SAVPF {}", audio.payload_type)?
            }
            (_, Some(video)) => {
                writeln!(sdp, "m=video 9 UDP/TLS/RTP/SAVPF {}", video.payload_type)?
            }
            (None, None) => writeln!(sdp, "m={} 9 {}", section.kind, section.rest)?,
        }
        writeln!(sdp, "c=IN IP4 0.0.0.0\na=rtcp:9 IN IP4 0.0.0.0")?;
        if n == 0 {
            for candidate in &facts.candidates {
                writeln!(sdp, "{candidate}")?;
            }
        }
        writeln!(
            sdp,
            "a=ice-ufrag:{}\na=ice-pwd:{}\na=ice-options:trickle\na=fingerprint:{}",
            facts.ufrag, facts.password, facts.fingerprint
        )?;
        sdp.push_str(match role {
            Role::Answer(_) => "a=setup:active\n",
            Role::Offer => "a=setup:actpass\n",
        });
        writeln!(sdp, "a=mid:{}", section.mid)?;
        let name = &media.name;
        let (kind, ssrc) = match (audio, video) {
            (Some(audio), _) => ("audio", audio.ssrc),
            (_, Some(video)) => ("video", video.ssrc),
            (None, None) => {
                writeln!(sdp, "a=inactive\na=rtcp-mux")?;
                continue;
            }
        };
        writeln!(sdp, "a=sendonly\na=msid:{name} {name}-{kind}\na=rtcp-mux")?;
        if let Some(audio) = audio {
            let pt = audio.payload_type;
            writeln!(sdp, "a=rtpmap:{pt} opus/48000/2")?;
            writeln!(sdp, "a=fmtp:{pt} {}", opus_fmtp(audio.channels))?;
        }
        if let Some(video) = video {
            let pt = video.payload_type;
            writeln!(sdp, "a=rtpmap:{pt} H264/90000")?;
            for feedback in FEEDBACK {
                if role.has(pt, feedback) {
                    writeln!(sdp, "a=rtcp-fb:{pt} {feedback}")?;
                }
            }
            writeln!(sdp, "a=fmtp:{pt} {H264_FMTP}")?;
        }
        writeln!(sdp, "a=ssrc:{ssrc} cname:{name}")?;
        writeln!(sdp, "a=ssrc:{ssrc} msid:{name} {name}-{kind}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINE: &str = "v=0\r\no=- 42 7 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 AA:BB\r\n\
        a=group:BUNDLE 0 x9\r\na=extmap-allow-mixed\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n\
        a=setup:actpass\r\na=mid:0\r\na=ice-ufrag:uu\r\na=ice-pwd:pp\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
        a=candidate:1 1 udp 2130706431 10.0.0.5 4000 typ host\r\n\
        a=candidate:1 2 udp 2130706431 10.0.0.5 4000 typ host\r\n\
        a=candidate:2 1 udp 2130706431 127.0.0.1 4001 typ host\r\n\
        a=candidate:3 1 tcp 1675624447 10.0.0.5 5000 typ host tcptype passive\r\n\
        a=candidate:4 1 tcp 1671430143 10.0.0.5 9 typ host tcptype active\r\na=end-of-candidates\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 108\r\na=mid:x9\r\na=ice-ufrag:uu\r\na=ice-pwd:pp\r\n\
        a=candidate:1 1 udp 2130706431 10.0.0.5 4000 typ host\r\n";

    fn media() -> Media {
        Media {
            name: "front".to_owned(),
            audio: Some(Audio {
                ssrc: 11,
                payload_type: 111,
                channels: 2,
            }),
            video: Some(Video {
                ssrc: 22,
                payload_type: 108,
            }),
        }
    }

    #[test]
    fn the_offer_is_the_one_every_server_takes() {
        let expected = "v=0\no=- 42 7 IN IP4 0.0.0.0\ns=-\nt=0 0\na=group:BUNDLE 0 x9\na=msid-semantic: WMS front\n\
            m=audio 9 UDP/TLS/RTP/SAVPF 111\nc=IN IP4 0.0.0.0\na=rtcp:9 IN IP4 0.0.0.0\n\
            a=candidate:1 1 udp 2130706431 10.0.0.5 4000 typ host\n\
            a=candidate:4 1 tcp 1671430143 10.0.0.5 9 typ host tcptype active\n\
            a=ice-ufrag:uu\na=ice-pwd:pp\na=ice-options:trickle\na=fingerprint:sha-256 AA:BB\na=setup:actpass\n\
            a=mid:0\na=sendonly\na=msid:front front-audio\na=rtcp-mux\na=rtpmap:111 opus/48000/2\n\
            a=fmtp:111 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1\na=ssrc:11 cname:front\n\
            a=ssrc:11 msid:front front-audio\nm=video 9 UDP/TLS/RTP/SAVPF 108\nc=IN IP4 0.0.0.0\n\
            a=rtcp:9 IN IP4 0.0.0.0\na=ice-ufrag:uu\na=ice-pwd:pp\na=ice-options:trickle\n\
            a=fingerprint:sha-256 AA:BB\na=setup:actpass\na=mid:x9\na=sendonly\na=msid:front front-video\n\
            a=rtcp-mux\na=rtpmap:108 H264/90000\na=rtcp-fb:108 ccm fir\na=rtcp-fb:108 nack\n\
            a=rtcp-fb:108 nack pli\na=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\n\
            a=ssrc:22 cname:front\na=ssrc:22 msid:front front-video\n";
        let got = offer(ENGINE, &media()).expect("an offer");
        assert_eq!(got, expected.replace('\n', "\r\n"));
    }

    #[test]
    fn an_answer_is_active_and_inactive_where_there_is_no_track() {
        let mut media = media();
        media.audio = None;
        let offer =
            "a=rtcp-fb:108 nack pli\r\na=rtcp-fb:108 transport-cc\r\na=rtcp-fb:109 nack\r\n";
        let got = answer(ENGINE, offer, &media).expect("an answer");
        let (audio, video) = got.split_once("m=video").expect("two sections");
        assert!(audio.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"));
        assert!(audio.contains("a=inactive") && !audio.contains("a=ssrc"));
        assert!(video.contains("a=setup:active\r\n") && video.contains("a=sendonly\r\n"));
        assert!(video.contains("a=ssrc:22 cname:front\r\n"));
        let feedback: Vec<_> = got.lines().filter(|l| l.contains("rtcp-fb")).collect();
        assert_eq!(feedback, ["a=rtcp-fb:108 nack pli"]);
        assert!(!got.contains("extmap") && !got.contains("rsize"));
    }

    #[test]
    fn loopback_is_told_only_where_there_is_nothing_else() {
        let alone = ENGINE.replace("10.0.0.5", "127.0.0.1");
        assert!(!offer(ENGINE, &media()).expect("an offer").contains("4001"));
        assert!(offer(&alone, &media()).expect("an offer").contains("4001"));
    }

    #[test]
    fn names_become_tokens() {
        assert_eq!(token("Front door/1"), "Front-door-1");
        assert_eq!(token(""), "onair");
        assert_eq!(token(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn a_description_without_the_facts_is_an_error() {
        assert!(offer("v=0\r\n", &media()).is_err());
    }
}
