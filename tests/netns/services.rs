//! What stands on the way beside the ingest server: a TURN server, at the usual ports and at 443 by TLS, and a proxy that
//! opens tunnels. This program is both, started again in the server's namespace.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;

use onair::config::secret::Secret;
use onair::lab::proxy::{Proxy, ProxyConfig};
use onair::lab::tls::Identity;
use onair::lab::turn::{TurnConfig, TurnServer};
use tokio::signal::unix::{SignalKind, signal};

use super::world::{PROXY, TURN};

/// The word that makes this program the services.
pub(crate) const ROLE: &str = "--be-the-services";
/// The word that makes this program ask a lab, by its page's URL, for the sessions of its report.
pub(crate) const ASK: &str = "--ask-the-lab";
/// Port of the proxy.
pub(crate) const PROXY_PORT: u16 = 3128;
/// What the services say once they listen.
pub(crate) const READY: &str = "services are ready";
/// User of the TURN server.
pub(crate) const USERNAME: &str = "kiosk";
/// Its password.
pub(crate) const PASSWORD: &str = "relayed";

/// The certificate of every server, which vouches for itself, and its key.
pub(crate) const CERTIFICATE: &str = "ca.pem";
/// The key of [`CERTIFICATE`].
pub(crate) const KEY: &str = "key.pem";

/// Makes the certificate for `addresses` and writes it to `folder`.
pub(crate) fn certify(folder: &Path, addresses: &[&str]) -> Result<(), String> {
    let names: Vec<String> = addresses.iter().map(|&name| name.to_owned()).collect();
    let made = Identity::self_signed(&names).map_err(|error| error.to_string())?;
    for (name, text) in [
        (CERTIFICATE, made.certificate.as_str()),
        (KEY, made.key.expose()),
    ] {
        std::fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// Serves until told to end, with the certificate in `folder`.
pub(crate) fn serve(folder: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(until_told(folder)),
        Err(error) => Err(error.to_string()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("services: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn until_told(folder: &Path) -> Result<(), String> {
    let mut told = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let identity = Identity::read(&folder.join(CERTIFICATE), &folder.join(KEY));
    let ip = |ip: &str| {
        ip.parse::<IpAddr>()
            .map_err(|error| format!("{ip}: {error}"))
    };
    let relay_ip = ip(TURN)?;
    let at = |port: u16| Some(SocketAddr::new(relay_ip, port));
    let turn = TurnServer::start(TurnConfig {
        udp: at(3478),
        tcp: at(3478),
        tls: at(443),
        identity: Some(identity.map_err(|error| error.to_string())?),
        relay_ip,
        username: USERNAME.to_owned(),
        password: Secret::new(PASSWORD),
        realm: "netns.invalid".to_owned(),
        fault: None,
    });
    let turn = turn.await.map_err(|error| error.to_string())?;
    let mut config = ProxyConfig::loopback();
    config.listen = SocketAddr::new(ip(PROXY)?, PROXY_PORT);
    let proxy = Proxy::start(config).await;
    let proxy = proxy.map_err(|error| error.to_string())?;
    println!("{READY}");
    told.recv().await;
    proxy.stop().await;
    turn.stop().await;
    Ok(())
}

/// Prints the sessions in the report of the lab that has `page`.
pub(crate) fn ask(page: &str) -> ExitCode {
    let asked = || -> std::io::Result<String> {
        let address = page.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET /v1/report HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    };
    match asked() {
        Ok(reply) => {
            println!(
                "{}",
                reply.split_once("\r\n\r\n").map_or("", |(_, body)| body)
            );
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}
