//! What happens in a cell: the lab and the agent are started in their network, the network changes, both are ended in
//! order, and what they said and reported is handed on to be judged.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cast;
use super::cells::{Cell, Expected, Scenario};
use super::program::{Program, Said};
use super::world::{self, Place, World, now};

/// Longest wait for something that only time brings: the longest of them, the ghost of a session at OvenMediaEngine,
/// takes 30 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// Pictures that show a session to be alive: more than may have been on their way.
const FURTHER: u64 = 10;

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
    /// By a new session or by a restart of ICE, or that the session was kept as it was.
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
    let changed = message.starts_with("the network has changed");
    if changed || message == "restarting ICE" {
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
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.to_string()),
        _ => std::fs::create_dir_all(folder).map_err(|error| error.to_string())?,
    }
    let world = World::build(&format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed)))?;
    let services = cast::start_services(&world, folder, certificates)?;
    let (lab, url, page) = cast::start_lab(&world, cell, folder, certificates)?;
    let rules = cell.network.rules(cast::port(&url)?);
    world.filter(if cell.scenario == Scenario::Returns {
        ""
    } else {
        &rules
    })?;
    let mut actor = Actor {
        program: cast::start_agent(&world, cell, &url, folder, certificates)?,
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
                // Each of these takes a way and gives another at once.
                Scenario::Start | Scenario::Returns | Scenario::NewAddress | Scenario::NewRoute => {
                    None
                }
            };
            let lifted = now();
            restore(&world, cell.scenario, &rules)?;
            let (at, how) = match cell.scenario {
                Scenario::LinkFlap => actor.on_air_or_kept(&world, &page)?,
                Scenario::Start
                | Scenario::Returns
                | Scenario::Outage
                | Scenario::NewAddress
                | Scenario::NewRoute => actor.on_air("back on air")?,
            };
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
    let agent = report(&folder.join(cast::AGENT_REPORT))?;
    lab.end(|_| ())?;
    services.end(|_| ())?;
    let lab = report(&folder.join(cast::LAB_REPORT))?;
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

    /// Waits until media is accepted again, or until the lab decodes further pictures without that.
    fn on_air_or_kept(
        &mut self,
        world: &World,
        page: &str,
    ) -> Result<(Instant, &'static str), String> {
        let before = cast::decoded(world, page)?;
        let deadline = now() + PATIENCE;
        while now() < deadline {
            match self.program.soon().as_ref().and_then(word) {
                Some(Word::OnAir) => return Ok((now(), "new session")),
                Some(Word::Restarted) => return Ok((now(), "ICE restart")),
                Some(Word::Ended(cause)) => self.ends.push(cause),
                Some(Word::Noticed) => {}
                None if cast::decoded(world, page)? >= before + FURTHER => {
                    return Ok((now(), "session kept"));
                }
                None => {}
            }
        }
        Err(format!("back on air: not within {} s", PATIENCE.as_secs()))
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

fn report(path: &PathBuf) -> Result<Value, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}
