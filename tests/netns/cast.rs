//! The programs of a cell and how they are told what to be: the services, the lab, the agent with its configuration.

use std::path::Path;
use std::time::Duration;

use onair::lab::Profile;
use serde_json::Value;

use super::cells::{Cell, Network};
use super::program::Program;
use super::services;
use super::world::{self, Place, World};

/// Longest wait for a program to be ready.
const READY: Duration = Duration::from_secs(20);

/// Where the lab's report goes, in the folder of the cell.
pub(crate) const LAB_REPORT: &str = "lab.json";
/// Where the agent's report goes.
pub(crate) const AGENT_REPORT: &str = "agent.json";

/// Starts what stands beside the ingest server.
pub(crate) fn start_services(
    world: &World,
    folder: &Path,
    certificates: &Path,
) -> Result<Program, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = world.command(Place::Server, &this);
    command.arg(services::ROLE).arg(certificates);
    let mut services = Program::start(&mut command, &folder.join("services.log"))?;
    services.until("the services are ready", READY, |said| {
        (said.line == services::READY).then_some(())
    })?;
    Ok(services)
}

/// Starts the lab as the cell's profile and returns where it takes publishers, and its page.
pub(crate) fn start_lab(
    world: &World,
    cell: &Cell,
    folder: &Path,
    certificates: &Path,
) -> Result<(Program, String, String), String> {
    let profile = cell.profile;
    let listen = if cell.network == Network::Ipv6 {
        format!("[{}]:0", world::INGEST_V6)
    } else {
        format!("{}:0", world::INGEST)
    };
    let mut command = world.command(Place::Server, Path::new(env!("CARGO_BIN_EXE_onair")));
    command
        .args(["lab", "--log", "info", "--profile", profile.name()])
        .args(["--listen", &listen])
        .arg("--report")
        .arg(folder.join(LAB_REPORT));
    if cell.network.is_secured() {
        command
            .args(["--port", &format!("{profile}=443")])
            .arg("--tls-cert")
            .arg(certificates.join(services::CERTIFICATE))
            .arg("--tls-key")
            .arg(certificates.join(services::KEY));
    }
    let mut lab = Program::start(&mut command, &folder.join("lab.log"))?;
    let mut url = None;
    let prefix = format!("lab {profile} ");
    let page = lab.until("the lab is ready", READY, |said| {
        if let Some(address) = said.line.strip_prefix(&prefix) {
            url = Some(address.to_owned());
        }
        said.line.strip_prefix("page ").map(str::to_owned)
    })?;
    let url = url.ok_or("the lab does not say where it takes publishers")?;
    Ok((lab, url, page))
}

/// Pictures that the lab with this page has decoded so far.
pub(crate) fn decoded(world: &World, page: &str) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut asking = world.command(Place::Server, &this);
    let asked = asking.args([services::ASK, page]).output();
    let asked = asked.map_err(|error| error.to_string())?;
    let sessions: Value = serde_json::from_slice(&asked.stdout)
        .map_err(|error| format!("the lab does not say how it stands: {error}"))?;
    let of = |session: &Value| session["video"]["frames_decoded"].as_u64();
    Ok(sessions
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(of)
        .sum())
}

/// The port in `url`.
pub(crate) fn port(url: &str) -> Result<u16, String> {
    let url = url::Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
    url.port_or_known_default()
        .ok_or_else(|| format!("{url} has no port"))
}

/// Starts the agent that publishes a small feed to `url`.
pub(crate) fn start_agent(
    world: &World,
    cell: &Cell,
    url: &str,
    folder: &Path,
    certificates: &Path,
) -> Result<Program, String> {
    let path = folder.join("onair.toml");
    let text = configuration(cell, url, certificates);
    std::fs::write(&path, text).map_err(|error| error.to_string())?;
    let mut command = world.command(Place::Agent, Path::new(env!("CARGO_BIN_EXE_onair")));
    command
        .args(["run", "--log", "info", "--log-format", "json", "--config"])
        .arg(path)
        .arg("--report")
        .arg(folder.join(AGENT_REPORT));
    for name in ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    if cell.network == Network::OnlyProxyOfEnvironment {
        command.env("HTTPS_PROXY", proxy());
    }
    Program::start(&mut command, &folder.join("agent.log"))
}

/// URL of the proxy.
fn proxy() -> String {
    format!("http://{}:{}", world::PROXY, services::PROXY_PORT)
}

/// The agent's configuration file.
fn configuration(cell: &Cell, url: &str, certificates: &Path) -> String {
    let mut text = format!(
        "[feed.card]\n\
         video = {{ source = \"testcard\", size = \"320x180\", fps = 15, bitrate = \"300 kbit/s\" }}\n\
         audio = {{ source = \"tone\" }}\n\n\
         [publisher.main]\n\
         feed = \"card\"\n\
         url = \"{url}\"\n"
    );
    let profile = cell.profile;
    // The first word of a profile's name says what is configured; the version is the server's affair.
    let kind = profile.name().split('-').next().unwrap_or_default();
    text += &format!("to = \"{kind}\"\n");
    if profile == Profile::WhipWowza {
        text += "trickle = \"bare\"\n";
    }
    if profile == Profile::WowzaV2 {
        // Its lab speaks the older dialect too, with those who begin with that.
        text += "dialect = \"v2\"\n";
    }
    if kind == "wowza" {
        text += &format!(
            "application = \"{}\"\nstream = \"{}\"\n",
            profile.application(),
            profile.stream()
        );
    }
    if cell.network.is_secured() {
        let ca = certificates.join(services::CERTIFICATE);
        text += &format!("ca_file = \"{}\"\n", ca.display());
    }
    if cell.network == Network::OnlyProxy {
        text += &format!("proxy = \"{}\"\n", proxy());
    }
    let server = |url: &String| {
        let (user, password) = (services::USERNAME, services::PASSWORD);
        format!("{{ url = \"{url}\", username = \"{user}\", credential = \"{password}\" }}")
    };
    if !cell.turn_urls.is_empty() {
        let servers: Vec<String> = cell.turn_urls.iter().map(server).collect();
        text += &format!("ice_servers = [ {} ]\n", servers.join(", "));
    }
    text
}
