//! What the fuzz targets of `tests/fuzz` run, kept in the library so that a change cannot break them unseen.
//! The committed corpus is replayed through these functions by the ordinary tests.
//!
//! Each takes any bytes, and panics where a promise is broken: what is accepted must hold what the parsers say
//! of it, and nothing else may happen at all.

use std::path::Path;

use serde_json::Value;

use crate::capture::file::read::{Wav, Y4m};
use crate::config::ice_server::IceUrl;
use crate::config::raw::{self, Env};
use crate::media::access_unit::nal_units;
use crate::net::Target;
use crate::net::http::Reply;
use crate::peer::candidate::Candidate;
use crate::peer::turn;
use crate::recorder::frame::{self, Found};
use crate::signal::candidate;
use crate::signal::sdp::{self, Kind};
use crate::signal::whip::redirect::{Trail, Turn};
use crate::signal::whip::reply::{self, Said};
use crate::signal::whip::{link, sdpfrag};
use crate::signal::wowza_v2::{liveness, message};
use crate::signal::{ome, wowza_v1};

/// An H.264 byte stream: units are not empty, do not end in zeros and hold no start code.
pub fn annex_b(data: &[u8]) {
    let mut total = 0;
    for unit in nal_units(data) {
        assert_ne!(unit.last().copied(), Some(0));
        assert!(!unit.is_empty());
        assert!(!unit.windows(3).any(|bytes| bytes == [0, 0, 1]));
        total += unit.len() + 3;
    }
    assert!(total <= data.len());
}

/// A line that may be a candidate or the URL of an ICE server: what is accepted says itself again unchanged, and what
/// signalling lets through the engine is told.
pub fn candidate(data: &[u8]) {
    let line = String::from_utf8_lossy(data);
    if let Ok(once) = candidate::normalize(&line) {
        assert_eq!(candidate::normalize(&once).as_ref(), Ok(&once));
        assert!(Candidate::parse(&once).is_some(), "{once}");
    }
    if let Some(candidate) = Candidate::parse(&line) {
        let once = candidate.line();
        let again = Candidate::parse(&once).map(|candidate| candidate.line());
        assert_eq!(again.as_ref(), Some(&once));
    }
    if let Ok(url) = line.parse::<IceUrl>() {
        assert_eq!(url.to_string().parse(), Ok(url));
    }
}

/// A configuration file: accepted, or refused with at least one fault, each at a place in the text.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let env = Env {
        base: Path::new("/etc/onair"),
        fetch: &|_| Ok(Some("fetched".to_owned())),
        open: &|_| Ok(()),
    };
    if let Err(faults) = raw::parse(&text, &env) {
        assert!(!faults.is_empty());
        let lines = text.split('\n').count();
        for fault in faults {
            assert!((1..=lines).contains(&fault.line), "{fault:?}");
            assert!(fault.column >= 1, "{fault:?}");
        }
    }
}

/// A message of OvenMediaEngine: candidates are in the one form.
pub fn ome_message(data: &[u8]) {
    let Ok(message @ Value::Object(_)) = serde_json::from_slice(data) else {
        return;
    };
    match ome::read(&message) {
        Some(ome::Said::Candidates(list)) => candidates(&list),
        Some(ome::Said::Offer { offer, remote, .. }) => {
            candidates(&remote.candidates);
            description(offer);
        }
        Some(ome::Said::Error { .. } | ome::Said::Misshapen(_)) | None => {}
    }
}

/// A file of the flight recorder: every byte is in a record or in a gap, no two gaps follow each other, and what is
/// written behind it is found.
pub fn recorder(data: &[u8]) {
    let mut n_bytes = 0;
    let mut gap = false;
    for found in frame::Reader::new(data) {
        match found {
            Found::Line(line) => {
                n_bytes += frame::HEADER + line.len() + 1;
                gap = false;
            }
            Found::Torn(length) => {
                assert!(length > 0 && !gap);
                n_bytes += length;
                gap = true;
            }
        }
    }
    assert_eq!(n_bytes, data.len());
    let mut longer = data.to_vec();
    assert!(frame::write("{}", &mut longer));
    assert_eq!(frame::Reader::new(&longer).last(), Some(Found::Line("{}")));
}

/// A session description: what is made regular stays as it is when made regular again.
pub fn sdp(data: &[u8]) {
    description(&String::from_utf8_lossy(data));
}

/// `Link` fields, one a line: at most eight ICE servers, whose URLs are read again as they print.
pub fn link_header(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let servers = link::ice_servers(text.lines());
    assert!(servers.len() <= 8);
    for server in servers {
        assert_eq!(server.url.to_string().parse(), Ok(server.url));
    }
}

/// An SDP fragment: credentials of one line each, candidates in the one form, and both put into a description that can
/// still be read.
pub fn sdpfrag(data: &[u8]) {
    const ANSWER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n\
                          a=fingerprint:sha-256 AA\r\na=rtpmap:111 opus/48000/2\r\n";
    let theirs = sdpfrag::Theirs::read(&String::from_utf8_lossy(data));
    candidates(&theirs.candidates);
    let Some(credentials) = theirs.credentials else {
        return;
    };
    let changed = sdpfrag::with_credentials(ANSWER, &credentials);
    assert_eq!(changed.lines().count(), ANSWER.lines().count());
    assert_eq!(
        sdpfrag::Theirs::read(&changed).credentials,
        Some(credentials)
    );
    assert!(sdp::regular(&changed, Kind::Answer).is_ok());
}

