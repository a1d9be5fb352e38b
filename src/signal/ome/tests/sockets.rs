//! Which socket a session uses and when it is closed: duplicate names above all. What needs a second socket
//! runs on loopback TCP.

use super::*;
use crate::net;

/// Plays the recorded race: the server takes the winner's answer and refuses ours.
async fn lost_race() -> (Ome, Far) {
    let file = recorded("ome/v0.21.0-duplicate-race.json");
    let refusal = (file["log"].as_array().unwrap().iter())
        .find(|entry| entry["who"] == "B" && entry["msg"]["code"] == 403);
    let (mut ome, mut far) = answered().await;
    far.say(&refusal.unwrap()["msg"]).await;
    let result = ome.next().await;
    assert!(
        matches!(result, Err(Error::Refused { status: 403, .. })),
        "{result:?}"
    );
    (ome, far)
}

#[tokio::test(start_paused = true)]
async fn a_refused_publisher_keeps_its_socket_whatever_it_is_told() {
    for parting in [Parting::Abandon, Parting::Stop] {
        let (mut ome, mut far) = lost_race().await;
        ome.close(parting).await;
        let quiet = tokio::time::timeout(Duration::from_secs(5), far.0.next()).await;
        assert!(quiet.is_err(), "{parting:?}: {quiet:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_socket_stays_alive_however_long_nobody_opens_it() {
    let (mut ome, mut far) = lost_race().await;
    ome.close(Parting::Abandon).await;
    // The server pings every 20 s and hangs up on whoever was silent for 60 s.
    for n in 0..100_u32 {
        far.0.send(Frame::Ping(n.to_string().into())).await.unwrap();
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(20), far.0.next()).await;
            let heard = heard.unwrap().unwrap().unwrap();
            assert!(
                matches!(heard, Frame::Ping(_) | Frame::Pong(_)),
                "{heard:?}"
            );
            if heard == Frame::Pong(n.to_string().into()) {
                break;
            }
        }
        tokio::time::advance(Duration::from_secs(20)).await;
    }
    let (result, request) = tokio::join!(ome.open(0), async {
        let request = far.hear().await;
        far.say(&ome_offer()).await;
        request
    });
    result.unwrap();
    assert_eq!(request, json!({ "command": "request_offer" }));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_signaller_closes_a_refused_socket() {
    let (mut ome, mut far) = lost_race().await;
    ome.close(Parting::Stop).await;
    drop(ome);
    loop {
        let heard = tokio::time::timeout(Duration::from_secs(5), far.0.next()).await;
        if !matches!(heard.unwrap(), Some(Ok(_))) {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_nobody_read_counts_when_parting() {
    let (mut ome, mut far) = answered().await;
    far.say(&error(403, "Forbidden")).await;
    ome.close(Parting::Stop).await;
    let quiet = tokio::time::timeout(Duration::from_secs(5), far.0.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_publisher_asks_again_on_the_same_socket() {
    let (mut ome, mut far) = lost_race().await;
    ome.close(Parting::Abandon).await;

    // The winner is still on air.
    let (result, request) = tokio::join!(ome.open(0), async {
        let request = far.hear().await;
        far.say(&error(404, "Cannot create offer")).await;
        request
    });
    assert_eq!(request, json!({ "command": "request_offer" }));
    assert_eq!(refusal(result).0, 404);
    ome.close(Parting::Abandon).await;

    // It has gone. The list has grown by the candidates of the first offer.
    let file = recorded("ome/v0.21.0-probes.json");
    let twice = (file["probes"].as_array().unwrap().iter())
        .find(|probe| probe["name"] == "request_offer twice")
        .unwrap();
    let second = twice["log"][3]["msg"].clone();
    assert_eq!(second["candidates"].as_array().unwrap().len(), 4);
    let (result, _) = tokio::join!(ome.open(0), async {
        far.hear().await;
        far.say(&second).await;
    });
    let Ok(Opening::Offered(remote)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(remote.candidates.len(), 3, "{:?}", remote.candidates);

    // An offer alone makes the socket no better: somebody may publish before we answer.
    ome.close(Parting::Abandon).await;
    let quiet = tokio::time::timeout(Duration::from_secs(5), far.0.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");

    // Once our answer stands, the stream is ours, and so is its end.
    let (result, _) = tokio::join!(ome.open(0), async {
        far.hear().await;
        far.say(&second).await;
    });
    result.unwrap();
    let (_, answer) = tokio::join!(ome.exchange(ome_answer()), far.hear());
    assert_eq!(answer["command"], "answer");
    let ((), stop) = tokio::join!(ome.close(Parting::Stop), far.hear());
    assert_eq!(stop["command"], "stop");
}

#[tokio::test]
async fn each_session_opens_a_socket_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/app/name", listener.local_addr().unwrap());
    let mut ome = Ome::new(&Secret::new(url), &["tcp"], dialer());
    let server = async {
        let mut uris = Vec::new();
        for said in [error(404, "Cannot create offer"), ome_offer()] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut far = tokio_tungstenite::accept_hdr_async(stream, Uri(&mut uris))
                .await
                .unwrap();
            loop {
                if let Frame::Text(_) = far.next().await.unwrap().unwrap() {
                    break;
                }
            }
            far.send(Frame::text(said.to_string())).await.unwrap();
            // Until the signaller hangs up.
            while let Some(Ok(_)) = far.next().await {}
        }
        uris
    };
    let client = async {
        assert_eq!(refusal(ome.open(0).await).0, 404);
        assert!(ome.link.is_none());
        assert!(matches!(ome.open(0).await, Ok(Opening::Offered(_))));
        ome.close(Parting::Abandon).await;
    };
    let (uris, ()) = tokio::join!(server, client);
    let wanted = (
        "/app/name?direction=send&transport=tcp".to_owned(),
        Some(concat!("onair/", env!("CARGO_PKG_VERSION")).to_owned()),
    );
    assert_eq!(uris, [wanted.clone(), wanted]);
}

#[tokio::test]
async fn a_refused_socket_that_has_died_is_replaced() {
    let (mut ome, far) = lost_race().await;
    drop(far);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/app/name", listener.local_addr().unwrap());
    ome.url = Secret::new(url);
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut far = tokio_tungstenite::accept_async(stream).await.unwrap();
        far.next().await.unwrap().unwrap();
        far.send(Frame::text(ome_offer().to_string()))
            .await
            .unwrap();
        far
    };
    let (opening, _far) = tokio::join!(ome.open(0), server);
    assert!(matches!(opening, Ok(Opening::Offered(_))), "{opening:?}");
    assert!(!ome.link.unwrap().tainted);
}

/// Notes path, query and user agent of an upgrade.
struct Uri<'a>(&'a mut Vec<(String, Option<String>)>);

impl tokio_tungstenite::tungstenite::handshake::server::Callback for Uri<'_> {
    fn on_request(
        self,
        request: &tokio_tungstenite::tungstenite::handshake::server::Request,
        response: tokio_tungstenite::tungstenite::handshake::server::Response,
    ) -> Result<
        tokio_tungstenite::tungstenite::handshake::server::Response,
        tokio_tungstenite::tungstenite::handshake::server::ErrorResponse,
    > {
        let agent = request.headers().get("user-agent");
        self.0.push((
            request.uri().to_string(),
            agent.map(|a| a.to_str().unwrap().to_owned()),
        ));
        Ok(response)
    }
}

#[tokio::test]
async fn an_unusable_url_is_reported_when_the_socket_is_opened() {
    let mut ome = Ome::new(&Secret::new("https://planted/"), &[], dialer());
    let Err(error @ Error::Connect(net::Error::Url { .. })) = ome.open(0).await else {
        panic!("opened")
    };
    assert_eq!(
        error.to_string(),
        "unusable server URL: the scheme must be ws or wss"
    );
}

/// Asks the server at `listener` as `ome` does, answers each request with the next of `said`; returns the values of
/// `transport` that were asked with.
async fn asked(listener: &TcpListener, said: Vec<Value>) -> Vec<String> {
    let mut asked = Vec::new();
    for said in said {
        let mut uris = Vec::new();
        let (stream, _) = listener.accept().await.unwrap();
        let mut far = tokio_tungstenite::accept_hdr_async(stream, Uri(&mut uris))
            .await
            .unwrap();
        far.next().await.unwrap().unwrap();
        far.send(Frame::text(said.to_string())).await.unwrap();
        while let Some(Ok(_)) = far.next().await {}
        let transport = uris[0]
            .0
            .rsplit_once("transport=")
            .map(|(_, t)| t.to_owned());
        asked.extend(transport);
    }
    asked
}

#[tokio::test]
async fn transports_are_asked_for_in_turn_while_no_path_comes_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/app/name", listener.local_addr().unwrap());
    let mut ome = Ome::new(&Secret::new(url), &["all", "tcp"], dialer());
    let client = async {
        for unreached in [0, 1, 1, 2] {
            ome.open(unreached).await.unwrap();
            ome.close(Parting::Abandon).await;
        }
    };
    let (asked, ()) = tokio::join!(asked(&listener, vec![ome_offer(); 4]), client);
    assert_eq!(asked, ["all", "tcp", "tcp", "all"]);
}

#[tokio::test]
async fn a_version_without_the_word_relay_is_asked_in_its_own_words_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/app/name", listener.local_addr().unwrap());
    let mut ome = Ome::new(&Secret::new(url), &["relay", "tcp"], dialer());
    let plain = ome_offer();
    let mut relayed = plain.clone();
    relayed["iceServers"] = json!([
        { "urls": ["turn:10.255.255.1:3478?transport=tcp"], "username": "u", "credential": "c" }
    ]);
    let client = async {
        let Opening::Offered(offer) = ome.open(0).await.unwrap() else {
            panic!("the server offers")
        };
        ome.close(Parting::Abandon).await;
        let urls = offer.ice_servers.iter().map(|s| s.url.to_string());
        urls.collect::<Vec<_>>()
    };
    let (asked, urls) = tokio::join!(asked(&listener, vec![plain, relayed]), client);
    assert_eq!(asked, ["relay", "tcp"]);
    let wanted =
        ["turn:127.0.0.1:3478", "turn:10.255.255.1:3478"].map(|u| format!("{u}?transport=tcp"));
    assert_eq!(
        urls, wanted,
        "and the host we dialled stands before the inner address"
    );
}

#[tokio::test]
async fn the_transport_that_the_url_names_is_the_operators_choice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "ws://{}/app/name?transport=udp",
        listener.local_addr().unwrap()
    );
    let mut ome = Ome::new(&Secret::new(url), &["all", "tcp"], dialer());
    let client = async {
        ome.open(1).await.unwrap();
        ome.close(Parting::Abandon).await;
    };
    let (asked, ()) = tokio::join!(asked(&listener, vec![ome_offer()]), client);
    assert_eq!(
        asked,
        ["udp&direction=send"],
        "every other byte of the URL stays"
    );
}
