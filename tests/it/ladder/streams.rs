//! Relays over TCP and TLS: what their streams hold.

use super::*;

/// What a stream to a TURN server holds is counted up by one thread and down by another. A count that drifts ends in a
/// connection that takes nothing more, after some 64 KiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_over_a_stream_takes_many_times_what_it_holds() {
    for rung in [Rung::TurnTcp, Rung::TurnTls] {
        let turn = turn_server().await;
        let config = climbing(Transport::Relay, None, server_for(&turn, rung));
        let clock = config.clock;
        let (mut peer, mut events, server) = offered(config, behind_a_firewall()).await;
        assert_eq!(connected(&mut events).await, rung);
        publish(&mut peer, clock, &server, |seen| {
            whole_pictures(seen) >= 150
        })
        .await;
        let relayed = turn.counts().borrow().relayed_bytes;
        assert!(relayed > 10 * 64 * 1024, "{relayed}");
        assert_eq!(peer.counters().frames_refused, 0);
        peer.close(true).await;
        server.until("close_notify", |seen| seen.closed).await;
        counted(&turn, "the release", |counts| counts.allocations == 0).await;
        server.kill().await;
    }
}

/// Leads to `server` until it is told to stand still.
async fn freezable(
    server: std::net::SocketAddr,
) -> (std::net::SocketAddr, tokio::sync::watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a listener");
    let address = listener.local_addr().expect("bound");
    let (freeze, frozen) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut onward = tokio::net::TcpStream::connect(server)
            .await
            .expect("the server");
        let mut frozen = frozen;
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut stream, &mut onward) => drop(copied),
            _ = frozen.wait_for(|frozen| *frozen) => {}
        }
        // Both connections stay open, and nobody reads.
        drop(frozen.wait_for(|frozen| !*frozen).await);
    });
    (address, freeze)
}

#[tokio::test]
async fn a_turn_server_that_stops_reading_is_an_error_and_holds_nothing_up() {
    let turn = turn_server().await;
    let (at, freeze) = freezable(turn.tcp().expect("TCP")).await;
    let server = ice_server(&format!("turn:{at}?transport=tcp"), "relayed");
    let config = climbing(Transport::Relay, None, vec![server]);
    let clock = config.clock;
    let (mut peer, mut events, server) = offered(config, behind_a_firewall()).await;
    connected(&mut events).await;
    publish(&mut peer, clock, &server, |seen| whole_pictures(seen) >= 5).await;
    freeze.send_replace(true);
    let stalled = async {
        loop {
            let now = clock.at(tokio::time::Instant::now().into_std());
            if let Err(error) = peer.send(&picture(now, false, 100_000)).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), stalled)
        .await
        .expect("an end of patience");
    assert!(
        matches!(error, onair::peer::Error::Stalled { .. }),
        "{error}"
    );
    let closing = tokio::time::Instant::now();
    peer.close(true).await;
    assert!(closing.elapsed() < Duration::from_secs(4));
    server.kill().await;
}
