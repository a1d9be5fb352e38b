//! Session descriptions of servers, read tolerantly and written anew.
//!
//! Real servers send `RTP/SAVPF`, keep ICE and DTLS facts at session level, put `c=` behind attributes, end
//! lines with LF, spell `OPUS`, split one `fmtp` in two and add attributes of their own. Instead of patching
//! such text, [`regular`] reads what matters and writes a description that a strict
//! engine takes: one H.264 or Opus payload type per section, everything at media level, no candidates (they
//! are handed over apart).

use std::fmt::Write as _;

use super::candidate;
use crate::media::payload_types::PayloadTypes;

/// Longest description read; real ones have 2 to 8 KiB.
const SDP_MAX: usize = 64 << 10;
/// Most media sections read.
const SECTIONS_MAX: usize = 16;
/// Most parameters, feedback kinds and extensions kept of one section or codec.
const LIST_MAX: usize = 32;
/// Header extensions that may stay in a server's offer. OvenMediaEngine's `CompositionTime` must not: once
/// accepted, the server wants it on each frame.
const EXTENSIONS: [&str; 1] = ["urn:ietf:params:rtp-hdrext:sdes:mid"];

/// Whether the server offers or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server answers our offer.
    Answer,
    /// The server offers.
    Offer,
}

/// Makes the description of a server regular, as the module says. `Err` is a sentence for the operator.
///
/// In an answer every audio and video section must be accepted, for we offer only what we have to send.
pub fn regular(sdp: &str, kind: Kind) -> Result<String, String> {
    let description = Description::parse(sdp)?;
    if kind == Kind::Answer
        && let Some(refused) = description.sections.iter().find(|s| s.rejected)
    {
        return Err(refusal(&refused.kind));
    }
    description.write(kind)
}

/// As [`regular`], for the answer to our `offer`: no section of ours may be left out, either.
pub fn regular_answer(offer: &str, answer: &str) -> Result<String, String> {
    let regular = regular(answer, Kind::Answer)?;
    let has = |sdp: &str, kind: &str| {
        (sdp.lines())
            .filter_map(|line| line.strip_prefix("m="))
            .any(|section| section.split(' ').next() == Some(kind))
    };
    let missing = |kind: &&str| has(offer, kind) && !has(&regular, kind);
    match ["audio", "video"].into_iter().find(missing) {
        Some(kind) => Err(refusal(kind)),
        None => Ok(regular),
    }
}

