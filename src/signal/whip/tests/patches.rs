use super::*;

const RELAYED: &str = "candidate:9 1 udp 7 192.0.2.1 61764 typ relay raddr 10.0.0.5 rport 9000";
const HOST: &str = "candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host";

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

async fn trickle(whip: &mut Whip, candidates: &[&str], last: bool) {
    whip.trickle(&lines(candidates), last).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn candidates_found_later_are_told_in_one_fragment() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let ((), heard) = tokio::join!(trickle(&mut whip, &[HOST, RELAYED], true), far.status(204));
    assert_eq!(heard.asked, "PATCH https://h.example:3334/app/s/8chars");
    assert_eq!(heard.header("content-type"), Some(FRAGMENT));
    assert_eq!(heard.header("if-match"), Some("t1"));
    assert_eq!(heard.header("authorization"), Some("Bearer hush-hush"));
    let ends = format!("a={RELAYED}\r\na=end-of-candidates\r\n");
    assert!(heard.body.ends_with(&ends), "{}", heard.body);
    assert!(
        heard
            .body
            .contains("a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n")
    );
    assert!(!heard.body.contains(HOST), "the offer held it");
    trickle(&mut whip, &[RELAYED], true).await;
    assert!(far.is_left_alone(), "all has been said");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_where_there_is_nothing_new() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    trickle(&mut whip, &[], true).await;
    trickle(&mut whip, &[HOST], true).await;
    assert!(far.is_left_alone());
    let ((), heard) = tokio::join!(trickle(&mut whip, &[RELAYED], false), far.status(204));
    assert!(!heard.body.contains("end-of-candidates"));
    let ((), heard) = tokio::join!(trickle(&mut whip, &[], true), far.status(204));
    assert!(
        heard.body.ends_with("a=end-of-candidates\r\n"),
        "{}",
        heard.body
    );
}

#[tokio::test(start_paused = true)]
async fn wowza_is_told_bare_lines() {
    let (mut whip, mut far) = let_on(Trickle::Bare).await;
    let server = async { [far.status(200).await, far.status(200).await] };
    let ((), [line, end]) = tokio::join!(trickle(&mut whip, &[RELAYED], true), server);
    assert_eq!((line.body.as_str(), end.body.as_str()), (RELAYED, ""));
    assert_eq!(line.header("content-type"), Some(FRAGMENT));
    assert_eq!(line.header("if-match"), None);
}

