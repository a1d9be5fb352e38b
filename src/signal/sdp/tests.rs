//! What real servers send and strict engines refuse, one test each; and what no one may send.

use proptest::prelude::*;

use super::super::testing::{ome_answer, ome_offer, wowza_answer};
use super::*;

fn offer() -> String {
    ome_offer()["sdp"]["sdp"].as_str().unwrap().to_owned()
}

fn wowza() -> String {
    wowza_answer()["sdp"]["sdp"].as_str().unwrap().to_owned()
}

fn section<'a>(sdp: &'a str, kind: &str) -> &'a str {
    let start = sdp.find(&format!("m={kind} ")).unwrap();
    let end = sdp[start + 2..]
        .find("m=")
        .map_or(sdp.len(), |n| start + 2 + n);
    &sdp[start..end]
}

#[test]
fn payload_types_come_from_the_offer() {
    assert_eq!(
        payload_types(&offer()),
        Ok(PayloadTypes {
            h264: 100,
            opus: 102
        })
    );
    let moved = offer().replace("102", "104").replace("100", "96");
    assert_eq!(
        payload_types(&moved),
        Ok(PayloadTypes {
            h264: 96,
            opus: 104
        })
    );
}

#[test]
fn codec_names_are_read_in_any_case() {
    let sdp = offer()
        .replace("OPUS/48000/2", "oPuS/48000/2")
        .replace("H264/", "h264/");
    assert_eq!(
        payload_types(&sdp),
        Ok(PayloadTypes {
            h264: 100,
            opus: 102
        })
    );
}

#[test]
fn the_best_h264_is_taken() {
    let sdp = offer()
        .replace("SAVPF 100 101", "SAVPF 98 99 100 101")
        .replace(
            "a=rtpmap:100 H264/90000",
            "a=rtpmap:98 H264/90000\r\na=fmtp:98 packetization-mode=0;profile-level-id=42e01f\r\n\
             a=rtpmap:99 H264/90000\r\na=fmtp:99 packetization-mode=1;profile-level-id=640c1f\r\n\
             a=rtpmap:100 H264/90000",
        );
    assert_eq!(payload_types(&sdp).unwrap().h264, 100);
    let without = sdp.replace("a=rtpmap:100 H264", "a=rtpmap:100 H265");
    assert_eq!(payload_types(&without).unwrap().h264, 99);
    let none = without.replace("a=rtpmap:99 H264", "a=rtpmap:99 AV1");
    assert!(
        payload_types(&none)
            .unwrap_err()
            .contains("packetization-mode=1")
    );
}

#[test]
fn the_first_of_equal_h264_is_taken() {
    let sdp = offer().replace(
        "a=rtpmap:101 VP8/90000",
        "a=rtpmap:101 H264/90000\r\na=fmtp:101 packetization-mode=1;profile-level-id=42e01f",
    );
    assert_eq!(payload_types(&sdp).unwrap().h264, 100);
}

#[test]
fn session_level_ice_and_dtls_facts_reach_each_section() {
    let out = regular(&offer(), Kind::Offer).unwrap();
    for kind in ["video", "audio"] {
        let section = section(&out, kind);
        assert!(section.contains("a=ice-ufrag:tAjMZP\r\n"), "{section}");
        assert!(section.contains("a=ice-pwd:G05y3KFxrSzJuZm7OcA4b9qlfYngX1Nk\r\n"));
        assert!(section.contains("a=fingerprint:sha-256 5E:6C:32"));
        assert!(section.contains("a=setup:actpass\r\n"));
    }
}

#[test]
fn facts_of_a_section_win_over_those_of_the_session() {
    let sdp = offer().replace(
        "a=mid:oqhgXI",
        "a=mid:oqhgXI\r\na=ice-ufrag:mine\r\na=fingerprint:sha-256 AA:BB",
    );
    let out = regular(&sdp, Kind::Offer).unwrap();
    assert!(section(&out, "video").contains("a=ice-ufrag:mine\r\n"));
    assert!(section(&out, "video").contains("a=fingerprint:sha-256 AA:BB\r\n"));
    assert!(section(&out, "audio").contains("a=ice-ufrag:tAjMZP\r\n"));
}

#[test]
fn sections_keep_their_order_and_mids() {
    let out = regular(&offer(), Kind::Offer).unwrap();
    assert!(out.find("m=video").unwrap() < out.find("m=audio").unwrap());
    assert!(out.contains("a=group:BUNDLE oqhgXI m81o0l\r\n"));
    assert!(section(&out, "video").contains("a=mid:oqhgXI\r\n"));
}

