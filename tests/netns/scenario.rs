//! What happens in a cell: the lab and the agent are started in their network, the network changes, both are ended in
//! order, and what they said and reported is handed on to be judged.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use onair::lab::Profile;
use serde_json::Value;

use super::cells::{Cell, Expected, Network, Scenario};
use super::program::{Program, Said};
use super::services;
use super::world::{self, Place, World, now};

/// Longest wait for a program to be ready.
const READY: Duration = Duration::from_secs(20);
/// Longest wait for something that only time brings: the longest of them, the ghost of a session at OvenMediaEngine,
/// takes 30 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// What was seen in a cell.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The agent's report.
    pub(crate) agent: Value,
    /// The lab's report.
    pub(crate) lab: Value,
    /// Why sessions ended, in order.
    pub(crate) ends: Vec<String>,
    /// How the agent came back, where the network was changed.
    pub(crate) back: Option<Back>,
}

/// How the agent came back on air.
#[derive(Clone, Debug)]
pub(crate) struct Back {
    /// From the disturbance to the agent's first word of it; `None` where it began before the agent did.
    pub(crate) noticed: Option<Duration>,
    /// From the network's return to media accepted.
    pub(crate) after: Duration,
    /// By a new session or by a restart of ICE.
    pub(crate) how: &'static str,
}

/// What the agent says of its state.
enum Word {
    /// Media is accepted.
    OnAir,
    /// ICE was restarted in place.
    Restarted,
    /// The path is lost, or the network known to have changed.
    Noticed,
    /// A session ended, for this reason.
    Ended(String),
}

/// The agent's word in a line of its log, if it is one.
fn word(said: &Said) -> Option<Word> {
    let message = said.field("message");
    if message.starts_with("media accepted after") {
        return Some(Word::OnAir);
    }
    if message == "ICE is restarted" {
        return Some(Word::Restarted);
    }
    if message == "restarting ICE" || message == "the network changed under the session" {
        return Some(Word::Noticed);
    }
    if message.starts_with("session ended") || message.starts_with("needs a person") {
        return Some(Word::Ended(said.field("cause")));
    }
    None
}

/// Plays `cell` and returns what was seen, or what kept it from being played. `certificates` is the folder of the
/// servers' certificate.
pub(crate) fn play(cell: &Cell, folder: &Path, certificates: &Path) -> Result<Seen, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let world = World::build(&format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed)))?;
    let services = start_services(&world, folder, certificates)?;
    let (lab, url) = start_lab(&world, cell, folder, certificates)?;
    let rules = cell.network.rules(port(&url)?);
    world.filter(if cell.scenario == Scenario::Returns {
        ""
    } else {
        &rules
    })?;
    let mut actor = Actor {
        program: start_agent(&world, cell, &url, folder, certificates)?,
        ends: Vec::new(),
    };
    let back = match cell.scenario {
        Scenario::Start => {
            match cell.expected {
                Expected::OnAir(_) => actor.on_air("on air").map(drop)?,
                Expected::Error(_) => actor.ended()?,
            }
            None
        }
        Scenario::Returns => {
            actor.ended()?;
            world.filter(&rules)?;
            let lifted = now();
            let (at, how) = actor.on_air("on air once the network is there")?;
            Some(Back {
                noticed: None,
                after: at - lifted,
                how,
            })
        }
        Scenario::Outage | Scenario::LinkFlap | Scenario::NewAddress | Scenario::NewRoute => {
            actor.on_air("on air before the disturbance")?;
            let begun = now();
            disturb(&world, cell.scenario)?;
            let noticed = match cell.scenario {
                Scenario::Outage | Scenario::LinkFlap => Some(actor.noticed()?),
                // These come back before anything need be noticed.
                _ => None,
            };
            let lifted = now();
            restore(&world, cell.scenario, &rules)?;
            let (at, how) = actor.on_air("back on air")?;
            Some(Back {
                noticed: noticed.map(|at| at - begun),
                after: at - lifted,
                how,
            })
        }
    };
    let Actor { program, mut ends } = actor;
    program.end(|said| {
        if let Some(Word::Ended(cause)) = word(said) {
            ends.push(cause);
        }
    })?;
    let agent = report(&folder.join("agent.json"))?;
    lab.end(|_| ())?;
    services.end(|_| ())?;
    let lab = report(&folder.join("lab.json"))?;
    Ok(Seen {
        agent,
        lab,
        ends,
        back,
    })
}

/// The agent as it runs.
struct Actor {
    program: Program,
    ends: Vec<String>,
}

impl Actor {
    /// Waits until media is accepted; returns when, and how it came to that.
    fn on_air(&mut self, what: &str) -> Result<(Instant, &'static str), String> {
        let ends = &mut self.ends;
        let found = self
            .program
            .until(what, PATIENCE, |said| match word(said)? {
                Word::OnAir => Some((said.at, "new session")),
                Word::Restarted => Some((said.at, "ICE restart")),
                Word::Noticed => None,
                Word::Ended(cause) => {
                    ends.push(cause);
                    None
                }
            });
        found.map_err(|why| match self.ends.last() {
            Some(cause) => format!("{why}; the last session ended so: {cause}"),
            None => why,
        })
    }