#[tokio::test(start_paused = true)]
async fn trickling_can_be_off() {
    let (mut whip, mut far) = let_on(Trickle::Off).await;
    trickle(&mut whip, &[RELAYED], true).await;
    assert!(far.is_left_alone());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_candidates_is_never_told_again() {
    for status in [400, 404, 405, 422, 501] {
        let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
        let ((), _) = tokio::join!(trickle(&mut whip, &[RELAYED], false), far.status(status));
        trickle(&mut whip, &[&RELAYED.replace("61764", "1")], true).await;
        assert!(far.is_left_alone(), "{status}");
        let body = answer();
        let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(SESSION, &body));
        remote.unwrap();
        trickle(&mut whip, &[RELAYED], true).await;
        assert!(far.is_left_alone(), "{status}: nor in the next session");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_in_trouble_is_told_the_next_ones() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let ((), _) = tokio::join!(trickle(&mut whip, &[RELAYED], false), far.status(503));
    let other = RELAYED.replace("61764", "1");
    let other = [other.as_str()];
    let ((), heard) = tokio::join!(trickle(&mut whip, &other, true), far.status(204));
    assert!(heard.body.contains(other[0]));
    // One that took some and then knows nothing of the session has lost it, not its ear.
    let third = RELAYED.replace("61764", "2");
    let third = [third.as_str()];
    let ((), _) = tokio::join!(trickle(&mut whip, &third, true), far.status(404));
    assert_eq!(whip.hears, Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_entity_tag_is_mended_once() {
    const NEWER: &str = "etag: t2\r\n";
    // (status, further header, the second If-Match; none if there is no second request)
    for (status, header, second) in [
        (412, "", Some(None)),
        (412, NEWER, Some(Some("t2"))),
        (428, NEWER, Some(Some("t2"))),
        (428, "", None),
    ] {
        let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
        let server = async {
            far.serve(&format!("HTTP/1.1 {status} x\r\n{header}"), "")
                .await;
            match second {
                Some(_) => Some(far.status(412).await),
                None => None,
            }
        };
        let ((), heard) = tokio::join!(trickle(&mut whip, &[RELAYED], true), server);
        assert_eq!(heard.as_ref().map(|heard| heard.header("if-match")), second);
        assert!(far.is_left_alone(), "{status} {header}");
    }
}

#[tokio::test(start_paused = true)]
async fn telling_never_takes_longer_than_five_seconds() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let started = Instant::now();
    let ((), kept) = tokio::join!(trickle(&mut whip, &[RELAYED], true), far.hear());
    assert_eq!(started.elapsed(), TRICKLE_DEADLINE);
    drop(kept);
}

fn restarted() -> String {
    OUR_OFFER.replace(
        "a=mid:0",
        "a=ice-ufrag:fresh\r\na=ice-pwd:freshfreshfreshfreshfresh\r\na=mid:0",
    )
}

const THEIRS: &str = "a=ice-ufrag:srv2\r\na=ice-pwd:srv2srv2srv2srv2srv2srv2\r\n";

#[tokio::test(start_paused = true)]
async fn ice_is_restarted_with_credentials_on_both_sides() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    assert!(whip.can_restart());
    let offer = restarted();
    let head = "HTTP/1.1 200 x\r\ncontent-type: application/trickle-ice-sdpfrag\r\netag: t3\r\n";
    let (remote, heard) = tokio::join!(whip.restart(&offer), far.serve(head, THEIRS));
    assert_eq!(heard.asked, "PATCH https://h.example:3334/app/s/8chars");
    assert_eq!(heard.header("if-match"), Some("*"));
    assert!(
        heard
            .body
            .contains("a=ice-ufrag:fresh\r\na=ice-pwd:freshfreshfreshfreshfresh\r\n")
    );
    assert!(heard.body.contains(HOST), "{}", heard.body);
    let remote = remote.unwrap();
    assert_eq!(remote.sdp.matches("a=ice-ufrag:srv2\r\n").count(), 2);
    assert_eq!(remote.sdp.matches("a=ice-pwd:srv2").count(), 2);
    assert!(remote.sdp.contains("DF:48:8D:B7"), "all else stays");
    assert!(
        has_candidates(&remote, &[("udp", 8000)]),
        "and so do candidates"
    );
    // The new entity tag is used, and a restart can follow a restart.
    let ((), heard) = tokio::join!(trickle(&mut whip, &[RELAYED], true), far.status(204));
    assert_eq!(heard.header("if-match"), Some("t3"));
    assert!(heard.body.contains("a=ice-ufrag:fresh\r\n"));
    let new =
        THEIRS.to_owned() + "m=audio 9 x 0\r\na=candidate:1 1 udp 5 192.0.2.8 8001 typ host\r\n";
    let (remote, _) = tokio::join!(whip.restart(&offer), far.serve(head, &new));
    assert!(has_candidates(&remote.unwrap(), &[("udp", 8001)]));
}

#[tokio::test(start_paused = true)]
async fn wowza_is_sent_bare_credentials() {
    let (mut whip, mut far) = let_on(Trickle::Bare).await;
    let offer = restarted();
    let (remote, heard) = tokio::join!(
        whip.restart(&offer),
        far.serve("HTTP/1.1 200 x\r\n", THEIRS)
    );
    assert_eq!(
        heard.body,
        "a=ice-ufrag:fresh\r\na=ice-pwd:freshfreshfreshfreshfresh\r\n"
    );
    assert_eq!(heard.header("if-match"), None);
    assert!(remote.unwrap().sdp.contains("srv2"));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_restart_calls_for_a_new_session() {
    // (status, whether the next session is spared the question)
    for (status, remembered) in [
        (200, true),
        (204, true),
        (405, true),
        (501, true),
        (400, false),
        (404, false),
        (409, false),
        (410, false),
        (500, false),
    ] {
        let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
        let offer = restarted();
        let (remote, _) = tokio::join!(whip.restart(&offer), far.status(status));
        assert!(matches!(remote, Err(Error::NoRestart)), "{status}");
        assert!(!whip.can_restart(), "{status}");
        assert!(matches!(whip.restart(&offer).await, Err(Error::NoRestart)));
        let body = answer();
        let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(SESSION, &body));
        remote.unwrap();
        assert_eq!(whip.can_restart(), !remembered, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_asked_again_every_two_seconds_for_eight() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let offer = restarted();
    let started = Instant::now();
    let server = async {
        far.status(425).await;
        far.serve("HTTP/1.1 200 x\r\n", THEIRS).await
    };
    let (remote, _) = tokio::join!(whip.restart(&offer), server);
    remote.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(2));

    let started = Instant::now();
    let server = async {
        for _ in 0..4 {
            far.status(425).await;
        }
    };
    let (remote, ()) = tokio::join!(whip.restart(&offer), server);
    assert!(matches!(remote, Err(Error::NoRestart)));
    assert_eq!(started.elapsed(), Duration::from_secs(6));
    assert!(far.is_left_alone());
}

#[tokio::test(start_paused = true)]
async fn a_silent_restart_ends_after_eight_seconds() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let offer = restarted();
    let started = Instant::now();
    let (remote, kept) = tokio::join!(whip.restart(&offer), far.hear());
    assert!(matches!(remote, Err(Error::Timeout { .. })));
    assert_eq!(started.elapsed(), RESTART_DEADLINE);
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_no_star_is_asked_without() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let offer = restarted();
    let server = async {
        far.status(412).await;
        let quoted = far.status(412).await;
        let without = far.serve("HTTP/1.1 200 x\r\n", THEIRS).await;
        [quoted, without]
    };
    let (remote, [quoted, without]) = tokio::join!(whip.restart(&offer), server);
    assert_eq!(quoted.header("if-match"), Some("\"*\""));
    assert_eq!(without.header("if-match"), None);
    remote.unwrap();

    let server = async {
        for _ in 0..3 {
            far.status(412).await;
        }
    };
    let (remote, ()) = tokio::join!(whip.restart(&offer), server);
    assert!(matches!(remote, Err(Error::NoRestart)));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expired_meanwhile_is_renewed_for_candidates_and_restarts() {
    let (mut whip, mut far) = whip(
        URL,
        renewed(&["a-token", "b-token", "c-token"]),
        Trickle::Sdpfrag,
    );
    let body = answer();
    let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(SESSION, &body));
    remote.unwrap();
    let server = async { (far.status(401).await, far.status(204).await) };
    let ((), (_, heard)) = tokio::join!(trickle(&mut whip, &[RELAYED], true), server);
    assert_eq!(heard.header("authorization"), Some("Bearer b-token"));
    assert_eq!(whip.hears, Some(true));
    let offer = restarted();
    let server = async {
        far.status(403).await;
        far.serve("HTTP/1.1 200 x\r\n", THEIRS).await
    };
    let (remote, heard) = tokio::join!(whip.restart(&offer), server);
    remote.unwrap();
    assert_eq!(heard.header("authorization"), Some("Bearer c-token"));
}
