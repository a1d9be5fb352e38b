//! The network of one cell: agent, router, a second router, server, each a network namespace.
//!
//! ```text
//! agent 198.51.100.2 --- 198.51.100.1 router 192.0.3.1 --- 192.0.3.2 server 203.0.113.10 .20 .30
//!       192.0.2.2    --- 192.0.2.1    detour 192.0.4.1 --- 192.0.4.2
//! ```
//!
//! The first line speaks IPv6 too, and the ingest server has an address there. The first router forwards what its rules let pass; the second one, of another provider, forwards everything and
//! is used only by cells in which the agent moves. The server's three addresses are those of the ingest server, of a
//! TURN server, and of a proxy.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Address of the ingest server: signalling and media.
pub(crate) const INGEST: &str = "203.0.113.10";
/// The ingest server's other address.
pub(crate) const INGEST_V6: &str = "2001:db8:3::10";
/// Address of the TURN server.
pub(crate) const TURN: &str = "203.0.113.20";
/// Address of the proxy.
pub(crate) const PROXY: &str = "203.0.113.30";
/// The agent's address on its first line.
pub(crate) const AGENT: &str = "198.51.100.2";
/// The address that the agent's first line may get instead.
pub(crate) const AGENT_LATER: &str = "198.51.100.77";

/// Shows, in a sandbox, that everything a cell needs is allowed there.
pub(crate) const PROOF: &str = "set -e; mount -t tmpfs none /run; mkdir /run/netns; ip netns add proof; \
    ip -n proof link add left type veth peer name right; nsenter --net=/run/netns/proof nft add table inet proof";

/// A namespace of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where onair publishes.
    Agent,
    /// The second router.
    Detour,
    /// The router whose rules make the network.
    Router,
    /// Where the lab serves.
    Server,
}

/// The namespaces of one cell, taken down when dropped.
#[derive(Debug)]
pub(crate) struct World {
    id: String,
}

impl World {
    /// Builds the network called `id`, everything open.
    pub(crate) fn build(id: &str) -> Result<Self, String> {
        let world = Self { id: id.to_owned() };
        let name = |place| world.namespace(place);
        for place in [Place::Agent, Place::Detour, Place::Router, Place::Server] {
            execute(Command::new("ip").args(["netns", "add", &name(place)]), "")?;
            execute(world.command(place, Path::new("sh")).args(["-c", EASY]), "")?;
        }
        let (detour, router) = (name(Place::Detour), name(Place::Router));
        world.ip(
            Place::Agent,
            &format!(
                "link set lo up\n\
                 link add wan0 type veth peer name lan0 netns {router}\n\
                 link add wan1 type veth peer name lan0 netns {detour}\n\
                 address add {AGENT}/24 dev wan0\n\
                 address add 2001:db8:1::2/64 dev wan0 nodad\n\
                 link set wan0 up\n\
                 route add default via 198.51.100.1\n\
                 route add ::/0 via 2001:db8:1::1\n"
            ),
        )?;
        world.ip(
            Place::Server,
            &format!(
                "link set lo up\n\
                 link add up0 type veth peer name srv0 netns {router}\n\
                 link add up1 type veth peer name srv0 netns {detour}\n\
                 address add {INGEST}/32 dev lo\n\
                 address add {TURN}/32 dev lo\n\
                 address add {PROXY}/32 dev lo\n\
                 address add {INGEST_V6}/128 dev lo nodad\n\
                 address add 192.0.3.2/24 dev up0\n\
                 address add 192.0.4.2/24 dev up1\n\
                 address add 2001:db8:2::2/64 dev up0 nodad\n\
                 link set up0 up\n\
                 link set up1 up\n\
                 route add 192.0.2.0/24 via 192.0.4.1\n\
                 route add default via 192.0.3.1\n\
                 route add ::/0 via 2001:db8:2::1\n"
            ),
        )?;
        for (place, lan, srv) in [
            (Place::Router, "198.51.100", "192.0.3"),
            (Place::Detour, "192.0.2", "192.0.4"),
        ] {
            world.ip(
                place,
                &format!(
                    "address add {lan}.1/24 dev lan0\n\
                     address add {srv}.1/24 dev srv0\n\
                     link set lan0 up\n\
                     link set srv0 up\n\
                     route add 203.0.113.0/24 via {srv}.2\n\
                     route add blackhole default\n"
                ),
            )?;
            if place == Place::Router {
                world.ip(
                    place,
                    &format!(
                        "address add 2001:db8:1::1/64 dev lan0 nodad\n\
                         address add 2001:db8:2::1/64 dev srv0 nodad\n\
                         route add {INGEST_V6}/128 via 2001:db8:2::2\n"
                    ),
                )?;
            }
            execute(
                world.command(place, Path::new("sh")).args(["-c", FORWARD]),
                "",
            )?;
        }
        // As a provider does that lets pass nobody else's addresses (BCP 38).
        execute(
            world
                .command(Place::Detour, Path::new("nft"))
                .args(["-f", "-"]),
            "table inet cell {\n\
             chain forward {\n\
             type filter hook forward priority 0; policy accept;\n\
             iifname lan0 ip saddr != 192.0.2.0/24 drop\n\
             }\n\
             }\n",
        )?;
        Ok(world)
    }

