//! What the fuzz targets of `tests/fuzz` run, kept in the library so that a change cannot break them unseen.
//! The committed corpus is replayed through these functions by the ordinary tests.
//!
//! Each takes any bytes, and panics where a promise is broken: what is accepted must hold what the parsers say
//! of it, and nothing else may happen at all.

use std::path::Path;

use serde_json::Value;

use crate::capture::file::read::{Wav, Y4m};
use crate::config::raw::{self, Env};
use crate::media::access_unit::nal_units;
use crate::peer::turn;
use crate::signal::candidate;
use crate::signal::sdp::{self, Kind};
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

/// A session description: what is made regular stays as it is when made regular again.
pub fn sdp(data: &[u8]) {
    description(&String::from_utf8_lossy(data));
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
