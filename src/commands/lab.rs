//! `onair lab`: the strict ingest server alone, for any publisher, with the relays, the proxy and the control planes that
//! stand before servers elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::outcome::{self, Run};
use super::{clocks, print, signals};
use crate::cli;
use crate::config::secret::Secret;
use crate::lab::proxy::{Proxy, ProxyConfig};
use crate::lab::tls::Identity;
use crate::lab::turn::TurnConfig;
use crate::lab::{Lab, LabConfig, Mutation, OmeTurn, Profile, RestConfig, Vendor};
use crate::media::time::MediaClock;

/// The TURN server's user.
const TURN_USER: &str = "lab";

/// Serves until it is interrupted, or for `--for`; the verdict is on the publishers that came.
pub async fn run(args: cli::Lab, global: cli::Global) -> anyhow::Result<ExitCode> {
    let stop = signals::watch()?;
    let (began, wall) = clocks();
    let mut run = Run::new(began, wall);
    let (config, words) = configured(&args, global.seed(), MediaClock::new(began, wall))?;
    let profiles = config.profiles.clone();
    let lab = Lab::start(config).await.context("cannot start the lab")?;
    let proxy = match args.proxy {
        Some(port) => {
            let mut config = ProxyConfig::loopback();
            config.listen = SocketAddr::new(args.listen.ip(), port);
            config.ports.clone_from(&args.proxy_allow);
            Some(Proxy::start(config).await?)
        }
        None => None,
    };
    for profile in profiles {
        if let Some(endpoint) = lab.endpoint(profile) {
            print(&format!("lab {profile} {}\n", endpoint.url))?;
        }
    }
    for vendor in Vendor::ALL {
        if let Some(url) = lab.rest(vendor) {
            print(&format!("rest {vendor} {url}\n"))?;
        }
    }
    for bill in lab.bills() {
        print(&format!(
            "stream {} {} {}\n",
            bill.vendor, bill.id, bill.name
        ))?;
    }
    for url in lab.turn().map(|turn| turn.urls()).unwrap_or_default() {
        print(&format!("turn {url}\n"))?;
    }
    print(&words)?;
    if let Some(proxy) = &proxy {
        print(&format!("proxy {}\n", proxy.url()))?;
    }
    // The last line: whoever waits for the lab waits for this.
    print(&format!("page {}\n", lab.page_url()))?;

    run.last(&stop, args.extent.duration, || Ok(())).await?;

    let hub = lab.hub().clone();
    for bill in lab.bills() {
        print(&format!(
            "bill {} {} {}: {:.0} s, {}\n",
            bill.vendor, bill.id, bill.name, bill.billed_s, bill.state
        ))?;
    }
    lab.stop().await;
    if let Some(proxy) = proxy {
        proxy.stop().await;
    }
    let sessions = hub.report();
    let mut reasons = hub.reasons();
    if sessions.is_empty() {
        reasons.push("nobody published".to_owned());
    }
    let report = run.report(clocks().0, sessions, reasons);
    print(&outcome::summary(&report))?;
    outcome::conclude(&report, args.extent.report.as_deref())
}

/// The lab that `args` describe, and what is to be said of its secrets.
fn configured(
    args: &cli::Lab,
    seed: u64,
    clock: MediaClock,
) -> anyhow::Result<(LabConfig, String)> {
    let named = |names: &[String]| names.iter().map(|name| name.parse()).collect();
    let profiles: Result<Vec<Profile>, _> = named(&args.profiles);
    let mut config = LabConfig::new(profiles?, clock);
    config.listen = args.listen;
    config.media_ip = args.media_ip.unwrap_or(args.listen.ip());
    anyhow::ensure!(
        !config.media_ip.is_unspecified(),
        "candidates cannot name {}: say with --media-ip which address of this machine they are to name",
        config.media_ip
    );
    for (name, port) in &args.ports {
        config.ports.insert(name.parse()?, *port);
    }
    let mutation = args.mutation.as_deref().map(str::parse::<Mutation>);
    config.mutation = mutation.transpose().map_err(anyhow::Error::msg)?;
    config.bearer.clone_from(&args.bearer);
    config.ice_lite = args.ice_lite;
    config.ome_turn = OmeTurn {
        port: args.ome_turn_port,
        advertised: args.ome_turn_address,
        forced: args.ome_turn_forced,
    };
    let mut words = String::new();
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        config.tls = Some(Identity::read(certificate, key)?);
    } else if let Some(folder) = &args.self_signed {
        let identity = self_signed(folder, &[config.listen.ip(), config.media_ip])?;
        words += &format!("ca {}\n", folder.join("ca.pem").display());
        config.tls = Some(identity);
    }
    config.time_scale = args.time_scale;
    if args.control.rest {
        config.rest = Some(control(&args.control, seed, &mut words)?);
    }
    if let Some(port) = args.turn {
        config.turn = Some(turn(args, port, &config, &mut words)?);
    }
    Ok((config, words))
}

/// Makes a certificate for `addresses` and this machine's own name of itself, and writes what is to be trusted.
fn self_signed(folder: &Path, addresses: &[IpAddr]) -> anyhow::Result<Identity> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(addresses.iter().map(IpAddr::to_string));
    let identity = Identity::self_signed(&names)?;
    let file = folder.join("ca.pem");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, &identity.certificate))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(identity)
}

fn turn(
    args: &cli::Lab,
    port: u16,
    lab: &LabConfig,
    words: &mut String,
) -> anyhow::Result<TurnConfig> {
    let at = |port| Some(SocketAddr::new(lab.media_ip, port));
    let mut config = TurnConfig::loopback(lab.tls.clone());
    (config.udp, config.tcp) = (at(port), at(port));
    config.tls = args.turn_tls.and_then(at);
    config.relay_ip = lab.media_ip;
    config.username = TURN_USER.to_owned();
    config.password = match &args.turn_password_file {
        Some(file) => {
            *words += &format!("turn-user {TURN_USER}, password in {}\n", file.display());
            read(file)?
        }
        None => {
            let password = made_up();
            *words += &format!("turn-user {TURN_USER} {}\n", password.expose());
            password
        }
    };
    Ok(config)
}

/// The control planes that `args` describe, and what is to be said of their secrets.
fn control(args: &cli::Control, seed: u64, words: &mut String) -> anyhow::Result<RestConfig> {
    let mut credential = |what: &str, file: &Option<PathBuf>| match file {
        Some(file) => read(file),
        None => {
            let secret = made_up();
            *words += &format!("{what} {}\n", secret.expose());
            Ok(secret)
        }
    };
    let token = credential("wowza-token", &args.wowza_token_file)?;
    let key = credential("qencode-key", &args.qencode_key_file)?;
    let mut config = RestConfig::new(token, key);
    for (name, port) in &args.rest_ports {
        config.ports.insert(name.parse()?, *port);
    }
    config.streams.clone_from(&args.rest_streams);
    config.seed = seed;
    Ok(config)
}

/// The secret that is all of `file`.
fn read(file: &Path) -> anyhow::Result<Secret> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Secret::new(text.trim_end()))
}

/// A secret of chance, for a rehearsal.
fn made_up() -> Secret {
    let made: String = (0..16).map(|_| fastrand::alphanumeric()).collect();
    Secret::new(made)
}
