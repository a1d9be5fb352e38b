use async_trait::async_trait;
use tokio::net::UdpSocket;

use super::*;
use crate::config::secret::Secret;
use crate::config::{Audio, AudioSource, Bitrate, Feed as FeedConfig, Proxy, Trust};
use crate::feed::Feed;
use crate::signal::Error;

const S: Duration = Duration::from_secs(1);

/// A server that answers, and whose candidate never does.
struct Scripted {
    silent: UdpSocket,
    dialect: Dialect,
    /// Done before the answer.
    meanwhile: Box<dyn Fn() + Send>,
    /// How long it takes to hear of candidates of ours, or to restart.
    slow: Duration,
    /// What it was told, in the order of being asked.
    told: Vec<String>,
}

impl Scripted {
    async fn new() -> Self {
        Self {
            silent: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            dialect: Dialect::Whip,
            meanwhile: Box::new(|| ()),
            slow: Duration::ZERO,
            told: Vec::new(),
        }
    }
}

#[async_trait]
impl Signaller for Scripted {
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    async fn open(&mut self, _unreached: u32) -> Result<Opening, Error> {
        Ok(Opening::SendOffer)
    }

    async fn exchange(&mut self, offer: &str) -> Result<Option<RemoteDescription>, Error> {
        (self.meanwhile)();
        let mid = offer.lines().find(|line| line.starts_with("a=mid:"));
        let opus = PayloadTypes::OFFERED.opus;
        let lines = [
            "v=0",
            "o=- 1 2 IN IP4 127.0.0.1",
            "s=-",
            "t=0 0",
            "a=group:BUNDLE 0",
            &format!("m=audio 9 UDP/TLS/RTP/SAVPF {opus}"),
            "c=IN IP4 0.0.0.0",
            mid.unwrap(),
            "a=recvonly",
            "a=rtcp-mux",
            &format!("a=rtpmap:{opus} opus/48000/2"),
            "a=ice-ufrag:1f3a9c44",
            "a=ice-pwd:5e0b6bbf5e7b4e4d0a5f3b3c6a1d9c77",
            &format!("a=fingerprint:sha-256 {}", ["5E"; 32].join(":")),
            "a=setup:passive",
            "",
        ];
        let port = self.silent.local_addr().unwrap().port();
        Ok(Some(RemoteDescription {
            sdp: lines.join("\r\n"),
            candidates: vec![format!("candidate:1 1 udp 50 127.0.0.1 {port} typ host")],
            payload_types: PayloadTypes::OFFERED,
            ice_servers: Vec::new(),
        }))
    }

    async fn trickle(&mut self, candidates: &[String], last: bool) -> Result<(), Error> {
        self.told.push(format!("{} {last}", candidates.join(",")));
        tokio::time::sleep(self.slow).await;
        Ok(())
    }

    fn can_restart(&self) -> bool {
        true
    }

    async fn restart(&mut self, offer: &str) -> Result<RemoteDescription, Error> {
        self.told.push(offer.to_owned());
        tokio::time::sleep(self.slow).await;
        Err(Error::NoRestart)
    }

    async fn next(&mut self) -> Result<signal::Event, Error> {
        std::future::pending().await
    }

    async fn close(&mut self, _parting: Parting) {}
}

/// A network with one way out.
fn behind(interface: &str) -> Network {
    let route = Route {
        interface: interface.to_owned(),
        gateway: None,
    };
    Network {
        route_v4: Some(route),
        ..Network::default()
    }
}

