//! While media flows: closing, refusals, parting, and the looks at the server's list of streams.

use std::sync::Mutex;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::super::liveness::{FIRST_LOOK, LOOK_PERIOD, RECHECK};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_close_while_media_flows_ends_the_session_with_code_and_reason() {
    let (mut wowza, mut far) = answered().await;
    far.hang_up(1001, "the application restarts").await;
    let result = wowza.next().await;
    let Err(Error::Closed {
        code: Some(1001),
        reason,
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert_eq!(reason, "the application restarts");

    let (mut wowza, far) = answered().await;
    drop(far);
    let result = wowza.next().await;
    assert!(
        matches!(result, Err(Error::Closed { code: None, .. })),
        "{result:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn close_codes_4401_4403_4404_and_a_status_in_the_reason_are_refusals() {
    for (code, reason, wanted) in [
        (4401, "", 401),
        (4403, "", 403),
        (4404, "", 404),
        (1000, "the Engine ended the session (status 404)", 404),
    ] {
        let (mut wowza, mut far) = answered().await;
        far.hang_up(code, reason).await;
        let result = wowza.next().await;
        let Err(Error::Refused {
            status,
            step: Step::Live,
            ..
        }) = result
        else {
            panic!("{result:?}")
        };
        assert_eq!(status, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_while_media_flows_is_the_end_unless_it_is_on_a_single_message() {
    let (mut wowza, mut far) = answered().await;
    far.say_text("hello").await;
    for passed_over in [400, 409, 425, 504, 200] {
        far.say(&status(passed_over, "hm")).await;
    }
    far.say(&wowza_answer()).await;
    far.say(&status(410, "the session ended")).await;
    let result = wowza.next().await;
    let Err(Error::Refused {
        status: 410,
        step: Step::Live,
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
}

#[tokio::test(start_paused = true)]
async fn parting_is_close_and_a_close_frame_and_late_frames_are_not_heard() {
    for parting in [Parting::Stop, Parting::Abandon] {
        let (mut wowza, mut far) = answered().await;
        far.say(&status(500, "in flight")).await;
        wowza.close(parting).await;
        assert_eq!(
            far.hear().await,
            json!({
                "messageType": "CLOSE", "action": "PUBLISH", "applicationName": "live", "streamName": STREAM,
                "connectionId": "b4f0c2",
            })
        );
        assert!(far.hear_goodbye().await);
        wowza.close(parting).await;
    }
}

#[tokio::test(start_paused = true)]
async fn parting_from_a_server_that_does_not_read_takes_two_seconds_at_most() {
    let (mut wowza, _far) = answered().await;
    // The pipe holds 64 KiB, and nobody reads it.
    let session = wowza.session.as_mut().unwrap();
    let fill = session.socket.send("x".repeat(1 << 20));
    assert!(timeout(Duration::from_secs(1), fill).await.is_err());
    let begin = Instant::now();
    wowza.close(Parting::Stop).await;
    assert!(begin.elapsed() <= Duration::from_secs(2));
}

// --- the list of streams -------------------------------------------------------------------------------------

/// What a look meets.
#[derive(Clone, Copy)]
enum Meets {
    List(&'static [&'static str]),
    NoConnection,
    Refusal,
    Silence,
}

const LISTED: Meets = Meets::List(&["other", "front"]);
const MISSING: Meets = Meets::List(&["other", "front_m"]);

/// Serves one look after another.
async fn serve(mut looks: mpsc::UnboundedReceiver<(Far, Meets)>) {
    while let Some((mut far, meets)) = looks.recv().await {
        assert_eq!(
            far.hear().await,
            json!({ "messageType": "GET_AVAILABLE_STREAMS", "applicationName": "live" })
        );
        match meets {
            Meets::List(names) => {
                let names: Vec<_> = names.iter().map(|n| json!({ "streamName": n })).collect();
                far.say(&json!({ "hello": true })).await;
                far.say(&json!({ "availableStreams": names })).await;
                assert!(far.hear_goodbye().await);
            }
            Meets::Refusal => {
                far.say(&status(403, "query is off")).await;
                assert!(far.hear_goodbye().await);
            }
            // Until the look is given up.
            Meets::Silence => assert!(!far.hear_goodbye().await),
            Meets::NoConnection => unreachable!("there is nobody to serve"),
        }
    }
}

/// The times of the looks, counted from the answer, and how they end, if they do within a day. The last of `script` is
/// met for ever.
async fn watched(script: &[Meets]) -> (Vec<Duration>, Option<Finding>) {
    let server = Server::new(Target::parse("wss://h/p", &[]), dialer(), []);
    let wanted = Wanted {
        application: "live".to_owned(),
        name: "front".to_owned(),
        doubted: false,
    };
    let begin = Instant::now();
    let times = Mutex::new(Vec::new());
    let (looks, served) = mpsc::unbounded_channel();
    let connect = || {
        let mut times = times.lock().unwrap();
        let meets = script[times.len().min(script.len() - 1)];
        times.push(begin.elapsed());
        let (server, looks) = (&server, looks.clone());
        async move {
            if let Meets::NoConnection = meets {
                return Err(server.not_open("connecting"));
            }
            let (socket, far) = pipe().await;
            looks.send((far, meets)).unwrap();
            Ok(socket)
        }
    };
    let day = Duration::from_secs(86_400);
    let found = tokio::select! {
        found = timeout(day, probe::watch(&server, &wanted, connect)) => found.ok(),
        () = serve(served) => unreachable!("looks may always follow"),
    };
    (times.into_inner().unwrap(), found)
}

#[tokio::test(start_paused = true)]
async fn the_first_look_is_after_15_seconds_and_then_every_20() {
    let (at, found) = watched(&[LISTED]).await;
    assert_eq!(found, None, "it goes on for a day");
    assert_eq!(at[0], FIRST_LOOK);
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] == LOOK_PERIOD));
    assert_eq!(at.len(), 4320);
}

#[tokio::test(start_paused = true)]
async fn the_stream_is_gone_after_two_misses_five_seconds_apart() {
    let (at, found) = watched(&[LISTED, MISSING]).await;
    assert_eq!(found, Some(Finding::Gone { was_listed: true }));
    let second = FIRST_LOOK + LOOK_PERIOD;
    assert_eq!(at, [FIRST_LOOK, second, second + RECHECK]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_asked_is_left_in_peace_after_three_looks() {
    for script in [
        &[Meets::NoConnection][..],
        &[Meets::Refusal],
        &[Meets::Silence],
        &[Meets::NoConnection, Meets::Refusal, Meets::Silence],
    ] {
        let (at, found) = watched(script).await;
        assert_eq!(found, Some(Finding::Silence));
        assert_eq!(at.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn stream_gone_comes_out_of_next_and_survives_a_cancelled_wait() {
    let (mut wowza, _far) = answered().await;
    let session = wowza.session.as_mut().unwrap();
    session.probe = JoinSet::new();
    let (tell, told) = oneshot::channel::<()>();
    session.probe.spawn(async move {
        told.await.unwrap();
        Finding::Gone { was_listed: false }
    });
    // Waiting is begun and given up, as in a session's loop, before the finding and after it.
    assert!(wowza.next().now_or_never().is_none());
    tell.send(()).unwrap();
    sleep(Duration::from_secs(1)).await;
    let result = wowza.next().await;
    assert!(
        matches!(result, Err(Error::StreamGone { .. })),
        "{result:?}"
    );
    assert!(wowza.doubted, "such a list is not believed twice");
}

#[tokio::test(start_paused = true)]
async fn looks_that_find_nothing_change_nothing() {
    let (mut wowza, mut far) = answered().await;
    // Nobody listens where the looks go.
    let hour = Duration::from_secs(3600);
    let waited = timeout(hour, wowza.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    assert!(wowza.session.as_ref().unwrap().probe.is_empty());
    far.say(&candidate(THEIRS)).await;
    assert!(wowza.next().await.is_ok());
}