/// A WHIP server's reply, as a status, header fields a line each, an empty line and a body: what is let on leaves TLS
/// nowhere, and what it says fits a request and a description.
pub fn whip_reply(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.trim().parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let reply = Reply::new(status.unwrap_or(201), headers.collect(), body.to_owned());
    let home = Target::parse_http("https://h.example/app/stream?direction=whip", &[])
        .expect("a URL as it must be");
    let mut trail = Trail::new(home.clone());
    let mut n_turns = 0;
    while let Turn::On = trail.take(&reply) {
        n_turns += 1;
        assert!(n_turns <= 5 && trail.target().is_tls());
    }
    match reply::read(&reply, &home) {
        Said::Answer {
            session,
            etag,
            ice_servers,
        } => {
            assert!(session.is_none_or(|session| session.is_tls()));
            assert!(etag.is_none_or(|tag| tag.bytes().all(|b| b.is_ascii_graphic())));
            assert!(ice_servers.len() <= 8);
            description(body);
        }
        Said::Refused { text, retry_after } => {
            assert!(!text.is_empty());
            assert!(retry_after.is_none_or(|wait| wait.as_secs() <= 3600));
        }
    }
}

/// What a TURN server sends on a stream: answered by few and well-formed messages.
pub fn turn(data: &[u8]) {
    turn::survive(data);
}

/// A WAV file: samples are finite, within the full scale, and end.
pub fn wav(data: &[u8]) {
    let Ok(mut wav) = Wav::new(data) else {
        return;
    };
    // A sample takes a byte or more.
    for _ in 0..=data.len() {
        match wav.next() {
            Ok(Some((left, right))) => {
                assert!(left.abs() <= 1.0 && right.abs() <= 1.0, "{left} {right}");
            }
            Ok(None) => return,
            Err(fault) => return assert!(fault.offset <= data.len() as u64, "{fault:?}"),
        }
    }
    panic!("more samples than bytes");
}

/// A message of the older Wowza dialect: candidates are in the one form.
pub fn wowza_message(data: &[u8]) {
    let Ok(message @ Value::Object(_)) = serde_json::from_slice(data) else {
        return;
    };
    match wowza_v1::read(&message) {
        Some(wowza_v1::Said::Answer {
            answer,
            candidates: list,
        }) => {
            candidates(&list);
            description(answer);
        }
        Some(wowza_v1::Said::Candidates(list)) => candidates(&list),
        Some(
            wowza_v1::Said::Foreign
            | wowza_v1::Said::Misshapen(_)
            | wowza_v1::Said::NotYet { .. }
            | wowza_v1::Said::Refused { .. },
        )
        | None => {}
    }
}

/// A message of the newer Wowza dialect: a connection id is one that can be sent back, a refusal is not a success, and a
/// list of streams is read without regard to the rest.
pub fn wowza_v2_message(data: &[u8]) {
    let Ok(said @ Value::Object(_)) = serde_json::from_slice(data) else {
        return;
    };
    let seen = liveness::read_list(&said, "front");
    if said.get("statusCode").is_none() && said.get("status").is_none() {
        assert_eq!(seen.is_some(), said.get("availableStreams").is_some());
    }
    match message::read(&said) {
        Some(message::Said::Candidate(line)) => candidates(&candidate::usable([line])),
        Some(message::Said::Reply(message::Reply::Answer { id, answer })) => {
            assert!(id.is_none_or(|id| {
                id.is_number() || id.as_str().is_some_and(|id| (1..=256).contains(&id.len()))
            }));
            description(&answer);
        }
        Some(message::Said::Reply(message::Reply::NotYet { status, .. })) => {
            assert!(matches!(status, 504 | 514));
        }
        Some(message::Said::Reply(message::Reply::Refused { status, .. })) => {
            assert!(!matches!(status, 200..=299 | 504 | 514));
        }
        Some(message::Said::Foreign | message::Said::Misshapen(_)) | None => {}
    }
}

/// A Y4M file: pictures have the size that the header says, and end.
pub fn y4m(data: &[u8]) {
    let Ok(mut y4m) = Y4m::new(data) else {
        return;
    };
    let mut pictures_len = 0;
    loop {
        match y4m.next() {
            Ok(Some(picture)) => {
                let (width, height) = (picture.width as usize, picture.height as usize);
                assert!(width % 2 == 0 && height % 2 == 0, "{width}x{height}");
                assert_eq!(picture.data.len(), width * height * 3 / 2);
                pictures_len += picture.data.len();
                assert!(pictures_len <= data.len());
            }
            Ok(None) => return,
            Err(fault) => return assert!(fault.offset <= data.len() as u64, "{fault:?}"),
        }
    }
}

fn description(text: &str) {
    candidates(&sdp::candidates(text));
    for kind in [Kind::Answer, Kind::Offer] {
        let Ok(once) = sdp::regular(text, kind) else {
            continue;
        };
        assert!(
            once.split_inclusive("\r\n")
                .all(|line| line.ends_with("\r\n"))
        );
        assert_eq!(sdp::regular(&once, kind).as_ref(), Ok(&once));
        assert!(sdp::candidates(&once).is_empty());
        if let Ok(types) = sdp::payload_types(&once) {
            assert!(types.h264 >= 35 && types.opus >= 35, "{types:?}");
        }
    }
    // Our own description passes the same reader; whatever it says, it must not panic.
    let ours = sdp::wowza_offer(text);
    assert!(!ours.lines().any(|line| line.starts_with("a=candidate:")));
    let checked = sdp::check_ome_answer(text, &ours);
    assert!(checked.is_ok() || checked.is_err_and(|why| !why.is_empty()));
}

fn candidates(list: &[String]) {
    assert!(list.len() <= 32);
    for line in list {
        assert_eq!(candidate::normalize(line).as_ref(), Ok(line));
    }
}