/// The payload types that a server's offer gives to H.264 (packetization mode 1, best profile `42e01f`) and
/// Opus. A codec whose section is missing or rejected keeps the number of [`PayloadTypes::OFFERED`], which
/// then is never used. `Err` is a sentence for the operator.
pub fn payload_types(sdp: &str) -> Result<PayloadTypes, String> {
    let description = Description::parse(sdp)?;
    let mut found = PayloadTypes::OFFERED;
    for section in description.sections.iter().filter(|s| !s.rejected) {
        let best = section.best_codec();
        match section.kind.as_str() {
            "video" => {
                found.h264 = best
                    .filter(|codec| codec.h264_rank() > 0)
                    .map(|codec| codec.number)
                    .ok_or("it offers no H.264 with packetization-mode=1")?;
            }
            "audio" => {
                found.opus = best
                    .map(|codec| codec.number)
                    .ok_or("it offers no Opus with two channels at 48 kHz")?;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The usable candidates that stand in a description, in the form of
/// [`RemoteDescription::candidates`](super::RemoteDescription::candidates).
pub fn candidates(sdp: &str) -> Vec<String> {
    candidate::usable(candidate_lines(sdp))
}

/// The candidate lines of a description as they stand there.
pub(crate) fn candidate_lines(sdp: &str) -> impl Iterator<Item = &str> {
    let sdp = if sdp.len() > SDP_MAX { "" } else { sdp };
    sdp.split(['\r', '\n'])
        .map(str::trim)
        .filter(|line| line.starts_with("a=candidate:"))
}

/// A description as it may be kept: without credentials of ICE, keys, and what may name the stream.
pub fn discreet(sdp: &str) -> String {
    let mut kept = String::with_capacity(sdp.len().min(SDP_MAX));
    for line in sdp.split(['\r', '\n']).filter(|line| !line.is_empty()) {
        let end = kept.len() + line.len() + 2;
        if end > SDP_MAX {
            break;
        }
        let (name, _) = line.split_once(':').unwrap_or((line, ""));
        match name {
            "a=crypto" | "a=ice-pwd" | "a=ice-ufrag" => {
                kept.push_str(name);
                kept.push_str(":***");
            }
            _ => match line.get(..2) {
                // The name of the session, and what people may say of it and of themselves.
                Some(kind @ ("s=" | "i=" | "u=" | "e=" | "p=")) => {
                    kept.push_str(kind);
                    kept.push_str("***");
                }
                _ => match line.split_once(" ufrag ") {
                    Some((candidate, rest)) => {
                        let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
                        _ = write!(kept, "{candidate} ufrag *** {rest}");
                    }
                    None => kept.push_str(line),
                },
            },
        }
        kept.push_str("\r\n");
    }
    kept
}

/// Our own description without candidates: neither dialect trickles, and both servers learn our address from
/// our first check.
pub fn without_candidates(local: &str) -> String {
    kept_lines(local, |line| {
        !line.starts_with("a=candidate:") && line != "a=end-of-candidates"
    })
}

/// Our offer as the older Wowza dialect wants it: without candidates, and without the transport-wide feedback
/// that Wowza Streaming Engine before 4.8.5 breaks on.
pub fn wowza_offer(local: &str) -> String {
    kept_lines(&without_candidates(local), |line| {
        let feedback = line.starts_with("a=rtcp-fb:") && line.ends_with(" transport-cc");
        let extension = line.starts_with("a=extmap:") && line.contains("transport-wide-cc");
        !feedback && !extension
    })
}

/// Our offer as RFC 9725 wants it: RTCP has no port of its own (section 4.4.1). The candidates stay; with `open_ended`
/// nothing says that there will be no more.
pub fn whip_offer(local: &str, open_ended: bool) -> String {
    let kept = kept_lines(local, |line| {
        line != "a=rtcp-mux-only" && !(open_ended && line == "a=end-of-candidates")
    });
    kept.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\n")
}

fn kept_lines(sdp: &str, keep: impl Fn(&str) -> bool) -> String {
    sdp.lines()
        .map(str::trim_end)
        .filter(|line| keep(line))
        .fold(String::with_capacity(sdp.len()), |mut out, line| {
            out.push_str(line);
            out.push_str("\r\n");
            out
        })
}

/// Checks our own answer before OvenMediaEngine sees it, because it punishes mistakes with silence: without
/// `a=ssrc` it connects, lists the stream and takes no media. `Err` says what is wrong.
pub fn check_ome_answer(offer: &str, answer: &str) -> Result<(), String> {
    let wanted = Description::parse(offer)?.sections.len();
    let ours = Description::parse(answer)?;
    if ours.sections.len() != wanted {
        let got = ours.sections.len();
        return Err(format!(
            "our answer has {got} media sections, the offer {wanted}"
        ));
    }
    let sending: Vec<_> = ours.sections.iter().filter(|s| !s.rejected).collect();
    if sending.is_empty() {
        return Err("our answer sends nothing".to_owned());
    }
    for section in sending {
        let kind = &section.kind;
        if !section.has_ssrc {
            return Err(format!("our answer names no SSRC for {kind}"));
        }
        if section.setup.as_deref() != Some("active") {
            return Err(format!(
                "our answer does not make us the DTLS client for {kind}"
            ));
        }
        if !["sendonly", "sendrecv"].contains(&section.direction) {
            return Err(format!("our answer does not send {kind}"));
        }
        if section
            .extensions
            .iter()
            .any(|e| e.contains("CompositionTime"))
        {
            return Err("our answer accepts the CompositionTime extension".to_owned());
        }
    }
    Ok(())
}

fn refusal(kind: &str) -> String {
    let (codec, list) = if kind == "audio" {
        ("Opus", "PreferredCodecsAudio")
    } else {
        ("H.264", "PreferredCodecsVideo")
    };
    format!(
        "the server refused the {kind} track; on Wowza, {list} of the application must hold {codec}"
    )
}

/// What of a description matters to us.
#[derive(Debug, Default)]
struct Description {
    bundle: Option<String>,
    ice_lite: bool,
    sections: Vec<Section>,
}

/// One media section; facts of the session level are copied in.
#[derive(Debug, Default)]
struct Section {
    kind: String,
    rejected: bool,
    mid: Option<String>,
    direction: &'static str,
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<String>,
    setup: Option<String>,
    codecs: Vec<Codec>,
    extensions: Vec<String>,
    has_ssrc: bool,
    reduced_size: bool,
}

/// One payload type of a section.
#[derive(Debug)]
struct Codec {
    number: u8,
    /// As written: `H264/90000`, `OPUS/48000/2`.
    name: String,
    /// Merged parameters, each once.
    parameters: Vec<String>,
    feedback: Vec<String>,
}

impl Description {
    fn parse(sdp: &str) -> Result<Self, String> {
        if sdp.len() > SDP_MAX {
            return Err(format!("it is longer than {SDP_MAX} bytes"));
        }
        let lines: Vec<&str> = (sdp.split(['\r', '\n']).map(str::trim))
            .filter(|line| !line.is_empty())
            .collect();
        if lines.first() != Some(&"v=0") {
            return Err("it does not begin with v=0".to_owned());
        }
        let mut parts = lines.chunk_by(|_, next| !next.starts_with("m="));
        let session = parts.next().unwrap_or_default();
        let mut common = Section {
            direction: "sendrecv",
            ..Section::default()
        };
        let mut description = Self::default();
        for line in session {
            match line.strip_prefix("a=").map(attribute) {
                Some(("group", Some(value))) if value.starts_with("BUNDLE") => {
                    description.bundle = Some(value.to_owned());
                }
                Some(("ice-lite", _)) => description.ice_lite = true,
                Some((name, value)) => common.take(name, value),
                None => {}
            }
        }
        for part in parts {
            if description.sections.len() == SECTIONS_MAX {
                return Err(format!("it has more than {SECTIONS_MAX} media sections"));
            }
            description.sections.push(Section::parse(part, &common)?);
        }
        if description.sections.is_empty() {
            return Err("it has no media section".to_owned());
        }
        Ok(description)
    }

    fn write(&self, kind: Kind) -> Result<String, String> {
        let mids: Vec<String> = (self.sections.iter().enumerate())
            .map(|(n, s)| s.mid.clone().unwrap_or_else(|| n.to_string()))
            .collect();
        let bundle = self.bundle.clone().unwrap_or_else(|| {
            let all = self.sections.iter().zip(&mids);
            let used = all.filter(|(section, _)| !section.rejected);
            used.fold("BUNDLE".to_owned(), |group, (_, mid)| group + " " + mid)
        });
        let mut out = String::from("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
        line(&mut out, format_args!("a=group:{bundle}"));
        if self.ice_lite {
            out.push_str("a=ice-lite\r\n");
        }
        for (section, mid) in self.sections.iter().zip(&mids) {
            section.write(&mut out, mid, kind)?;
        }
        Ok(out)
    }
}

impl Section {
    fn parse(lines: &[&str], common: &Self) -> Result<Self, String> {
        let fields: Vec<&str> = lines[0][2..].split_ascii_whitespace().collect();
        let [kind, port, protocol, numbers @ ..] = fields.as_slice() else {
            return Err("an m= line is too short".to_owned());
        };
        let port: u16 = (port.split('/').next())
            .and_then(|p| p.parse().ok())
            .ok_or("an m= line has no port number")?;
        let is_media = ["audio", "video"].contains(kind);
        if is_media && !protocol.to_ascii_uppercase().contains("SAVP") {
            return Err(format!("its {kind} is not encrypted"));
        }
        let mut section = Self {
            kind: (*kind).to_owned(),
            direction: common.direction,
            ufrag: common.ufrag.clone(),
            pwd: common.pwd.clone(),
            fingerprint: common.fingerprint.clone(),
            setup: common.setup.clone(),
            extensions: common.extensions.clone(),
            ..Self::default()
        };
        if is_media {
            section.codecs = (numbers.iter().take(128))
                .filter_map(|number| number.parse().ok())
                // The dynamic types; those between collide with RTCP on the same port (RFC 5761).
                .filter(|number| matches!(number, 35..=63 | 96..=127))
                .map(|number| Codec {
                    number,
                    name: String::new(),
                    parameters: Vec::new(),
                    feedback: Vec::new(),
                })
                .collect();
        }
        let mut bundle_only = false;
        // A fingerprint of the section replaces that of the session; of several, SHA-256 is wanted.
        let mut own_fingerprint = false;
        for (name, value) in lines[1..]
            .iter()
            .filter_map(|l| l.strip_prefix("a="))
            .map(attribute)
        {
            if name == "bundle-only" {
                bundle_only = true;
            } else if name == "fingerprint" && !own_fingerprint {
                own_fingerprint = true;
                section.fingerprint = value.map(str::to_owned);
            } else {
                section.take(name, value);
            }
        }
        section.rejected =
            !is_media || (!bundle_only && (port == 0 || section.direction == "inactive"));
        Ok(section)
    }

    fn take(&mut self, name: &str, value: Option<&str>) {
        let owned = || value.map(str::to_owned);
        match name {
            "extmap" if self.extensions.len() < LIST_MAX => self.extensions.extend(owned()),
            "fingerprint" => {
                let is_sha256 = |f: &str| f.to_ascii_lowercase().starts_with("sha-256 ");
                if self.fingerprint.is_none() || value.is_some_and(is_sha256) {
                    self.fingerprint = owned();
                }
            }
            "fmtp" | "rtcp-fb" | "rtpmap" => self.take_codec(name, value.unwrap_or_default()),
            "ice-pwd" => self.pwd = owned(),
            "ice-ufrag" => self.ufrag = owned(),
            "inactive" => self.direction = "inactive",
            "mid" => self.mid = owned(),
            "rtcp-rsize" => self.reduced_size = true,
            "recvonly" => self.direction = "recvonly",
            "sendonly" => self.direction = "sendonly",
            "sendrecv" => self.direction = "sendrecv",
            "setup" => self.setup = owned(),
            "ssrc" => self.has_ssrc = true,
            _ => {}
        }
    }

    fn take_codec(&mut self, name: &str, value: &str) {
        let Some((number, value)) = value.split_once([' ', '\t']) else {
            return;
        };
        let value = value.trim();
        let is_meant = |codec: &Codec| number == "*" || number.parse() == Ok(codec.number);
        for codec in self.codecs.iter_mut().filter(|codec| is_meant(codec)) {
            match name {
                "rtpmap" => value.clone_into(&mut codec.name),
                "rtcp-fb" if codec.feedback.len() < LIST_MAX => {
                    codec.feedback.push(value.to_owned())
                }
                "fmtp" => codec.merge(value),
                _ => {}
            }
        }
    }

    /// The payload type to use, if there is one for us.
    fn best_codec(&self) -> Option<&Codec> {
        if self.kind == "audio" {
            return self.codecs.iter().find(|codec| codec.is_opus());
        }
        // The first of equals, for a server lists what it likes best first.
        let h264 = self
            .codecs
            .iter()
            .filter(|codec| codec.is_named("H264/90000"));
        h264.rev().max_by_key(|codec| codec.h264_rank())
    }

    fn write(&self, out: &mut String, mid: &str, kind: Kind) -> Result<(), String> {
        let codec = self.best_codec().filter(|_| !self.rejected);
        let Some(codec) = codec else {
            if kind == Kind::Answer || !self.rejected {
                return Err(format!("its {} section has no codec of ours", self.kind));
            }
            let protocol = if self.kind == "application" {
                "UDP/DTLS/SCTP webrtc-datachannel"
            } else {
                "UDP/TLS/RTP/SAVPF 0"
            };
            line(out, format_args!("m={} 0 {protocol}", self.kind));
            line(
                out,
                format_args!("c=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=inactive"),
            );
            return Ok(());
        };
        let missing = |what: &str| format!("its {} section has no {what}", self.kind);
        let ufrag = self.ufrag.as_ref().ok_or_else(|| missing("ice-ufrag"))?;
        let pwd = self.pwd.as_ref().ok_or_else(|| missing("ice-pwd"))?;
        let fingerprint = self
            .fingerprint
            .as_ref()
            .ok_or_else(|| missing("fingerprint"))?;
        // Who forgets `setup` in an answer is passive: all these servers are.
        let setup = match (kind, self.setup.as_deref()) {
            (_, Some(role @ ("active" | "passive"))) => role,
            (Kind::Answer, _) => "passive",
            (Kind::Offer, _) => "actpass",
        };
        let Codec { number, name, .. } = codec;
        line(
            out,
            format_args!("m={} 9 UDP/TLS/RTP/SAVPF {number}", self.kind),
        );
        line(out, format_args!("c=IN IP4 0.0.0.0\r\na=mid:{mid}"));
        line(out, format_args!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}"));
        line(
            out,
            format_args!("a=fingerprint:{fingerprint}\r\na=setup:{setup}"),
        );
        // The servers only take; whatever they would send is not wanted.
        line(out, format_args!("a=recvonly\r\na=rtcp-mux"));
        if self.reduced_size {
            out.push_str("a=rtcp-rsize\r\n");
        }
        for extension in &self.extensions {
            if EXTENSIONS
                .iter()
                .any(|uri| extension.split(' ').any(|word| word == *uri))
            {
                line(out, format_args!("a=extmap:{extension}"));
            }
        }
        line(out, format_args!("a=rtpmap:{number} {name}"));
        for feedback in &codec.feedback {
            line(out, format_args!("a=rtcp-fb:{number} {feedback}"));
        }
        if !codec.parameters.is_empty() {
            let parameters = codec.parameters.join(";");
            line(out, format_args!("a=fmtp:{number} {parameters}"));
        }
        Ok(())
    }
}

impl Codec {
    fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn is_opus(&self) -> bool {
        // The channel count of RFC 7587 is always 2, but some answer a mono offer with 1 or none.
        let mut parts = self.name.split('/');
        parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("opus"))
            && parts.next() == Some("48000")
    }

    /// 0 for a packetization mode we do not speak, else the better the nearer to `42e01f`.
    fn h264_rank(&self) -> u8 {
        if self.parameter("packetization-mode") != Some("1") {
            return 0;
        }
        let profile = self.parameter("profile-level-id").unwrap_or_default();
        if profile.eq_ignore_ascii_case("42e01f") {
            3
        } else if profile.to_ascii_lowercase().starts_with("42") {
            2
        } else {
            1
        }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn merge(&mut self, parameters: &str) {
        for parameter in parameters
            .split(';')
            .map(str::trim)
            .filter(|p| !p.is_empty())
        {
            let key = parameter.split('=').next().unwrap_or_default();
            // Chromium's private bitrate hints, which Wowza hands back.
            let private = key.starts_with("x-google-");
            if self.parameters.len() == LIST_MAX {
                break;
            }
            if !private
                && !self
                    .parameters
                    .iter()
                    .any(|p| p.split('=').next() == Some(key))
            {
                self.parameters.push(parameter.to_owned());
            }
        }
    }
}

fn attribute(line: &str) -> (&str, Option<&str>) {
    match line.split_once(':') {
        // An empty value says nothing.
        Some((name, value)) => (name.trim(), Some(value.trim()).filter(|v| !v.is_empty())),
        None => (line, None),
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    write!(out, "{text}\r\n").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests;