#[test]
fn only_our_codec_and_no_foreign_extension_is_left() {
    let out = regular(&offer(), Kind::Offer).unwrap();
    assert!(out.contains("m=video 9 UDP/TLS/RTP/SAVPF 100\r\n"), "{out}");
    assert!(!out.contains("VP8"));
    assert!(!out.contains("CompositionTime"));
    assert!(!out.contains("a=extmap"));
    assert!(out.contains("a=rtcp-fb:100 nack pli\r\n"));
}

#[test]
fn the_mid_extension_may_stay() {
    let sdp = offer().replace(
        "a=mid:oqhgXI",
        "a=mid:oqhgXI\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
    );
    let out = regular(&sdp, Kind::Offer).unwrap();
    assert!(section(&out, "video").contains("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"));
}

#[test]
fn the_wowza_answer_becomes_regular() {
    let out = regular(&wowza(), Kind::Answer).unwrap();
    // RTP/SAVPF, c= behind attributes, fingerprint at session level, two fmtp lines with spaces, braces in
    // msid, attributes of its own.
    assert!(
        out.contains("m=video 9 UDP/TLS/RTP/SAVPF 108\r\nc=IN IP4 0.0.0.0\r\n"),
        "{out}"
    );
    assert!(section(&out, "audio").contains("a=fingerprint:sha-256 5E:6C"));
    assert!(
        out.contains("a=fmtp:111 minptime=10;useinbandfec=1\r\n"),
        "{out}"
    );
    assert!(out.contains(
        "a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n"
    ));
    for foreign in [
        "{",
        "cliprect",
        "framesize",
        "control",
        "x-google",
        "msid",
        "a=ssrc",
    ] {
        assert!(!out.contains(foreign), "{foreign}");
    }
}

#[test]
fn an_answer_that_would_send_too_counts_as_accepted() {
    let out = regular(&wowza().replace("a=recvonly", "a=sendrecv"), Kind::Answer).unwrap();
    assert!(!out.contains("a=sendrecv"));
    assert_eq!(out.matches("a=recvonly\r\n").count(), 2);
}

#[test]
fn several_parameter_lines_of_a_payload_type_are_merged() {
    let sdp = offer().replace(
        "a=fmtp:100 packetization-mode=1;profile-level-id=42e01f;level-asymmetry-allowed=1",
        "a=fmtp:100 packetization-mode=1\r\na=fmtp:100 profile-level-id=42E01F; packetization-mode=0",
    );
    let out = regular(&sdp, Kind::Offer).unwrap();
    assert!(
        out.contains("a=fmtp:100 packetization-mode=1;profile-level-id=42E01F\r\n"),
        "{out}"
    );
    assert_eq!(payload_types(&sdp).unwrap().h264, 100);
}

#[test]
fn lf_line_ends_are_read_and_crlf_written() {
    let out = regular(&offer().replace("\r\n", "\n"), Kind::Offer).unwrap();
    assert_eq!(out, regular(&offer(), Kind::Offer).unwrap());
    assert!(
        out.split('\n')
            .filter(|l| !l.is_empty())
            .all(|l| l.ends_with('\r'))
    );
}

#[test]
fn a_missing_rtcp_mux_is_assumed() {
    let out = regular(&wowza().replace("a=rtcp-mux\r\n", ""), Kind::Answer).unwrap();
    assert_eq!(out.matches("a=rtcp-mux\r\n").count(), 2);
}

#[test]
fn a_missing_setup_in_an_answer_is_passive() {
    let out = regular(&wowza().replace("a=setup:passive\r\n", ""), Kind::Answer).unwrap();
    assert_eq!(out.matches("a=setup:passive\r\n").count(), 2);
}

#[test]
fn a_server_that_wants_to_be_the_dtls_client_may() {
    let out = regular(
        &wowza().replace("setup:passive", "setup:active"),
        Kind::Answer,
    )
    .unwrap();
    assert_eq!(out.matches("a=setup:active\r\n").count(), 2);
}

#[test]
fn missing_mids_and_bundle_are_made_up() {
    let sdp = wowza()
        .replace("a=mid:0\r\n", "")
        .replace("a=mid:1\r\n", "")
        .replace("a=group:BUNDLE 0 1\r\n", "");
    let out = regular(&sdp, Kind::Answer).unwrap();
    assert!(out.contains("a=group:BUNDLE 0 1\r\n"));
    assert!(section(&out, "video").contains("a=mid:1\r\n"));
}