/// Runs a session with `server` in `network`; how it ended, what it told last, and how long it took.
async fn session(
    mut server: Scripted,
    network: &watch::Sender<Network>,
    stop: &CancellationToken,
) -> (Ended, Telemetry, Duration) {
    let clock = MediaClock::new(Instant::now(), std::time::SystemTime::now());
    let tone = FeedConfig {
        video: None,
        audio: Some(Audio {
            source: AudioSource::Tone,
            channels: 2,
            bitrate: Bitrate(64_000),
        }),
    };
    let feed = Feed::start("tone", &tone, clock).unwrap();
    let parameters = Parameters {
        feed: feed.handle(),
        clock,
        name: "test".to_owned(),
        transport: config::Transport::Auto,
        ice_servers: Vec::new(),
        dialer: Dialer::new(
            &Secret::new("ws://127.0.0.1"),
            &Trust::default(),
            &Proxy::None,
        )
        .unwrap(),
        network: network.subscribe(),
        first: None,
        unreached: 0,
    };
    let telemetry = watch::Sender::new(Telemetry::default());
    let began = tokio::time::Instant::now();
    let ended = run(&parameters, &mut server, &telemetry, stop).await;
    (ended, telemetry.borrow().clone(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_change_between_the_sockets_and_the_search_is_noticed() {
    let network = watch::Sender::new(behind("eth0"));
    let mut server = Scripted::new().await;
    let changing = network.clone();
    server.meanwhile = Box::new(move || drop(changing.send_replace(behind("wwan0"))));
    let (ended, told, _) = session(server, &network, &CancellationToken::new()).await;
    assert!(
        matches!(ended.reason, EndReason::NetworkChanged { .. }),
        "{ended:?}"
    );
    assert_eq!(told.network, "eth0", "where it searched");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_slow_to_hear_holds_up_no_deadline() {
    let network = watch::Sender::new(behind("eth0"));
    let mut server = Scripted::new().await;
    server.slow = 600 * S;
    let (ended, _, after) = session(server, &network, &CancellationToken::new()).await;
    let EndReason::NeverConnected { stage, .. } = ended.reason else {
        panic!("{ended:?}")
    };
    assert_eq!(stage, Some(peer::Stage::Ice));
    assert!(after < SEARCH_TIMEOUT + S, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_frees_the_name_a_path_is_searched_for_as_long_as_the_name_is_held() {
    let network = watch::Sender::new(behind("eth0"));
    let mut server = Scripted::new().await;
    server.dialect = Dialect::WowzaV1;
    let (ended, _, after) = session(server, &network, &CancellationToken::new()).await;
    assert!(
        matches!(ended.reason, EndReason::NeverConnected { .. }),
        "{ended:?}"
    );
    assert!(
        after >= HELD_SEARCH_TIMEOUT && after < HELD_SEARCH_TIMEOUT + S,
        "{after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_slow_to_hear_holds_up_no_stop() {
    let network = watch::Sender::new(behind("eth0"));
    let mut server = Scripted::new().await;
    server.slow = 600 * S;
    let stop = CancellationToken::new();
    let (in_time, later) = (stop.clone(), tokio::time::sleep(3 * S));
    tokio::spawn(async move {
        later.await;
        in_time.cancel();
    });
    let (ended, _, after) = session(server, &network, &stop).await;
    assert!(matches!(ended.reason, EndReason::Stopped), "{ended:?}");
    assert!(after < 7 * S, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_is_not_lost_by_looking_elsewhere() {
    let mut server = Scripted::new().await;
    server.slow = 8 * S;
    let mut talk = Talk::new(&mut server);
    let began = tokio::time::Instant::now();
    let mut elsewhere = tokio::time::interval(S);
    talk.trickle(vec!["a".to_owned()], false);
    let heard = loop {
        tokio::select! {
            biased;
            _ = elsewhere.tick() => {
                if began.elapsed() == S {
                    talk.trickle(vec!["b".to_owned()], false);
                    talk.trickle(vec!["c".to_owned()], true);
                }
                if began.elapsed() == 12 * S {
                    // Of a search that is given up.
                    talk.trickle(vec!["d".to_owned()], true);
                    assert!(talk.can_restart(false) && !talk.can_restart(true));
                    talk.restart("offer".to_owned());
                }
                assert_eq!(talk.is_restarting(), began.elapsed() >= 12 * S);
            }
            heard = talk.next() => break heard.unwrap(),
        }
    };
    assert!(matches!(heard, Heard::Restarted(Err(Error::NoRestart))));
    assert!(!talk.is_restarting());
    assert_eq!(began.elapsed(), 24 * S);
    drop(talk);
    assert_eq!(server.told, ["a false", "b,c true", "offer"]);
}
