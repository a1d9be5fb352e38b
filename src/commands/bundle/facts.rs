//! What support asks of the machine: kernel, distribution, load, clock, interfaces, the journal of the unit. Each is
//! bounded, in size and in time, and one that cannot be had says why.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::network::Network;

/// Longest wait for a program.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most that is read of a file of the system.
const FILE_MAX: u64 = 64 << 10;
/// Most that is read of a program's output.
const OUTPUT_MAX: u64 = 16 << 20;
/// The name of the unit.
const UNIT: &str = "onair.service";
/// The latest lines of the journal.
const LINES: &str = "--lines=5000";

/// The program and how it was built.
pub(super) fn build() -> Value {
    let program = fs::metadata("/proc/self/exe").ok();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "architecture": std::env::consts::ARCH,
        "debug_build": cfg!(debug_assertions),
        "program_bytes": program.map(|program| program.len()),
    })
}

/// The machine and its system.
pub(super) fn system() -> Value {
    let line = |path: &str| file(path).map(|text| text.trim().to_owned());
    let entry = |path: &str, name: &str, mark: char| {
        let text = file(path)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(mark));
        let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
        Some(value.trim().trim_matches('"').to_owned())
    };
    let cpus = file("/proc/cpuinfo").unwrap_or_default();
    let cpus = cpus.lines().filter(|line| line.starts_with("processor"));
    json!({
        "kernel": line("/proc/sys/kernel/osrelease"),
        "kernel_build": line("/proc/sys/kernel/version"),
        "distribution": entry("/etc/os-release", "PRETTY_NAME", '='),
        "cpu": entry("/proc/cpuinfo", "model name", ':')
            .or_else(|| entry("/proc/cpuinfo", "Model", ':')),
        "cpus": cpus.count(),
        "memory": entry("/proc/meminfo", "MemTotal", ':'),
        "memory_available": entry("/proc/meminfo", "MemAvailable", ':'),
        "load": line("/proc/loadavg"),
        "uptime_s": line("/proc/uptime").and_then(|up| Some(up.split(' ').next()?.to_owned())),
        "boot": line("/proc/sys/kernel/random/boot_id"),
        "temperatures": temperatures(),
        "this_user": entry("/proc/self/status", "Uid", ':'),
        "this_users_groups": entry("/proc/self/status", "Groups", ':'),
        "groups_of_devices": devices_groups(),
    })
}

/// What the kernel's sensors say, in thousandths of a degree.
fn temperatures() -> Value {
    let zones = names("/sys/class/thermal").into_iter().filter_map(|zone| {
        let path = format!("/sys/class/thermal/{zone}");
        let kind = file(&format!("{path}/type"))?.trim().to_owned();
        let now = file(&format!("{path}/temp"))?.trim().to_owned();
        Some((format!("{zone} {kind}"), Value::from(now)))
    });
    Value::Object(zones.collect())
}

/// The numbers of the groups that may use cameras and microphones.
fn devices_groups() -> Value {
    let groups = file("/etc/group").unwrap_or_default();
    let group = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let number = fields.nth(1)?.to_owned();
        ["audio", "video"]
            .contains(&name.as_str())
            .then(|| (name, number.into()))
    };
    Value::Object(groups.lines().filter_map(group).collect())
}

/// The wall clock, and whether somebody keeps it right.
pub(super) fn time(now: String) -> Value {
    const SHOWN: [&str; 5] = ["CanNTP", "NTP", "NTPSynchronized", "Timezone", "LocalRTC"];
    let said = output("timedatectl", &["show"]);
    let shown = said.as_deref().unwrap_or_default();
    let shown: Map<String, Value> = (shown.lines())
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| SHOWN.contains(name))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    json!({ "now": now, "timedatectl": shown, "error": said.err() })
}

/// The interfaces by name, without addresses.
pub(super) fn network(network: &Network) -> Value {
    const FACTS: [&str; 12] = [
        "operstate",
        "carrier",
        "carrier_changes",
        "mtu",
        "speed",
        "type",
        "statistics/rx_bytes",
        "statistics/rx_dropped",
        "statistics/rx_errors",
        "statistics/tx_bytes",
        "statistics/tx_dropped",
        "statistics/tx_errors",
    ];
    let interfaces = names("/sys/class/net").into_iter().map(|name| {
        let fact = |fact: &str| {
            let text = file(&format!("/sys/class/net/{name}/{fact}"))?;
            Some((fact.to_owned(), Value::from(text.trim())))
        };
        let facts: Map<String, Value> = FACTS.into_iter().filter_map(fact).collect();
        (name.clone(), Value::Object(facts))
    });
    let interfaces: Map<String, Value> = interfaces.collect();
    let resolvers = file("/etc/resolv.conf").unwrap_or_default();
    let resolvers = (resolvers.lines()).filter(|line| line.starts_with("nameserver"));
    let way = |route: &Option<crate::network::Route>| {
        route
            .as_ref()
            .map(|route| json!({ "interface": route.interface, "router": route.gateway.is_some() }))
    };
    json!({
        "interfaces": interfaces,
        "addresses_v4": network.addresses.iter().filter(|address| address.is_ipv4()).count(),
        "addresses_v6": network.addresses.iter().filter(|address| address.is_ipv6()).count(),
        "default_route_v4": way(&network.route_v4),
        "default_route_v6": way(&network.route_v6),
        "resolvers": resolvers.count(),
    })
}

/// The latest lines of the unit's journal.
pub(super) fn journal() -> Result<String, String> {
    let arguments = [
        "--unit",
        UNIT,
        "--no-pager",
        "--no-hostname",
        "--output=short-iso-precise",
        "--quiet",
        LINES,
    ];
    match output("journalctl", &arguments)? {
        empty if empty.trim().is_empty() => Err(format!(
            "it has no entries of {UNIT}, or this user may not read them; try again as root"
        )),
        text => Ok(text),
    }
}

/// What a program says on standard output, as far as it is text and no longer than allowed.
fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let pipe = child.stdout.take();
    let (done, read) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.map(|pipe| pipe.take(OUTPUT_MAX).read_to_end(&mut bytes));
        // Nobody waits any more if it took too long.
        _ = done.send((read, bytes));
    });
    let result = read.recv_timeout(DEADLINE);
    // It has closed its output, or is not waited for.
    drop(child.kill());
    drop(child.wait());
    drop(reading.join());
    match result {
        Ok((Some(Ok(_)), bytes)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Ok((Some(Err(error)), _)) => Err(format!("{program} cannot be read: {error}")),
        Ok((None, _)) => Err(format!("{program} has no output")),
        Err(_) => Err(format!(
            "{program} did not answer within {} s",
            DEADLINE.as_secs()
        )),
    }
}

fn file(path: &str) -> Option<String> {
    let file = fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The names in a folder, in order.
fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_a_loopback() {
        assert!(system()["kernel"].as_str().is_some_and(|k| !k.is_empty()));
        assert!(network(&Network::default())["interfaces"]["lo"]["mtu"].is_string());
    }

    #[test]
    fn programs_that_are_missing_or_silent_are_said() {
        let missing = output("onair-no-such-program", &[]).unwrap_err();
        assert!(missing.contains("cannot be run"), "{missing}");
        assert_eq!(output("true", &[]).unwrap(), "");
        assert_eq!(output("echo", &["here"]).unwrap(), "here\n");
        let endless = output("yes", &[]).unwrap();
        assert_eq!(endless.len() as u64, OUTPUT_MAX);
    }
}
