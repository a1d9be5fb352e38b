//! Which certificates of TURN servers are taken.

use onair::peer::try_turn_servers;

use super::*;

#[tokio::test]
async fn the_certificate_of_a_turn_server_is_verified() {
    let turn = turn_server().await;
    let mut config = climbing(Transport::Relay, None, server_for(&turn, Rung::TurnTls));
    config.dialer =
        Dialer::new(&own_url(), &Trust::default(), &Proxy::None).expect("no files are read");
    let (peer, _events, server) = offered(config, behind_a_firewall()).await;
    let failed = async {
        while !matches!(climb(&peer, Rung::TurnTls).outcome, Outcome::Failed(_)) {
            tokio::task::yield_now().await;
        }
    };
    let failed = tokio::time::timeout(Duration::from_secs(10), failed);
    failed.await.expect("a failure");
    assert!(
        climb(&peer, Rung::TurnTls)
            .outcome
            .to_string()
            .contains("TLS")
    );
    peer.close(true).await;
    server.kill().await;
}

#[tokio::test]
async fn nothing_set_for_the_publishers_server_is_for_a_turn_server_elsewhere() {
    let turn = turn_server().await;
    let insecure = Trust {
        insecure: true,
        ..Trust::default()
    };
    let pinned = Trust {
        pins: vec![[7; 32]],
        ..insecure.clone()
    };
    for (url, trust, taken) in [
        ("wss://127.0.0.1/", &insecure, true),
        ("wss://127.0.0.1/", &pinned, false),
        ("wss://server.example/", &insecure, false),
    ] {
        let dialer = Dialer::new(&Secret::new(url), trust, &Proxy::None).expect("no files");
        let tried = try_turn_servers(server_for(&turn, Rung::TurnTls), &dialer).await;
        assert_eq!(tried.is_ok(), taken, "{url} {trust:?}: {tried:?}");
    }
}

/// A TURN server with a certificate for a name, and the file that makes it trusted.
async fn named(folder: &std::path::Path) -> (TurnServer, std::path::PathBuf) {
    let identity = Identity::self_signed(&["localhost".to_owned()]).expect("a certificate");
    let file = folder.join(format!("{}.pem", fastrand::u64(..)));
    std::fs::write(&file, &identity.certificate).expect("written");
    let config = TurnConfig {
        relay_ip: RELAYED,
        ..TurnConfig::loopback(Some(identity))
    };
    let server = TurnServer::start(config).await.expect("a TURN server");
    (server, file)
}

#[tokio::test]
async fn the_certificate_of_another_server_is_for_the_name_that_was_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, ca_file) = named(folder.path()).await;
    let (second, further) = named(folder.path()).await;
    let both = [&ca_file, &further].map(|file| std::fs::read_to_string(file).expect("PEM"));
    std::fs::write(&ca_file, both.concat()).expect("written");
    let other = second.tls().expect("TLS");
    first.commit(Some(TurnFault::Alternate { server: other }));

    let port = first.tls().expect("TLS").port();
    let asked = ice_server(&format!("turns:localhost:{port}"), "relayed");
    let mut config = climbing(Transport::Relay, None, vec![asked]);
    let trust = Trust {
        ca_file: Some(ca_file),
        ..Trust::default()
    };
    config.dialer = Dialer::new(&own_url(), &trust, &Proxy::None).expect("a readable file");
    let clock = config.clock;
    let connection = offered(config, behind_a_firewall()).await;
    wins(connection, clock, &second, Rung::TurnTls).await;
    assert_eq!(first.counts().borrow().allocated, 0);
}