#[test]
fn an_empty_value_counts_as_missing() {
    let sdp = wowza()
        .replace("a=mid:1\r\n", "a=mid:\r\n")
        .replace("a=group:BUNDLE 0 1\r\n", "");
    let out = regular(&sdp, Kind::Answer).unwrap();
    assert!(out.contains("a=group:BUNDLE 0 1\r\n"));
    let sdp = wowza().replace("a=ice-ufrag:1f3a9c44", "a=ice-ufrag:");
    assert!(
        regular(&sdp, Kind::Answer)
            .unwrap_err()
            .contains("ice-ufrag")
    );
}

#[test]
fn bundle_only_with_port_zero_is_no_rejection() {
    let sdp = wowza()
        .replace("m=video 9", "m=video 0")
        .replace("a=mid:1", "a=mid:1\r\na=bundle-only");
    let out = regular(&sdp, Kind::Answer).unwrap();
    assert!(out.contains("m=video 9 "));
}

#[test]
fn a_rejected_video_track_names_the_setting_to_change() {
    for sdp in [
        wowza().replace("m=video 9", "m=video 0"),
        wowza()
            .replacen("a=recvonly", "a=recvonly ", 1)
            .replace("a=recvonly\r\n", "a=inactive\r\n"),
    ] {
        let why = regular(&sdp, Kind::Answer).unwrap_err();
        assert!(why.contains("PreferredCodecs"), "{why}");
    }
    let video = wowza().replace("m=video 9", "m=video 0");
    assert!(
        regular(&video, Kind::Answer)
            .unwrap_err()
            .contains("PreferredCodecsVideo")
    );
    let audio = wowza().replace("m=audio 9", "m=audio 0");
    assert!(regular(&audio, Kind::Answer).unwrap_err().contains("audio"));
}

#[test]
fn a_section_an_offer_does_not_use_stays_in_its_place() {
    let sdp = offer().replace("m=audio 9", "m=audio 0");
    let out = regular(&sdp, Kind::Offer).unwrap();
    assert!(out.contains("m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n"));
    assert!(section(&out, "audio").contains("a=inactive\r\n"));
}

#[test]
fn facts_that_media_needs_may_not_be_missing() {
    let cut = |start: &str| -> String {
        offer()
            .lines()
            .filter(|l| !l.starts_with(start))
            .map(|l| format!("{l}\r\n"))
            .collect()
    };
    for (start, what) in [
        ("a=fingerprint", "fingerprint"),
        ("a=ice-ufrag", "ice-ufrag"),
        ("a=ice-pwd", "ice-pwd"),
        ("a=rtpmap:100", "codec"),
    ] {
        let why = regular(&cut(start), Kind::Offer).unwrap_err();
        assert!(why.contains(what), "{start}: {why}");
    }
}

#[test]
fn unencrypted_media_is_refused() {
    let why = regular(&wowza().replace("RTP/SAVPF", "RTP/AVP"), Kind::Answer).unwrap_err();
    assert!(why.contains("not encrypted"), "{why}");
}

#[test]
fn sha_256_is_preferred_among_fingerprints_of_a_session() {
    let sdp = offer().replacen(
        "a=fingerprint:",
        "a=fingerprint:sha-1 AA:BB\r\na=fingerprint:",
        1,
    );
    assert!(!regular(&sdp, Kind::Offer).unwrap().contains("sha-1"));
}

#[test]
fn candidates_leave_the_description_and_are_listed_apart() {
    let sdp = wowza()
        + "a=candidate:1 1 UDP 5 203.0.113.1 10000 typ host generation 0\r\na=end-of-candidates\r\n";
    assert!(!regular(&sdp, Kind::Answer).unwrap().contains("candidate"));
    assert_eq!(
        candidates(&sdp),
        ["candidate:1 1 udp 5 203.0.113.1 10000 typ host"]
    );
}

#[test]
fn garbage_and_excess_are_refused_with_a_sentence() {
    let long = format!("{}a=x:{}\r\n", offer(), "y".repeat(SDP_MAX));
    let many = format!(
        "{}{}",
        offer(),
        "m=audio 9 UDP/TLS/RTP/SAVPF 102\r\n".repeat(SECTIONS_MAX)
    );
    for sdp in [
        "",
        "v=0",
        "garbage",
        "\0\0\0",
        "v=0\r\nm=",
        "v=0\r\nm=video",
        "v=0\r\nm=video x y z",
        "v=0\r\nm=video 99999 RTP/SAVPF 1",
        &long,
        &many,
    ] {
        assert!(regular(sdp, Kind::Offer).is_err(), "{sdp}");
        assert!(payload_types(sdp).is_err(), "{sdp}");
    }
    assert!(
        candidates(&format!(
            "{long}a=candidate:1 1 udp 5 203.0.113.1 1 typ host"
        ))
        .is_empty()
    );
}