    /// Lets the first router pass what `rules` accept, in the language of nftables, and nothing else.
    pub(crate) fn filter(&self, rules: &str) -> Result<(), String> {
        let ruleset = format!(
            "flush ruleset\n\
             table inet cell {{\n\
             chain forward {{\n\
             type filter hook forward priority 0; policy drop;\n\
             {rules}\n\
             }}\n\
             }}\n"
        );
        execute(
            self.command(Place::Router, Path::new("nft"))
                .args(["-f", "-"]),
            &ruleset,
        )
    }

    /// Carries out lines of `ip -batch`.
    pub(crate) fn ip(&self, place: Place, batch: &str) -> Result<(), String> {
        execute(
            Command::new("ip").args(["-n", &self.namespace(place), "-batch", "-"]),
            batch,
        )
    }

    /// A program that runs in `place`.
    pub(crate) fn command(&self, place: Place, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace(place)))
            .arg("--")
            .arg(program);
        command
    }

    fn namespace(&self, place: Place) -> String {
        let letter = match place {
            Place::Agent => 'a',
            Place::Detour => 'd',
            Place::Router => 'r',
            Place::Server => 's',
        };
        format!("{}{letter}", self.id)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for place in [Place::Agent, Place::Detour, Place::Router, Place::Server] {
            // What could not be taken down goes with the sandbox.
            drop(execute(
                Command::new("ip").args(["netns", "del", &self.namespace(place)]),
                "",
            ));
        }
    }
}

/// Every namespace takes packets by whatever line they come, and IPv6 addresses are good at once.
const EASY: &str = "cd /proc/sys/net && for of in all default; do \
    echo 0 > ipv4/conf/$of/rp_filter; echo 0 > ipv6/conf/$of/accept_dad; echo 0 > ipv6/conf/$of/accept_ra; done";

/// A router forwards.
const FORWARD: &str =
    "cd /proc/sys/net && echo 1 > ipv4/ip_forward && echo 1 > ipv6/conf/all/forwarding";

/// Makes the sandbox ready for cells, and `folder` exist.
pub(crate) fn prepare(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    // The first namespace makes /run/netns what the others, that come several at a time, want it to be.
    let first = "set -e; mount -t tmpfs none /run; mkdir /run/netns; ip netns add first";
    execute(Command::new("sh").args(["-c", first]), "")
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout == b"0\n")
}

/// Runs a short command to its end, with `input`.
fn execute(command: &mut Command, input: &str) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes())
            .map_err(|error| error.to_string())?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed: {}", said.trim()))
}

/// This instant.
#[expect(
    clippy::disallowed_methods,
    reason = "the runner's one reading of the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