    /// Waits until the agent says that it is off the air or about to be.
    fn noticed(&mut self) -> Result<Instant, String> {
        let ends = &mut self.ends;
        self.program
            .until("the loss is noticed", PATIENCE, |said| match word(said)? {
                Word::Noticed => Some(said.at),
                Word::Ended(cause) => {
                    ends.push(cause);
                    Some(said.at)
                }
                Word::OnAir | Word::Restarted => None,
            })
    }

    /// Waits until a session has ended.
    fn ended(&mut self) -> Result<(), String> {
        let ends = &mut self.ends;
        self.program
            .until("an end of the session", PATIENCE, |said| {
                match word(said)? {
                    Word::Ended(cause) => {
                        ends.push(cause);
                        Some(())
                    }
                    Word::OnAir | Word::Restarted | Word::Noticed => None,
                }
            })
    }
}

/// Takes the network away, or moves the agent.
fn disturb(world: &World, scenario: Scenario) -> Result<(), String> {
    match scenario {
        Scenario::Outage => world.filter(""),
        Scenario::LinkFlap => world.ip(Place::Agent, "link set wan0 down\n"),
        Scenario::NewAddress => world.ip(
            Place::Agent,
            &format!(
                "address del {}/24 dev wan0\naddress add {}/24 dev wan0\nroute replace default via 198.51.100.1\n",
                world::AGENT,
                world::AGENT_LATER
            ),
        ),
        Scenario::NewRoute => world.ip(
            Place::Agent,
            "address add 192.0.2.2/24 dev wan1\nlink set wan1 up\nroute replace default via 192.0.2.1\n",
        ),
        Scenario::Start | Scenario::Returns => Ok(()),
    }
}

/// Gives the network back, which lets pass what `rules` do.
fn restore(world: &World, scenario: Scenario, rules: &str) -> Result<(), String> {
    match scenario {
        Scenario::Outage => world.filter(rules),
        Scenario::LinkFlap => world.ip(
            Place::Agent,
            "link set wan0 up\nroute replace default via 198.51.100.1\n",
        ),
        Scenario::NewAddress | Scenario::NewRoute | Scenario::Start | Scenario::Returns => Ok(()),
    }
}

/// Starts what stands beside the ingest server.
fn start_services(world: &World, folder: &Path, certificates: &Path) -> Result<Program, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = world.command(Place::Server, &this);
    command.arg(services::ROLE).arg(certificates);
    let mut services = Program::start(&mut command, &folder.join("services.log"))?;
    services.until("the services are ready", READY, |said| {
        (said.line == services::READY).then_some(())
    })?;
    Ok(services)
}

/// Starts the lab as the cell's profile and returns where it takes publishers.
fn start_lab(
    world: &World,
    cell: &Cell,
    folder: &Path,
    certificates: &Path,
) -> Result<(Program, String), String> {
    let profile = cell.profile;
    let listen = match cell.network {
        Network::Ipv6 => format!("[{}]:0", world::INGEST_V6),
        _ => format!("{}:0", world::INGEST),
    };
    let mut command = world.command(Place::Server, Path::new(env!("CARGO_BIN_EXE_onair")));
    command
        .args(["lab", "--log", "info", "--profile", profile.name()])
        .args(["--listen", &listen])
        .arg("--report")
        .arg(folder.join("lab.json"));
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
    lab.until("the lab is ready", READY, |said| {
        if let Some(address) = said.line.strip_prefix(&prefix) {
            url = Some(address.to_owned());
        }
        said.line.starts_with("page ").then_some(())
    })?;
    let url = url.ok_or("the lab does not say where it takes publishers")?;
    Ok((lab, url))
}

/// The port in `url`.
fn port(url: &str) -> Result<u16, String> {
    let url = url::Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
    url.port_or_known_default()
        .ok_or_else(|| format!("{url} has no port"))
}

/// Starts the agent that publishes a small feed to `url`.
fn start_agent(
    world: &World,
    cell: &Cell,
    url: &str,
    folder: &Path,
    certificates: &Path,
) -> Result<Program, String> {
    let path = folder.join("onair.toml");
    let text = configuration(cell, url, certificates);
    std::fs::write(&path, text).map_err(|error| error.to_string())?;
    let mut command: Command = world.command(Place::Agent, Path::new(env!("CARGO_BIN_EXE_onair")));
    command
        .args(["run", "--log", "info", "--log-format", "json", "--config"])
        .arg(path)
        .arg("--report")
        .arg(folder.join("agent.json"));
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
    format!("http://{}:3128", world::PROXY)
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

fn report(path: &PathBuf) -> Result<Value, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}