#[test]
fn lists_in_a_section_are_bounded() {
    let many: String = (0..10_000).map(|n| format!("p{n}=1;")).collect();
    let sdp = offer().replace(
        "a=fmtp:100 ",
        &format!("a=fmtp:100 packetization-mode=1;{}", &many[..40_000]),
    );
    let out = regular(&sdp, Kind::Offer).unwrap();
    assert!(out.len() < 4096, "{}", out.len());
}

#[test]
fn what_is_written_can_be_read_and_says_the_same() {
    for (sdp, kind) in [(offer(), Kind::Offer), (wowza(), Kind::Answer)] {
        let once = regular(&sdp, kind).unwrap();
        assert_eq!(regular(&once, kind).unwrap(), once);
    }
}

#[test]
fn our_offer_to_wowza_has_no_candidate_and_no_transport_wide_feedback() {
    let out = wowza_offer(super::super::testing::OUR_OFFER);
    for gone in ["candidate", "transport-cc", "transport-wide-cc"] {
        assert!(!out.contains(gone), "{gone}");
    }
    assert!(out.contains("a=rtcp-fb:108 nack pli\r\n"));
    assert!(out.contains("a=sendonly\r\n"));
}

#[test]
fn an_answer_that_ome_would_swallow_is_not_sent() {
    let (offer, answer) = (offer(), ome_answer());
    assert_eq!(check_ome_answer(&offer, answer), Ok(()));
    let one_section = &answer[..answer.find("m=audio").unwrap()];
    for (bad, why) in [
        (answer.replace("a=ssrc:", "a=x-ssrc:"), "SSRC"),
        (
            answer.replace("setup:active", "setup:passive"),
            "DTLS client",
        ),
        (answer.replace("a=sendonly", "a=recvonly"), "does not send"),
        (answer.replace("a=sendonly", "a=inactive"), "sends nothing"),
        (
            answer.replace(
                "a=extmap:3 http",
                "a=extmap:5 uri:ietf:rtc:rtp-hdrext:video:CompositionTime http",
            ),
            "CompositionTime",
        ),
        (one_section.to_owned(), "1 media sections, the offer 2"),
    ] {
        let got = check_ome_answer(&offer, &bad).unwrap_err();
        assert!(got.contains(why), "{got}");
    }
}

proptest! {
    /// Cutting, doubling and mixing lines of real descriptions never panics, and what is accepted is a fixed
    /// point.
    #[test]
    fn mangled_descriptions_are_refused_or_regular(picks in prop::collection::vec((0_usize..140, 0_usize..60), 0..80)) {
        let all = offer() + &wowza();
        let lines: Vec<&str> = all.lines().collect();
        let mangled: String = std::iter::once("v=0\r\n".to_owned())
            .chain(picks.iter().map(|(n, cut)| {
                let line = lines[n % lines.len()];
                format!("{}\r\n", &line[..line.len().saturating_sub(cut.saturating_sub(50))])
            }))
            .collect();
        for kind in [Kind::Offer, Kind::Answer] {
            if let Ok(once) = regular(&mangled, kind) {
                prop_assert_eq!(regular(&once, kind).unwrap(), once);
            }
        }
    }
}

#[test]
fn what_is_kept_of_a_description_holds_no_credentials() {
    let sdp = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=planted\r\nt=0 0\r\nm=video 9 RTP/SAVPF 96\n\
               a=ice-ufrag:planted\r\na=ice-pwd:planted:planted\r\na=fingerprint:sha-256 AA:BB\r\n\
               a=crypto:1 AES_CM_128 inline:planted\r\n\
               a=candidate:1 1 udp 1 192.0.2.1 9 typ host ufrag planted generation 0\r\n";
    let kept = discreet(sdp);
    assert!(!kept.contains("planted"), "{kept}");
    for line in [
        "s=***\r\n",
        "a=ice-pwd:***\r\n",
        "a=fingerprint:sha-256 AA:BB\r\n",
        "typ host ufrag *** generation 0\r\n",
    ] {
        assert!(kept.contains(line), "{line}: {kept}");
    }
    assert!(discreet(&"a=x\n".repeat(SDP_MAX)).len() <= SDP_MAX);
}
