use super::*;

#[tokio::test(start_paused = true)]
async fn both_partings_delete_the_session_once() {
    for parting in [Parting::Stop, Parting::Abandon] {
        let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
        let ((), heard) = tokio::join!(whip.close(parting), far.status(200));
        assert_eq!(heard.asked, "DELETE https://h.example:3334/app/s/8chars");
        assert_eq!(heard.header("authorization"), Some("Bearer hush-hush"));
        assert_eq!(heard.header("if-match"), None);
        assert_eq!(heard.body, "");
        whip.close(parting).await;
        assert!(far.is_left_alone());
    }
}

#[tokio::test(start_paused = true)]
async fn parting_takes_two_seconds_at_most() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let started = Instant::now();
    let (_, kept) = tokio::join!(whip.close(Parting::Stop), far.hear());
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    drop(kept);
}

/// With the network away when we part, the session would hold the name against our next one.
#[tokio::test(start_paused = true)]
async fn a_session_that_could_not_be_deleted_is_deleted_before_the_next_one() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let (_, unanswered) = tokio::join!(whip.close(Parting::Abandon), far.hear());
    drop(unanswered);
    let body = answer();
    let server = async {
        let first = far.status(200).await;
        (first, far.serve(SESSION, &body).await)
    };
    let (remote, (first, then)) = tokio::join!(whip.exchange(OUR_OFFER), server);
    assert!(remote.unwrap().is_some());
    assert_eq!(first.asked, "DELETE https://h.example:3334/app/s/8chars");
    assert!(then.asked.starts_with("POST "), "{}", then.asked);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_deleted_when_the_server_says_that_it_is_gone_and_not_before() {
    for (status, is_gone) in [
        (200, true),
        (204, true),
        (404, true),
        (410, true),
        (401, false),
        (403, false),
        (429, false),
        (500, false),
        (503, false),
    ] {
        let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
        let ((), _) = tokio::join!(whip.close(Parting::Abandon), far.status(status));
        assert_eq!(whip.orphan.is_none(), is_gone, "{status}");
        if is_gone {
            whip.close(Parting::Stop).await;
            assert!(far.is_left_alone(), "{status}");
        } else {
            // As when the publisher is stopped while it waits.
            let ((), heard) = tokio::join!(whip.close(Parting::Stop), far.status(200));
            assert_eq!(heard.asked, "DELETE https://h.example:3334/app/s/8chars");
        }
    }
}

/// A stop may come at any await.
#[tokio::test(start_paused = true)]
async fn a_stop_while_an_old_session_is_being_deleted_does_not_forget_it() {
    let (mut whip, mut far) = let_on(Trickle::Sdpfrag).await;
    let ((), _) = tokio::join!(whip.close(Parting::Abandon), far.status(503));
    let kept = {
        let exchange = whip.exchange(OUR_OFFER);
        tokio::select! {
            biased;
            kept = far.hear() => kept,
            _ = exchange => panic!("nothing was replied"),
        }
    };
    drop(kept);
    let ((), heard) = tokio::join!(whip.close(Parting::Stop), far.status(200));
    assert_eq!(heard.asked, "DELETE https://h.example:3334/app/s/8chars");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expired_meanwhile_is_renewed_for_deleting() {
    for status in [401, 403] {
        let (mut whip, mut far) = whip(URL, renewed(&["old-token", "new-token"]), Trickle::Sdpfrag);
        let body = answer();
        let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(SESSION, &body));
        remote.unwrap();
        let server = async { (far.status(status).await, far.status(200).await) };
        let ((), (old, new)) = tokio::join!(whip.close(Parting::Stop), server);
        assert!(old.asked.starts_with("DELETE ") && new.asked == old.asked);
        assert_eq!(old.header("authorization"), Some("Bearer old-token"));
        assert_eq!(new.header("authorization"), Some("Bearer new-token"));
        assert!(whip.orphan.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_elsewhere_is_deleted_without_the_token() {
    let (mut whip, mut far) = whip(URL, token("hush-hush"), Trickle::Sdpfrag);
    let head = SESSION.replace("/app", "https://edge.example/app");
    let body = answer();
    let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(&head, &body));
    remote.unwrap();
    let ((), heard) = tokio::join!(whip.close(Parting::Stop), far.status(200));
    assert_eq!(heard.asked, "DELETE https://edge.example/app/s/8chars");
    assert_eq!(heard.header("authorization"), None);
}

#[tokio::test(start_paused = true)]
async fn without_a_location_the_stream_goes_on_and_nothing_is_deleted() {
    let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
    let body = answer();
    let head = "HTTP/1.1 201 Created\r\n";
    let (remote, _) = tokio::join!(whip.exchange(OUR_OFFER), far.serve(head, &body));
    assert!(remote.unwrap().is_some());
    assert!(!whip.can_restart());
    whip.trickle(
        &["candidate:9 1 udp 5 192.0.2.9 9 typ relay".to_owned()],
        true,
    )
    .await
    .unwrap();
    whip.close(Parting::Stop).await;
    assert!(far.is_left_alone());
}

/// The server may have let us on when we are stopped before its reply: nobody else could free the name.
#[tokio::test(start_paused = true)]
async fn a_session_that_begins_while_we_stop_is_deleted() {
    let (mut whip, mut far) = whip(URL, None, Trickle::Sdpfrag);
    let (_, mut pipe) = {
        let exchange = whip.exchange(OUR_OFFER);
        tokio::select! {
            biased;
            heard = far.hear() => heard,
            _ = exchange => panic!("no reply was given"),
        }
    };
    let body = answer();
    let length = body.len();
    let reply = format!("{SESSION}content-length: {length}\r\n\r\n{body}");
    pipe.write_all(reply.as_bytes()).await.unwrap();
    let ((), heard) = tokio::join!(whip.close(Parting::Stop), far.status(200));
    assert_eq!(heard.asked, "DELETE https://h.example:3334/app/s/8chars");
}

#[tokio::test(start_paused = true)]
async fn the_end_is_never_heard_over_http() {
    let (mut whip, _far) = let_on(Trickle::Sdpfrag).await;
    let day = Duration::from_secs(86_400);
    assert!(timeout(day, whip.next()).await.is_err());
}
