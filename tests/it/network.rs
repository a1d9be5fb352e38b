//! The network as the kernel has it, changed under the watcher and under the dialer, in a namespace of its own.
//!
//! Each test runs itself again as root of fresh namespaces; where the machine forbids that, it says so and ends.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use onair::config::secret::Secret;
use onair::config::{Proxy, Trust};
use onair::net::{Dialer, Step};
use onair::network::{self, Network};
use tokio::sync::watch::Receiver;
use tokio::time::timeout;

/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "ONAIR_TEST_INSIDE_NAMESPACE";

/// Whether we are inside. Outside, runs the test of that name inside and wants it to pass.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshared = ["--net", "--mount", "--"];
    let probe = "ip link add near type veth peer name far";
    let able = Command::new("unshare")
        .args(unshared)
        .args(probe.split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !able.is_ok_and(|status| status.success()) {
        // Written past the harness, which shows nothing of tests that pass.
        _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {test} needs root, unshare(1), ip(8) and a kernel with namespaces"
        );
        return false;
    }
    let itself = std::env::current_exe().expect("a path");
    let ran = Command::new("unshare")
        .args(unshared)
        .arg(itself)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare, which has run before");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    false
}

fn run(command: &str) {
    let status = Command::new("sh").args(["-ec", command]).status();
    assert!(status.is_ok_and(|status| status.success()), "{command}");
}

/// Waits two seconds at most for the network to have these addresses and these ways out.
async fn becomes(receiver: &mut Receiver<Network>, addresses: &[&str], ways: &[&str]) {
    let shown = |network: &Network| {
        let addresses: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
        let routes = network.route_v4.iter().chain(&network.route_v6);
        let ways: Vec<String> = routes.map(ToString::to_string).collect();
        (addresses, ways)
    };
    let wanted = [addresses, ways].map(|list| list.iter().map(ToString::to_string).collect());
    let [addresses, ways]: [Vec<String>; 2] = wanted;
    let wanted = (addresses, ways);
    let seen = receiver.wait_for(|network| shown(network) == wanted);
    if timeout(Duration::from_secs(2), seen).await.is_err() {
        panic!("wanted: {wanted:?}; is: {:?}", shown(&receiver.borrow()));
    }
}

#[tokio::test]
async fn every_change_of_the_network_is_seen_within_two_seconds() {
    if !inside("network::every_change_of_the_network_is_seen_within_two_seconds") {
        return;
    }
    run("ip link set lo up");
    let mut network = network::watch().await;
    assert_eq!(*network.borrow(), Network::default());

    run("ip link add near type veth peer name far");
    run("ip link set far up");
    run("ip link set near up");
    run("ip addr add 192.0.2.5/24 dev near");
    becomes(&mut network, &["192.0.2.5"], &[]).await;
    run("ip route add default via 192.0.2.1");
    becomes(&mut network, &["192.0.2.5"], &["near by 192.0.2.1"]).await;
    run("ip route replace default via 192.0.2.2");
    becomes(&mut network, &["192.0.2.5"], &["near by 192.0.2.2"]).await;

    let both = ["192.0.2.5", "fd00::5"];
    run("ip -6 addr add fd00::5/64 dev near nodad");
    becomes(&mut network, &both, &["near by 192.0.2.2"]).await;
    run("ip -6 route add default via fd00::1 dev near");
    let ways = ["near by 192.0.2.2", "near by fd00::1"];
    becomes(&mut network, &both, &ways).await;

    // The cable is pulled out and put back.
    run("ip link set far down");
    becomes(&mut network, &[], &[]).await;
    run("ip link set far up");
    becomes(&mut network, &both, &ways).await;

    // Another address, as after roaming, then its router.
    run("ip addr add 198.51.100.6/24 dev near");
    run("ip addr del 192.0.2.5/24 dev near");
    let moved = ["198.51.100.6", "fd00::5"];
    becomes(&mut network, &moved, &ways).await;
    run("ip route replace default via 198.51.100.1");
    let ways = ["near by 198.51.100.1", "near by fd00::1"];
    becomes(&mut network, &moved, &ways).await;
    run("ip -6 route del default");
    becomes(&mut network, &moved, &["near by 198.51.100.1"]).await;

    run("ip link set near down");
    becomes(&mut network, &[], &[]).await;
    run("ip link del near");

    // An address that leads nowhere is none.
    run("ip link add near type veth peer name far");
    run("ip link set near up");
    run("ip link set far up");
    run("ip addr add 169.254.1.1/16 dev near");
    run("ip addr add 203.0.113.7/24 dev far");
    becomes(&mut network, &["203.0.113.7"], &[]).await;
}

#[tokio::test]
async fn a_name_that_comes_back_is_found_at_the_next_attempt() {
    if !inside("network::a_name_that_comes_back_is_found_at_the_next_attempt") {
        return;
    }
    run("ip link set lo up");
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    assert!(Path::new("/etc/hosts").exists());
    run("mount --make-rprivate /");
    run(&format!("mount --bind {} /etc/hosts", hosts.display()));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialer = Dialer::new(
        &Secret::new("wss://server.example/"),
        &Trust::default(),
        &Proxy::None,
    )
    .unwrap();
    for _ in 0..2 {
        let error = dialer.tcp("server.example", port).await.err().unwrap();
        assert_eq!(error.step(), Some(Step::Dns), "{error}");
        assert!(error.to_string().contains("/etc/resolv.conf"), "{error}");
    }
    std::fs::write(&hosts, "127.0.0.1 localhost server.example\n").unwrap();
    let stream = dialer.tcp("server.example", port).await;
    assert!(stream.is_ok(), "{:?}", stream.err());
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    assert!(dialer.tcp("server.example", port).await.is_err());
}

#[test]
fn the_environment_is_asked_for_the_proxy() {
    const TEST: &str = "network::the_environment_is_asked_for_the_proxy";
    const SET: &str = "ONAIR_TEST_PROXY_IS_SET";
    if std::env::var_os(SET).is_none() {
        let itself = std::env::current_exe().expect("a path");
        for (variable, other) in [("HTTPS_PROXY", "HTTP_PROXY"), ("all_proxy", "https_proxy")] {
            let ran = Command::new(&itself)
                .args(["--exact", TEST, "--nocapture"])
                .env_clear()
                .env(SET, "1")
                .env(variable, "http://proxy.example:3128")
                .env(other, "")
                .env("NO_PROXY", "localhost,10.0.0.0/8")
                .output()
                .expect("this program, which runs");
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        }
        return;
    }
    let dialer = Dialer::new(
        &Secret::new("wss://server.example/"),
        &Trust::default(),
        &Proxy::Environment,
    )
    .unwrap();
    assert!(dialer.proxied("server.example", 443));
    assert!(dialer.proxied("127.0.0.1", 443));
    assert!(!dialer.proxied("localhost", 443));
    assert!(!dialer.proxied("10.1.2.3", 443));
    let dialer = Dialer::new(
        &Secret::new("wss://server.example/"),
        &Trust::default(),
        &Proxy::None,
    )
    .unwrap();
    assert!(!dialer.proxied("server.example", 443));
}
